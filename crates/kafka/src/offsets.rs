//! Looking offsets up: by time, by what stands at either end, by a leader's epoch.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use mainstem::beside;

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::fetch::LEADER_EPOCH;
use crate::internal_topics::{self, InternalTopic};
use crate::topic_ref::partition_number;

/// What a timestamp below 0 stands for (`ListOffsetsRequest.java`).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(crate) async fn list(
    client: &Client,
    call: &Call,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let read_committed = request.isolation_level == 1;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let entry = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index);
            let found = check_epoch(wanted.current_leader_epoch).and_then(|()| {
                let partition = partition_number(wanted.partition_index)?;
                find(
                    client,
                    topic.name.as_str(),
                    partition,
                    wanted.timestamp,
                    read_committed,
                )
            });
            partitions.push(match found {
                Ok((offset, timestamp)) => entry
                    .with_offset(offset)
                    .with_timestamp(timestamp)
                    .with_leader_epoch(if offset < 0 || call.version < 4 {
                        -1
                    } else {
                        LEADER_EPOCH
                    }),
                Err(refusal) => entry.with_error_code(refusal.code()),
            });
            // A look-up by time may read: others have their turn.
            tokio::task::yield_now().await;
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// An offset and its time; -1 where there is none.
fn find(
    client: &Client,
    topic: &str,
    partition: u32,
    timestamp: i64,
    read_committed: bool,
) -> Result<(i64, i64), Refusal> {
    if internal_topics::by_name(topic).is_some() {
        return internal(partition, timestamp);
    }
    let (broker, caller) = (client.broker(), &client.caller);
    let bounds = || broker.partition_bounds(caller, topic, partition);
    let none = (-1, -1);
    // A record that is not stable yet is not there for who reads committed.
    let stable = |found: Option<(i64, i64)>| -> Result<(i64, i64), Refusal> {
        match found {
            Some((offset, _)) if read_committed && offset >= bounds()?.last_stable => Ok(none),
            found => Ok(found.unwrap_or(none)),
        }
    };
    Ok(match timestamp {
        LATEST if read_committed => (bounds()?.last_stable, -1),
        LATEST => (bounds()?.high_watermark, -1),
        EARLIEST | EARLIEST_LOCAL => (bounds()?.log_start, -1),
        MAX_TIMESTAMP => stable(beside(|| {
            broker.find_max_timestamp(caller, topic, partition)
        })?)?,
        // There is no second tier of storage.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => {
            bounds()?;
            none
        }
        timestamp => stable(beside(|| {
            broker.find_timestamp(caller, topic, partition, timestamp)
        })?)?,
    })
}

/// As [`find`], in an internal topic: it is empty.
fn internal(partition: u32, timestamp: i64) -> Result<(i64, i64), Refusal> {
    if partition >= InternalTopic::PARTITIONS {
        let why = format!("partition {partition} does not exist");
        return Err(Refusal::new(ResponseError::UnknownTopicOrPartition, why));
    }
    Ok(match timestamp {
        LATEST | EARLIEST | EARLIEST_LOCAL => (0, -1),
        _ => (-1, -1),
    })
}

/// A client may know a leader that this node does not.
fn check_epoch(epoch: i32) -> Result<(), Refusal> {
    if epoch > LEADER_EPOCH {
        let why = format!("leader epoch {epoch} is not known; this is {LEADER_EPOCH}");
        return Err(Refusal::new(ResponseError::UnknownLeaderEpoch, why));
    }
    Ok(())
}

/// Where an epoch ends: there is one epoch, and it goes on.
pub(crate) async fn for_leader_epoch(
    client: &Client,
    _call: &Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let end = |partition: i32, known: i32| -> Result<i64, Refusal> {
            check_epoch(known)?;
            let partition = partition_number(partition)?;
            let bounds = client.broker().partition_bounds(
                &client.caller,
                topic.topic.as_str(),
                partition,
            )?;
            Ok(bounds.high_watermark)
        };
        let answer = |wanted: &OffsetForLeaderPartition| {
            let entry = EpochEndOffset::default().with_partition(wanted.partition);
            match end(wanted.partition, wanted.current_leader_epoch) {
                Ok(end) if wanted.leader_epoch == LEADER_EPOCH => {
                    entry.with_leader_epoch(LEADER_EPOCH).with_end_offset(end)
                }
                // An epoch that never was.
                Ok(_) => entry.with_leader_epoch(-1).with_end_offset(-1),
                Err(refusal) => entry.with_error_code(refusal.code()),
            }
        };
        let partitions = topic.partitions.iter().map(answer).collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions),
        );
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
