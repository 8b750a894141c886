//! When a compacted topic is compacted, and how far.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{TestBroker, records_of};
use mainstem_broker::{FetchRequest, Isolation, NewTopic};
use mainstem_engine::testing::small_options;
use mainstem_record::{BatchBuilder, Compression};

/// One topic, `t`, of small segments, with these settings beside `cleanup.policy=compact`.
fn open(configs: &[(&str, &str)]) -> TestBroker {
    let mut options = small_options();
    options.log.segment_bytes = 2 << 10;
    let mut test = TestBroker::open_with(31, options);
    let mut topic = NewTopic::named("t").config("cleanup.policy", "compact");
    for (name, value) in configs {
        topic = topic.config(*name, *value);
    }
    test.run(|broker, caller| async move { broker.create_topic(&caller, topic, 7).await })
        .unwrap();
    test
}

/// Batches of one record of about 130 bytes each.
fn write(test: &mut TestBroker, timestamp_ms: i64, keys: impl Iterator<Item = u32>) {
    let value = "x".repeat(100);
    for key in keys {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        let key = format!("key-{key}");
        builder
            .append(
                timestamp_ms,
                Some(key.as_bytes()),
                Some(value.as_bytes()),
                &[],
            )
            .unwrap();
        test.produce_one("t", 0, builder.build().unwrap()).unwrap();
    }
}

/// Has what is due compacted; the number of partitions, and the broker after a restart, which looks at the disk.
fn compact(mut test: TestBroker, now_ms: i64) -> (usize, TestBroker) {
    let round = test.broker.compaction_round(now_ms).unwrap();
    test.node.driver.settle();
    (round.requested, test.restart())
}

fn offsets(test: &TestBroker) -> Vec<i64> {
    let request = FetchRequest {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        max_bytes: 1 << 20,
        isolation: Isolation::ReadUncommitted,
    };
    let fetched = test.broker.fetch(&test.caller, &request).unwrap();
    let records = records_of(&fetched.batches);
    records.iter().map(|record| record.offset).collect()
}

#[test]
fn a_topic_is_compacted_once_so_much_of_it_is_dirty() {
    let mut test = open(&[("min.cleanable.dirty.ratio", "0.6")]);
    // Of keys that are all there once, everything stays, and is clean then.
    write(&mut test, 1_000, 0..200);
    let (requested, mut test) = compact(test.restart(), 2_000);
    assert_eq!(requested, 1, "all of it is dirty");
    assert_eq!(offsets(&test).len(), 200);
    write(&mut test, 1_000, 0..100);
    let (requested, mut test) = compact(test.restart(), 2_000);
    assert_eq!(requested, 0, "a third of it is dirty");
    assert_eq!(offsets(&test).len(), 300);
    write(&mut test, 1_000, (0..300).map(|number| number % 100));
    let (requested, test) = compact(test.restart(), 2_000);
    assert_eq!(requested, 1, "two thirds of it are dirty");
    assert!(offsets(&test).len() < 300);
}

#[test]
fn what_is_young_is_left_alone() {
    let mut test = open(&[
        ("min.cleanable.dirty.ratio", "0.1"),
        ("min.compaction.lag.ms", "60000"),
    ]);
    write(&mut test, 1_000, (0..60).map(|number| number % 3));
    let (requested, mut test) = compact(test.restart(), 60_999);
    assert_eq!(requested, 0, "all of it is young");
    write(&mut test, 61_000, (0..60).map(|number| number % 3));
    let (requested, test) = compact(test.restart(), 61_000);
    assert_eq!(requested, 1);
    let found = offsets(&test);
    let young: Vec<i64> = found.iter().copied().filter(|at| *at >= 60).collect();
    assert_eq!(young, (60..120).collect::<Vec<i64>>());
    let old = found.len() - young.len();
    assert!(old < 25, "{old} old records are left");
}
