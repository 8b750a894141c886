//! Groups whose partitions the broker assigns (KIP-848), over the wire: what each refusal is called, and who may do what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use common::{Connection, Gateway, name, text};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::*;
use uuid::Uuid;

const OK: i16 = 0;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER_ID: i16 = 25;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const GROUP_MAX_SIZE_REACHED: i16 = 81;
const FENCED_INSTANCE_ID: i16 = 82;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
const FENCED_MEMBER_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE_ID: i16 = 111;
const UNSUPPORTED_ASSIGNOR: i16 = 112;
const STALE_MEMBER_EPOCH: i16 = 113;
const INVALID_REGULAR_EXPRESSION: i16 = 128;

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Creates a topic of so many partitions; its id.
fn create(client: &mut Connection, topic: &str, partitions: i32) -> Uuid {
    let new = create_topics_request::CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![new]);
    let created = client.call(7, &request).topics.remove(0);
    assert_eq!(created.error_code, OK);
    created.topic_id
}

fn joins(member: &str) -> ConsumerGroupHeartbeatRequest {
    beats(member, 0)
        .with_rebalance_timeout_ms(30_000)
        .with_subscribed_topic_names(Some(vec![name("t")]))
        .with_topic_partitions(Some(vec![]))
}

fn beats(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_topic_partitions(None)
        .with_subscribed_topic_names(None)
}

/// The epoch and the partitions of the only topic, where they are told.
fn told(response: &ConsumerGroupHeartbeatResponse) -> (i16, i32, Option<Vec<i32>>) {
    let partitions = response.assignment.as_ref().map(|assignment| {
        let topics = assignment.topic_partitions.iter();
        topics.flat_map(|topic| topic.partitions.clone()).collect()
    });
    (response.error_code, response.member_epoch, partitions)
}

fn commit(client: &mut Connection, version: i16, member: &str, epoch: i32) -> i16 {
    let partition =
        offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![topic]);
    client.call(version, &request).topics[0].partitions[0].error_code
}

fn committed(client: &mut Connection, member: Option<&str>, epoch: i32) -> (i16, Option<i64>) {
    let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    let wanted = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(group("g"))
        .with_member_id(member.map(text))
        .with_member_epoch(epoch)
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![wanted]);
    let found = client.call(9, &request).groups.remove(0);
    let offset = found
        .topics
        .first()
        .map(|topic| topic.partitions[0].committed_offset);
    (found.error_code, offset)
}

/// Joins by the classic protocol, all the way where it may; the error else.
fn joins_classic(client: &mut Connection, member: &str) -> JoinGroupResponse {
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    client.call(9, &request)
}

fn start() -> Gateway {
    Gateway::start_with(&[
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.consumer.min.heartbeat.interval.ms", "1000"),
        ("group.consumer.heartbeat.interval.ms", "1234"),
        ("group.consumer.max.size", "3"),
    ])
}

#[test]
fn partitions_move_from_member_to_member() {
    let gateway = start();
    let mut client = gateway.connect();
    let topic = create(&mut client, "t", 2);
    let has = |indexes: &[i32]| {
        let partitions = TopicPartitions::default()
            .with_topic_id(topic)
            .with_partitions(indexes.to_vec());
        Some(vec![partitions])
    };
    let joined = client.call(1, &joins("m"));
    assert_eq!(told(&joined), (OK, 1, Some(vec![0, 1])));
    assert_eq!(joined.heartbeat_interval_ms, 1234);
    assert_eq!(
        joined.assignment.unwrap().topic_partitions[0].topic_id,
        topic
    );
    // Of version 0, who has its id made for it.
    let other = client.call(0, &joins(""));
    assert_eq!(told(&other), (OK, 2, Some(vec![])));
    let other = other.member_id.unwrap().to_string();
    let revoking = client.call(1, &beats("m", 1).with_topic_partitions(has(&[0, 1])));
    assert_eq!(told(&revoking), (OK, 1, Some(vec![0])));
    assert_eq!(told(&client.call(1, &beats(&other, 2))), (OK, 2, None));
    let revoked = client.call(1, &beats("m", 1).with_topic_partitions(has(&[0])));
    assert_eq!(told(&revoked), (OK, 2, None));
    assert_eq!(
        told(&client.call(1, &beats(&other, 2))),
        (OK, 2, Some(vec![1]))
    );

    let describe = ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![group("g"), group("none")])
        .with_include_authorized_operations(true);
    let described = client.call(1, &describe).groups;
    assert_eq!(described[0].error_code, OK);
    assert_eq!(described[0].group_state.as_str(), "Stable");
    assert_eq!(
        (described[0].group_epoch, described[0].assignment_epoch),
        (2, 2)
    );
    assert_eq!(described[0].assignor_name.as_str(), "uniform");
    assert!(described[0].authorized_operations > 0);
    assert_eq!(described[0].members.len(), 2);
    for member in &described[0].members {
        assert_eq!((member.member_epoch, member.member_type), (2, 1));
        assert_eq!(member.client_id.as_str(), "test");
        assert_eq!(member.client_host.as_str(), "/127.0.0.1");
        assert_eq!(member.subscribed_topic_names, [name("t")]);
        assert_eq!(member.assignment, member.target_assignment);
        let assigned = &member.assignment.topic_partitions[0];
        assert_eq!(
            (&assigned.topic_name, assigned.topic_id),
            (&name("t"), topic)
        );
    }
    assert_eq!(described[1].error_code, GROUP_ID_NOT_FOUND);

    assert_eq!(told(&client.call(1, &beats("m", -1))), (OK, -1, None));
    assert_eq!(
        told(&client.call(1, &beats(&other, 2))),
        (OK, 3, Some(vec![0, 1]))
    );
}

