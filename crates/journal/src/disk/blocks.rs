//! Memory for large writes, laid out as the blocks on disk are.

/// What disks and page caches deal in.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Bytes that gather for one write of bounded size at a known position. They lie in memory as they will in the file's
/// blocks, so that [`DiskFile::write_all_at`](super::DiskFile::write_all_at) need not copy them.
pub struct BlockBuffer {
    /// Allocated once, with room to begin anywhere in a block.
    memory: Vec<u8>,
    /// Where in `memory` a block begins.
    origin: usize,
    start: usize,
    end: usize,
    max_bytes: usize,
}

impl BlockBuffer {
    /// A buffer for writes of up to `max_bytes`.
    pub fn new(max_bytes: usize) -> BlockBuffer {
        let memory = vec![0; max_bytes + 2 * BLOCK_BYTES];
        let address = memory.as_ptr().addr();
        let origin = address.next_multiple_of(BLOCK_BYTES) - address;
        BlockBuffer {
            memory,
            origin,
            start: origin,
            end: origin,
            max_bytes,
        }
    }

    /// Empties the buffer: what follows is for `position`.
    pub fn begin(&mut self, position: u64) {
        self.start = self.origin + (position % BLOCK_BYTES as u64) as usize;
        self.end = self.start;
    }

    /// Takes what still fits of `bytes`, and returns the rest.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let count = bytes.len().min(self.max_bytes - self.bytes().len());
        let (now, later) = bytes.split_at(count);
        let end = self.end + count;
        if let Some(room) = self.memory.get_mut(self.end..end) {
            room.copy_from_slice(now);
        }
        self.end = end;
        later
    }

    /// What has gathered.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::{Disk, OpenMode, RealDisk};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_file_of_gathered_writes_holds_what_was_given(
            pieces in prop::collection::vec((1usize..400_000, any::<u8>()), 1..8),
            max_bytes in prop::sample::select(vec![100_000usize, 300_000, 1 << 20]),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
            let mut buffer = BlockBuffer::new(max_bytes);
            let mut expected = Vec::new();
            for (length, seed) in pieces {
                let piece: Vec<u8> = (0..length).map(|i| (i / 7) as u8 ^ seed).collect();
                let mut rest = piece.as_slice();
                while !rest.is_empty() {
                    let position = expected.len() as u64;
                    buffer.begin(position);
                    prop_assert_eq!(buffer.bytes().as_ptr().addr() % BLOCK_BYTES, expected.len() % BLOCK_BYTES);
                    rest = buffer.fill(rest);
                    prop_assert!(buffer.bytes().len() <= max_bytes);
                    file.write_all_at(buffer.bytes(), position).unwrap();
                    expected.extend_from_slice(buffer.bytes());
                }
                let mut found = vec![0; expected.len() + 1];
                prop_assert_eq!(file.read_at(&mut found, 0).unwrap(), expected.len());
                prop_assert!(found[..expected.len()] == expected);
            }
        }
    }
}
