//! Which shard each partition belongs to, as chosen at its creation.

use std::collections::BTreeMap;

use mainstem_log::PartitionId;
use parking_lot::Mutex;

/// Filled by admission, read by the checkpoint that records it.
#[derive(Default)]
pub(crate) struct Shards(Mutex<BTreeMap<PartitionId, u16>>);

impl Shards {
    pub(crate) fn insert(&self, partition: PartitionId, shard: u16) {
        self.0.lock().insert(partition, shard);
    }

    pub(crate) fn get(&self, partition: PartitionId) -> u16 {
        self.0.lock().get(&partition).copied().unwrap_or(0)
    }

    pub(crate) fn remove(&self, partition: PartitionId) {
        self.0.lock().remove(&partition);
    }
}
