//! The disk of the machine.

use super::staging::Stage;
use super::{BLOCK_BYTES, Disk, DiskFile, DiskWork, OpenMode};
use crate::mutation;
use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// From this size on whole blocks go to the disk without passing through the page cache: a large log would push
/// everything else out of it, and pages that are fresh cost more than the write.
const DIRECT_FROM_BYTES: usize = 64 << 10;

/// Threads that sync many files, for as long as that takes.
const SYNCS_AT_ONCE: usize = 16;
/// The same for work that writes, which needs more of the processor.
const WRITES_AT_ONCE: usize = 4;
/// What one of these threads has to do at least.
const SHARE: usize = 4;

/// Does all pieces of work, a share of them on each of up to `threads` threads.
fn on_threads(threads: usize, mut work: Vec<DiskWork<'_>>) {
    let share = work.len().div_ceil(threads).max(SHARE);
    let run = |work: Vec<DiskWork<'_>>| work.into_iter().for_each(|piece| piece());
    std::thread::scope(|scope| {
        while work.len() > share {
            let theirs = Arc::new(Mutex::new(work.split_off(work.len() - share)));
            let mine = theirs.clone();
            let act = move || run(std::mem::take(&mut *mine.lock()));
            if std::thread::Builder::new()
                .spawn_scoped(scope, act)
                .is_err()
            {
                // The system has no thread to spare.
                run(std::mem::take(&mut *theirs.lock()));
            }
        }
        run(work);
    });
}

struct RealFile {
    file: File,
    /// The same file past the page cache, once there is something for it; `None` where the file system does not have it.
    direct: OnceLock<Option<File>>,
    /// It took the file, but not a write.
    direct_refused: AtomicBool,
}

impl RealFile {
    fn new(file: File) -> RealFile {
        RealFile {
            file,
            direct: OnceLock::new(),
            direct_refused: AtomicBool::new(false),
        }
    }

    fn direct(&self) -> Option<&File> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        let open = || {
            let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
            let mut options = File::options();
            options
                .write(true)
                .custom_flags(OFlags::DIRECT.bits() as i32);
            options.open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Writes what lies in memory as it will in the file's blocks.
    fn write_staged(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let direct =
            whole_blocks(bytes.len(), position).and_then(|blocks| Some((blocks, self.direct()?)));
        let Some(((from, to), direct)) = direct else {
            return self.file.write_all_at(bytes, position);
        };
        let (head, rest) = bytes.split_at(from);
        let (blocks, tail) = rest.split_at(to - from);
        self.file.write_all_at(head, position)?;
        match direct.write_all_at(blocks, position + from as u64) {
            // Not with blocks of this size, or not at all, as some file systems say only now. What is written stays, and is
            // written again.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.direct_refused.store(true, Ordering::Relaxed);
                self.file.write_all_at(blocks, position + from as u64)?;
            }
            outcome => outcome?,
        }
        self.file.write_all_at(tail, position + to as u64)
    }
}

