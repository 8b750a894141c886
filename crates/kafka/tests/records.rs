//! Producing and fetching, as clients notice it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{
    Connection, Gateway, batch, batch_with, first, name, produce_request, sequenced, text,
};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::*;
use mainstem::record::{Batch, Compression};
use std::time::{Duration, Instant};

fn create(client: &mut Connection, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs.iter().map(config).collect());
    client
        .call(7, &CreateTopicsRequest::default().with_topics(vec![topic]))
        .topics[0]
        .error_code
}

fn fetch_from(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(partitions.iter().map(partition).collect());
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

fn values(records: &Option<Bytes>) -> Vec<(i64, String)> {
    let mut bytes = records.clone().unwrap_or_default();
    let mut found = Vec::new();
    while let Some(batch) = Batch::split_first(&mut bytes).unwrap() {
        batch
            .for_each(|record| {
                found.push((
                    record.offset,
                    String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
                ));
                Ok::<(), mainstem::record::RecordError>(())
            })
            .unwrap();
    }
    found
}

#[test]
fn what_is_produced_is_fetched_in_every_codec_and_byte_for_byte() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for (index, codec) in codecs.into_iter().enumerate() {
        let produced = client.produce("t", 0, batch_with(codec, &[(5, "a"), (6, "b")]));
        assert_eq!(
            (produced.error_code, produced.base_offset),
            (0, 2 * index as i64),
            "{codec}"
        );
        let fetched = client.call(12, &fetch_from("t", &[(0, 2 * index as i64)]));
        let partition = &fetched.responses[0].partitions[0];
        let sent = batch_with(codec, &[(5, "a"), (6, "b")]);
        let got = partition.records.as_ref().unwrap();
        assert_eq!(got[16..], sent[16..], "{codec}");
        assert_eq!(partition.high_watermark, 2 * index as i64 + 2);
    }
    let middle = client.call(12, &fetch_from("t", &[(0, 3)]));
    let found = values(&middle.responses[0].partitions[0].records);
    assert_eq!(
        found[0],
        (2, "a".into()),
        "a batch that holds the offset comes whole"
    );
}

#[test]
fn a_topic_may_want_a_codec_of_its_own() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let wanted = [
        ("uncompressed", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    let records = [(5, "a"), (7, "b"), (6, "b")];
    for (topic, codec) in wanted {
        assert_eq!(
            create(&mut client, topic, 1, &[("compression.type", topic)]),
            0
        );
        for (index, sent) in Compression::ALL.into_iter().enumerate() {
            let sent = batch_with(sent, &records);
            let produced = client.produce(topic, 0, sent.clone());
            let offset = 3 * index as i64;
            assert_eq!((produced.error_code, produced.base_offset), (0, offset));
            let fetched = client.call(12, &fetch_from(topic, &[(0, offset)]));
            let mut got = fetched.responses[0].partitions[0].records.clone().unwrap();
            let kept = got.slice(16..);
            let batch = Batch::split_first(&mut got).unwrap().unwrap();
            assert_eq!(batch.header().compression(), codec, "{topic}");
            let read = batch.records().unwrap().map(Result::unwrap);
            let read: Vec<_> = read
                .map(|one| (one.timestamp_ms, one.value.unwrap()))
                .collect();
            assert_eq!(read, records.map(|(ms, value)| (ms, Bytes::from(value))));
            if Compression::ALL[index] == codec {
                assert_eq!(kept, sent.slice(16..), "kept byte for byte");
            }
        }
    }
    // Clients from before zstd are told so, of the topics that keep everything in it.
    for (topic, version, code) in [("zstd", 9, 76), ("zstd", 10, 0), ("lz4", 9, 0)] {
        let fetched = client.call(version, &fetch_from(topic, &[(0, 0)]));
        let partition = &fetched.responses[0].partitions[0];
        assert_eq!(partition.error_code, code, "{topic}, version {version}");
    }
    // A level is of the codec that the topic wants, and has Kafka's range.
    for (level, code) in [("9", 0), ("-1", 0), ("0", 40), ("10", 40)] {
        let configs = [
            ("compression.type", "gzip"),
            ("compression.gzip.level", level),
        ];
        assert_eq!(
            create(&mut client, &format!("gzip{level}"), 1, &configs),
            code
        );
    }
}

#[test]
fn records_that_are_refused_are_named() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let configs = [("message.timestamp.before.max.ms", "3600000")];
    assert_eq!(create(&mut client, "t", 1, &configs), 0);
    let now_ms = mainstem::now_ms();
    let (before, after) = (now_ms - 7_200_000, now_ms + 7_200_000);
    for codec in [Compression::None, Compression::Zstd] {
        let records = [(now_ms, "a"), (before, "b"), (now_ms, "c"), (after, "d")];
        let answer = client.produce("t", 0, batch_with(codec, &records));
        assert_eq!((answer.error_code, answer.base_offset), (32, -1));
        let named = answer.record_errors.iter();
        let named: Vec<i32> = named.map(|one| one.batch_index).collect();
        assert_eq!(named, [1, 3]);
        let why = answer.record_errors[0].batch_index_error_message.clone();
        assert!(why.unwrap().contains(&before.to_string()));
        let answer = client.produce("t", 0, batch_with(codec, &[(now_ms, "a")]));
        assert_eq!((answer.error_code, answer.record_errors.len()), (0, 0));
    }
    let configs = [("cleanup.policy", "compact")];
    assert_eq!(create(&mut client, "compacted", 1, &configs), 0);
    let answer = client.produce("compacted", 0, batch(&["x", "y"]));
    let named = answer.record_errors.iter();
    let named: Vec<i32> = named.map(|one| one.batch_index).collect();
    assert_eq!((answer.error_code, named), (87, vec![0, 1]));
    // Removed with Kafka 4.0.
    let old = [("message.timestamp.difference.max.ms", "1")];
    assert_eq!(create(&mut client, "old", 1, &old), 40);
}

