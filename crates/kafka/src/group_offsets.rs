//! What consumer groups have committed: written, also with a transaction, read, deleted.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
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
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;
use mainstem::broker::{
    BrokerError, CommittedOffset, GroupCommit, GroupMember, OffsetCommit, OffsetsOfTopic,
    TransactionCommit,
};

use crate::asked::Asked;
use crate::call::Call;
use crate::client::Client;
use crate::codes::{Refusal, of_broker, of_coordinator};
use crate::group_members::owned;
use crate::metadata::{text, topic_name};
use crate::topic_ref::partition_number;
use crate::transactions::producer;

/// The offsets that a request commits. Both requests have them in the same form, which is two types.
macro_rules! asked {
    ($request:ident) => {{
        let topics = $request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let offset = Offset {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata,
                };
                (partition.partition_index, offset)
            });
            (topic.name, partitions.collect())
        });
        Asked(topics.collect())
    }};
}

pub(crate) async fn commit(
    client: &Client,
    call: &Call,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let asked = asked!(request);
    let commit = GroupCommit {
        member: GroupMember {
            group: request.group_id.to_string(),
            member_id: request.member_id.to_string(),
            instance_id: owned(&request.group_instance_id),
            generation: request.generation_id_or_member_epoch,
        },
        knows_epochs: call.version >= 9,
        offsets: offsets(&asked),
    };
    let committed = client
        .broker()
        .commit_offsets(&client.caller, commit, mainstem::now_ms())
        .await;
    let partition = |index, code| {
        OffsetCommitResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code)
    };
    let topic = |name, partitions| {
        OffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    };
    OffsetCommitResponse::default()
        .with_topics(asked.answers(committed, of_broker, partition, topic))
}

/// Offsets that are committed with the producer's transaction. From version 5 on the group becomes part of it by this
/// (KIP-890), and from version 3 on the member is named (KIP-447).
pub(crate) async fn commit_in_transaction(
    client: &Client,
    call: &Call,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let asked = asked!(request);
    let commit = TransactionCommit {
        producer: producer(
            &request.transactional_id,
            request.producer_id,
            request.producer_epoch,
        ),
        adds_group: call.version >= 5,
        commit: GroupCommit {
            knows_epochs: true,
            member: GroupMember {
                group: request.group_id.to_string(),
                member_id: request.member_id.to_string(),
                instance_id: owned(&request.group_instance_id),
                generation: request.generation_id,
            },
            offsets: offsets(&asked),
        },
    };
    let committed = client
        .broker()
        .commit_transaction_offsets(&client.caller, commit, mainstem::now_ms())
        .await;
    let partition = |index, code| {
        TxnOffsetCommitResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code)
    };
    let topic = |name, partitions| {
        TxnOffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    };
    // A producer that is fenced is told so as by a partition, in every version.
    let code = |error: &BrokerError| match error {
        // Clients of earlier versions do not expect it here.
        BrokerError::ConcurrentTransactions { .. } if call.version < 5 => {
            ResponseError::CoordinatorNotAvailable
        }
        error => of_coordinator(error, false, call.version >= 4),
    };
    TxnOffsetCommitResponse::default().with_topics(asked.answers(committed, code, partition, topic))
}

/// An offset to be committed, as requests have it.
struct Offset {
    offset: i64,
    /// Negative where the client does not know it.
    leader_epoch: i32,
    metadata: Option<StrBytes>,
}

fn offsets(asked: &Asked<Offset>) -> Vec<OffsetCommit> {
    let commit = |(topic, partition, one): (&TopicName, u32, &Offset)| OffsetCommit {
        topic: topic.to_string(),
        partition,
        offset: one.offset,
        leader_epoch: Some(one.leader_epoch).filter(|epoch| *epoch >= 0),
        metadata: owned(&one.metadata).unwrap_or_default(),
    };
    asked.numbered().map(commit).collect()
}

