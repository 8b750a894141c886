//! Buffers that are used again: a fresh one of a megabyte costs a page fault for every 4 KiB of it.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Buffers larger than this are given back to the system.
const MAX_BUFFER_BYTES: usize = 32 << 20;
/// Smaller ones are left to the allocator, which is quick at them.
const MIN_BUFFER_BYTES: usize = 32 << 10;
/// No buffer is smaller than a block on disk.
const BLOCK_BYTES: usize = crate::header::BLOCK_BYTES;

/// A bounded store of buffers. A buffer comes back by itself when the last slice of it is dropped.
#[derive(Clone)]
pub struct BufferPool {
    shelf: Arc<Shelf>,
}

struct Shelf {
    max_bytes: usize,
    /// What recent groups needed: the size that the next builder begins with, so that it need not grow.
    expected_bytes: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By capacity.
    buffers: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

impl BufferPool {
    /// A pool that keeps at most `max_bytes` of buffers that nobody uses.
    pub fn new(max_bytes: usize) -> BufferPool {
        BufferPool {
            shelf: Arc::new(Shelf {
                max_bytes,
                expected_bytes: AtomicUsize::new(BLOCK_BYTES),
                kept: Mutex::new(Kept::default()),
            }),
        }
    }

    /// An empty buffer with room for `bytes`, and not for very much more: whoever keeps a slice keeps the whole.
    pub(crate) fn take(&self, bytes: usize) -> PooledBuffer {
        let mut kept = self.shelf.kept.lock();
        let fit = kept
            .buffers
            .range_mut(bytes..)
            .next()
            .filter(|(capacity, _)| !too_roomy(**capacity, bytes));
        let found = fit
            .and_then(|(capacity, buffers)| Some((*capacity, buffers.pop()?, buffers.is_empty())));
        let bytes = match found {
            Some((capacity, buffer, last)) => {
                kept.bytes -= capacity;
                if last {
                    kept.buffers.remove(&capacity);
                }
                buffer
            }
            None => {
                drop(kept);
                Vec::with_capacity(bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES))
            }
        };
        PooledBuffer {
            bytes,
            origin: 0,
            shelf: self.shelf.clone(),
        }
    }

    /// The same for what will be written to disk: while it does not outgrow the room asked for, a large buffer begins
    /// in memory where a block would.
    pub(crate) fn take_for_blocks(&self, bytes: usize) -> PooledBuffer {
        if bytes < MIN_BUFFER_BYTES {
            return self.take(bytes);
        }
        let mut buffer = self.take(bytes + BLOCK_BYTES);
        let address = buffer.bytes.as_ptr().addr();
        buffer.origin = address.next_multiple_of(BLOCK_BYTES) - address;
        buffer.bytes.resize(buffer.origin, 0);
        buffer
    }

    /// An empty buffer for a write of `bytes` at `position`, laid out as the blocks of the file are.
    pub fn blocks(&self, position: u64, bytes: usize) -> SharedBlocks {
        let lead = (position % BLOCK_BYTES as u64) as usize;
        let mut buffer = self.take_for_blocks(lead + bytes);
        let start = buffer.bytes.len() + lead;
        buffer.bytes.resize(start, 0);
        SharedBlocks { buffer, lead }
    }

    /// The size that a group is likely to have.
    pub(crate) fn expected_bytes(&self) -> usize {
        self.shelf.expected_bytes.load(Ordering::Relaxed)
    }

    /// Takes note of a group's size: follows growth at once, and forgets it slowly.
    pub(crate) fn learn(&self, bytes: usize) {
        let before = self.expected_bytes();
        let expected = bytes.max(before - before / 8);
        self.shelf.expected_bytes.store(expected, Ordering::Relaxed);
    }

    /// Bytes of buffers that lie ready.
    pub fn kept_bytes(&self) -> usize {
        self.shelf.kept.lock().bytes
    }
}

/// Whether a buffer wastes too much when only `used` bytes of it are kept.
pub(crate) fn too_roomy(capacity: usize, used: usize) -> bool {
    capacity > BLOCK_BYTES && capacity / 2 > used
}

/// A buffer that returns to its pool when dropped.
pub(crate) struct PooledBuffer {
    pub(crate) bytes: Vec<u8>,
    /// Where the contents begin; before it there is nothing.
    pub(crate) origin: usize,
    shelf: Arc<Shelf>,
}

