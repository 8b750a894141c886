//! What the broker promises, one thing at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use common::{TestBroker, batch, record, records_of, sequenced, values};
use mainstem_broker::configs::Source;
use mainstem_broker::{
    Broker, BrokerError, BrokerScope, Caller, FetchRequest, Isolation, NewRecord, NewTopic,
    OffsetSpec, ProduceBatch, ProducerIdentity, TopicChange, TopicTraffic, Unpacking,
};
use mainstem_engine::testing::{Crash, poll_once, small_options};
use mainstem_record::{Batch, BatchBuilder, Compression, partition_for_key};

fn create(test: &mut TestBroker, topic: NewTopic) {
    test.run(|broker, caller| async move { broker.create_topic(&caller, topic, 7).await })
        .unwrap();
}

fn code<T>(outcome: Result<T, BrokerError>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "ok")
}

#[test]
fn a_topic_is_created_described_listed_and_survives() {
    let mut test = TestBroker::open(1);
    let new = NewTopic::named("flights")
        .partitions(3)
        .config("retention.ms", "5000");
    let created = test
        .run(|broker, caller| async move { broker.create_topic(&caller, new, 7).await })
        .unwrap();
    assert_eq!(
        (
            created.partitions,
            created.created_ms,
            created.limits.retention_ms
        ),
        (3, 7, Some(5_000))
    );
    create(&mut test, NewTopic::named("alerts"));
    for crash in [Crash::Process, Crash::Power] {
        test = test.crash(crash);
        let names: Vec<String> = test
            .broker
            .list_topics(&test.caller)
            .unwrap()
            .iter()
            .map(|topic| topic.name.to_string())
            .collect();
        assert_eq!(names, ["alerts", "flights"]);
        let described = test.broker.describe_topic(&test.caller, "flights").unwrap();
        assert_eq!(described.topic.id, created.id);
        assert_eq!(described.topic.shards, created.shards);
        assert_eq!(described.bounds.len(), 3);
        let retention = described
            .configs
            .iter()
            .find(|config| config.key.name == "retention.ms")
            .unwrap();
        assert_eq!(
            (retention.value.as_str(), retention.source),
            ("5000", Source::Topic)
        );
    }
}

#[test]
fn the_same_partition_number_has_the_same_shard_in_every_topic() {
    let mut test = TestBroker::open(2);
    create(&mut test, NewTopic::named("a").partitions(8));
    create(&mut test, NewTopic::named("b").partitions(8));
    let shards = |name: &str| {
        test.broker
            .topic(&test.caller, name)
            .unwrap()
            .shards
            .clone()
    };
    assert_eq!(shards("a"), shards("b"));
    assert_ne!(shards("a")[0], shards("a")[1], "and partitions are spread");
}

#[test]
fn nothing_is_created_by_accident_or_twice() {
    let mut test = TestBroker::open(3);
    create(&mut test, NewTopic::named("flights"));
    let again = test.run(|broker, caller| async move {
        broker
            .create_topic(&caller, NewTopic::named("flights"), 8)
            .await
    });
    assert_eq!(code(again), "topic_exists");
    let error = test.produce_one("flihgts", 0, batch(&["x"])).unwrap_err();
    assert_eq!(
        (error.code(), error.hint().as_deref()),
        ("topic_not_found", Some("did you mean 'flights'?"))
    );
    let error = test.produce_one("zebra", 0, batch(&["x"])).unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("create it first: mainstem topic create zebra")
    );
    assert_eq!(test.broker.list_topics(&test.caller).unwrap().len(), 1);
}

