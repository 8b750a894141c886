//! Groups: the frames that one sync makes durable.

use crate::frame::{FRAME_HEADER_BYTES, SECTION_HEADER_BYTES};
use crate::header::{BLOCK_BYTES, GROUP_HEADER_BYTES};
use crate::pool::{PooledBuffer, too_roomy};
use crate::{BufferPool, Frames, Lsn, View};
use bytes::Bytes;

/// Unused buffers that a builder keeps when it is not given a pool.
const DEFAULT_POOL_BYTES: usize = 64 << 20;

/// Builds groups, one after the other, in buffers that are used again.
///
/// ```
/// # use mainstem_journal::{GroupBuilder, Lsn, View};
/// let mut builder = GroupBuilder::new();
/// builder.begin_frame(Lsn(1));
/// builder.section(7, View::Log, |out| out.extend_from_slice(b"append"));
/// builder.end_frame();
/// let group = builder.seal();
/// assert_eq!((group.first_lsn(), group.last_lsn()), (Lsn(1), Lsn(1)));
/// assert!(builder.is_empty());
/// ```
pub struct GroupBuilder {
    pool: BufferPool,
    buffer: Option<PooledBuffer>,
    first_lsn: Lsn,
    frames: u32,
    /// Checksum of the frames that have ended.
    payload_crc: u32,
    /// Where the frame that is being written began.
    open_frame: Option<usize>,
    /// Asked for by [`GroupBuilder::reserve`] before there was a buffer.
    reserved_bytes: usize,
}

impl Default for GroupBuilder {
    fn default() -> GroupBuilder {
        GroupBuilder::new()
    }
}

impl GroupBuilder {
    /// A builder with a pool of its own.
    pub fn new() -> GroupBuilder {
        GroupBuilder::with_pool(BufferPool::new(DEFAULT_POOL_BYTES))
    }

    /// A builder that takes its buffers from `pool`.
    pub fn with_pool(pool: BufferPool) -> GroupBuilder {
        GroupBuilder {
            pool,
            buffer: None,
            first_lsn: Lsn::ZERO,
            frames: 0,
            payload_crc: 0,
            open_frame: None,
            reserved_bytes: 0,
        }
    }

    /// Makes room for `bytes` more of payload, so that a large group is written into one buffer from the start.
    pub fn reserve(&mut self, bytes: usize) {
        match &mut self.buffer {
            Some(buffer) => buffer.bytes.reserve(bytes + BLOCK_BYTES),
            None => self.reserved_bytes = bytes + 2 * BLOCK_BYTES,
        }
    }

    /// Begins a frame. LSNs of a group are dense.
    pub fn begin_frame(&mut self, lsn: Lsn) {
        assert!(self.open_frame.is_none(), "the frame before has not ended");
        if self.frames == 0 {
            self.first_lsn = lsn;
        }
        assert_eq!(
            lsn.0,
            self.first_lsn.0 + u64::from(self.frames),
            "the LSNs of a group are dense"
        );
        let out = self.out();
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        self.open_frame = Some(start);
    }

    /// Adds a section to the frame: `write` appends the body to the group's own buffer and changes nothing that is
    /// already there.
    pub fn section<R>(
        &mut self,
        shard: u16,
        view: View,
        write: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        assert!(self.open_frame.is_some(), "a section stands in a frame");
        let out = self.out();
        let start = out.len();
        out.extend_from_slice(&shard.to_le_bytes());
        out.push(view as u8);
        out.extend_from_slice(&[0; 4]);
        let answer = write(out);
        let body = start + SECTION_HEADER_BYTES;
        let length = length_u32(out.len() - body);
        out[body - 4..body].copy_from_slice(&length.to_le_bytes());
        answer
    }

    /// Ends the frame.
    pub fn end_frame(&mut self) {
        let before = self.payload_crc;
        let start = self.open_frame.take();
        let start = start.unwrap_or_else(|| panic!("a frame ends after it began"));
        let out = self.out();
        let body = start + FRAME_HEADER_BYTES;
        let length = length_u32(out.len() - body);
        out[start..body].copy_from_slice(&length.to_le_bytes());
        // Now, while the frame is still in the processor's cache.
        let payload_crc = crc32c::crc32c_append(before, &out[start..]);
        self.payload_crc = payload_crc;
        self.frames += 1;
    }

    /// Drops the frame that was begun, as if it had not been.
    pub fn rollback_frame(&mut self) {
        if let Some(start) = self.open_frame.take() {
            self.out().truncate(start);
        }
    }

