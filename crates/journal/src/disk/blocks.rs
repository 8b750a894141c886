//! Memory for large writes, laid out as the blocks on disk are.

/// What disks and page caches deal in.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Bytes that gather for one write at a known position. They lie in memory as they will in the file's blocks, so that
/// [`DiskFile::write_all_at`](super::DiskFile::write_all_at) need not copy them.
#[derive(Default)]
pub struct BlockBuffer {
    memory: Vec<u8>,
    /// Where in `memory` the bytes begin.
    start: usize,
}

impl BlockBuffer {
    /// A buffer with room for writes of `bytes`; it grows when there are more.
    pub fn new(bytes: usize) -> BlockBuffer {
        BlockBuffer {
            memory: Vec::with_capacity(bytes + 2 * BLOCK_BYTES),
            start: 0,
        }
    }

    /// Empties the buffer: what follows, `bytes` of it, is for `position`.
    pub fn begin(&mut self, position: u64, bytes: usize) {
        self.memory.clear();
        self.memory.reserve(bytes + 2 * BLOCK_BYTES);
        let address = self.memory.as_ptr().addr();
        let block = address.next_multiple_of(BLOCK_BYTES) - address;
        self.start = block + (position % BLOCK_BYTES as u64) as usize;
        self.memory.resize(self.start, 0);
    }

    /// Takes what comes next.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// What has gathered.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }

    /// Memory that the buffer holds.
    pub fn capacity_bytes(&self) -> usize {
        self.memory.capacity()
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
            runs in prop::collection::vec(prop::collection::vec((1usize..200_000, any::<u8>()), 1..5), 1..8),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
            let mut buffer = BlockBuffer::new(100_000);
            let mut expected = Vec::new();
            for run in runs {
                let position = expected.len() as u64;
                buffer.begin(position, run.iter().map(|(length, _)| length).sum());
                for (length, seed) in run {
                    let piece: Vec<u8> = (0..length).map(|i| (i / 7) as u8 ^ seed).collect();
                    buffer.extend(&piece);
                    expected.extend_from_slice(&piece);
                }
                prop_assert_eq!(buffer.bytes().as_ptr().addr() % BLOCK_BYTES, position as usize % BLOCK_BYTES);
                file.write_all_at(buffer.bytes(), position).unwrap();
                let mut found = vec![0; expected.len() + 1];
                prop_assert_eq!(file.read_at(&mut found, 0).unwrap(), expected.len());
                prop_assert!(found[..expected.len()] == expected);
            }
        }
    }
}
