//! Damage on disk is found and named; what is derived is built again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{apply, batch, checkpoint, open, partition, read_all};
use mainstem_journal::{Disk, Lsn, MemoryDisk, OpenMode};
use mainstem_log::{
    Log, LogError, LogOp, LogOptions, PartitionId, PartitionRecord, PartitionState,
};

struct Fixture {
    disk: MemoryDisk,
    id: PartitionId,
    /// Every batch, in order.
    written: Vec<u8>,
    records: Vec<PartitionRecord>,
    applied: Lsn,
}

/// A partition of 40 batches in several sealed segments and an active one, all of it checkpointed.
fn fixture() -> Fixture {
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(&common::topics()).unwrap();
    let log = open(&disk, Vec::new(), Lsn::ZERO);
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let mut written = Vec::new();
    for index in 0..40 {
        let bytes = batch(index * 2, 7, &[index * 10, index * 10 + 5], 100);
        written.extend_from_slice(&bytes);
        apply(
            &log,
            LogOp::Append {
                begins_segment: false,
                partition: id,
                batch: bytes,
            },
        );
    }
    let records = checkpoint(&log);
    let applied = log.applied();
    Fixture {
        disk,
        id,
        written,
        records,
        applied,
    }
}

impl Fixture {
    fn open(&self) -> Log {
        open(&self.disk, self.records.clone(), self.applied)
    }

    fn file(&self, base_offset: i64, kind: &str) -> PathBuf {
        let dir = common::topics()
            .join(self.id.topic.to_string())
            .join(self.id.index.to_string());
        dir.join(format!("{base_offset:020}.{kind}"))
    }

    fn segments(&self) -> Vec<i64> {
        let PartitionState::Live { segments, .. } = &self.records[0].state else {
            panic!("it is live")
        };
        assert!(segments.len() >= 4 && segments[0].sealed && !segments.last().unwrap().sealed);
        segments.iter().map(|segment| segment.base_offset).collect()
    }
}

fn damaged(result: Result<mainstem_log::Read, LogError>, path: &Path) -> u64 {
    match result {
        Err(LogError::Damaged { file, position, .. }) => {
            assert_eq!(file, path);
            position
        }
        other => panic!("damage of {} was not found: {other:?}", path.display()),
    }
}

#[test]
fn every_bit_of_every_segment_counts() {
    let fixture = fixture();
    for base in fixture.segments() {
        let path = fixture.file(base, "log");
        let length = fixture
            .disk
            .open(&path, OpenMode::Read)
            .unwrap()
            .len()
            .unwrap();
        let size = batch(0, 0, &[0, 0], 100).len() as u64;
        for position in 0..length {
            fixture
                .disk
                .flip_bits(&path, position, 1 << (position % 8))
                .unwrap();
            for without_index in [false, true] {
                let log = fixture.open();
                if without_index {
                    let _ = fixture.disk.remove_file(&fixture.file(base, "index"));
                }
                let offset = base + (position / size) as i64 * 2;
                let found = damaged(log.read(fixture.id, offset, 1, None), &path);
                assert!(
                    found <= position,
                    "damage at {position} is named at {found}"
                );
            }
            fixture
                .disk
                .flip_bits(&path, position, 1 << (position % 8))
                .unwrap();
        }
    }
    assert_eq!(
        read_all(&fixture.open(), fixture.id, 1 << 20),
        fixture.written
    );
}

#[test]
fn other_segments_stay_readable_when_one_is_damaged() {
    let fixture = fixture();
    let segments = fixture.segments();
    fixture
        .disk
        .flip_bits(&fixture.file(segments[1], "log"), 100, 1)
        .unwrap();
    let log = fixture.open();
    damaged(
        log.read(fixture.id, segments[1], 1, None),
        &fixture.file(segments[1], "log"),
    );
    assert!(log.read(fixture.id, segments[0], 1, None).is_ok());
    assert!(log.read(fixture.id, segments[2], 1, None).is_ok());
}

