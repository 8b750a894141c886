//! # The log: partitions as views of the journal
//!
//! The journal holds the truth; this crate shows a part of it as partitions. Durable frames are
//! *applied* to it in LSN order: each partition's newest batches stand in a **tail** in memory (slices of
//! the journal group's buffer, nothing is copied), and a background worker writes them to **segment**
//! files, from which older records are read.
//!
//! ```text
//!             start                                                   high watermark
//!               |                                                            |
//!   ...[segment][segment (sealed)][segment (active)   ]                      |
//!                                              [ tail: flushed | unflushed   ]
//!                                                              ^ flushed up to the LSN given to flush()
//! ```
//!
//! ## Promises
//! - What is applied is visible at once, and only what is durable is ever applied. Offsets are dense.
//! - Applying a frame twice changes nothing: everything at or below [`Log::applied`] is skipped.
//! - [`Log::records`] describes every partition *exactly* as of the LSN of the last [`Log::flush`], whatever
//!   was applied since. Opening from those records and applying every later frame again gives the same log.
//! - A reader gets whole batches, byte for byte as they were applied. Bytes read from a file are checked:
//!   the batch's CRC, dense offsets, and a checksum over the header bytes that the CRC leaves out. Damage is
//!   an error that names file and position, never a gap. A [`FileSlice`], which is sent without being read, was read and
//!   checked like that once by this process.
//! - Where a batch stands in which segment follows from the frames alone ([`Layout`]). One that a frame refers to stands
//!   there, synced, before the frame has its LSN; a flush takes it in where it is, and writes only the others.
//! - A [`LogSnapshot`] stays readable whatever retention, deletion and eviction do meanwhile.
//!
//! ## Refusals
//! - It owns no thread, no clock and no runtime: whoever calls [`Log::flush`] is the worker, time is an argument,
//!   a [`Waiter`] is a plain future.
//! - It never looks into a directory to learn what exists: only the records given to [`Log::open`] say so.
//! - A removed partition's id is never used again.
//!
//! ## Where to start reading
//! `op.rs` (what a frame can ask of the log), `partition.rs` (the state of one partition), then `log.rs`
//! (applying), `read.rs` (reading; `pieces.rs` for what goes to a socket), `transactions.rs` (what is
//! committed), `flush.rs` (the way to disk), `segment.rs` (files), `compact/` (compaction) and `verify.rs`
//! (checking the files offline).

mod codec;
mod compact;
mod error;
mod files;
mod flush;
mod ids;
mod index;
mod layout;
mod log;
mod op;
mod partition;
mod pieces;
mod read;
mod recorded;
mod referenced;
mod remove;
mod segment;
mod snapshot;
mod tail;
mod transactions;
mod verify;
mod waiter;
mod write_ahead;

pub use compact::{Compactable, Compacted, Compaction, CompactionPolicy, CompactionStep};
pub use error::LogError;
pub use files::SegmentName;
pub use flush::{Flushed, Unsynced};
pub use ids::{PartitionId, TopicId};
pub use layout::{Layout, Placement};
pub use log::{Bounds, Log, LogOptions, SegmentLimits};
pub use op::{AppendReference, LogOp, LogOps, ReplaceSegments, encode_append};
pub use pieces::{Piece, PieceLimits, Pieces, Stopped};
pub use read::{Read, Stable};
pub use recorded::{PartitionRecord, PartitionState, SegmentRecord};
pub use remove::Removed;
pub use segment::FileSlice;
pub use snapshot::LogSnapshot;
pub use transactions::{AbortedTransaction, OpenTransaction, RecordedTransactions};
pub use verify::{Costs, LogCheck, LogFinding, LogVerified};
pub use waiter::Waiter;
pub use write_ahead::{AheadBatch, AheadWriter};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod tests {
    use bytes::Bytes;
    use mainstem_record::{BatchBuilder, Compression, assign};
    use proptest::prelude::*;

    use crate::{PartitionId, TopicId};

    pub(crate) fn any_partition() -> impl Strategy<Value = PartitionId> {
        (any::<u128>(), any::<u32>())
            .prop_map(|(topic, index)| PartitionId::new(TopicId(topic), index))
    }

    pub(crate) fn batch(base_offset: i64, timestamps_ms: &[i64]) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        for timestamp_ms in timestamps_ms {
            builder
                .append(*timestamp_ms, None, Some(b"value"), &[])
                .unwrap();
        }
        let mut bytes = builder.build().unwrap().bytes().to_vec();
        assign(&mut bytes, base_offset, 0);
        bytes.into()
    }
}
