//! The seam: what every key-value store must promise.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Family, StoreError, StoreOp, prefix_end};

/// How far a store has come: the last frame whose operations it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Applied {
    /// The journal that the position counts in.
    pub journal_id: u128,
    /// The last LSN applied.
    pub lsn: u64,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {:032x}, LSN {}", self.journal_id, self.lsn)
    }
}

/// What a scan does with one key and value: go on or stop.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Figures about a store, for status pages and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Memory in use: write buffers, caches, indexes.
    pub memory_bytes: u64,
    /// Of that, what is written but not yet flushed.
    pub unflushed_bytes: u64,
    /// Estimated bytes on disk.
    pub disk_bytes: u64,
    /// Errors met in the background since the store was opened.
    pub background_errors: u64,
}

/// A key-value store with families, atomic batches and snapshots.
///
/// ```text
///   write ──► [ in memory ] ──flush, any time──► [ on disk ]
///                 │                                  │
///             applied()                    applied() after a crash
/// ```
///
/// The contract, which [`crate::conformance`] checks:
///
/// - **Order.** One caller writes, in LSN order. Within one write later operations win over earlier ones. A write
///   whose position lies before [`StoreSnapshot::applied`], or counts in another journal, is refused with
///   [`StoreError::OutOfOrder`] and changes nothing. One at the same position is taken: a checkpoint's records.
/// - **Atomicity.** A crash leaves a prefix of the writes: each of them whole, in all families, or not at all, and
///   `applied()` is the position of the last of them.
/// - **Durability.** What was written before [`Store::flush`] began is durable when it returns; anything else may be,
///   whole write by whole write.
/// - **Reads** see every write that has returned. A snapshot sees exactly those that had returned when it was taken.
/// - **Poison.** After an error of `write` or `flush`, including one that background work met, writes and flushes
///   keep failing until the store is opened again; reads may go on.
pub trait Store: StoreSnapshot {
    /// Writes the operations and the position as one batch. Not durable before a flush.
    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError>;

    /// Makes everything written so far durable, all families at one position.
    fn flush(&self) -> Result<(), StoreError>;

    /// A view of the store as it stands now. Cheap; holding it keeps old versions alive.
    fn snapshot(&self) -> Result<Arc<dyn StoreSnapshot>, StoreError>;

    /// The error that background work has met, if it has met one: for whoever must know although nothing is written.
    /// Never waits for a write. The default suits a store that does nothing in the background.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Figures about memory and disk.
    fn stats(&self) -> StoreStats;
}

/// Reads of a store, at one position: the newest for a [`Store`], a fixed one for a snapshot.
pub trait StoreSnapshot: Send + Sync {
    /// The position that this view shows; `None` before the first write.
    fn applied(&self) -> Result<Option<Applied>, StoreError>;

    /// The value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The values of many keys of one family, in the order asked.
    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// Visits the keys at or above `from` and below `to` (`None`: to the end), in order, at one position.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Visits the keys that begin with `prefix`, in order.
    fn scan_prefix(
        &self,
        family: Family,
        prefix: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.scan(family, prefix, prefix_end(prefix).as_deref(), visit)
    }
}
