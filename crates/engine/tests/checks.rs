//! What admission refuses, and what a refusal does to those who come after it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bytes::Bytes;
use mainstem_engine::testing::{TestNode, small_options};
use mainstem_engine::{Append, AppendError, Check, Committed, EngineError, Lsn, Submission};
use mainstem_log::{AppendReference, LogOp, PartitionId, TopicId};
use mainstem_record::{BatchBuilder, Compression};
use mainstem_store::{Family, StoreOp, StoreSnapshot};

const KEY: &[u8] = b"\x00\x01key";

fn partition(index: u32) -> PartitionId {
    PartitionId {
        topic: TopicId(7),
        index,
    }
}

/// A node with partition 0, which holds one record.
fn node(seed: u64) -> TestNode {
    let mut node = TestNode::open(seed).unwrap();
    let partition = partition(0);
    submit(&mut node, log_op(LogOp::CreatePartition { partition })).unwrap();
    submit(&mut node, append(10)).unwrap();
    node
}

fn submit(node: &mut TestNode, submission: Submission) -> Result<Committed, EngineError> {
    let permit = node.engine.reserve(0).wait().unwrap();
    let ticket = node.engine.submit(submission, permit);
    node.driver.block_on(ticket)
}

fn log_op(op: LogOp) -> Submission {
    Submission {
        log_ops: vec![(1, op)],
        ..Submission::default()
    }
}

fn append(bytes: usize) -> Submission {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
    batch.append(1, None, Some(&vec![7; bytes]), &[]).unwrap();
    Submission {
        appends: vec![Append {
            partition: partition(0),
            batch: batch.build().unwrap(),
        }],
        ..Submission::default()
    }
}

fn fenced(epoch: u64, bytes: usize) -> Submission {
    let owner = Bytes::from_static(b"task");
    Submission {
        checks: vec![Check::Fence { owner, epoch }],
        all_or_nothing: true,
        ..append(bytes)
    }
}

#[test]
fn operations_that_the_log_could_not_apply_are_refused() {
    let mut node = node(1);
    let (known, unknown) = (partition(0), partition(9));
    let create = |partition| LogOp::CreatePartition { partition };
    let remove = |partition| LogOp::RemovePartition { partition };
    let start = |partition, offset| LogOp::SetStart { partition, offset };
    let reference = LogOp::AppendReference(AppendReference {
        partition: known,
        segment_base_offset: 0,
        position: 0,
        header: Bytes::from_static(&[0; 61]),
    });
    let refused = [
        vec![create(known)],
        vec![create(unknown), create(unknown)],
        vec![create(unknown), remove(unknown), create(unknown)],
        vec![remove(unknown)],
        vec![remove(known), remove(known)],
        vec![remove(known), start(known, 0)],
        vec![start(unknown, 0)],
        vec![start(known, 2)],
        vec![reference],
    ];
    for ops in refused {
        let what = format!("{ops:?}");
        let outcome = submit(
            &mut node,
            Submission {
                log_ops: ops.into_iter().map(|op| (1, op)).collect(),
                ..Submission::default()
            },
        );
        let told = matches!(
            outcome,
            Err(EngineError::Invalid(_)
                | EngineError::Append {
                    error: AppendError::UnknownPartition(_),
                    ..
                })
        );
        assert!(told, "{what}: {outcome:?}");
    }
    // What can be applied still is, and the directory opens again.
    submit(&mut node, log_op(start(known, 1))).unwrap();
    submit(&mut node, log_op(start(known, 0))).unwrap();
    submit(&mut node, log_op(create(unknown))).unwrap();
    submit(&mut node, log_op(remove(unknown))).unwrap();
    submit(&mut node, append(10)).unwrap();
    let node = node.restart().unwrap();
    assert_eq!(node.engine.log().bounds(known).unwrap().high_watermark, 2);
}