/// A member that reads by a pattern knows its topics by their ids alone, and asks for their names.
#[test]
fn a_topic_is_found_by_its_id_whether_its_name_is_empty_or_left_out() {
    const UNKNOWN_TOPIC_ID: i16 = 100;
    let gateway = start();
    let mut client = gateway.connect();
    let id = create(&mut client, "t", 1);
    let mut ask = |id: Uuid, name: Option<TopicName>| {
        let topic = metadata_request::MetadataRequestTopic::default()
            .with_topic_id(id)
            .with_name(name);
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        client.call(13, &request).topics.remove(0)
    };
    for beside in [None, Some(name(""))] {
        let found = ask(id, beside.clone());
        assert_eq!((found.error_code, found.name), (OK, Some(name("t"))));
        let missing = ask(Uuid::from_u128(7), beside.clone());
        assert_eq!(
            (missing.error_code, missing.name),
            (UNKNOWN_TOPIC_ID, beside)
        );
    }
}

#[test]
fn refusals_are_kafkas() {
    let gateway = start();
    let mut client = gateway.connect();
    create(&mut client, "t", 1);
    let mut code = |version: i16, request: &ConsumerGroupHeartbeatRequest| {
        let response = client.call(version, request);
        assert!(response.error_code == OK || response.error_message.is_some());
        response.error_code
    };
    let fixed = |request: ConsumerGroupHeartbeatRequest| request.with_instance_id(Some(text("s")));
    // That make no sense.
    assert_eq!(code(1, &joins("")), INVALID_REQUEST);
    assert_eq!(code(0, &beats("", 1)), INVALID_REQUEST);
    assert_eq!(code(1, &beats("m", -3)), INVALID_REQUEST);
    assert_eq!(code(1, &beats("m", -2)), INVALID_REQUEST);
    assert_eq!(
        code(1, &joins("m").with_rebalance_timeout_ms(-1)),
        INVALID_REQUEST
    );
    assert_eq!(
        code(1, &joins("m").with_topic_partitions(None)),
        INVALID_REQUEST
    );
    assert_eq!(
        code(1, &joins("m").with_subscribed_topic_names(None)),
        INVALID_REQUEST
    );
    assert_eq!(
        code(1, &joins("m").with_rack_id(Some(text("")))),
        INVALID_REQUEST
    );
    let assignor = |name: &str| joins("m").with_server_assignor(Some(text(name)));
    assert_eq!(code(1, &assignor("sticky")), UNSUPPORTED_ASSIGNOR);
    let pattern = |pattern: &str| joins("m").with_subscribed_topic_regex(Some(text(pattern)));
    assert_eq!(code(1, &pattern("(")), INVALID_REGULAR_EXPRESSION);
    // There is no group yet.
    assert_eq!(code(1, &beats("m", 1)), GROUP_ID_NOT_FOUND);
    assert_eq!(code(1, &beats("m", -1)), GROUP_ID_NOT_FOUND);
    assert_eq!(code(1, &joins("m")), OK);
    assert_eq!(code(1, &beats("x", 1)), UNKNOWN_MEMBER_ID);
    assert_eq!(code(1, &beats("x", -1)), UNKNOWN_MEMBER_ID);
    assert_eq!(code(1, &beats("m", 9)), FENCED_MEMBER_EPOCH);
    assert_eq!(code(1, &fixed(joins("s1"))), OK);
    assert_eq!(code(1, &fixed(joins("s2"))), UNRELEASED_INSTANCE_ID);
    assert_eq!(code(1, &fixed(beats("s2", 2))), FENCED_INSTANCE_ID);
    assert_eq!(code(1, &fixed(beats("s1", -2))), OK);
    assert_eq!(code(1, &fixed(joins("s2"))), OK);
    assert_eq!(code(1, &fixed(beats("s1", 2))), FENCED_INSTANCE_ID);
    assert_eq!(code(1, &assignor("range").with_member_id(text("n"))), OK);
    assert_eq!(code(1, &joins("o")), GROUP_MAX_SIZE_REACHED);
}