/// The whole blocks of a write, `[from, to)` of its bytes, if they are so many that they go past the page cache.
fn whole_blocks(len: usize, position: u64) -> Option<(usize, usize)> {
    let from = (position.next_multiple_of(BLOCK_BYTES as u64) - position) as usize;
    let blocks_bytes = len.checked_sub(from)? / BLOCK_BYTES * BLOCK_BYTES;
    (blocks_bytes >= DIRECT_FROM_BYTES).then_some((from, from + blocks_bytes))
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = File::options();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
            OpenMode::WriteOrCreate => {
                options.write(true).create(true).truncate(false);
            }
        }
        Ok(Arc::new(RealFile::new(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            self.create_dir_all(parent)?;
            fs::create_dir(path)
                .or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })?;
            self.sync_dir(parent)
        } else {
            fs::create_dir(path)
                .or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })?;
            self.sync_dir(Path::new("."))
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if mutation::active(mutation::NO_DIRECTORY_SYNC) {
            return Ok(());
        }
        File::open(dir)?.sync_all()
    }

    fn at_once(&self, work: Vec<DiskWork<'_>>) {
        on_threads(WRITES_AT_ONCE, work);
    }

    fn sync_files(&self, files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
        let outcome = Mutex::new(Ok(()));
        let sync = |file: &'_ Arc<dyn DiskFile>| {
            if let Err(error) = file.sync_data() {
                *outcome.lock() = Err(error);
            }
        };
        let work = files
            .iter()
            .map(|file| Box::new(|| sync(file)) as DiskWork<'_>);
        // Syncs under way together share the file system's commits and the disk's flushes: ten times quicker here.
        on_threads(SYNCS_AT_ONCE, work.collect());
        outcome.into_inner()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buf.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        match buf.len() < DIRECT_FROM_BYTES {
            true => self.file.write_all_at(buf, position),
            false => self.write_parts_at(&[buf], position),
        }
    }

    fn write_parts_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        if let Some(mut stage) = Stage::take() {
            let lead = (position % BLOCK_BYTES as u64) as usize;
            let write = |piece: &[u8], at: usize| self.write_staged(piece, position + at as u64);
            return stage.pass(parts, lead, write);
        }
        let mut position = position;
        for part in parts {
            self.file.write_all_at(part, position)?;
            position += part.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let have = self.len()?;
        if len <= have {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), have, len - have) {
            Ok(()) => Ok(()),
            // A file system without it: writing zeros takes the space as well.
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0; 1 << 20];
                let mut position = have;
                while position < len {
                    let n = (len - position).min(zeros.len() as u64);
                    self.file.write_all_at(&zeros[..n as usize], position)?;
                    position += n;
                }
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn will_read(&self, position: u64, bytes: u64) {
        if let Some(bytes) = NonZeroU64::new(bytes) {
            // Where the file system does not listen, the read itself fetches them.
            let _ = fadvise(&self.file, position, Some(bytes), Advice::WillNeed);
        }
    }

    fn os_file(&self) -> Option<BorrowedFd<'_>> {
        cfg!(target_os = "linux").then(|| self.file.as_fd())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_file_of_gathered_writes_holds_what_was_given(
            runs in prop::collection::vec(prop::collection::vec((0usize..200_000, any::<u8>()), 1..20), 1..5),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
            let mut expected = Vec::new();
            for run in runs {
                let position = expected.len() as u64;
                let piece = |(length, seed)| (0..length).map(|i| (i / 7) as u8 ^ seed).collect();
                let pieces: Vec<Vec<u8>> = run.into_iter().map(piece).collect();
                let parts: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
                expected.extend(parts.concat());
                file.write_parts_at(&parts, position).unwrap();
                let mut found = vec![0; expected.len() + 1];
                prop_assert_eq!(file.read_at(&mut found, 0).unwrap(), expected.len());
                prop_assert!(found[..expected.len()] == expected);
            }
        }
    }

    #[test]
    fn a_file_system_that_refuses_direct_writes_gets_them_through_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = RealFile::new(options.open(dir.path().join("file")).unwrap());
        // It answers EINVAL to what is no number, as some file systems do to direct writes.
        let refusing = File::options().write(true).open("/proc/self/oom_score_adj");
        file.direct.set(Some(refusing.unwrap())).unwrap();
        let bytes = vec![b'x'; 3 * DIRECT_FROM_BYTES];
        let whole = &bytes[1..][..2 * DIRECT_FROM_BYTES];
        assert!(whole_blocks(whole.len(), 0).is_some());
        file.write_all_at(whole, 0).unwrap();
        let mut read = vec![0; whole.len()];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), whole.len());
        assert_eq!(read, whole);
        assert!(file.direct().is_none(), "it is not tried again");
        file.write_all_at(whole, whole.len() as u64).unwrap();
        assert_eq!(file.len().unwrap(), 2 * whole.len() as u64);
    }
}
