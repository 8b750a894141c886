//! A small file system that somebody else fills.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory with a size, mounted as long as this lives.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Why none can be mounted here, where none can.
    pub fn refused() -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        SmallDisk::try_mount(dir.path(), 1).err()
    }

    /// Mounts one on a folder that is there.
    pub fn mount(dir: &Path, mib: u64) -> SmallDisk {
        SmallDisk::try_mount(dir, mib).unwrap()
    }

    fn try_mount(dir: &Path, mib: u64) -> Result<SmallDisk, String> {
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mib}m"),
                "mainstem-test",
            ])
            .arg(dir)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(SmallDisk {
                dir: dir.to_path_buf(),
            }),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim();
                Err(format!("a file system cannot be mounted here: {said}"))
            }
            Err(error) => Err(format!("`mount` cannot be run: {error}")),
        }
    }

    /// Another file takes all that is left.
    pub fn fill(&self) {
        let filled = (0..100).any(|_| {
            let mut command = Command::new("fallocate");
            command.arg("-l").arg(self.free_bytes().to_string());
            command
                .arg(self.filler())
                .output()
                .unwrap()
                .status
                .success()
        });
        assert!(filled, "the disk cannot be filled");
    }

    /// The other file goes.
    pub fn give_back(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("somebody-elses.file")
    }

    fn free_bytes(&self) -> u64 {
        let output = Command::new("df")
            .args(["--output=avail", "-B1"])
            .arg(&self.dir)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there ends with its test.
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}