#[test]
fn one_request_may_hold_what_is_refused_when_it_is_looked_into() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let configs = [
        ("compression.type", "uncompressed"),
        ("max.message.bytes", "2000"),
    ];
    assert_eq!(create(&mut client, "t", 4, &configs), 0);
    let large = "x".repeat(3000);
    let batches = [
        batch_with(Compression::Zstd, &[(5, "a")]),
        batch_with(Compression::Zstd, &[(5, &large)]),
        batch_with(Compression::None, &[(5, "b")]),
        batch_with(Compression::Gzip, &[(5, &large)]),
    ];
    let mut request = produce_request("t", 0, Bytes::new(), -1);
    request.topic_data[0].partition_data = batches
        .into_iter()
        .enumerate()
        .map(|(index, batch)| {
            PartitionProduceData::default()
                .with_index(index as i32)
                .with_records(Some(batch))
        })
        .collect();
    let answer = client.call(9, &request);
    let codes = answer.responses[0].partition_responses.iter();
    let codes: Vec<_> = codes.map(|one| (one.index, one.error_code)).collect();
    assert_eq!(codes, [(0, 0), (1, 10), (2, 0), (3, 10)]);
    let fetched = client.call(12, &fetch_from("t", &[(0, 0), (2, 0)]));
    let read = fetched.responses[0].partitions.iter();
    let read: Vec<_> = read.map(|one| values(&one.records)).collect();
    assert_eq!(read, [[(0, "a".into())], [(0, "b".into())]]);
}

