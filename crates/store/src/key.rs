//! Keys: `shard | owner | …`, big-endian, so that what belongs together lies together and moves together.

use bytes::Bytes;

/// How many shards there are. A shard is what moves between nodes as one.
pub const SHARDS: u16 = 1024;

/// The shard that the catalogue itself lives in.
pub const CATALOG_SHARD: u16 = 0;

/// The shard of a name: of a group, a transactional id, a queue. Part of the format, never to change.
pub fn shard_of(name: &[u8]) -> u16 {
    // FNV-1a, then a finaliser, because FNV's low bits alone are weak for short names.
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    shard_of_number(hash)
}

/// The shard of a number; neighbours are spread over all shards. Part of the format, never to change.
pub fn shard_of_number(number: u64) -> u16 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % u64::from(SHARDS)) as u16
}

/// The first key that does not begin with `prefix`; `None` when every larger key does.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// Begins a key of a shard.
pub fn shard_key(shard: u16) -> KeyBuilder {
    KeyBuilder {
        bytes: Vec::with_capacity(48),
    }
    .u16(shard)
}

/// Builds a key, part by part. Numbers are big-endian, so that keys sort as their numbers do.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    bytes: Vec<u8>,
}

impl KeyBuilder {
    /// One byte.
    pub fn u8(self, part: u8) -> Self {
        self.raw(&[part])
    }

    /// Two bytes.
    pub fn u16(self, part: u16) -> Self {
        self.raw(&part.to_be_bytes())
    }

    /// Four bytes.
    pub fn u32(self, part: u32) -> Self {
        self.raw(&part.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(self, part: u64) -> Self {
        self.raw(&part.to_be_bytes())
    }

    /// Sixteen bytes.
    pub fn u128(self, part: u128) -> Self {
        self.raw(&part.to_be_bytes())
    }

    /// A part of any length up to 65,535 with its length in front: for names inside a key.
    pub fn text(self, part: &[u8]) -> Self {
        debug_assert!(
            part.len() <= usize::from(u16::MAX),
            "names in keys are bounded where they are accepted"
        );
        self.u16(part.len() as u16).raw(part)
    }

    /// Bytes as they are: for the last part of a key.
    pub fn raw(mut self, part: &[u8]) -> Self {
        self.bytes.extend_from_slice(part);
        self
    }

    /// The bytes so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The key.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// Takes a key apart in the order it was built; `None` where it is too short.
#[derive(Clone, Copy, Debug)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
}

impl<'a> KeyReader<'a> {
    /// Reads from the key's beginning: its shard comes first, as [`KeyReader::u16`].
    pub fn new(key: &'a [u8]) -> Self {
        KeyReader { rest: key }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*part)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    /// A part with its length in front.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (part, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(part)
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_built() {
        let key = shard_key(7)
            .u8(1)
            .text(b"default")
            .u32(9)
            .u64(10)
            .u128(11)
            .raw(b"tail")
            .finish();
        let mut reader = KeyReader::new(&key);
        assert_eq!(reader.u16(), Some(7));
        assert_eq!(reader.u8(), Some(1));
        assert_eq!(reader.text(), Some(&b"default"[..]));
        assert_eq!(
            (reader.u32(), reader.u64(), reader.u128()),
            (Some(9), Some(10), Some(11))
        );
        assert_eq!(reader.rest(), b"tail");
        assert_eq!(reader.u64(), None, "four bytes are no eight");
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_does_not_have_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn shards_are_part_of_the_format() {
        // Values once written into catalogues: a change here would send keys to other shards.
        assert_eq!(
            [shard_of(b"flights"), shard_of(b"alerts"), shard_of(b"")],
            [783, 70, 816]
        );
        assert_eq!([shard_of_number(0), shard_of_number(1)], [431, 193]);
    }

    #[test]
    fn shards_are_used_evenly() {
        let mut counts = vec![0u32; usize::from(SHARDS)];
        (0..100 * u64::from(SHARDS)).for_each(|n| counts[usize::from(shard_of_number(n))] += 1);
        assert!(counts.iter().all(|count| (40..200).contains(count)));
    }
}
