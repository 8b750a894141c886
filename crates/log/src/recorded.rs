//! What a checkpoint keeps of a partition: the only source from which the log is opened.
//!
//! Encoding, big-endian: version `u8` (3), partition (16 + 4 bytes), state `u8`: 0 is removed, with nothing after
//! it; 1 is live, then start `i64`, end `i64`, count of segments `u32`, and for each: base offset `i64`, end
//! position `u64`, header checksum `u32`, largest timestamp `i64`, flags `u8` (1 sealed, 2 compacted), generation `u32`.
//! Then the partition's transactions as of its end: `u8` (1 if there ever was one), count `u32` of open ones and for each
//! producer id `i64`, epoch `i16`, first offset `i64`; count `u32` of aborted ones and for each producer id `i64`, first offset
//! `i64`, offset of the marker `i64`, last stable offset after it `i64`. Last a CRC-32C of all before it.
//! Older versions are still read: in version 2 there are no transactions, in version 1 moreover the flags are 0 or 1 and
//! there is no generation.

use crate::codec::{Reader, put_partition};
use crate::files::SegmentName;
use crate::{AbortedTransaction, LogError, OpenTransaction, PartitionId, RecordedTransactions};

const VERSION: u8 = 3;
const SEALED: u8 = 1;
const CLEANED: u8 = 2;
const WHAT: &str = "a partition's record in the checkpoint";

/// One partition as of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    /// Which.
    pub partition: PartitionId,
    /// What it was.
    pub state: PartitionState,
}

/// The state of a recorded partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// It exists.
    Live {
        /// First offset that can be read.
        start: i64,
        /// Offset after the last record.
        end: i64,
        /// Its segments, oldest first, without gaps.
        segments: Vec<SegmentRecord>,
        /// What is open there, and what was aborted.
        transactions: RecordedTransactions,
    },
    /// It was removed; its record can go.
    Removed,
}

/// One segment file as of a checkpoint. It ends where the next one begins, the last at the partition's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// First offset; with the generation the file's name.
    pub base_offset: i64,
    /// How often compaction has written it anew.
    pub generation: u32,
    /// Bytes of the file that count; what stands behind them is ignored and written again.
    pub end_position: u64,
    /// CRC-32C over all batch headers, in order.
    pub header_checksum: u32,
    /// Largest timestamp of all its batches.
    pub max_timestamp_ms: i64,
    /// Nothing is appended any more.
    pub sealed: bool,
    /// Compaction has been over it.
    pub cleaned: bool,
}

impl PartitionRecord {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.push(VERSION);
        put_partition(out, self.partition);
        match &self.state {
            PartitionState::Removed => out.push(0),
            PartitionState::Live {
                start,
                end,
                segments,
                transactions,
            } => {
                out.push(1);
                out.extend_from_slice(&start.to_be_bytes());
                out.extend_from_slice(&end.to_be_bytes());
                out.extend_from_slice(&(segments.len() as u32).to_be_bytes());
                for segment in segments {
                    segment.encode(out);
                }
                transactions.encode(out);
            }
        }
        let checksum = crc32c::crc32c(&out[begin..]);
        out.extend_from_slice(&checksum.to_be_bytes());
    }

    /// Reads one record, which must be all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let mut reader = Reader::new(WHAT, bytes);
        let version = reader.u8()?;
        if version > VERSION {
            return Err(LogError::NewerVersion {
                what: WHAT,
                version: version.into(),
                supported: VERSION.into(),
            });
        }
        let checked = bytes.len().saturating_sub(4);
        let stored = Reader::at(WHAT, bytes, checked).u32()?;
        if version == 0 || crc32c::crc32c(&bytes[..checked]) != stored {
            return Err(reader.bad("its checksum does not match"));
        }
        let partition = reader.partition()?;
        let state = if reader.bool()? {
            let (start, end) = (reader.i64()?, reader.i64()?);
            let mut segments = Vec::new();
            for _ in 0..reader.u32()? {
                segments.push(SegmentRecord::decode_version(&mut reader, version)?);
            }
            let transactions = match version {
                1 | 2 => RecordedTransactions::default(),
                _ => RecordedTransactions::decode(&mut reader)?,
            };
            PartitionState::Live {
                start,
                end,
                segments,
                transactions,
            }
        } else {
            PartitionState::Removed
        };
        reader.u32()?;
        reader.end()?;
        Ok(Self { partition, state })
    }
}

impl RecordedTransactions {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.any));
        out.extend_from_slice(&(self.open.len() as u32).to_be_bytes());
        for one in &self.open {
            out.extend_from_slice(&one.producer_id.to_be_bytes());
            out.extend_from_slice(&one.producer_epoch.to_be_bytes());
            out.extend_from_slice(&one.first_offset.to_be_bytes());
        }
        out.extend_from_slice(&(self.aborted.len() as u32).to_be_bytes());
        for one in &self.aborted {
            for number in [
                one.producer_id,
                one.first_offset,
                one.marker_offset,
                one.last_stable,
            ] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        let mut transactions = Self {
            any: reader.bool()?,
            ..Self::default()
        };
        for _ in 0..reader.u32()? {
            transactions.open.push(OpenTransaction {
                producer_id: reader.i64()?,
                producer_epoch: reader.i16()?,
                first_offset: reader.i64()?,
            });
        }
        for _ in 0..reader.u32()? {
            transactions.aborted.push(AbortedTransaction {
                producer_id: reader.i64()?,
                first_offset: reader.i64()?,
                marker_offset: reader.i64()?,
                last_stable: reader.i64()?,
            });
        }
        Ok(transactions)
    }
}

