//! Settings of the broker that are changed while it runs, as administrators see them (KIP-226).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Connection, Gateway, text};
use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as Replaced, AlterableConfig as Replacement,
};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The name of a setting, an operation and a value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

fn alter(client: &mut Connection, broker: &str, changes: &[Change<'_>]) -> (i16, String) {
    alter_or_check(client, broker, changes, false)
}

fn alter_or_check(
    client: &mut Connection,
    broker: &str,
    changes: &[Change<'_>],
    validate_only: bool,
) -> (i16, String) {
    let config = |(name, operation, value): &Change<'_>| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(broker))
        .with_configs(changes.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(validate_only);
    let answer = client.call(1, &request).responses.remove(0);
    let message = answer.error_message.map(|message| message.to_string());
    (answer.error_code, message.unwrap_or_default())
}

fn replace(client: &mut Connection, broker: &str, configs: &[(&str, &str)]) -> i16 {
    let config = |(name, value): &(&str, &str)| {
        Replacement::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    let resource = Replaced::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(broker))
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(2, &request).responses[0].error_code
}

/// A value, its source, whether it is read-only, and where it could come from.
type Shown = (String, i8, bool, Vec<(String, String, i8)>);

/// A setting with its documentation and where it could come from.
fn describe(
    client: &mut Connection,
    kind: i8,
    resource: &str,
    name: &str,
) -> Option<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configuration_keys(Some(vec![text(name)]));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let mut answer = client.call(4, &request).results.remove(0);
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    answer.configs.pop()
}

fn show(client: &mut Connection, kind: i8, resource: &str, name: &str) -> Option<Shown> {
    let config = describe(client, kind, resource, name)?;
    let synonyms = config.synonyms.iter().map(|one| {
        let value = one.value.as_ref().unwrap().to_string();
        (one.name.to_string(), value, one.source)
    });
    Some((
        config.value.unwrap().to_string(),
        config.config_source,
        config.read_only,
        synonyms.collect(),
    ))
}

fn names(synonyms: &[(&str, &str, i8)]) -> Vec<(String, String, i8)> {
    let own = |(name, value, source): &(&str, &str, i8)| {
        ((*name).to_owned(), (*value).to_owned(), *source)
    };
    synonyms.iter().map(own).collect()
}

fn create(client: &mut Connection, topic: &str) {
    let topic = CreatableTopic::default()
        .with_name(common::name(topic))
        .with_num_partitions(1)
        .with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    assert_eq!(client.call(7, &request).topics[0].error_code, 0);
}

#[test]
fn what_is_set_for_one_comes_before_what_is_set_for_all_and_what_was_given() {
    let gateway = Gateway::start_with(&[("log.retention.hours", "2")]);
    let mut client = gateway.connect();
    create(&mut client, "t");
    let name = "log.retention.ms";
    let given = (name, "7200000", 4);
    let default = (name, "604800000", 5);
    let shown = show(&mut client, BROKER, "1", name).unwrap();
    assert_eq!(
        shown,
        ("7200000".into(), 4, false, names(&[given, default]))
    );
    assert_eq!(show(&mut client, BROKER, "", name), None);

    assert_eq!(alter(&mut client, "", &[(name, SET, Some("5"))]).0, 0);
    assert_eq!(alter(&mut client, "1", &[(name, SET, Some("6"))]).0, 0);
    let (all, one) = ((name, "5", 3), (name, "6", 2));
    let shown = show(&mut client, BROKER, "1", name).unwrap();
    let synonyms = names(&[one, all, given, default]);
    assert_eq!(shown, ("6".into(), 2, false, synonyms.clone()));
    let of_all = show(&mut client, BROKER, "", name).unwrap();
    let of_all_names = names(&[all, given, default]);
    assert_eq!(of_all, ("5".into(), 3, false, of_all_names));
    let of_topic = show(&mut client, TOPIC, "t", "retention.ms").unwrap();
    assert_eq!(of_topic, ("6".into(), 2, false, synonyms));

    assert_eq!(alter(&mut client, "1", &[(name, DELETE, None)]).0, 0);
    let of_topic = show(&mut client, TOPIC, "t", "retention.ms").unwrap();
    assert_eq!((of_topic.0.as_str(), of_topic.1), ("5", 3));
    // All that was set goes but for what is named.
    assert_eq!(replace(&mut client, "", &[("log.roll.ms", "9")]), 0);
    let of_topic = show(&mut client, TOPIC, "t", "retention.ms").unwrap();
    assert_eq!((of_topic.0.as_str(), of_topic.1), ("7200000", 4));
    let roll = show(&mut client, TOPIC, "t", "segment.ms").unwrap();
    assert_eq!((roll.0.as_str(), roll.1), ("9", 3));
    assert_eq!(replace(&mut client, "", &[]), 0);
    assert_eq!(show(&mut client, BROKER, "", "log.roll.ms"), None);
}

#[test]
fn lists_grow_and_shrink() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let name = "log.cleanup.policy";
    for (operation, value, expected) in [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
    ] {
        assert_eq!(
            alter(&mut client, "1", &[(name, operation, Some(value))]).0,
            0
        );
        assert_eq!(show(&mut client, BROKER, "1", name).unwrap().0, expected);
    }
    let (code, why) = alter(&mut client, "1", &[("log.roll.ms", APPEND, Some("1"))]);
    assert_eq!(code, 40, "{why}");
    for operation in [SET, APPEND, SUBTRACT] {
        let (code, why) = alter(&mut client, "1", &[(name, operation, None)]);
        assert_eq!(code, 42, "{why}");
    }
}

#[test]
fn what_cannot_be_changed_is_refused_as_kafka_does() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let fixed = [
        ("num.partitions", SET, Some("3")),
        ("log.retention.ms", SET, Some("3")),
        ("node.id", SET, Some("3")),
    ];
    let (code, why) = alter(&mut client, "1", &fixed);
    assert_eq!(code, 42);
    let words = "Cannot update these configs dynamically: [node.id, num.partitions]";
    assert!(why.contains(words), "{why}");
    assert!(show(&mut client, BROKER, "1", "num.partitions").unwrap().2);
    for (broker, name, value, code) in [
        ("1", "log.retention.ms", "soon", 42),
        ("", "min.insync.replicas", "2", 42),
        ("1", "no.such.setting", "2", 40),
        ("2", "log.retention.ms", "3", 42),
        ("x", "log.retention.ms", "3", 42),
    ] {
        let (refused, why) = alter(&mut client, broker, &[(name, SET, Some(value))]);
        assert_eq!(refused, code, "{name}={value}: {why}");
    }
    assert_eq!(replace(&mut client, "1", &[("num.partitions", "3")]), 42);
    let set = [("log.retention.ms", SET, Some("3"))];
    assert_eq!(alter_or_check(&mut client, "1", &set, true).0, 0);
    let shown = show(&mut client, BROKER, "1", "log.retention.ms").unwrap();
    assert_eq!(shown.1, 5, "nothing was changed");
}

