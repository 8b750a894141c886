//! What administrators ask: topics made many at once and described page by page, records deleted, and what they may do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Connection, Gateway, batch, name, text};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::*;
use mainstem::record::{BatchBuilder, Compression};

const OK: i16 = 0;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const POLICY_VIOLATION: i16 = 44;
const GROUP_ID_NOT_FOUND: i16 = 69;

fn new_topic(topic: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect())
}

fn create(client: &mut Connection, topics: Vec<CreatableTopic>) {
    let request = CreateTopicsRequest::default().with_topics(topics);
    let created = client.call(7, &request).topics;
    assert!(created.iter().all(|topic| topic.error_code == OK));
}

#[test]
fn a_topic_that_is_refused_holds_up_no_other() {
    let gateway = Gateway::start_with(&[("num.partitions", "3")]);
    let mut client = gateway.connect();
    for version in 2..=7 {
        let names = ["two", "refused", "by-default"].map(|word| format!("{word}{version}"));
        let by_default = new_topic(&names[2], -1, &[]).with_replication_factor(-1);
        let topics = vec![
            new_topic(&names[0], 2, &[("retention.ms", "1000")]),
            new_topic(&names[1], 2, &[("no.such.setting", "1")]),
            by_default,
        ];
        let request = CreateTopicsRequest::default().with_topics(topics);
        let created = client.call(version, &request).topics;
        let outcomes: Vec<_> = created
            .iter()
            .map(|topic| (topic.name.to_string(), topic.error_code))
            .collect();
        let expected = [OK, INVALID_CONFIG, OK];
        let expected: Vec<_> = names.iter().cloned().zip(expected).collect();
        assert_eq!(outcomes, expected, "{version}");
        let why = created[1].error_message.as_ref().unwrap();
        assert!(why.contains("no.such.setting"), "{}", why.as_str());
        if version >= 5 {
            let sizes = created
                .iter()
                .map(|topic| (topic.num_partitions, topic.replication_factor));
            let sizes: Vec<_> = sizes.collect();
            assert_eq!(sizes, [(2, 1), (-1, -1), (3, 1)], "{version}");
        }
        if version >= 7 {
            let ids = created.iter().map(|topic| topic.topic_id.is_nil());
            assert_eq!(ids.collect::<Vec<_>>(), [false, true, false]);
        }
        let wanted = names.iter().map(|topic| {
            let topic = name(topic);
            MetadataRequestTopic::default().with_name(Some(topic))
        });
        let request = MetadataRequest::default()
            .with_topics(Some(wanted.collect()))
            .with_allow_auto_topic_creation(false);
        let found = client.call(12, &request).topics;
        let found: Vec<_> = found
            .iter()
            .map(|topic| (topic.error_code, topic.partitions.len()))
            .collect();
        assert_eq!(found, [(OK, 2), (UNKNOWN_TOPIC_OR_PARTITION, 0), (OK, 3)]);
    }
}

/// A page: the error, name and partitions of each topic, and where the next one begins.
type Page = (Vec<(i16, String, Vec<i32>)>, Option<(String, i32)>);

fn page(client: &mut Connection, names: &[&str], limit: i32, from: Option<(&str, i32)>) -> Page {
    let topics = names
        .iter()
        .map(|topic| TopicRequest::default().with_name(name(topic)));
    let cursor = from.map(|(topic, index)| {
        Cursor::default()
            .with_topic_name(name(topic))
            .with_partition_index(index)
    });
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor);
    let answer = client.call(0, &request);
    let topics = answer.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let indexes = partitions.map(|one| {
            assert_eq!((one.error_code, one.leader_id), (OK, BrokerId(1)));
            one.partition_index
        });
        let indexes: Vec<i32> = indexes.collect();
        (topic.error_code, topic.name.unwrap().to_string(), indexes)
    });
    let next = answer
        .next_cursor
        .map(|next| (next.topic_name.to_string(), next.partition_index));
    (topics.collect(), next)
}

fn of(topic: &str, partitions: &[i32]) -> (i16, String, Vec<i32>) {
    (OK, topic.to_owned(), partitions.to_vec())
}

