//! Fetch: batches go out as they stand in the log. Where there is not enough yet, it waits on the partitions themselves,
//! with one timer, and never asks again and again.
//!
//! What lies in memory is taken at once. From the first partition on whose records stand in a file, reading goes on beside
//! the network; what comes of it is stretches of files, which take no memory of their own, so an answer can be as large as
//! the client wants it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kafka_protocol::ResponseError;
use mainstem::beside;
use mainstem::broker::{BrokerError, Isolation, Piece, PieceLimits, Stopped, Topic, Waiter};
use mainstem_record::Compression;
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
/// The most that an answer has, whatever the client would take, beyond one whole batch: clients read an answer as a whole
/// before they look into it, and meanwhile nobody prepares the next.
const MOST_BYTES: usize = 16 << 20;
/// Where there is room for less than this, no file is looked into.
const LEAST_FROM_FILE: usize = 32 << 10;
/// The memory that an answer takes where the room for answers is full.
const LEAST_BYTES: usize = 64 << 10;
/// The epoch of every partition's leader: there is one node, and no other leader has ever been.
pub(crate) const LEADER_EPOCH: i32 = 0;
/// The first version whose clients may be given zstd (KIP-110).
const ZSTD: i16 = 10;

/// Session ids are unique among the connections of a process.
static NEXT_SESSION: AtomicI32 = AtomicI32::new(1);

pub(crate) async fn fetch(client: &Client, call: Call) -> Result<Option<Answer>, KafkaError> {
    let request = call.own(Request::read)?;
    let limits = Limits::of(client, &request, call.version);
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
    for mut reading in round.readings {
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
    /// Whether the client knows zstd.
    zstd: bool,
}

impl Limits {
    fn of(client: &Client, request: &Request, version: i16) -> Limits {
        let positive = |value: i32| usize::try_from(value).unwrap_or(0);
        let max_bytes = positive(request.max_bytes)
            .min(client.gateway.settings.max_fetch_bytes)
            .min(MOST_BYTES);
        let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0);
        Limits {
            min_bytes: positive(request.min_bytes).min(max_bytes),
            max_bytes,
            until: Instant::now() + Duration::from_millis(wait_ms).min(MOST_WAIT),
            zstd: version >= ZSTD,
        }
    }
}

impl Limits {
    /// Whose records are all in zstd is of no use to a client that does not know it.
    fn check(&self, topic: Arc<Topic>) -> Result<Arc<Topic>, Refusal> {
        match &topic.limits.codec {
            Some(codec) if codec.compression == Compression::Zstd && !self.zstd => {
                Err(Refusal::new(
                    ResponseError::UnsupportedCompressionType,
                    "zstd takes version 10 of Fetch; use a newer client",
                ))
            }
            _ => Ok(topic),
        }
    }
}

/// How far reading is in one partition.
struct Reading {
    key: Key,
    wanted: Partition,
    topic: Result<Arc<Topic>, Refusal>,
    next_offset: i64,
    batches: Vec<Piece>,
    /// The aborted transactions among the batches: first offset and producer id of each.
    aborted: BTreeSet<(i64, i64)>,
    bytes: usize,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    error: Option<ResponseError>,
}

impl Reading {
    /// What the client is told; the batches are given away.
    fn result(&mut self, isolation: Isolation) -> PartitionResult {
        PartitionResult {
            index: self.key.1,
            error_code: self.error.map_or(0, |error| error.code()),
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
            log_start: self.log_start,
            aborted: (isolation == Isolation::ReadCommitted)
                .then(|| self.aborted.iter().copied().collect()),
            records: std::mem::take(&mut self.batches),
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
    /// Partitions that were read to their end.
    at_end: Vec<usize>,
    /// Those of them that are waited for.
    waiting: FuturesUnordered<BoxFuture<'static, usize>>,
    taken: Taken,
    /// There is more than the answer takes.
    is_full: bool,
    has_failed: bool,
    /// The memory that the batches hold of the room for answers.
    room: Option<OwnedSemaphorePermit>,
}

/// What an answer has so far.
#[derive(Clone, Copy, Default)]
struct Taken {
    bytes: usize,
    memory_bytes: usize,
}

/// What of a partition there is to wait for.
enum Then {
    /// Its next record.
    Wait,
    /// Nothing: it gives no more to this answer.
    Done,
    /// Nothing: the answer has no room for what it has.
    Full,
    /// Its records stand in a file, which was not to be looked into.
    ReadFile,
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
                None => key.0.find(client).and_then(|topic| limits.check(topic)),
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
            at_end: Vec::new(),
            waiting: FuturesUnordered::new(),
            taken: Taken::default(),
            is_full: false,
            has_failed: false,
            room: None,
        }
    }

