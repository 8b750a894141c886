//! Reading a segment: whole batches from an offset on, checked as they are read.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_journal::DiskFile;
use mainstem_record::BatchHeader;
use parking_lot::MutexGuard;

use super::{Segment, SegmentShelf, State};
use crate::LogError;
use crate::index::Point;

/// The first byte of a batch that its CRC covers.
pub(crate) const CRC_FROM: usize = 21;

/// What a read of one segment found.
pub(crate) struct SegmentRead {
    /// Whole batches; empty only if the first did not fit.
    pub(crate) bytes: Bytes,
    /// Offset after them.
    pub(crate) next_offset: i64,
}

/// Fills `bytes` from the file at `path`, which must have them.
pub(super) fn read_exact(
    file: &dyn DiskFile,
    path: &Path,
    bytes: &mut [u8],
    position: u64,
) -> Result<(), LogError> {
    let count = file
        .read_at(bytes, position)
        .map_err(LogError::io("read", path))?;
    if count < bytes.len() {
        let what = format!(
            "the file ends here, {} bytes before it should",
            bytes.len() - count
        );
        return Err(LogError::damaged(path, position + count as u64, what));
    }
    Ok(())
}

impl Segment {
    /// Reads whole batches from the one that holds `offset` on: those that begin below `limit` and fit into
    /// `max_bytes` together; the first one in any case if `at_least_one`.
    pub(crate) fn read(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        offset: i64,
        max_bytes: usize,
        limit: i64,
        at_least_one: bool,
    ) -> Result<SegmentRead, LogError> {
        let (begin, stop) = self.range(shelf, offset, max_bytes)?;
        let file = self.open(shelf)?;
        let bytes = self.read_range(&*file, begin, stop)?;

        // What is handed out: from `first` to `last`, positions in `bytes`.
        let (mut first, mut last, mut next_offset) = (None, 0, offset);
        let mut point = begin;
        while point.position < stop.position {
            let at = (point.position - begin.position) as usize;
            let (header, after) = self.step(point, stop, &bytes[at..])?;
            let end = at + header.size_bytes();
            let wanted = header.last_offset() >= offset
                && header.base_offset < limit
                && next_offset == point.offset.max(offset);
            if wanted {
                let from = first.unwrap_or(at);
                if end - from <= max_bytes || (first.is_none() && at_least_one) {
                    self.check_crc(point, &header, &bytes[at..end])?;
                    (first, last, next_offset) = (Some(from), end, header.next_offset());
                }
            }
            point = after;
        }
        self.check_stop(begin, point, stop)?;
        let bytes = first.map_or_else(Bytes::new, |first| Bytes::from(bytes).slice(first..last));
        Ok(SegmentRead { bytes, next_offset })
    }

    /// From where on to look for the first batch whose largest timestamp is at least `timestamp_ms`.
    pub(crate) fn seek_timestamp(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        timestamp_ms: i64,
    ) -> Result<i64, LogError> {
        let state = self.with_index(shelf, self.name.base_offset)?;
        // The running maximum only grows, so the point before the first that has reached it begins the interval.
        let points = state.index.points();
        let reached = points.partition_point(|point| point.max_timestamp_ms < timestamp_ms);
        Ok(points
            .get(reached.saturating_sub(1))
            .map_or(self.name.base_offset, |point| point.offset))
    }

    /// The points around what a read needs.
    fn range(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        offset: i64,
        max_bytes: usize,
    ) -> Result<(Point, Point), LogError> {
        let state = self.with_index(shelf, offset)?;
        let (begin, later) = self.points_around(&state, offset)?;
        let enough = begin.position.saturating_add(max_bytes as u64);
        let stop = later
            .get(later.partition_point(|point| point.position < enough))
            .copied();
        Ok((begin, stop.unwrap_or(state.end)))
    }

    /// The last point at or before `offset`, and those after it.
    pub(super) fn points_around<'a>(
        &self,
        state: &'a State,
        offset: i64,
    ) -> Result<(Point, &'a [Point]), LogError> {
        let points = state.index.points();
        let (before, later) =
            points.split_at(points.partition_point(|point| point.offset <= offset));
        match before.last() {
            Some(begin) if offset < state.end.offset => Ok((*begin, later)),
            _ => Err(LogError::damaged(
                &self.path,
                0,
                format!("its index does not reach offset {offset}"),
            )),
        }
    }

    /// The state with an index that knows `offset`, loading it first if need be.
    pub(super) fn with_index(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        offset: i64,
    ) -> Result<MutexGuard<'_, State>, LogError> {
        loop {
            {
                let mut state = self.state.lock();
                state.used = true;
                // The index begins at the segment's front, or at least not behind what is asked for.
                if state.from.position == 0 || offset >= state.from.offset {
                    return Ok(state);
                }
            }
            self.load_index(shelf)?;
        }
    }

    pub(super) fn read_range(
        &self,
        file: &dyn DiskFile,
        begin: Point,
        stop: Point,
    ) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; (stop.position - begin.position) as usize];
        self.read_exact(file, &mut bytes, begin.position)?;
        Ok(bytes)
    }

    pub(super) fn read_exact(
        &self,
        file: &dyn DiskFile,
        bytes: &mut [u8],
        position: u64,
    ) -> Result<(), LogError> {
        read_exact(file, &self.path, bytes, position)
    }

    /// Reads the header at `point`, checks it against what is due there, and goes on to the next batch.
    pub(super) fn step(
        &self,
        point: Point,
        stop: Point,
        bytes: &[u8],
    ) -> Result<(BatchHeader, Point), LogError> {
        let bad = |what: String| Err(LogError::damaged(&self.path, point.position, what));
        let header = match BatchHeader::read(bytes) {
            Ok(header) => header,
            Err(source) => {
                return bad(format!(
                    "the batch of offset {} has a bad header: {source}",
                    point.offset
                ));
            }
        };
        if header.base_offset != point.offset || header.last_offset_delta < 0 {
            return bad(format!(
                "a batch of offset {} stands where {} is due",
                header.base_offset, point.offset
            ));
        }
        let after = point.after(&header, bytes);
        if after.position > stop.position || after.offset > stop.offset {
            return bad(format!(
                "the batch of offset {} is longer than the room it has",
                point.offset
            ));
        }
        Ok((header, after))
    }

    pub(super) fn check_crc(
        &self,
        point: Point,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<(), LogError> {
        self.compare_crc(point, header, crc32c::crc32c(&batch[CRC_FROM..]))
    }

    /// Whether what the CRC covers has this one.
    pub(super) fn compare_crc(
        &self,
        point: Point,
        header: &BatchHeader,
        crc: u32,
    ) -> Result<(), LogError> {
        if crc == header.crc {
            return Ok(());
        }
        let what = format!(
            "the batch of offset {} does not match its CRC",
            point.offset
        );
        Err(LogError::damaged(&self.path, point.position, what))
    }

    pub(super) fn check_stop(
        &self,
        begin: Point,
        reached: Point,
        stop: Point,
    ) -> Result<(), LogError> {
        if (reached.offset, reached.position, reached.checksum)
            == (stop.offset, stop.position, stop.checksum)
        {
            return Ok(());
        }
        let what = format!(
            "the batch headers from here to {} do not match their checksum",
            stop.position
        );
        Err(LogError::damaged(&self.path, begin.position, what))
    }
}
