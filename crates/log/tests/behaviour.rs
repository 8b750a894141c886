//! What the log does, case by case, and with readers on other threads.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::{apply, batch, checkpoint, open, partition, topics};
use mainstem_journal::{Disk, Lsn, MemoryDisk, RealDisk};
use mainstem_log::{
    AppendReference, Log, LogError, LogOp, LogOptions, PartitionRecord, PartitionState,
    RecordedTransactions, ReplaceSegments, SegmentLimits,
};
use mainstem_record::{BATCH_HEADER_BYTES, Batch};

fn empty() -> (MemoryDisk, Log) {
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(&topics()).unwrap();
    let log = open(&disk, Vec::new(), Lsn::ZERO);
    (disk, log)
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waiter_is_woken_once_per_group_and_leaves_nothing_behind() {
    let (_disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);

    let mut first = pin!(log.on_data(id, 0));
    let mut later = pin!(log.on_data(id, 2));
    let dropped = {
        let mut dropped = Box::pin(log.on_data(id, 0));
        assert_eq!(dropped.as_mut().poll(&mut context), Poll::Pending);
        dropped
    };
    assert_eq!(first.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(first.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(later.as_mut().poll(&mut context), Poll::Pending);
    drop(dropped);

    let lsn = log.applied().next();
    for base in 0..2 {
        log.apply(
            lsn,
            LogOp::Append {
                begins_segment: false,
                partition: id,
                batch: batch(base, 0, &[1], 1),
            },
        )
        .unwrap();
    }
    assert_eq!(
        count.0.load(Ordering::SeqCst),
        0,
        "nobody is woken before the group has ended"
    );
    log.finish_group(lsn);
    assert_eq!(
        count.0.load(Ordering::SeqCst),
        1,
        "one waits for data that is there"
    );
    assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(later.as_mut().poll(&mut context), Poll::Pending);
    apply(&log, LogOp::RemovePartition { partition: id });
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
    assert_eq!(later.as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(
        pin!(log.on_data(id, 0)).poll(&mut context),
        Poll::Ready(()),
        "there is nothing to wait for"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_disk, log) = empty();
    let (id, other) = (partition(1, 0), partition(1, 1));
    apply(&log, LogOp::CreatePartition { partition: id });
    let next = log.applied().next();
    let refused = |op| log.apply(next, op).unwrap_err();
    let bytes = batch(0, 0, &[1], 1);
    assert!(matches!(
        refused(LogOp::Append {
            begins_segment: false,
            partition: other,
            batch: bytes.clone()
        }),
        LogError::UnknownPartition { .. }
    ));
    assert!(matches!(
        refused(LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: batch(1, 0, &[1], 1)
        }),
        LogError::NotDense {
            expected: 0,
            got: 1,
            ..
        }
    ));
    assert!(matches!(
        refused(LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: bytes.slice(..bytes.len() - 1)
        }),
        LogError::Batch { .. }
    ));
    assert!(matches!(
        refused(LogOp::CreatePartition { partition: id }),
        LogError::PartitionExists { .. }
    ));
    assert!(matches!(
        refused(LogOp::SetStart {
            partition: id,
            offset: 1
        }),
        LogError::NotDense { .. }
    ));
    let header = bytes.slice(..BATCH_HEADER_BYTES);
    let reference = AppendReference {
        partition: id,
        segment_base_offset: 0,
        position: 7,
        header,
    };
    assert!(matches!(
        refused(LogOp::AppendReference(reference)),
        LogError::Misplaced { position: 7, .. }
    ));
    let replace = ReplaceSegments {
        partition: other,
        replaced: Vec::new(),
        with: Vec::new(),
    };
    assert!(matches!(
        refused(LogOp::ReplaceSegments(replace)),
        LogError::UnknownPartition { .. }
    ));
    // And an id that was removed is not given again while its files are there.
    apply(&log, LogOp::RemovePartition { partition: id });
    let error = log
        .apply(
            log.applied().next(),
            LogOp::CreatePartition { partition: id },
        )
        .unwrap_err();
    assert!(matches!(error, LogError::PartitionExists { .. }));
}

#[test]
fn records_are_as_of_the_flush_whatever_was_applied_since() {
    let (disk, log) = empty();
    let (id, gone) = (partition(1, 0), partition(2, 0));
    apply(&log, LogOp::CreatePartition { partition: id });
    apply(&log, LogOp::CreatePartition { partition: gone });
    apply(
        &log,
        LogOp::Append {
            begins_segment: false,
            partition: gone,
            batch: batch(0, 0, &[1], 10),
        },
    );
    let upto = apply(
        &log,
        LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: batch(0, 0, &[1, 2], 10),
        },
    );
    apply(
        &log,
        LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: batch(2, 0, &[3], 10),
        },
    );
    apply(
        &log,
        LogOp::SetStart {
            partition: id,
            offset: 3,
        },
    );
    apply(&log, LogOp::RemovePartition { partition: gone });
    let late = partition(3, 0);
    apply(&log, LogOp::CreatePartition { partition: late });

    let mut seen = Vec::new();
    log.flush(upto, &mut |partition, header| {
        seen.push((partition, header.base_offset))
    })
    .unwrap();
    seen.sort_unstable();
    let mut due = vec![(id, 0), (gone, 0)];
    due.sort_unstable();
    assert_eq!(seen, due);
    log.sync().unwrap();
    let records = log.records();
    assert_eq!(records.len(), 2, "{records:?}");
    for record in &records {
        let PartitionState::Live {
            start,
            end,
            segments,
            ..
        } = &record.state
        else {
            panic!("{record:?}")
        };
        assert_eq!(
            (*start, *end, segments.len()),
            (0, if record.partition == id { 2 } else { 1 }, 1)
        );
    }
    assert!(log.records().is_empty());
    // Nothing goes away before a checkpoint has forgotten it.
    assert_eq!(log.remove_files(upto).unwrap().entries, 0);

    let records = checkpoint(&log);
    let state = |id| {
        records
            .iter()
            .find(|record| record.partition == id)
            .map(|record| record.state.clone())
    };
    assert_eq!(state(gone), Some(PartitionState::Removed));
    assert_eq!(
        state(id),
        Some(PartitionState::Live {
            start: 3,
            end: 3,
            segments: Vec::new(),
            transactions: RecordedTransactions::default(),
        })
    );
    assert_eq!(
        state(late),
        Some(PartitionState::Live {
            start: 0,
            end: 0,
            segments: Vec::new(),
            transactions: RecordedTransactions::default(),
        })
    );
    assert!(log.remove_files(log.flushed()).unwrap().bytes > 0);
    assert_eq!(
        disk.list(&topics()).unwrap(),
        vec![id.topic.to_string()],
        "the removed topic's directory is gone"
    );
    // The next batch begins a segment of its own.
    apply(
        &log,
        LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: batch(3, 0, &[3], 10),
        },
    );
    checkpoint(&log);
    log.evict(0);
    assert_eq!(log.read(id, 3, 1, None).unwrap().batches.len(), 1);
}

