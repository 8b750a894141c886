//! What topics there are and where their partitions lead: this node leads them all.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use mainstem::broker::{BrokerError, NewTopic, Topic, TopicId, check_topic_name};
use uuid::Uuid;

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::fetch::LEADER_EPOCH;
use crate::internal_topics::{self, InternalTopic};

/// The operations on a topic that anybody may do, as bits (KIP-430): read, write, create, delete, alter, describe, describe
/// and alter configs.
const TOPIC_OPERATIONS: i32 = operations(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The same for the cluster: create, alter, describe, cluster action, describe and alter configs, idempotent write.
pub(crate) const CLUSTER_OPERATIONS: i32 = operations(&[5, 7, 8, 9, 10, 11, 12]);
/// Nobody has asked for them.
pub(crate) const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) const fn operations(bits: &[u32]) -> i32 {
    let mut sum = 0;
    let mut at = 0;
    while at < bits.len() {
        sum |= 1 << bits[at];
        at += 1;
    }
    sum
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) async fn metadata(
    client: &Client,
    call: &Call,
    request: MetadataRequest,
) -> MetadataResponse {
    let node = BrokerId(client.gateway.settings.node_id);
    let (host, port) = client.advertised();
    let broker = MetadataResponseBroker::default()
        .with_node_id(node)
        .with_host(StrBytes::from_string(host))
        .with_port(port);
    let operations = |wanted, operations| if wanted { operations } else { NO_OPERATIONS };
    let topic_operations = operations(
        request.include_topic_authorized_operations,
        TOPIC_OPERATIONS,
    );
    // Before version 1 no topic meant every topic.
    let wanted = request
        .topics
        .filter(|topics| call.version > 0 || !topics.is_empty());
    let mut topics = Vec::new();
    match wanted {
        None => match client.broker().list_topics(&client.caller) {
            Ok(all) => {
                topics.extend(all.iter().map(|topic| described(node, topic)));
                topics.extend(internal_topics::ALL.iter().map(|one| internal(node, one)));
            }
            Err(error) => tracing::warn!(%error, "topics cannot be listed"),
        },
        Some(wanted) => {
            // Before version 4 there was no choice.
            let create = call.version < 4 || request.allow_auto_topic_creation;
            for topic in wanted {
                topics.push(one(client, node, topic, create).await);
            }
        }
    }
    if call.version >= 8 {
        for topic in &mut topics {
            topic.topic_authorized_operations = topic_operations;
        }
    }
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(
            client.gateway.mainstem.cluster_id(),
        )))
        .with_controller_id(node)
        .with_topics(topics)
        .with_cluster_authorized_operations(operations(
            request.include_cluster_authorized_operations,
            CLUSTER_OPERATIONS,
        ))
}

async fn one(
    client: &Client,
    node: BrokerId,
    wanted: MetadataRequestTopic,
    create: bool,
) -> MetadataResponseTopic {
    let id = wanted.topic_id;
    let found_internal = match &wanted.name {
        Some(name) => internal_topics::by_name(name.as_str()),
        None => internal_topics::by_id(id.as_u128()),
    };
    if let Some(topic) = found_internal {
        return internal(node, topic);
    }
    let found = match &wanted.name {
        Some(name) if !name.is_empty() || id.is_nil() => named(client, name.as_str(), create).await,
        // Beside an id Java's client leaves the name empty, others leave it out.
        _ => client
            .broker()
            .topic_by_id(&client.caller, TopicId(id.as_u128())),
    };
    match found {
        Ok(topic) => described(node, &topic),
        Err(error) => MetadataResponseTopic::default()
            .with_error_code(Refusal::from(error).code())
            .with_name(wanted.name)
            .with_topic_id(id),
    }
}

/// A topic by its name; created, where that is allowed.
async fn named(client: &Client, name: &str, create: bool) -> Result<Arc<Topic>, BrokerError> {
    let (broker, caller) = (client.broker(), &client.caller);
    let found = broker.topic(caller, name);
    match found {
        Err(BrokerError::TopicNotFound { .. }) => {
            // Such a name no topic can have.
            check_topic_name(name)?;
            if !(create && client.gateway.settings.auto_create_topics) {
                return found;
            }
            let created = broker.create_topic(caller, NewTopic::named(name), mainstem::now_ms());
            match created.await {
                // By somebody else in this very moment.
                Err(BrokerError::TopicExists { .. }) => broker.topic(caller, name),
                created => created,
            }
        }
        found => found,
    }
}