    /// Bytes of all frames so far, the open one included.
    pub fn payload_bytes(&self) -> usize {
        self.buffer
            .as_ref()
            .map_or(0, |buffer| buffer.as_ref().len() - GROUP_HEADER_BYTES)
    }

    /// Frames that have ended.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether no frame has ended.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Closes the group and begins the next.
    pub fn seal(&mut self) -> SealedGroup {
        assert!(
            self.open_frame.is_none() && self.frames > 0,
            "a group holds at least one frame, all of them ended"
        );
        self.out();
        let mut buffer = self
            .buffer
            .take()
            .unwrap_or_else(|| unreachable!("made by out()"));
        let end = buffer.as_ref().len();
        let padded = end.next_multiple_of(BLOCK_BYTES);
        // Readers keep slices of this buffer, and with them all of it: a small group does not keep a large one.
        if too_roomy(buffer.bytes.capacity(), padded) {
            let mut small = self.pool.take(padded);
            small.bytes.extend_from_slice(buffer.as_ref());
            buffer = small;
        }
        buffer.bytes.reserve_exact(padded - end);
        buffer.bytes.resize(padded, 0);
        self.pool.learn(padded);
        self.reserved_bytes = 0;
        let payload_crc = std::mem::take(&mut self.payload_crc);
        let frames = std::mem::take(&mut self.frames);
        SealedGroup {
            buffer,
            first_lsn: self.first_lsn,
            frames,
            payload_bytes: end - GROUP_HEADER_BYTES,
            payload_crc,
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        let buffer = self.buffer.get_or_insert_with(|| {
            let mut buffer = self
                .pool
                .take(self.reserved_bytes.max(self.pool.expected_bytes()));
            buffer.bytes.resize(GROUP_HEADER_BYTES, 0);
            buffer
        });
        &mut buffer.bytes
    }
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or_else(|_| {
        panic!("a section or frame of {length} bytes passes the limit of 4 GiB")
    })
}

/// A group that is ready to be made durable. It cannot be read: nothing is visible before it is durable.
pub struct SealedGroup {
    /// Room for the header, payload, zeros up to the next block.
    pub(crate) buffer: PooledBuffer,
    pub(crate) first_lsn: Lsn,
    pub(crate) frames: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) payload_crc: u32,
}

impl SealedGroup {
    /// The LSN of its first frame.
    pub fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }

    /// The LSN of its last frame.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.frames) - 1)
    }

    /// The number of frames.
    pub fn frame_count(&self) -> u32 {
        self.frames
    }

    /// Size of all frames.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// The group as it will be once it is durable: for a mutation that shows it too early.
    #[cfg(feature = "mutations")]
    pub fn preview(&self) -> Group {
        let end = GROUP_HEADER_BYTES + self.payload_bytes;
        Group {
            first_lsn: self.first_lsn,
            frames: self.frames,
            payload: Bytes::copy_from_slice(&self.buffer.as_ref()[GROUP_HEADER_BYTES..end]),
        }
    }

    /// What it takes on disk: a header, the frames, and zeros up to the next block.
    pub fn disk_bytes(&self) -> usize {
        self.buffer.as_ref().len()
    }

    /// What the group is once it is durable.
    pub(crate) fn into_durable(self) -> Group {
        let end = GROUP_HEADER_BYTES + self.payload_bytes;
        let (first_lsn, frames) = (self.first_lsn, self.frames);
        Group {
            first_lsn,
            frames,
            payload: self.buffer.freeze().slice(GROUP_HEADER_BYTES..end),
        }
    }
}

/// A durable group: one or more frames in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub(crate) first_lsn: Lsn,
    pub(crate) frames: u32,
    pub(crate) payload: Bytes,
}

impl Group {
    /// The LSN of its first frame.
    pub fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }

    /// The LSN of its last frame.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.frames) - 1)
    }

    /// The number of frames.
    pub fn frame_count(&self) -> u32 {
        self.frames
    }

    /// Size of all frames.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Memory that any slice of the group keeps: its buffer, nearly all of it payload unless the group is tiny.
    pub fn buffer_bytes(&self) -> usize {
        (GROUP_HEADER_BYTES + self.payload.len()).next_multiple_of(BLOCK_BYTES)
    }

    /// The frames, in order, as slices of the group's buffer.
    pub fn frames(&self) -> Frames {
        Frames {
            next: self.first_lsn,
            rest: self.payload.clone(),
        }
    }
}
