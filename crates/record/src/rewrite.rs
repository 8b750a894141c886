//! A batch written anew: in another codec, or without some of its records, as compaction leaves it behind.
//!
//! In another codec nothing else changes: header fields and the records' bytes are the producer's.
//!
//! What Kafka's cleaner keeps is kept: base offset, last offset delta, leader epoch, producer, epoch and base sequence,
//! codec; and every kept record's offset, time and bytes. Offsets that are gone leave gaps inside of the batch.
//!
//! A batch that holds tombstones is marked with the time until which they stay (KIP-534): bit 6 of the attributes says
//! that the base timestamp is that time, and the records' deltas are relative to it.

use bytes::Bytes;

use crate::codec::{self, Codec, Compression};
use crate::header::{BATCH_HEADER_BYTES, BatchHeader, CRC_AT, CRC_FROM, LENGTH_OVERHEAD_BYTES};
use crate::varint::{self, Cursor};
use crate::walk::{self, RecordView};
use crate::{Batch, RecordError, TimestampType};

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// All of it: the bytes stay as they are.
    All,
    /// Some records, or all of them under a new mark.
    Some(Batch),
    /// No record.
    Nothing,
}

impl Batch {
    /// The same records in that codec, after a look at each as [`check_records`](Self::check_records) does it, decompressing
    /// up to `limit_bytes`. A batch that is in the codec already is kept byte for byte, whatever its level. Also says how
    /// many bytes the records take when they are not compressed.
    ///
    /// All but codec, length and CRC stays: offsets, times, producer, epoch and sequence, and every byte of the records.
    pub fn recompress(
        &self,
        codec: Codec,
        limit_bytes: usize,
    ) -> Result<(Batch, usize), RecordError> {
        let payload = self.payload_within(limit_bytes)?;
        if self.header().compression() != Compression::None {
            walk::check(self.header(), payload.bytes(), true)?;
        }
        let batch = match self.header().compression() == codec.compression {
            true => self.clone(),
            false => {
                let header = self.header().with_compression(codec.compression);
                assemble(header, codec, payload.bytes())?
            }
        };
        Ok((batch, payload.size_bytes()))
    }