    /// Reads until there is enough, something failed, or the time is over.
    async fn run(&mut self) {
        loop {
            self.read_ready();
            let is_enough = self.taken.bytes >= self.limits.min_bytes || self.is_full;
            if is_enough || self.has_failed || Instant::now() >= self.limits.until {
                return;
            }
            self.wait_at_ends();
            if self.has_failed || self.waiting.is_empty() {
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
        if self.room.is_none() {
            let gateway = &self.client.gateway;
            self.room = gateway.room_for_answer(self.limits.max_bytes);
        }
        while let Some(index) = self.ready.pop_front() {
            if let Then::ReadFile = self.read(index, false) {
                // The others after it, in their order: whoever was read from memory now would be read first always.
                beside(|| {
                    self.read(index, true);
                    while let Some(index) = self.ready.pop_front() {
                        self.read(index, true);
                    }
                });
            }
        }
        if self.taken.memory_bytes == 0 {
            self.room = None;
        }
    }

    /// What the answer holds of the room, and no more.
    fn take_room(&mut self) -> Option<OwnedSemaphorePermit> {
        let mut room = self.room.take()?;
        let used = self.taken.memory_bytes.min(room.num_permits());
        room.split(used)
    }

    /// Reads on in one partition.
    fn read(&mut self, index: usize, files: bool) -> Then {
        let Some(reading) = self.readings.get_mut(index) else {
            return Then::Done;
        };
        let memory_bytes = match &self.room {
            Some(room) => room.num_permits(),
            None => LEAST_BYTES,
        };
        let left = self.limits.max_bytes.saturating_sub(self.taken.bytes);
        let is_first = self.taken.bytes == 0;
        let is_full = !is_first && left < LEAST_FROM_FILE;
        let limits = PieceLimits {
            max_bytes: left,
            max_memory_bytes: memory_bytes.saturating_sub(self.taken.memory_bytes),
            at_least_one: is_first,
            stable: self.isolation == Isolation::ReadCommitted,
            files: files && !is_full,
        };
        let read = match internal_topics::find(&reading.key.0) {
            Some(_) => reading.find_empty(),
            None => reading.read_on(self.client, limits, &mut self.taken),
        };
        match read {
            Ok(Then::Wait) => self.at_end.push(index),
            Ok(Then::Full) => self.is_full = true,
            Ok(Then::ReadFile) if is_full => self.is_full = true,
            Ok(then) => return then,
            Err(error) => {
                // A client leaves aside the records that come with an error, and would ask for the same again for ever. What
                // was found before it goes out by itself; the next request begins where it lies, and is told of it.
                if reading.bytes == 0 {
                    reading.error = Some(error);
                }
                self.has_failed = true;
            }
        }
        Then::Done
    }

    /// Begins to wait for those that were read to their end.
    fn wait_at_ends(&mut self) {
        for index in self.at_end.drain(..) {
            let Some(reading) = self.readings.get_mut(index) else {
                continue;
            };
            match reading.waiter(self.client, self.isolation) {
                Ok(Some(waiter)) => self.waiting.push(waiter.map(move |()| index).boxed()),
                // Nothing ever comes.
                Ok(None) => self.waiting.push(futures::future::pending().boxed()),
                Err(error) => {
                    reading.error = Some(error);
                    self.has_failed = true;
                }
            }
        }
    }
}

impl Reading {
    /// An internal topic has partitions without records.
    fn find_empty(&mut self) -> Result<Then, ResponseError> {
        if !InternalTopic::has(self.key.1) {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        (self.high_watermark, self.last_stable, self.log_start) = (0, 0, 0);
        match self.wanted.offset {
            0 => Ok(Then::Wait),
            _ => Err(ResponseError::OffsetOutOfRange),
        }
    }

    /// Resolves when there is more; none where nothing ever comes.
    fn waiter(
        &self,
        client: &Client,
        isolation: Isolation,
    ) -> Result<Option<Waiter>, ResponseError> {
        if internal_topics::find(&self.key.0).is_some() {
            return Ok(None);
        }
        let topic = self.topic.as_ref().map_err(|refusal| refusal.error)?;
        let partition = partition_number(self.key.1).map_err(|refusal| refusal.error)?;
        let (broker, caller) = (client.broker(), &client.caller);
        let waiter = broker.wait_for_data(caller, topic, partition, self.next_offset, isolation);
        waiter.map(Some).map_err(failed)
    }

    /// Reads what fits.
    fn read_on(
        &mut self,
        client: &Client,
        mut limits: PieceLimits,
        taken: &mut Taken,
    ) -> Result<Then, ResponseError> {
        let topic = self.topic.clone().map_err(|refusal| refusal.error)?;
        let partition = partition_number(self.key.1).map_err(|refusal| refusal.error)?;
        if self.wanted.leader_epoch > LEADER_EPOCH {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        let most = usize::try_from(self.wanted.max_bytes).unwrap_or(0);
        let left = most.saturating_sub(self.bytes);
        let is_last = left > limits.max_bytes.min(limits.max_memory_bytes);
        limits.max_bytes = limits.max_bytes.min(left);
        let (broker, caller) = (client.broker(), &client.caller);
        let fetched = broker
            .fetch_pieces(caller, &topic, partition, self.next_offset, &limits)
            .map_err(failed)?;
        self.high_watermark = fetched.high_watermark;
        self.last_stable = fetched.last_stable;
        self.log_start = fetched.log_start;
        self.next_offset = fetched.next_offset;
        let bytes: usize = fetched.pieces.iter().map(Piece::len).sum();
        let in_memory = fetched.pieces.iter().map(Piece::memory_bytes);
        taken.memory_bytes += in_memory.sum::<usize>();
        taken.bytes += bytes;
        self.bytes += bytes;
        self.batches.extend(fetched.pieces);
        // One that goes on beyond what was read at first is named again.
        let aborted = fetched.aborted.iter();
        self.aborted
            .extend(aborted.map(|one| (one.first_offset, one.producer_id)));
        Ok(match fetched.stopped {
            Stopped::AtFile => Then::ReadFile,
            // Nothing fits any more.
            Stopped::Full if bytes == 0 && is_last => Then::Full,
            Stopped::Full if bytes == 0 => Then::Done,
            Stopped::Full | Stopped::AtEnd => Then::Wait,
        })
    }
}

/// The code for what the broker says. Where damage lies there is room for in the server's log only.
fn failed(error: BrokerError) -> ResponseError {
    if error.code() == "damaged" {
        tracing::error!(%error, "records cannot be fetched");
        return ResponseError::CorruptMessage;
    }
    Refusal::from(error).error
}