#[test]
fn requests_that_cannot_be_are_refused_by_name() {
    let mut test = TestBroker::open(4);
    for (new, expected) in [
        (NewTopic::named("a b"), "invalid_topic_name"),
        (NewTopic::named("a").partitions(0), "invalid_partitions"),
        (
            NewTopic::named("a").partitions(10_001),
            "invalid_partitions",
        ),
        (
            NewTopic::named("a").config("retention.mss", "1"),
            "unknown_config",
        ),
        (
            NewTopic::named("a").config("retention.ms", "soon"),
            "invalid_config",
        ),
        (
            NewTopic::named("a").config("min.insync.replicas", "2"),
            "refused_config",
        ),
        (NewTopic::named("__consumer_offsets"), "internal_topic"),
        (NewTopic::named("__transaction_state"), "internal_topic"),
    ] {
        let outcome =
            test.run(|broker, caller| async move { broker.create_topic(&caller, new, 0).await });
        assert_eq!(code(outcome), expected);
    }
    let error = test.produce_one("__consumer_offsets", 0, batch(&["x"]));
    let error = error.unwrap_err();
    assert_eq!(error.code(), "internal_topic");
    assert!(error.hint().unwrap().contains("system.group_offsets"));
    create(&mut test, NewTopic::named("t").partitions(2));
    let error = test.produce_one("t", 2, batch(&["x"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic 't' has no partition 2: it has 2, numbered from 0"
    );
    let error = test.broker.fetch(
        &test.caller,
        &FetchRequest {
            topic: "t".into(),
            partition: 0,
            offset: 5,
            max_bytes: 1,
            isolation: Isolation::ReadUncommitted,
        },
    );
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        "offset 5 of t/0 does not exist: the partition holds 0 up to 0 (exclusive)"
    );
    assert_eq!(error.code(), "offset_out_of_range");
    let tenant = Caller {
        tenant: "no/such".into(),
        principal: "x".into(),
    };
    assert_eq!(code(test.broker.list_topics(&tenant)), "invalid_tenant");
}

#[test]
fn tenants_do_not_see_each_other() {
    let mut test = TestBroker::open(5);
    create(&mut test, NewTopic::named("t"));
    let other = Caller::new("other", "bob").unwrap();
    assert!(test.broker.list_topics(&other).unwrap().is_empty());
    assert_eq!(code(test.broker.topic(&other, "t")), "topic_not_found");
    let (broker, caller) = (test.broker.clone(), other.clone());
    test.node
        .driver
        .block_on(broker.create_topic(&caller, NewTopic::named("t"), 0))
        .unwrap();
    test.produce_one("t", 0, batch(&["mine"])).unwrap();
    assert_eq!(
        test.broker
            .partition_bounds(&other, "t", 0)
            .unwrap()
            .high_watermark,
        0
    );
}

#[test]
fn settings_partitions_and_schema_change_together_or_not_at_all() {
    let mut test = TestBroker::open(6);
    create(
        &mut test,
        NewTopic::named("t")
            .partitions(2)
            .config("retention.ms", "5"),
    );
    test.produce_one("t", 1, batch(&["a"])).unwrap();
    let set = |name: &str, value: Option<&str>| TopicChange {
        set: [(name.to_owned(), value.map(str::to_owned))].into(),
        ..TopicChange::default()
    };
    let mut alter = |change: TopicChange| {
        test.run(|broker, caller| async move { broker.alter_topic(&caller, "t", change).await })
    };
    let altered = alter(TopicChange {
        partitions: Some(4),
        ..set("max.message.bytes", Some("2048"))
    })
    .unwrap();
    assert_eq!(
        (altered.partitions, altered.limits.max_message_bytes),
        (4, 2048)
    );
    assert_eq!(
        alter(set("retention.ms", None))
            .unwrap()
            .limits
            .retention_ms,
        Some(604_800_000)
    );
    let refused = alter(TopicChange {
        partitions: Some(3),
        ..set("retention.ms", Some("9"))
    });
    assert_eq!(code(refused), "invalid_partitions");
    assert_eq!(
        code(alter(set("retention.mm", Some("9")))),
        "unknown_config"
    );
    test.produce_one("t", 3, batch(&["b"])).unwrap();
    test = test.crash(Crash::Power);
    let topic = test.broker.topic(&test.caller, "t").unwrap();
    assert_eq!(
        (topic.partitions, topic.limits.retention_ms),
        (4, Some(604_800_000))
    );
    assert_eq!(values(&test.read_all("t", 1)), ["a"]);
    assert_eq!(values(&test.read_all("t", 3)), ["b"]);
    let big = "x".repeat(3_000);
    let error = test.produce_one("t", 0, batch(&[&big])).unwrap_err();
    assert_eq!(error.code(), "record_too_large");
    assert!(
        error
            .hint()
            .unwrap()
            .contains("mainstem topic alter t --set max.message.bytes"),
        "{error}"
    );
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_free() {
    let mut test = TestBroker::open(7);
    create(&mut test, NewTopic::named("t").partitions(2));
    test.produce_one("t", 0, batch(&["old"])).unwrap();
    let before = test.broker.topic(&test.caller, "t").unwrap();
    test.run(|broker, caller| async move { broker.delete_topic(&caller, "t").await })
        .unwrap();
    assert_eq!(
        code(test.broker.topic(&test.caller, "t")),
        "topic_not_found"
    );
    let again = test.run(|broker, caller| async move { broker.delete_topic(&caller, "t").await });
    assert_eq!(code(again), "topic_not_found");
    create(&mut test, NewTopic::named("t"));
    assert_ne!(test.broker.topic(&test.caller, "t").unwrap().id, before.id);
    assert_eq!(
        test.produce_one("t", 0, batch(&["new"]))
            .unwrap()
            .base_offset,
        0
    );
    test = test.crash(Crash::Process);
    assert_eq!(values(&test.read_all("t", 0)), ["new"]);
}

#[test]
fn one_call_goes_to_many_partitions_with_one_frame_and_its_own_outcome_for_each() {
    let mut test = TestBroker::open(8);
    create(&mut test, NewTopic::named("t").partitions(50));
    let before = test.node.engine.status().admitted_lsn;
    let mut batches: Vec<ProduceBatch> = (0..50)
        .map(|partition| ProduceBatch {
            topic: "t".into(),
            partition,
            batch: batch(&["a", "b"]),
        })
        .collect();
    batches.insert(
        10,
        ProduceBatch {
            topic: "none".into(),
            partition: 0,
            batch: batch(&["x"]),
        },
    );
    batches.insert(
        20,
        ProduceBatch {
            topic: "t".into(),
            partition: 99,
            batch: batch(&["x"]),
        },
    );
    let outcomes = test
        .run(|broker, caller| async move { broker.produce(&caller, batches, 0).await })
        .unwrap();
    assert_eq!(outcomes.len(), 52);
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match index {
            10 => assert_eq!(code(outcome), "topic_not_found"),
            20 => assert_eq!(code(outcome), "partition_not_found"),
            _ => {
                let produced = outcome.unwrap();
                assert_eq!(
                    (
                        produced.base_offset,
                        produced.last_offset,
                        produced.duplicate
                    ),
                    (0, 1, false)
                );
            }
        }
    }
    assert_eq!(
        test.node.engine.status().admitted_lsn.0,
        before.0 + 1,
        "one frame"
    );
}

#[test]
fn a_retry_is_answered_with_the_first_offsets() {
    let mut test = TestBroker::open(9);
    create(&mut test, NewTopic::named("t"));
    let producer = test
        .run(|broker, caller| async move { broker.init_producer(&caller).await })
        .unwrap();
    let other = test
        .run(|broker, caller| async move { broker.init_producer(&caller).await })
        .unwrap();
    assert_ne!(producer.id, other.id);
    let first = test
        .produce_one("t", 0, sequenced(producer, 0, &["a", "b"]))
        .unwrap();
    test.produce_one("t", 0, sequenced(other, 0, &["x"]))
        .unwrap();
    let retry = test
        .produce_one("t", 0, sequenced(producer, 0, &["a", "b"]))
        .unwrap();
    assert!(retry.duplicate);
    assert_eq!(
        (retry.base_offset, retry.last_offset),
        (first.base_offset, first.last_offset)
    );
    let gap = test
        .produce_one("t", 0, sequenced(producer, 5, &["c"]))
        .unwrap_err();
    assert_eq!(gap.code(), "out_of_order_sequence");
    for crash in [Crash::Process, Crash::Power] {
        test = test.crash(crash);
        let retry = test
            .produce_one("t", 0, sequenced(producer, 0, &["a", "b"]))
            .unwrap();
        assert_eq!(
            (retry.duplicate, retry.base_offset),
            (true, first.base_offset)
        );
    }
    assert_eq!(values(&test.read_all("t", 0)), ["a", "b", "x"]);
}

#[test]
fn what_goes_through_a_topic_is_counted_once_and_survives_alterations() {
    let mut test = TestBroker::open(9);
    create(&mut test, NewTopic::named("t"));
    let producer = test
        .run(|broker, caller| async move { broker.init_producer(&caller).await })
        .unwrap();
    // The second is a retry, the third is refused.
    for sequence in [0, 0, 7] {
        let _ = test.produce_one("t", 0, sequenced(producer, sequence, &["a", "b"]));
    }
    let sent = batch(&["c"]);
    let bytes = sent.size_bytes() as u64;
    test.produce_one("t", 0, sent).unwrap();
    let records = vec![record(None, "d"), record(Some("k"), "e")];
    test.run(
        |broker, caller| async move { broker.produce_records(&caller, "t", records, 0).await },
    )
    .unwrap();
    let change = TopicChange {
        set: [("retention.ms".to_owned(), Some("5000".to_owned()))].into(),
        ..TopicChange::default()
    };
    test.run(|broker, caller| async move { broker.alter_topic(&caller, "t", change).await })
        .unwrap();
    // All five, and from the middle of the first batch again.
    test.read_all("t", 0);
    let request = FetchRequest {
        topic: "t".into(),
        partition: 0,
        offset: 1,
        max_bytes: 1,
        isolation: Isolation::ReadUncommitted,
    };
    test.broker.fetch(&test.caller, &request).unwrap();
    let traffic = |test: &TestBroker| test.broker.topic(&test.caller, "t").unwrap().traffic();
    let found = traffic(&test);
    assert_eq!((found.produced_records, found.fetched_records), (5, 6));
    assert!(
        found.produced_bytes > bytes && found.fetched_bytes > found.produced_bytes,
        "{found:?}"
    );
    test.run(|broker, caller| async move { broker.delete_topic(&caller, "t").await })
        .unwrap();
    create(&mut test, NewTopic::named("t"));
    assert_eq!(traffic(&test), TopicTraffic::default());
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut test = TestBroker::open(10);
    let mut seen = std::collections::BTreeSet::new();
    for crash in [Crash::Process, Crash::Power, Crash::Process] {
        for _ in 0..3 {
            let producer = test
                .run(|broker, caller| async move { broker.init_producer(&caller).await })
                .unwrap();
            assert!(seen.insert(producer.id));
        }
        test = test.crash(crash);
    }
    let before = test.node.engine.status().admitted_lsn.0;
    for _ in 0..100 {
        test.run(|broker, caller| async move { broker.init_producer(&caller).await })
            .unwrap();
    }
    assert!(
        test.node.engine.status().admitted_lsn.0 - before <= 1,
        "ids come in blocks"
    );
}

#[test]
fn batches_that_producers_may_not_send_are_refused() {
    let mut test = TestBroker::open(11);
    create(
        &mut test,
        NewTopic::named("t").config("message.timestamp.after.max.ms", "100"),
    );
    assert_eq!(
        code(test.produce_one("t", 0, batch(&["from the future"]))),
        "invalid_timestamp"
    );
    create(&mut test, NewTopic::named("u"));
    let late = BatchBuilder::new(Compression::None, 1 << 20);
    assert_eq!(
        code(test.produce_one("u", 0, at(late, &[3_600_001]))),
        "invalid_timestamp",
        "an hour ahead is the default"
    );
    let nameless = sequenced(ProducerIdentity { id: 4, epoch: -1 }, 0, &["x"]);
    assert_eq!(code(test.produce_one("u", 0, nameless)), "invalid_batch");
}

#[test]
fn settings_of_the_broker_hold_for_topics_without_their_own() {
    fn alter(
        test: &mut TestBroker,
        scope: BrokerScope,
        name: &str,
        value: Option<&str>,
        only_checks: bool,
    ) -> Result<(), BrokerError> {
        let changes = [(name.to_owned(), value.map(str::to_owned))].into();
        test.run(|broker, caller| async move {
            broker
                .alter_broker_configs(&caller, scope, &changes, only_checks)
                .await
        })
    }
    fn retention(test: &TestBroker, topic: &str) -> Option<i64> {
        let topic = test.broker.topic(&test.caller, topic).unwrap();
        let by_id = test.broker.topic_by_id(&test.caller, topic.id).unwrap();
        assert_eq!(topic.limits, by_id.limits);
        topic.limits.retention_ms
    }
    let (node, all) = (BrokerScope::Node, BrokerScope::Cluster);
    let name = "log.retention.ms";
    let mut test = TestBroker::open(20);
    create(&mut test, NewTopic::named("t"));
    create(
        &mut test,
        NewTopic::named("own").config("retention.ms", "7"),
    );
    alter(&mut test, all, "message.max.bytes", Some("1024"), false).unwrap();
    let large = batch(&["x".repeat(2_000).as_str()]);
    assert_eq!(code(test.produce_one("t", 0, large)), "record_too_large");
    alter(&mut test, all, name, Some("5"), false).unwrap();
    alter(&mut test, node, name, Some("6"), true).unwrap();
    assert_eq!(retention(&test, "t"), Some(5));
    alter(&mut test, node, name, Some("6"), false).unwrap();
    for crash in [Crash::Process, Crash::Power] {
        let retentions = ["t", "own"].map(|topic| retention(&test, topic));
        assert_eq!(retentions, [Some(6), Some(7)]);
        test = test.crash(crash);
    }
    test = test.restart();
    create(&mut test, NewTopic::named("later"));
    assert_eq!(retention(&test, "later"), Some(6));
    let synonyms = |topic: &str| -> Vec<(&'static str, String, Source)> {
        let described = test.broker.describe_topic(&test.caller, topic).unwrap();
        let mut configs = described.configs.into_iter();
        let config = configs.find(|one| one.key.name == "retention.ms").unwrap();
        let first = &config.synonyms[0];
        assert_eq!((&first.value, first.source), (&config.value, config.source));
        let all = config.synonyms.into_iter();
        all.map(|one| (one.name, one.value, one.source)).collect()
    };
    let mut expected = vec![
        (name, "6".to_owned(), Source::DynamicNode),
        (name, "5".to_owned(), Source::DynamicCluster),
        (name, "604800000".to_owned(), Source::Default),
    ];
    assert_eq!(synonyms("t"), expected);
    expected.insert(0, ("retention.ms", "7".to_owned(), Source::Topic));
    assert_eq!(synonyms("own"), expected);
    // Another node has other settings of its own.
    let mut settings = common::settings(20);
    settings.node_id = 2;
    let other = Broker::open(test.node.engine.clone(), settings).unwrap();
    let other = other.topic(&test.caller, "t").unwrap();
    assert_eq!(other.limits.retention_ms, Some(5));

    alter(&mut test, node, name, None, false).unwrap();
    assert_eq!(retention(&test, "t"), Some(5));
    alter(&mut test, all, name, None, false).unwrap();
    assert_eq!(retention(&test, "t"), Some(604_800_000));
    for (name, value, expected) in [
        ("num.partitions", "2", "not_dynamic"),
        ("retention.ms", "2", "not_dynamic"),
        ("log.retention.ms", "soon", "invalid_config"),
        ("min.insync.replicas", "2", "refused_config"),
    ] {
        let refused = alter(&mut test, all, name, Some(value), true);
        assert_eq!(code(refused), expected, "{name}");
    }
    // Who stops waiting leaves nothing behind that others do not see.
    let changes = [(name.to_owned(), Some("8".to_owned()))].into();
    let (broker, caller) = (test.broker.clone(), test.caller.clone());
    let mut given_up = Box::pin(broker.alter_broker_configs(&caller, all, &changes, false));
    assert!(poll_once(given_up.as_mut()).is_pending());
    drop(given_up);
    test.node.driver.settle();
    assert_eq!(retention(&test, "t"), Some(8));
}

/// A batch of records at these times.
fn at(mut builder: BatchBuilder, times_ms: &[i64]) -> Batch {
    for time_ms in times_ms {
        builder.append(*time_ms, Some(b"k"), None, &[]).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn times_are_judged_record_by_record() {
    const NOW_MS: i64 = 10_000;
    let mut test = TestBroker::open(19);
    let both = NewTopic::named("both").config("message.timestamp.before.max.ms", "100");
    create(
        &mut test,
        both.config("message.timestamp.after.max.ms", "50"),
    );
    let own = NewTopic::named("own").config("message.timestamp.before.max.ms", "0");
    create(
        &mut test,
        own.config("message.timestamp.type", "LogAppendTime"),
    );
    create(&mut test, NewTopic::named("default"));
    let mut wrong = |topic: &str, codec, times_ms: &[i64]| {
        let batch = at(BatchBuilder::new(codec, 1 << 20), times_ms);
        let batches = vec![ProduceBatch {
            topic: topic.into(),
            partition: 0,
            batch,
        }];
        let outcomes = test
            .run(|broker, caller| async move { broker.produce(&caller, batches, NOW_MS).await });
        match outcomes.unwrap().remove(0) {
            Ok(_) => Vec::new(),
            Err(BrokerError::InvalidTimestamp { records, .. }) => records,
            Err(other) => panic!("{other}"),
        }
    };
    for codec in [Compression::None, Compression::Lz4] {
        // The edges are in; -1 is no time.
        assert_eq!(wrong("both", codec, &[9_900, 10_050, -1, 10_000]), []);
        assert_eq!(wrong("both", codec, &[-1]), []);
        assert_eq!(wrong("both", codec, &[9_899]), [(0, 9_899)]);
        assert_eq!(wrong("both", codec, &[10_051]), [(0, 10_051)]);
        // In the middle, and both kinds at once.
        assert_eq!(
            wrong("both", codec, &[10_000, 9_000, 10_000, 11_000, i64::MIN]),
            [(1, 9_000), (3, 11_000), (4, i64::MIN)]
        );
        assert_eq!(wrong("both", codec, &[1; 40]).len(), 16, "the first");
        assert_eq!(wrong("own", codec, &[0, i64::MAX]), []);
        assert_eq!(wrong("default", codec, &[i64::MIN, 0, 3_610_000]), []);
        assert_eq!(wrong("default", codec, &[0, 3_610_001]), [(1, 3_610_001)]);
    }
    let old = NewRecord {
        timestamp_ms: Some(0),
        ..record(None, "v")
    };
    let refused = test.run(|broker, caller| async move {
        let records = vec![record(None, "v"), old];
        broker
            .produce_records(&caller, "both", records, NOW_MS)
            .await
    });
    let refused = refused.unwrap_err();
    assert_eq!(refused.of_records()[0].0, 1);
    assert!(
        refused.to_string().contains("from 9900 to 10050"),
        "{refused}"
    );
}

#[test]
fn a_topic_has_its_own_codec_whoever_writes() {
    let mut test = TestBroker::open(17);
    for (name, codec) in [
        ("uncompressed", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ] {
        create(
            &mut test,
            NewTopic::named(name).config("compression.type", name),
        );
        let producer = test
            .run(|broker, caller| async move { broker.init_producer(&caller).await })
            .unwrap();
        for (sequence, sent) in Compression::ALL.into_iter().enumerate() {
            let mut builder = BatchBuilder::new(sent, 1 << 20);
            builder.producer(producer.id, producer.epoch, sequence as i32);
            builder
                .append(1_000, Some(b"k"), None, &[("h", None), ("h", Some(b""))])
                .unwrap();
            let batch = builder.build().unwrap();
            let [first, again] =
                [batch.clone(), batch].map(|batch| test.produce_one(name, 0, batch).unwrap());
            assert!(!first.duplicate && again.duplicate, "{sent} in {name}");
            assert_eq!(first.base_offset, again.base_offset);
        }
        let records = vec![record(Some("k"), "v")];
        test.run(|broker, caller| async move {
            broker.produce_records(&caller, name, records, 5).await
        })
        .unwrap();
        let request = FetchRequest {
            topic: name.into(),
            partition: 0,
            offset: 0,
            max_bytes: 1 << 20,
            isolation: Isolation::ReadUncommitted,
        };
        let fetched = test.broker.fetch(&test.caller, &request).unwrap();
        let mut batches = 0;
        for mut piece in fetched.batches {
            while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                assert_eq!(batch.header().compression(), codec);
                batches += 1;
            }
        }
        assert_eq!(batches, 6);
        let read = test.read_all(name, 0);
        let headers = [
            (Bytes::from("h"), None),
            (Bytes::from("h"), Some(Bytes::new())),
        ];
        assert!(read[..5].iter().all(|record| record.headers == headers));
        assert!(read[..5].iter().all(|record| record.value.is_none()));
    }
}

#[test]
fn what_a_batch_becomes_keeps_to_the_topics_limit() {
    let mut test = TestBroker::open(18);
    let topic = NewTopic::named("t").config("max.message.bytes", "2000");
    create(&mut test, topic.config("compression.type", "uncompressed"));
    let zeros = |bytes: usize| {
        let mut builder = BatchBuilder::new(Compression::Zstd, 32 << 20);
        builder
            .append(1_000, None, Some(&vec![0; bytes]), &[])
            .unwrap();
        builder.build().unwrap()
    };
    test.produce_one("t", 0, zeros(1_900)).unwrap();
    // Just above the limit with its header, above it by itself, and a bomb.
    assert_eq!(
        code(test.produce_one("t", 0, zeros(1_960))),
        "record_too_large"
    );
    for bytes in [2_100, 30 << 20] {
        let bomb = zeros(bytes);
        let outcome = test.produce_one("t", 0, bomb);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("more than 2000 bytes"), "{error}");
    }
    assert_eq!(test.read_all("t", 0).len(), 1);
}

#[test]
fn what_one_request_decompresses_is_bounded_though_all_of_it_is_refused() {
    let mut test = TestBroker::open(19);
    create(&mut test, NewTopic::named("t"));
    let topic = test.broker.topic(&test.caller, "t").unwrap();
    let mut builder = BatchBuilder::new(Compression::Zstd, 80 << 20);
    let zeros = vec![0; 65 << 20];
    builder.append(1_000, None, Some(&zeros), &[]).unwrap();
    let bomb = builder.build().unwrap();
    let mut unpacking = Unpacking::default();
    let mut take = || unpacking.take::<BrokerError>(&topic, bomb.clone());
    let codes: Vec<_> = (0..6).map(|_| take().unwrap_err().code()).collect();
    assert_eq!(codes[3..], ["too_much_decompressed"; 3]);
    assert_ne!(codes[2], "too_much_decompressed");
}

#[test]
fn records_go_where_their_keys_say_and_their_offsets_are_told() {
    let mut test = TestBroker::open(12);
    create(
        &mut test,
        NewTopic::named("t")
            .partitions(4)
            .config("max.message.bytes", "1024"),
    );
    let records: Vec<NewRecord> = (0..200)
        .map(|n| {
            let key = format!("key-{}", n % 17);
            NewRecord {
                headers: vec![("h".into(), Some(Bytes::from_static(b"v")))],
                timestamp_ms: (n % 2 == 0).then_some(n),
                ..record(Some(&key), &format!("value-{n}"))
            }
        })
        .collect();
    let sent = records.clone();
    let places = test
        .run(|broker, caller| async move { broker.produce_records(&caller, "t", sent, 77).await })
        .unwrap();
    assert_eq!(places.len(), 200);
    for (n, ((partition, offset), sent)) in places.iter().zip(&records).enumerate() {
        assert_eq!(*partition, partition_for_key(sent.key.as_ref().unwrap(), 4));
        let found = &test.read_all("t", *partition)[*offset as usize];
        assert_eq!((&found.key, &found.value), (&sent.key, &sent.value));
        assert_eq!(found.timestamp_ms, if n % 2 == 0 { n as i64 } else { 77 });
        assert_eq!(found.headers.len(), 1);
    }
    let total: usize = (0..4)
        .map(|partition| test.read_all("t", partition).len())
        .sum();
    assert_eq!(total, 200);
}

#[test]
fn records_without_a_key_are_spread_and_a_bad_one_refuses_all() {
    let mut test = TestBroker::open(13);
    create(&mut test, NewTopic::named("t").partitions(3));
    let mut counts = [0; 3];
    for n in 0..9 {
        let sent = vec![record(None, &format!("{n}")), record(None, "more")];
        let places = test
            .run(
                |broker, caller| async move { broker.produce_records(&caller, "t", sent, 0).await },
            )
            .unwrap();
        assert_eq!(places[0].0, places[1].0, "one call, one batch");
        counts[places[0].0 as usize] += 2;
    }
    assert_eq!(counts, [6, 6, 6]);
    for (bad, expected) in [
        (
            NewRecord {
                partition: Some(3),
                ..NewRecord::default()
            },
            "partition_not_found",
        ),
        (record(None, &"x".repeat(2 << 20)), "record_too_large"),
    ] {
        let sent = vec![record(None, "good"), bad];
        let outcome = test.run(|broker, caller| async move {
            broker.produce_records(&caller, "t", sent, 0).await
        });
        assert_eq!(code(outcome), expected);
    }
    let total: usize = (0..3)
        .map(|partition| test.read_all("t", partition).len())
        .sum();
    assert_eq!(total, 18, "nothing of the refused calls is there");
    let none = test.run(|broker, caller| async move {
        broker.produce_records(&caller, "t", Vec::new(), 0).await
    });
    assert!(none.unwrap().is_empty());
}

#[test]
fn a_fetch_may_begin_in_the_middle_and_never_waits() {
    let mut test = TestBroker::open(14);
    create(&mut test, NewTopic::named("t"));
    test.produce_one("t", 0, batch(&["a", "b", "c"])).unwrap();
    test.produce_one("t", 0, batch(&["d"])).unwrap();
    let fetch = |test: &TestBroker, offset, max_bytes| {
        test.broker.fetch(
            &test.caller,
            &FetchRequest {
                topic: "t".into(),
                partition: 0,
                offset,
                max_bytes,
                isolation: Isolation::ReadUncommitted,
            },
        )
    };
    let middle = fetch(&test, 1, 1).unwrap();
    assert_eq!(
        values(&records_of(&middle.batches)),
        ["a", "b", "c"],
        "the batch that holds the offset, whole"
    );
    assert_eq!(
        (middle.high_watermark, middle.last_stable, middle.log_start),
        (4, 4, 0)
    );
    assert_eq!(
        values(&records_of(&fetch(&test, 0, 1 << 20).unwrap().batches)),
        ["a", "b", "c", "d"]
    );
    assert!(fetch(&test, 4, 1 << 20).unwrap().batches.is_empty());
    assert_eq!(code(fetch(&test, 5, 1)), "offset_out_of_range");
    assert_eq!(code(fetch(&test, -1, 1)), "offset_out_of_range");
}

#[test]
fn who_waits_for_data_is_woken_by_it_or_by_the_topics_end() {
    let mut test = TestBroker::open(15);
    create(&mut test, NewTopic::named("t"));
    test.produce_one("t", 0, batch(&["a"])).unwrap();
    let wait = |test: &TestBroker, offset| {
        let topic = test.broker.topic(&test.caller, "t").unwrap();
        let isolation = Isolation::ReadUncommitted;
        test.broker
            .wait_for_data(&test.caller, &topic, 0, offset, isolation)
            .unwrap()
    };
    let mut there = pin!(wait(&test, 0));
    assert!(poll_once(there.as_mut()).is_ready());
    let mut next = pin!(wait(&test, 1));
    assert!(poll_once(next.as_mut()).is_pending());
    test.produce_one("t", 0, batch(&["b"])).unwrap();
    assert!(poll_once(next.as_mut()).is_ready());
    let mut never = pin!(wait(&test, 2));
    assert!(poll_once(never.as_mut()).is_pending());
    test.run(|broker, caller| async move { broker.delete_topic(&caller, "t").await })
        .unwrap();
    assert!(poll_once(never.as_mut()).is_ready());
}

#[test]
fn offsets_are_looked_up_by_place_and_time() {
    let mut test = TestBroker::open(16);
    create(&mut test, NewTopic::named("t"));
    for time in [100, 200, 300] {
        let sent = vec![NewRecord {
            timestamp_ms: Some(time),
            ..record(None, "x")
        }];
        test.run(
            |broker, caller| async move { broker.produce_records(&caller, "t", sent, 0).await },
        )
        .unwrap();
    }
    let resolve = |spec| {
        test.broker
            .resolve_offset(&test.caller, "t", 0, spec)
            .unwrap()
    };
    assert_eq!(resolve(OffsetSpec::Earliest), 0);
    assert_eq!(resolve(OffsetSpec::Latest), 3);
    for (time, expected) in [(0, 0), (100, 0), (101, 1), (300, 2), (301, 3)] {
        assert_eq!(resolve(OffsetSpec::Timestamp(time)), expected, "at {time}");
    }
}

#[test]
fn a_caller_that_stops_waiting_leaves_no_half_known_topic() {
    let mut test = TestBroker::open(17);
    let broker = test.broker.clone();
    let caller = test.caller.clone();
    {
        let mut creation = pin!(broker.create_topic(&caller, NewTopic::named("t"), 0));
        while poll_once(creation.as_mut()).is_pending() {
            if test.node.engine.status().admitted_lsn.0 > 0 {
                break;
            }
            test.node.driver.step();
        }
    }
    assert_eq!(
        code(test.broker.topic(&test.caller, "t")),
        "topic_not_found",
        "not durable, so not there"
    );
    test.node.driver.settle();
    let topic = test.broker.topic(&test.caller, "t").unwrap();
    {
        let mut deletion = pin!(broker.delete_topic(&caller, "t"));
        assert!(poll_once(deletion.as_mut()).is_pending());
    }
    test.node.driver.settle();
    assert_eq!(
        code(test.broker.topic(&test.caller, "t")),
        "topic_not_found"
    );
    assert!(test.broker.list_topics(&test.caller).unwrap().is_empty());
    drop(topic);
}

#[test]
fn of_many_who_create_the_same_name_one_does() {
    let mut test = TestBroker::open(18);
    let broker: Broker = test.broker.clone();
    let caller = test.caller.clone();
    let mut creations: Vec<_> = (0..5)
        .map(|_| Box::pin(broker.create_topic(&caller, NewTopic::named("t"), 0)))
        .collect();
    let mut created = 0;
    let mut refused = 0;
    for _ in 0..100_000 {
        creations.retain_mut(|creation| match poll_once(creation.as_mut()) {
            Poll::Pending => true,
            Poll::Ready(Ok(_)) => {
                created += 1;
                false
            }
            Poll::Ready(Err(error)) => {
                assert_eq!(error.code(), "topic_exists");
                refused += 1;
                false
            }
        });
        if creations.is_empty() {
            break;
        }
        test.node.driver.step();
    }
    assert_eq!((created, refused), (1, 4));
}

#[test]
fn retention_removes_what_is_too_much_and_who_reads_it_is_told_where_to_go_on() {
    let mut options = small_options();
    options.log.segment_bytes = 4 << 10;
    let mut test = TestBroker::open_with(19, options);
    create(
        &mut test,
        NewTopic::named("t").config("retention.bytes", "8192"),
    );
    create(
        &mut test,
        NewTopic::named("kept").config("retention.ms", "-1"),
    );
    for n in 0..60 {
        let value = format!("{n}-{}", "x".repeat(1_000));
        test.produce_one("t", 0, batch(&[&value])).unwrap();
        test.produce_one("kept", 0, batch(&[&value])).unwrap();
        if n % 10 == 9 {
            test.node.driver.settle();
            test.node.driver.tick();
        }
    }
    test = test.restart();
    let round = test
        .run(|broker, _| async move { broker.retention_round(i64::MAX / 2).await })
        .unwrap();
    assert_eq!((round.topics, round.moved), (2, 1));
    let bounds = test.broker.partition_bounds(&test.caller, "t", 0).unwrap();
    assert!(bounds.log_start > 0 && bounds.high_watermark == 60);
    assert_eq!(test.read_all("kept", 0).len(), 60);
    let error = test
        .broker
        .fetch(
            &test.caller,
            &FetchRequest {
                topic: "t".into(),
                partition: 0,
                offset: 0,
                max_bytes: 1,
                isolation: Isolation::ReadUncommitted,
            },
        )
        .unwrap_err();
    assert_eq!(
        error.hint().unwrap(),
        format!(
            "read from {} (earliest) up to 60 (latest)",
            bounds.log_start
        )
    );
    let again = test
        .run(|broker, _| async move { broker.retention_round(0).await })
        .unwrap();
    assert_eq!(again.moved, 0);
    test = test.crash(Crash::Power);
    assert_eq!(
        test.broker
            .partition_bounds(&test.caller, "t", 0)
            .unwrap()
            .log_start,
        bounds.log_start
    );
}

#[test]
fn deleted_records_stay_deleted_and_who_reads_them_is_told_where_to_go_on() {
    let mut test = TestBroker::open(23);
    create(&mut test, NewTopic::named("t").partitions(2));
    for n in 0..10 {
        let value = n.to_string();
        test.produce_one("t", n % 2, batch(&[&value, &value]))
            .unwrap();
    }
    let mut cut = |before: &[(u32, Option<i64>)]| {
        let before = before.to_vec();
        test.run(|broker, caller| async move { broker.delete_records(&caller, "t", &before).await })
    };
    // In the middle of a batch, and to the end.
    let bounds = cut(&[(0, Some(3)), (1, None)]).unwrap();
    let starts: Vec<_> = bounds
        .iter()
        .map(|one| (one.partition, one.log_start))
        .collect();
    assert_eq!(starts, [(0, 3), (1, 10)]);
    // Below the start nothing happens; beyond the end it is refused, and then nothing of the whole call is done.
    assert_eq!(cut(&[(0, Some(1))]).unwrap()[0].log_start, 3);
    assert_eq!(
        code(cut(&[(0, Some(5)), (1, Some(11))])),
        "offset_out_of_range"
    );
    assert_eq!(code(cut(&[(0, Some(-1))])), "offset_out_of_range");
    assert_eq!(code(cut(&[(2, None)])), "partition_not_found");
    for crash in [Crash::Process, Crash::Power] {
        test = test.crash(crash);
        let start = |partition| {
            test.broker
                .partition_bounds(&test.caller, "t", partition)
                .unwrap()
                .log_start
        };
        assert_eq!((start(0), start(1)), (3, 10));
        assert_eq!(
            values(&test.read_all("t", 0)),
            ["2", "4", "4", "6", "6", "8", "8"]
        );
        let request = FetchRequest {
            topic: "t".into(),
            partition: 0,
            offset: 2,
            max_bytes: 1,
            isolation: Isolation::ReadUncommitted,
        };
        let error = test.broker.fetch(&test.caller, &request).unwrap_err();
        assert!(
            matches!(
                error,
                BrokerError::OffsetOutOfRange {
                    start: 3,
                    end: 10,
                    ..
                }
            ),
            "{error}"
        );
    }
    let deleted = test.run(|broker, caller| async move {
        broker
            .delete_records(&caller, "missing", &[(0, None)])
            .await
    });
    assert_eq!(code(deleted), "topic_not_found");
}

#[test]
fn segments_are_cut_as_their_topic_says() {
    let mut test = TestBroker::open(29);
    create(&mut test, NewTopic::named("default"));
    create(
        &mut test,
        NewTopic::named("large").config("segment.bytes", "1048576"),
    );
    let log = |test: &TestBroker, topic: &str| {
        let id = test.broker.topic(&test.caller, topic).unwrap();
        test.node
            .engine
            .log()
            .segment_count(id.partition_id(0).unwrap())
            .unwrap()
    };
    for round in 0..2 {
        for _ in 0..100 {
            let value = "x".repeat(1_000);
            for topic in ["default", "large"] {
                test.produce_one(topic, 0, batch(&[&value])).unwrap();
            }
        }
        if round == 0 {
            // What was set holds after a restart, too.
            test = test.restart();
        }
    }
    test = test.restart();
    assert_eq!((log(&test, "default"), log(&test, "large")), (4, 1));
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_each_key_and_what_its_producers_sent() {
    let mut options = small_options();
    options.log.segment_bytes = 2 << 10;
    let mut test = TestBroker::open_with(31, options);
    let compacted = |policy| {
        NewTopic::named("t")
            .config("cleanup.policy", policy)
            .config("min.cleanable.dirty.ratio", "0.1")
    };
    create(&mut test, compacted("compact"));
    let identity = test
        .run(|broker, caller| async move { broker.init_producer(&caller).await })
        .unwrap();
    let mut batches = Vec::new();
    for n in 0..60 {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        builder.producer(identity.id, identity.epoch, n);
        let (key, value) = (format!("key-{}", n % 3), format!("{n}-{}", "x".repeat(100)));
        builder
            .append(1_000, Some(key.as_bytes()), Some(value.as_bytes()), &[])
            .unwrap();
        batches.push(builder.build().unwrap());
        test.produce_one("t", 0, batches[n as usize].clone())
            .unwrap();
    }
    test = test.restart();
    let round = test.broker.compaction_round(2_000).unwrap();
    assert_eq!((round.topics, round.requested), (1, 1));
    test.node.driver.settle();
    let records = |test: &TestBroker| {
        let request = FetchRequest {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            max_bytes: 1 << 20,
            isolation: Isolation::ReadUncommitted,
        };
        let fetched = test.broker.fetch(&test.caller, &request).unwrap();
        records_of(&fetched.batches)
    };
    // The tail in memory may still have them all; what a restart finds on disk has not.
    for crash in [Crash::Power, Crash::Process] {
        test = test.restart();
        let found = records(&test);
        assert!(found.len() < 25, "{} records are left", found.len());
        let last: Vec<i64> = found[found.len() - 3..]
            .iter()
            .map(|record| record.offset)
            .collect();
        assert_eq!(last, [57, 58, 59]);
        let bounds = test.broker.partition_bounds(&test.caller, "t", 0).unwrap();
        assert_eq!((bounds.log_start, bounds.high_watermark), (0, 60));
        // Retries are known though the batches are gone, and what comes next follows.
        let again = test.produce_one("t", 0, batches[59].clone()).unwrap();
        assert!(again.duplicate && again.base_offset == 59);
        test = test.crash(crash);
    }
    assert_eq!(
        test.broker.compaction_round(3_000).unwrap().requested,
        0,
        "nothing is dirty"
    );
    // Records without a key are refused, however they come, and so is deleting from the front.
    assert_eq!(
        code(test.produce_one("t", 0, batch(&["x"]))),
        "key_required"
    );
    let produced = test.run(|broker, caller| async move {
        broker
            .produce_records(&caller, "t", vec![record(None, "x")], 0)
            .await
    });
    assert_eq!(code(produced), "key_required");
    let delete = |broker: Broker, caller: Caller| async move {
        broker.delete_records(&caller, "t", &[(0, None)]).await
    };
    assert_eq!(code(test.run(delete)), "not_deleted");
    let moved = |test: &mut TestBroker| {
        let round = test.run(|broker, _| async move { broker.retention_round(i64::MAX / 2).await });
        round.unwrap().moved
    };
    assert_eq!(moved(&mut test), 0, "retention leaves it alone");
    let both = TopicChange {
        set: [("cleanup.policy".into(), Some("compact,delete".into()))].into(),
        ..TopicChange::default()
    };
    test.run(|broker, caller| async move { broker.alter_topic(&caller, "t", both).await })
        .unwrap();
    assert_eq!(moved(&mut test), 1);
    assert_eq!(code(test.run(delete)), "ok");
}
