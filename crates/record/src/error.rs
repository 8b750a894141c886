//! The one error type of this crate.

use crate::Compression;

/// Why bytes are not a batch, or a record does not fit into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the batch does.
    #[error("a batch of {needed_bytes} bytes is cut off after {have_bytes}; send or read it whole")]
    Truncated {
        /// What the batch needs, as far as it is known.
        needed_bytes: usize,
        /// What is there.
        have_bytes: usize,
    },
    /// Not version 2 of the format.
    #[error(
        "batch format version {found} is not supported; only version 2 (Kafka 0.11 and later) is"
    )]
    BadMagic {
        /// The version byte that was found.
        found: i8,
    },
    /// The length field cannot be right.
    #[error("a batch says it is {claimed_bytes} bytes long, which {why}")]
    BadLength {
        /// The length in the header, plus the two fields before it.
        claimed_bytes: i64,
        /// What speaks against it.
        why: &'static str,
    },
    /// The stored checksum is not that of the bytes.
    #[error(
        "batch checksum mismatch: stored {stored:#010x}, computed {computed:#010x}; the bytes changed on their way"
    )]
    CrcMismatch {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// Attribute bits name a codec that does not exist.
    #[error("compression code {code} is unknown; use none, gzip, snappy, lz4 or zstd")]
    UnknownCompression {
        /// The code found in the attributes.
        code: u8,
    },
    /// Header fields contradict each other.
    #[error("batch header refused: {why}")]
    BadHeader {
        /// What contradicts what.
        why: &'static str,
    },
    /// A record inside of the batch is not well formed.
    #[error("record {index} of the batch refused: {why}")]
    BadRecord {
        /// Its position in the batch, from 0.
        index: i32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The compressed records could not be decompressed.
    #[error("the batch's {codec} data cannot be decompressed: {why}")]
    Decompress {
        /// The codec in the attributes.
        codec: Compression,
        /// What the codec said.
        why: String,
    },
    /// The records are larger, decompressed, than the reader allows.
    #[error(
        "the batch's records take more than {limit_bytes} bytes when decompressed; send smaller batches or raise the limit"
    )]
    DecompressedTooLarge {
        /// The reader's limit.
        limit_bytes: usize,
    },
    /// The record could not be compressed.
    #[error("the records cannot be compressed with {codec}: {why}")]
    Compress {
        /// The codec asked for.
        codec: Compression,
        /// What the codec said.
        why: String,
    },
    /// The record does not fit into what is left of this batch; build it and begin another.
    #[error(
        "the batch is full at {max_bytes} bytes; build it and put the record into the next one"
    )]
    Full {
        /// The builder's limit.
        max_bytes: usize,
    },
    /// The record would not fit into an empty batch either.
    #[error(
        "a record of {record_bytes} bytes does not fit into a batch of at most {max_bytes}; split the value or raise the limit"
    )]
    RecordTooLarge {
        /// What a batch with this record alone would take.
        record_bytes: usize,
        /// The builder's limit.
        max_bytes: usize,
    },
    /// A batch without records was asked for.
    #[error("a batch needs at least one record")]
    Empty,
}