#[test]
fn a_refusal_breaks_the_fence_of_its_own_epoch_and_no_newer_one() {
    let too_large = small_options().max_frame_bytes + 1;
    let mut node = node(2);
    submit(&mut node, fenced(2, 10)).unwrap();
    let refused = submit(&mut node, fenced(1, too_large));
    assert!(matches!(refused, Err(EngineError::TooLarge { .. })));
    submit(&mut node, fenced(2, 10)).unwrap();
    // The first that an epoch sends is refused: nothing it has sent after it may pass.
    let refused = submit(&mut node, fenced(3, too_large));
    assert!(matches!(refused, Err(EngineError::TooLarge { .. })));
    for epoch in [2, 3] {
        let refused = submit(&mut node, fenced(epoch, 10));
        assert!(
            matches!(refused, Err(EngineError::Fenced { current: 3, .. })),
            "{epoch}: {refused:?}"
        );
    }
    submit(&mut node, fenced(4, 10)).unwrap();
}

fn take(epoch: u64, as_of: Lsn, bytes: usize) -> Submission {
    let (owner, key) = (Bytes::from_static(b"task"), Bytes::from_static(KEY));
    Submission {
        checks: vec![
            Check::Unchanged {
                family: Family::Offsets,
                key: key.clone(),
                as_of,
            },
            Check::TakeFence { owner, epoch },
        ],
        store_ops: vec![StoreOp::put(Family::Offsets, key, epoch.to_string())],
        all_or_nothing: true,
        ..append(bytes)
    }
}

#[test]
fn a_refused_take_of_a_fence_leaves_the_fence_as_it_was() {
    let too_large = small_options().max_frame_bytes + 1;
    for seed in 0..100 {
        let mut node = node(seed);
        submit(&mut node, fenced(2, 10)).unwrap();
        let (as_of, _) = node.engine.read_at().unwrap();
        let refused = submit(&mut node, take(3, as_of, too_large));
        assert!(matches!(refused, Err(EngineError::TooLarge { .. })));
        submit(&mut node, fenced(2, 10)).unwrap();
        // Two that have read the same take the same epoch; the winner has sent a step before it knows.
        let engine = node.engine.clone();
        let won = engine.submit_in_turn(take(3, as_of, 10));
        let lost = engine.submit_in_turn(take(3, as_of, 10));
        let step = engine.submit_in_turn(fenced(3, 10));
        node.driver.block_on(won).unwrap();
        let refused = node.driver.block_on(lost);
        assert!(matches!(refused, Err(EngineError::Conflict { check: 0 })));
        node.driver.block_on(step).unwrap();
        // Neither the epoch of the holder nor a lower one takes it, and the holder goes on.
        let (as_of, _) = node.engine.read_at().unwrap();
        for epoch in [2, 3] {
            let refused = submit(&mut node, take(epoch, as_of, 10));
            assert!(
                matches!(refused, Err(EngineError::Fenced { current: 3, .. })),
                "seed {seed}: {refused:?}"
            );
        }
        submit(&mut node, fenced(3, 10)).unwrap();
        // A holder whose own step was refused takes it anew.
        submit(&mut node, fenced(3, too_large)).unwrap_err();
        submit(&mut node, fenced(3, 10)).unwrap_err();
        submit(&mut node, take(4, as_of, 10)).unwrap();
        submit(&mut node, fenced(4, 10)).unwrap();
    }
}

fn put(family: Family, as_of: Lsn, value: &'static [u8]) -> Submission {
    let key = Bytes::from_static(KEY);
    Submission {
        store_ops: vec![StoreOp::put(family, key.clone(), value)],
        checks: vec![Check::Unchanged { family, key, as_of }],
        all_or_nothing: true,
        ..Submission::default()
    }
}

#[test]
fn a_conflict_is_answered_when_the_store_shows_what_is_in_the_way() {
    for seed in 0..100 {
        let mut node = node(seed);
        let (as_of, _) = node.engine.read_at().unwrap();
        let engine = node.engine.clone();
        let first = engine.submit_in_turn(put(Family::Catalog, as_of, b"1"));
        let second = engine.submit_in_turn(put(Family::Catalog, as_of, b"2"));
        let refused = node.driver.block_on(second);
        assert!(matches!(refused, Err(EngineError::Conflict { check: 0 })));
        let shown = StoreSnapshot::get(&**engine.store(), Family::Catalog, KEY).unwrap();
        assert_eq!(shown.as_deref(), Some(&b"1"[..]), "seed {seed}");
        node.driver.block_on(first).unwrap();
    }
}

#[test]
fn a_family_whose_writes_are_not_remembered_cannot_be_checked() {
    let mut node = node(3);
    let refused = submit(&mut node, put(Family::State, Lsn(0), b"1"));
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
}