fn next(topic: &str, index: i32) -> Option<(String, i32)> {
    Some((topic.to_owned(), index))
}

#[test]
fn partitions_are_described_page_by_page() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let client = &mut client;
    let topics = [("a", 3), ("b", 2), ("c", 1)];
    create(
        client,
        topics
            .map(|(topic, count)| new_topic(topic, count, &[]))
            .into(),
    );
    let missing = || (UNKNOWN_TOPIC_OR_PARTITION, "bb".to_owned(), vec![]);
    // In the order of their names, each once; one that is missing takes no room.
    let names = ["c", "bb", "a", "b", "a"];
    let first = page(client, &names, 2, None);
    assert_eq!(first, (vec![of("a", &[0, 1])], next("a", 2)));
    let second = page(client, &names, 2, Some(("a", 2)));
    let expected = vec![of("a", &[2]), of("b", &[0])];
    assert_eq!(second, (expected, next("b", 1)));
    let third = page(client, &names, 2, Some(("b", 1)));
    let expected = vec![of("b", &[1]), missing(), of("c", &[0])];
    assert_eq!(third, (expected, None));
    // A page that ends with its topic.
    let first = page(client, &names, 3, None);
    assert_eq!(first, (vec![of("a", &[0, 1, 2])], next("b", 0)));
    let second = page(client, &names, 3, Some(("b", 0)));
    let expected = vec![of("b", &[0, 1]), missing(), of("c", &[0])];
    assert_eq!(second, (expected, None));
    // There is one partition on a page at the least.
    for limit in [0, -1, i32::MIN] {
        let least = page(client, &names, limit, Some(("a", 1)));
        assert_eq!(least, (vec![of("a", &[1])], next("a", 2)));
    }
    // Without names all there are, from the cursor on, whether its topic is still there or not.
    let all = page(client, &[], 4, Some(("a", 1)));
    let expected = vec![of("a", &[1, 2]), of("b", &[0, 1])];
    assert_eq!(all, (expected, next("c", 0)));
    let rest = page(client, &[], i32::MAX, Some(("aa", 1)));
    let expected = vec![of("b", &[0, 1]), of("c", &[0])];
    assert_eq!(rest, (expected, None));
    let beyond = page(client, &["a", "b"], 9, Some(("a", 7)));
    let expected = vec![of("a", &[]), of("b", &[0, 1])];
    assert_eq!(beyond, (expected, None));
}

#[test]
fn a_page_has_two_thousand_partitions_at_most() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, vec![new_topic("a", 2_100, &[])]);
    let (topics, rest) = page(&mut client, &["a"], i32::MAX, None);
    assert_eq!(topics, [of("a", &(0..2_000).collect::<Vec<_>>())]);
    assert_eq!(rest, next("a", 2_000));
}

#[test]
fn a_cursor_that_makes_no_sense_is_refused() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, vec![new_topic("a", 1, &[])]);
    let refused = |topic: &str| (INVALID_REQUEST, topic.to_owned(), vec![]);
    let negative = page(&mut client, &["a"], 9, Some(("a", -1)));
    assert_eq!(negative, (vec![refused("a")], None));
    let other = page(&mut client, &["b", "a"], 9, Some(("c", 0)));
    assert_eq!(other, (vec![refused("b"), refused("a")], None));
}

/// Deletes what lies before these offsets of partitions; each one's error, and its first offset from then on.
fn delete_before(
    client: &mut Connection,
    version: i16,
    topic: &str,
    offsets: &[(i32, i64)],
) -> Vec<(i16, i64)> {
    let partition = |(index, offset): &(i32, i64)| {
        DeleteRecordsPartition::default()
            .with_partition_index(*index)
            .with_offset(*offset)
    };
    let topic = DeleteRecordsTopic::default()
        .with_name(name(topic))
        .with_partitions(offsets.iter().map(partition).collect());
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
    let deleted = client.call(version, &request).topics.remove(0).partitions;
    let indexes = deleted.iter().map(|one| one.partition_index);
    assert!(indexes.eq(offsets.iter().map(|(index, _)| *index)));
    deleted
        .iter()
        .map(|one| (one.error_code, one.low_watermark))
        .collect()
}

