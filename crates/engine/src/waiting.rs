//! Who waits at admission while something is on its way to a segment: whoever touches the same, whole and in the order of
//! coming. All others pass.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use mainstem_log::PartitionId;
use mainstem_store::Family;

use crate::EngineError;
use crate::shared::Pending;
use crate::submission::{Check, Submission};

/// Something that a submission touches, and whose order counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Partition(PartitionId),
    Producer(i64),
    Fence(Bytes),
    Stored(Family, Bytes),
}

/// Everything that a submission touches.
pub(crate) fn keys_of(submission: &Submission) -> Vec<Key> {
    let mut keys = Vec::new();
    let ids = submission
        .appends
        .iter()
        .map(|one| one.batch.header().producer_id);
    let mut ids: Vec<i64> = ids.filter(|id| *id >= 0).collect();
    ids.dedup();
    keys.extend(ids.into_iter().map(Key::Producer));
    for append in &submission.appends {
        let partition = Key::Partition(append.partition);
        // A call has many batches for one partition in a row.
        if keys.last() != Some(&partition) {
            keys.push(partition);
        }
    }
    if let Some(end) = &submission.transaction_end {
        keys.push(Key::Producer(end.transaction.producer_id()));
        keys.extend(end.partitions.iter().copied().map(Key::Partition));
    }
    keys.extend(submission.producers_of.map(Key::Partition));
    let partitions = submission.log_ops.iter().map(|(_, op)| op.partition());
    keys.extend(partitions.map(Key::Partition));
    keys.extend(submission.checks.iter().map(|check| match check {
        Check::Unchanged { family, key, .. } => Key::Stored(*family, key.clone()),
        Check::Fence { owner, .. } => Key::Fence(owner.clone()),
        Check::NextOffset { partition, .. } => Key::Partition(*partition),
    }));
    let stored = submission.store_ops.iter();
    keys.extend(stored.map(|op| Key::Stored(op.family, op.key.clone())));
    keys
}

/// What is under way to a segment, and who waits for it.
#[derive(Default)]
pub(crate) struct Waiting {
    /// How many that are under way touch it.
    under_way: HashMap<Key, usize>,
    count: usize,
    line: VecDeque<Pending>,
    /// What those in the line touch.
    wanted: HashSet<Key>,
}

impl Waiting {
    /// Whether nothing is under way; then nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0 && self.line.is_empty()
    }

    /// Whether this one has to wait. What goes to its segments first follows in the same queue, and waits only for those
    /// who wait.
    pub(crate) fn must_wait(&self, submission: &Submission, goes_ahead: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let blocks = |key: &Key| {
            self.wanted.contains(key) || (!goes_ahead && self.under_way.contains_key(key))
        };
        keys_of(submission).iter().any(blocks)
    }

    pub(crate) fn line_up(&mut self, pending: Pending) {
        tracing::debug!(case = "submission behind a batch written ahead");
        self.wanted.extend(keys_of(&pending.submission));
        self.line.push_back(pending);
    }

    /// Something is under way from now on.
    pub(crate) fn begin(&mut self, keys: &[Key]) {
        self.count += 1;
        for key in keys {
            *self.under_way.entry(key.clone()).or_default() += 1;
        }
    }

    /// It has its frame.
    pub(crate) fn end(&mut self, keys: &[Key]) {
        self.count -= 1;
        for key in keys {
            if let Some(count) = self.under_way.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.under_way.remove(key);
                }
            }
        }
    }

    /// Those who have waited, in their order; they may have to wait again.
    pub(crate) fn take_line(&mut self) -> VecDeque<Pending> {
        self.wanted.clear();
        std::mem::take(&mut self.line)
    }

    /// Nothing comes to an end any more.
    pub(crate) fn fail(&mut self, error: &EngineError) {
        for pending in std::mem::take(self).line {
            pending.promise.resolve(Err(error.clone()));
        }
    }
}
