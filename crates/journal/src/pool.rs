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
    pub fn take(&self, bytes: usize) -> PooledBuffer {
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
            shelf: self.shelf.clone(),
        }
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
pub struct PooledBuffer {
    pub(crate) bytes: Vec<u8>,
    shelf: Arc<Shelf>,
}

impl PooledBuffer {
    /// Hands out the contents as shared bytes, without a copy; the buffer returns with the last of them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Takes what comes next, and lends it to be changed.
    pub fn extend(&mut self, bytes: &[u8]) -> &mut [u8] {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.bytes.get_mut(at..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for PooledBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
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
    fn what_is_kept_is_bounded() {
        let pool = BufferPool::new(300_000);
        let buffers: Vec<_> = (0..8).map(|_| pool.take(100_000)).collect();
        drop(buffers);
        assert!((200_000..=300_000).contains(&pool.kept_bytes()));
    }
}
