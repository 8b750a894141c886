//! What is under way: stamped batches in the order of their sequences, until each has its outcome. Pure: no I/O, no clock.
//!
//! The rules that keep a record from being written twice, or out of order:
//!
//! - A batch is stamped (producer id, epoch, sequence) once, when it is first sent; a retry is the same bytes.
//! - A partition's batches go out in the order of their sequences, at most [`MAX_IN_FLIGHT`] unanswered: as many as the
//!   server remembers.
//! - After a refusal that may pass, nothing new is sent to the partition until all that is under way there is answered:
//!   what followed the refused batch is refused too (its sequence does not follow), and then all of it goes out again, in
//!   order.
//! - A batch that is refused for good leaves a hole in the sequence: what follows is refused as out of order, which proves
//!   that it is not stored, and only then stamped anew, with the sequence of the hole or under a new producer id. A batch
//!   whose outcome nobody knows goes out under its old stamp until its outcome is known.
//! - A batch whose time is up counts as unknown, unless it was never sent; the answer that is still due to it is awaited,
//!   so that later ones are not taken for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mainstem_proto::v1::{self, partition_result};
use mainstem_record::{Batch, BatchBuilder, Compression, RecordError};

use super::delivery::Outcome;
use super::gather::{Gathered, Lane};
use crate::ClientError;

/// Batches of one partition under way at most: the number that the server remembers of each producer.
pub(crate) const MAX_IN_FLIGHT: usize = 5;

/// A producer's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// A batch with its sequence.
#[derive(Debug)]
struct Stamped {
    batch: Batch,
    outcome: Arc<Outcome>,
    since_ms: u64,
    buffered_bytes: usize,
    epoch: u64,
    /// Sent on the present connection, and not answered.
    sent: bool,
    /// Sent before, with an outcome that nobody knows.
    uncertain: bool,
    /// Settled by its timeout; kept only until its answer comes.
    abandoned: bool,
}

/// How a partition goes on once everything that is under way there is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It simply goes on.
    Go,
    /// All goes out again.
    Resend,
    /// All is stamped anew from this sequence, under the same identity.
    Restamp(i32),
    /// All is stamped anew from 0, under a new identity.
    Renew,
}

#[derive(Debug)]
struct Flight {
    identity: Identity,
    next_sequence: i32,
    batches: VecDeque<Stamped>,
    then: Then,
    /// The sequence that follows what was acknowledged. Where a batch does not begin with it, one before it was given up.
    expected: i32,
}

/// A batch that has its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// What to give back to the buffer.
    pub(crate) buffered_bytes: usize,
    /// Which flush it belonged to.
    pub(crate) epoch: u64,
}

/// Everything under way of one producer.
#[derive(Debug)]
pub(crate) struct Tracker {
    compression: Compression,
    max_record_bytes: usize,
    max_request_bytes: usize,
    delivery_timeout_ms: u64,
    topics: Vec<Arc<str>>,
    /// For partitions that begin, or begin anew.
    identity: Option<Identity>,
    flights: BTreeMap<Lane, Flight>,
    /// Partitions with batches that are stamped and not sent on this connection.
    to_send: BTreeSet<Lane>,
    /// Partitions that wait for a new identity.
    renew: BTreeSet<Lane>,
    /// Requests on the present connection that are not answered, in order.
    requests: VecDeque<(u64, Vec<Lane>)>,
    next_correlation_id: u64,
    /// Batches that have their outcome.
    settled: Vec<Settled>,
    /// The first failure since the last look.
    first_error: Option<ClientError>,
    /// The last failure that may pass: told when time is up.
    last_trouble: Option<Arc<ClientError>>,
    /// Whether an answer of late asked for patience.
    troubled: bool,
}

