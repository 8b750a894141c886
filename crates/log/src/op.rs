//! Operations on the log, as they stand in a frame's section.
//!
//! A section body is a run of operations. Each begins with one byte, its kind, and the partition it is about
//! (topic id, 16 bytes; index, 4 bytes); integers are big-endian:
//!
//! | kind | operation | then |
//! |---|---|---|
//! | 1 | append | length `u32`, the batch with base offset and leader epoch assigned |
//! | 2 | append reference | segment base offset `i64`, position `u64`, the batch's header (61 bytes) |
//! | 3 | create partition | nothing |
//! | 4 | remove partition | nothing |
//! | 5 | set start | the new log start `i64` |
//! | 6 | replace segments | count `u32` and names (base offset `i64`, generation `u32`) of those replaced, count `u32` and records of the new, as a checkpoint has them |
//! | 7 | append, to a new segment | as kind 1; the partition's segment before it is full |
//!
//! The kind is also the version: an operation that changes its shape gets a new number, and a number that is
//! not known here is refused as newer.

use bytes::Bytes;
use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader, assign};

use crate::codec::{Reader, put_partition};
use crate::files::SegmentName;
use crate::recorded::SegmentRecord;
use crate::{LogError, PartitionId};

const APPEND: u8 = 1;
const APPEND_REFERENCE: u8 = 2;
const CREATE_PARTITION: u8 = 3;
const REMOVE_PARTITION: u8 = 4;
const SET_START: u8 = 5;
const REPLACE_SEGMENTS: u8 = 6;
const APPEND_TO_NEW: u8 = 7;
const NEWEST_KIND: u8 = APPEND_TO_NEW;

const WHAT: &str = "a log operation in a frame";

/// An outcome that a frame carries for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOp {
    /// One batch, base offset and leader epoch assigned, at the partition's end.
    Append {
        /// Where.
        partition: PartitionId,
        /// The batch, byte for byte.
        batch: Bytes,
        /// It is the first of a new segment; see [`Layout`](crate::Layout).
        begins_segment: bool,
    },
    /// A batch whose bytes already stand, synced, in a segment.
    AppendReference(AppendReference),
    /// An empty partition that starts at offset 0.
    CreatePartition {
        /// Its id, never used before.
        partition: PartitionId,
    },
    /// The partition and all its records go away.
    RemovePartition {
        /// Which.
        partition: PartitionId,
    },
    /// Records below `offset` go away. A start that is not above the present one changes nothing.
    SetStart {
        /// Where.
        partition: PartitionId,
        /// The new log start.
        offset: i64,
    },
    /// Segments rewritten by compaction.
    ReplaceSegments(ReplaceSegments),
}

/// Where a batch's bytes stand, with its header, so that replay reads no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendReference {
    /// The partition.
    pub partition: PartitionId,
    /// Base offset of the segment that holds the bytes; where it is the batch's own, the batch begins that segment.
    pub segment_base_offset: i64,
    /// Where in the segment, in bytes.
    pub position: u64,
    /// The batch's header, base offset and leader epoch assigned.
    pub header: Bytes,
}

/// Which segments give way to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaceSegments {
    /// The partition.
    pub partition: PartitionId,
    /// Those that go: one after another, sealed, and in the record of a checkpoint before this frame.
    pub replaced: Vec<SegmentName>,
    /// Those that come, for the same offsets; already synced. One of the same name is the same file.
    pub with: Vec<SegmentRecord>,
}

/// Appends an `Append` to a section: copies the batch once and assigns offset and epoch in the copy.
pub fn encode_append(
    out: &mut Vec<u8>,
    partition: PartitionId,
    batch: &[u8],
    base_offset: i64,
    leader_epoch: i32,
    begins_segment: bool,
) {
    let at = begin_append(out, partition, batch, begins_segment);
    assign(&mut out[at..], base_offset, leader_epoch);
}

