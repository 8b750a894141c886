//! Large batches on their way: to their segments first, then into a frame that refers to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mainstem_engine::testing::{Crash, TestNode, small_options};
use mainstem_engine::{
    Append, AppendError, Committed, EngineError, EngineOptions, Submission, Ticket,
};
use mainstem_journal::disk::Op;
use mainstem_journal::{Disk, OpenMode};
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::{Batch, BatchBuilder, Compression};
use proptest::prelude::*;

const LARGE_BYTES: usize = 2_000;
const COMMIT: &[&str] = &["admission", "journal", "store"];
const ALL: &[&str] = &["admission", "journal", "store", "ahead"];

fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId(7), index)
}

fn options() -> EngineOptions {
    let mut options = EngineOptions {
        reference_bytes: LARGE_BYTES,
        ..small_options()
    };
    options.log.segment_bytes = 10_000;
    options
}

fn node(seed: u64) -> TestNode {
    node_with(seed, options())
}

fn node_with(seed: u64, options: EngineOptions) -> TestNode {
    let mut node = TestNode::open_with(seed, options).unwrap();
    let create = |index| {
        let partition = partition(index);
        (1, LogOp::CreatePartition { partition })
    };
    let created = node.engine.submit_in_turn(Submission {
        log_ops: (0..3).map(create).collect(),
        ..Submission::default()
    });
    node.driver.block_on(created).unwrap();
    node
}

fn value(number: u64, bytes: usize) -> String {
    format!("{number:0bytes$}")
}

fn batch(number: u64, bytes: usize, producer: Option<(i64, i32)>) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    if let Some((id, sequence)) = producer {
        builder.producer(id, 0, sequence);
    }
    builder
        .append(1, None, Some(value(number, bytes).as_bytes()), &[])
        .unwrap();
    builder.build().unwrap()
}

fn append(index: u32, number: u64, bytes: usize) -> Submission {
    of(index, batch(number, bytes, None))
}

fn of(index: u32, batch: Batch) -> Submission {
    Submission {
        appends: vec![Append {
            partition: partition(index),
            batch,
        }],
        ..Submission::default()
    }
}

