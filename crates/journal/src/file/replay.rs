//! Reading groups back.

use crate::error::At;
use crate::frame::is_well_formed;
use crate::header::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader};
use crate::pool::too_roomy;
use crate::{BufferPool, DiskFile, Group, JournalError, Lsn, mutation};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Unused buffers kept while groups are read.
const READ_POOL_BYTES: usize = 8 << 20;

/// Reads single groups, in buffers that are used again.
pub(super) struct GroupReader {
    pool: BufferPool,
}

impl GroupReader {
    pub(super) fn new() -> GroupReader {
        GroupReader {
            pool: BufferPool::new(READ_POOL_BYTES),
        }
    }

    /// The group at `position` of a file of that incarnation, which ends at `limit`, with the checksum of its header;
    /// `None` if the bytes there are not a sound group.
    pub(super) fn read(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        incarnation: u64,
        position: u64,
        limit: u64,
    ) -> Result<Option<(GroupHeader, u32, Bytes)>, JournalError> {
        if position + BLOCK_BYTES as u64 > limit {
            return Ok(None);
        }
        let mut buffer = self.pool.take(16 * BLOCK_BYTES);
        // Most groups are small: one read fetches them whole.
        let ahead = (limit - position).min(16 * BLOCK_BYTES as u64) as usize;
        buffer.bytes.resize(ahead, 0);
        let read = file
            .read_at(&mut buffer.bytes, position)
            .at("reading", path)?;
        buffer.bytes.truncate(read);
        let Some((header, checksum)) = GroupHeader::read(&buffer.bytes, incarnation, position)
        else {
            return Ok(None);
        };
        if header.span_bytes() > limit - position {
            return Ok(None);
        }
        let end = GROUP_HEADER_BYTES + header.payload_bytes as usize;
        if end > read {
            let mut whole = self.pool.take(end);
            whole.bytes.extend_from_slice(&buffer.bytes);
            whole.bytes.resize(end, 0);
            let rest = file
                .read_at(&mut whole.bytes[read..], position + read as u64)
                .at("reading", path)?;
            if read + rest < end {
                return Ok(None);
            }
            buffer = whole;
        }
        // Whoever keeps a slice keeps the buffer: a small group does not keep a large one.
        let bytes = if too_roomy(buffer.bytes.capacity(), end) {
            Bytes::copy_from_slice(&buffer.bytes[..end])
        } else {
            buffer.freeze()
        };
        let payload = bytes.slice(GROUP_HEADER_BYTES..end);
        let is_whole = crc32c::crc32c(&payload) == header.payload_crc
            || mutation::active(mutation::TORN_TAIL_ACCEPTED);
        let sound = is_whole && is_well_formed(&payload, header.frames);
        Ok(sound.then_some((header, checksum, payload)))
    }
}

/// A part of a file whose groups are to be replayed.
pub(super) struct Stretch {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) incarnation: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The groups above the checkpoint, in order, read one at a time: memory holds one group and what the caller keeps. All
/// of them are durable. A view skips the frames that it has already.
pub struct Replay {
    stretches: std::vec::IntoIter<Stretch>,
    current: Option<Stretch>,
    reader: GroupReader,
    checkpoint: Lsn,
    last_lsn: Lsn,
    read_bytes: u64,
    total_bytes: u64,
}

impl Replay {
    pub(super) fn new(stretches: Vec<Stretch>, checkpoint: Lsn, last_lsn: Lsn) -> Replay {
        let total_bytes = stretches
            .iter()
            .map(|stretch| stretch.to - stretch.from)
            .sum();
        let mut stretches = stretches.into_iter();
        let current = stretches.next();
        Replay {
            stretches,
            current,
            reader: GroupReader::new(),
            checkpoint,
            last_lsn,
            read_bytes: 0,
            total_bytes,
        }
    }

    /// The next group, or `None` at the end.
    pub fn next_group(&mut self) -> Result<Option<Group>, JournalError> {
        while let Some(stretch) = &mut self.current {
            if stretch.from >= stretch.to {
                self.current = self.stretches.next();
                continue;
            }
            let Stretch {
                path,
                file,
                incarnation,
                from,
                to,
            } = stretch;
            let Some((header, _, payload)) =
                self.reader.read(&**file, path, *incarnation, *from, *to)?
            else {
                return Err(JournalError::Damaged {
                    file: path.clone(),
                    position: *from,
                    lsn: self.checkpoint.next(),
                    what: "a group that was sound a moment ago cannot be read".to_owned(),
                });
            };
            *from += header.span_bytes();
            self.read_bytes += header.span_bytes();
            if header.frames > 0 && header.last_lsn() > self.checkpoint {
                self.checkpoint = header.last_lsn();
                return Ok(Some(Group {
                    first_lsn: header.first_lsn,
                    frames: header.frames,
                    payload,
                }));
            }
        }
        Ok(None)
    }

    /// Bytes read so far, and bytes there are to read.
    pub fn progress(&self) -> (u64, u64) {
        (self.read_bytes, self.total_bytes)
    }

    /// The last LSN of the journal.
    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }
}