#[test]
fn a_setting_that_changes_nothing_says_so() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t");
    for (kind, resource, name) in [
        (BROKER, "1", "log.flush.interval.messages"),
        (TOPIC, "t", "flush.messages"),
    ] {
        let config = describe(&mut client, kind, resource, name).unwrap();
        let told = config.documentation.unwrap();
        assert!(told.contains("It changes nothing here"), "{name}: {told}");
    }
}

/// Kafka's types (`DescribeConfigsResponse.ConfigType`).
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const SHORT: i8 = 4;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

#[test]
fn types_are_kafkas() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t");
    let of_topic = [
        ("cleanup.policy", LIST),
        ("compression.gzip.level", INT),
        ("compression.type", STRING),
        ("flush.messages", LONG),
        ("follower.replication.throttled.replicas", LIST),
        ("index.interval.bytes", INT),
        ("leader.replication.throttled.replicas", LIST),
        ("max.compaction.lag.ms", LONG),
        ("max.message.bytes", INT),
        ("min.cleanable.dirty.ratio", DOUBLE),
        ("min.insync.replicas", INT),
        ("preallocate", BOOLEAN),
        ("retention.bytes", LONG),
        ("retention.ms", LONG),
        ("segment.bytes", INT),
        ("segment.index.bytes", INT),
        ("segment.ms", LONG),
    ];
    let of_broker = [
        ("auto.create.topics.enable", BOOLEAN),
        ("broker.id", INT),
        ("connections.max.idle.ms", LONG),
        ("default.replication.factor", INT),
        ("fetch.max.bytes", INT),
        ("group.consumer.assignors", LIST),
        ("group.consumer.session.timeout.ms", INT),
        ("group.max.size", INT),
        ("group.max.session.timeout.ms", INT),
        ("log.cleaner.backoff.ms", LONG),
        ("log.cleanup.policy", LIST),
        ("log.retention.hours", INT),
        ("log.retention.ms", LONG),
        ("log.segment.bytes", INT),
        ("message.max.bytes", INT),
        ("node.id", INT),
        ("num.partitions", INT),
        ("offsets.retention.minutes", INT),
        ("offsets.topic.replication.factor", SHORT),
        ("producer.id.expiration.ms", INT),
        ("transaction.max.timeout.ms", INT),
        ("transaction.state.log.min.isr", INT),
    ];
    for (name, kind) in of_topic {
        let config = describe(&mut client, TOPIC, "t", name).unwrap();
        assert_eq!(config.config_type, kind, "{name}");
    }
    for (name, kind) in of_broker {
        let config = describe(&mut client, BROKER, "1", name).unwrap();
        assert_eq!(config.config_type, kind, "{name}");
    }
}

