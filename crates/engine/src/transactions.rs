//! Transactions as admission knows them.
//!
//! Who coordinates a transaction knows in memory which partitions it has; what must be decided in the order of the journal
//! is one thing alone: that nothing of it is appended behind its end. So the coordinator makes one [`Transaction`] for each
//! and hands it in with every batch and with the end; admission closes it when it admits the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstem_log::PartitionId;
use mainstem_record::{Batch, BatchHeader, Marker};

use crate::EngineError;

/// One transaction of a producer, open until its end is admitted. Clones are the same transaction.
#[derive(Clone, Debug)]
pub struct Transaction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    producer_id: i64,
    producer_epoch: i16,
    ended: AtomicBool,
}

impl Transaction {
    /// A transaction that begins now. There must be one at most for a producer that has not ended.
    pub fn new(producer_id: i64, producer_epoch: i16) -> Transaction {
        Transaction(Arc::new(Inner {
            producer_id,
            producer_epoch,
            ended: AtomicBool::new(false),
        }))
    }

    /// Whose.
    pub fn producer_id(&self) -> i64 {
        self.0.producer_id
    }

    /// The epoch that its batches have.
    pub fn producer_epoch(&self) -> i16 {
        self.0.producer_epoch
    }

    /// Whether a batch is of its producer.
    pub(crate) fn is_of(&self, header: &BatchHeader) -> bool {
        header.producer_id == self.0.producer_id && header.producer_epoch == self.0.producer_epoch
    }

    // Read and written by admission alone: its thread orders what happens.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// The end of a transaction: a marker on each of its partitions, in one frame with whatever else the submission holds.
#[derive(Clone, Debug)]
pub struct TransactionEnd {
    /// Which.
    pub transaction: Transaction,
    /// How it ends.
    pub marker: Marker,
    /// The epoch that the markers have: the transaction's, or a higher one, which fences its producer on each partition.
    pub marker_epoch: i16,
    /// Every partition that a batch of it may have been submitted for. One that is gone has nothing to end.
    pub partitions: Vec<PartitionId>,
    /// The markers' time, in milliseconds since 1970.
    pub now_ms: i64,
}

impl TransactionEnd {
    pub(crate) fn batch(&self) -> Result<Batch, EngineError> {
        let producer_id = self.transaction.producer_id();
        self.marker
            .batch(producer_id, self.marker_epoch, self.now_ms)
            .map_err(|_| EngineError::Invalid("a marker cannot be built"))
    }
}

/// A producer that is known on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    /// Who.
    pub producer_id: i64,
    /// The newest epoch.
    pub producer_epoch: i16,
    /// The sequence of its last record; none where the last thing of that epoch was a marker.
    pub last_sequence: Option<i32>,
    /// When it was last heard of, in milliseconds since 1970, as far as time was told.
    pub last_seen_ms: Option<i64>,
}