fn begin_append(
    out: &mut Vec<u8>,
    partition: PartitionId,
    batch: &[u8],
    begins_segment: bool,
) -> usize {
    out.reserve(25 + batch.len());
    out.push(if begins_segment {
        APPEND_TO_NEW
    } else {
        APPEND
    });
    put_partition(out, partition);
    out.extend_from_slice(&(batch.len() as u32).to_be_bytes());
    let at = out.len();
    out.extend_from_slice(batch);
    at
}

impl LogOp {
    /// The partition this is about.
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Append { partition, .. }
            | Self::CreatePartition { partition }
            | Self::RemovePartition { partition }
            | Self::SetStart { partition, .. } => *partition,
            Self::AppendReference(reference) => reference.partition,
            Self::ReplaceSegments(replace) => replace.partition,
        }
    }

    /// Appends this operation to a section's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = |out: &mut Vec<u8>, kind| {
            out.push(kind);
            put_partition(out, self.partition());
        };
        match self {
            Self::Append {
                partition,
                batch,
                begins_segment,
            } => {
                begin_append(out, *partition, batch, *begins_segment);
            }
            Self::AppendReference(reference) => {
                debug_assert_eq!(reference.header.len(), BATCH_HEADER_BYTES);
                begin(out, APPEND_REFERENCE);
                out.extend_from_slice(&reference.segment_base_offset.to_be_bytes());
                out.extend_from_slice(&reference.position.to_be_bytes());
                out.extend_from_slice(&reference.header);
            }
            Self::CreatePartition { .. } => begin(out, CREATE_PARTITION),
            Self::RemovePartition { .. } => begin(out, REMOVE_PARTITION),
            Self::SetStart { offset, .. } => {
                begin(out, SET_START);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::ReplaceSegments(replace) => {
                begin(out, REPLACE_SEGMENTS);
                out.extend_from_slice(&(replace.replaced.len() as u32).to_be_bytes());
                for name in &replace.replaced {
                    out.extend_from_slice(&name.base_offset.to_be_bytes());
                    out.extend_from_slice(&name.generation.to_be_bytes());
                }
                out.extend_from_slice(&(replace.with.len() as u32).to_be_bytes());
                for segment in &replace.with {
                    segment.encode(out);
                }
            }
        }
    }

    /// Walks a section's body. Batches are slices of it, nothing is copied; the first error ends the walk.
    pub fn decode_all(body: &Bytes) -> LogOps {
        LogOps {
            body: body.clone(),
            at: 0,
        }
    }
}

/// The operations of one section, in order.
pub struct LogOps {
    body: Bytes,
    at: usize,
}

impl Iterator for LogOps {
    type Item = Result<LogOp, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let mut reader = Reader::at(WHAT, &self.body, self.at);
        let result = decode(&self.body, &mut reader);
        self.at = if result.is_ok() {
            reader.position()
        } else {
            self.body.len()
        };
        Some(result)
    }
}