fn described(node: BrokerId, topic: &Topic) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(Uuid::from_u128(topic.id.0))
        .with_partitions(partitions(node, topic.partitions))
}

fn internal(node: BrokerId, topic: &InternalTopic) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic.name)))
        .with_topic_id(Uuid::from_u128(topic.id))
        .with_is_internal(true)
        .with_partitions(partitions(node, InternalTopic::PARTITIONS))
}

fn partitions(node: BrokerId, count: u32) -> Vec<MetadataResponsePartition> {
    let partition = |index: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(node)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    (0..count).map(partition).collect()
}

/// Topics page by page: at most as many partitions as were asked for, and a cursor to where the next page begins.
pub(crate) async fn describe_topic_partitions(
    client: &Client,
    _call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    const MOST_PARTITIONS: i32 = 2_000;
    let node = BrokerId(client.gateway.settings.node_id);
    let makes_sense = request.cursor.as_ref().is_none_or(|cursor| {
        let named = |topic: &TopicRequest| topic.name == cursor.topic_name;
        let topics = &request.topics;
        cursor.partition_index >= 0 && (topics.is_empty() || topics.iter().any(named))
    });
    if !makes_sense {
        let refused = |topic: TopicRequest| {
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic.name))
                .with_error_code(ResponseError::InvalidRequest.code())
        };
        let topics = request.topics.into_iter().map(refused);
        return DescribeTopicPartitionsResponse::default().with_topics(topics.collect());
    }
    let mut names: Vec<TopicName> = request.topics.into_iter().map(|topic| topic.name).collect();
    if names.is_empty() {
        let all = client
            .broker()
            .list_topics(&client.caller)
            .unwrap_or_default();
        let internal = internal_topics::ALL.iter().map(|topic| topic.name);
        let names_of_all = all.iter().map(|topic| &*topic.name).chain(internal);
        names = names_of_all.map(topic_name).collect();
    }
    names.sort();
    names.dedup();
    let (first, mut from) = match &request.cursor {
        Some(cursor) => (
            Some(cursor.topic_name.clone()),
            u32::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => (None, 0),
    };
    let limit = request.response_partition_limit.clamp(1, MOST_PARTITIONS);
    let mut left = u32::try_from(limit).unwrap_or(1);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        if first.as_ref().is_some_and(|first| name < *first) {
            continue;
        }
        // The cursor names a partition of its own topic alone.
        if first.as_ref() != Some(&name) {
            from = 0;
        }
        let cursor = |index: u32| {
            Cursor::default()
                .with_topic_name(name.clone())
                .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
        };
        if left == 0 {
            response.next_cursor = Some(cursor(from));
            break;
        }
        let entry = DescribeTopicPartitionsResponseTopic::default();
        let found = match internal_topics::by_name(name.as_str()) {
            Some(topic) => Ok((topic.id, InternalTopic::PARTITIONS, true)),
            None => {
                let topic = named(client, name.as_str(), false).await;
                topic.map(|topic| (topic.id.0, topic.partitions, false))
            }
        };
        let (id, partitions, is_internal) = match found {
            Ok(found) => found,
            Err(error) => {
                let code = Refusal::from(error).code();
                response
                    .topics
                    .push(entry.with_error_code(code).with_name(Some(name)));
                continue;
            }
        };
        let upto = partitions.min(from.saturating_add(left));
        let partition = |index: u32| {
            DescribeTopicPartitionsResponsePartition::default()
                .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
                .with_leader_id(node)
                .with_leader_epoch(LEADER_EPOCH)
                .with_replica_nodes(vec![node])
                .with_isr_nodes(vec![node])
                .with_eligible_leader_replicas(Some(Vec::new()))
                .with_last_known_elr(Some(Vec::new()))
        };
        response.topics.push(
            entry
                .with_name(Some(name.clone()))
                .with_topic_id(Uuid::from_u128(id))
                .with_is_internal(is_internal)
                .with_partitions((from..upto).map(partition).collect())
                .with_topic_authorized_operations(TOPIC_OPERATIONS),
        );
        left -= upto.saturating_sub(from).min(left);
        if upto < partitions {
            response.next_cursor = Some(cursor(upto));
            break;
        }
    }
    response
}
