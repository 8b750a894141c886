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
