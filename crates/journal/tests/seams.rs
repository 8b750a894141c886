//! Both disks, and the journal in files on both, pass the suites of their seams.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use mainstem_journal::*;
use std::path::Path;
use std::sync::Arc;

#[test]
fn the_real_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    conformance::disk(&RealDisk, dir.path());
}

#[test]
fn the_disk_in_memory_keeps_the_contract() {
    conformance::disk(&MemoryDisk::new(1), Path::new("/a/b"));
}

fn file_medium(disk: Arc<dyn Disk>, dir: &Path) {
    conformance::medium(&|known| {
        let options = JournalOptions {
            file_bytes: 64 << 10,
            ..JournalOptions::default()
        };
        let (medium, replay) = FileMedium::open(disk.clone(), dir, options, known)?;
        Ok((Box::new(medium) as Box<dyn Medium>, replay))
    });
}

#[test]
fn files_on_the_real_disk_are_a_medium() {
    let dir = tempfile::tempdir().unwrap();
    file_medium(Arc::new(RealDisk), &dir.path().join("journal"));
}

#[test]
fn files_on_the_disk_in_memory_are_a_medium() {
    file_medium(Arc::new(MemoryDisk::new(1)), Path::new("/data/journal"));
}

#[test]
fn a_directory_is_locked_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    let lock = DirectoryLock::acquire(&path).unwrap();
    let refused = DirectoryLock::acquire(&path).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("(process {})", std::process::id())),
        "{refused}"
    );
    drop(lock);
    DirectoryLock::acquire(&path).unwrap();
}

#[test]
fn a_small_file_is_replaced_whole() {
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    let path = Path::new("/d/meta.json");
    write_file_durably(&disk, path, b"one").unwrap();
    for seed in 0..50 {
        disk.halt_after(seed % 5);
        let replaced = write_file_durably(&disk, path, format!("two {seed}").as_bytes()).is_ok();
        disk.crash_power(seed);
        let file = disk.open(path, OpenMode::Read).unwrap();
        let mut bytes = [0; 16];
        let read = file.read_at(&mut bytes, 0).unwrap();
        let text = std::str::from_utf8(&bytes[..read]).unwrap();
        assert!(
            text == format!("two {seed}")
                || (!replaced && (text == "one" || text.starts_with("two "))),
            "{text}"
        );
    }
}
