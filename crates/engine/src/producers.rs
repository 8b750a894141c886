//! What is remembered of idempotent producers: per partition and producer id, the epoch and the
//! last five batches (Kafka's rules, KIP-98 and KIP-360). It is all read off batch headers, so it
//! lives in memory, once for admission and once for the checkpoint, and is stored only with a checkpoint.
//!
//! Whoever is silent for long is forgotten, as in Kafka, or every id ever used would be kept. Silence is measured by the
//! time that the engine is told: the times in batches are the clients' own, and may be of any year. Each copy
//! forgets by itself, admission first: that the other still knows a producer, or again after a restart, does no harm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mainstem_log::{PartitionId, TopicId};
use mainstem_record::BatchHeader;

use crate::error::AppendError;
use crate::transactions::KnownProducer;

/// How many batches a retry may reach back.
const REMEMBERED_BATCHES: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) epoch: i16,
    pub(crate) batches: VecDeque<RememberedBatch>,
    /// The engine's time when it was last heard of; 0 where no time was known.
    pub(crate) last_seen_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RememberedBatch {
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Duplicate { base_offset: i64, last_offset: i64 },
    Refuse(AppendError),
}

/// All producers of all partitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    states: BTreeMap<(PartitionId, i64), ProducerState>,
    changed: BTreeSet<(PartitionId, i64)>,
    /// What the engine was last told; 0 until then.
    now_ms: i64,
    /// Where the search for those who are silent goes on.
    sweep_from: Option<(PartitionId, i64)>,
    /// Of producers that are not known on a partition: the batch that was refused, which must come first.
    refused: BTreeMap<(PartitionId, i64), Refused>,
}

/// A batch that was to be a producer's first on a partition.
#[derive(Clone, Copy, Debug)]
struct Refused {
    epoch: i16,
    base_sequence: i32,
}

const FIRST_PARTITION: PartitionId = PartitionId {
    topic: TopicId(0),
    index: 0,
};

/// Producers that are looked at in one go.
const SWEPT_AT_ONCE: usize = 1_000;
/// Refused first batches that are remembered.
const REFUSED_AT_MOST: usize = 100_000;

