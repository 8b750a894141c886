//! Members of consumer groups whose partitions the broker assigns: one request for everything (KIP-848).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member,
    TopicPartitions as DescribedPartitions,
};
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, GroupId,
};
use mainstem::broker::{
    AssignedTopic, BrokerError, ConsumerHeartbeat, ConsumerMemberDescription, PartitionId, TopicId,
};
use uuid::Uuid;

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::group_admin::GROUP_OPERATIONS;
use crate::group_members::owned;
use crate::metadata::{NO_OPERATIONS, text, topic_name};

pub(crate) async fn heartbeat(
    client: &Client,
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    // From version 1 on members make their ids (KIP-1082).
    if call.version >= 1 && request.member_id.is_empty() {
        let why = "it has no member id, which the member makes";
        return refused(Refusal::new(ResponseError::InvalidRequest, why));
    }
    let partitions = request.topic_partitions.as_ref().map(|topics| {
        let partition = |topic: u128, index: i32| {
            let topic = TopicId(topic);
            // A number below zero is no partition, and nobody can have it.
            let index = u32::try_from(index).ok()?;
            Some(PartitionId { topic, index })
        };
        topics
            .iter()
            .flat_map(|topic| {
                let indexes = topic.partitions.iter();
                indexes.filter_map(|index| partition(topic.topic_id.as_u128(), *index))
            })
            .collect()
    });
    let heartbeat = ConsumerHeartbeat {
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance_id: owned(&request.instance_id),
        rack_id: owned(&request.rack_id),
        client_id: call.client_id.to_string(),
        client_host: client.host(),
        rebalance_timeout_ms: Some(i64::from(request.rebalance_timeout_ms)).filter(|ms| *ms >= 0),
        topics: request
            .subscribed_topic_names
            .as_ref()
            .map(|names| names.iter().map(|name| name.to_string()).collect()),
        pattern: owned(&request.subscribed_topic_regex),
        assignor: owned(&request.server_assignor),
        owned: partitions,
    };
    let beat = client
        .broker()
        .consumer_heartbeat(&client.caller, heartbeat, mainstem::now_ms())
        .await;
    let beat = match beat {
        Ok(beat) => beat,
        Err(error) => return refused(refusal(error)),
    };
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(&beat.member_id)))
        .with_member_epoch(beat.member_epoch)
        .with_heartbeat_interval_ms(i32::try_from(beat.heartbeat_interval_ms).unwrap_or(i32::MAX))
        .with_assignment(beat.assignment.map(assignment))
}

/// What members cannot know of ends them unless they may take it for another coordinator's matter, and try again.
fn refusal(error: BrokerError) -> Refusal {
    let is_passing = matches!(
        error,
        BrokerError::Closed | BrokerError::DiskFull { .. } | BrokerError::WritesStopped { .. }
    );
    let refusal = Refusal::from(error);
    match is_passing {
        true => Refusal::new(ResponseError::CoordinatorNotAvailable, refusal.message),
        false => refusal,
    }
}

fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(refusal.code())
        .with_error_message(refusal.text())
}

fn assignment(partitions: Vec<PartitionId>) -> Assignment {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for partition in partitions {
        let id = Uuid::from_u128(partition.topic.0);
        let index = i32::try_from(partition.index).unwrap_or(i32::MAX);
        match topics.last_mut() {
            Some(last) if last.topic_id == id => last.partitions.push(index),
            _ => topics.push(
                TopicPartitions::default()
                    .with_topic_id(id)
                    .with_partitions(vec![index]),
            ),
        }
    }
    Assignment::default().with_topic_partitions(topics)
}

pub(crate) async fn describe(
    client: &Client,
    call: &Call,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    /// What kind of member it is, from version 1 on (KIP-1099): one of the consumer protocol.
    const CONSUMER: i8 = 1;
    let may = if request.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    let member = |member: &ConsumerMemberDescription| {
        let told = Member::default()
            .with_member_id(text(&member.member_id))
            .with_instance_id(member.instance_id.as_deref().map(text))
            .with_rack_id(member.rack_id.as_deref().map(text))
            .with_member_epoch(member.epoch)
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_subscribed_topic_names(
                member.topics.iter().map(|name| topic_name(name)).collect(),
            )
            .with_subscribed_topic_regex(member.pattern.as_deref().map(text))
            .with_assignment(described(&member.assignment))
            .with_target_assignment(described(&member.target));
        match call.version {
            0 => told,
            _ => told.with_member_type(CONSUMER),
        }
    };
    let describe = |id: &GroupId| {
        let entry = DescribedGroup::default()
            .with_group_id(id.clone())
            .with_authorized_operations(may);
        match client
            .broker()
            .describe_consumer_group(&client.caller, id.as_str())
        {
            Ok(group) => entry
                .with_error_message(None)
                .with_group_state(text(group.state.as_str()))
                .with_group_epoch(group.epoch)
                .with_assignment_epoch(group.assignment_epoch)
                .with_assignor_name(text(group.assignor))
                .with_members(group.members.iter().map(member).collect()),
            Err(error) => {
                let refusal = Refusal::from(error);
                entry
                    .with_error_code(refusal.code())
                    .with_error_message(refusal.text())
                    .with_authorized_operations(NO_OPERATIONS)
            }
        }
    };
    let groups = request.group_ids.iter().map(describe).collect();
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn described(topics: &[AssignedTopic]) -> DescribedAssignment {
    let topic = |topic: &AssignedTopic| {
        let index = |index: &u32| i32::try_from(*index).unwrap_or(i32::MAX);
        DescribedPartitions::default()
            .with_topic_id(Uuid::from_u128(topic.id.0))
            .with_topic_name(topic_name(&topic.name))
            .with_partitions(topic.partitions.iter().map(index).collect())
    };
    DescribedAssignment::default().with_topic_partitions(topics.iter().map(topic).collect())
}
