//! The names of directories survive, whoever made them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{apply, batch, checkpoint, partition, small, topics};
use mainstem_journal::{Disk, DiskFile, Lsn, MemoryDisk, OpenMode};
use mainstem_log::{Log, LogOp};

/// A disk that notes which directories are synced.
struct Watched {
    disk: MemoryDisk,
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl Disk for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.disk.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.synced.lock().unwrap().insert(dir.to_owned());
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

#[test]
fn a_partitions_first_segment_makes_the_names_above_it_durable_too() {
    let disk = Arc::new(Watched {
        disk: MemoryDisk::new(1),
        synced: Mutex::default(),
    });
    // A process that died has made all the directories, and synced none.
    disk.create_dir_all(&topics()).unwrap();
    let log = Log::open(disk.clone(), &topics(), small(), Vec::new(), Lsn::ZERO).unwrap();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let append = |base| {
        let batch = batch(base, 0, &[1], 2_000);
        let partition = id;
        apply(
            &log,
            LogOp::Append {
                begins_segment: false,
                partition,
                batch,
            },
        );
        checkpoint(&log);
        std::mem::take(&mut *disk.synced.lock().unwrap())
    };
    let first = append(0);
    let below = first.iter().map(|dir| dir.strip_prefix(topics()).unwrap());
    let depths: Vec<usize> = below.map(|dir| dir.components().count()).collect();
    assert_eq!(
        depths,
        [0, 1, 2],
        "topics, the topic, the partition: {first:?}"
    );
    // A later segment is a name in the partition's directory alone.
    let second = append(1);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_eq!(second.last(), first.last());
}
