//! What can go wrong, and what to do about it.

use std::sync::Arc;

use mainstem_journal::JournalError;
use mainstem_log::{LogError, PartitionId};
use mainstem_store::StoreError;

/// Why the engine refused or failed. Cheap to clone: one disk error answers everybody who waits.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// A [`crate::Check`] did not hold: somebody else changed what was read. Read again and decide anew.
    #[error(
        "check {check} failed: what it guards was changed by another frame; read it again and retry"
    )]
    Conflict {
        /// The index of the check in the submission.
        check: usize,
    },
    /// A [`crate::Check`] was read too long ago to be judged. Read again and retry.
    #[error(
        "check {check} was read at a position the engine no longer remembers; read it again and retry"
    )]
    Stale {
        /// The index of the check in the submission.
        check: usize,
    },
    /// A newer owner has taken over; this one must stop.
    #[error("fenced: epoch {epoch} was replaced by epoch {current}; this owner must stop")]
    Fenced {
        /// The epoch of the submission.
        epoch: u64,
        /// The epoch that holds the fence now.
        current: u64,
    },
    /// One append of an all-or-nothing submission was refused, so nothing was done.
    #[error("append {index} was refused, so nothing was done: {error}")]
    Append {
        /// The index of the append in the submission.
        index: usize,
        /// Why.
        error: AppendError,
    },
    /// The disk has too little room for more data. Ends by itself when space returns.
    #[error(
        "the disk is nearly full: {} MiB are free, {} MiB are needed; free space, shorten retention or delete topics: \
         writes then go on by themselves",
        free_bytes >> 20, needed_bytes.div_ceil(1 << 20)
    )]
    DiskFull {
        /// Bytes free in the data directory's file system.
        free_bytes: u64,
        /// Bytes that must be free before writes are admitted.
        needed_bytes: u64,
    },
    /// One submission is larger than a frame may be.
    #[error(
        "a submission of {bytes} bytes exceeds the limit of {limit_bytes}; send smaller batches"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What a frame may hold.
        limit_bytes: usize,
    },
    /// A write or sync failed, so what was in flight has an unknown outcome. Reads go on; opening
    /// the data directory again recovers.
    #[error(
        "writes have stopped after a failure ({why}); the outcome of what was in flight is unknown: {}",
        if *full { "free space, and open the data directory again" } else { "restart to recover" }
    )]
    Poisoned {
        /// The first failure.
        why: Arc<str>,
        /// Whether a disk was full: then [`crate::Engine::has_space_again`] says when opening again helps.
        full: bool,
    },
    /// The engine is shutting down.
    #[error("the engine is closed; open the data directory again")]
    Closed,
    /// The submission contradicts the engine's rules: a fault of the caller.
    #[error("invalid submission: {0}")]
    Invalid(&'static str),
    /// The data directory's records do not fit together.
    #[error("damaged data directory: {0}; restore it from a copy, or start on a fresh directory")]
    Damaged(Arc<str>),
    /// The journal failed.
    #[error("journal: {0}")]
    Journal(Arc<JournalError>),
    /// The log failed.
    #[error("log: {0}")]
    Log(Arc<LogError>),
    /// The store failed.
    #[error("store: {0}")]
    Store(Arc<StoreError>),
}

impl EngineError {
    /// Whether the reason is that a disk is full, so that the data directory can be opened again when there is space.
    pub fn is_full(&self) -> bool {
        match self {
            EngineError::Journal(error) => error.is_full(),
            EngineError::Log(error) => error.is_full(),
            EngineError::Store(error) => matches!(**error, StoreError::NoSpace { .. }),
            EngineError::Poisoned { full, .. } => *full,
            _ => false,
        }
    }

    /// Whether bytes on disk are not what was written, in the log or in the store.
    pub fn is_damage(&self) -> bool {
        match self {
            EngineError::Damaged(_) => true,
            EngineError::Log(error) => matches!(**error, LogError::Damaged { .. }),
            EngineError::Store(error) => matches!(**error, StoreError::Damaged { .. }),
            _ => false,
        }
    }

    /// Whether the reason may have been that a disk was full, although it does not say so.
    pub(crate) fn may_be_full(&self) -> bool {
        matches!(self, EngineError::Store(error) if matches!(**error, StoreError::Backend { .. }))
    }

    /// What everybody is told once this has stopped all writes.
    pub(crate) fn poison(&self, full: bool) -> EngineError {
        EngineError::Poisoned {
            why: self.to_string().into(),
            full,
        }
    }
}

impl From<JournalError> for EngineError {
    fn from(error: JournalError) -> Self {
        EngineError::Journal(Arc::new(error))
    }
}

impl From<LogError> for EngineError {
    fn from(error: LogError) -> Self {
        EngineError::Log(Arc::new(error))
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        EngineError::Store(Arc::new(error))
    }
}

/// Why one batch was not appended. The rules of idempotent producers are Kafka's (KIP-98, KIP-360).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no such partition.
    #[error("there is no partition {0}")]
    UnknownPartition(PartitionId),
    /// A batch is missing between the producer's last one and this one.
    #[error("producer {producer_id}: sequence {got} does not follow; {expected} was expected")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The sequence that would follow.
        expected: i32,
        /// The batch's first sequence.
        got: i32,
    },
    /// Another producer has taken this id with a higher epoch.
    #[error("producer {producer_id}: epoch {got} was replaced by {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// The epoch known.
        current: i16,
        /// The batch's epoch.
        got: i16,
    },
    /// The retry is of a batch older than the last five, whose offsets are forgotten.
    #[error(
        "producer {producer_id}: sequence {got} was appended before, too long ago to tell its offsets"
    )]
    DuplicateSequence {
        /// The producer.
        producer_id: i64,
        /// The batch's first sequence.
        got: i32,
    },
    /// The batch is transactional, and the submission names no transaction of its producer.
    #[error("producer {producer_id}: epoch {producer_epoch} has no transaction here")]
    NoTransaction {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        producer_epoch: i16,
    },
    /// The batch's transaction has ended before it came.
    #[error("producer {producer_id}: the transaction of epoch {producer_epoch} has ended")]
    TransactionEnded {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        producer_epoch: i16,
    },
    /// The batch is not transactional, and its producer has an open transaction on the partition.
    #[error(
        "producer {producer_id}: its transaction is open here, and the batch is not part of it"
    )]
    OpenTransaction {
        /// The producer.
        producer_id: i64,
    },
    /// Markers are not appended as batches.
    #[error("control batches come with the end of a transaction alone")]
    ControlBatch,
    /// The partition's next offset is not the expected one.
    #[error("offset {expected} was expected to be next, but {actual} is")]
    NextOffset {
        /// What the check asked for.
        expected: i64,
        /// What the partition has.
        actual: i64,
    },
}
