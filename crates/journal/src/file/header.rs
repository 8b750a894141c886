//! How a journal file begins.
//!
//! ```text
//!  0 magic 8 bytes      "MSJFILE\0"
//!  8 version u32
//! 12 CRC-32C u32        over the 12 bytes before it: holds for every version, so that a newer one is told from damage
//! 16 length u32         bytes of this header, the list of ends and the last checksum included
//! 20 kind u32           0: continues the file before; 1: begun by recovery
//! 24 journal id u128
//! 40 number u64         of the file, as in its name
//! 48 incarnation u64    of this use of the file
//! 56 durable LSN u64    known durable when this header was written; of a file begun by recovery also everything that
//!                       recovery wrote into it, for it is synced before it gets its name
//! 64 first LSN u64      of the first group (kind 1); or the number of the file that it continues (kind 0; 0: not noted)
//! 72 before u32         checksum of the last group before this file (kind 1)
//! 76 ends u32           how many follow; kind 1 only
//! 80 file length u64    bytes: what is shorter has been cut. Not in version 1, which is read all the same
//! 88 ends               number u64 | incarnation u64 | end position u64 | last LSN u64, of every older file that stays:
//!                       nothing beyond is ever read, and no older file that is not named here
//!  … header CRC-32C u32 over everything from 16 on
//! ```
//! All numbers are little-endian. Groups begin at the next multiple of 4 KiB.

use crate::Lsn;
use crate::header::BLOCK_BYTES;

pub(crate) const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"MSJFILE\0";
const FIXED_BYTES: usize = 88;
/// Before the length of the file was noted.
const FIXED_BYTES_1: usize = 80;
const END_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
/// No list of ends is longer than this; a header that says so is damaged.
const MAX_HEADER_BYTES: usize = 64 << 20;

/// The header of a journal file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) journal_id: u128,
    pub(crate) number: u64,
    pub(crate) incarnation: u64,
    pub(crate) durable: Lsn,
    /// The length that the file was given; 0 where it was not noted.
    pub(crate) len_bytes: u64,
    pub(crate) start: Start,
}

/// What stands before the first group of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A file before; where that ends was not known when this header was written.
    Continues {
        /// The number of the file that groups were written to at that time; 0 where it was not noted. Between that one
        /// and this there may be others, made with this one.
        after: u64,
    },
    /// Recovery began this file.
    Recovered {
        first_lsn: Lsn,
        before: u32,
        ends: Vec<FileEnd>,
    },
}

/// Where an older file ends for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileEnd {
    pub(crate) number: u64,
    pub(crate) incarnation: u64,
    pub(crate) position: u64,
    pub(crate) last_lsn: Lsn,
}

/// What reading a header found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadHeader {
    Valid(FileHeader),
    /// Read again with this many bytes.
    Longer(usize),
    Newer(u32),
    Damaged,
}

impl FileHeader {
    /// Where groups begin.
    pub(crate) fn first_position(&self) -> u64 {
        let ends = match &self.start {
            Start::Continues { .. } => 0,
            Start::Recovered { ends, .. } => ends.len(),
        };
        first_position(ends)
    }

    /// The header in whole blocks.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.first_position() as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        let (kind, first_lsn, before, ends): (u32, Lsn, u32, &[FileEnd]) = match &self.start {
            Start::Continues { after } => (0, Lsn(*after), 0, &[]),
            Start::Recovered {
                first_lsn,
                before,
                ends,
            } => (1, *first_lsn, *before, ends),
        };
        let length = FIXED_BYTES + ends.len() * END_BYTES + CRC_BYTES;
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.journal_id.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        out.extend_from_slice(&first_lsn.0.to_le_bytes());
        out.extend_from_slice(&before.to_le_bytes());
        out.extend_from_slice(&(ends.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.len_bytes.to_le_bytes());
        for end in ends {
            out.extend_from_slice(&end.number.to_le_bytes());
            out.extend_from_slice(&end.incarnation.to_le_bytes());
            out.extend_from_slice(&end.position.to_le_bytes());
            out.extend_from_slice(&end.last_lsn.0.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out[16..]).to_le_bytes());
        out.resize(self.first_position() as usize, 0);
        out
    }

    /// Reads what [`FileHeader::write`] wrote, from the first bytes of a file.
    pub(crate) fn read(bytes: &[u8]) -> ReadHeader {
        Self::parse(bytes).unwrap_or(ReadHeader::Damaged)
    }

    fn parse(bytes: &[u8]) -> Option<ReadHeader> {
        let mut input = Reader { rest: bytes };
        if input.take::<8>()? != *MAGIC {
            return None;
        }
        let version = input.u32()?;
        if input.u32()? != crc32c::crc32c(&bytes[..12]) {
            return None;
        }
        let fixed_bytes = match version {
            1 => FIXED_BYTES_1,
            VERSION => FIXED_BYTES,
            _ => return Some(ReadHeader::Newer(version)),
        };
        let length = input.u32()? as usize;
        if !(fixed_bytes + CRC_BYTES..=MAX_HEADER_BYTES).contains(&length) {
            return None;
        }
        if bytes.len() < length {
            return Some(ReadHeader::Longer(length));
        }
        let checksum = Reader {
            rest: &bytes[length - CRC_BYTES..length],
        }
        .u32()?;
        if checksum != crc32c::crc32c(&bytes[16..length - CRC_BYTES]) {
            return None;
        }
        let kind = input.u32()?;
        let journal_id = u128::from_le_bytes(input.take()?);
        let (number, incarnation, durable) = (input.u64()?, input.u64()?, Lsn(input.u64()?));
        let (first_lsn, before, count) = (Lsn(input.u64()?), input.u32()?, input.u32()? as usize);
        if length != fixed_bytes + count * END_BYTES + CRC_BYTES {
            return None;
        }
        let len_bytes = match version {
            1 => 0,
            _ => input.u64()?,
        };
        let start = match kind {
            0 => Start::Continues { after: first_lsn.0 },
            1 => {
                let mut ends = Vec::with_capacity(count);
                for _ in 0..count {
                    ends.push(FileEnd {
                        number: input.u64()?,
                        incarnation: input.u64()?,
                        position: input.u64()?,
                        last_lsn: Lsn(input.u64()?),
                    });
                }
                Start::Recovered {
                    first_lsn,
                    before,
                    ends,
                }
            }
            _ => return None,
        };
        Some(ReadHeader::Valid(FileHeader {
            journal_id,
            number,
            incarnation,
            durable,
            len_bytes,
            start,
        }))
    }
}

