//! Fetching: whole batches from an offset on, as far as they are durable. A fetch never waits; whoever wants to wait
//! takes a [`Waiter`] and has it race against their own timer.

use std::sync::Arc;

use bytes::Bytes;
use mainstem_log::{LogError, PartitionId, Read, Waiter};

use crate::access::{self, Access};
use crate::broker::Broker;
use crate::produce::no_partition;
use crate::topic::Topic;
use crate::topics::not_found;
use crate::{BrokerError, Caller, Isolation};

/// The most that one fetch returns, whatever it asks for (beyond one whole batch).
const MAX_FETCH_BYTES: usize = 64 << 20;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
    /// The first offset wanted; it may lie in the middle of a batch, which is then returned whole.
    pub offset: i64,
    /// About how much to return; at least one whole batch is.
    pub max_bytes: usize,
    /// Up to where: the high watermark, or the last stable offset.
    pub isolation: Isolation,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Batches in order, each piece one or more of them, whole. Empty at the end of the partition.
    pub batches: Vec<Bytes>,
    /// Where reading goes on: the offset asked for, or the one after the last batch.
    pub next_offset: i64,
    /// The first offset that cannot be read yet.
    pub high_watermark: i64,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable: i64,
    /// The first offset that exists.
    pub log_start: i64,
    /// Under read committed: the aborted transactions with records among the batches, by their first offsets. From
    /// there on, the transactional batches of that producer are left out, up to its abort marker.
    pub aborted: Vec<AbortedTransaction>,
}

/// A transaction whose records are not to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The offset of its first record in the partition.
    pub first_offset: i64,
}

/// An offset to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that exists.
    Earliest,
    /// The one that the next record gets.
    Latest,
    /// The last stable offset: the latest for who reads committed.
    LastStable,
    /// The first whose time is at or after this; the latest where there is none.
    Timestamp(i64),
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that exists.
    pub log_start: i64,
    /// The first offset that cannot be read yet.
    pub high_watermark: i64,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable: i64,
    /// Bytes of its records, in memory and on disk.
    pub size_bytes: u64,
}

impl Broker {
    /// Reads from an offset on. Never waits: at the end it returns nothing.
    pub fn fetch(&self, caller: &Caller, request: &FetchRequest) -> Result<Fetched, BrokerError> {
        let topic = Access::Read {
            topic: &request.topic,
        };
        let topic = self.topic_for(caller, topic, &request.topic)?;
        let FetchRequest {
            partition,
            offset,
            max_bytes,
            isolation,
            ..
        } = *request;
        self.fetch_from(caller, &topic, partition, offset, max_bytes, isolation)
    }