impl Tracker {
    pub(crate) fn new(limits: &super::gather::Limits) -> Tracker {
        Tracker {
            compression: limits.compression,
            max_record_bytes: limits.max_record_bytes,
            max_request_bytes: limits.max_request_bytes,
            delivery_timeout_ms: limits.delivery_timeout_ms,
            topics: Vec::new(),
            identity: None,
            flights: BTreeMap::new(),
            to_send: BTreeSet::new(),
            renew: BTreeSet::new(),
            requests: VecDeque::new(),
            next_correlation_id: 0,
            settled: Vec::new(),
            first_error: None,
            last_trouble: None,
            troubled: false,
        }
    }

    /// Whether the names of all topics up to this number are known.
    pub(crate) fn knows_topic(&self, number: u32) -> bool {
        (number as usize) < self.topics.len()
    }

    /// The names of the topics, by their numbers.
    pub(crate) fn set_topics(&mut self, topics: Vec<Arc<str>>) {
        self.topics = topics;
    }

    /// Whether a new identity is to be asked for.
    pub(crate) fn needs_identity(&self) -> bool {
        self.identity.is_none() || !self.renew.is_empty()
    }

    /// A new identity: for partitions that begin, and those that begin anew.
    pub(crate) fn identify(&mut self, identity: Identity) {
        self.identity = Some(identity);
        for lane in std::mem::take(&mut self.renew) {
            self.restamp(lane, identity, 0);
        }
    }

