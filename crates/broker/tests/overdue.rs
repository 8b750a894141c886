//! How long a record of a compacted topic waits for compaction at most (`max.compaction.lag.ms`).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::TestBroker;
use mainstem_broker::{BrokerError, BrokerScope, NewTopic, TopicChange};
use mainstem_engine::testing::small_options;
use mainstem_record::{BatchBuilder, Compression};

fn open() -> TestBroker {
    let mut options = small_options();
    options.log.segment_bytes = 2 << 10;
    TestBroker::open_with(41, options)
}

/// A compacted topic that no share of dirty records has compacted.
fn compacted(name: &str) -> NewTopic {
    let topic = NewTopic::named(name).config("cleanup.policy", "compact");
    topic.config("min.cleanable.dirty.ratio", "1")
}

fn create(test: &mut TestBroker, topic: NewTopic) -> Result<(), BrokerError> {
    test.run(|broker, caller| async move { broker.create_topic(&caller, topic, 7).await })
        .map(drop)
}

/// A record of that time, in a batch of its own.
fn write(test: &mut TestBroker, topic: &str, time_ms: i64) {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    let value = "x".repeat(100);
    builder
        .append(time_ms, Some(b"key"), Some(value.as_bytes()), &[])
        .unwrap();
    test.produce_one(topic, 0, builder.build().unwrap())
        .unwrap();
}

fn code<T>(outcome: Result<T, BrokerError>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "ok")
}

#[test]
fn a_partition_is_compacted_when_its_oldest_dirty_record_has_waited_so_long() {
    let mut test = open();
    let topic = compacted("t").config("max.compaction.lag.ms", "1000");
    create(&mut test, topic).unwrap();
    create(&mut test, compacted("patient")).unwrap();
    // Of later times in front: each segment has a say. The last record stands in the one that is not sealed.
    for topic in ["t", "patient"] {
        for n in 0..60 {
            let time_ms = if (20..40).contains(&n) { 5_000 } else { 5_500 };
            write(&mut test, topic, time_ms);
        }
    }
    let requested = |test: &TestBroker, now_ms| {
        let round = test.broker.compaction_round(now_ms).unwrap();
        assert_eq!(round.topics, 2);
        round.requested
    };
    // From the files.
    test = test.restart();
    assert_eq!(requested(&test, 6_000), 0, "to the millisecond");
    assert_eq!(requested(&test, 6_001), 1);
    test.node.driver.settle();
    test = test.restart();
    assert_eq!(requested(&test, 9_000), 0, "nothing is dirty");
    let size = |topic: &str| {
        let bounds = test.broker.partition_bounds(&test.caller, topic, 0);
        bounds.unwrap().size_bytes
    };
    assert!(2 * size("t") < size("patient"), "{}", size("t"));
}

#[test]
fn a_segment_of_a_compacted_topic_ends_before_its_records_are_overdue() {
    let mut test = open();
    let lag = |topic: NewTopic| topic.config("max.compaction.lag.ms", "10");
    create(&mut test, lag(compacted("compacted"))).unwrap();
    create(&mut test, lag(NewTopic::named("deleted"))).unwrap();
    for topic in ["compacted", "deleted"] {
        for time_ms in [1_000, 1_010, 1_011] {
            write(&mut test, topic, time_ms);
        }
    }
    test = test.restart();
    let segments = ["compacted", "deleted"].map(|topic| {
        let topic = test.broker.topic(&test.caller, topic).unwrap();
        let partition = topic.partition_id(0).unwrap();
        test.node.engine.log().segment_count(partition).unwrap()
    });
    assert_eq!(segments, [2, 1]);
}

#[test]
fn a_record_that_must_wait_longer_than_it_may_is_refused() {
    let mut test = open();
    let both = |name: &str, min: &str, max: &str| {
        let topic = compacted(name).config("min.compaction.lag.ms", min);
        topic.config("max.compaction.lag.ms", max)
    };
    let refused = create(&mut test, both("t", "6", "5"));
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("max.compaction.lag.ms, which is 5"),
        "{error}"
    );
    create(&mut test, both("t", "5", "5")).unwrap();
    let alter =
        |test: &mut TestBroker, name: &str, value: &str| {
            let change = TopicChange {
                set: [(name.to_owned(), Some(value.to_owned()))].into(),
                ..TopicChange::default()
            };
            code(test.run(|broker, caller| async move {
                broker.alter_topic(&caller, "t", change).await
            }))
        };
    assert_eq!(
        alter(&mut test, "min.compaction.lag.ms", "6"),
        "invalid_config"
    );
    assert_eq!(
        alter(&mut test, "max.compaction.lag.ms", "4"),
        "invalid_config"
    );
    assert_eq!(alter(&mut test, "max.compaction.lag.ms", "6"), "ok");
    assert_eq!(alter(&mut test, "min.compaction.lag.ms", "6"), "ok");
    // What one of them has by default counts as well, and defaults are judged together.
    let set = |test: &mut TestBroker, changes: &[(&str, &str)]| {
        let changes: BTreeMap<_, _> = changes
            .iter()
            .map(|(name, value)| (name.to_string(), Some(value.to_string())))
            .collect();
        code(test.run(|broker, caller| async move {
            let scope = BrokerScope::Cluster;
            broker
                .alter_broker_configs(&caller, scope, &changes, false)
                .await
        }))
    };
    let (min, max) = (
        "log.cleaner.min.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
    );
    assert_eq!(set(&mut test, &[(min, "9"), (max, "8")]), "invalid_config");
    assert_eq!(set(&mut test, &[(max, "8")]), "ok");
    assert_eq!(set(&mut test, &[(min, "9")]), "invalid_config");
    let refused = create(
        &mut test,
        compacted("u").config("min.compaction.lag.ms", "9"),
    );
    assert_eq!(code(refused), "invalid_config");
}
