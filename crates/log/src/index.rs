//! A segment's sparse index: derived, small, and the way in which headers are vouched for.
//!
//! An index is a list of [`Point`]s. A point says what stands *before* a position: the next offset, the largest
//! timestamp so far, and a running CRC-32C over all batch headers so far. The last point of a sealed segment is
//! its record in the checkpoint. So an index whose own checksum holds and whose end equals that record vouches
//! for every point in it, and a read has to check only the headers between the two points around it: running
//! the checksum from the first must give the second. The header bytes that a batch's CRC leaves out are thereby
//! checked on every read, and no read has to walk a whole segment first.
//!
//! The list is bounded: when it is full, every second point goes and the interval doubles.
//!
//! File `<base offset>.index`, big-endian: magic `MSIX`, version `u32` (1), base offset `i64`, interval `u64`,
//! count `u32`, the points (offset `i64`, position `u64`, largest timestamp `i64`, checksum `u32`), of which the
//! last is the end up to which the index reaches, then a CRC-32C of all before it. Anything wrong with it means
//! that it is built again.

use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader};

use crate::LogError;
use crate::codec::Reader;

const MAGIC: u32 = u32::from_be_bytes(*b"MSIX");
const VERSION: u32 = 1;
const WHAT: &str = "a segment's index";

/// Points kept for one segment: at 128 MiB one every 64 to 128 KiB, in at most 64 KiB of memory.
const MAX_POINTS: usize = 2048;
/// No index file is longer; one that is is damaged.
pub(crate) const MAX_FILE_BYTES: u64 = 32 + 28 * (MAX_POINTS as u64 + 1);

/// What stands before a position of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Offset of the batch at `position`, or the one due there.
    pub(crate) offset: i64,
    pub(crate) position: u64,
    /// Largest timestamp of all batches before; `i64::MIN` where there are none.
    pub(crate) max_timestamp_ms: i64,
    /// CRC-32C over the headers of all batches before.
    pub(crate) checksum: u32,
}

impl Point {
    /// The beginning of a segment.
    pub(crate) fn start(base_offset: i64) -> Self {
        Self {
            offset: base_offset,
            position: 0,
            max_timestamp_ms: i64::MIN,
            checksum: 0,
        }
    }

    /// After one more batch; `bytes` begin with its header.
    pub(crate) fn after(self, header: &BatchHeader, bytes: &[u8]) -> Self {
        Self {
            offset: header.next_offset(),
            position: self.position + header.size_bytes() as u64,
            max_timestamp_ms: self.max_timestamp_ms.max(header.max_timestamp_ms),
            checksum: crc32c::crc32c_append(self.checksum, &bytes[..BATCH_HEADER_BYTES]),
        }
    }
}

/// Points at least an interval of bytes apart, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    points: Vec<Point>,
    interval_bytes: u64,
}

impl Index {
    pub(crate) fn new(interval_bytes: u64) -> Self {
        Self {
            points: Vec::new(),
            interval_bytes: interval_bytes.max(1),
        }
    }