impl SegmentRecord {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&self.end_position.to_be_bytes());
        out.extend_from_slice(&self.header_checksum.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp_ms.to_be_bytes());
        out.push((SEALED * u8::from(self.sealed)) | (CLEANED * u8::from(self.cleaned)));
        out.extend_from_slice(&self.generation.to_be_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        Self::decode_version(reader, VERSION)
    }

    fn decode_version(reader: &mut Reader<'_>, version: u8) -> Result<Self, LogError> {
        let mut segment = Self {
            base_offset: reader.i64()?,
            generation: 0,
            end_position: reader.u64()?,
            header_checksum: reader.u32()?,
            max_timestamp_ms: reader.i64()?,
            sealed: false,
            cleaned: false,
        };
        let flags = reader.u8()?;
        let known = if version == 1 {
            SEALED
        } else {
            SEALED | CLEANED
        };
        if flags & !known != 0 {
            return Err(reader.bad("it has flags that are not known"));
        }
        (segment.sealed, segment.cleaned) = (flags & SEALED != 0, flags & CLEANED != 0);
        if version > 1 {
            segment.generation = reader.u32()?;
        }
        Ok(segment)
    }

    pub(crate) fn name(&self) -> SegmentName {
        SegmentName {
            base_offset: self.base_offset,
            generation: self.generation,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod tests {
    use super::*;
    use crate::tests::any_partition;
    use proptest::prelude::*;

    pub(crate) fn any_segment() -> impl Strategy<Value = SegmentRecord> {
        (
            any::<i64>(),
            any::<u64>(),
            any::<u32>(),
            any::<i64>(),
            any::<(bool, bool, u32)>(),
        )
            .prop_map(
                |(
                    base_offset,
                    end_position,
                    header_checksum,
                    max_timestamp_ms,
                    (sealed, cleaned, generation),
                )| {
                    SegmentRecord {
                        base_offset,
                        generation,
                        end_position,
                        header_checksum,
                        max_timestamp_ms,
                        sealed,
                        cleaned,
                    }
                },
            )
    }

    fn any_transactions() -> impl Strategy<Value = RecordedTransactions> {
        let open =
            any::<(i64, i16, i64)>().prop_map(|(producer_id, producer_epoch, first_offset)| {
                OpenTransaction {
                    producer_id,
                    producer_epoch,
                    first_offset,
                }
            });
        let aborted = any::<[i64; 4]>().prop_map(
            |[producer_id, first_offset, marker_offset, last_stable]| AbortedTransaction {
                producer_id,
                first_offset,
                marker_offset,
                last_stable,
            },
        );
        let lists = (
            any::<bool>(),
            prop::collection::vec(open, 0..3),
            prop::collection::vec(aborted, 0..3),
        );
        lists.prop_map(|(any, open, aborted)| RecordedTransactions { any, open, aborted })
    }

    fn any_record() -> impl Strategy<Value = PartitionRecord> {
        let live = (
            any::<i64>(),
            any::<i64>(),
            prop::collection::vec(any_segment(), 0..5),
            any_transactions(),
        )
            .prop_map(
                |(start, end, segments, transactions)| PartitionState::Live {
                    start,
                    end,
                    segments,
                    transactions,
                },
            );
        (
            any_partition(),
            prop_oneof![live, Just(PartitionState::Removed)],
        )
            .prop_map(|(partition, state)| PartitionRecord { partition, state })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_written(record in any_record()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(PartitionRecord::decode(&bytes).unwrap(), record);
        }

        #[test]
        fn a_changed_record_is_refused(record in any_record(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(PartitionRecord::decode(&bytes).is_err());
            bytes.truncate(at);
            prop_assert!(PartitionRecord::decode(&bytes).is_err());
        }

        #[test]
        fn a_record_of_version_2_is_still_read(segments in prop::collection::vec(any_segment(), 0..4)) {
            let partition = PartitionId::default();
            let record = |segments| PartitionRecord {
                partition,
                state: PartitionState::Live {
                    start: 1,
                    end: 2,
                    segments,
                    transactions: RecordedTransactions::default(),
                },
            };
            let mut bytes = Vec::new();
            record(segments.clone()).encode(&mut bytes);
            // Without the transactions, of which there are none.
            bytes.truncate(bytes.len() - 4 - 9);
            bytes[0] = 2;
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(PartitionRecord::decode(&bytes).unwrap(), record(segments));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = PartitionRecord::decode(&bytes);
        }
    }
}
