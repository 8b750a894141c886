//! Creating and deleting topics, adding partitions, deleting records.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, TopicName,
};
use mainstem::broker::{BrokerError, NewTopic, TopicChange, TopicDescription, TopicId};
use uuid::Uuid;

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::configs::source_code;
use crate::internal_topics;
use crate::metadata::{text, topic_name};
use crate::topic_ref::partition_number;

/// Names that a request has more than once: each of them is refused, as in Kafka.
fn twice<'a>(names: impl Iterator<Item = &'a TopicName>) -> BTreeSet<TopicName> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).cloned().collect()
}

fn named_twice() -> Refusal {
    Refusal::new(
        ResponseError::InvalidRequest,
        "the request names this topic more than once",
    )
}

pub(crate) async fn create(
    client: &Client,
    call: &Call,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let twice = twice(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let created = if twice.contains(&name) {
            Err(named_twice())
        } else {
            create_one(client, topic, request.validate_only).await
        };
        let entry = CreatableTopicResult::default()
            .with_name(name)
            .with_configs(None);
        results.push(match created {
            Ok(created) => {
                let entry = entry.with_error_message(None);
                if call.version < 5 {
                    entry
                } else {
                    created.tell(entry)
                }
            }
            Err(refusal) => entry
                .with_error_code(refusal.code())
                .with_error_message(refusal.text()),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// What a topic that was created, or could have been, is like.
enum Created {
    Topic(Box<TopicDescription>),
    Valid { partitions: u32 },
}

impl Created {
    fn tell(self, entry: CreatableTopicResult) -> CreatableTopicResult {
        let count = |partitions: u32| i32::try_from(partitions).unwrap_or(i32::MAX);
        match self {
            Created::Valid { partitions } => entry
                .with_num_partitions(count(partitions))
                .with_replication_factor(1),
            Created::Topic(described) => {
                let config = |config: &mainstem::broker::configs::ConfigValue| {
                    CreatableTopicConfigs::default()
                        .with_name(text(config.key.name))
                        .with_value(Some(text(&config.value)))
                        .with_config_source(source_code(config.source))
                };
                entry
                    .with_topic_id(Uuid::from_u128(described.topic.id.0))
                    .with_num_partitions(count(described.topic.partitions))
                    .with_replication_factor(1)
                    .with_configs(Some(described.configs.iter().map(config).collect()))
            }
        }
    }
}

async fn create_one(
    client: &Client,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<Created, Refusal> {
    let name = topic.name.as_str();
    if internal_topics::by_name(name).is_some() {
        return Err(BrokerError::TopicExists {
            topic: name.to_owned(),
        }
        .into());
    }
    let partitions = partitions_of(&topic, BrokerId(client.gateway.settings.node_id))?;
    let configs = configs_of(&topic)?;
    let new = NewTopic {
        name: name.to_owned(),
        partitions,
        configs,
        schema: None,
    };
    let (broker, caller) = (client.broker(), &client.caller);
    if validate_only {
        let partitions = broker.validate_topic(caller, &new)?;
        return Ok(Created::Valid { partitions });
    }
    broker.create_topic(caller, new, mainstem::now_ms()).await?;
    Ok(Created::Topic(Box::new(
        broker.describe_topic(caller, name)?,
    )))
}

/// The settings that are asked for. One without a value is refused, in Kafka's words.
fn configs_of(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let (mut configs, mut without) = (BTreeMap::new(), Vec::new());
    for config in &topic.configs {
        match &config.value {
            Some(value) => {
                configs.insert(config.name.to_string(), value.to_string());
            }
            None => without.push(config.name.as_str()),
        }
    }
    if without.is_empty() {
        return Ok(configs);
    }
    let why = format!(
        "Null value not supported for topic configs: {}",
        without.join(",")
    );
    Err(Refusal::new(ResponseError::InvalidConfig, why))
}

/// How many partitions are asked for; none for the default. What asks for other nodes is refused.
fn partitions_of(topic: &CreatableTopic, node: BrokerId) -> Result<Option<u32>, Refusal> {
    if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, 1 | -1) {
            let why = format!(
                "replication factor {} is larger than the number of brokers, which is 1",
                topic.replication_factor
            );
            return Err(Refusal::new(ResponseError::InvalidReplicationFactor, why));
        }
        return match topic.num_partitions {
            -1 => Ok(None),
            count => u32::try_from(count).map(Some).map_err(|_| {
                let why = format!("a topic cannot have {count} partitions");
                Refusal::new(ResponseError::InvalidPartitions, why)
            }),
        };
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err(Refusal::new(
            ResponseError::InvalidRequest,
            "with an assignment, numbers of partitions and replicas are -1",
        ));
    }
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|one| one.partition_index)
        .collect();
    indexes.sort_unstable();
    let count = u32::try_from(indexes.len()).unwrap_or(u32::MAX);
    let is_dense = indexes
        .iter()
        .zip(0..)
        .all(|(index, expected)| *index == expected);
    if !is_dense || topic.assignments.iter().any(|one| one.broker_ids != [node]) {
        let why = format!(
            "each partition, numbered from 0, is assigned to node {}",
            node.0
        );
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
    }
    Ok(Some(count))
}

pub(crate) async fn delete(
    client: &Client,
    call: &Call,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
    let named = request.topic_names.into_iter().map(by_name);
    let mut responses = Vec::new();
    for wanted in request.topics.into_iter().chain(named) {
        let DeleteTopicState { name, topic_id, .. } = wanted;
        let deleted = delete_one(client, name.as_ref(), topic_id).await;
        let entry = DeletableTopicResult::default().with_topic_id(topic_id);
        responses.push(match deleted {
            Ok(name) => entry
                .with_name(Some(topic_name(&name)))
                .with_error_message(None),
            Err(refusal) => {
                let entry = entry.with_name(name).with_error_code(refusal.code());
                entry.with_error_message((call.version >= 5).then(|| refusal.text()).flatten())
            }
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete_one(
    client: &Client,
    name: Option<&TopicName>,
    id: Uuid,
) -> Result<String, Refusal> {
    let (broker, caller) = (client.broker(), &client.caller);
    let name = match name {
        Some(name) => name.to_string(),
        None => match internal_topics::by_id(id.as_u128()) {
            Some(topic) => topic.name.to_owned(),
            None => {
                let topic = broker.topic_by_id(caller, TopicId(id.as_u128()))?;
                topic.name.to_string()
            }
        },
    };
    internal_topics::refuse(&name)?;
    broker.delete_topic(caller, &name).await?;
    Ok(name)
}

pub(crate) async fn create_partitions(
    client: &Client,
    _call: &Call,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let twice = twice(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let added = if twice.contains(&topic.name) {
            Err(named_twice())
        } else {
            add_partitions(client, &topic, request.validate_only).await
        };
        let entry = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match added {
            Ok(()) => entry.with_error_message(None),
            Err(refusal) => entry
                .with_error_code(refusal.code())
                .with_error_message(refusal.text()),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn add_partitions(
    client: &Client,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let name = topic.name.as_str();
    internal_topics::refuse(name)?;
    let before = client.broker().topic(&client.caller, name)?.partitions;
    let invalid = |why: String| Refusal::new(ResponseError::InvalidPartitions, why);
    let partitions = u32::try_from(topic.count)
        .map_err(|_| invalid(format!("a topic cannot have {} partitions", topic.count)))?;
    if partitions == before {
        return Err(invalid(format!(
            "topic '{name}' has {before} partitions already"
        )));
    }
    if let Some(assignments) = &topic.assignments {
        let node = BrokerId(client.gateway.settings.node_id);
        let added = partitions.saturating_sub(before) as usize;
        if assignments.len() != added || assignments.iter().any(|one| one.broker_ids != [node]) {
            let why = format!(
                "each partition that is added is assigned to node {}",
                node.0
            );
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
        }
    }
    let change = TopicChange {
        partitions: Some(partitions),
        ..TopicChange::default()
    };
    change_topic(client, name, change, validate_only).await
}

/// Changes a topic, or says whether it could be changed so.
pub(crate) async fn change_topic(
    client: &Client,
    name: &str,
    change: TopicChange,
    validate_only: bool,
) -> Result<(), Refusal> {
    let (broker, caller) = (client.broker(), &client.caller);
    if validate_only {
        broker.validate_change(caller, name, &change)?;
    } else {
        broker.alter_topic(caller, name, change).await?;
    }
    Ok(())
}

/// Deletes what lies before an offset, -1 for all there is. Each partition has its own outcome.
pub(crate) async fn delete_records(
    client: &Client,
    _call: &Call,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let entry = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index);
            let before = Some(wanted.offset).filter(|offset| *offset != -1);
            let deleted =
                delete_before(client, topic.name.as_str(), wanted.partition_index, before).await;
            partitions.push(match deleted {
                Ok(low_watermark) => entry.with_low_watermark(low_watermark),
                Err(refusal) => entry.with_low_watermark(-1).with_error_code(refusal.code()),
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete_before(
    client: &Client,
    topic: &str,
    partition: i32,
    before: Option<i64>,
) -> Result<i64, Refusal> {
    internal_topics::refuse(topic)?;
    let partition = partition_number(partition)?;
    let (broker, caller) = (client.broker(), &client.caller);
    let bounds = broker
        .delete_records(caller, topic, &[(partition, before)])
        .await?;
    Ok(bounds.first().map_or(-1, |bounds| bounds.log_start))
}
