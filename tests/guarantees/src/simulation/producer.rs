//! An idempotent producer that loses patience: it may send again what it has not had an answer for, while the first
//! attempt is still on its way, and after every crash it must.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use mainstem_broker::{Broker, BrokerError, ProduceBatch, Produced, ProducerIdentity};
use mainstem_engine::testing::poll_once;
use mainstem_record::{BatchBuilder, Compression};
use rand::Rng;
use rand::rngs::SmallRng;

use super::handler::{INPUT, is_going_down};
use super::node::caller;
use crate::recount::{POISON, Pair};
use crate::{Failure, ensure};

const KEYS: u32 = 12;

type Answer = Result<Vec<Result<Produced, BrokerError>>, BrokerError>;

pub(super) struct Producer {
    number: usize,
    identity: ProducerIdentity,
    partitions: u32,
    next_sequence: BTreeMap<u32, i32>,
    /// Sent and not acknowledged: sent again, unchanged, until it is.
    pending: Vec<Pending>,
    call: Option<Pin<Box<dyn Future<Output = Answer>>>>,
    sent: u64,
}

struct Pending {
    partition: u32,
    sequence: i32,
    records: Vec<Pair>,
}

/// What has been acknowledged: partition, first offset, records.
pub(super) type Acknowledged = Vec<(u32, i64, Vec<Pair>)>;

impl Producer {
    pub(super) fn new(number: usize, identity: ProducerIdentity, partitions: u32) -> Producer {
        Producer {
            number,
            identity,
            partitions,
            next_sequence: BTreeMap::new(),
            pending: Vec::new(),
            call: None,
            sent: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The node is gone, and the call with it.
    pub(super) fn disconnect(&mut self) {
        self.call = None;
    }

    /// Makes one move; says what was acknowledged by it.
    pub(super) fn turn(
        &mut self,
        broker: &Broker,
        rng: &mut SmallRng,
        stopping: bool,
        now_ms: i64,
    ) -> Result<Acknowledged, Failure> {
        if let Some(call) = &mut self.call {
            return match poll_once(call.as_mut()) {
                Poll::Ready(answer) => {
                    self.call = None;
                    self.answered(answer)
                }
                Poll::Pending => {
                    if rng.random_bool(0.1) {
                        self.call = None;
                    }
                    Ok(Vec::new())
                }
            };
        }
        if self.pending.is_empty() && !stopping {
            self.make(rng);
        }
        if !self.pending.is_empty() {
            let batches = self
                .pending
                .iter()
                .map(|pending| self.batch(pending))
                .collect();
            let broker = broker.clone();
            let mut call: Pin<Box<dyn Future<Output = Answer>>> =
                Box::pin(async move { broker.produce(&caller(), batches, now_ms).await });
            // Sent at once: the first poll hands it over.
            match poll_once(call.as_mut()) {
                Poll::Ready(answer) => return self.answered(answer),
                Poll::Pending => self.call = Some(call),
            }
        }
        Ok(Vec::new())
    }

    fn make(&mut self, rng: &mut SmallRng) {
        let first = rng.random_range(0..self.partitions);
        for step in 0..rng.random_range(1..=self.partitions.min(3)) {
            let partition = (first + step) % self.partitions;
            let count = rng.random_range(1..12);
            let records = (0..count).map(|_| self.record(rng)).collect();
            let sequence = self.next_sequence.entry(partition).or_default();
            self.pending.push(Pending {
                partition,
                sequence: *sequence,
                records,
            });
            *sequence += count;
        }
    }

    /// A record whose value is like no other.
    fn record(&mut self, rng: &mut SmallRng) -> Pair {
        self.sent += 1;
        let kind = if rng.random_bool(0.003) {
            POISON
        } else {
            "event"
        };
        let size = if rng.random_bool(0.01) {
            rng.random_range(500..4_000)
        } else {
            rng.random_range(0..40)
        };
        let key = format!("k{}", rng.random_range(0..KEYS));
        (
            key,
            format!("{kind}:{}:{}:{}", self.number, self.sent, "x".repeat(size)),
        )
    }

    fn batch(&self, pending: &Pending) -> ProduceBatch {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        builder.producer(self.identity.id, self.identity.epoch, pending.sequence);
        for (key, value) in &pending.records {
            builder
                .append(1, Some(key.as_bytes()), Some(value.as_bytes()), &[])
                .expect("it fits");
        }
        let batch = builder.build().expect("it has records");
        ProduceBatch {
            topic: INPUT.into(),
            partition: pending.partition,
            batch,
        }
    }

    fn answered(&mut self, answer: Answer) -> Result<Acknowledged, Failure> {
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(error) if unknown(&error) => return Ok(Vec::new()),
            Err(error) => {
                return Err(Failure::new(format!(
                    "producer {}: refused: {error}",
                    self.number
                )));
            }
        };
        ensure!(
            outcomes.len() == self.pending.len(),
            "an answer of the wrong length"
        );
        let mut acknowledged = Vec::new();
        let mut left = Vec::new();
        for (pending, outcome) in std::mem::take(&mut self.pending).into_iter().zip(outcomes) {
            match outcome {
                Ok(produced) => {
                    let count = produced.last_offset - produced.base_offset + 1;
                    ensure!(
                        count == pending.records.len() as i64,
                        "an acknowledgement of {count} records"
                    );
                    acknowledged.push((pending.partition, produced.base_offset, pending.records));
                }
                Err(error) if unknown(&error) => left.push(pending),
                Err(error) => {
                    return Err(Failure::new(format!(
                        "producer {}, partition {}, sequence {}: refused: {error}",
                        self.number, pending.partition, pending.sequence
                    )));
                }
            }
        }
        self.pending = left;
        Ok(acknowledged)
    }
}

/// Whether nobody can tell if it was done.
fn unknown(error: &BrokerError) -> bool {
    match error {
        BrokerError::WritesStopped { .. } | BrokerError::Closed => true,
        BrokerError::Engine(error) => is_going_down(error),
        _ => false,
    }
}
