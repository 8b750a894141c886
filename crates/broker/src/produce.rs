//! Producing: batches that a client has built, or records that are built into batches here. One call is one
//! submission, one frame, one sync, however many partitions it goes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_engine::{Append, AppendError, Appended, EngineError, Submission};
use mainstem_record::{Batch, BatchBuilder, Compression, RecordError, RecordView, TimestampType};

use crate::access::{self, Access};
use crate::broker::Broker;
use crate::configs::TimeLimits;
use crate::topic::Topic;
use crate::topics::not_found;
use crate::unpacking::{Unpacking, check_size};
use crate::{BrokerError, Caller, names};

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct ProduceBatch {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
    /// The batch, checked when it was parsed.
    pub batch: Batch,
}

/// One batch for one partition of a topic that was looked up before: by its id, or for its limits.
#[derive(Clone, Debug)]
pub struct PlacedBatch {
    /// The topic. If it is gone by now, the batch is refused, whatever has its name.
    pub topic: Arc<Topic>,
    /// The partition's number.
    pub partition: u32,
    /// The batch, checked when it was parsed.
    pub batch: Batch,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// Whether it had been appended before: a retry.
    pub duplicate: bool,
    /// The partition's first offset.
    pub log_start: i64,
    /// The time that the log gave its records, where the topic says so.
    pub append_time_ms: Option<i64>,
}

/// A record to be built into a batch.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// The partition; without one the key decides, and without a key the topic takes turns.
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; without one the record is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The record's time; without one it is the time of the call.
    pub timestamp_ms: Option<i64>,
}

impl Broker {
    /// Appends batches, all with one sync. Each has its own outcome; the call as a whole fails only where nothing of it
    /// was done, or nobody can tell.
    pub async fn produce(
        &self,
        caller: &Caller,
        batches: Vec<ProduceBatch>,
        now_ms: i64,
    ) -> Result<Vec<Result<Produced, BrokerError>>, BrokerError> {
        let mut placed = Vec::with_capacity(batches.len());
        let mut last: Option<Arc<Topic>> = None;
        for ProduceBatch {
            topic: name,
            partition,
            batch,
        } in batches
        {
            let topic = match last.take().filter(|topic| topic.name == name) {
                Some(topic) => Ok(topic),
                None => self.topic_for(caller, Access::Write { topic: &name }, &name),
            };
            last = topic.as_ref().ok().cloned();
            placed.push(topic.map(|topic| PlacedBatch {
                topic,
                partition,
                batch,
            }));
        }
        self.append_all(placed, now_ms).await
    }

    /// As [`produce`](Self::produce), to topics that the caller has looked up.
    pub async fn produce_placed(
        &self,
        caller: &Caller,
        batches: Vec<PlacedBatch>,
        now_ms: i64,
    ) -> Result<Vec<Result<Produced, BrokerError>>, BrokerError> {
        let batches = batches.into_iter().map(|placed| allowed(caller, placed));
        self.append_all(batches.collect(), now_ms).await
    }

    async fn append_all(
        &self,
        batches: Vec<Result<PlacedBatch, BrokerError>>,
        now_ms: i64,
    ) -> Result<Vec<Result<Produced, BrokerError>>, BrokerError> {
        let mut call = ProduceCall::new(batches, None, now_ms);
        if call.appends.is_empty() {
            return Ok(call.outcomes);
        }
        let submission = Submission {
            appends: std::mem::take(&mut call.appends),
            ..Submission::default()
        };
        let answers = self.append(submission).await?;
        Ok(call.answered(answers, now_ms))
    }

