//! Fetch: batches go out as they stand in the log. Where there is not enough yet, it waits on the partitions themselves,
//! with one timer, and never asks again and again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kafka_protocol::ResponseError;
use mainstem::broker::{BrokerError, Isolation, Topic, Waiter};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::call::{Answer, Call};
use crate::client::Client;
use crate::codec::fetch::{Partition, PartitionResult, Request, Response, TopicResult};
use crate::codes::Refusal;
use crate::error::KafkaError;
use crate::fetch_session::{self, Key, Reads};
use crate::internal_topics::{self, InternalTopic};
use crate::topic_ref::partition_number;

/// The longest that an answer is held back, whatever the request says.
const MOST_WAIT: Duration = Duration::from_secs(300);
/// What an answer takes where the room for answers is full.
const LEAST_BYTES: usize = 64 << 10;
/// The epoch of every partition's leader: there is one node, and no other leader has ever been.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// Session ids are unique among the connections of a process.
static NEXT_SESSION: AtomicI32 = AtomicI32::new(1);

pub(crate) async fn fetch(client: &Client, call: Call) -> Result<Option<Answer>, KafkaError> {
    let request = call.own(Request::read)?;
    let limits = Limits::of(client, &request);
    let isolation = match request.read_committed {
        true => Isolation::ReadCommitted,
        false => Isolation::ReadUncommitted,
    };
    // Requests of a connection are answered one at a time, so nobody misses it meanwhile.
    let mut session = client.fetch_session.lock().take();
    let reads = fetch_session::take(&mut session, request, || {
        NEXT_SESSION
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| {
                Some(id.checked_add(1).unwrap_or(1))
            })
            .unwrap_or(1)
    });
    let Reads {
        partitions,
        session_id,
        incremental,
    } = match reads {
        Ok(reads) => reads,
        Err(error) => {
            *client.fetch_session.lock() = session;
            let response = Response {
                error_code: error.code(),
                session_id: 0,
                topics: Vec::new(),
            };
            return call
                .own_answer(|writer, version| response.write(writer, version))
                .map(Some);
        }
    };
    let mut round = Round::new(client, partitions, limits, isolation);
    round.run().await;
    let mut topics: Vec<TopicResult> = Vec::new();
    let room = round.take_room();
    for reading in round.readings {
        let result = reading.result(isolation);
        let key = reading.key;
        if let Some(session) = session.as_mut().filter(|_| session_id != 0) {
            let is_new = session.tell(&key, &result);
            if incremental && !is_new {
                continue;
            }
        }
        match topics.last_mut().filter(|last| last.topic == key.0) {
            Some(last) => last.partitions.push(result),
            None => topics.push(TopicResult {
                topic: key.0,
                partitions: vec![result],
            }),
        }
    }
    *client.fetch_session.lock() = session;
    let response = Response {
        error_code: 0,
        session_id,
        topics,
    };
    let answer = call.own_answer(|writer, version| response.write(writer, version))?;
    Ok(Some(Answer { room, ..answer }))
}

/// How much an answer is to have, and how long it is waited for.
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    until: Instant,
}

impl Limits {
    fn of(client: &Client, request: &Request) -> Limits {
        let positive = |value: i32| usize::try_from(value).unwrap_or(0);
        let max_bytes = positive(request.max_bytes).min(client.gateway.settings.max_fetch_bytes);
        let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0);
        Limits {
            min_bytes: positive(request.min_bytes).min(max_bytes),
            max_bytes,
            until: Instant::now() + Duration::from_millis(wait_ms).min(MOST_WAIT),
        }
    }
}

/// How far reading is in one partition.
struct Reading {
    key: Key,
    wanted: Partition,
    topic: Result<Arc<Topic>, Refusal>,
    next_offset: i64,
    batches: Vec<Bytes>,
    /// The aborted transactions among the batches: first offset and producer id of each.
    aborted: BTreeSet<(i64, i64)>,
    bytes: usize,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    error: Option<ResponseError>,
}

impl Reading {
    fn result(&self, isolation: Isolation) -> PartitionResult {
        PartitionResult {
            index: self.key.1,
            error_code: self.error.map_or(0, |error| error.code()),
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
            log_start: self.log_start,
            aborted: (isolation == Isolation::ReadCommitted)
                .then(|| self.aborted.iter().copied().collect()),
            records: self.batches.clone(),
        }
    }
}

/// The reading of one request, over all of its partitions.
struct Round<'a> {
    client: &'a Client,
    limits: Limits,
    isolation: Isolation,
    readings: Vec<Reading>,
    /// Partitions that may have something.
    ready: VecDeque<usize>,
    /// Partitions that were read to their end, waiting for data.
    waiting: FuturesUnordered<BoxFuture<'static, usize>>,
    bytes: usize,
    has_failed: bool,
    /// What the batches hold of the room for answers.
    room: Option<OwnedSemaphorePermit>,
}