#[test]
fn refusals_are_of_one_partition_and_have_kafkas_codes() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1, &[("max.message.bytes", "2000")]);
    create(
        &mut client,
        "compacted",
        1,
        &[("cleanup.policy", "compact")],
    );
    let mut broken = batch(&["x"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let large = "x".repeat(3000);
    let two = Bytes::from([batch(&["x"]), batch(&["y"])].concat());
    let mut old = batch(&["x"]).to_vec();
    old[16] = 1;
    let cases: [(&str, i32, Bytes, i16); 9] = [
        ("t", 0, batch(&["x"]), 0),
        ("t", 1, batch(&["x"]), 3),
        ("t", -1, batch(&["x"]), 3),
        ("none", 0, batch(&["x"]), 3),
        ("t", 0, broken.into(), 2),
        ("t", 0, batch(&[&large]), 10),
        ("t", 0, two, 87),
        ("t", 0, old.into(), 43),
        ("compacted", 0, batch(&["x"]), 87),
    ];
    for (topic, partition, batch, code) in cases {
        let answer = client.call(8, &produce_request(topic, partition, batch, -1));
        let answer = first(&answer);
        assert_eq!(
            answer.error_code, code,
            "{topic}/{partition}: {:?}",
            answer.error_message
        );
        assert_eq!(answer.error_message.is_some(), code != 0);
    }
    let wrong = client.call(9, &produce_request("t", 0, batch(&["x"]), 2));
    assert_eq!(first(&wrong).error_code, 21);
}

#[test]
fn a_retry_has_the_first_attempts_offsets() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1, &[]);
    let id = client
        .call(
            4,
            &InitProducerIdRequest::default().with_transactional_id(None),
        )
        .producer_id
        .0;
    let other = client
        .call(
            4,
            &InitProducerIdRequest::default().with_transactional_id(None),
        )
        .producer_id
        .0;
    assert!(id >= 0 && other != id);
    for _ in 0..3 {
        let produced = client.produce("t", 0, sequenced(&["a", "b"], id, 0, 0));
        assert_eq!((produced.error_code, produced.base_offset), (0, 0));
    }
    assert_eq!(
        client
            .produce("t", 0, sequenced(&["c"], id, 0, 2))
            .base_offset,
        2
    );
    assert_eq!(
        client
            .produce("t", 0, sequenced(&["d"], id, 0, 9))
            .error_code,
        45
    );
}

#[test]
fn a_retry_has_the_first_attempts_offsets_also_where_sequences_begin_anew() {
    const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1, &[]);
    let id = client
        .call(
            4,
            &InitProducerIdRequest::default().with_transactional_id(None),
        )
        .producer_id
        .0;
    // The second holds the last sequence and the first.
    let batches = [
        (i32::MAX - 2, &["a", "b"][..], 0),
        (i32::MAX, &["c", "d"], 2),
        (1, &["e"], 4),
    ];
    for _ in 0..3 {
        for (sequence, values, offset) in batches {
            let produced = client.produce("t", 0, sequenced(values, id, 0, sequence));
            assert_eq!((produced.error_code, produced.base_offset), (0, offset));
        }
    }
    let gap = client.produce("t", 0, sequenced(&["f"], id, 0, 3));
    assert_eq!(gap.error_code, 45);
    for (sequence, value) in [(2, "f"), (3, "g"), (4, "h")] {
        let produced = client.produce("t", 0, sequenced(&[value], id, 0, sequence));
        assert_eq!(produced.error_code, 0);
    }
    // More than five batches ago.
    let late = client.produce("t", 0, sequenced(&["a", "b"], id, 0, i32::MAX - 2));
    assert_eq!(late.error_code, DUPLICATE_SEQUENCE_NUMBER);
    let fetched = client.call(12, &fetch_from("t", &[(0, 0)]));
    let found = values(&fetched.responses[0].partitions[0].records);
    let all: String = found.into_iter().map(|(_, value)| value).collect();
    assert_eq!(all, "abcdefgh");
}

#[test]
fn produces_are_under_way_together_and_answered_in_order() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1, &[]);
    let ids: Vec<i32> = (0..100)
        .map(|n| client.send(9, &produce_request("t", 0, batch(&[&n.to_string()]), -1)))
        .collect();
    for (offset, id) in ids.into_iter().enumerate() {
        let (answered, response) = client.receive::<ProduceRequest>(9);
        assert_eq!(
            (answered, first(&response).base_offset),
            (id, offset as i64)
        );
    }
}

#[test]
fn a_request_sees_what_those_before_it_did() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let topic = CreatableTopic::default()
        .with_name(name("t"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    client.send(7, &CreateTopicsRequest::default().with_topics(vec![topic]));
    client.send(9, &produce_request("t", 0, batch(&["x"]), -1));
    client.send(12, &fetch_from("t", &[(0, 0)]));
    client.receive::<CreateTopicsRequest>(7);
    assert_eq!(first(&client.receive::<ProduceRequest>(9).1).error_code, 0);
    let fetched = client.receive::<FetchRequest>(12).1;
    assert_eq!(
        values(&fetched.responses[0].partitions[0].records),
        [(0, "x".into())]
    );
}

#[test]
fn without_acks_nothing_is_answered_and_a_refusal_ends_the_connection() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1, &[]);
    client.send(9, &produce_request("t", 0, batch(&["x"]), 0));
    let id = client.send(9, &produce_request("t", 0, batch(&["y"]), 1));
    let (answered, response) = client.receive::<ProduceRequest>(9);
    assert_eq!((answered, first(&response).base_offset), (id, 1));
    client.send(9, &produce_request("none", 0, batch(&["x"]), 0));
    assert!(client.frame().is_none());
}

