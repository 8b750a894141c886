//! Where an idempotent producer begins on a partition that does not know it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use mainstem_engine::testing::{Crash, TestNode, small_options};
use mainstem_engine::{Append, AppendError, EngineError, EngineOptions, Submission};
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::{BatchBuilder, Compression};

const PARTITION: PartitionId = PartitionId {
    topic: TopicId(7),
    index: 0,
};

fn open() -> TestNode {
    let options = EngineOptions {
        min_free_bytes: 256 << 10,
        ballast_bytes: 192 << 10,
        ..small_options()
    };
    let mut node = TestNode::open_with(1, options).unwrap();
    let partition = PARTITION;
    let create = Submission {
        log_ops: vec![(0, LogOp::CreatePartition { partition })],
        ..Submission::default()
    };
    let created = node.engine.submit_in_turn(create);
    node.driver.block_on(created).unwrap();
    pass(&mut node);
    node
}

/// Lets a while pass.
fn pass(node: &mut TestNode) {
    for _ in 0..3 {
        node.driver.tick();
        node.driver.settle();
    }
}

/// What becomes of one record of producer 5: its offset, and whether it was there already.
fn send(
    node: &mut TestNode,
    epoch: i16,
    sequence: i32,
) -> Result<Result<(i64, bool), AppendError>, EngineError> {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
    batch.producer(5, epoch, sequence);
    batch.append(1, None, Some(b"value"), &[]).unwrap();
    let submission = Submission {
        appends: vec![Append {
            partition: PARTITION,
            batch: batch.build().unwrap(),
        }],
        ..Submission::default()
    };
    let ticket = node.engine.submit_in_turn(submission);
    let committed = node.driver.block_on(ticket)?;
    let appended = committed.appends[0].clone();
    Ok(appended.map(|appended| (appended.base_offset, appended.duplicate)))
}

fn out_of_order(expected: i32, got: i32) -> Result<(i64, bool), AppendError> {
    Err(AppendError::OutOfOrderSequence {
        producer_id: 5,
        expected,
        got,
    })
}

#[test]
fn who_is_not_known_begins_anywhere() {
    let mut node = open();
    assert_eq!(send(&mut node, 0, 57).unwrap(), Ok((0, false)));
    assert_eq!(send(&mut node, 0, 57).unwrap(), Ok((0, true)));
    assert_eq!(send(&mut node, 0, 59).unwrap(), out_of_order(58, 59));
    assert_eq!(send(&mut node, 0, 58).unwrap(), Ok((1, false)));
    let mut node = node.crash(Crash::Power).unwrap();
    assert_eq!(send(&mut node, 0, 59).unwrap(), Ok((2, false)));
    assert_eq!(send(&mut node, 1, 3).unwrap(), out_of_order(0, 3));
}

#[test]
fn what_never_came_does_not_pass_for_a_duplicate() {
    let mut node = open();
    for offset in 0..4 {
        let sequence = 10 + offset as i32;
        assert_eq!(send(&mut node, 0, sequence).unwrap(), Ok((offset, false)));
        assert_eq!(
            send(&mut node, 0, 9).unwrap(),
            out_of_order(sequence + 1, 9)
        );
    }
    // A producer has five requests under way at most: what is behind so many came before them.
    assert_eq!(send(&mut node, 0, 14).unwrap(), Ok((4, false)));
    let long_ago = AppendError::DuplicateSequence {
        producer_id: 5,
        got: 9,
    };
    assert_eq!(send(&mut node, 0, 9).unwrap(), Err(long_ago));
}

#[test]
fn nothing_is_taken_in_place_of_a_first_batch_that_was_refused() {
    let mut node = open();
    let used_bytes = node.disk.used_bytes();
    node.disk.set_capacity(used_bytes);
    pass(&mut node);
    let refused = send(&mut node, 0, 7);
    assert!(
        matches!(refused, Err(EngineError::DiskFull { .. })),
        "{refused:?}"
    );
    node.disk.set_capacity(u64::MAX);
    pass(&mut node);
    assert_eq!(send(&mut node, 0, 8).unwrap(), out_of_order(7, 8));
    assert_eq!(send(&mut node, 0, 7).unwrap(), Ok((0, false)));
    assert_eq!(send(&mut node, 0, 8).unwrap(), Ok((1, false)));
}

#[test]
fn who_gives_a_refused_batch_up_begins_with_the_next_epoch() {
    let mut node = open();
    let used_bytes = node.disk.used_bytes();
    node.disk.set_capacity(used_bytes);
    pass(&mut node);
    send(&mut node, 0, 0).unwrap_err();
    node.disk.set_capacity(u64::MAX);
    pass(&mut node);
    assert_eq!(send(&mut node, 1, 1).unwrap(), out_of_order(0, 1));
    assert_eq!(send(&mut node, 1, 0).unwrap(), Ok((0, false)));
}
