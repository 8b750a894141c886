//! What can go wrong in the log, in words that say where and what to do.

use std::io;
use std::path::{Path, PathBuf};

use mainstem_journal::Lsn;
use mainstem_record::RecordError;

use crate::PartitionId;

/// Every way in which the log refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The partition does not exist (any more).
    #[error("partition {partition} does not exist: it was never created, or its topic was deleted")]
    UnknownPartition {
        /// The partition asked for.
        partition: PartitionId,
    },
    /// A frame creates a partition whose id is taken.
    #[error(
        "partition {partition} cannot be created: its id is in use; partition ids are never used twice"
    )]
    PartitionExists {
        /// The partition to be created.
        partition: PartitionId,
    },
    /// The offset is below the log start or above the end.
    #[error(
        "offset {offset} of partition {partition} is out of range: it holds offsets {start} up to, not including, {end}"
    )]
    OffsetOutOfRange {
        /// The partition read.
        partition: PartitionId,
        /// The offset asked for.
        offset: i64,
        /// First offset that can be read.
        start: i64,
        /// First offset that cannot be read yet.
        end: i64,
    },
    /// An operation does not continue the partition where it ends: the journal and the log disagree.
    #[error(
        "frame {lsn} of partition {partition} names offset {got} where {expected} was due; the journal does not fit the log"
    )]
    NotDense {
        /// The partition written.
        partition: PartitionId,
        /// The frame.
        lsn: Lsn,
        /// The offset due.
        expected: i64,
        /// The offset named.
        got: i64,
    },
    /// Bytes on disk are not what was written.
    #[error("{} is damaged at position {position}: {what}; restore the file from a copy, or delete the topic", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes.
        position: u64,
        /// What was found.
        what: String,
    },
    /// Written by a newer version of this program.
    #[error(
        "{what} has version {version}, this program knows up to {supported}; use a newer program"
    )]
    NewerVersion {
        /// What was read.
        what: &'static str,
        /// Its version.
        version: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// Bytes that should be one of our own encodings are not.
    #[error("{what} cannot be decoded at byte {position}: {why}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Where in it, in bytes.
        position: usize,
        /// What was found.
        why: &'static str,
    },
    /// A frame refers to bytes in another place than where the partition's next batch belongs.
    #[error(
        "frame {lsn} of partition {partition} refers to position {position} of segment {segment_base_offset}, where the batch does not belong; the journal does not fit the log"
    )]
    Misplaced {
        /// The partition written.
        partition: PartitionId,
        /// The frame.
        lsn: Lsn,
        /// The segment named.
        segment_base_offset: i64,
        /// The position named, in bytes.
        position: u64,
    },
    /// A batch cannot be read.
    #[error("a batch of partition {partition} at offset {offset} is not valid: {source}")]
    Batch {
        /// The partition.
        partition: PartitionId,
        /// The offset, or where it was due.
        offset: i64,
        /// What the record crate says.
        source: RecordError,
    },
    /// An earlier write or sync failed, so nothing written since the last sync can be relied on.
    #[error("an earlier write to a segment failed; the log must be opened again through recovery")]
    Poisoned,
    /// The disk refused.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl LogError {
    /// Whether the reason is that the disk is full, so that the log can be opened again when there is space.
    pub fn is_full(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }

    /// The disk's error with what was being done, for `map_err`.
    pub(crate) fn io<'a>(
        action: &'static str,
        file: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            file: file.to_path_buf(),
            source,
        }
    }

    pub(crate) fn damaged(file: &Path, position: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_path_buf(),
            position,
            what: what.into(),
        }
    }
}