    /// Appends records, all or none of them, and returns the partition and offset of each.
    pub async fn produce_records(
        &self,
        caller: &Caller,
        topic: &str,
        records: Vec<NewRecord>,
        now_ms: i64,
    ) -> Result<Vec<(u32, i64)>, BrokerError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let topic = self.topic_for(caller, Access::Write { topic }, topic)?;
        let (count, placed) = (records.len() as u64, place(&topic, records, now_ms)?);
        let bytes: usize = placed
            .batches
            .iter()
            .map(|(_, batch)| batch.size_bytes())
            .sum();
        let appends = placed
            .batches
            .into_iter()
            .map(|(partition, batch)| {
                let id = topic
                    .partition_id(partition)
                    .ok_or_else(|| no_partition(&topic, partition))?;
                check_times(&topic, &batch, now_ms)?;
                Ok(Append {
                    partition: id,
                    batch: timed(&topic, batch, now_ms),
                })
            })
            .collect::<Result<Vec<_>, BrokerError>>()?;
        let submission = Submission {
            appends,
            all_or_nothing: true,
            ..Submission::default()
        };
        let answers = match self.append(submission).await {
            Ok(answers) => answers,
            Err(BrokerError::Engine(EngineError::Append { error, .. })) => {
                return Err(BrokerError::append(error, &topic.name, 0));
            }
            Err(error) => return Err(error),
        };
        let bases = answers
            .into_iter()
            .map(|answer| answer.map(|appended| appended.base_offset))
            .collect::<Result<Vec<i64>, _>>()
            .map_err(|error| BrokerError::append(error, &topic.name, 0))?;
        topic.traffic.produced(count, bytes as u64);
        let offset = |place: &Place| {
            Some((
                place.partition,
                bases.get(place.batch)? + i64::from(place.delta),
            ))
        };
        placed
            .places
            .iter()
            .map(offset)
            .collect::<Option<Vec<_>>>()
            .ok_or(BrokerError::Closed)
    }

    async fn append(
        &self,
        submission: Submission,
    ) -> Result<Vec<Result<Appended, AppendError>>, BrokerError> {
        // In turn: what a client sends one after the other stays so, also where it has to wait for memory.
        Ok(self.inner.engine.submit_in_turn(submission).await?.appends)
    }
}

/// A batch with the time that the topic wants its records to have.
fn timed(topic: &Topic, batch: Batch, now_ms: i64) -> Batch {
    if topic.limits.append_time {
        batch.with_append_time(now_ms)
    } else {
        batch
    }
}

/// A batch in the codec that the topic wants, where its gateway has not seen to that.
fn compressed(topic: &Topic, batch: Batch) -> Result<Batch, BrokerError> {
    match topic.limits.codec {
        Some(codec) if codec.compression != batch.header().compression() => {
            Unpacking::default().take(topic, batch)
        }
        _ => Ok(batch),
    }
}

/// A batch of a topic that the caller may write to.
pub(crate) fn allowed(caller: &Caller, placed: PlacedBatch) -> Result<PlacedBatch, BrokerError> {
    let topic = &placed.topic;
    access::check(caller, Access::Write { topic: &topic.name })?;
    names::check_not_internal(&topic.name)?;
    if topic.tenant != caller.tenant {
        return Err(not_found(&topic.name));
    }
    Ok(placed)
}

/// Batches of one call on their way: those that were not refused, and where each belongs.
pub(crate) struct ProduceCall {
    /// The transactional id, in whose transaction batches may be.
    transactional_id: Option<String>,
    pub(crate) appends: Vec<Append>,
    /// One an append.
    targets: Vec<Target>,
    /// One a batch; those of appends are not known yet.
    pub(crate) outcomes: Vec<Result<Produced, BrokerError>>,
}

/// Where a batch of a call belongs.
struct Target {
    /// The index of its outcome.
    outcome: usize,
    topic: Arc<Topic>,
    partition: u32,
    records: u64,
    bytes: u64,
}