fn decode(body: &Bytes, reader: &mut Reader<'_>) -> Result<LogOp, LogError> {
    let kind = reader.u8()?;
    if kind > NEWEST_KIND {
        return Err(LogError::NewerVersion {
            what: WHAT,
            version: kind.into(),
            supported: NEWEST_KIND.into(),
        });
    }
    let partition = reader.partition()?;
    Ok(match kind {
        APPEND | APPEND_TO_NEW => {
            let length = reader.u32()? as usize;
            LogOp::Append {
                partition,
                batch: reader.slice_of(body, length)?,
                begins_segment: kind == APPEND_TO_NEW,
            }
        }
        APPEND_REFERENCE => LogOp::AppendReference(AppendReference {
            partition,
            segment_base_offset: reader.i64()?,
            position: reader.u64()?,
            header: {
                let header = reader.slice_of(body, BATCH_HEADER_BYTES)?;
                BatchHeader::read(&header)
                    .map_err(|_| reader.bad("a referenced batch's header is not valid"))?;
                header
            },
        }),
        CREATE_PARTITION => LogOp::CreatePartition { partition },
        REMOVE_PARTITION => LogOp::RemovePartition { partition },
        SET_START => LogOp::SetStart {
            partition,
            offset: reader.i64()?,
        },
        REPLACE_SEGMENTS => {
            // Counts are not trusted with an allocation: each entry is read before room for it is made.
            let mut replaced = Vec::new();
            for _ in 0..reader.u32()? {
                replaced.push(SegmentName {
                    base_offset: reader.i64()?,
                    generation: reader.u32()?,
                });
            }
            let mut with = Vec::new();
            for _ in 0..reader.u32()? {
                with.push(SegmentRecord::decode(reader)?);
            }
            LogOp::ReplaceSegments(ReplaceSegments {
                partition,
                replaced,
                with,
            })
        }
        _ => return Err(reader.bad("0 is no kind of operation")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::recorded::tests::any_segment;
    use crate::tests::{any_partition, batch};
    use proptest::prelude::*;

    fn any_op() -> impl Strategy<Value = LogOp> {
        let header = || batch(3, &[1, 2]).slice(..BATCH_HEADER_BYTES);
        prop_oneof![
            (any_partition(), 0..i64::MAX / 2, 1..5_usize, any::<bool>()).prop_map(
                |(partition, base, count, begins_segment)| LogOp::Append {
                    partition,
                    batch: batch(base, &vec![7; count]),
                    begins_segment,
                }
            ),
            (any_partition(), any::<i64>(), any::<u64>()).prop_map(
                move |(partition, segment_base_offset, position)| {
                    LogOp::AppendReference(AppendReference {
                        partition,
                        segment_base_offset,
                        position,
                        header: header(),
                    })
                }
            ),
            any_partition().prop_map(|partition| LogOp::CreatePartition { partition }),
            any_partition().prop_map(|partition| LogOp::RemovePartition { partition }),
            (any_partition(), any::<i64>())
                .prop_map(|(partition, offset)| LogOp::SetStart { partition, offset }),
            (
                any_partition(),
                prop::collection::vec(any_segment(), 0..4),
                prop::collection::vec(any_segment(), 0..4)
            )
                .prop_map(|(partition, replaced, with)| LogOp::ReplaceSegments(
                    ReplaceSegments {
                        partition,
                        replaced: replaced.iter().map(SegmentRecord::name).collect(),
                        with
                    }
                )),
        ]
    }

    proptest! {
        #[test]
        fn sections_are_read_as_written(ops in prop::collection::vec(any_op(), 0..8)) {
            let mut body = Vec::new();
            ops.iter().for_each(|op| op.encode(&mut body));
            let read: Result<Vec<_>, _> = LogOp::decode_all(&body.into()).collect();
            prop_assert_eq!(read.unwrap(), ops);
        }

        #[test]
        fn a_cut_section_is_an_error(op in any_op(), cut in 1..20_usize) {
            let mut body = Vec::new();
            op.encode(&mut body);
            body.truncate(body.len().saturating_sub(cut).max(1));
            let read: Vec<_> = LogOp::decode_all(&body.into()).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert!(read[0].is_err());
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            LogOp::decode_all(&body.into()).for_each(drop);
        }
    }

    #[test]
    fn encode_append_assigns_offset_and_epoch_in_the_copy() {
        let (partition, given) = (PartitionId::default(), batch(0, &[1, 2, 3]));
        let mut body = Vec::new();
        encode_append(&mut body, partition, &given, 42, 7, false);
        let read = LogOp::decode_all(&body.into()).next().unwrap().unwrap();
        let LogOp::Append { batch: kept, .. } = read else {
            panic!("{read:?}")
        };
        let header = BatchHeader::read(&kept).unwrap();
        assert_eq!(
            (
                header.base_offset,
                header.leader_epoch,
                header.last_offset()
            ),
            (42, 7, 44)
        );
        mainstem_record::Batch::parse(kept).expect("its CRC still holds");
        assert_eq!(
            BatchHeader::read(&given).unwrap().base_offset,
            0,
            "the original is untouched"
        );
    }

    #[test]
    fn a_kind_not_known_here_is_newer() {
        let body = Bytes::from_static(&[NEWEST_KIND + 1; 30]);
        let error = LogOp::decode_all(&body).next().unwrap().unwrap_err();
        assert!(matches!(error, LogError::NewerVersion { .. }), "{error}");
    }
}