#[test]
fn a_snapshot_outlives_retention_deletion_and_eviction() {
    let (_disk, log) = empty();
    let (id, gone) = (partition(1, 0), partition(2, 0));
    for partition in [id, gone] {
        apply(&log, LogOp::CreatePartition { partition });
        for base in 0..30 {
            apply(
                &log,
                LogOp::Append {
                    begins_segment: false,
                    partition,
                    batch: batch(base, 0, &[base], 300),
                },
            );
        }
    }
    checkpoint(&log);
    let snapshot = log.snapshot();
    let lsn = log.applied();
    apply(
        &log,
        LogOp::SetStart {
            partition: id,
            offset: 30,
        },
    );
    apply(&log, LogOp::RemovePartition { partition: gone });
    checkpoint(&log);
    log.evict(0);
    assert_eq!(
        log.remove_files(log.flushed()).unwrap().entries,
        0,
        "all of it is pinned"
    );
    assert!(matches!(
        log.read(gone, 0, 1, None),
        Err(LogError::UnknownPartition { .. })
    ));
    assert!(matches!(
        log.read(id, 0, 1, None),
        Err(LogError::OffsetOutOfRange {
            start: 30,
            end: 30,
            ..
        })
    ));
    assert_eq!(snapshot.lsn, lsn);
    for partition in [id, gone] {
        for offset in 0..30 {
            let read = snapshot.read(partition, offset, 1, None).unwrap();
            assert_eq!(
                Batch::parse(read.batches[0].clone()).unwrap().base_offset(),
                offset
            );
        }
        assert_eq!(
            snapshot.offset_for_timestamp(partition, 7).unwrap(),
            Some((7, 7))
        );
    }
    drop(snapshot);
    let removed = log.remove_files(log.flushed()).unwrap();
    assert!(removed.bytes > 2 * 30 * 300, "{removed:?}");
}