#[test]
fn a_fetch_waits_for_data_and_no_longer() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 2, &[]);
    let waiting = fetch_from("t", &[(0, 0), (1, 0)]).with_max_wait_ms(20_000);
    let begun = Instant::now();
    client.send(12, &waiting);
    gateway.connect().produce("t", 1, batch(&["x"]));
    let fetched = client.receive::<FetchRequest>(12).1;
    assert_eq!(
        values(&fetched.responses[0].partitions[1].records),
        [(0, "x".into())]
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    // At its end it comes with nothing, and not before.
    let empty = fetch_from("t", &[(0, 0)]).with_max_wait_ms(50);
    let begun = Instant::now();
    let fetched = client.call(12, &empty);
    assert!(
        fetched.responses[0].partitions[0]
            .records
            .as_ref()
            .unwrap()
            .is_empty()
    );
    assert!(begun.elapsed() >= Duration::from_millis(50));
    // Two records of one byte are not enough for 10 KiB, until there are more.
    let much = fetch_from("t", &[(0, 0)])
        .with_max_wait_ms(20_000)
        .with_min_bytes(10_000);
    client.send(12, &much);
    let mut other = gateway.connect();
    let half = "x".repeat(6_000);
    other.produce("t", 0, batch(&[&half]));
    other.produce("t", 0, batch(&[&half]));
    let fetched = client.receive::<FetchRequest>(12).1;
    assert_eq!(values(&fetched.responses[0].partitions[0].records).len(), 2);
}

#[test]
fn the_first_batch_comes_whole_and_then_max_bytes_holds() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 2, &[]);
    let large = "x".repeat(10_000);
    for partition in [0, 0, 1] {
        client.produce("t", partition, batch(&[&large]));
    }
    let fetched = client.call(12, &fetch_from("t", &[(0, 0), (1, 0)]).with_max_bytes(100));
    let counts: Vec<usize> = fetched.responses[0]
        .partitions
        .iter()
        .map(|one| values(&one.records).len())
        .collect();
    assert_eq!(counts, [1, 0]);
    assert_eq!(fetched.responses[0].partitions[1].high_watermark, 1);
}

#[test]
fn fetch_errors_have_kafkas_codes() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1, &[]);
    let code = |client: &mut Connection, request: &FetchRequest, version| {
        client.call(version, request).responses[0].partitions[0].error_code
    };
    assert_eq!(code(&mut client, &fetch_from("t", &[(0, 5)]), 12), 1);
    assert_eq!(code(&mut client, &fetch_from("t", &[(7, 0)]), 12), 3);
    assert_eq!(code(&mut client, &fetch_from("none", &[(0, 0)]), 12), 3);
    let mut fenced = fetch_from("t", &[(0, 0)]);
    fenced.topics[0].partitions[0].current_leader_epoch = 9;
    assert_eq!(code(&mut client, &fenced, 12), 75);
    let mut unknown = fetch_from("", &[(0, 0)]);
    unknown.topics[0].topic_id = uuid::Uuid::from_u128(1);
    assert_eq!(code(&mut client, &unknown, 13), 100);
}