impl ProduceCall {
    /// Checks what can be checked of each batch by itself.
    pub(crate) fn new(
        batches: Vec<Result<PlacedBatch, BrokerError>>,
        transactional_id: Option<String>,
        now_ms: i64,
    ) -> ProduceCall {
        let may_be_transactional = transactional_id.is_some();
        let mut call = ProduceCall {
            transactional_id,
            appends: Vec::with_capacity(batches.len()),
            targets: Vec::with_capacity(batches.len()),
            outcomes: Vec::with_capacity(batches.len()),
        };
        for placed in batches {
            let checked = placed.and_then(|placed| {
                let PlacedBatch {
                    topic, partition, ..
                } = &placed;
                let id = topic
                    .partition_id(*partition)
                    .ok_or_else(|| no_partition(topic, *partition))?;
                check_batch(topic, &placed.batch, may_be_transactional, now_ms)?;
                let batch = compressed(topic, placed.batch.clone())?;
                let batch = timed(topic, batch, now_ms);
                Ok((PlacedBatch { batch, ..placed }, id))
            });
            call.outcomes.push(match checked {
                Ok((placed, id)) => {
                    let PlacedBatch {
                        topic,
                        partition,
                        batch,
                    } = placed;
                    call.targets.push(Target {
                        outcome: call.outcomes.len(),
                        topic,
                        partition,
                        records: u64::try_from(batch.record_count()).unwrap_or_default(),
                        bytes: batch.size_bytes() as u64,
                    });
                    call.appends.push(Append {
                        partition: id,
                        batch,
                    });
                    // Replaced later: every append has its outcome.
                    Err(BrokerError::Closed)
                }
                Err(error) => Err(error),
            });
        }
        call
    }

    /// Refuses some of the appends that are left. `refuse` is asked for each, with the partition's name for messages.
    pub(crate) fn refuse(
        &mut self,
        mut refuse: impl FnMut(&Append, &dyn Fn() -> String) -> Option<BrokerError>,
    ) {
        let appends = std::mem::take(&mut self.appends);
        let targets = std::mem::take(&mut self.targets);
        for (append, target) in appends.into_iter().zip(targets) {
            let name = || format!("partition {}/{}", target.topic.name, target.partition);
            match refuse(&append, &name) {
                None => {
                    self.appends.push(append);
                    self.targets.push(target);
                }
                Some(error) => {
                    if let Some(outcome) = self.outcomes.get_mut(target.outcome) {
                        *outcome = Err(error);
                    }
                }
            }
        }
    }

    /// The outcome of each batch, once each append has an answer.
    pub(crate) fn answered(
        self,
        answers: Vec<Result<Appended, AppendError>>,
        now_ms: i64,
    ) -> Vec<Result<Produced, BrokerError>> {
        let mut outcomes = self.outcomes;
        for (target, answer) in self.targets.into_iter().zip(answers) {
            if let Ok(Appended {
                duplicate: false, ..
            }) = &answer
            {
                target.topic.traffic.produced(target.records, target.bytes);
            }
            let Some(outcome) = outcomes.get_mut(target.outcome) else {
                continue;
            };
            *outcome = match (answer, &self.transactional_id) {
                (Ok(appended), _) => Ok(produced(appended, &target.topic, now_ms)),
                (Err(AppendError::TransactionEnded { .. }), Some(id)) => {
                    Err(BrokerError::InvalidTransactionState {
                        id: id.clone(),
                        why: "the batch's transaction has ended",
                    })
                }
                (Err(error), _) => Err(BrokerError::append(
                    error,
                    &target.topic.name,
                    target.partition,
                )),
            };
        }
        outcomes
    }
}

fn produced(appended: Appended, topic: &Topic, now_ms: i64) -> Produced {
    let Appended {
        base_offset,
        last_offset,
        duplicate,
        log_start,
    } = appended;
    Produced {
        base_offset,
        last_offset,
        duplicate,
        log_start,
        // Records that were there before have the time of then.
        append_time_ms: (topic.limits.append_time && !duplicate).then_some(now_ms),
    }
}