#[test]
fn offsets_are_committed_and_read_by_who_knows_its_epoch() {
    let gateway = start();
    let mut client = gateway.connect();
    let client = &mut client;
    create(client, "t", 1);
    assert_eq!(commit(client, 9, "m", 1), GROUP_ID_NOT_FOUND);
    assert_eq!(client.call(1, &joins("m")).error_code, OK);
    assert_eq!(commit(client, 9, "m", 1), OK);
    assert_eq!(commit(client, 9, "m", 0), STALE_MEMBER_EPOCH);
    assert_eq!(commit(client, 9, "m", 2), STALE_MEMBER_EPOCH);
    assert_eq!(commit(client, 9, "x", 1), UNKNOWN_MEMBER_ID);
    assert_eq!(commit(client, 9, "", -1), UNKNOWN_MEMBER_ID);
    assert_eq!(commit(client, 8, "m", 1), UNSUPPORTED_VERSION);
    assert_eq!(committed(client, Some("m"), 1), (OK, Some(7)));
    assert_eq!(committed(client, None, -1), (OK, Some(7)));
    assert_eq!(committed(client, Some("m"), 2).0, STALE_MEMBER_EPOCH);
    assert_eq!(committed(client, Some("x"), 1).0, UNKNOWN_MEMBER_ID);
}

#[test]
fn administrators_see_both_kinds_of_groups_and_remove_those_without_members() {
    let gateway = start();
    let mut client = gateway.connect();
    let client = &mut client;
    create(client, "t", 1);
    assert_eq!(client.call(1, &joins("m")).error_code, OK);
    let classic = OffsetCommitRequest::default()
        .with_group_id(group("simple"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![Default::default()]),
        ]);
    assert_eq!(
        client.call(9, &classic).topics[0].partitions[0].error_code,
        OK
    );
    let mut listed = |types: &[&str], states: &[&str]| {
        let texts = |words: &[&str]| words.iter().map(|word| text(word)).collect();
        let request = ListGroupsRequest::default()
            .with_types_filter(texts(types))
            .with_states_filter(texts(states));
        let groups = client.call(5, &request).groups.into_iter();
        groups
            .map(|one| {
                format!(
                    "{} {} {}",
                    one.group_id.as_str(),
                    one.group_type,
                    one.group_state
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed(&[], &[]),
        ["g consumer Stable", "simple classic Empty"]
    );
    assert_eq!(listed(&["consumer"], &[]), ["g consumer Stable"]);
    assert_eq!(listed(&["Classic"], &[]), ["simple classic Empty"]);
    assert_eq!(listed(&["consumer"], &["reconciling"]), [""; 0]);

    // Each of the two ways to describe knows its own kind.
    let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
    let described = client.call(6, &request).groups.remove(0);
    assert_eq!(
        (described.error_code, described.group_state.as_str()),
        (GROUP_ID_NOT_FOUND, "Dead")
    );
    assert!(
        described
            .error_message
            .unwrap()
            .contains("consumer protocol")
    );
    assert_eq!(client.call(5, &request).groups[0].error_code, OK);
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group("simple")]);
    let described = client.call(1, &request).groups.remove(0);
    assert_eq!(described.error_code, GROUP_ID_NOT_FOUND);

    let topic = offset_delete_request::OffsetDeleteRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![Default::default()]);
    let forget = OffsetDeleteRequest::default()
        .with_group_id(group("g"))
        .with_topics(vec![topic]);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g")]);
    let forgotten = client.call(0, &forget);
    assert_eq!(
        forgotten.topics[0].partitions[0].error_code,
        GROUP_SUBSCRIBED_TO_TOPIC
    );
    assert_eq!(
        client.call(2, &delete).results[0].error_code,
        NON_EMPTY_GROUP
    );
    assert_eq!(client.call(1, &beats("m", -1)).error_code, OK);
    assert_eq!(
        client.call(0, &forget).topics[0].partitions[0].error_code,
        OK
    );
    assert_eq!(client.call(2, &delete).results[0].error_code, OK);
    assert_eq!(
        client.call(1, &beats("m", 1)).error_code,
        GROUP_ID_NOT_FOUND
    );
}

