//! The log at one LSN, held readable.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_journal::Lsn;

use crate::log::{Log, Shared};
use crate::partition::Partition;
use crate::{Bounds, LogError, PartitionId, Read};

/// Every partition as of one LSN. Reads within its bounds go on working until the last clone is dropped: files that
/// retention or deletion has given up are kept until then, memory is given back as it always is.
#[derive(Clone)]
pub struct LogSnapshot {
    /// Everything up to here is in it, and nothing later.
    pub lsn: Lsn,
    /// The partitions that existed, with what of them could be read.
    pub partitions: Arc<BTreeMap<PartitionId, Bounds>>,
    pin: Arc<Pin>,
}

/// While it lives, no segment that was there when it was made goes away.
struct Pin {
    shared: Arc<Shared>,
    number: u64,
}

impl Pin {
    fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let mut pins = shared.pins.lock();
        let number = pins.next;
        pins.next += 1;
        pins.live.insert(number);
        Arc::new(Self {
            shared: shared.clone(),
            number,
        })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.pins.lock().live.remove(&self.number);
    }
}

impl Log {
    /// The log as it is at [`applied`](Self::applied). Called by the thread that applies, between two groups. Costs
    /// what has changed since the last snapshot, and a copy of the bounds if that one is still held.
    pub fn snapshot(&self) -> LogSnapshot {
        let mut applier = self.shared.applier.lock();
        let applier = &mut *applier;
        let pin = Pin::new(&self.shared);
        if !applier.touched.is_empty() {
            let bounds = Arc::make_mut(&mut applier.snapshot_bounds);
            for partition in applier.touched.drain(..) {
                let mut state = partition.state.lock();
                state.listed.touched = false;
                if state.removed {
                    bounds.remove(&partition.id);
                } else {
                    bounds.insert(partition.id, state.bounds());
                }
            }
        }
        LogSnapshot {
            lsn: applier.applied,
            partitions: applier.snapshot_bounds.clone(),
            pin,
        }
    }
}

impl LogSnapshot {
    /// What of a partition can be read here.
    pub fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        self.partitions
            .get(&partition)
            .copied()
            .ok_or(LogError::UnknownPartition { partition })
    }

    /// Whether every offset of a partition that can be read here is a record to be delivered: compaction has not been over
    /// it, and there was no transaction.
    pub fn is_dense(&self, partition: PartitionId) -> bool {
        self.find(partition).is_ok_and(|found| {
            let state = found.state.lock();
            let mut segments = state.segments.iter().chain(&state.replaced);
            !state.transactions.any() && segments.all(|segment| segment.name().generation == 0)
        })
    }

    /// Like [`Log::read`], as of this snapshot.
    pub fn read(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
        upto: Option<i64>,
    ) -> Result<Read, LogError> {
        let bounds = self.bounds(partition)?;
        let (found, number) = (self.find(partition)?, Some(self.pin.number));
        self.shared()
            .read_within(&found, bounds, number, offset, max_bytes, upto)
    }

    /// Like [`Log::read_committed`], as of this snapshot.
    pub fn read_committed(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
        upto: Option<i64>,
    ) -> Result<Read, LogError> {
        let last_stable = self.bounds(partition)?.last_stable;
        let upto = upto.map_or(last_stable, |upto| upto.min(last_stable));
        let read = self.read(partition, offset, max_bytes, Some(upto))?;
        // What has been aborted since then begins at or above the last stable offset of then.
        let found = self.find(partition)?;
        let stable = found.state.lock().stable(read, offset, last_stable);
        stable.delivered(partition)
    }

    /// Like [`Log::offset_for_timestamp`], as of this snapshot.
    pub fn offset_for_timestamp(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<(i64, i64)>, LogError> {
        let bounds = self.bounds(partition)?;
        let (found, number) = (self.find(partition)?, Some(self.pin.number));
        self.shared()
            .offset_for_timestamp(&found, bounds, number, timestamp_ms)
    }

    fn shared(&self) -> &Shared {
        &self.pin.shared
    }

    /// The partition, also if it has been removed since.
    fn find(&self, partition: PartitionId) -> Result<Arc<Partition>, LogError> {
        if let Ok(found) = self.shared().find(partition) {
            return Ok(found);
        }
        let departed = self.shared().departed.lock();
        departed
            .get(&partition)
            .map(|departed| departed.partition.clone())
            .ok_or(LogError::UnknownPartition { partition })
    }
}
