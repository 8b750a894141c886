//! How a group lies in a file.
//!
//! ```text
//!  0 magic u32          "MSJG"
//!  4 version u16
//!  6 flags u16          none yet
//!  8 incarnation u64    of the file, so that what an earlier use of the file left behind never passes for a group
//! 16 position u64       of this header in the file
//! 24 first LSN u64
//! 32 durable u64        the last LSN known durable when this header was written
//! 40 payload u32        bytes
//! 44 frames u32         0: an empty group, which only records `durable`
//! 48 before u32         checksum of the header of the group before, wherever that lies
//! 52 payload CRC-32C u32
//! 56 reserved u32
//! 60 header CRC-32C u32 over the 60 bytes before it
//! 64 payload, then zeros up to the next multiple of 4 KiB
//! ```
//! All numbers are little-endian. A header is verified by itself, without what precedes it.

use crate::Lsn;

// Groups begin at multiples of it, so that no block of an earlier group is written again.
pub(crate) use crate::disk::BLOCK_BYTES;
/// Bytes of a group before its payload.
pub(crate) const GROUP_HEADER_BYTES: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"MSJG");
const VERSION: u16 = 1;

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) incarnation: u64,
    pub(crate) position: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) payload_bytes: u32,
    pub(crate) frames: u32,
    pub(crate) before: u32,
    pub(crate) payload_crc: u32,
}

impl GroupHeader {
    /// Writes the header and returns its checksum, which the next group names.
    pub(crate) fn write(&self, out: &mut [u8; GROUP_HEADER_BYTES]) -> u32 {
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].fill(0);
        out[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[44..48].copy_from_slice(&self.frames.to_le_bytes());
        out[48..52].copy_from_slice(&self.before.to_le_bytes());
        out[52..56].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[56..60].fill(0);
        let checksum = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads a header that belongs at `position` of a file of that incarnation, with its checksum. `None` for anything
    /// else.
    pub(crate) fn read(
        bytes: &[u8],
        incarnation: u64,
        position: u64,
    ) -> Option<(GroupHeader, u32)> {
        let bytes: &[u8; GROUP_HEADER_BYTES] = bytes.get(..GROUP_HEADER_BYTES)?.try_into().ok()?;
        let checksum = u32_at(bytes, 60);
        let header = GroupHeader {
            incarnation: u64_at(bytes, 8),
            position: u64_at(bytes, 16),
            first_lsn: Lsn(u64_at(bytes, 24)),
            durable: Lsn(u64_at(bytes, 32)),
            payload_bytes: u32_at(bytes, 40),
            frames: u32_at(bytes, 44),
            before: u32_at(bytes, 48),
            payload_crc: u32_at(bytes, 52),
        };
        let ours = u32_at(bytes, 0) == MAGIC
            && bytes[4..6] == VERSION.to_le_bytes()
            && header.incarnation == incarnation
            && header.position == position
            && crc32c::crc32c(&bytes[..60]) == checksum;
        ours.then_some((header, checksum))
    }

    /// Whether these bytes bear the incarnation where a header has it: what an earlier use of the file has left does not.
    pub(crate) fn bears(bytes: &[u8], incarnation: u64) -> bool {
        bytes.get(8..16) == Some(&incarnation.to_le_bytes()[..])
    }

    /// Whether these bytes were once a header of a file of that incarnation, valid or not: it tells a damaged group from
    /// a place where none was written.
    pub(crate) fn resembles(bytes: &[u8], incarnation: u64, position: u64) -> bool {
        let Some(bytes) = bytes
            .get(..GROUP_HEADER_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
        else {
            return false;
        };
        let fields = [
            u32_at(bytes, 0) == MAGIC,
            u64_at(bytes, 8) == incarnation,
            u64_at(bytes, 16) == position,
        ];
        fields[1] || fields.iter().filter(|same| **same).count() >= 2
    }

    /// The last LSN of the group, or for an empty group the one before the next.
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn((self.first_lsn.0 + u64::from(self.frames)).saturating_sub(1))
    }

    /// Bytes from this header to the next group.
    pub(crate) fn span_bytes(&self) -> u64 {
        span_bytes(self.payload_bytes as usize)
    }
}

/// Bytes that a group with such a payload takes in a file.
pub(crate) fn span_bytes(payload_bytes: usize) -> u64 {
    (GROUP_HEADER_BYTES + payload_bytes).next_multiple_of(BLOCK_BYTES) as u64
}

fn u32_at(bytes: &[u8; GROUP_HEADER_BYTES], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8; GROUP_HEADER_BYTES], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = GroupHeader> {
        let fields = (any::<[u64; 4]>(), any::<[u32; 4]>());
        fields.prop_map(
            |([incarnation, position, first, durable], [payload, frames, before, crc])| {
                GroupHeader {
                    incarnation,
                    position,
                    first_lsn: Lsn(first),
                    durable: Lsn(durable),
                    payload_bytes: payload,
                    frames,
                    before,
                    payload_crc: crc,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(header in any_header()) {
            let mut bytes = [9; GROUP_HEADER_BYTES];
            let checksum = header.write(&mut bytes);
            prop_assert_eq!(GroupHeader::read(&bytes, header.incarnation, header.position), Some((header, checksum)));
        }

        #[test]
        fn a_header_with_a_changed_bit_is_none(header in any_header(), bit in 0..GROUP_HEADER_BYTES * 8) {
            let mut bytes = [0; GROUP_HEADER_BYTES];
            header.write(&mut bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(GroupHeader::read(&bytes, header.incarnation, header.position), None);
            prop_assert!(GroupHeader::resembles(&bytes, header.incarnation, header.position));
        }

        #[test]
        fn a_header_elsewhere_or_of_an_earlier_use_is_none(header in any_header(), other in any::<u64>()) {
            let mut bytes = [0; GROUP_HEADER_BYTES];
            header.write(&mut bytes);
            prop_assume!(other != header.incarnation && other != header.position);
            prop_assert_eq!(GroupHeader::read(&bytes, other, header.position), None);
            prop_assert_eq!(GroupHeader::read(&bytes, header.incarnation, other), None);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(GroupHeader::read(&bytes, 1, 4096), None);
            GroupHeader::resembles(&bytes, 1, 4096);
        }
    }
}
