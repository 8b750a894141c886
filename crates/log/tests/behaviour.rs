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
    ReplaceSegments,
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
            partition: other,
            batch: bytes.clone()
        }),
        LogError::UnknownPartition { .. }
    ));
    assert!(matches!(
        refused(LogOp::Append {
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
        position: 0,
        header,
    };
    assert!(matches!(
        refused(LogOp::AppendReference(reference)),
        LogError::Unsupported { .. }
    ));
    let replace = ReplaceSegments {
        partition: id,
        replaced: vec![0],
        with: Vec::new(),
    };
    assert!(matches!(
        refused(LogOp::ReplaceSegments(replace)),
        LogError::Unsupported { .. }
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
            partition: gone,
            batch: batch(0, 0, &[1], 10),
        },
    );
    let upto = apply(
        &log,
        LogOp::Append {
            partition: id,
            batch: batch(0, 0, &[1, 2], 10),
        },
    );
    apply(
        &log,
        LogOp::Append {
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
            segments: Vec::new()
        })
    );
    assert_eq!(
        state(late),
        Some(PartitionState::Live {
            start: 0,
            end: 0,
            segments: Vec::new()
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
    let active = segments.last().unwrap().base_offset;
    assert_eq!(
        log.expired(id, 0, None, Some(0)).unwrap(),
        Some(active),
        "the active segment stays"
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
