//! The newest offset of each key, in bounded memory: a map of digests.
//!
//! Two keys with one digest would be one key to compaction, and the older record would go. The digest is SipHash-2-4
//! of 128 bits (Aumasson and Bernstein), keyed with the topic's id: chance never gets there, and whoever could search
//! for such keys may write to the topic, and so replace its records anyway.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::TopicId;
use crate::log::IdHasher;

/// What one key takes in the map, with the map's own slack, in bytes.
const KEY_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Digest(u64, u64);

/// Looked up by digest, never iterated.
pub(crate) struct NewestOffsets {
    key: (u64, u64),
    limit: usize,
    offsets: HashMap<Digest, i64, BuildHasherDefault<IdHasher>>,
}

impl NewestOffsets {
    pub(crate) fn new(topic: TopicId, memory_bytes: usize) -> Self {
        Self {
            key: ((topic.0 >> 64) as u64, topic.0 as u64),
            limit: (memory_bytes / KEY_BYTES).max(1),
            offsets: HashMap::default(),
        }
    }

    /// Whether so many more keys fit. Into an empty map anything does: a batch is the least that a pass works on.
    pub(crate) fn fits(&self, keys: usize) -> bool {
        self.offsets.is_empty() || self.offsets.len() + keys <= self.limit
    }

    /// Notes a record; offsets come in order.
    pub(crate) fn note(&mut self, key: &[u8], offset: i64) {
        let digest = digest(self.key, key);
        self.offsets.insert(digest, offset);
    }

    /// The newest offset noted for a key.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<i64> {
        self.offsets.get(&digest(self.key, key)).copied()
    }
}

fn digest(key: (u64, u64), bytes: &[u8]) -> Digest {
    let mut v = [
        0x736f_6d65_7073_6575 ^ key.0,
        0x646f_7261_6e64_6f6d ^ key.1 ^ 0xee,
        0x6c79_6765_6e65_7261 ^ key.0,
        0x7465_6462_7974_6573 ^ key.1,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        v[3] ^= word;
        (0..2).for_each(|_| round(&mut v));
        v[0] ^= word;
    }
    v[2] ^= 0xee;
    (0..4).for_each(|_| round(&mut v));
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    (0..4).for_each(|_| round(&mut v));
    Digest(first, v[0] ^ v[1] ^ v[2] ^ v[3])
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// The first of the reference implementation's test vectors (`vectors_sip128`): key 00 01 … 0f, of no bytes and of 00.
    #[test]
    fn digests_are_siphash_128() {
        let bytes: Vec<u8> = (0..16).collect();
        let (words, _) = bytes.as_chunks::<8>();
        let key = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        let hex = |digest: Digest| {
            format!(
                "{:016x}{:016x}",
                digest.0.swap_bytes(),
                digest.1.swap_bytes()
            )
        };
        assert_eq!(hex(digest(key, &[])), "a3817f04ba25a8e66df67214c7550293");
        assert_eq!(hex(digest(key, &[0])), "da87c1d86b99af44347659119b22fc45");
    }

    #[test]
    fn the_map_keeps_the_newest_and_its_limit() {
        let mut newest = NewestOffsets::new(TopicId(7), 3 * KEY_BYTES);
        assert!(newest.fits(100), "a first batch always fits");
        for (key, offset) in [("a", 1), ("b", 2), ("", 3), ("a", 4)] {
            newest.note(key.as_bytes(), offset);
        }
        assert!(newest.fits(0) && !newest.fits(1));
        let found = ["a", "b", "", "c", "a\0"].map(|key| newest.newest(key.as_bytes()));
        assert_eq!(found, [Some(4), Some(2), Some(3), None, None]);
    }
}
