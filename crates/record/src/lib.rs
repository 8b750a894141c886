//! Kafka's record batch, version 2: the one format in which Mainstem's records stand on the wire, in
//! the journal and in segment files.
//!
//! **What it promises.** [`Batch::parse`] accepts a batch only when everything that can be checked
//! without decompressing holds: magic 2, exact length, CRC-32C, a known codec, a record count that
//! agrees with the offsets, and, where the batch is not compressed, every single record (sizes,
//! offset deltas 0..n without a gap, header counts). What was accepted is kept byte for byte, until compaction takes
//! records out of it ([`Batch::retain`]), so that readers, who use [`Batch::split_first`], find gaps. Records
//! are read without copying, and [`Payload::views`] reads them without allocating. Decompression is
//! lazy and has a cap, so that a small batch cannot ask for a large memory. No input panics.
//!
//! **What it refuses.** Older message formats (magic 0 and 1), batches without records, codecs that
//! are not Kafka's, a maximum timestamp in the header that no record has (where records are looked at). The two fields
//! outside the CRC (base offset, leader epoch) are the log's to write, with [`assign`].
//!
//! This crate is pure: no I/O, no clock, no threads.
//!
//! **Where to start reading:** [`BatchHeader`] (`header.rs`) is the layout, [`Batch`] (`batch.rs`)
//! the validation, `walk.rs` the reading of records, [`BatchBuilder`] (`builder.rs`) the writing,
//! `marker.rs` how a transaction ends, `rewrite.rs` a batch in another codec and what compaction leaves of one, `codec.rs` the
//! four codecs, [`partition_for_key`] (`partitioner.rs`) where a key goes.

mod batch;
mod builder;
mod codec;
mod error;
mod header;
mod marker;
mod partitioner;
mod rewrite;
mod varint;
mod walk;

pub use batch::{Batch, DEFAULT_DECOMPRESSED_LIMIT_BYTES, Payload};
pub use builder::BatchBuilder;
pub use codec::{Codec, Compression};
pub use error::RecordError;
pub use header::{BATCH_HEADER_BYTES, BatchHeader, TimestampType, assign};
pub use marker::Marker;
pub use partitioner::{murmur2, partition_for_key};
pub use rewrite::Retained;
pub use walk::{HeaderView, HeaderViews, Record, RecordView, Records, Views};
