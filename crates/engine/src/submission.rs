//! What is asked of the engine, and what it answers.

use bytes::Bytes;
use mainstem_journal::Lsn;
use mainstem_log::{LogOp, PartitionId};
use mainstem_record::Batch;
use mainstem_store::StoreOp;

use crate::error::AppendError;
use crate::transactions::{KnownProducer, Transaction, TransactionEnd};

/// About what a marker takes in the journal: of these and of the changes to the store a transaction's end is made.
pub const MARKER_BYTES: usize = 160;

/// One change, to become one frame: everything in it happens together or not at all, except
/// appends that are refused one by one when `all_or_nothing` is off.
#[derive(Debug, Default)]
pub struct Submission {
    /// Batches to append; offsets are given at admission.
    pub appends: Vec<Append>,
    /// Other log operations with the shard they belong to: partitions created and removed, new starts.
    pub log_ops: Vec<(u16, LogOp)>,
    /// Changes to the store; a key begins with its shard.
    pub store_ops: Vec<StoreOp>,
    /// What must hold for the frame to be made at all.
    pub checks: Vec<Check>,
    /// The transaction that its transactional batches belong to.
    pub transaction: Option<Transaction>,
    /// The end of a transaction: its markers come after the batches.
    pub transaction_end: Option<TransactionEnd>,
    /// A partition whose producers are to be named in the answer.
    pub producers_of: Option<PartitionId>,
    /// Whether one refused append refuses everything. Always so when there are store operations.
    pub all_or_nothing: bool,
}

/// One batch for one partition.
#[derive(Debug)]
pub struct Append {
    /// Where to.
    pub partition: PartitionId,
    /// The batch, validated by its gateway. Its base offset is overwritten at admission.
    pub batch: Batch,
}

/// A condition judged at admission, in the order of the journal.
#[derive(Clone, Debug)]
pub enum Check {
    /// Nobody has written `key` since it was read at `as_of` (see [`crate::Engine::read_at`]). For
    /// the families `Catalog` and `Offsets`. A refusal is answered when the store shows what was written.
    Unchanged {
        /// The family of the key.
        family: mainstem_store::Family,
        /// The key, with its shard.
        key: Bytes,
        /// The position it was read at.
        as_of: Lsn,
    },
    /// `epoch` is the newest seen for `owner`. The first, or a higher one, takes the fence. After a
    /// refused submission the fence is broken: whatever the same epoch has sent after it is
    /// refused too, so that pipelined steps cannot be applied with a gap.
    Fence {
        /// Who: any unique name.
        owner: Bytes,
        /// Its epoch.
        epoch: u64,
    },
    /// `epoch` is higher than any seen for `owner`: the submission takes the fence, or is refused and leaves the fence as
    /// it was. For whoever competes for an epoch: a [`Check::Fence`] that is refused for another check would break the
    /// winner's.
    TakeFence {
        /// Who: any unique name.
        owner: Bytes,
        /// The epoch to come.
        epoch: u64,
    },
    /// The partition's next offset is `offset`.
    NextOffset {
        /// Which partition.
        partition: PartitionId,
        /// The offset the next record must get.
        offset: i64,
    },
}

/// The answer to a submission: durable, and visible in every view it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The frame's position; where nothing had to be written, the newest position that was seen.
    pub lsn: Lsn,
    /// One outcome an append, in the submission's order.
    pub appends: Vec<Result<Appended, AppendError>>,
    /// The producers that were asked for, by id.
    pub producers: Vec<KnownProducer>,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// Whether it had been appended before and was not again.
    pub duplicate: bool,
    /// The partition's first offset.
    pub log_start: i64,
}

impl Submission {
    /// About how many journal bytes it takes: what to reserve.
    pub fn size_bytes(&self) -> usize {
        let appends: usize = self
            .appends
            .iter()
            .map(|append| append.batch.bytes().len() + 64)
            .sum();
        let end = self.transaction_end.as_ref();
        let markers = end.map_or(0, |end| end.partitions.len()) * MARKER_BYTES;
        appends + markers + self.log_ops.len() * 64 + self.store_bytes()
    }

    /// About how many of them go to the store.
    pub fn store_bytes(&self) -> usize {
        self.store_ops
            .iter()
            .map(|op| op.key.len() + op.value.as_ref().map_or(0, Bytes::len) + 16)
            .sum()
    }
}