fn fetched(client: &mut Connection, topic: &str, offset: i64) -> (i16, i64) {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let partition = client.call(12, &request).responses.remove(0).partitions;
    (partition[0].error_code, partition[0].log_start_offset)
}

fn keyed(key: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    let (key, value) = (key.as_bytes(), b"value");
    builder.append(1, Some(key), Some(value), &[]).unwrap();
    builder.build().unwrap().into_bytes()
}

#[test]
fn records_are_deleted_up_to_an_offset_that_is_there() {
    const OUT_OF_RANGE: (i16, i64) = (OFFSET_OUT_OF_RANGE, -1);
    const UNKNOWN: (i16, i64) = (UNKNOWN_TOPIC_OR_PARTITION, -1);
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let client = &mut client;
    for version in 0..=2 {
        let topic = &format!("t{version}");
        create(client, vec![new_topic(topic, 2, &[])]);
        let produced = client.produce(topic, 0, batch(&["a", "b", "c", "d", "e"]));
        assert_eq!(produced.error_code, OK);
        let mut delete = |offsets: &[(i32, i64)]| delete_before(client, version, topic, offsets);
        assert_eq!(delete(&[(0, 6)]), [OUT_OF_RANGE]);
        assert_eq!(delete(&[(0, i64::MAX)]), [OUT_OF_RANGE]);
        assert_eq!(delete(&[(0, -2)]), [OUT_OF_RANGE]);
        assert_eq!(delete(&[(0, 0)]), [(OK, 0)]);
        assert_eq!(delete(&[(0, 2)]), [(OK, 2)]);
        // What is gone already is no error.
        assert_eq!(delete(&[(0, 1)]), [(OK, 2)]);
        // Each partition has its own outcome; -1 is all there is.
        let outcomes = delete(&[(1, -1), (7, 0), (0, 6), (0, -1), (1, 1), (-1, 0)]);
        let expected = [
            (OK, 0),
            UNKNOWN,
            OUT_OF_RANGE,
            (OK, 5),
            OUT_OF_RANGE,
            UNKNOWN,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(delete(&[(0, 5)]), [(OK, 5)]);
        assert_eq!(fetched(client, topic, 4).0, OFFSET_OUT_OF_RANGE);
        assert_eq!(fetched(client, topic, 5), (OK, 5));
        assert_eq!(client.produce(topic, 0, batch(&["f"])).base_offset, 5);
        let nowhere = delete_before(client, version, "nowhere", &[(0, 0)]);
        assert_eq!(nowhere, [UNKNOWN]);
    }
}

#[test]
fn records_of_a_topic_that_is_only_compacted_stay() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let client = &mut client;
    let policy = |policy| [("cleanup.policy", policy)];
    create(
        client,
        vec![
            new_topic("compacted", 1, &policy("compact")),
            new_topic("both", 1, &policy("compact,delete")),
        ],
    );
    for topic in ["compacted", "both"] {
        for key in ["a", "b"] {
            assert_eq!(client.produce(topic, 0, keyed(key)).error_code, OK);
        }
    }
    for offset in [-1, 0, 1, 9] {
        let outcome = delete_before(client, 2, "compacted", &[(0, offset)]);
        assert_eq!(outcome, [(POLICY_VIOLATION, -1)], "{offset}");
    }
    assert_eq!(fetched(client, "compacted", 0), (OK, 0));
    assert_eq!(delete_before(client, 2, "both", &[(0, 1)]), [(OK, 1)]);
}

/// Kafka's numbers of operations.
const READ: u32 = 3;
const WRITE: u32 = 4;
const CREATE: u32 = 5;
const DELETE: u32 = 6;
const ALTER: u32 = 7;
const DESCRIBE: u32 = 8;
const CLUSTER_ACTION: u32 = 9;
const DESCRIBE_CONFIGS: u32 = 10;
const ALTER_CONFIGS: u32 = 11;
const IDEMPOTENT_WRITE: u32 = 12;

/// Operations as they are told (KIP-430), where they were asked for.
fn told(asked: bool, operations: &[u32]) -> i32 {
    match asked {
        true => operations.iter().map(|operation| 1_i32 << operation).sum(),
        false => i32::MIN,
    }
}