/// Where groups begin in a file whose header names so many ends.
pub(crate) fn first_position(ends: usize) -> u64 {
    (FIXED_BYTES + ends * END_BYTES + CRC_BYTES).next_multiple_of(BLOCK_BYTES) as u64
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = FileHeader> {
        let end = any::<[u64; 4]>().prop_map(|[number, incarnation, position, last]| FileEnd {
            number,
            incarnation,
            position,
            last_lsn: Lsn(last),
        });
        let recovered = (
            any::<u64>(),
            any::<u32>(),
            prop::collection::vec(end, 0..300),
        )
            .prop_map(|(first, before, ends)| Start::Recovered {
                first_lsn: Lsn(first),
                before,
                ends,
            });
        let continues = any::<u64>().prop_map(|after| Start::Continues { after });
        let start = prop_oneof![continues, recovered];
        (any::<u128>(), any::<[u64; 4]>(), start).prop_map(
            |(journal_id, [number, incarnation, durable, len_bytes], start)| FileHeader {
                journal_id,
                number,
                incarnation,
                durable: Lsn(durable),
                len_bytes,
                start,
            },
        )
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(header in any_header()) {
            let bytes = header.write();
            prop_assert_eq!(bytes.len() as u64, header.first_position());
            let mut read = FileHeader::read(&bytes[..BLOCK_BYTES]);
            if let ReadHeader::Longer(length) = read {
                prop_assert!(length > BLOCK_BYTES);
                read = FileHeader::read(&bytes[..length]);
            }
            prop_assert_eq!(read, ReadHeader::Valid(header));
        }

        #[test]
        fn a_header_of_version_1_is_read_without_a_length(header in any_header()) {
            let mut bytes = header.write();
            let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) - 8;
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..12]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            bytes[16..20].copy_from_slice(&length.to_le_bytes());
            bytes.drain(80..88);
            let end = length as usize - CRC_BYTES;
            let crc = crc32c::crc32c(&bytes[16..end]);
            bytes[end..end + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
            let first_position = header.first_position();
            let expected = FileHeader { len_bytes: 0, ..header };
            prop_assert_eq!(expected.first_position(), first_position);
            prop_assert_eq!(FileHeader::read(&bytes), ReadHeader::Valid(expected));
            // The groups of such a file begin where they would now.
            prop_assert_eq!(first_position, u64::from(length).next_multiple_of(BLOCK_BYTES as u64));
        }

        #[test]
        fn a_changed_bit_is_damage(header in any_header(), part in 0.0..1.0f64, bit in 0..8) {
            let mut bytes = header.write();
            let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
            bytes[(part * length as f64) as usize] ^= 1u8 << bit;
            let read = FileHeader::read(&bytes);
            prop_assert!(matches!(read, ReadHeader::Damaged | ReadHeader::Longer(_)), "{:?}", read);
        }

        #[test]
        fn any_bytes_are_read_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0..4u32) {
            prop_assert_eq!(FileHeader::read(&bytes), ReadHeader::Damaged);
            if bytes.len() > 16 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..12].copy_from_slice(&version.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[..12]);
                bytes[12..16].copy_from_slice(&crc.to_le_bytes());
                let read = FileHeader::read(&bytes);
                prop_assert_eq!(matches!(read, ReadHeader::Newer(_)), !(1..=VERSION).contains(&version));
            }
        }
    }
}
