//! What the disk in memory does to those who did not sync.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use mainstem_journal::disk::Op;
use mainstem_journal::*;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

fn with_file() -> (MemoryDisk, std::sync::Arc<dyn DiskFile>) {
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new("/d/a"), OpenMode::Create).unwrap();
    (disk, file)
}

fn contents(disk: &MemoryDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn a_process_crash_leaves_bytes_that_power_loss_still_takes() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (disk, file) = with_file();
        file.write_all_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(&[2; 1024], 0).unwrap();
        disk.crash_process();
        assert!(
            file.sync_data().is_err(),
            "a handle from before the crash is dead"
        );
        assert_eq!(
            contents(&disk, "/d/a").unwrap(),
            [2; 1024],
            "unsynced, but readable"
        );
        let lost = disk.crash_power(seed);
        let left = contents(&disk, "/d/a").unwrap();
        let is_lost = |at: usize| u64::from(left[at] == 1);
        assert_eq!(lost.sectors, is_lost(0) + is_lost(512));
        assert_eq!(lost.torn_files, u64::from(lost.sectors == 1));
        assert_eq!(lost.reordered_files, u64::from(is_lost(0) > is_lost(512)));
        assert!(
            left[..512].iter().all(|b| *b == left[0])
                && left[512..].iter().all(|b| *b == left[512])
        );
        seen.insert((left[0], left[512]));
    }
    assert_eq!(
        seen.len(),
        4,
        "each sector is kept or lost by itself: {seen:?}"
    );
}

#[test]
fn what_was_synced_stays() {
    for seed in 0..50 {
        let (disk, file) = with_file();
        file.write_all_at(&[1; 5000], 7).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(&[2; 100], 9000).unwrap();
        disk.crash_power(seed);
        assert_eq!(
            contents(&disk, "/d/a").unwrap()[..5007],
            [vec![0; 7], vec![1; 5000]].concat()
        );
    }
}

#[test]
fn names_that_were_not_synced_may_be_undone() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (disk, file) = with_file();
        file.write_all_at(b"a", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        let new = disk.open(Path::new("/d/b"), OpenMode::Create).unwrap();
        new.write_all_at(b"b", 0).unwrap();
        new.sync_data().unwrap();
        disk.rename(Path::new("/d/b"), Path::new("/d/a")).unwrap();
        disk.crash_power(seed);
        seen.insert((contents(&disk, "/d/a").unwrap(), contents(&disk, "/d/b")));
    }
    let old = (b"a".to_vec(), None);
    let between = (b"a".to_vec(), Some(b"b".to_vec()));
    let new = (b"b".to_vec(), None);
    assert_eq!(seen, BTreeSet::from([old, between, new]));
}

#[test]
fn a_name_that_comes_back_has_its_bytes() {
    let mut came_back = false;
    for seed in 0..100 {
        let (disk, _) = with_file();
        let new = disk.open(Path::new("/d/b"), OpenMode::Create).unwrap();
        new.write_all_at(b"b", 0).unwrap();
        new.sync_data().unwrap();
        drop(new);
        disk.remove_file(Path::new("/d/b")).unwrap();
        disk.crash_process();
        disk.crash_power(seed);
        // The removal was lost, and the creation was not.
        if disk.exists(Path::new("/d/b")) {
            came_back = true;
            assert_eq!(contents(&disk, "/d/b"), Some(b"b".to_vec()));
        }
    }
    assert!(came_back);
}

#[test]
fn after_a_failed_sync_a_later_one_proves_nothing() {
    let mut lost = false;
    for seed in 0..50 {
        let (disk, file) = with_file();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        disk.inject(Op::Sync, 0, 1, ErrorKind::Other);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        disk.crash_power(seed);
        lost |= contents(&disk, "/d/a").unwrap() != [1; 512];
    }
    assert!(lost);
}

#[test]
fn a_full_disk_says_so_and_has_room_again_after_a_removal() {
    let (disk, file) = with_file();
    disk.set_capacity(1000);
    file.write_all_at(&[1; 1000], 0).unwrap();
    let other = disk.open(Path::new("/d/b"), OpenMode::Create).unwrap();
    for refused in [other.write_all_at(&[1], 0), other.allocate(10)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::StorageFull);
    }
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 0);
    drop(file);
    disk.remove_file(Path::new("/d/a")).unwrap();
    other.write_all_at(&[1; 900], 0).unwrap();
    assert_eq!(disk.counts().of(Op::Write), 3);
}
