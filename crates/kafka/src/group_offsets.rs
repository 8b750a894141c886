//! What consumer groups have committed: written, read, deleted.

use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use mainstem::broker::{CommittedOffset, GroupCommit, GroupMember, OffsetCommit};

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::group_members::owned;
use crate::metadata::{text, topic_name};
use crate::topic_ref::partition_number;

pub(crate) async fn commit(
    client: &Client,
    call: &Call,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    // In the request's order, those that no partition can have left out.
    let mut offsets = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if let Ok(index) = partition_number(partition.partition_index) {
                offsets.push(OffsetCommit {
                    topic: topic.name.to_string(),
                    partition: index,
                    offset: partition.committed_offset,
                    leader_epoch: Some(partition.committed_leader_epoch)
                        .filter(|epoch| *epoch >= 0),
                    metadata: owned(&partition.committed_metadata).unwrap_or_default(),
                });
            }
        }
    }
    let commit = GroupCommit {
        member: GroupMember {
            group: request.group_id.to_string(),
            member_id: request.member_id.to_string(),
            instance_id: owned(&request.group_instance_id),
            generation: request.generation_id_or_member_epoch,
        },
        knows_epochs: call.version >= 9,
        offsets,
    };
    let committed = client
        .broker()
        .commit_offsets(&client.caller, commit, mainstem::now_ms())
        .await;
    let code = |error| Refusal::from(error).code();
    let (mut outcomes, all) = match committed {
        Ok(outcomes) => (outcomes.into_iter(), 0),
        Err(error) => (Vec::new().into_iter(), code(error)),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let outcome = match partition_number(partition.partition_index) {
                Err(refusal) => refusal.code(),
                Ok(_) => match outcomes.next() {
                    Some(Ok(())) => 0,
                    Some(Err(error)) => code(error),
                    None => all,
                },
            };
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(outcome),
            );
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// One group up to version 7, many from 8 on.
pub(crate) async fn fetch(
    client: &Client,
    call: &Call,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if call.version >= 8 {
        let groups = request.groups.into_iter();
        let groups = groups.map(|group| fetch_group(client, group)).collect();
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let topics = request.topics.map(|topics| {
        let topic = |topic: OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(request.group_id)
        .with_topics(topics);
    let group = fetch_group(client, group);
    let topic = |topic: OffsetFetchResponseTopics| {
        let partition = |partition: OffsetFetchResponsePartitions| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(if call.version >= 5 {
                    partition.committed_leader_epoch
                } else {
                    -1
                })
                .with_metadata(partition.metadata)
                .with_error_code(if call.version < 2 && group.error_code != 0 {
                    group.error_code
                } else {
                    partition.error_code
                })
        };
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    };
    let response =
        OffsetFetchResponse::default().with_topics(group.topics.into_iter().map(topic).collect());
    // Version 1 has no place for it.
    response.with_error_code(if call.version >= 2 {
        group.error_code
    } else {
        0
    })
}

fn fetch_group(client: &Client, request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(request.group_id.clone());
    let (broker, caller, group) = (client.broker(), &client.caller, request.group_id.as_str());
    // Who says nothing of being a member may read all the same.
    if request.member_id.is_some() || request.member_epoch >= 0 {
        let member_id = owned(&request.member_id).unwrap_or_default();
        let checked = broker.check_member_epoch(caller, group, &member_id, request.member_epoch);
        if let Err(error) = checked {
            return response.with_error_code(Refusal::from(error).code());
        }
    }
    let Some(wanted) = request.topics else {
        return match broker.fetch_all_offsets(caller, group) {
            Err(error) => response.with_error_code(Refusal::from(error).code()),
            Ok(all) => {
                let topics = all.into_iter().map(|found| {
                    let partitions = found.partitions.into_iter();
                    told(
                        topic_name(&found.topic.name),
                        partitions.map(|(index, offset)| {
                            (i32::try_from(index).unwrap_or(i32::MAX), Ok(Some(offset)))
                        }),
                    )
                });
                response.with_topics(topics.collect())
            }
        };
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let one = |index: i32| -> Result<Option<CommittedOffset>, Refusal> {
            let partition = partition_number(index)?;
            let found = broker.fetch_offsets(caller, group, topic.name.as_str(), &[partition])?;
            Ok(found.into_iter().next().flatten())
        };
        let partitions = topic
            .partition_indexes
            .iter()
            .map(|index| (*index, one(*index)));
        topics.push(told(topic.name.clone(), partitions));
    }
    response.with_topics(topics)
}

/// A topic's partitions with what is committed; -1 where nothing is, also in a topic that is not there, as in Kafka.
fn told(
    name: TopicName,
    partitions: impl Iterator<Item = (i32, Result<Option<CommittedOffset>, Refusal>)>,
) -> OffsetFetchResponseTopics {
    use kafka_protocol::ResponseError::UnknownTopicOrPartition;
    let partition = |(index, found): (i32, Result<Option<CommittedOffset>, Refusal>)| {
        let entry = OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(-1);
        match found {
            Ok(Some(committed)) => entry
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch.unwrap_or(-1))
                .with_metadata(Some(text(&committed.metadata))),
            Ok(None) => entry,
            Err(refusal) if refusal.error == UnknownTopicOrPartition => entry,
            Err(refusal) => entry.with_error_code(refusal.code()),
        }
    };
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(partitions.map(partition).collect())
}

pub(crate) async fn delete(
    client: &Client,
    _call: &Call,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if let Ok(index) = partition_number(partition.partition_index) {
                wanted.push((topic.name.to_string(), index));
            }
        }
    }
    let group = request.group_id.as_str();
    let deleted = client
        .broker()
        .delete_offsets(&client.caller, group, &wanted, mainstem::now_ms())
        .await;
    let code = |error| Refusal::from(error).code();
    let mut outcomes = match deleted {
        Ok(outcomes) => outcomes.into_iter(),
        Err(error) => return OffsetDeleteResponse::default().with_error_code(code(error)),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let outcome = match partition_number(partition.partition_index) {
                Err(refusal) => refusal.code(),
                Ok(_) => outcomes
                    .next()
                    .map_or(0, |one| one.map_or_else(code, |()| 0)),
            };
            partitions.push(
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(outcome),
            );
        }
        topics.push(
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    OffsetDeleteResponse::default().with_topics(topics)
}