#[test]
fn replicas_to_slow_down_are_a_list() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    create(&mut client, "t");
    let name = "leader.replication.throttled.replicas";
    for (operation, value, expected) in [
        (APPEND, "0:1", "0:1"),
        (APPEND, "1:1, 0:1", "0:1,1:1"),
        (SUBTRACT, "0:1", "1:1"),
        (SET, "*", "*"),
    ] {
        let config = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(operation)
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = client.call(1, &request).responses.remove(0);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        let shown = show(&mut client, TOPIC, "t", name).unwrap();
        assert_eq!(shown.0, expected);
    }
}

#[test]
fn what_tools_read_of_a_broker_is_there_and_so() {
    let gateway = Gateway::start_with(&[
        ("node.id", "7"),
        ("default.replication.factor", "1"),
        ("num.partitions", " 2 "),
    ]);
    let mut client = gateway.connect();
    let listeners = format!("PLAINTEXT://{}", gateway.address);
    let dir = gateway.dir().display().to_string();
    for (name, value, source) in [
        ("broker.id", "7", 4),
        ("default.replication.factor", "1", 4),
        ("delete.topic.enable", "true", 5),
        ("group.consumer.assignors", "uniform,range", 5),
        ("group.consumer.migration.policy", "disabled", 5),
        ("listeners", listeners.as_str(), 4),
        ("log.dirs", dir.as_str(), 4),
        ("node.id", "7", 4),
        ("num.partitions", "2", 4),
        ("offsets.topic.num.partitions", "50", 5),
        ("offsets.topic.replication.factor", "1", 5),
        ("transaction.state.log.min.isr", "1", 5),
        ("transaction.state.log.num.partitions", "50", 5),
        ("transaction.state.log.replication.factor", "1", 5),
    ] {
        let (shown, from, read_only, _) = show(&mut client, BROKER, "7", name).unwrap();
        assert_eq!((shown.as_str(), from, read_only), (value, source, true));
    }
    // So many are shown of the topics themselves.
    let wanted = metadata_request::MetadataRequestTopic::default()
        .with_name(Some(common::name("__consumer_offsets")));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    assert_eq!(client.call(12, &request).topics[0].partitions.len(), 50);
    let set = [("default.replication.factor", SET, Some("1"))];
    assert_eq!(alter(&mut client, "7", &set).0, 42);
}
