//! Reading for a socket: what lies in memory as its bytes, what lies in a segment as a stretch of its file where the system
//! can send that by itself.

use bytes::Bytes;

use crate::log::Log;
use crate::read::{Collected, FoundInSegment, Room, Wanted, out_of_range};
use crate::segment::FileSlice;
use crate::{AbortedTransaction, LogError, PartitionId};

/// Whole batches, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// In memory.
    Memory(Bytes),
    /// In a segment's file.
    File(FileSlice),
}

impl Piece {
    /// How many bytes are left of it.
    pub fn len(&self) -> usize {
        match self {
            Piece::Memory(bytes) => bytes.len(),
            Piece::File(slice) => slice.len(),
        }
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Piece::Memory(bytes) => bytes.len(),
            Piece::File(_) => 0,
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Piece {
        Piece::Memory(bytes)
    }
}

/// How much is read, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLimits {
    /// Bytes altogether.
    pub max_bytes: usize,
    /// Bytes that are read into memory, or are there and are kept by this.
    pub max_memory_bytes: usize,
    /// The first batch comes whole, however large it is.
    pub at_least_one: bool,
    /// Up to the last stable offset, and not to the high watermark.
    pub stable: bool,
    /// Whether files may be looked into, which can take as long as the disk does.
    pub files: bool,
}

/// Why a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There is no more.
    AtEnd,
    /// There is more, for which there was no room, or which did not seem worth it.
    Full,
    /// The next batch stands in a file, and files were not to be looked into.
    AtFile,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// In offset order without gaps. The first may begin before the offset asked for.
    pub pieces: Vec<Piece>,
    /// Where reading goes on.
    pub next_offset: i64,
    /// Why it ended there.
    pub stopped: Stopped,
    /// First offset that can be read.
    pub start: i64,
    /// First offset that is not readable yet.
    pub high_watermark: i64,
    /// First offset of an open transaction, or the high watermark.
    pub last_stable: i64,
    /// Which transactions in the pieces were aborted, where stable records were asked for.
    pub aborted: Vec<AbortedTransaction>,
}

impl Log {
    /// As [`read`](Self::read) and [`read_stable`](Self::read_stable), for who sends the bytes to a socket.
    pub fn read_pieces(
        &self,
        partition: PartitionId,
        offset: i64,
        limits: &PieceLimits,
    ) -> Result<Pieces, LogError> {
        let found = self.shared.find(partition)?;
        let bounds = found.state.lock().bounds();
        let limit = match limits.stable {
            true => bounds.last_stable,
            false => bounds.high_watermark,
        };
        let wanted = Wanted {
            offset,
            snapshot: None,
            limit,
            room: Room {
                bytes: limits.max_bytes,
                memory_bytes: limits.max_memory_bytes,
            },
            at_least_one: limits.at_least_one,
        };
        let shelf = &self.shared.shelf;
        // The segment that the last piece is a slice of: what it left did not fit, or is too little.
        let mut sliced = None;
        let result = self.shared.collect(
            &found,
            bounds,
            &wanted,
            |segment, next, room, at_least_one| {
                if !limits.files {
                    return Ok(None);
                }
                if sliced == Some(segment.name()) {
                    return Ok(Some(FoundInSegment::nothing(next)));
                }
                if let Some((slice, next_offset)) = segment.slice(shelf, next, room.bytes, limit)? {
                    sliced = Some(segment.name());
                    return Ok(Some(FoundInSegment {
                        bytes: slice.len(),
                        memory_bytes: 0,
                        piece: Piece::File(slice),
                        next_offset,
                    }));
                }
                let room_bytes = room.in_memory();
                if !at_least_one && !segment.first_fits(shelf, next, room_bytes)? {
                    return Ok(Some(FoundInSegment::nothing(next)));
                }
                let read = segment.read(shelf, next, room_bytes, limit, at_least_one)?;
                Ok(Some(FoundInSegment {
                    bytes: read.bytes.len(),
                    memory_bytes: read.bytes.len(),
                    piece: Piece::Memory(read.bytes),
                    next_offset: read.next_offset,
                }))
            },
        );
        let Collected {
            pieces,
            next_offset,
            left_segment,
        } = self.explain(&found, offset, result)?;
        let aborted = match limits.stable && !pieces.is_empty() {
            false => Vec::new(),
            true => {
                let state = found.state.lock();
                // Records can go away under a reader, and what is known of them with them.
                if offset < state.start && !state.removed {
                    return Err(out_of_range(partition, offset, state.bounds()));
                }
                state.transactions.aborted(offset, next_offset)
            }
        };
        let stopped = match next_offset < limit {
            false => Stopped::AtEnd,
            true if left_segment => Stopped::AtFile,
            true => Stopped::Full,
        };
        Ok(Pieces {
            pieces,
            next_offset,
            stopped,
            start: bounds.start,
            high_watermark: bounds.high_watermark,
            last_stable: bounds.last_stable,
            aborted,
        })
    }
}