    /// Keeps only the records that `keep` says yes to, decompressing up to `limit_bytes`. With `delete_horizon_ms` the
    /// batch is marked as one whose tombstones stay until then.
    pub fn retain(
        &self,
        limit_bytes: usize,
        delete_horizon_ms: Option<i64>,
        mut keep: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Retained, RecordError> {
        let header = self.header();
        let payload = self.payload_within(limit_bytes)?;
        let stored = payload.bytes();
        let mut views = payload.views();
        // Nothing is copied before something has to change.
        let mut records = delete_horizon_ms.map(|_| Vec::with_capacity(stored.len()));
        let (mut count, mut max_timestamp_ms) = (0, i64::MIN);
        loop {
            let from = views.position();
            let Some(view) = views.next() else { break };
            let view = view?;
            let record = stored.get(from..views.position()).unwrap_or_default();
            if !keep(&view) {
                records.get_or_insert_with(|| stored.get(..from).unwrap_or_default().to_vec());
                continue;
            }
            count += 1;
            max_timestamp_ms = max_timestamp_ms.max(view.timestamp_ms);
            match (&mut records, delete_horizon_ms) {
                (Some(records), None) => records.extend_from_slice(record),
                (Some(records), Some(base_ms)) => rebase(records, record, header, base_ms)?,
                (None, _) => {}
            }
        }
        let Some(records) = records else {
            return Ok(Retained::All);
        };
        if count == 0 {
            return Ok(Retained::Nothing);
        }
        if header.timestamp_type() == TimestampType::LogAppendTime {
            max_timestamp_ms = header.max_timestamp_ms;
        }
        let mut header = BatchHeader {
            record_count: count,
            max_timestamp_ms,
            ..*header
        };
        if let Some(horizon_ms) = delete_horizon_ms {
            header.set_delete_horizon(horizon_ms);
        }
        assemble(header, header.compression().into(), &records).map(Retained::Some)
    }

    /// A batch without records that stands for the offsets from `base_offset` to `last_offset`, less than 2^31, all of
    /// which are gone; `max_timestamp_ms` was the largest timestamp there.
    pub fn empty(
        base_offset: i64,
        last_offset: i64,
        max_timestamp_ms: i64,
    ) -> Result<Batch, RecordError> {
        let last_offset_delta = i32::try_from(last_offset - base_offset)
            .ok()
            .filter(|delta| *delta >= 0)
            .ok_or(RecordError::BadHeader {
                why: "a batch spans from 1 to 2^31 offsets",
            })?;
        let header = BatchHeader {
            base_offset,
            batch_length: 0,
            leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta,
            base_timestamp_ms: max_timestamp_ms,
            max_timestamp_ms,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        };
        assemble(header, Compression::None.into(), &[])
    }
}

/// Copies a record under another base timestamp.
fn rebase(
    out: &mut Vec<u8>,
    record: &[u8],
    header: &BatchHeader,
    base_timestamp_ms: i64,
) -> Result<(), RecordError> {
    const BAD: RecordError = RecordError::BadRecord {
        index: 0,
        why: "it is shorter than its fields",
    };
    let mut cursor = Cursor::new(record, 0);
    cursor.varint().ok_or(BAD)?;
    let attributes = cursor.byte().ok_or(BAD)?;
    let delta = cursor.varlong().ok_or(BAD)?;
    let rest = record.get(cursor.at..).unwrap_or_default();
    // As in Java: both the subtraction and its reversal wrap.
    let delta = header
        .base_timestamp_ms
        .wrapping_add(delta)
        .wrapping_sub(base_timestamp_ms);
    let body = 1 + varint::size(delta) + rest.len();
    let mut front = [0; 21];
    let mut at = varint::put(&mut front, body as i64);
    front[at] = attributes;
    at += 1;
    at += varint::put(&mut front[at..], delta);
    out.extend_from_slice(&front[..at]);
    out.extend_from_slice(rest);
    Ok(())
}

/// Header and records, compressed with the codec that the header names, with length and checksum.
fn assemble(mut header: BatchHeader, codec: Codec, records: &[u8]) -> Result<Batch, RecordError> {
    let expected_bytes = match codec.compression {
        Compression::None => records.len(),
        _ => records.len() / 2,
    };
    let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES + expected_bytes);
    bytes.resize(BATCH_HEADER_BYTES, 0);
    codec::compress(codec, records, &mut bytes)?;
    let max_bytes = i32::MAX as usize;
    header.batch_length = i32::try_from(bytes.len() - LENGTH_OVERHEAD_BYTES)
        .map_err(|_| RecordError::Full { max_bytes })?;
    if let Some(front) = bytes.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        header.write(front);
    }
    header.crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
    Ok(Batch::built(header, Bytes::from(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, assign};
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn any_codec() -> impl Strategy<Value = Compression> {
        prop_oneof![
            Just(Compression::None),
            Just(Compression::Gzip),
            Just(Compression::Snappy),
            Just(Compression::Lz4),
            Just(Compression::Zstd),
        ]
    }

    /// Time, key and value.
    type Parts = (i64, Option<u8>, Option<Vec<u8>>);

    fn batch(codec: Compression, records: &[Parts]) -> Batch {
        let mut builder = BatchBuilder::new(codec, LIMIT);
        builder.producer(7, 3, 100);
        for (timestamp_ms, key, value) in records {
            let key = key.map(|key| [key]);
            let key = key.as_ref().map(|key| &key[..]);
            let headers = [("h", Some(&b"v"[..])), ("n", None)];
            builder
                .append(*timestamp_ms, key, value.as_deref(), &headers)
                .unwrap();
        }
        let mut bytes = builder.build().unwrap().bytes().to_vec();
        assign(&mut bytes, 1_000, 5);
        Batch::parse(bytes.into()).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_as_it_was(
            codec in any_codec(),
            records in prop::collection::vec(
                (any::<i64>(), any::<Option<u8>>(), any::<Option<Vec<u8>>>()), 1..20),
            kept in prop::collection::vec(any::<bool>(), 20),
            horizon in any::<Option<i64>>(),
        ) {
            let before = batch(codec, &records);
            let keep = |offset: i64| kept[(offset - 1_000) as usize];
            let due: Vec<_> = before.records().unwrap().map(Result::unwrap)
                .filter(|record| keep(record.offset)).collect();
            let after = before.retain(LIMIT, horizon, |view| keep(view.offset)).unwrap();
            let after = match after {
                Retained::Nothing => return { prop_assert!(due.is_empty()); Ok(()) },
                Retained::All => {
                    prop_assert!(horizon.is_none() && due.len() == records.len());
                    return Ok(());
                }
                Retained::Some(after) => after,
            };
            // Read as any reader reads it.
            let mut bytes = after.bytes().clone();
            let after = Batch::split_first(&mut bytes).unwrap().unwrap();
            prop_assert!(bytes.is_empty());
            let found: Vec<_> = after.records().unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(&found, &due);
            let (old, new) = (before.header(), after.header());
            prop_assert_eq!(
                (new.base_offset, new.last_offset_delta, new.leader_epoch, new.producer_id, new.producer_epoch, new.base_sequence),
                (old.base_offset, old.last_offset_delta, old.leader_epoch, old.producer_id, old.producer_epoch, old.base_sequence)
            );
            prop_assert_eq!(new.compression(), codec);
            prop_assert_eq!(new.delete_horizon_ms(), horizon);
            prop_assert_eq!(Some(new.max_timestamp_ms), due.iter().map(|record| record.timestamp_ms).max());
            prop_assert!(Batch::parse(after.bytes().clone()).is_err() == (due.len() < records.len()), "producers send no gaps");
        }
    }

    proptest! {
        #[test]
        fn another_codec_changes_nothing_else(
            from in any_codec(),
            to in any_codec(),
            level in prop_oneof![Just(None), (-7..=23).prop_map(Some)],
            records in prop::collection::vec(
                (any::<i64>(), any::<Option<u8>>(), any::<Option<Vec<u8>>>()), 1..20),
            is_transactional in any::<bool>(),
        ) {
            let mut before = batch(from, &records);
            if is_transactional {
                let mut bytes = before.bytes().to_vec();
                bytes[22] |= 1 << 4;
                let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
                bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
                before = Batch::parse(bytes.into()).unwrap();
            }
            let codec = Codec { compression: to, level };
            let (after, plain_bytes) = before.recompress(codec, LIMIT).unwrap();
            // Read as any reader reads it.
            let after = Batch::parse(after.into_bytes()).unwrap();
            let (old, new) = (before.payload().unwrap(), after.payload().unwrap());
            prop_assert_eq!(old.bytes(), new.bytes());
            prop_assert_eq!(plain_bytes, old.bytes().len());
            prop_assert_eq!(new.size_bytes(), plain_bytes);
            prop_assert_eq!(after.header().compression(), to);
            if from == to {
                prop_assert_eq!(&after, &before);
            }
            let aside = |header: &BatchHeader| BatchHeader {
                batch_length: 0,
                crc: 0,
                ..header.with_compression(Compression::None)
            };
            prop_assert_eq!(aside(after.header()), aside(before.header()));
            prop_assert_eq!(after.header().is_transactional(), is_transactional);
        }
    }

    /// Text that compresses, of about a megabyte.
    fn large(codec: impl Into<Codec>) -> Batch {
        let mut builder = BatchBuilder::new(codec, 2 << 20);
        for n in 0..20_000_i64 {
            let value = format!("{n} {} {}", n * n % 7919, n * n * n % 104_729).repeat(3);
            builder
                .append(n, None, Some(value.as_bytes()), &[])
                .unwrap();
        }
        builder.build().unwrap()
    }

    #[test]
    fn a_level_decides_how_small_it_becomes() {
        let plain = large(Compression::None);
        for (compression, light, hard) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -100, 22)]
        {
            let size = |level| {
                let codec = Codec {
                    compression,
                    level: Some(level),
                };
                let (batch, _) = plain.recompress(codec, 0).unwrap();
                let records: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
                assert_eq!(records.len(), 20_000);
                assert_eq!(batch, large(codec), "a builder does the same");
                batch.size_bytes()
            };
            assert!(
                size(hard) * 10 < size(light) * 9,
                "{compression}: {} and {}",
                size(hard),
                size(light)
            );
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_whole() {
        let mut builder = BatchBuilder::new(Compression::Zstd, 32 << 20);
        builder
            .append(0, None, Some(&vec![0; 16 << 20]), &[])
            .unwrap();
        let bomb = builder.build().unwrap();
        assert!(bomb.size_bytes() < 4096);
        let refused = bomb
            .recompress(Compression::None.into(), 1 << 20)
            .unwrap_err();
        assert_eq!(
            refused,
            RecordError::DecompressedTooLarge {
                limit_bytes: 1 << 20
            }
        );
    }

    #[test]
    fn records_that_lie_are_found_on_the_way() {
        let good = batch(Compression::None, &[(5, None, None), (6, None, None)]);
        // The second record's offset becomes that of the first.
        let mut payload = good.payload().unwrap().bytes().to_vec();
        let second = payload.len() / 2;
        payload[second + 3] = 0;
        let header = good.header().with_compression(Compression::Gzip);
        let lying = assemble(header, Compression::Gzip.into(), &payload).unwrap();
        assert!(
            Batch::parse(lying.bytes().clone()).is_ok(),
            "it is compressed"
        );
        for codec in [Compression::Gzip, Compression::None] {
            let refused = lying.recompress(codec.into(), LIMIT).unwrap_err();
            assert!(
                matches!(refused, RecordError::BadRecord { index: 1, .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_empty_batch_stands_for_offsets_that_are_gone() {
        let batch = Batch::empty(10, 14, 99).unwrap();
        assert_eq!(batch.header().max_timestamp_ms, 99);
        let mut bytes = batch.bytes().clone();
        let read = Batch::split_first(&mut bytes).unwrap().unwrap();
        assert_eq!(
            (read.base_offset(), read.next_offset(), read.record_count()),
            (10, 15, 0)
        );
        assert_eq!(read.records().unwrap().count(), 0);
        assert!(
            Batch::parse(batch.bytes().clone()).is_err(),
            "producers send records"
        );
        assert!(Batch::empty(10, 9, 0).is_err() && Batch::empty(0, 1 << 31, 0).is_err());
    }
}