/// One group up to version 7, many from 8 on.
pub(crate) async fn fetch(
    client: &Client,
    call: &Call,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if call.version >= 8 {
        let groups = request.groups.into_iter();
        let groups = groups
            .map(|group| fetch_group(client, group, request.require_stable))
            .collect();
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
    let group = fetch_group(client, group, request.require_stable);
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

/// With `stable` an offset that an open transaction may replace is not told (KIP-447): the client asks again.
fn fetch_group(
    client: &Client,
    request: OffsetFetchRequestGroup,
    stable: bool,
) -> OffsetFetchResponseGroup {
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
        return match all_offsets(client, group, stable) {
            Err(error) => response.with_error_code(Refusal::from(error).code()),
            Ok(topics) => response.with_topics(topics),
        };
    };
    let open = match open_offsets(client, group, stable) {
        Err(error) => return response.with_error_code(Refusal::from(error).code()),
        Ok(open) => open,
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let name = topic.name.as_str();
        let one = |index: i32| -> Result<Option<CommittedOffset>, Refusal> {
            let partition = partition_number(index)?;
            let found = broker.fetch_offsets(caller, group, name, &[partition])?;
            if open.contains(&(name.to_owned(), partition)) {
                return Err(unstable());
            }
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

fn unstable() -> Refusal {
    Refusal::new(
        ResponseError::UnstableOffsetCommit,
        "an open transaction may commit an offset here; ask again",
    )
}

/// Topics and partitions for which an open transaction holds an offset of the group; none where that does not matter. To be
/// asked once a group, and before its offsets: what becomes stable between the two is told as it was.
fn open_offsets(
    client: &Client,
    group: &str,
    stable: bool,
) -> Result<BTreeSet<(String, u32)>, BrokerError> {
    let open = match stable {
        true => client.broker().unstable_offsets(&client.caller, group)?,
        false => Vec::new(),
    };
    Ok(open.into_iter().collect())
}

/// Everything that a group has committed.
fn all_offsets(
    client: &Client,
    group: &str,
    stable: bool,
) -> Result<Vec<OffsetFetchResponseTopics>, BrokerError> {
    let (broker, caller) = (client.broker(), &client.caller);
    let open = open_offsets(client, group, stable)?;
    let all = broker.fetch_all_offsets(caller, group)?;
    let topic = |found: OffsetsOfTopic| {
        let name = found.topic.name.to_string();
        let partitions = found.partitions.into_iter().map(|(index, offset)| {
            let found = match open.contains(&(name.clone(), index)) {
                true => Err(unstable()),
                false => Ok(Some(offset)),
            };
            (i32::try_from(index).unwrap_or(i32::MAX), found)
        });
        told(topic_name(&name), partitions)
    };
    Ok(all.into_iter().map(topic).collect())
}

/// A topic's partitions with what is committed; -1 where nothing is, also in a topic that is not there, as in Kafka.
fn told(
    name: TopicName,
    partitions: impl Iterator<Item = (i32, Result<Option<CommittedOffset>, Refusal>)>,
) -> OffsetFetchResponseTopics {
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
            Err(refusal) if refusal.error == ResponseError::UnknownTopicOrPartition => entry,
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
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter();
        let partitions = partitions.map(|partition| (partition.partition_index, ()));
        (topic.name, partitions.collect())
    });
    let asked = Asked(topics.collect());
    let wanted: Vec<(String, u32)> = asked
        .numbered()
        .map(|(topic, partition, ())| (topic.to_string(), partition))
        .collect();
    let group = request.group_id.as_str();
    let deleted = client
        .broker()
        .delete_offsets(&client.caller, group, &wanted, mainstem::now_ms())
        .await;
    if let Err(error) = deleted {
        return OffsetDeleteResponse::default().with_error_code(Refusal::from(error).code());
    }
    let partition = |index, code| {
        OffsetDeleteResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code)
    };
    let topic = |name, partitions| {
        OffsetDeleteResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    };
    OffsetDeleteResponse::default().with_topics(asked.answers(deleted, of_broker, partition, topic))
}
