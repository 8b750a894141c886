//! Many partitions on a real file system: open files stay within their bound, and nothing is lost on the way.
//!
//! `MAINSTEM_PARTITIONS=10000` runs it at full size.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{batch, partition, read_all};
use mainstem_journal::{Lsn, RealDisk};
use mainstem_log::{Log, LogOp, LogOptions, PartitionId, PartitionRecord};

const OPEN_FILES: usize = 50;
/// What is synced together is open together, and the test itself has some.
const OPEN_BESIDES: usize = 300;

fn open(dir: &Path, recorded: Vec<PartitionRecord>, applied: Lsn) -> Log {
    let options = LogOptions {
        max_open_files: OPEN_FILES,
        ..LogOptions::default()
    };
    Log::open(
        Arc::new(RealDisk),
        &dir.join("topics"),
        options,
        recorded,
        applied,
    )
    .unwrap()
}

/// Appends to all in one group, and brings it to disk.
fn append_to_all(log: &Log, all: &[PartitionId], round: i64) -> Vec<PartitionRecord> {
    let lsn = log.applied().next();
    for id in all {
        let op = LogOp::Append {
            begins_segment: false,
            partition: *id,
            batch: batch(round * 2, 0, &[round, round], 20),
        };
        log.apply(lsn, common::placed(log, op)).unwrap();
    }
    log.finish_group(lsn);
    let records = common::checkpoint(log);
    log.evict(0);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open <= OPEN_FILES + OPEN_BESIDES, "{open} files are open");
    records
}

#[test]
fn open_files_are_bounded_however_many_partitions_there_are() {
    let count = std::env::var("MAINSTEM_PARTITIONS").map_or(500, |count| {
        count.parse().expect("MAINSTEM_PARTITIONS is a number")
    });
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), Vec::new(), Lsn::ZERO);
    let all: Vec<_> = (0..count)
        .map(|index| partition(1 + u64::from(index % 3), index))
        .collect();
    let lsn = log.applied().next();
    for id in &all {
        log.apply(lsn, LogOp::CreatePartition { partition: *id })
            .unwrap();
    }
    log.finish_group(lsn);
    for round in 0..3 {
        let records = append_to_all(&log, &all, round);
        assert_eq!(records.len(), all.len());
        log = open(dir.path(), records, log.applied());
    }
    for id in all.iter().step_by(7) {
        let due: Vec<u8> = (0..3)
            .flat_map(|round| batch(round * 2, 0, &[round, round], 20).to_vec())
            .collect();
        assert_eq!(read_all(&log, *id, 1_000), due);
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open <= OPEN_FILES + OPEN_BESIDES, "{open} files are open");
}