impl PooledBuffer {
    /// Hands out the contents as shared bytes, without a copy; the buffer returns with the last of them.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.origin..).unwrap_or_default()
    }
}

impl AsMut<[u8]> for PooledBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.origin..).unwrap_or_default()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.bytes);
        let capacity = buffer.capacity();
        if !(MIN_BUFFER_BYTES..=MAX_BUFFER_BYTES).contains(&capacity) {
            return;
        }
        buffer.clear();
        let mut kept = self.shelf.kept.lock();
        if kept.bytes + capacity <= self.shelf.max_bytes {
            kept.bytes += capacity;
            kept.buffers.entry(capacity).or_default().push(buffer);
        }
    }
}

/// Bytes for one write at a known position, as a [`BlockBuffer`](crate::BlockBuffer) holds them, that can be kept
/// afterwards.
pub struct SharedBlocks {
    buffer: PooledBuffer,
    /// Bytes before the first, so that it lies in memory as in its block.
    lead: usize,
}

impl SharedBlocks {
    /// Takes what comes next, and lends it to be changed.
    pub fn extend(&mut self, bytes: &[u8]) -> &mut [u8] {
        let at = self.buffer.bytes.len();
        self.buffer.bytes.extend_from_slice(bytes);
        self.buffer.bytes.get_mut(at..).unwrap_or_default()
    }

    /// What has gathered.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().get(self.lead..).unwrap_or_default()
    }

    /// The same as shared bytes, without a copy; the memory is used again once the last of them is dropped.
    pub fn freeze(self) -> Bytes {
        let lead = self.lead;
        self.buffer.freeze().slice(lead..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(100_000);
        buffer.bytes.extend_from_slice(b"abcdef");
        let address = buffer.bytes.as_ptr();
        let slice = buffer.freeze().slice(2..4);
        assert_eq!((&slice[..], pool.kept_bytes()), (&b"cd"[..], 0));
        drop(slice);
        assert!(pool.kept_bytes() >= 100_000);
        assert_eq!(pool.take(90_000).bytes.as_ptr(), address, "used again");
        assert_ne!(
            pool.take(10_000).bytes.as_ptr(),
            address,
            "not for something much smaller"
        );
    }

    #[test]
    fn the_next_builder_begins_with_the_size_of_recent_groups() {
        let pool = BufferPool::new(8 << 20);
        let sealed = |bytes: usize| {
            let mut builder = crate::GroupBuilder::with_pool(pool.clone());
            builder.begin_frame(crate::Lsn(1));
            builder.section(1, crate::View::Log, |out| out.extend((0..bytes).map(|_| 7)));
            builder.end_frame();
            builder.seal()
        };
        // The first one grows while it is written.
        drop(sealed(1_000_000));
        let second = sealed(1_000_000);
        let address = second.buffer.bytes.as_ptr();
        assert!(
            second
                .buffer
                .as_ref()
                .as_ptr()
                .addr()
                .is_multiple_of(BLOCK_BYTES)
        );
        drop(second);
        assert_eq!(
            sealed(990_000).buffer.bytes.as_ptr(),
            address,
            "the same buffer"
        );
        let small = sealed(100);
        assert_eq!(
            small.buffer.bytes.capacity(),
            BLOCK_BYTES,
            "a small group keeps little"
        );
    }

    #[test]
    fn blocks_lie_in_memory_as_in_the_file() {
        let pool = BufferPool::new(1 << 20);
        for position in [0, 1, 4_095, 4_096, 1_000_001] {
            let mut blocks = pool.blocks(position, 100_000);
            blocks.extend(&[7; 50_000])[0] = 1;
            blocks.extend(&[9; 50_000]);
            let in_memory = blocks.bytes().as_ptr().addr() % BLOCK_BYTES;
            assert_eq!(in_memory as u64, position % BLOCK_BYTES as u64);
            let bytes = blocks.freeze();
            assert_eq!(bytes.len(), 100_000);
            assert_eq!((bytes[0], bytes[1], bytes[99_999]), (1, 7, 9));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = BufferPool::new(300_000);
        let buffers: Vec<_> = (0..8).map(|_| pool.take(100_000)).collect();
        drop(buffers);
        assert!((200_000..=300_000).contains(&pool.kept_bytes()));
    }
}