/// What has become of a submission so far.
fn poll(ticket: &mut Ticket<Committed>) -> Option<Result<Committed, EngineError>> {
    match Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn offset(outcome: Option<Result<Committed, EngineError>>) -> i64 {
    let committed = outcome.expect("it is answered").unwrap();
    committed.appends[0].clone().unwrap().base_offset
}

/// The values of a partition.
fn values(node: &TestNode, index: u32) -> Vec<String> {
    let (log, id) = (node.engine.log(), partition(index));
    let mut values = Vec::new();
    let mut next = log.bounds(id).unwrap().start;
    while next < log.bounds(id).unwrap().high_watermark {
        let read = log.read(id, next, 3_000, None).unwrap();
        for mut bytes in read.batches {
            while let Some(batch) = Batch::split_first(&mut bytes).unwrap() {
                for view in batch.payload().unwrap().views() {
                    let value = view.unwrap().value.unwrap().to_vec();
                    values.push(String::from_utf8(value).unwrap());
                }
            }
        }
        next = read.next_offset;
    }
    values
}

fn segment(index: u32, base_offset: i64) -> PathBuf {
    let topic = TopicId(7).to_string();
    PathBuf::from(format!(
        "/node/topics/{topic}/{index}/{base_offset:020}.log"
    ))
}

#[test]
fn what_frames_refer_to_counts_toward_the_next_checkpoint() {
    let mut node = node_with(
        1,
        EngineOptions {
            checkpoint_bytes: 200_000,
            ..options()
        },
    );
    for number in 0..4 {
        drop(node.engine.submit_in_turn(append(0, number, 30_000)));
        node.driver.settle();
    }
    let status = node.engine.status();
    assert_eq!(status.checkpoint_lsn.0, 0, "120,000 bytes are too few");
    assert!(
        status.journal_bytes < 100_000,
        "they are no part of the journal"
    );
    // What a restart has gone through counts as well.
    let mut node = node.crash(Crash::Process).unwrap();
    for number in 4..8 {
        drop(node.engine.submit_in_turn(append(0, number, 30_000)));
        node.driver.settle();
    }
    let status = node.engine.status();
    assert!(status.journal_bytes < 150_000, "{}", status.journal_bytes);
    assert!(status.checkpoint_lsn.0 > 4, "{}", status.checkpoint_lsn);
    assert_eq!(values(&node, 0).len(), 8);
}

#[test]
fn only_who_touches_the_same_waits_and_in_order() {
    let mut node = node(1);
    let engine = node.engine.clone();
    let mut first = engine.submit_in_turn(append(0, 0, 3_000));
    let mut second = engine.submit_in_turn(append(0, 1, 3_000));
    let mut small = engine.submit_in_turn(append(0, 2, 10));
    let mut other = engine.submit_in_turn(append(1, 3, 10));
    let mut third = engine.submit_in_turn(append(0, 4, 3_000));
    let mut start = engine.submit_in_turn(Submission {
        log_ops: vec![(
            1,
            LogOp::SetStart {
                partition: partition(0),
                offset: 3,
            },
        )],
        ..Submission::default()
    });
    node.driver.settle_only(COMMIT);
    assert_eq!(
        offset(poll(&mut other)),
        0,
        "it has nothing to do with them"
    );
    for waits in [&mut first, &mut second, &mut small, &mut third, &mut start] {
        assert!(poll(waits).is_none());
    }
    assert_eq!(
        values(&node, 0),
        [""; 0],
        "nothing is shown before its frame is durable"
    );
    node.driver.settle_only(ALL);
    let offsets = [first, second, small, third].map(|mut ticket| offset(poll(&mut ticket)));
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert!(matches!(poll(&mut start), Some(Ok(_))));
    assert_eq!(values(&node, 0), [value(4, 3_000)]);
    assert_eq!(values(&node, 1), [value(3, 10)]);
}

#[test]
fn a_retry_is_answered_after_what_it_repeats_and_a_gap_is_refused() {
    let mut node = node(2);
    let engine = node.engine.clone();
    let large = |sequence| of(0, batch(sequence as u64, 3_000, Some((5, sequence))));
    let mut first = engine.submit_in_turn(large(0));
    let mut again = engine.submit_in_turn(large(0));
    let mut gap = engine.submit_in_turn(large(2));
    let mut small = engine.submit_in_turn(of(1, batch(9, 10, Some((5, 0)))));
    node.driver.settle_only(COMMIT);
    for waits in [&mut first, &mut again, &mut gap, &mut small] {
        assert!(poll(waits).is_none());
    }
    node.driver.settle_only(ALL);
    assert_eq!(offset(poll(&mut first)), 0);
    let again = poll(&mut again).unwrap().unwrap();
    assert!(again.appends[0].as_ref().unwrap().duplicate);
    let gap = poll(&mut gap).unwrap().unwrap();
    let error = gap.appends[0].as_ref().unwrap_err();
    assert!(matches!(
        error,
        AppendError::OutOfOrderSequence { expected: 1, .. }
    ));
    assert_eq!(offset(poll(&mut small)), 0);
}

#[test]
fn its_bytes_stand_in_the_segment_and_not_in_the_journal() {
    let mut node = node(3);
    let before = node.engine.status().journal_bytes;
    let engine = node.engine.clone();
    let mut tickets: Vec<_> = (0..20)
        .map(|number| engine.submit_in_turn(append(0, number, 5_000)))
        .collect();
    node.driver.settle_only(ALL);
    for (expected, ticket) in tickets.iter_mut().enumerate() {
        assert_eq!(offset(poll(ticket)), expected as i64);
    }
    assert!(node.engine.status().journal_bytes - before < 20 * 1_000);
    // No flush has passed them, and power goes: they are there, and nothing but headers is replayed.
    let node = node.crash(Crash::Power).unwrap();
    let expected: Vec<_> = (0..20).map(|number| value(number, 5_000)).collect();
    assert_eq!(values(&node, 0), expected);
    assert!(node.recovery.read_bytes < 20 * 5_000 / 2);
}

/// Small batches go together from this on.
const TOGETHER_BYTES: usize = 3_000;

fn node_that_gathers(seed: u64) -> TestNode {
    node_with(
        seed,
        EngineOptions {
            reference_bytes: TOGETHER_BYTES,
            ..options()
        },
    )
}

#[test]
fn small_ones_that_wait_together_go_to_their_segment_together() {
    let mut node = node_that_gathers(6);
    let before = node.engine.status().journal_bytes;
    let engine = node.engine.clone();
    let mut together: Vec<_> = (0..10)
        .map(|number| engine.submit_in_turn(append(0, number, 1_100)))
        .collect();
    let mut other = engine.submit_in_turn(append(1, 10, 1_100));
    node.driver.settle_only(COMMIT);
    assert_eq!(offset(poll(&mut other)), 0, "it has no company");
    assert!(together.iter_mut().all(|ticket| poll(ticket).is_none()));
    node.driver.settle_only(ALL);
    for (expected, ticket) in together.iter_mut().enumerate() {
        assert_eq!(offset(poll(ticket)), expected as i64);
    }
    assert!(node.engine.status().journal_bytes - before < 10 * 1_100);
    let node = node.crash(Crash::Power).unwrap();
    let expected: Vec<_> = (0..10).map(|number| value(number, 1_100)).collect();
    assert_eq!(values(&node, 0), expected);
}

#[test]
fn one_alone_waits_for_nobody_and_what_waits_for_the_journal_is_company() {
    let mut node = node_that_gathers(7);
    let engine = node.engine.clone();
    let mut alone = engine.submit_in_turn(append(0, 0, 1_100));
    node.driver.settle_only(COMMIT);
    assert_eq!(offset(poll(&mut alone)), 0);
    // The journal has not come to these, which stand in the open group.
    let mut in_group = [1, 2].map(|number| engine.submit_in_turn(append(0, number, 1_100)));
    node.driver.settle_only(&["admission"]);
    let mut beyond = engine.submit_in_turn(append(0, 3, 1_100));
    node.driver.settle_only(&["admission"]);
    let mut behind = engine.submit_in_turn(append(0, 4, 1_100));
    node.driver.settle_only(COMMIT);
    let offsets = in_group.each_mut().map(|ticket| offset(poll(ticket)));
    assert_eq!(offsets, [1, 2]);
    assert!(poll(&mut beyond).is_none() && poll(&mut behind).is_none());
    node.driver.settle_only(&["ahead"]);
    let before = node.engine.status().journal_bytes;
    node.driver.settle_only(COMMIT);
    assert_eq!(offset(poll(&mut beyond)), 3);
    assert_eq!(offset(poll(&mut behind)), 4);
    let journal = node.engine.status().journal_bytes - before;
    assert!(journal >= 1_100, "the one behind has no company any more");
}

#[test]
fn what_has_gone_to_the_open_group_is_not_counted_in_the_queue_too() {
    let mut node = node_that_gathers(8);
    let engine = node.engine.clone();
    let mut tickets = [0, 1].map(|number| engine.submit_in_turn(append(0, number, 1_100)));
    node.driver.settle_only(COMMIT);
    let offsets = tickets.each_mut().map(|ticket| offset(poll(ticket)));
    assert_eq!(offsets, [0, 1]);
}

#[test]
fn a_write_or_sync_that_fails_stops_writes_and_what_waited_is_of_unknown_outcome() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::SyncDir] {
        let mut node = node(4);
        let engine = node.engine.clone();
        let mut large = engine.submit_in_turn(append(0, 0, 3_000));
        let mut small = engine.submit_in_turn(append(0, 1, 10));
        node.driver.settle_only(COMMIT);
        node.disk.inject(op, 0, 1, std::io::ErrorKind::Other);
        node.driver.settle_only(ALL);
        for ticket in [&mut large, &mut small] {
            let outcome = poll(ticket).expect("nobody waits for ever");
            assert!(
                matches!(outcome, Err(EngineError::Poisoned { .. })),
                "{op:?}"
            );
        }
        assert_eq!(values(&node, 0), [""; 0]);
        let mut node = node.crash(Crash::Process).unwrap();
        assert_eq!(values(&node, 0), [""; 0], "no frame refers to it");
        let again = node.engine.submit_in_turn(append(0, 2, 4_000));
        node.driver.block_on(again).unwrap();
        assert_eq!(values(&node, 0), [value(2, 4_000)], "{op:?}");
    }
}