pub(crate) fn no_partition(topic: &Topic, partition: u32) -> BrokerError {
    BrokerError::PartitionNotFound {
        topic: topic.name.to_string(),
        partition,
        partitions: topic.partitions,
    }
}

/// What a topic accepts, beyond what makes a batch well-formed.
fn check_batch(
    topic: &Topic,
    batch: &Batch,
    may_be_transactional: bool,
    now_ms: i64,
) -> Result<(), BrokerError> {
    let refuse = |why: &str| Err(BrokerError::InvalidBatch { why: why.into() });
    let header = batch.header();
    check_size(topic, batch)?;
    if header.is_control() {
        return refuse("control batches are written by the server alone");
    }
    if header.is_transactional() && !may_be_transactional {
        return refuse("it is part of a transaction, and the request names no transactional id");
    }
    if header.is_transactional() && header.producer_id < 0 {
        return refuse("it is part of a transaction, and has no producer id");
    }
    if header.timestamp_type() != TimestampType::CreateTime {
        return refuse("its times claim to be the server's; send it with CreateTime");
    }
    if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return refuse("it has a producer id, but no epoch or sequence");
    }
    if topic.limits.compaction.is_some() {
        let keyless = first_records(batch, |record| record.key.is_none().then_some(()))?;
        if !keyless.is_empty() {
            let records = keyless.into_iter().map(|(index, ())| index);
            return Err(key_required(topic, records.collect()));
        }
    }
    check_times(topic, batch, now_ms)
}

fn key_required(topic: &Topic, records: Vec<i32>) -> BrokerError {
    BrokerError::KeyRequired {
        topic: topic.name.to_string(),
        records,
    }
}

/// Refuses a batch with times that are too far from the server's. Its newest time stands in its header; for the oldest the
/// records are looked at, and only where there is a limit to it.
fn check_times(topic: &Topic, batch: &Batch, now_ms: i64) -> Result<(), BrokerError> {
    /// A record without a time (`RecordBatch.NO_TIMESTAMP`) is taken anywhere.
    const NO_TIME: i64 = -1;
    if topic.limits.append_time {
        return Ok(());
    }
    let TimeLimits {
        before_max_ms,
        after_max_ms,
    } = topic.limits.times;
    let earliest_ms = match before_max_ms {
        i64::MAX => i64::MIN,
        before_max_ms => now_ms.saturating_sub(before_max_ms),
    };
    let latest_ms = now_ms.saturating_add(after_max_ms);
    let taken = earliest_ms..=latest_ms;
    let newest_ms = batch.header().max_timestamp_ms;
    let says_all = earliest_ms == i64::MIN || batch.record_count() == 1;
    if says_all && taken.contains(&newest_ms) {
        return Ok(());
    }
    let records = first_records(batch, |record| {
        let time_ms = record.timestamp_ms;
        (time_ms != NO_TIME && !taken.contains(&time_ms)).then_some(time_ms)
    })?;
    if records.is_empty() {
        return Ok(());
    }
    Err(BrokerError::InvalidTimestamp {
        topic: topic.name.to_string(),
        earliest_ms,
        latest_ms,
        records,
    })
}

