//! From records to a batch.

use bytes::Bytes;

use crate::codec::{self, Codec, Compression};
use crate::header::{
    BATCH_HEADER_BYTES, BatchHeader, CRC_AT, CRC_FROM, LENGTH_OVERHEAD_BYTES, TRANSACTIONAL_BIT,
};
use crate::varint;
use crate::{Batch, RecordError};

/// Builds one batch. Records are encoded as they come, into one growing buffer; without compression
/// [`build`](Self::build) hands out that same buffer.
///
/// The limit is on the batch before compression, which is what readers have to hold.
#[derive(Debug)]
pub struct BatchBuilder {
    codec: Codec,
    max_bytes: usize,
    /// Those beside the codec.
    attributes: i16,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    count: i32,
    /// Room for the header, then the records.
    buffer: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch that will take at most `max_bytes`, header included, before compression.
    pub fn new(codec: impl Into<Codec>, max_bytes: usize) -> BatchBuilder {
        BatchBuilder {
            codec: codec.into(),
            max_bytes: max_bytes.min(i32::MAX as usize),
            attributes: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
            count: 0,
            buffer: vec![0; BATCH_HEADER_BYTES],
        }
    }

    /// Makes room for that many bytes at once, where the caller knows what comes.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes.min(self.max_bytes));
    }

    /// Marks the batch as one of an idempotent producer's.
    pub fn producer(&mut self, id: i64, epoch: i16, base_sequence: i32) -> &mut Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of its producer's transaction.
    pub fn transactional(&mut self) -> &mut Self {
        self.attributes(TRANSACTIONAL_BIT);
        self
    }

    pub(crate) fn attributes(&mut self, bits: i16) {
        self.attributes |= bits;
    }

    /// Adds a record. [`RecordError::Full`] when it belongs into the next batch,
    /// [`RecordError::RecordTooLarge`] when it fits into none; the batch stays as it was.
    #[inline]
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), RecordError> {
        let first = self.count == 0;
        let base_timestamp_ms = if first {
            timestamp_ms
        } else {
            self.base_timestamp_ms
        };
        let timestamp_delta = timestamp_ms.wrapping_sub(base_timestamp_ms);

        let mut body = 1 + varint::size(timestamp_delta) + varint::size(i64::from(self.count));
        body += nullable_size(key) + nullable_size(value) + varint::size(headers.len() as i64);
        for (name, value) in headers {
            body += nullable_size(Some(name.as_bytes())) + nullable_size(*value);
        }
        let record_bytes = varint::size(body as i64) + body;
        if record_bytes > self.max_bytes.saturating_sub(self.buffer.len()) {
            return Err(self.refuse(record_bytes));
        }

        self.buffer.reserve(record_bytes);
        // Length, attributes, two deltas and the key's length: 5 + 1 + 10 + 5 + 5 bytes at most.
        let mut front = [0u8; 32];
        let mut at = varint::put(&mut front, body as i64);
        at += 1;
        at += varint::put(&mut front[at..], timestamp_delta);
        at += varint::put(&mut front[at..], i64::from(self.count));
        at += varint::put(&mut front[at..], nullable_len(key));
        self.buffer.extend_from_slice(&front[..at]);
        self.buffer.extend_from_slice(key.unwrap_or_default());
        self.put_nullable(value);
        self.put_varint(headers.len() as i64);
        for (name, value) in headers {
            self.put_nullable(Some(name.as_bytes()));
            self.put_nullable(*value);
        }

        self.base_timestamp_ms = base_timestamp_ms;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.count += 1;
        Ok(())
    }

    #[cold]
    fn refuse(&self, record_bytes: usize) -> RecordError {
        let alone = record_bytes.saturating_add(BATCH_HEADER_BYTES);
        if alone > self.max_bytes {
            RecordError::RecordTooLarge {
                record_bytes: alone,
                max_bytes: self.max_bytes,
            }
        } else {
            RecordError::Full {
                max_bytes: self.max_bytes,
            }
        }
    }

    #[inline]
    fn put_varint(&mut self, value: i64) {
        if (0..64).contains(&value) {
            self.buffer.push((value as u8) << 1);
            return;
        }
        let mut out = [0u8; 10];
        let len = varint::put(&mut out, value);
        self.buffer.extend_from_slice(&out[..len]);
    }

    #[inline]
    fn put_nullable(&mut self, bytes: Option<&[u8]>) {
        self.put_varint(nullable_len(bytes));
        self.buffer.extend_from_slice(bytes.unwrap_or_default());
    }

    /// Whether no record was added yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    #[inline]
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Bytes of the batch so far, before compression, header included.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The batch, with base offset 0 and leader epoch -1. Fails when it is empty, or when the codec
    /// does.
    pub fn build(self) -> Result<Batch, RecordError> {
        if self.count == 0 {
            return Err(RecordError::Empty);
        }
        let compression = self.codec.compression;
        let mut bytes = match compression {
            Compression::None => self.buffer,
            _ => {
                let records = &self.buffer[BATCH_HEADER_BYTES..];
                let mut out = Vec::with_capacity(BATCH_HEADER_BYTES + records.len() / 2);
                out.resize(BATCH_HEADER_BYTES, 0);
                codec::compress(self.codec, records, &mut out)?;
                out
            }
        };
        let mut header = BatchHeader {
            base_offset: 0,
            // Compression can add a little; it cannot add what i32 lacks, as `max_bytes` is far below.
            batch_length: i32::try_from(bytes.len() - LENGTH_OVERHEAD_BYTES).map_err(|_| {
                RecordError::Full {
                    max_bytes: self.max_bytes,
                }
            })?,
            leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: compression.code() | self.attributes,
            last_offset_delta: self.count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.count,
        };
        if let Some(front) = bytes.first_chunk_mut::<BATCH_HEADER_BYTES>() {
            header.write(front);
        }
        header.crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_AT..CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
        Ok(Batch::built(header, Bytes::from(bytes)))
    }
}

#[inline]
fn nullable_len(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

#[inline]
fn nullable_size(bytes: Option<&[u8]>) -> usize {
    varint::size(nullable_len(bytes)) + bytes.map_or(0, <[u8]>::len)
}
