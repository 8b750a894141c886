//! Topics as administrators create and look at them: which names and settings are taken, and where they lie.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Connection, Gateway, name, text};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;

const OK: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC: i16 = 17;
const INVALID_CONFIG: i16 = 40;

fn new_topic(topic: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(value.map(text))
    };
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(-1)
        .with_configs(configs.iter().map(config).collect())
}

fn create(client: &mut Connection, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default().with_topics(topics);
    client.call(7, &request).topics
}

/// The error of each topic, and what is said of it.
fn errors(results: &[CreatableTopicResult]) -> Vec<(i16, String)> {
    let message = |one: &CreatableTopicResult| match &one.error_message {
        Some(message) => message.to_string(),
        None => String::new(),
    };
    let errors = results.iter().map(|one| (one.error_code, message(one)));
    errors.collect()
}

#[test]
fn names_that_collide_are_refused_in_kafkas_words() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let topics = ["a.b", "a_b", "a-b"].map(|topic| new_topic(topic, &[]));
    let created = errors(&create(&mut client, topics.into()));
    let why = "Topic 'a_b' collides with existing topic: a.b".to_owned();
    let fine = (OK, String::new());
    assert_eq!(created, [fine.clone(), (INVALID_TOPIC, why), fine]);
    // Nor does asking for it create it.
    let wanted = MetadataRequestTopic::default().with_name(Some(name("a_b")));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(true);
    let found = client.call(12, &request).topics.remove(0);
    assert_eq!(found.error_code, INVALID_TOPIC);
}

#[test]
fn a_name_that_is_none_is_called_so_where_nothing_is_created() {
    let gateway = Gateway::start_with(&[("auto.create.topics.enable", "false")]);
    let mut client = gateway.connect();
    let codes = ["a b", "none", ""].map(|topic| {
        let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = |create| {
            MetadataRequest::default()
                .with_topics(Some(vec![wanted.clone()]))
                .with_allow_auto_topic_creation(create)
        };
        let [not_asked, asked] =
            [false, true].map(|create| client.call(9, &request(create)).topics[0].error_code);
        let wanted = TopicRequest::default().with_name(name(topic));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_response_partition_limit(10);
        let described = client.call(0, &request).topics.remove(0);
        (not_asked, asked, described.error_code)
    });
    let invalid = (INVALID_TOPIC, INVALID_TOPIC, INVALID_TOPIC);
    let unknown = (
        UNKNOWN_TOPIC_OR_PARTITION,
        UNKNOWN_TOPIC_OR_PARTITION,
        UNKNOWN_TOPIC_OR_PARTITION,
    );
    assert_eq!(codes, [invalid, unknown, invalid]);
}

#[test]
fn a_setting_without_a_value_is_refused() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let configs = [
        ("retention.ms", None),
        ("segment.ms", Some("5")),
        ("flush.ms", None),
    ];
    let topics = vec![new_topic("t", &configs), new_topic("u", &configs[1..2])];
    let created = errors(&create(&mut client, topics));
    let why = "Null value not supported for topic configs: retention.ms,flush.ms".to_owned();
    assert_eq!(created, [(INVALID_CONFIG, why), (OK, String::new())]);
}

#[test]
fn values_are_taken_as_kafka_takes_them() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let configs = [
        ("cleanup.policy", " compact , delete"),
        ("preallocate", "True"),
        ("retention.ms", " 5 "),
        ("max.message.bytes", "2147483647"),
        ("segment.bytes", "2147483647"),
    ];
    let given = configs.map(|(name, value)| (name, Some(value)));
    let created = create(&mut client, vec![new_topic("t", &given)]).remove(0);
    assert_eq!(created.error_code, OK, "{:?}", created.error_message);
    let shown = configs.map(|(name, _)| {
        let mut configs = created.configs.iter().flatten();
        let config = configs.find(|config| config.name.as_str() == name).unwrap();
        config.value.as_ref().unwrap().to_string()
    });
    let expected = ["compact,delete", "true", "5", "2147483647", "2147483647"];
    assert_eq!(shown, expected);
    let configs = [
        ("max.message.bytes", "-1"),
        ("max.message.bytes", "2147483648"),
        ("segment.bytes", "2147483648"),
        ("leader.replication.throttled.replicas", "all"),
    ];
    for (name, value) in configs {
        let refused = create(&mut client, vec![new_topic("u", &[(name, Some(value))])]);
        assert_eq!(errors(&refused)[0].0, INVALID_CONFIG, "{name}={value}");
    }
}

#[test]
fn a_topic_may_take_nothing() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let nothing = new_topic("t", &[("max.message.bytes", Some("0"))]);
    assert_eq!(create(&mut client, vec![nothing])[0].error_code, OK);
    let refused = client.produce("t", 0, common::batch(&["x"]));
    assert_eq!(refused.error_code, 10, "MESSAGE_TOO_LARGE");
}

#[test]
fn the_disk_has_a_size() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let dir = client.call(4, &request).results.remove(0);
    let sizes = (dir.usable_bytes, dir.total_bytes);
    assert!(0 < sizes.0 && sizes.0 <= sizes.1, "{sizes:?}");
    let dir = client.call(3, &request).results.remove(0);
    assert_eq!((dir.usable_bytes, dir.total_bytes), (-1, -1));
}