/// The first records in which `find` finds something, by their position in the batch: as many as are worth telling of.
fn first_records<T>(
    batch: &Batch,
    find: impl Fn(RecordView<'_>) -> Option<T>,
) -> Result<Vec<(i32, T)>, BrokerError> {
    /// A refusal is to be no larger than the batch.
    const MOST: usize = 16;
    let (mut index, mut found) = (0, Vec::new());
    batch.for_each(|record| {
        if found.len() < MOST {
            found.extend(find(record).map(|one| (index, one)));
        }
        index += 1;
        Ok::<(), RecordError>(())
    })?;
    Ok(found)
}

fn too_large(topic: &Topic, bytes: usize) -> BrokerError {
    let limit_bytes = topic.limits.max_message_bytes;
    BrokerError::RecordTooLarge {
        topic: topic.name.to_string(),
        what: "a record",
        bytes,
        limit_bytes,
    }
}

/// Records in batches, with the place of each.
struct Placed {
    /// Batches with their partitions, in the order they are appended.
    batches: Vec<(u32, Batch)>,
    /// One a record.
    places: Vec<Place>,
}

struct Place {
    partition: u32,
    /// Index in `batches`.
    batch: usize,
    /// Position in the batch.
    delta: i32,
}

/// The batch that a partition is filling.
struct Filling {
    builder: BatchBuilder,
    /// Its index among all batches, in the order they were begun.
    index: usize,
}

fn place(topic: &Topic, records: Vec<NewRecord>, now_ms: i64) -> Result<Placed, BrokerError> {
    let mut finished: Vec<Option<(u32, Batch)>> = Vec::new();
    let mut filling: BTreeMap<u32, Filling> = BTreeMap::new();
    let mut places = Vec::with_capacity(records.len());
    let mut took_turns = false;
    for (index, record) in records.iter().enumerate() {
        if record.key.is_none() && topic.limits.compaction.is_some() {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            return Err(key_required(topic, vec![index]));
        }
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) if partition >= topic.partitions => {
                return Err(no_partition(topic, partition));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => topic.partition_for_key(key),
            (None, None) => {
                took_turns = true;
                topic.sticky.partition(
                    record.value.as_ref().map_or(0, Bytes::len),
                    topic.partitions,
                )
            }
        };
        let slot = match filling.entry(partition) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(begin(topic, &mut finished))
            }
        };
        if !add(topic, &mut slot.builder, record, now_ms)? {
            let full = std::mem::replace(slot, begin(topic, &mut finished));
            finish(&mut finished, partition, full)?;
            if !add(topic, &mut slot.builder, record, now_ms)? {
                return Err(too_large(topic, topic.limits.max_message_bytes + 1));
            }
        }
        places.push(Place {
            partition,
            batch: slot.index,
            delta: slot.builder.record_count() - 1,
        });
    }
    for (partition, last) in filling {
        finish(&mut finished, partition, last)?;
    }
    if took_turns {
        topic.sticky.move_on();
    }
    // Every batch begun was finished.
    Ok(Placed {
        batches: finished.into_iter().flatten().collect(),
        places,
    })
}

fn begin(topic: &Topic, finished: &mut Vec<Option<(u32, Batch)>>) -> Filling {
    finished.push(None);
    let codec = topic.limits.codec.unwrap_or(Compression::None.into());
    let builder = BatchBuilder::new(codec, topic.limits.max_message_bytes);
    Filling {
        builder,
        index: finished.len() - 1,
    }
}

fn finish(
    finished: &mut [Option<(u32, Batch)>],
    partition: u32,
    full: Filling,
) -> Result<(), BrokerError> {
    let batch = full.builder.build()?;
    if let Some(slot) = finished.get_mut(full.index) {
        *slot = Some((partition, batch));
    }
    Ok(())
}

/// Adds a record; `false` when the batch is full.
fn add(
    topic: &Topic,
    builder: &mut BatchBuilder,
    record: &NewRecord,
    now_ms: i64,
) -> Result<bool, BrokerError> {
    let headers: Vec<(&str, Option<&[u8]>)> = record
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
    match builder.append(
        timestamp_ms,
        record.key.as_deref(),
        record.value.as_deref(),
        &headers,
    ) {
        Ok(()) => Ok(true),
        Err(RecordError::Full { .. }) if !builder.is_empty() => Ok(false),
        Err(RecordError::Full { .. } | RecordError::RecordTooLarge { .. }) => {
            let headers_bytes = record
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
            let parts = [&record.key, &record.value]
                .into_iter()
                .flatten()
                .map(Bytes::len);
            Err(too_large(topic, parts.chain(headers_bytes).sum()))
        }
        Err(error) => Err(error.into()),
    }
}
