//! A validated batch, and how bytes become one.

use bytes::Bytes;

use crate::codec::{self, Compression};
use crate::header::{BATCH_HEADER_BYTES, BatchHeader, CRC_FROM, LENGTH_OVERHEAD_BYTES};
use crate::walk::{RecordView, Records, Views, Walk};
use crate::{RecordError, walk};

/// What [`Batch::payload`] and [`Batch::records`] decompress at most. A batch is accepted up to
/// `max.message.bytes` (1 MiB unless configured), so this allows ratios that honest data reaches.
pub const DEFAULT_DECOMPRESSED_LIMIT_BYTES: usize = 64 << 20;

/// One batch: its header and its bytes. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes exactly one batch, after checking all that can be checked without decompressing. Records
    /// that are not compressed are walked, without allocating; for the others see
    /// [`check_records`](Self::check_records).
    pub fn parse(bytes: Bytes) -> Result<Batch, RecordError> {
        let batch = Batch::trusted(bytes)?;
        batch.validate(true)?;
        Ok(batch)
    }

    /// Takes the first of the batches that stand one after another in `bytes`, as a log hands them out: checked as
    /// [`parse`](Self::parse) does, but records may be missing, up to all of them. `None` at the end. On an error `bytes` stays as it was; a batch
    /// that is only partly there is [`RecordError::Truncated`].
    pub fn split_first(bytes: &mut Bytes) -> Result<Option<Batch>, RecordError> {
        let rest = bytes.clone();
        let batch = Batch::split_first_trusted(bytes)?;
        if let Some(batch) = &batch
            && let Err(error) = batch.validate(false)
        {
            *bytes = rest;
            return Err(error);
        }
        Ok(batch)
    }

    /// Like [`split_first`](Self::split_first), for bytes that our own journal or segment vouch for:
    /// only the header is looked at.
    pub fn split_first_trusted(bytes: &mut Bytes) -> Result<Option<Batch>, RecordError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader::read(bytes)?;
        if header.size_bytes() > bytes.len() {
            return Err(RecordError::Truncated {
                needed_bytes: header.size_bytes(),
                have_bytes: bytes.len(),
            });
        }
        let bytes = bytes.split_to(header.size_bytes());
        Ok(Some(Batch { header, bytes }))
    }

    /// Takes exactly one batch that our own journal or segment vouch for: header and length are
    /// looked at, neither the CRC nor the records.
    pub fn trusted(mut bytes: Bytes) -> Result<Batch, RecordError> {
        match Batch::split_first_trusted(&mut bytes)? {
            Some(batch) if bytes.is_empty() => Ok(batch),
            Some(batch) => Err(RecordError::BadLength {
                claimed_bytes: batch.bytes.len() as i64,
                why: "leaves bytes after it where one batch alone was expected",
            }),
            None => Err(RecordError::Truncated {
                needed_bytes: BATCH_HEADER_BYTES,
                have_bytes: 0,
            }),
        }
    }

    /// For the builder, which made the header and the bytes together.
    pub(crate) fn built(header: BatchHeader, bytes: Bytes) -> Batch {
        Batch { header, bytes }
    }

    /// From a producer, batches are `dense`: with records, and without gaps.
    fn validate(&self, dense: bool) -> Result<(), RecordError> {
        let header = &self.header;
        let computed = crc32c::crc32c(&self.bytes[CRC_FROM..]);
        if computed != header.crc {
            return Err(RecordError::CrcMismatch {
                stored: header.crc,
                computed,
            });
        }
        let refuse = |why| Err(RecordError::BadHeader { why });
        if header.record_count < i32::from(dense) {
            return refuse("it has no records");
        }
        let span = header.record_count.max(1) - 1;
        if header.last_offset_delta < span || (dense && header.last_offset_delta != span) {
            return refuse("the last offset does not agree with the number of records");
        }
        if header.base_offset < 0
            || header
                .base_offset
                .checked_add(i64::from(header.last_offset_delta) + 1)
                .is_none()
        {
            return refuse("the base offset is out of range");
        }
        if header.compression() == Compression::None {
            walk::check(header, &self.bytes[BATCH_HEADER_BYTES..], dense)?;
        } else if self.bytes.len() == BATCH_HEADER_BYTES {
            return refuse("it is marked as compressed and has no data");
        }
        Ok(())
    }

    /// Checks every record of a compressed batch as [`parse`](Self::parse) does for one that is not.
    /// This decompresses: gateways that cannot trust their clients' records call it once.
    /// Answers how many bytes the records take when decompressed.
    pub fn check_records(&self, limit_bytes: usize) -> Result<usize, RecordError> {
        let payload = self.payload_within(limit_bytes)?;
        walk::check(&self.header, &payload.bytes, true)?;
        Ok(payload.size_bytes())
    }

    /// The same records with one time for all, which the log gives them (`message.timestamp.type=LogAppendTime`). Only the
    /// header changes, and the CRC with it; the bytes are copied.
    pub fn with_append_time(&self, now_ms: i64) -> Batch {
        let mut bytes = self.bytes.to_vec();
        let header = self.header.stamp(&mut bytes, now_ms);
        Batch {
            header,
            bytes: bytes.into(),
        }
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as it stands on the wire and on disk.
    #[inline]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, without a copy.
    #[inline]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Bytes of the whole batch.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records, as the header has it.
    #[inline]
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Offset of the first record.
    #[inline]
    pub fn base_offset(&self) -> i64 {
        self.header.base_offset
    }

    /// Offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> i64 {
        self.header.last_offset()
    }

    /// First offset after this batch.
    #[inline]
    pub fn next_offset(&self) -> i64 {
        self.header.next_offset()
    }

    /// The records' bytes, decompressed if need be, up to [`DEFAULT_DECOMPRESSED_LIMIT_BYTES`].
    pub fn payload(&self) -> Result<Payload, RecordError> {
        self.payload_within(DEFAULT_DECOMPRESSED_LIMIT_BYTES)
    }

    /// The records' bytes, decompressed if need be, up to a limit. Where nothing is compressed, this
    /// shares the batch's bytes and the limit does not matter.
    pub fn payload_within(&self, limit_bytes: usize) -> Result<Payload, RecordError> {
        let stored = self.bytes.slice(BATCH_HEADER_BYTES..);
        let bytes = match self.header.compression() {
            Compression::None => stored,
            codec => Bytes::from(codec::decompress(codec, &stored, limit_bytes)?),
        };
        Ok(Payload {
            header: self.header,
            bytes,
        })
    }

    /// The records, as slices of the (decompressed) batch.
    pub fn records(&self) -> Result<Records, RecordError> {
        Ok(self.payload()?.into_records())
    }

    /// Calls `each` with every record, borrowed, until it or the reading fails.
    pub fn for_each<E: From<RecordError>>(
        &self,
        mut each: impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for view in self.payload()?.views() {
            each(view?)?;
        }
        Ok(())
    }
}