#[test]
fn a_group_without_members_changes_its_protocol_and_keeps_its_offsets() {
    let gateway = start();
    let mut client = gateway.connect();
    let client = &mut client;
    create(client, "t", 1);
    assert_eq!(commit(client, 9, "", -1), OK);
    // A classic group, as soon as somebody has joined it, is not for others.
    let required = joins_classic(client, "");
    assert_eq!(required.error_code, MEMBER_ID_REQUIRED);
    let joined = joins_classic(client, &required.member_id);
    assert_eq!(joined.error_code, OK);
    assert_eq!(client.call(1, &joins("m")).error_code, GROUP_ID_NOT_FOUND);
    let leaving = leave_group_request::MemberIdentity::default().with_member_id(joined.member_id);
    let leave = LeaveGroupRequest::default()
        .with_group_id(group("g"))
        .with_members(vec![leaving]);
    assert_eq!(client.call(5, &leave).members[0].error_code, OK);
    // Empty, it is: what was committed is still there, and epochs go on after its generations.
    let upgraded = client.call(1, &joins("m"));
    assert!(upgraded.error_code == OK && upgraded.member_epoch > joined.generation_id);
    assert_eq!(
        committed(client, Some("m"), upgraded.member_epoch),
        (OK, Some(7))
    );
    assert_eq!(
        joins_classic(client, "").error_code,
        INCONSISTENT_GROUP_PROTOCOL
    );
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text("m"))
        .with_generation_id(upgraded.member_epoch);
    assert_eq!(client.call(4, &heartbeat).error_code, UNKNOWN_MEMBER_ID);
    let sync = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text("m"))
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")));
    assert_eq!(client.call(5, &sync).error_code, UNKNOWN_MEMBER_ID);
    // And back.
    assert_eq!(client.call(1, &beats("m", -1)).error_code, OK);
    let required = joins_classic(client, "");
    assert_eq!(required.error_code, MEMBER_ID_REQUIRED);
    let joined = joins_classic(client, &required.member_id);
    assert!(joined.error_code == OK && joined.generation_id > upgraded.member_epoch);
    assert_eq!(committed(client, None, -1), (OK, Some(7)));
}

/// The value of a group's setting, where it comes from, and the error.
fn setting(client: &mut Connection, group: &str, setting: &str) -> (String, i8) {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(group))
        .with_configuration_keys(Some(vec![text(setting)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let result = client.call(4, &request).results.remove(0);
    assert_eq!((result.error_code, result.configs.len()), (OK, 1));
    let config = &result.configs[0];
    (
        config.value.as_ref().unwrap().to_string(),
        config.config_source,
    )
}

/// Sets a setting of a group, or with `None` puts it back.
fn set(client: &mut Connection, group: &str, setting: &str, value: Option<&str>) -> i16 {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default()
        .with_name(text(setting))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(group))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).responses[0].error_code
}

#[test]
fn a_group_has_settings_of_its_own_also_before_it_is_there() {
    const SESSION: &str = "consumer.session.timeout.ms";
    const INTERVAL: &str = "consumer.heartbeat.interval.ms";
    const INVALID_CONFIG: i16 = 40;
    const OF_GROUP: i8 = 8;
    const DEFAULT: i8 = 5;
    let gateway = start();
    let mut client = gateway.connect();
    let client = &mut client;
    create(client, "t", 1);
    assert_eq!(setting(client, "g", INTERVAL), ("1234".into(), DEFAULT));
    assert_eq!(set(client, "g", INTERVAL, Some("2000")), OK);
    assert_eq!(setting(client, "g", INTERVAL), ("2000".into(), OF_GROUP));
    assert_eq!(client.call(1, &joins("m")).heartbeat_interval_ms, 2000);
    assert_eq!(set(client, "g", SESSION, Some("50000")), OK);
    for (setting, value) in [
        (SESSION, "44999"),
        (SESSION, "60001"),
        (SESSION, "long"),
        (INTERVAL, "999"),
        ("consumer.max.size", "1"),
    ] {
        assert_eq!(
            set(client, "g", setting, Some(value)),
            INVALID_CONFIG,
            "{setting}={value}"
        );
    }
    assert_eq!(setting(client, "g", SESSION), ("50000".into(), OF_GROUP));
    assert_eq!(set(client, "g", INTERVAL, None), OK);
    assert_eq!(setting(client, "g", INTERVAL), ("1234".into(), DEFAULT));
    assert_eq!(client.call(1, &beats("m", 1)).heartbeat_interval_ms, 1234);
    // The older call replaces all of them.
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text(INTERVAL))
        .with_value(Some(text("3000")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text("g"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(2, &request).responses[0].error_code, OK);
    assert_eq!(setting(client, "g", INTERVAL), ("3000".into(), OF_GROUP));
    assert_eq!(setting(client, "g", SESSION), ("45000".into(), DEFAULT));
}