    /// Notes where a batch begins, if it is far enough from the last one noted.
    pub(crate) fn note(&mut self, point: Point) {
        if self
            .points
            .last()
            .is_some_and(|last| point.position < last.position + self.interval_bytes)
        {
            return;
        }
        if self.points.len() >= MAX_POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            // Where batches are larger than the interval, what counts is how far apart the points really are.
            let apart = point.position / self.points.len() as u64;
            self.interval_bytes = apart.max(self.interval_bytes * 2);
        }
        self.points.push(point);
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// Puts the points of `prefix` before the own ones.
    pub(crate) fn prepend(&mut self, prefix: Index) {
        let own = std::mem::replace(self, prefix);
        for point in own.points {
            self.note(point);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.points.capacity() * size_of::<Point>()
    }

    /// The index file of what ends at `end`.
    pub(crate) fn encode(&self, base_offset: i64, end: Point) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 28 * (self.points.len() + 1));
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&base_offset.to_be_bytes());
        out.extend_from_slice(&self.interval_bytes.to_be_bytes());
        out.extend_from_slice(&(self.points.len() as u32 + 1).to_be_bytes());
        for point in self.points.iter().chain([&end]) {
            out.extend_from_slice(&point.offset.to_be_bytes());
            out.extend_from_slice(&point.position.to_be_bytes());
            out.extend_from_slice(&point.max_timestamp_ms.to_be_bytes());
            out.extend_from_slice(&point.checksum.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads an index file: the index and the end it reaches to.
    pub(crate) fn decode(base_offset: i64, bytes: &[u8]) -> Result<(Self, Point), LogError> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.u32()? != MAGIC {
            return Err(reader.bad("it does not begin with MSIX"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(LogError::NewerVersion {
                what: WHAT,
                version,
                supported: VERSION,
            });
        }
        let checked = bytes.len().saturating_sub(4);
        if crc32c::crc32c(&bytes[..checked]) != Reader::at(WHAT, bytes, checked).u32()? {
            return Err(reader.bad("its checksum does not match"));
        }
        if reader.i64()? != base_offset {
            return Err(reader.bad("it belongs to another segment"));
        }
        let mut index = Self::new(reader.u64()?);
        for _ in 0..reader.u32()? {
            let point = Point {
                offset: reader.i64()?,
                position: reader.u64()?,
                max_timestamp_ms: reader.i64()?,
                checksum: reader.u32()?,
            };
            index.points.push(point);
        }
        reader.u32()?;
        reader.end()?;
        let ordered = index
            .points
            .is_sorted_by(|a, b| a.position < b.position && a.offset < b.offset);
        match index.points.pop() {
            Some(end) if ordered && index.points.first() == Some(&Point::start(base_offset)) => {
                Ok((index, end))
            }
            _ => Err(reader.bad("its points are out of order")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Points of batches of these sizes, one record each.
    fn points(sizes: &[u64]) -> Vec<Point> {
        let mut point = Point::start(5);
        let mut all = vec![point];
        for (index, size) in sizes.iter().enumerate() {
            point = Point {
                offset: point.offset + 1,
                position: point.position + size,
                max_timestamp_ms: index as i64,
                checksum: point.checksum.wrapping_add(*size as u32),
            };
            all.push(point);
        }
        all
    }

    proptest! {
        #[test]
        fn an_index_is_read_as_written(sizes in prop::collection::vec(1..500_u64, 1..100), interval in 1..2000_u64) {
            let all = points(&sizes);
            let (end, noted) = all.split_last().unwrap();
            let mut index = Index::new(interval);
            noted.iter().for_each(|point| index.note(*point));
            let bytes = index.encode(5, *end);
            prop_assert_eq!(Index::decode(5, &bytes).unwrap(), (index, *end));
            prop_assert!(Index::decode(6, &bytes).is_err());
        }

        #[test]
        fn a_changed_index_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let all = points(&[10; 20]);
            let mut index = Index::new(30);
            all[..20].iter().for_each(|point| index.note(*point));
            let mut bytes = index.encode(5, all[20]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Index::decode(5, &bytes).is_err());
            prop_assert!(Index::decode(5, &bytes[..at]).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Index::decode(5, &bytes);
        }
    }

    #[test]
    fn a_full_index_doubles_its_interval() {
        let all = points(&vec![100; MAX_POINTS * 5]);
        let mut index = Index::new(1);
        all.iter().for_each(|point| index.note(*point));
        assert!(index.points().len() <= MAX_POINTS && index.points().len() >= MAX_POINTS / 2);
        assert_eq!(index.points()[0], all[0], "the first point always stays");
        let far = index
            .points()
            .windows(2)
            .map(|two| two[1].position - two[0].position)
            .max()
            .unwrap();
        assert!(far <= 100 * 8, "points are {far} bytes apart");
        // And a prefix found later comes before it.
        let mut late = Index::new(1);
        let (early, rest) = all.split_at(MAX_POINTS * 3);
        rest.iter().for_each(|point| late.note(*point));
        let mut prefix = Index::new(1);
        early.iter().for_each(|point| prefix.note(*point));
        late.prepend(prefix);
        assert!(late.points().is_sorted_by_key(|point| point.position));
        assert_eq!(late.points()[0], all[0]);
    }
}