impl<'a> Round<'a> {
    fn new(
        client: &'a Client,
        partitions: Vec<(Key, Partition)>,
        limits: Limits,
        isolation: Isolation,
    ) -> Round<'a> {
        let mut readings: Vec<Reading> = Vec::with_capacity(partitions.len());
        for (key, wanted) in partitions {
            let same = readings.last().filter(|last| last.key.0 == key.0);
            let topic = match same {
                Some(last) => last.topic.clone(),
                None => key.0.find(client),
            };
            readings.push(Reading {
                key,
                wanted,
                topic,
                next_offset: wanted.offset,
                batches: Vec::new(),
                aborted: BTreeSet::new(),
                bytes: 0,
                high_watermark: -1,
                last_stable: -1,
                log_start: -1,
                error: None,
            });
        }
        Round {
            client,
            limits,
            isolation,
            ready: (0..readings.len()).collect(),
            readings,
            waiting: FuturesUnordered::new(),
            bytes: 0,
            has_failed: false,
            room: None,
        }
    }

    /// Reads until there is enough, something failed, or the time is over.
    async fn run(&mut self) {
        loop {
            self.read_ready();
            let is_enough = self.bytes >= self.limits.min_bytes || self.has_failed;
            if is_enough || self.waiting.is_empty() || Instant::now() >= self.limits.until {
                return;
            }
            tokio::select! {
                Some(index) = self.waiting.next() => {
                    self.ready.push_back(index);
                    while let Some(Some(index)) = self.waiting.next().now_or_never() {
                        self.ready.push_back(index);
                    }
                }
                () = tokio::time::sleep_until(self.limits.until) => return,
                () = self.client.ended() => return,
            }
        }
    }

    fn read_ready(&mut self) {
        let gateway = &self.client.gateway;
        if self.room.is_none() {
            self.room = gateway.room_for_answer(self.limits.max_bytes);
        }
        let budget = match &self.room {
            Some(room) => room.num_permits(),
            None => LEAST_BYTES,
        };
        while let Some(index) = self.ready.pop_front() {
            self.read(index, budget);
        }
        if self.bytes == 0 {
            self.room = None;
        }
    }

    /// What the answer holds of the room, and no more.
    fn take_room(&mut self) -> Option<OwnedSemaphorePermit> {
        let mut room = self.room.take()?;
        let used = self.bytes.min(room.num_permits());
        room.split(used)
    }

    /// Reads on in one partition.
    fn read(&mut self, index: usize, budget: usize) {
        let Some(reading) = self.readings.get_mut(index) else {
            return;
        };
        if internal_topics::find(&reading.key.0).is_some() {
            match reading.find_empty() {
                // Nothing ever comes.
                Ok(()) => self.waiting.push(futures::future::pending().boxed()),
                Err(error) => {
                    reading.error = Some(error);
                    self.has_failed = true;
                }
            }
            return;
        }
        let before = reading.bytes;
        match reading.read_on(self.client, self.isolation, self.bytes, budget) {
            Ok(Some(waiter)) => self.waiting.push(waiter.map(move |()| index).boxed()),
            Ok(None) => {}
            Err(error) => {
                reading.error = Some(error);
                self.has_failed = true;
            }
        }
        self.bytes += reading.bytes - before;
    }
}

impl Reading {
    /// An internal topic has partitions without records.
    fn find_empty(&mut self) -> Result<(), ResponseError> {
        if !InternalTopic::has(self.key.1) {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        (self.high_watermark, self.last_stable, self.log_start) = (0, 0, 0);
        match self.wanted.offset {
            0 => Ok(()),
            _ => Err(ResponseError::OffsetOutOfRange),
        }
    }

    /// Reads what fits. What comes back waits for more, if more would fit.
    fn read_on(
        &mut self,
        client: &Client,
        isolation: Isolation,
        taken: usize,
        budget: usize,
    ) -> Result<Option<Waiter>, ResponseError> {
        let topic = self.topic.clone().map_err(|refusal| refusal.error)?;
        let failed = |error: BrokerError| Refusal::from(error).error;
        let partition = partition_number(self.key.1).map_err(|refusal| refusal.error)?;
        if self.wanted.leader_epoch > LEADER_EPOCH {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        let (broker, caller) = (client.broker(), &client.caller);
        // Beyond half of the answer's size a further partition may exceed it: its batches are at least one.
        let is_full = taken > budget / 2;
        let most = usize::try_from(self.wanted.max_bytes).unwrap_or(0);
        let left = most.saturating_sub(self.bytes);
        if is_full || (left == 0 && self.bytes > 0) {
            if self.high_watermark < 0 {
                let bounds = broker
                    .bounds_in(caller, &topic, partition)
                    .map_err(failed)?;
                self.high_watermark = bounds.high_watermark;
                self.last_stable = bounds.last_stable;
                self.log_start = bounds.log_start;
            }
            return Ok(None);
        }
        let max_bytes = left.min(budget - taken);
        let fetched = broker
            .fetch_from(
                caller,
                &topic,
                partition,
                self.next_offset,
                max_bytes,
                isolation,
            )
            .map_err(failed)?;
        self.high_watermark = fetched.high_watermark;
        self.last_stable = fetched.last_stable;
        self.log_start = fetched.log_start;
        self.next_offset = fetched.next_offset;
        self.bytes += fetched.batches.iter().map(Bytes::len).sum::<usize>();
        self.batches.extend(fetched.batches);
        // One that goes on beyond what was read at first is named again.
        let aborted = fetched.aborted.iter();
        self.aborted
            .extend(aborted.map(|one| (one.first_offset, one.producer_id)));
        let waiter = broker.wait_for_data(caller, &topic, partition, self.next_offset, isolation);
        waiter.map(Some).map_err(failed)
    }
}
