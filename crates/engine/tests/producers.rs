//! How long an idempotent producer is remembered.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::ops::ControlFlow;

use mainstem_engine::testing::{Crash, TestNode};
use mainstem_engine::{Append, Submission};
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

/// Sends one record, whose time says nothing; whether it was taken for one that is there.
fn is_duplicate(node: &mut TestNode, producer: i64, sequence: i32) -> bool {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
    batch.producer(producer, 0, sequence);
    batch.append(1, None, Some(b"value"), &[]).unwrap();
    let submission = Submission {
        appends: vec![Append {
            partition: PARTITION,
            batch: batch.build().unwrap(),
        }],
        ..Submission::default()
    };
    let ticket = node.engine.submit_in_turn(submission);
    let committed = node.driver.block_on(ticket).unwrap();
    let appended = committed.appends[0].clone().unwrap();
    node.driver.settle();
    appended.duplicate
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