    /// What is to be delivered of a topic that the caller has looked up, under read committed: without markers and the
    /// records of aborted transactions, so that there may be no batches and a later next offset. Never waits.
    pub fn fetch_delivered(
        &self,
        caller: &Caller,
        topic: &Topic,
        partition: u32,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Fetched, BrokerError> {
        let partition = partition_of(caller, topic, partition)?;
        let named = |error| named(error, topic, partition);
        let log = self.inner.engine.log();
        let max_bytes = max_bytes.min(MAX_FETCH_BYTES);
        let stable = log
            .read_stable(partition, offset, max_bytes, None)
            .map_err(named)?;
        let last_stable = stable.last_stable;
        let read = stable.delivered(partition).map_err(named)?;
        Ok(fetched(topic, offset, read, last_stable, Vec::new()))
    }

    /// As [`fetch`](Self::fetch), from a topic that the caller has looked up: if it is gone by now, that is the answer,
    /// whatever has its name.
    pub fn fetch_from(
        &self,
        caller: &Caller,
        topic: &Topic,
        partition: u32,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Fetched, BrokerError> {
        let partition = partition_of(caller, topic, partition)?;
        let named = |error| named(error, topic, partition);
        let log = self.inner.engine.log();
        let max_bytes = max_bytes.min(MAX_FETCH_BYTES);
        let (read, last_stable, aborted) = match isolation {
            Isolation::ReadUncommitted => {
                let read = log
                    .read(partition, offset, max_bytes, None)
                    .map_err(named)?;
                let last_stable = log.bounds(partition).map_err(named)?.last_stable;
                (read, last_stable, Vec::new())
            }
            Isolation::ReadCommitted => {
                let stable = log
                    .read_stable(partition, offset, max_bytes, None)
                    .map_err(named)?;
                (stable.read, stable.last_stable, stable.aborted)
            }
        };
        let mut aborted: Vec<AbortedTransaction> = aborted
            .iter()
            .map(|one| AbortedTransaction {
                producer_id: one.producer_id,
                first_offset: one.first_offset,
            })
            .collect();
        aborted.sort_unstable_by_key(|one| one.first_offset);
        Ok(fetched(topic, offset, read, last_stable, aborted))
    }

    /// Waits until a partition of a topic that the caller has looked up holds a record at `offset` that this isolation
    /// shows, or goes away. The caller brings the timer.
    pub fn wait_for_data(
        &self,
        caller: &Caller,
        topic: &Topic,
        partition: u32,
        offset: i64,
        isolation: Isolation,
    ) -> Result<Waiter, BrokerError> {
        let partition = partition_of(caller, topic, partition)?;
        let log = self.inner.engine.log();
        Ok(match isolation {
            Isolation::ReadUncommitted => log.on_data(partition, offset),
            Isolation::ReadCommitted => log.on_stable_data(partition, offset),
        })
    }

    /// The first record whose time is at or after `timestamp_ms`, as its offset and time; none where all are earlier.
    pub fn find_timestamp(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
        timestamp_ms: i64,
    ) -> Result<Option<(i64, i64)>, BrokerError> {
        let (topic, partition) = self.partition_for(caller, topic, partition)?;
        let log = self.inner.engine.log();
        log.offset_for_timestamp(partition, timestamp_ms)
            .map_err(|error| named(error, &topic, partition))
    }

    /// The first record with the latest time of all, as its offset and time; none in an empty partition. Halves the time
    /// that is left with each look at the index, so it takes some sixty looks.
    pub fn find_max_timestamp(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
    ) -> Result<Option<(i64, i64)>, BrokerError> {
        let find = |ms| self.find_timestamp(caller, topic, partition, ms);
        let Some(mut latest) = find(i64::MIN)? else {
            return Ok(None);
        };
        // Nothing is later than `until`; `latest` is there.
        let mut until = i64::MAX;
        while latest.1 < until {
            let middle = i64::midpoint(latest.1, until).max(latest.1 + 1);
            match find(middle)? {
                Some(later) => latest = later,
                None => until = middle - 1,
            }
        }
        Ok(Some(latest))
    }

    /// Looks an offset up.
    pub fn resolve_offset(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
        spec: OffsetSpec,
    ) -> Result<i64, BrokerError> {
        let (topic, partition) = self.partition_for(caller, topic, partition)?;
        let named = |error| named(error, &topic, partition);
        let log = self.inner.engine.log();
        let bounds = log.bounds(partition).map_err(named)?;
        Ok(match spec {
            OffsetSpec::Earliest => bounds.start,
            OffsetSpec::Latest => bounds.high_watermark,
            OffsetSpec::LastStable => bounds.last_stable,
            OffsetSpec::Timestamp(timestamp_ms) => {
                let found = log
                    .offset_for_timestamp(partition, timestamp_ms)
                    .map_err(named)?;
                found.map_or(bounds.high_watermark, |(offset, _)| offset)
            }
        })
    }

    /// What a partition holds.
    pub fn partition_bounds(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
    ) -> Result<PartitionBounds, BrokerError> {
        let (topic, partition) = self.partition_for(caller, topic, partition)?;
        self.bounds_of(&topic, partition)
    }

    /// What a partition of a topic that the caller has looked up holds.
    pub fn bounds_in(
        &self,
        caller: &Caller,
        topic: &Topic,
        partition: u32,
    ) -> Result<PartitionBounds, BrokerError> {
        self.bounds_of(topic, partition_of(caller, topic, partition)?)
    }

    pub(crate) fn bounds_of(
        &self,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<PartitionBounds, BrokerError> {
        let named = |error| named(error, topic, partition);
        let log = self.inner.engine.log();
        let bounds = log.bounds(partition).map_err(named)?;
        Ok(PartitionBounds {
            partition: partition.index,
            log_start: bounds.start,
            high_watermark: bounds.high_watermark,
            last_stable: bounds.last_stable,
            size_bytes: log.size_bytes(partition).map_err(named)?,
        })
    }

    fn partition_for(
        &self,
        caller: &Caller,
        topic: &str,
        index: u32,
    ) -> Result<(Arc<Topic>, PartitionId), BrokerError> {
        let topic = self.topic_for(caller, Access::Read { topic }, topic)?;
        let partition = topic
            .partition_id(index)
            .ok_or_else(|| no_partition(&topic, index))?;
        Ok((topic, partition))
    }
}

fn fetched(
    topic: &Topic,
    offset: i64,
    read: Read,
    last_stable: i64,
    aborted: Vec<AbortedTransaction>,
) -> Fetched {
    let records = u64::try_from(read.next_offset - offset).unwrap_or_default();
    let bytes: usize = read.batches.iter().map(Bytes::len).sum();
    topic.traffic.fetched(records, bytes as u64);
    Fetched {
        batches: read.batches,
        next_offset: read.next_offset,
        high_watermark: read.high_watermark,
        last_stable: last_stable.min(read.high_watermark),
        log_start: read.start,
        aborted,
    }
}

pub(crate) fn partition_of(
    caller: &Caller,
    topic: &Topic,
    index: u32,
) -> Result<PartitionId, BrokerError> {
    access::check(caller, Access::Read { topic: &topic.name })?;
    if topic.tenant != caller.tenant {
        return Err(not_found(&topic.name));
    }
    topic
        .partition_id(index)
        .ok_or_else(|| no_partition(topic, index))
}

/// What the log said, in the words of the topic.
pub(crate) fn named(error: LogError, topic: &Topic, partition: PartitionId) -> BrokerError {
    match error {
        LogError::OffsetOutOfRange {
            offset, start, end, ..
        } => BrokerError::OffsetOutOfRange {
            topic: topic.name.to_string(),
            partition: partition.index,
            offset,
            start,
            end,
        },
        // The topic was there a moment ago: it was deleted in between.
        LogError::UnknownPartition { .. } => not_found(&topic.name),
        other => other.into(),
    }
}