#[test]
fn strays_go_and_foreign_files_stay() {
    let (disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    for base in 0..30 {
        apply(
            &log,
            LogOp::Append {
                begins_segment: false,
                partition: id,
                batch: batch(base, 0, &[base], 300),
            },
        );
    }
    let records = checkpoint(&log);
    let dir = topics().join(id.topic.to_string()).join("0");
    let other = topics().join(partition(9, 0).topic.to_string()).join("3");
    disk.create_dir_all(&other).unwrap();
    disk.create_dir_all(&topics().join("lost+found")).unwrap();
    for path in [
        dir.join("00000000000000000777.log"),
        dir.join("00000000000000000777.index"),
        dir.join("notes.txt"),
        other.join("00000000000000000000.log"),
    ] {
        disk.open(&path, mainstem_journal::OpenMode::Create)
            .unwrap();
    }
    let before = disk.list(&dir).unwrap().len();
    let log = open(&disk, records, log.applied());
    log.remove_strays().unwrap();
    assert_eq!(disk.list(&dir).unwrap().len(), before - 2);
    assert!(disk.exists(&dir.join("notes.txt")));
    assert_eq!(
        disk.list(&topics()).unwrap().len(),
        2,
        "the other topic is gone, the foreign directory is not"
    );
    assert_eq!(log.remove_strays().unwrap().entries, 0);
}

#[test]
fn retention_drops_whole_segments() {
    let (_disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    for base in 0..40 {
        apply(
            &log,
            LogOp::Append {
                begins_segment: false,
                partition: id,
                batch: batch(base, 0, &[base * 1000], 300),
            },
        );
    }
    assert_eq!(
        log.expired(id, i64::MAX, Some(0), Some(0)).unwrap(),
        None,
        "what is not flushed is not judged"
    );
    let records = checkpoint(&log);
    let PartitionRecord {
        state: PartitionState::Live { segments, .. },
        ..
    } = &records[0]
    else {
        panic!()
    };
    let (second, third) = (segments[1].base_offset, segments[2].base_offset);
    let newest_of_second = (third - 1) * 1000;
    assert_eq!(
        log.expired(id, newest_of_second + 100, Some(100), None)
            .unwrap(),
        Some(second)
    );
    assert_eq!(
        log.expired(id, newest_of_second + 101, Some(100), None)
            .unwrap(),
        Some(third)
    );
    assert_eq!(
        log.expired(id, i64::MAX, Some(100), None).unwrap(),
        Some(40),
        "all of it is old"
    );
    let size = log.size_bytes(id).unwrap();
    assert_eq!(log.expired(id, 0, None, Some(size)).unwrap(), None);
    assert_eq!(
        log.expired(id, 0, None, Some(size - segments[0].end_position))
            .unwrap(),
        Some(second)
    );
    assert_eq!(
        log.expired(id, 0, None, Some(0)).unwrap(),
        Some(40),
        "all of it is too much"
    );
    apply(
        &log,
        LogOp::SetStart {
            partition: id,
            offset: third,
        },
    );
    assert_eq!(
        log.expired(id, newest_of_second + 101, Some(100), None)
            .unwrap(),
        None,
        "decided already"
    );
}

#[test]
fn eviction_gives_back_whole_groups_oldest_first() {
    let (_disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let size = batch(0, 0, &[0], 200_000).len() as u64;
    for base in 0..10 {
        apply(
            &log,
            LogOp::Append {
                begins_segment: false,
                partition: id,
                batch: batch(base, 0, &[0], 200_000),
            },
        );
    }
    assert_eq!(
        (log.tail_bytes(), log.unflushed_bytes()),
        (10 * size, 10 * size)
    );
    assert_eq!(log.evict(0), 0, "nothing is flushed");
    log.flush(Lsn(6), &mut |_, _| {}).unwrap();
    assert_eq!(log.unflushed_bytes(), 5 * size);
    assert_eq!(log.evict(8 * size), 2 * size);
    assert_eq!(log.evict(0), 3 * size);
    assert_eq!(log.tail_bytes(), 5 * size);
    assert_eq!(
        log.read(id, 0, usize::MAX, None)
            .unwrap()
            .batches
            .concat()
            .len() as u64,
        10 * size
    );
}

/// Readers on threads of their own, on real files, while everything else goes on: what they see is dense, and is
/// either right or refused for a reason that holds.
#[test]
fn readers_race_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 20_000,
        index_interval_bytes: 500,
        ..common::small()
    };
    let log = Log::open(
        Arc::new(RealDisk),
        &dir.path().join("topics"),
        options,
        Vec::new(),
        Lsn::ZERO,
    )
    .unwrap();
    let ids: Vec<_> = (0..3).map(|index| partition(1, index)).collect();
    for id in &ids {
        apply(&log, LogOp::CreatePartition { partition: *id });
    }
    let stop = AtomicBool::new(false);
    let (reads, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (log, ids, stop, reads, refused) = (&log, &ids, &stop, &reads, &refused);
            scope.spawn(move || {
                let mut turn = reader;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let id = ids[turn % ids.len()];
                    let bounds = log.bounds(id).unwrap();
                    let span = bounds.high_watermark - bounds.start;
                    let offset = bounds.start + (turn as i64 * 7919) % (span + 1);
                    match log.read(id, offset, 3000, None) {
                        Ok(read) => {
                            let mut due = None;
                            for mut bytes in read.batches {
                                while let Some(batch) = Batch::split_first(&mut bytes).unwrap() {
                                    let first = due.is_none();
                                    let base = batch.base_offset();
                                    assert!(if first {
                                        base <= offset && batch.last_offset() >= offset
                                    } else {
                                        due == Some(base)
                                    });
                                    due = Some(batch.next_offset());
                                    reads.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                            assert!(due.is_some() || offset >= bounds.high_watermark);
                        }
                        Err(LogError::OffsetOutOfRange { start, .. }) => {
                            assert!(offset < start);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("{error}"),
                    }
                    let _ = log.offset_for_timestamp(id, offset * 10);
                }
            });
        }
        let worker = {
            let (log, stop) = (&log, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    checkpoint(log);
                    log.evict(10_000);
                    log.remove_files(log.flushed()).unwrap();
                }
            })
        };
        let mut snapshots = std::collections::VecDeque::new();
        for round in 0..4000_i64 {
            for id in &ids {
                let end = log.bounds(*id).unwrap().high_watermark;
                apply(
                    &log,
                    LogOp::Append {
                        begins_segment: false,
                        partition: *id,
                        batch: batch(end, 0, &[end * 10, end * 10 + 3], 100),
                    },
                );
                if round % 50 == 49 {
                    apply(
                        &log,
                        LogOp::SetStart {
                            partition: *id,
                            offset: (end - 60).max(0),
                        },
                    );
                }
            }
            if round % 100 == 0 {
                snapshots.push_back(log.snapshot());
                if snapshots.len() > 3 {
                    let old = snapshots.pop_front().unwrap();
                    for (id, bounds) in old.partitions.iter() {
                        let mut next = bounds.start;
                        while next < bounds.high_watermark {
                            let read = old.read(*id, next, 5000, None).unwrap();
                            let mut last = read.batches.last().unwrap().clone();
                            while let Some(batch) = Batch::split_first(&mut last).unwrap() {
                                next = batch.next_offset();
                            }
                        }
                        assert_eq!(next, bounds.high_watermark);
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap();
    });
    assert!(reads.into_inner() > 1000);
}

fn append(log: &Log, partition: mainstem_log::PartitionId, timestamps: &[i64]) {
    let base = log.bounds(partition).unwrap().high_watermark;
    let batch = batch(base, 0, timestamps, 10);
    apply(
        log,
        LogOp::Append {
            begins_segment: false,
            partition,
            batch,
        },
    );
}

#[test]
fn a_segment_is_sealed_by_the_size_and_the_time_of_its_topic() {
    let (disk, log) = empty();
    let (timed, sized, other) = (partition(1, 0), partition(2, 0), partition(3, 0));
    for partition in [timed, sized, other] {
        apply(&log, LogOp::CreatePartition { partition });
    }
    let limits = |segment_bytes, segment_ms| SegmentLimits {
        segment_bytes,
        segment_ms,
    };
    log.set_segment_limits(timed.topic, limits(None, Some(100)));
    log.set_segment_limits(sized.topic, limits(Some(200), None));
    // The first batch's largest time counts, and each batch's own; one without a time changes nothing.
    for timestamps in [[50, 1_000], [1_100, 10], [-1, -1], [1_101, 0], [1_150, 0]] {
        for partition in [timed, sized, other] {
            append(&log, partition, &timestamps);
        }
    }
    let recorded = checkpoint(&log);
    let count = |log: &Log, partition| log.segment_count(partition).unwrap();
    assert_eq!(
        (count(&log, timed), count(&log, sized), count(&log, other)),
        (2, 5, 1)
    );
    // After a restart the first batch's time is read from the file.
    let log = open(&disk, recorded, log.applied());
    log.set_segment_limits(timed.topic, limits(None, Some(100)));
    for (timestamp, segments) in [(1_201, 2), (1_202, 3)] {
        append(&log, timed, &[timestamp]);
        checkpoint(&log);
        assert_eq!(count(&log, timed), segments, "at {timestamp}");
    }
}

#[test]
fn retention_goes_by_kafkas_rules() {
    let (_disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let limits = SegmentLimits {
        segment_bytes: Some(1),
        segment_ms: None,
    };
    log.set_segment_limits(id.topic, limits);
    let mut size = 0;
    for timestamp in [100, 300, 200] {
        append(&log, id, &[timestamp]);
        size = log.size_bytes(id).unwrap() / (log.bounds(id).unwrap().high_watermark as u64);
    }
    checkpoint(&log);
    let expired = |now, ms, bytes| log.expired(id, now, ms, bytes).unwrap();
    // A segment goes when its newest record is older than that, not when it is as old; a later one that is older
    // waits for those before it; the last one goes like the others.
    assert_eq!(expired(300, Some(200), None), None);
    assert_eq!(expired(301, Some(200), None), Some(1));
    assert_eq!(expired(450, Some(200), None), Some(1));
    assert_eq!(expired(501, Some(200), None), Some(3));
    // By size: as long as what is left is at least the limit.
    assert_eq!(expired(0, None, Some(3 * size)), None);
    assert_eq!(expired(0, None, Some(2 * size + 1)), None);
    assert_eq!(expired(0, None, Some(2 * size)), Some(1));
    assert_eq!(expired(0, None, Some(0)), Some(3));
    // What is gone already does not count again, before the flush and after it.
    let start = LogOp::SetStart {
        partition: id,
        offset: 1,
    };
    apply(&log, start);
    assert_eq!(
        (
            log.size_bytes(id).unwrap(),
            expired(0, None, Some(2 * size))
        ),
        (2 * size, None)
    );
    assert_eq!(expired(0, None, Some(size)), Some(2));
    checkpoint(&log);
    assert_eq!(
        (log.size_bytes(id).unwrap(), expired(0, None, Some(size))),
        (2 * size, Some(2))
    );
}

#[test]
fn records_without_a_time_are_as_old_as_the_first_look_at_them() {
    let (_disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    append(&log, id, &[-1, -1]);
    checkpoint(&log);
    let expired = |now| log.expired(id, now, Some(200), None).unwrap();
    assert_eq!(expired(1_000_000), None, "they may be from just now");
    assert_eq!(expired(1_000_200), None);
    assert_eq!(expired(1_000_201), Some(2));
}

#[test]
fn timestamps_out_of_order_and_missing_are_found() {
    let (disk, log) = empty();
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let all = [
        [500, -1],
        [-1, -1],
        [100, 90],
        [700, 650],
        [20, 800],
        [-1, 799],
        [10, 20],
    ];
    let times: Vec<i64> = all.iter().flatten().copied().collect();
    let check = |log: &Log, what: &str| {
        for wanted in (0..900).step_by(10) {
            let due = times.iter().position(|time| *time >= wanted);
            let due = due.map(|at| (at as i64, times[at]));
            assert_eq!(
                log.offset_for_timestamp(id, wanted).unwrap(),
                due,
                "{wanted} {what}"
            );
        }
    };
    for (at, timestamps) in all.iter().enumerate() {
        append(&log, id, timestamps);
        if at == 2 || at == 4 {
            checkpoint(&log);
        }
    }
    check(&log, "in the tail");
    log.evict(0);
    check(&log, "in the tail and in a segment");
    checkpoint(&log);
    log.evict(0);
    check(&log, "in a segment");
    for limits in [1, 150, 100_000] {
        let (other_disk, log) = empty();
        apply(&log, LogOp::CreatePartition { partition: id });
        let limits = SegmentLimits {
            segment_bytes: Some(limits),
            segment_ms: None,
        };
        log.set_segment_limits(id.topic, limits);
        all.iter()
            .for_each(|timestamps| append(&log, id, timestamps));
        let recorded = checkpoint(&log);
        check(
            &open(&other_disk, recorded, log.applied()),
            "after a restart",
        );
    }
    drop(disk);
}

#[test]
fn a_large_topic_is_removed_piece_by_piece_and_a_crash_half_way_leaves_nothing() {
    let (disk, log) = empty();
    let all: Vec<_> = (0..100).map(|index| partition(1, index)).collect();
    for partition in all.iter().chain([&partition(2, 0)]) {
        apply(
            &log,
            LogOp::CreatePartition {
                partition: *partition,
            },
        );
        append(&log, *partition, &[1]);
    }
    checkpoint(&log);
    for partition in &all {
        apply(
            &log,
            LogOp::RemovePartition {
                partition: *partition,
            },
        );
    }
    let recorded = checkpoint(&log);
    assert_eq!(recorded.len(), 100);
    let topic_dir = topics().join(partition(1, 0).topic.to_string());
    let left = || disk.list(&topic_dir).map_or(0, |names| names.len());
    let first = log.remove_files(log.flushed()).unwrap();
    assert!(
        first.more && first.entries < 100,
        "a bounded piece: {first:?}"
    );
    assert!((1..100).contains(&left()), "{} partitions are left", left());
    let mut calls = 1;
    while log.remove_files(log.flushed()).unwrap().more {
        calls += 1;
    }
    assert!(calls > 2 && !disk.exists(&topic_dir));

    // Again, and the power goes after the first piece: the record that knew of them is gone already.
    let (disk, log) = empty();
    for partition in &all {
        apply(
            &log,
            LogOp::CreatePartition {
                partition: *partition,
            },
        );
        append(&log, *partition, &[1]);
    }
    checkpoint(&log);
    for partition in &all {
        apply(
            &log,
            LogOp::RemovePartition {
                partition: *partition,
            },
        );
    }
    checkpoint(&log);
    log.remove_files(log.flushed()).unwrap();
    disk.crash_power(7);
    let log = open(&disk, Vec::new(), log.flushed());
    log.remove_strays().unwrap();
    assert_eq!(disk.list(&topics()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_segment_that_is_longer_than_recorded_is_synced_also_after_it_was_sealed_and_read() {
    let (disk, log) = empty();
    let (id, other) = (partition(1, 0), partition(2, 0));
    apply(&log, LogOp::CreatePartition { partition: id });
    apply(&log, LogOp::CreatePartition { partition: other });
    let append = |log: &Log, partition, offset, bytes| {
        let batch = batch(offset, 0, &[1], bytes);
        apply(
            log,
            LogOp::Append {
                begins_segment: false,
                partition,
                batch,
            },
        )
    };
    append(&log, id, 0, 2_000);
    for offset in 0..5 {
        append(&log, other, offset, 2_000);
    }
    let records = checkpoint(&log);
    let applied = log.applied();
    // Written, and lost from the journal: another batch comes in its place, and does not fit.
    append(&log, id, 1, 100);
    log.flush(log.applied(), &mut |_, _| {}).unwrap();
    disk.crash_process();
    let log = open(&disk, records, applied);
    append(&log, id, 1, 1_500);
    log.flush(log.applied(), &mut |_, _| {}).unwrap();
    log.evict(0);
    // So many files are read that the segment's own is closed, and opened again by a reader.
    common::read_all(&log, other, 100);
    common::read_all(&log, id, 100);
    log.sync().unwrap();
}
