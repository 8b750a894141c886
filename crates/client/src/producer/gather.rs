//! Where records gather into batches until they are sent. Pure: no I/O, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mainstem_record::{BATCH_HEADER_BYTES, BatchBuilder, Compression, RecordError};

use super::ProducerRecord;
use super::delivery::{Delivery, Outcome};
use crate::ClientError;

/// A partition: the topic's number in this producer, and the partition's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) topic: u32,
    pub(crate) partition: u32,
}

/// What limits gathering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) compression: Compression,
    pub(crate) max_batch_bytes: usize,
    /// A record that does not fit into a batch may still travel alone, up to this size.
    pub(crate) max_record_bytes: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) linger_ms: u64,
    pub(crate) delivery_timeout_ms: u64,
}

/// A batch that gathers, or waits to be sent.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) builder: BatchBuilder,
    pub(crate) outcome: Arc<Outcome>,
    /// When its first record came, in milliseconds.
    pub(crate) since_ms: u64,
    /// What its records count against the buffer.
    pub(crate) buffered_bytes: usize,
    /// Which flush it belongs to.
    pub(crate) epoch: u64,
    full: bool,
}

/// Batches by partition, in the order in which partitions got something to send.
#[derive(Debug)]
pub(crate) struct Gather {
    limits: Limits,
    lanes: BTreeMap<Lane, VecDeque<Gathered>>,
    /// Partitions that have something, once each.
    order: VecDeque<Lane>,
    /// Bytes of all batches here.
    bytes: usize,
    /// Batches that will not grow.
    full: usize,
    /// Batches not yet settled, by the flush they belong to: gathering here, or under way elsewhere.
    unsettled: BTreeMap<u64, usize>,
    epoch: u64,
}

impl Gather {
    pub(crate) fn new(limits: Limits) -> Gather {
        Gather {
            limits,
            lanes: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            full: 0,
            unsettled: BTreeMap::new(),
            epoch: 0,
        }
    }