/// The sequence `count` after `sequence`; sequences wrap from `i32::MAX` to 0.
fn advance(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

impl Producers {
    /// Judges a batch against what is remembered; changes nothing.
    pub(crate) fn judge(&self, partition: PartitionId, header: &BatchHeader) -> Verdict {
        let producer_id = header.producer_id;
        if producer_id < 0 {
            return Verdict::Accept;
        }
        let got = header.base_sequence;
        let begins_at = |expected: i32| match got == 0 || got == expected {
            true => Verdict::Accept,
            false => Verdict::Refuse(AppendError::OutOfOrderSequence {
                producer_id,
                expected,
                got,
            }),
        };
        let key = (partition, producer_id);
        let Some(state) = self.states.get(&key) else {
            // It may begin anywhere, as in Kafka: it was silent for so long that it is forgotten, or the topic was made anew.
            // But not behind a batch that was refused a moment ago, and is sent again.
            return match self.refused.get(&key) {
                Some(refused) if header.producer_epoch <= refused.epoch => {
                    begins_at(refused.base_sequence)
                }
                Some(_) => begins_at(0),
                None => Verdict::Accept,
            };
        };
        if header.producer_epoch < state.epoch {
            return Verdict::Refuse(AppendError::InvalidProducerEpoch {
                producer_id,
                current: state.epoch,
                got: header.producer_epoch,
            });
        }
        if header.producer_epoch > state.epoch {
            return begins_at(0);
        }
        let last_sequence = advance(got, header.last_offset_delta);
        let seen = |batch: &&RememberedBatch| {
            batch.base_sequence == got && batch.last_sequence == last_sequence
        };
        if let Some(batch) = state.batches.iter().find(seen) {
            return Verdict::Duplicate {
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
            };
        }
        let expected = state
            .batches
            .back()
            .map_or(0, |batch| advance(batch.last_sequence, 1));
        if got == expected {
            return Verdict::Accept;
        }
        // Half the circle behind is a retry from long ago, half ahead is a gap. But where all that ever came is remembered,
        // what is not among it never came: it would be lost if it passed for a duplicate.
        let first = state.batches.front();
        let forgot_some = state.batches.len() == REMEMBERED_BATCHES
            || first.is_some_and(|first| first.base_sequence == 0);
        let behind = (i64::from(expected) - i64::from(got)).rem_euclid(i64::from(i32::MAX) + 1);
        if behind <= i64::from(i32::MAX) / 2 && forgot_some {
            Verdict::Refuse(AppendError::DuplicateSequence { producer_id, got })
        } else {
            Verdict::Refuse(AppendError::OutOfOrderSequence {
                producer_id,
                expected,
                got,
            })
        }
    }

    /// Remembers that a batch was refused: where its producer is not known, none behind it is taken in its place.
    pub(crate) fn refused(&mut self, partition: PartitionId, header: &BatchHeader) {
        let key = (partition, header.producer_id);
        if header.producer_id < 0 || self.states.contains_key(&key) {
            return;
        }
        let (epoch, base_sequence) = (header.producer_epoch, header.base_sequence);
        let new = Refused {
            epoch,
            base_sequence,
        };
        let known = self.refused.entry(key).or_insert(new);
        if epoch > known.epoch {
            *known = new;
        }
        if self.refused.len() > REFUSED_AT_MOST {
            self.refused.pop_first();
        }
    }

    /// Remembers a batch that was appended. Remembering it again changes nothing.
    pub(crate) fn observe(&mut self, partition: PartitionId, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let key = (partition, header.producer_id);
        self.refused.remove(&key);
        let state = self.states.entry(key).or_insert_with(|| ProducerState {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            last_seen_ms: 0,
        });
        if state
            .batches
            .back()
            .is_some_and(|last| header.base_offset <= last.last_offset)
        {
            return;
        }
        if state.epoch != header.producer_epoch {
            state.epoch = header.producer_epoch;
            state.batches.clear();
        }
        state.last_seen_ms = self.now_ms;
        self.changed.insert(key);
        if header.is_control() {
            // It has no sequence; with a higher epoch it fences the producer here.
            return;
        }
        if state.batches.len() == REMEMBERED_BATCHES {
            state.batches.pop_front();
        }
        state.batches.push_back(RememberedBatch {
            base_sequence: header.base_sequence,
            last_sequence: advance(header.base_sequence, header.last_offset_delta),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        });
    }

    /// Who is known on a partition, by id.
    pub(crate) fn of(&self, partition: PartitionId) -> Vec<KnownProducer> {
        let states = self
            .states
            .range((partition, i64::MIN)..=(partition, i64::MAX));
        let known =
            |((_, producer_id), state): (&(PartitionId, i64), &ProducerState)| KnownProducer {
                producer_id: *producer_id,
                producer_epoch: state.epoch,
                last_sequence: state.batches.back().map(|last| last.last_sequence),
                last_seen_ms: Some(state.last_seen_ms).filter(|ms| *ms > 0),
            };
        states.map(known).collect()
    }

    /// The present, as far as it is known. A new one begins a search for those who are silent.
    pub(crate) fn tell_time(&mut self, now_ms: i64) {
        if now_ms > self.now_ms {
            self.now_ms = now_ms;
            self.sweep_from.get_or_insert((FIRST_PARTITION, i64::MIN));
        }
    }

    /// Looks at some producers and forgets those not heard of for more than `expiration_ms`; says whether there are
    /// more to look at.
    pub(crate) fn sweep(&mut self, expiration_ms: i64) -> bool {
        let Some(from) = self.sweep_from.take() else {
            return false;
        };
        let mut silent = Vec::new();
        for (looked_at, (key, state)) in self.states.range_mut(from..).enumerate() {
            if looked_at == SWEPT_AT_ONCE {
                self.sweep_from = Some(*key);
                break;
            }
            if state.last_seen_ms <= 0 {
                // Seen when no time was known: from now on.
                state.last_seen_ms = self.now_ms;
            } else if self.now_ms.saturating_sub(state.last_seen_ms) > expiration_ms {
                silent.push(*key);
            }
        }
        for key in silent {
            self.states.remove(&key);
            self.changed.insert(key);
        }
        self.sweep_from.is_some()
    }

    /// Forgets a partition that is gone.
    pub(crate) fn remove_partition(&mut self, partition: PartitionId) {
        let all = (partition, i64::MIN)..=(partition, i64::MAX);
        self.refused
            .extract_if(all.clone(), |_, _| true)
            .for_each(drop);
        let gone = self.states.extract_if(all, |_, _| true);
        self.changed.extend(gone.map(|(key, _)| key));
    }

    pub(crate) fn insert(
        &mut self,
        partition: PartitionId,
        producer_id: i64,
        state: ProducerState,
    ) {
        self.states.insert((partition, producer_id), state);
    }

    /// What changed since the last call; `None` for what is forgotten.
    pub(crate) fn take_changes(&mut self) -> Vec<(PartitionId, i64, Option<ProducerState>)> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|key| (key.0, key.1, self.states.get(&key).cloned()))
            .collect()
    }

    pub(crate) fn forget_changes(&mut self) {
        self.changed.clear();
    }
}
