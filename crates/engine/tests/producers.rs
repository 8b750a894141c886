//! How long an idempotent producer is remembered, and what its sequences may do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::ops::ControlFlow;

use mainstem_engine::testing::{Crash, TestNode};
use mainstem_engine::{Append, AppendError, Submission};
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::{BatchBuilder, Compression};
use mainstem_store::{Family, StoreSnapshot};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const NOW_MS: i64 = 1_700_000_000_000;
const PARTITION: PartitionId = PartitionId {
    topic: TopicId(7),
    index: 0,
};

fn node() -> TestNode {
    let mut node = TestNode::open(1).unwrap();
    let create = Submission {
        log_ops: vec![(
            1,
            LogOp::CreatePartition {
                partition: PARTITION,
            },
        )],
        ..Submission::default()
    };
    let created = node.engine.submit_in_turn(create);
    node.driver.block_on(created).unwrap();
    node
}

fn tell(node: &mut TestNode, now_ms: i64) {
    node.engine.tell_time(now_ms);
    node.driver.settle();
}

/// Sends records, whose time says nothing; the offset of the first, and whether they were taken for some that are there.
fn send(
    node: &mut TestNode,
    producer: i64,
    sequence: i32,
    records: usize,
) -> Result<(i64, bool), AppendError> {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
    batch.producer(producer, 0, sequence);
    for _ in 0..records {
        batch.append(1, None, Some(b"value"), &[]).unwrap();
    }
    let submission = Submission {
        appends: vec![Append {
            partition: PARTITION,
            batch: batch.build().unwrap(),
        }],
        ..Submission::default()
    };
    let ticket = node.engine.submit_in_turn(submission);
    let committed = node.driver.block_on(ticket).unwrap();
    let appended = committed.appends[0].clone();
    node.driver.settle();
    appended.map(|appended| (appended.base_offset, appended.duplicate))
}

fn is_duplicate(node: &mut TestNode, producer: i64, sequence: i32) -> bool {
    send(node, producer, sequence, 1).unwrap().1
}

/// The producers that the last checkpoint has recorded.
fn recorded(node: &TestNode) -> usize {
    let mut count = 0;
    let store = &**node.engine.store();
    let (from, to) = (b"\xff\xffQ", b"\xff\xffR");
    StoreSnapshot::scan(store, Family::Catalog, from, Some(to), &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    count
}

#[test]
fn who_is_silent_for_a_day_is_forgotten() {
    let mut node = node();
    tell(&mut node, NOW_MS);
    for producer in 0..3_000 {
        assert!(!is_duplicate(&mut node, producer, 0));
    }
    // All of them are in a checkpoint, which then has to lose them again.
    let mut node = node.restart().unwrap();
    assert_eq!(recorded(&node), 3_000);
    tell(&mut node, NOW_MS + DAY_MS / 2);
    assert!(!is_duplicate(&mut node, 5, 1));
    assert!(is_duplicate(&mut node, 0, 0), "half a day is not long");
    tell(&mut node, NOW_MS + DAY_MS + 1);
    assert!(is_duplicate(&mut node, 5, 1), "it was heard of");
    assert!(!is_duplicate(&mut node, 0, 0));
    assert!(!is_duplicate(&mut node, 2_999, 0));
    let mut node = node.restart().unwrap();
    assert_eq!(recorded(&node), 3, "those silent are out of the checkpoint");
    assert!(is_duplicate(&mut node, 5, 1));
}

#[test]
fn silence_goes_on_over_a_restart() {
    let mut node = node();
    tell(&mut node, NOW_MS);
    assert!(!is_duplicate(&mut node, 1, 0));
    let mut node = node.restart().unwrap();
    tell(&mut node, NOW_MS + DAY_MS);
    assert!(is_duplicate(&mut node, 1, 0));
    let mut node = node.restart().unwrap();
    tell(&mut node, NOW_MS + DAY_MS + 1);
    assert!(!is_duplicate(&mut node, 1, 0));
}

#[test]
fn who_is_known_from_replay_alone_has_a_day_from_then_on() {
    let mut node = node();
    tell(&mut node, NOW_MS);
    assert!(!is_duplicate(&mut node, 1, 0));
    let mut node = node.crash(Crash::Process).unwrap();
    assert!(node.recovery.replayed_frames > 0);
    let later_ms = NOW_MS + 10 * DAY_MS;
    tell(&mut node, later_ms);
    assert!(is_duplicate(&mut node, 1, 0));
    tell(&mut node, later_ms + DAY_MS);
    assert!(is_duplicate(&mut node, 1, 0));
    tell(&mut node, later_ms + DAY_MS + 1);
    assert!(!is_duplicate(&mut node, 1, 0));
}

const LAST: i32 = i32::MAX;

/// Five batches around the end of the sequences: where each begins, its records, and its first offset.
const AROUND: [(i32, usize, i64); 5] = [
    (LAST - 3, 2, 0),
    (LAST - 1, 4, 2),
    (2, 1, 6),
    (3, 2, 7),
    (5, 1, 9),
];

#[test]
fn sequences_go_on_at_0_behind_the_last_one() {
    let mut node = node();
    for (sequence, records, offset) in AROUND {
        let sent = send(&mut node, 1, sequence, records);
        assert_eq!(sent, Ok((offset, false)), "{sequence}");
    }
    let out_of_order = |expected, got| {
        let producer_id = 1;
        Err(AppendError::OutOfOrderSequence {
            producer_id,
            expected,
            got,
        })
    };
    let duplicate = |got| {
        let producer_id = 1;
        Err(AppendError::DuplicateSequence { producer_id, got })
    };
    let retried = |node: &mut TestNode| {
        for (sequence, records, offset) in AROUND {
            let sent = send(node, 1, sequence, records);
            assert_eq!(sent, Ok((offset, true)), "{sequence}");
        }
        // What lies on either side of them, and parts of them.
        assert_eq!(send(node, 1, 7, 1), out_of_order(6, 7));
        assert_eq!(send(node, 1, LAST - 4, 1), duplicate(LAST - 4));
        assert_eq!(send(node, 1, LAST, 1), duplicate(LAST));
        assert_eq!(send(node, 1, 0, 2), duplicate(0));
    };
    retried(&mut node);
    let mut node = node.crash(Crash::Process).unwrap();
    assert!(node.recovery.replayed_frames > 0);
    retried(&mut node);
    let mut node = node.restart().unwrap();
    retried(&mut node);
    assert_eq!(send(&mut node, 1, 6, 3), Ok((10, false)));
    assert_eq!(send(&mut node, 1, LAST - 3, 2), duplicate(LAST - 3));
    assert_eq!(send(&mut node, 1, LAST - 1, 4), Ok((2, true)));
}

#[test]
fn a_batch_may_end_with_the_last_sequence() {
    let mut node = node();
    assert_eq!(send(&mut node, 1, LAST - 1, 2), Ok((0, false)));
    let gap = AppendError::OutOfOrderSequence {
        producer_id: 1,
        expected: 0,
        got: 1,
    };
    assert_eq!(send(&mut node, 1, 1, 1), Err(gap));
    assert_eq!(send(&mut node, 1, 0, 1), Ok((2, false)));
    assert_eq!(send(&mut node, 1, LAST - 1, 2), Ok((0, true)));
    assert_eq!(send(&mut node, 1, 0, 1), Ok((2, true)));
}