/// A batch's records, decompressed and not yet taken apart.
#[derive(Debug, Clone)]
pub struct Payload {
    header: BatchHeader,
    bytes: Bytes,
}

impl Payload {
    /// The records, borrowed: nothing is allocated.
    #[inline]
    pub fn views(&self) -> Views<'_> {
        Views::new(Walk::new(&self.header), &self.bytes)
    }

    /// The records, each owning slices of these bytes.
    pub fn into_records(self) -> Records {
        Records::new(Walk::new(&self.header), self.bytes)
    }

    /// The records' bytes, one record after another.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of all records, decompressed.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

const _: () = assert!(CRC_FROM < BATCH_HEADER_BYTES && LENGTH_OVERHEAD_BYTES < CRC_FROM);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, TimestampType};

    #[test]
    fn the_logs_time_is_that_of_every_record_and_nothing_else_changes() {
        let mut builder = BatchBuilder::new(Compression::Lz4, 1000);
        for value in ["a", "b"] {
            builder
                .append(7, Some(b"k"), Some(value.as_bytes()), &[])
                .unwrap();
        }
        let sent = builder.build().unwrap();
        let timed = sent.with_append_time(99);
        let read = Batch::parse(timed.bytes().clone()).unwrap();
        assert_eq!(read, timed);
        assert_eq!(read.header().timestamp_type(), TimestampType::LogAppendTime);
        let records: Vec<_> = read.records().unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> = sent.records().unwrap().map(Result::unwrap).collect();
        for (record, expected) in records.iter().zip(&expected) {
            assert_eq!(record.timestamp_ms, 99);
            assert_eq!(
                (&record.key, &record.value),
                (&expected.key, &expected.value)
            );
        }
        assert_eq!(records.len(), 2);
        assert_eq!(
            sent.bytes()[BATCH_HEADER_BYTES..],
            timed.bytes()[BATCH_HEADER_BYTES..]
        );
    }
}