    /// Requests that are not answered.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.flights
            .values()
            .all(|flight| flight.batches.is_empty())
    }

    /// Whether a gathered batch of this partition may be stamped and sent now.
    pub(crate) fn allows(&self, lane: Lane) -> bool {
        !self.renew.contains(&lane)
            && !self.to_send.contains(&lane)
            && self.flights.get(&lane).is_none_or(|flight| {
                flight.then == Then::Go && flight.batches.len() < MAX_IN_FLIGHT
            })
    }

    /// Stamps a gathered batch: it waits to be sent.
    pub(crate) fn stamp(&mut self, lane: Lane, gathered: Gathered) {
        let Some(identity) = self.identity else {
            debug_assert!(false, "stamped before there was an identity");
            return;
        };
        let Gathered {
            mut builder,
            outcome,
            since_ms,
            buffered_bytes,
            epoch,
            ..
        } = gathered;
        let flight = self.flights.entry(lane).or_insert(Flight {
            identity,
            next_sequence: 0,
            batches: VecDeque::new(),
            then: Then::Go,
            expected: 0,
        });
        builder.producer(
            flight.identity.id,
            flight.identity.epoch,
            flight.next_sequence,
        );
        match builder.build() {
            Ok(batch) => {
                flight.next_sequence = after(batch.header().last_sequence());
                flight.batches.push_back(Stamped {
                    batch,
                    outcome,
                    since_ms,
                    buffered_bytes,
                    epoch,
                    sent: false,
                    uncertain: false,
                    abandoned: false,
                });
                self.to_send.insert(lane);
            }
            Err(error) => {
                let error = ClientError::protocol(error.to_string());
                self.first_error.get_or_insert_with(|| error.clone());
                outcome.settle(Err(error));
                self.settled.push(Settled {
                    buffered_bytes,
                    epoch,
                });
            }
        }
    }

    /// The next request: one batch of each partition that has one to send.
    pub(crate) fn request(&mut self) -> Option<v1::ProduceRequest> {
        let mut batches = Vec::new();
        let mut lanes = Vec::new();
        let mut bytes = 0;
        let mut still = BTreeSet::new();
        for lane in std::mem::take(&mut self.to_send) {
            // One that is not to go on comes back in `go_on`.
            let Some(flight) = self
                .flights
                .get_mut(&lane)
                .filter(|flight| flight.then == Then::Go)
            else {
                continue;
            };
            let mut waiting = flight
                .batches
                .iter_mut()
                .filter(|batch| !batch.sent && !batch.abandoned);
            let Some(batch) = waiting.next() else {
                continue;
            };
            let size = batch.batch.bytes().len();
            if !lanes.is_empty() && bytes + size > self.max_request_bytes {
                still.insert(lane);
                continue;
            }
            batch.sent = true;
            bytes += size;
            lanes.push(lane);
            batches.push(v1::PartitionBatch {
                topic: self
                    .topics
                    .get(lane.topic as usize)
                    .map(|topic| topic.to_string())
                    .unwrap_or_default(),
                partition: lane.partition,
                batch: batch.batch.bytes().clone(),
            });
            if waiting.next().is_some() {
                still.insert(lane);
            }
        }
        self.to_send = still;
        if batches.is_empty() {
            return None;
        }
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.requests.push_back((correlation_id, lanes));
        Some(v1::ProduceRequest {
            correlation_id,
            batches,
        })
    }

    /// Takes the answer to the oldest request.
    pub(crate) fn answer(&mut self, answer: v1::ProduceResponse) -> Result<(), ClientError> {
        let Some((correlation_id, lanes)) = self.requests.pop_front() else {
            return Err(ClientError::protocol("an answer to no request"));
        };
        if answer.correlation_id != correlation_id || answer.results.len() != lanes.len() {
            return Err(ClientError::protocol(format!(
                "answer {} to request {correlation_id}",
                answer.correlation_id
            )));
        }
        for (lane, result) in lanes.into_iter().zip(answer.results) {
            let result = match result.result {
                Some(partition_result::Result::Produced(produced)) => Ok(produced),
                Some(partition_result::Result::Error(error)) => {
                    Err(ClientError::from_refusal(error))
                }
                None => return Err(ClientError::protocol("a result that says nothing")),
            };
            self.result(lane, result);
        }
        Ok(())
    }

    fn result(&mut self, lane: Lane, result: Result<v1::Produced, ClientError>) {
        let Some(flight) = self.flights.get_mut(&lane) else {
            return;
        };
        let Some(at) = flight.batches.iter().position(|batch| batch.sent) else {
            return;
        };
        let Some(batch) = flight.batches.get_mut(at) else {
            return;
        };
        batch.sent = false;
        let (first, last) = (
            batch.batch.header().base_sequence,
            batch.batch.header().last_sequence(),
        );
        let result = match result {
            // Only what may have been stored by an earlier attempt has a duplicate; anything else is not this batch.
            Ok(produced) if produced.duplicate && !batch.uncertain => Err(ClientError::protocol(
                "the server holds other records under this batch's sequence",
            )),
            other => other.map(|produced| produced.base_offset),
        };
        let verdict = match &result {
            Ok(_) => Verdict::Stored,
            // Nobody waits for it any more.
            Err(_) if batch.abandoned => Verdict::Fail,
            Err(error) if error.code() == "duplicate_sequence" && batch.uncertain => {
                Verdict::Stored
            }
            Err(error) if error.code() == "out_of_order_sequence" => {
                let follows = at == 0 && flight.then == Then::Go && first == flight.expected;
                match (follows, batch.uncertain) {
                    // Something before it is not stored, so neither is it.
                    (false, _) => Verdict::NotStored,
                    // Nothing before it is missing, and still it does not follow: the server does not know the producer
                    // any more.
                    (true, false) => Verdict::NotStored,
                    (true, true) => Verdict::Fail,
                }
            }
            // What was under way when writes stopped may be stored or not.
            Err(error) if matches!(error.code(), "writes_stopped" | "closed") => {
                Verdict::Resend { uncertain: true }
            }
            Err(error) if error.is_retriable() => Verdict::Resend { uncertain: false },
            Err(_) => Verdict::Fail,
        };
        match verdict {
            Verdict::Stored => {
                flight.expected = after(last);
                self.settle(lane, at, Ok(result.unwrap_or(-1)));
            }
            Verdict::NotStored => {
                batch.uncertain = false;
                if flight.then == Then::Go {
                    flight.then = Then::Renew;
                }
            }
            Verdict::Resend { uncertain } => {
                batch.uncertain |= uncertain;
                if flight.then == Then::Go {
                    flight.then = Then::Resend;
                }
                self.troubled = true;
                self.last_trouble = result.err().map(Arc::new);
            }
            Verdict::Fail => {
                let certain = at == 0 && !batch.uncertain && !batch.abandoned;
                flight.then = match flight.then {
                    Then::Go if certain => Then::Restamp(first),
                    Then::Restamp(hole) if certain => Then::Restamp(hole),
                    _ => Then::Renew,
                };
                let error = result.err().unwrap_or(ClientError::Closed);
                self.settle(lane, at, Err(error));
            }
        }
        self.go_on(lane);
    }

    /// Removes a batch that has its outcome.
    fn settle(&mut self, lane: Lane, at: usize, result: Result<i64, ClientError>) {
        let Some(batch) = self
            .flights
            .get_mut(&lane)
            .and_then(|flight| flight.batches.remove(at))
        else {
            return;
        };
        if batch.abandoned {
            return;
        }
        if let Err(error) = &result {
            self.first_error.get_or_insert_with(|| error.clone());
        }
        batch.outcome.settle(result);
        self.settled.push(Settled {
            buffered_bytes: batch.buffered_bytes,
            epoch: batch.epoch,
        });
    }

    /// Where nothing of a partition is under way any more, does what was put off until then.
    fn go_on(&mut self, lane: Lane) {
        let Some(flight) = self.flights.get_mut(&lane) else {
            return;
        };
        if flight.then == Then::Go || flight.batches.iter().any(|batch| batch.sent) {
            return;
        }
        let then = std::mem::replace(&mut flight.then, Then::Go);
        let uncertain = flight.batches.iter().any(|batch| batch.uncertain);
        let identity = flight.identity;
        match then {
            // First it must be known what is stored: only then may anything be stamped anew.
            Then::Restamp(_) | Then::Renew if uncertain => {
                self.to_send.insert(lane);
            }
            Then::Resend => {
                self.to_send.insert(lane);
            }
            Then::Go => {}
            Then::Restamp(sequence) => self.restamp(lane, identity, sequence),
            Then::Renew => {
                self.to_send.remove(&lane);
                self.renew.insert(lane);
            }
        }
    }

    /// Stamps everything of a partition anew.
    fn restamp(&mut self, lane: Lane, identity: Identity, first_sequence: i32) {
        let Some(flight) = self.flights.get_mut(&lane) else {
            return;
        };
        flight.identity = identity;
        flight.next_sequence = first_sequence;
        flight.expected = first_sequence;
        let mut broken = Vec::new();
        for (at, batch) in flight.batches.iter_mut().enumerate() {
            match rebuild(
                &batch.batch,
                self.compression,
                self.max_record_bytes,
                identity,
                flight.next_sequence,
            ) {
                Ok(rebuilt) => {
                    flight.next_sequence = after(rebuilt.header().last_sequence());
                    batch.batch = rebuilt;
                }
                Err(error) => broken.push((at, ClientError::protocol(error.to_string()))),
            }
        }
        if flight.batches.is_empty() {
            self.to_send.remove(&lane);
        } else {
            self.to_send.insert(lane);
        }
        for (at, error) in broken.into_iter().rev() {
            self.settle(lane, at, Err(error));
        }
    }

    /// The connection is gone: what was under way has an unknown outcome and is sent again.
    pub(crate) fn disconnected(&mut self) {
        self.requests.clear();
        let lanes: Vec<Lane> = self.flights.keys().copied().collect();
        for lane in lanes {
            let Some(flight) = self.flights.get_mut(&lane) else {
                continue;
            };
            flight.batches.retain(|batch| !batch.abandoned);
            for batch in &mut flight.batches {
                batch.uncertain |= batch.sent;
                batch.sent = false;
            }
            if flight.then == Then::Go && !flight.batches.is_empty() && !self.renew.contains(&lane)
            {
                flight.then = Then::Resend;
            }
            self.go_on(lane);
        }
    }

    /// Gives up what is not acknowledged in time.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let timeout_ms = self.delivery_timeout_ms;
        let last = self.last_trouble.clone();
        for flight in self.flights.values_mut() {
            for batch in &mut flight.batches {
                if batch.since_ms + timeout_ms > now_ms || batch.abandoned {
                    continue;
                }
                let error = if batch.sent || batch.uncertain {
                    ClientError::OutcomeUnknown {
                        timeout_ms,
                        last: last.clone(),
                    }
                } else {
                    ClientError::NotSent {
                        timeout_ms,
                        last: last.clone(),
                    }
                };
                batch.abandoned = true;
                self.first_error.get_or_insert_with(|| error.clone());
                batch.outcome.settle(Err(error));
                self.settled.push(Settled {
                    buffered_bytes: batch.buffered_bytes,
                    epoch: batch.epoch,
                });
            }
            // The hole that this leaves shows in the next batch's sequence.
            flight
                .batches
                .retain(|batch| !batch.abandoned || batch.sent);
        }
    }

    /// Fails everything that is under way.
    pub(crate) fn fail_all(&mut self, error: &ClientError) {
        let lanes: Vec<Lane> = self.flights.keys().copied().collect();
        for lane in lanes {
            while self
                .flights
                .get(&lane)
                .is_some_and(|flight| !flight.batches.is_empty())
            {
                self.settle(lane, 0, Err(error.clone()));
            }
        }
        self.flights.clear();
        self.to_send.clear();
        self.renew.clear();
        self.requests.clear();
        // What was under way may arrive after all: never again under these sequences.
        self.identity = None;
    }

    /// Batches that have their outcome since the last call.
    pub(crate) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// The first failure since the last call.
    pub(crate) fn take_first_error(&mut self) -> Option<ClientError> {
        self.first_error.take()
    }

    /// Whether an answer since the last call asked for patience.
    pub(crate) fn take_troubled(&mut self) -> bool {
        std::mem::take(&mut self.troubled)
    }

    /// The failure of what was never sent.
    pub(crate) fn not_sent(&self) -> ClientError {
        ClientError::NotSent {
            timeout_ms: self.delivery_timeout_ms,
            last: self.last_trouble.clone(),
        }
    }

    /// Why things did not go on when they last did not.
    pub(crate) fn last_trouble(&self) -> Option<Arc<ClientError>> {
        self.last_trouble.clone()
    }

    /// Remembers why things do not go on.
    pub(crate) fn trouble(&mut self, error: ClientError) {
        self.last_trouble = Some(Arc::new(error));
    }
}

/// What an answer means for its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is stored, now or by an earlier attempt.
    Stored,
    /// It is not stored, because what is before it is not.
    NotStored,
    /// It is to be sent again.
    Resend { uncertain: bool },
    /// It has failed.
    Fail,
}

/// The sequence after this one; they begin again at 0 after `i32::MAX`.
fn after(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

/// The same records with another stamp.
fn rebuild(
    batch: &Batch,
    compression: Compression,
    max_bytes: usize,
    identity: Identity,
    sequence: i32,
) -> Result<Batch, RecordError> {
    let mut builder = BatchBuilder::new(
        compression,
        max_bytes.max(batch.bytes().len()).saturating_mul(2),
    );
    builder.producer(identity.id, identity.epoch, sequence);
    for record in batch.records()? {
        let record = record?;
        let names: Vec<String> = record
            .headers
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect();
        let headers: Vec<(&str, Option<&[u8]>)> = names
            .iter()
            .zip(&record.headers)
            .map(|(name, (_, value))| (name.as_str(), value.as_deref()))
            .collect();
        builder.append(
            record.timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        )?;
    }
    builder.build()
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