#[test]
fn damage_of_what_a_frame_refers_to_is_named() {
    let mut node = node(5);
    let large = node.engine.submit_in_turn(append(0, 0, 3_000));
    node.driver.block_on(large).unwrap();
    node.disk.flip_bits(&segment(0, 0), 1_500, 4).unwrap();
    let disk = node.disk.clone();
    // `crash` checks the directory first, and would not go on.
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        node.crash(Crash::Process).map(drop)
    }));
    let told = *found.unwrap_err().downcast::<String>().unwrap();
    assert!(told.contains("does not match its CRC"), "{told}");
    let file = disk.open(&segment(0, 0), OpenMode::Write).unwrap();
    assert!(file.len().unwrap() > 3_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Large and small in any order, to any partition, all under way at once, with crashes in between.
    #[test]
    fn everything_acknowledged_is_there_once_and_in_order(
        seed in any::<u64>(),
        rounds in prop::collection::vec(
            (prop::collection::vec((0..3_u32, 0..3_usize), 1..12), 0..4_u8, 0..40_usize),
            1..6,
        ),
    ) {
        let mut node = node_that_gathers(seed);
        let mut sent: [Vec<String>; 3] = Default::default();
        let mut acknowledged = [0; 3];
        let mut number = 0;
        for (appends, end, steps) in rounds {
            let mut tickets = Vec::new();
            for (index, size) in appends {
                let bytes = [20, 1_100, 3_500][size];
                tickets.push((index, node.engine.submit_in_turn(append(index, number, bytes))));
                sent[index as usize].push(value(number, bytes));
                number += 1;
            }
            if end == 3 {
                node.driver.settle();
            } else {
                (0..steps).for_each(|_| { node.driver.step(); });
            }
            for (index, mut ticket) in tickets {
                if let Some(Ok(committed)) = poll(&mut ticket) {
                    let appended = committed.appends[0].clone().unwrap();
                    let known = &mut acknowledged[index as usize];
                    *known = appended.base_offset as usize + 1;
                }
            }
            node = match end {
                0 => node.crash(Crash::Process).unwrap(),
                1 => node.crash(Crash::Power).unwrap(),
                2 => node.restart().unwrap(),
                _ => node,
            };
            for index in 0..3 {
                let found = values(&node, index as u32);
                prop_assert!(found.len() >= acknowledged[index]);
                // Those without an answer may be there or not, the first of them before the others.
                let is_prefix = sent[index].starts_with(&found);
                prop_assert!(is_prefix, "partition {}: {} of {}", index, found.len(), sent[index].len());
                sent[index] = found;
            }
        }
    }
}