#[test]
fn a_session_is_told_what_is_new() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 3, &[]);
    let begin = fetch_from("t", &[(0, 0), (1, 0), (2, 0)]).with_session_epoch(0);
    let begun = client.call(12, &begin);
    let session = begun.session_id;
    assert!(session != 0 && begun.responses[0].partitions.len() == 3);
    let nothing = FetchRequest::default()
        .with_session_id(session)
        .with_max_bytes(1 << 20)
        .with_min_bytes(1);
    let again = client.call(12, &nothing.clone().with_session_epoch(1));
    assert_eq!((again.error_code, again.responses.len()), (0, 0));
    client.produce("t", 1, batch(&["x"]));
    let news = client.call(12, &nothing.clone().with_session_epoch(2));
    let partitions = &news.responses[0].partitions;
    assert_eq!((partitions.len(), partitions[0].partition_index), (1, 1));
    let forgotten = ForgottenTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![1]);
    let less = nothing
        .clone()
        .with_session_epoch(3)
        .with_forgotten_topics_data(vec![forgotten]);
    assert!(client.call(12, &less).responses.is_empty());
    assert_eq!(
        client
            .call(12, &nothing.clone().with_session_epoch(9))
            .error_code,
        71
    );
    assert_eq!(
        client
            .call(
                12,
                &nothing.with_session_id(session + 1).with_session_epoch(1)
            )
            .error_code,
        70
    );
}

#[test]
fn topics_are_produced_to_and_fetched_from_by_their_ids() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let id = |client: &mut Connection| {
        create(client, "t", 1, &[]);
        client
            .call(12, &MetadataRequest::default().with_topics(None))
            .topics[0]
            .topic_id
    };
    let first_id = id(&mut client);
    let by_id = |id| {
        let mut request = produce_request("", 0, batch(&["x"]), -1);
        request.topic_data[0].topic_id = id;
        request
    };
    assert_eq!(first(&client.call(13, &by_id(first_id))).error_code, 0);
    let mut fetch = fetch_from("", &[(0, 0)]);
    fetch.topics[0].topic_id = first_id;
    let fetched = client.call(13, &fetch);
    assert_eq!(fetched.responses[0].topic_id, first_id);
    assert_eq!(
        values(&fetched.responses[0].partitions[0].records),
        [(0, "x".into())]
    );
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(client.call(4, &delete).responses[0].error_code, 0);
    let second_id = id(&mut client);
    assert_ne!(second_id, first_id);
    assert_eq!(first(&client.call(13, &by_id(first_id))).error_code, 100);
    assert_eq!(
        client.call(13, &fetch).responses[0].partitions[0].error_code,
        100
    );
    assert_eq!(first(&client.call(13, &by_id(second_id))).base_offset, 0);
}

#[test]
fn offsets_are_found_by_time_and_at_either_end() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t", 2, &[]);
    client.produce(
        "t",
        0,
        batch_with(Compression::Zstd, &[(100, "a"), (300, "b")]),
    );
    client.produce(
        "t",
        0,
        batch_with(Compression::None, &[(200, "c"), (300, "d")]),
    );
    let find = |client: &mut Connection, partition, timestamp| {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![wanted]);
        let found = client
            .call(9, &ListOffsetsRequest::default().with_topics(vec![topic]))
            .topics
            .remove(0)
            .partitions
            .remove(0);
        (found.error_code, found.offset, found.timestamp)
    };
    for (partition, timestamp, expected) in [
        (0, -1, (0, 4, -1)),
        (0, -2, (0, 0, -1)),
        (0, -3, (0, 1, 300)),
        (0, -4, (0, 0, -1)),
        (0, -5, (0, -1, -1)),
        (0, 50, (0, 0, 100)),
        (0, 150, (0, 1, 300)),
        (0, 301, (0, -1, -1)),
        (1, -3, (0, -1, -1)),
        (1, -1, (0, 0, -1)),
        (2, -1, (3, -1, -1)),
    ] {
        assert_eq!(
            find(&mut client, partition, timestamp),
            expected,
            "{partition} {timestamp}"
        );
    }
}

#[test]
fn the_log_gives_its_own_time_where_the_topic_says_so() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(
        &mut client,
        "t",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    let produced = client.produce("t", 0, batch_with(Compression::Gzip, &[(5, "a"), (6, "b")]));
    assert!(
        produced.log_append_time_ms > 1_700_000_000_000,
        "{produced:?}"
    );
    let fetched = client.call(12, &fetch_from("t", &[(0, 0)]));
    let mut bytes = fetched.responses[0].partitions[0].records.clone().unwrap();
    let found = Batch::split_first(&mut bytes).unwrap().unwrap();
    for record in found.records().unwrap() {
        assert_eq!(record.unwrap().timestamp_ms, produced.log_append_time_ms);
    }
}