    /// Adds a record. The second value says whether the sender should look.
    pub(crate) fn append(
        &mut self,
        lane: Lane,
        record: &ProducerRecord,
        timestamp_ms: i64,
        buffered_bytes: usize,
        now_ms: u64,
    ) -> Result<(Delivery, bool), ClientError> {
        let headers: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let append = |builder: &mut BatchBuilder| {
            builder.append(
                timestamp_ms,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
        };
        let (was_empty, was_plenty) = (self.order.is_empty(), self.is_plenty());
        let batches = self.lanes.entry(lane).or_default();
        let last = batches.back_mut().filter(|last| !last.full);
        if let Some(last) = last {
            let before = last.builder.len_bytes();
            match append(&mut last.builder) {
                Ok(()) => {
                    self.bytes += last.builder.len_bytes() - before;
                    last.buffered_bytes += buffered_bytes;
                    let index = i64::from(last.builder.record_count()) - 1;
                    return Ok((
                        Delivery::new(last.outcome.clone(), lane.partition, index),
                        false,
                    ));
                }
                Err(RecordError::Full { .. } | RecordError::RecordTooLarge { .. }) => {
                    last.full = true;
                    self.full += 1;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        let mut builder = BatchBuilder::new(self.limits.compression, self.limits.max_batch_bytes);
        let mut full = false;
        match append(&mut builder) {
            Ok(()) => {}
            Err(RecordError::Full { .. } | RecordError::RecordTooLarge { .. }) => {
                builder = BatchBuilder::new(self.limits.compression, self.limits.max_record_bytes);
                append(&mut builder).map_err(refused)?;
                full = true;
            }
            Err(error) => return Err(refused(error)),
        }
        self.full += usize::from(full);
        self.bytes += builder.len_bytes();
        *self.unsettled.entry(self.epoch).or_default() += 1;
        let outcome = Arc::new(Outcome::default());
        let delivery = Delivery::new(outcome.clone(), lane.partition, 0);
        let first = batches.is_empty();
        batches.push_back(Gathered {
            builder,
            outcome,
            since_ms: now_ms,
            buffered_bytes,
            epoch: self.epoch,
            full,
        });
        if first {
            self.order.push_back(lane);
        }
        Ok((delivery, was_empty || (!was_plenty && self.is_plenty())))
    }

    /// Whether there is enough for a request even while others are under way.
    pub(crate) fn is_plenty(&self) -> bool {
        self.full > 0 || self.bytes >= self.limits.max_request_bytes
    }

    /// Whether nothing waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes what goes into one request: at most one batch of each partition that `allowed` lets pass, about
    /// `max_request_bytes` in all and at least one batch.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        mut allowed: impl FnMut(Lane) -> bool,
    ) -> Vec<(Lane, Gathered)> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for _ in 0..self.order.len() {
            let Some(lane) = self.order.pop_front() else {
                break;
            };
            let Some(batches) = self.lanes.get_mut(&lane) else {
                continue;
            };
            let lingers = |batch: &Gathered| {
                !batch.full
                    && batch.epoch == self.epoch
                    && batch.since_ms + self.limits.linger_ms > now_ms
            };
            let size = match batches.front() {
                Some(batch) if !lingers(batch) => batch.builder.len_bytes(),
                Some(_) => {
                    self.order.push_back(lane);
                    continue;
                }
                None => continue,
            };
            if !taken.is_empty() && bytes + size > self.limits.max_request_bytes {
                // In front: it is the first of the next request.
                self.order.push_front(lane);
                break;
            }
            if !allowed(lane) {
                self.order.push_back(lane);
                continue;
            }
            if let Some(batch) = batches.pop_front() {
                bytes += size;
                self.bytes -= size;
                self.full -= usize::from(batch.full);
                taken.push((lane, batch));
            }
            if !batches.is_empty() {
                self.order.push_back(lane);
            }
        }
        taken
    }

    /// Takes what has waited here beyond the delivery timeout.
    pub(crate) fn expired(&mut self, now_ms: u64) -> Vec<Gathered> {
        let timeout_ms = self.limits.delivery_timeout_ms;
        self.take_while(|batch| batch.since_ms + timeout_ms <= now_ms)
    }

    /// Takes everything.
    pub(crate) fn drain(&mut self) -> Vec<Gathered> {
        self.take_while(|_| true)
    }

    fn take_while(&mut self, is_taken: impl Fn(&Gathered) -> bool) -> Vec<Gathered> {
        let mut taken = Vec::new();
        let lanes = &mut self.lanes;
        self.order.retain(|lane| {
            let Some(batches) = lanes.get_mut(lane) else {
                return false;
            };
            while let Some(batch) = batches.pop_front_if(|batch| is_taken(batch)) {
                taken.push(batch);
            }
            !batches.is_empty()
        });
        for batch in &taken {
            self.bytes -= batch.builder.len_bytes();
            self.full -= usize::from(batch.full);
        }
        taken
    }

    /// When the first batch that lingers is due; `None` where nothing does.
    pub(crate) fn next_linger_ms(&self) -> Option<u64> {
        // Not even looked for without a linger: this is asked after every answer.
        let linger_ms = Some(self.limits.linger_ms).filter(|linger_ms| *linger_ms > 0)?;
        let fronts = self
            .order
            .iter()
            .filter_map(|lane| self.lanes.get(lane)?.front());
        let lingering = fronts.filter(|batch| !batch.full && batch.epoch == self.epoch);
        lingering.map(|batch| batch.since_ms + linger_ms).min()
    }

    /// Begins a flush: what is here does not linger. Returns the flush's number, for [`is_flushed`](Self::is_flushed).
    pub(crate) fn flush(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Whether every batch that was begun before that flush is settled.
    pub(crate) fn is_flushed(&self, epoch: u64) -> bool {
        self.unsettled
            .first_key_value()
            .is_none_or(|(first, _)| *first >= epoch)
    }

    /// A batch of this flush has its outcome.
    pub(crate) fn settled(&mut self, epoch: u64) {
        if let Some(count) = self.unsettled.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                self.unsettled.remove(&epoch);
            }
        }
    }
}

fn refused(error: RecordError) -> ClientError {
    match error {
        RecordError::RecordTooLarge {
            record_bytes,
            max_bytes,
        } => ClientError::RecordTooLarge {
            record_bytes: record_bytes - BATCH_HEADER_BYTES.min(record_bytes),
            limit_bytes: max_bytes,
        },
        other => ClientError::protocol(other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        compression: Compression::None,
        max_batch_bytes: 1_000,
        max_record_bytes: 5_000,
        max_request_bytes: 2_500,
        linger_ms: 0,
        delivery_timeout_ms: 1_000,
    };

    fn lane(partition: u32) -> Lane {
        Lane {
            topic: 0,
            partition,
        }
    }

    fn add(gather: &mut Gather, partition: u32, bytes: usize, now_ms: u64) -> bool {
        let record = ProducerRecord::new("t").value(vec![b'x'; bytes]);
        gather
            .append(lane(partition), &record, 0, bytes, now_ms)
            .unwrap()
            .1
    }

    fn shape(taken: &[(Lane, Gathered)]) -> Vec<(u32, i32)> {
        taken
            .iter()
            .map(|(lane, batch)| (lane.partition, batch.builder.record_count()))
            .collect()
    }

    #[test]
    fn the_sender_is_woken_by_the_first_record_and_by_a_full_batch() {
        let mut gather = Gather::new(LIMITS);
        assert!(add(&mut gather, 0, 300, 0));
        assert!(!add(&mut gather, 0, 300, 0));
        assert!(!add(&mut gather, 1, 300, 0));
        assert!(!gather.is_plenty());
        assert!(!add(&mut gather, 0, 300, 0));
        assert!(add(&mut gather, 0, 300, 0));
        assert!(gather.is_plenty());
    }

    #[test]
    fn a_request_takes_one_batch_of_each_partition_in_the_order_of_their_first_records() {
        let mut gather = Gather::new(LIMITS);
        for partition in [2, 0, 2, 1, 2, 2, 2] {
            add(&mut gather, partition, 300, 0);
        }
        assert_eq!(shape(&gather.take(0, |_| true)), [(2, 3), (0, 1), (1, 1)]);
        assert_eq!(shape(&gather.take(0, |_| true)), [(2, 2)]);
        assert!(gather.is_empty());
        assert_eq!((gather.bytes, gather.full), (0, 0));
    }

    #[test]
    fn what_is_not_allowed_or_does_not_fit_stays() {
        let mut gather = Gather::new(LIMITS);
        for partition in 0..4 {
            add(&mut gather, partition, 900, 0);
        }
        assert_eq!(
            shape(&gather.take(0, |lane| lane.partition != 0)),
            [(1, 1), (2, 1)]
        );
        assert_eq!(shape(&gather.take(0, |_| true)), [(3, 1), (0, 1)]);
        assert!(gather.take(0, |_| true).is_empty());
    }

    #[test]
    fn a_large_record_travels_alone_and_one_too_large_not_at_all() {
        let mut gather = Gather::new(LIMITS);
        add(&mut gather, 0, 10, 0);
        add(&mut gather, 0, 4_000, 0);
        add(&mut gather, 0, 10, 0);
        let record = ProducerRecord::new("t").value(vec![b'x'; 6_000]);
        let refused = gather.append(lane(0), &record, 0, 6_000, 0).unwrap_err();
        assert_eq!(refused.code(), "record_too_large");
        let batches: Vec<_> = (0..3)
            .flat_map(|_| shape(&gather.take(0, |_| true)))
            .collect();
        assert_eq!(batches, [(0, 1), (0, 1), (0, 1)]);
    }

    #[test]
    fn a_batch_lingers_unless_it_is_full_or_flushed() {
        let mut gather = Gather::new(Limits {
            linger_ms: 10,
            ..LIMITS
        });
        add(&mut gather, 0, 300, 5);
        assert!(gather.take(14, |_| true).is_empty());
        assert_eq!(gather.next_linger_ms(), Some(15));
        assert_eq!(shape(&gather.take(15, |_| true)), [(0, 1)]);
        add(&mut gather, 0, 300, 20);
        let flush = gather.flush();
        assert_eq!(shape(&gather.take(20, |_| true)), [(0, 1)]);
        assert!(!gather.is_flushed(flush));
        gather.settled(0);
        gather.settled(0);
        assert!(gather.is_flushed(flush));
    }

    #[test]
    fn what_was_never_sent_expires() {
        let mut gather = Gather::new(LIMITS);
        add(&mut gather, 0, 900, 0);
        add(&mut gather, 0, 900, 500);
        add(&mut gather, 1, 900, 500);
        assert_eq!(gather.next_linger_ms(), None);
        assert_eq!(gather.expired(999).len(), 0);
        assert_eq!(gather.expired(1_000).len(), 1);
        assert_eq!(gather.expired(1_500).len(), 2);
        assert!(gather.is_empty());
        assert_eq!((gather.bytes, gather.full), (0, 0));
    }
}