fn of_cluster(asked: bool) -> i32 {
    let cluster = [CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, IDEMPOTENT_WRITE];
    let configs = [DESCRIBE_CONFIGS, ALTER_CONFIGS];
    told(asked, &[&cluster[..], &configs].concat())
}

fn of_topic(asked: bool) -> i32 {
    let data = [READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE];
    let configs = [DESCRIBE_CONFIGS, ALTER_CONFIGS];
    told(asked, &[&data[..], &configs].concat())
}

fn of_group(asked: bool) -> i32 {
    let operations = [READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS];
    told(asked, &operations)
}

#[test]
fn what_may_be_done_to_cluster_and_topics_is_told_to_who_asks() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, vec![new_topic("t", 1, &[])]);
    for asked in [false, true] {
        for version in 0..=2 {
            let request =
                DescribeClusterRequest::default().with_include_cluster_authorized_operations(asked);
            let described = client.call(version, &request);
            let may = described.cluster_authorized_operations;
            assert_eq!(may, of_cluster(asked), "{version}");
        }
        for version in 0..=13 {
            // The cluster's have a request of their own since.
            let of_both = [(8..=10).contains(&version), version >= 8];
            let [cluster, topic] = of_both.map(|has| has && asked);
            let wanted = MetadataRequestTopic::default().with_name(Some(name("t")));
            let request = MetadataRequest::default()
                .with_topics(Some(vec![wanted]))
                .with_include_cluster_authorized_operations(cluster)
                .with_include_topic_authorized_operations(topic);
            let described = client.call(version, &request);
            let may = described.cluster_authorized_operations;
            assert_eq!(may, of_cluster(cluster), "{version}");
            let may = described.topics[0].topic_authorized_operations;
            assert_eq!(may, of_topic(topic), "{version}");
        }
    }
    // These come without asking.
    let wanted = TopicRequest::default().with_name(name("t"));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![wanted]);
    let described = client.call(0, &request).topics.remove(0);
    assert_eq!(described.topic_authorized_operations, of_topic(true));
}

#[test]
fn what_may_be_done_to_groups_is_told_to_who_asks() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, vec![new_topic("t", 1, &[])]);
    let [classic, consumer, none] = ["classic", "consumer", "none"].map(|id| GroupId(text(id)));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![Default::default()]);
    let request = OffsetCommitRequest::default()
        .with_group_id(classic.clone())
        .with_topics(vec![topic]);
    let committed = client.call(9, &request).topics.remove(0);
    assert_eq!(committed.partitions[0].error_code, OK);
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(consumer.clone())
        .with_member_id(text("m"))
        .with_rebalance_timeout_ms(30_000)
        .with_subscribed_topic_names(Some(vec![name("t")]))
        .with_topic_partitions(Some(vec![]));
    assert_eq!(client.call(1, &request).error_code, OK);
    for asked in [false, true] {
        for version in 0..=6 {
            let asked = asked && version >= 3;
            let request = DescribeGroupsRequest::default()
                .with_groups(vec![classic.clone(), none.clone()])
                .with_include_authorized_operations(asked);
            let described = client.call(version, &request).groups;
            let outcomes = described
                .iter()
                .map(|one| (one.error_code, one.authorized_operations));
            let missing = match version {
                6 => (GROUP_ID_NOT_FOUND, of_group(false)),
                _ => (OK, of_group(asked)),
            };
            let expected = [(OK, of_group(asked)), missing];
            assert!(outcomes.eq(expected), "{version}: {described:?}");
        }
        for version in 0..=1 {
            let request = ConsumerGroupDescribeRequest::default()
                .with_group_ids(vec![consumer.clone(), none.clone()])
                .with_include_authorized_operations(asked);
            let described = client.call(version, &request).groups;
            let outcomes = described
                .iter()
                .map(|one| (one.error_code, one.authorized_operations));
            let missing = (GROUP_ID_NOT_FOUND, of_group(false));
            let expected = [(OK, of_group(asked)), missing];
            assert!(outcomes.eq(expected), "{version}: {described:?}");
        }
    }
}
