//! A disk that fills up: appends are refused before anything fails, and are taken again when there is space.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bytes::Bytes;
use mainstem_engine::testing::{Crash, TestNode, node_dir, small_options};
use mainstem_engine::{Append, Committed, EngineError, EngineOptions, Submission};
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::{Batch, BatchBuilder, Compression};
use mainstem_store::{Family, StoreOp};

const MIN_FREE_BYTES: u64 = 256 << 10;
const BALLAST_BYTES: u64 = 192 << 10;
const VALUE_BYTES: usize = 8 << 10;

const PARTITION: PartitionId = PartitionId {
    topic: TopicId(7),
    index: 0,
};

fn options() -> EngineOptions {
    EngineOptions {
        min_free_bytes: MIN_FREE_BYTES,
        ballast_bytes: BALLAST_BYTES,
        ..small_options()
    }
}

fn submit(node: &mut TestNode, submission: Submission) -> Result<Committed, EngineError> {
    let reserved = node
        .engine
        .reserve_with_store(submission.size_bytes(), submission.store_bytes());
    let permit = node.driver.block_on(reserved)?;
    let ticket = node.engine.submit(submission, permit);
    node.driver.block_on(ticket)
}

fn open(seed: u64, options: EngineOptions) -> TestNode {
    let mut node = TestNode::open_with(seed, options).unwrap();
    let partition = PARTITION;
    let create = Submission {
        log_ops: vec![(0, LogOp::CreatePartition { partition })],
        ..Submission::default()
    };
    submit(&mut node, create).unwrap();
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

fn value(number: u64) -> Vec<u8> {
    format!("{number:0VALUE_BYTES$}").into_bytes()
}

fn produce(node: &mut TestNode, number: u64) -> Result<Committed, EngineError> {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder.append(1, None, Some(&value(number)), &[]).unwrap();
    let append = Append {
        partition: PARTITION,
        batch: builder.build().unwrap(),
    };
    let submission = Submission {
        appends: vec![append],
        ..Submission::default()
    };
    submit(node, submission)
}

/// Produces until it is refused, and says how many were acknowledged in all.
fn produce_until_full(node: &mut TestNode, mut acknowledged: u64) -> u64 {
    loop {
        match produce(node, acknowledged) {
            Ok(_) => acknowledged += 1,
            Err(EngineError::DiskFull { free_bytes, .. }) => {
                assert!(free_bytes < MIN_FREE_BYTES + options().memory_bytes);
                return acknowledged;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(acknowledged < 10_000, "a full disk refuses nothing");
    }
}

/// Everything acknowledged is there, once and in order.
fn check(node: &TestNode, acknowledged: u64) {
    let mut number = 0;
    while number < acknowledged {
        let read = node
            .engine
            .log()
            .read(PARTITION, number as i64, 1 << 20, None);
        for mut piece in read.unwrap().batches {
            while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                for record in batch.records().unwrap() {
                    assert_eq!(record.unwrap().value.unwrap(), value(number));
                    number += 1;
                }
            }
        }
    }
    let bounds = node.engine.log().bounds(PARTITION).unwrap();
    assert_eq!(
        (number, bounds.high_watermark as u64),
        (acknowledged, acknowledged)
    );
    assert!(node.engine.status().poisoned.is_none());
}

fn ballast(node: &TestNode) -> bool {
    node.disk.exists(&node_dir().join("ballast"))
}

#[test]
fn an_engine_that_fills_the_disk_itself_refuses_in_time_and_goes_on_when_there_is_space() {
    for seed in 0..20 {
        let mut node = open(seed, options());
        let capacity = node.disk.used_bytes() + (2 << 20) + seed * 100_000;
        node.disk.set_capacity(capacity);
        let mut acknowledged = produce_until_full(&mut node, 0);
        assert!(
            acknowledged > 50,
            "seed {seed}: refused after {acknowledged}"
        );
        for _ in 0..20 {
            pass(&mut node);
        }
        produce(&mut node, acknowledged).unwrap_err();
        check(&node, acknowledged);

        // What handlers keep takes space too; what frees it is let through.
        let keep = |value| Submission {
            store_ops: vec![StoreOp {
                family: Family::State,
                key: Bytes::from_static(b"\x00\x04k"),
                value,
            }],
            ..Submission::default()
        };
        let refused = submit(&mut node, keep(Some(Bytes::from_static(b"v"))));
        assert!(
            matches!(refused, Err(EngineError::DiskFull { .. })),
            "seed {seed}"
        );
        submit(&mut node, keep(None)).unwrap();

        node.disk.set_capacity(capacity + (4 << 20));
        pass(&mut node);
        produce(&mut node, acknowledged).unwrap();
        acknowledged = produce_until_full(&mut node, acknowledged + 1);
        check(&node, acknowledged);
        let node = node.crash(Crash::Power).unwrap();
        check(&node, acknowledged);
    }
}

#[test]
fn a_disk_that_others_fill_at_once_costs_nothing_that_was_acknowledged() {
    for seed in 0..20 {
        let mut node = open(seed, options());
        assert!(ballast(&node));
        let mut acknowledged = 0;
        // In memory and in the journal, and not in segments.
        while node.engine.log().unflushed_bytes() < 48 << 10 {
            produce(&mut node, acknowledged).unwrap();
            acknowledged += 1;
        }
        node.disk.set_capacity(node.disk.used_bytes());
        // Where it is not noticed yet, it is taken: the journal's files have their space already.
        match produce(&mut node, acknowledged) {
            Ok(_) => acknowledged += 1,
            Err(error) => assert!(matches!(error, EngineError::DiskFull { .. }), "{error}"),
        }
        pass(&mut node);
        assert!(!ballast(&node), "seed {seed}: it is given up");
        let status = node.engine.status();
        assert!(status.poisoned.is_none(), "seed {seed}");
        assert_eq!(
            status.checkpoint_lsn, status.durable_lsn,
            "seed {seed}: for a last checkpoint"
        );
        let refused = produce(&mut node, acknowledged).unwrap_err();
        assert!(
            matches!(refused, EngineError::DiskFull { .. }),
            "seed {seed}: {refused}"
        );
        check(&node, acknowledged);

        let mut node = node.crash(Crash::Process).unwrap();
        check(&node, acknowledged);
        produce(&mut node, acknowledged).unwrap_err();
        node.disk.set_capacity(u64::MAX);
        pass(&mut node);
        assert!(ballast(&node), "seed {seed}: and taken again");
        produce(&mut node, acknowledged).unwrap();
        check(&node, acknowledged + 1);
    }
}

#[test]
fn without_a_byte_left_everything_waits_and_nothing_fails() {
    for seed in 0..20 {
        let ballast_bytes = 0;
        let mut node = open(
            seed,
            EngineOptions {
                ballast_bytes,
                ..options()
            },
        );
        let mut acknowledged = 0;
        while node.engine.log().unflushed_bytes() < 48 << 10 {
            produce(&mut node, acknowledged).unwrap();
            acknowledged += 1;
        }
        node.disk.set_capacity(node.disk.used_bytes());
        for _ in 0..20 {
            pass(&mut node);
        }
        produce(&mut node, acknowledged).unwrap_err();
        check(&node, acknowledged);
        let mut node = if seed % 2 == 0 {
            node.restart().unwrap()
        } else {
            node.crash(Crash::Power).unwrap()
        };
        check(&node, acknowledged);
        node.disk.set_capacity(u64::MAX);
        pass(&mut node);
        produce(&mut node, acknowledged).unwrap();
        check(&node, acknowledged + 1);
    }
}