#[test]
fn an_index_that_is_missing_torn_or_of_another_version_is_built_again() {
    let fixture = fixture();
    let path = fixture.file(0, "index");
    let good = {
        let file = fixture.disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let check = || {
        assert_eq!(read_all(&fixture.open(), fixture.id, 500), fixture.written);
        let file = fixture.disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; good.len()];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, good, "the same index as before");
    };
    fixture.disk.remove_file(&path).unwrap();
    check();
    for length in [0, 1, 20, good.len() / 2, good.len() - 1] {
        fixture
            .disk
            .open(&path, OpenMode::Write)
            .unwrap()
            .set_len(length as u64)
            .unwrap();
        check();
    }
    for position in 0..good.len() {
        fixture
            .disk
            .flip_bits(&path, position as u64, 0x10)
            .unwrap();
        check();
    }
}

#[test]
fn an_index_is_used_however_little_memory_there_is_for_indexes() {
    let fixture = fixture();
    let options = LogOptions {
        index_cache_bytes: 0,
        ..common::small()
    };
    let (disk, topics) = (Arc::new(fixture.disk.clone()), common::topics());
    let log = Log::open(
        disk,
        &topics,
        options,
        fixture.records.clone(),
        fixture.applied,
    );
    assert!(read_all(&log.unwrap(), fixture.id, 500) == fixture.written);
}

#[test]
fn an_index_of_a_damaged_length_takes_no_memory() {
    let fixture = fixture();
    let path = fixture.file(fixture.segments()[0], "index");
    let index = fixture.disk.open(&path, OpenMode::Write).unwrap();
    index.set_len(64 << 20).unwrap();
    let before = fixture.disk.counts().read_bytes;
    let log = fixture.open();
    assert_eq!(read_all(&log, fixture.id, 1 << 20), fixture.written);
    assert!(fixture.disk.counts().read_bytes - before < 1 << 20);
}

#[test]
fn a_missing_or_short_segment_is_named() {
    let fixture = fixture();
    let segments = fixture.segments();
    let (sealed, active) = (
        fixture.file(segments[1], "log"),
        fixture.file(*segments.last().unwrap(), "log"),
    );
    fixture
        .disk
        .open(&sealed, OpenMode::Write)
        .unwrap()
        .set_len(200)
        .unwrap();
    let position = damaged(
        fixture.open().read(fixture.id, segments[1], 1 << 20, None),
        &sealed,
    );
    assert_eq!(position, 200);
    fixture.disk.remove_file(&sealed).unwrap();
    damaged(
        fixture.open().read(fixture.id, segments[1], 1, None),
        &sealed,
    );

    // The active one is looked at when the log is opened: the next flush would write into it.
    fixture
        .disk
        .open(&active, OpenMode::Write)
        .unwrap()
        .set_len(10)
        .unwrap();
    let again = Log::open(
        std::sync::Arc::new(fixture.disk.clone()),
        &common::topics(),
        common::small(),
        fixture.records.clone(),
        fixture.applied,
    );
    assert!(matches!(again, Err(LogError::Damaged { file, position: 10, .. }) if file == active));
}

#[test]
fn a_failed_write_poisons_until_the_log_is_opened_again() {
    let fixture = fixture();
    let log = fixture.open();
    apply(
        &log,
        LogOp::Append {
            begins_segment: false,
            partition: fixture.id,
            batch: batch(80, 0, &[1], 10),
        },
    );
    fixture.disk.inject(
        mainstem_journal::disk::Op::Sync,
        0,
        1,
        std::io::ErrorKind::Other,
    );
    log.flush(log.applied(), &mut |_, _| {}).unwrap();
    assert!(matches!(log.sync(), Err(LogError::Io { .. })));
    assert!(matches!(log.sync(), Err(LogError::Poisoned)));
    assert!(matches!(
        log.flush(log.applied(), &mut |_, _| {}),
        Err(LogError::Poisoned)
    ));
    assert!(
        log.read(fixture.id, 0, 1, None).is_ok(),
        "it stays readable"
    );
}
