//! The 61 bytes at the front of every batch.
//!
//! ```text
//!  0 base offset     i64   8 length  i32 (of what follows it)   12 leader epoch i32   16 magic i8 (2)
//! 17 CRC-32C         u32   of everything from 21 on
//! 21 attributes      i16  23 last offset delta i32   27 base timestamp i64   35 max timestamp i64
//! 43 producer id     i64  51 producer epoch    i16   53 base sequence  i32   57 record count  i32
//! 61 records
//! ```
//! All numbers are big-endian. Base offset, length, leader epoch and magic lie outside the CRC.

use crate::{Compression, RecordError};

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Bytes before the length field's own count begins: base offset and length.
pub(crate) const LENGTH_OVERHEAD_BYTES: usize = 12;
/// Where the checksum stands, and where what it covers begins.
pub(crate) const CRC_AT: usize = 17;
pub(crate) const CRC_FROM: usize = 21;

const COMPRESSION_MASK: i16 = 0b0111;
const APPEND_TIME_BIT: i16 = 1 << 3;
pub(crate) const TRANSACTIONAL_BIT: i16 = 1 << 4;
pub(crate) const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Whose clock a batch's timestamps come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Each record carries its producer's time.
    CreateTime,
    /// The log wrote one time for the whole batch.
    LogAppendTime,
}

/// A batch's header, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes that follow the length field; [`size_bytes`](Self::size_bytes) is the whole batch.
    pub batch_length: i32,
    /// Epoch of the partition's leader that appended the batch.
    pub leader_epoch: i32,
    /// Format version, always 2.
    pub magic: i8,
    /// CRC-32C of everything after this field.
    pub crc: u32,
    /// Codec, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record, relative to the base.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas are relative to.
    pub base_timestamp_ms: i64,
    /// Largest timestamp of the batch.
    pub max_timestamp_ms: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header and checks what it says by itself: magic, length, codec. Neither the CRC nor
    /// the records are looked at, nor whether the rest of the batch is there.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<BatchHeader, RecordError> {
        let Some(fixed) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(RecordError::Truncated {
                needed_bytes: BATCH_HEADER_BYTES,
                have_bytes: bytes.len(),
            });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(fixed, 0)),
            batch_length: i32::from_be_bytes(field(fixed, 8)),
            leader_epoch: i32::from_be_bytes(field(fixed, 12)),
            magic: fixed[16] as i8,
            crc: u32::from_be_bytes(field(fixed, CRC_AT)),
            attributes: i16::from_be_bytes(field(fixed, 21)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_timestamp_ms: i64::from_be_bytes(field(fixed, 27)),
            max_timestamp_ms: i64::from_be_bytes(field(fixed, 35)),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            record_count: i32::from_be_bytes(field(fixed, 57)),
        };
        if header.magic != 2 {
            return Err(RecordError::BadMagic {
                found: header.magic,
            });
        }
        if header.batch_length < (BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32 {
            return Err(RecordError::BadLength {
                claimed_bytes: i64::from(header.batch_length) + LENGTH_OVERHEAD_BYTES as i64,
                why: "is less than its header",
            });
        }
        Compression::from_code(header.attributes & COMPRESSION_MASK)?;
        Ok(header)
    }

    /// Writes the header over the front of a batch, all but the CRC.
    pub(crate) fn write(&self, out: &mut [u8; BATCH_HEADER_BYTES]) {
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// Gives a batch the log's time: writes it into its bytes, with the CRC that follows from it.
    pub(crate) fn stamp(&self, bytes: &mut [u8], now_ms: i64) -> BatchHeader {
        let mut header = BatchHeader {
            attributes: self.attributes | APPEND_TIME_BIT,
            max_timestamp_ms: now_ms,
            ..*self
        };
        if let Some(front) = bytes.first_chunk_mut() {
            header.write(front);
        }
        header.crc = crc32c::crc32c(bytes.get(CRC_FROM..).unwrap_or_default());
        if let Some(crc) = bytes.get_mut(CRC_AT..CRC_FROM) {
            crc.copy_from_slice(&header.crc.to_be_bytes());
        }
        header
    }

    /// Bytes of the whole batch, header included.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        // `read` has refused negative lengths.
        self.batch_length.max(0) as usize + LENGTH_OVERHEAD_BYTES
    }

    /// Offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// First offset after this batch.
    #[inline]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence number of the last record; numbers wrap from `i32::MAX` to 0. -1 without a producer.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// The codec of the records.
    #[inline]
    pub fn compression(&self) -> Compression {
        // `read` has refused unknown codes.
        Compression::from_code(self.attributes & COMPRESSION_MASK).unwrap_or(Compression::None)
    }

    /// The same header over records in another codec.
    pub(crate) fn with_compression(self, compression: Compression) -> BatchHeader {
        BatchHeader {
            attributes: self.attributes & !COMPRESSION_MASK | compression.code(),
            ..self
        }
    }

    /// Whether the batch belongs to a transaction.
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is a marker of the log's own, not to be shown to applications.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Until when compaction keeps the batch's tombstones, once it has seen them (KIP-534).
    #[inline]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp_ms)
    }

    /// Marks the batch with that time; the records' timestamps are then relative to it.
    pub(crate) fn set_delete_horizon(&mut self, horizon_ms: i64) {
        self.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp_ms = horizon_ms;
    }

    /// Whose clock the timestamps come from.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }
}

#[inline]
fn field<const N: usize>(bytes: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Writes the two fields that belong to the log into a batch: its base offset and leader epoch. Both
/// lie outside the CRC.
///
/// # Panics
/// When `bytes` is shorter than a batch header: the caller passes a validated batch.
#[inline]
pub fn assign(bytes: &mut [u8], base_offset: i64, leader_epoch: i32) {
    assert!(
        bytes.len() >= BATCH_HEADER_BYTES,
        "assign wants a whole batch"
    );
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}
