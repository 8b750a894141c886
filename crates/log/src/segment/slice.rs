//! Handing out batches as a stretch of their file, which the operating system can send to a socket without this process
//! reading it.
//!
//! A stretch begins at a batch and ends at a point of the index. Before one is handed out for the first time, this process
//! has read it once and checked it as any read does: each batch's CRC, and the checksum of the headers. What is known to be
//! good is kept with the segment, as the few stretches that consumers who read on and on make of it.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use mainstem_journal::DiskFile;
use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader};

use super::held::HeldFile;
use super::read::read_exact;
use super::verify::Window;
use super::{Segment, SegmentShelf};
use crate::LogError;
use crate::index::Point;

/// Less than this is read: that takes fewer calls of the system.
const LEAST_BYTES: u64 = 32 << 10;
/// What a check reads at once: little enough to stay in the processor's cache until its CRC is known.
const WINDOW_BYTES: usize = 128 << 10;
/// Stretches of one segment that are known to be good.
const MAX_STRETCHES: usize = 64;

/// Whole batches as they stand in a segment's file, one after another, checked. While this is alive the file stays open and
/// can be read, also once retention, deletion or compaction has removed it: they do not wait for this.
#[derive(Clone)]
pub struct FileSlice {
    held: Arc<HeldFile>,
    position: u64,
    bytes: usize,
}

impl FileSlice {
    /// How many bytes are left of it.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Where in the file it begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.held.path
    }

    /// The operating system's handle of the file.
    pub fn os_file(&self) -> Option<BorrowedFd<'_>> {
        self.held.file.os_file()
    }

    /// Leaves out the first `count` bytes; all of them, if there are no more.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.bytes);
        self.position += count as u64;
        self.bytes -= count;
    }

    /// Reads it. An error names file and position.
    pub fn read(&self) -> Result<Bytes, LogError> {
        let mut bytes = vec![0; self.bytes];
        read_exact(&*self.held.file, self.path(), &mut bytes, self.position)?;
        Ok(bytes.into())
    }

    /// Its bytes could not be had after all: nothing of the segment is taken for good any more, and whoever reads there next
    /// checks it again and is told what is wrong.
    pub fn distrust(&self) {
        if let Some(segment) = self.held.segment.upgrade() {
            segment.state.lock().checked = Checked::default();
        }
    }
}

impl fmt::Debug for FileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSlice")
            .field("path", &self.path())
            .field("position", &self.position)
            .field("bytes", &self.bytes)
            .finish()
    }
}

impl PartialEq for FileSlice {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.held.segment, &other.held.segment)
            && (self.position, self.bytes) == (other.position, other.bytes)
    }
}

impl Eq for FileSlice {}

impl Segment {
    /// Whole batches from the one that holds `offset` on, of at most `max_bytes` and of offsets below `limit`, and the
    /// offset after them. None where reading them is better, or the only way: there are too few, the disk has no handle of
    /// the operating system, or as many files are held as may be.
    pub(crate) fn slice(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        offset: i64,
        max_bytes: usize,
        limit: i64,
    ) -> Result<Option<(FileSlice, i64)>, LogError> {
        let Some((begin, stop)) = self.stretch(shelf, offset, max_bytes, limit)? else {
            return Ok(None);
        };
        let Some(held) = self.hold(shelf)? else {
            return Ok(None);
        };
        self.check_once(&*held.file, begin, stop)?;
        let (first, _) = self.batch_of(&*held.file, offset, begin, stop)?;
        let bytes = stop.position - first.position;
        if bytes < LEAST_BYTES {
            return Ok(None);
        }
        let slice = FileSlice {
            held,
            position: first.position,
            bytes: bytes as usize,
        };
        Ok(Some((slice, stop.offset)))
    }

    /// Whether the batch that holds `offset` has no more than `max_bytes`: to find out that it does not fit, only its header
    /// is read.
    pub(crate) fn first_fits(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        offset: i64,
        max_bytes: usize,
    ) -> Result<bool, LogError> {
        let (begin, end) = {
            let state = self.with_index(shelf, offset)?;
            (self.points_around(&state, offset)?.0, state.end)
        };
        let file = self.open(shelf)?;
        let (_, header) = self.batch_of(&*file, offset, begin, end)?;
        Ok(header.size_bytes() <= max_bytes)
    }

    /// The points between which a slice lies, if there is enough between them.
    fn stretch(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        offset: i64,
        max_bytes: usize,
        limit: i64,
    ) -> Result<Option<(Point, Point)>, LogError> {
        let state = self.with_index(shelf, offset)?;
        let (begin, later) = self.points_around(&state, offset)?;
        let most = begin.position.saturating_add(max_bytes as u64);
        let fits = |point: &Point| point.position <= most && point.offset <= limit;
        let stop = match fits(&state.end) {
            true => Some(state.end),
            false => later[..later.partition_point(fits)].last().copied(),
        };
        Ok(stop
            .filter(|stop| stop.position - begin.position >= LEAST_BYTES)
            .map(|stop| (begin, stop)))
    }

    /// Reads and checks what lies between two points, unless that has been done before.
    fn check_once(&self, file: &dyn DiskFile, begin: Point, stop: Point) -> Result<(), LogError> {
        let (from, to) = (begin.position, stop.position);
        // All of it at once, and what will be asked for next: a disk is quick only when much is asked of it. That is on its
        // way while this is being sent. What was checked long ago may have left the page cache since.
        file.will_read(from, 2 * (to - from));
        if self.state.lock().checked.covers(from, to) {
            return Ok(());
        }
        let mut window = Window::new(self, file, to, WINDOW_BYTES);
        let mut point = begin;
        while point.position < to {
            let head = window.read(point.position, BATCH_HEADER_BYTES as u64)?;
            let (header, after) = self.step(point, stop, head)?;
            self.verify_body(&mut window, point, &header, after)?;
            point = after;
        }
        self.check_stop(begin, point, stop)?;
        self.state.lock().checked.add(from, to);
        Ok(())
    }

    /// Where the batch that holds `offset` begins, which lies between these points, and its header.
    fn batch_of(
        &self,
        file: &dyn DiskFile,
        offset: i64,
        begin: Point,
        stop: Point,
    ) -> Result<(Point, BatchHeader), LogError> {
        let mut point = begin;
        loop {
            let mut head = [0; BATCH_HEADER_BYTES];
            self.read_exact(file, &mut head, point.position)?;
            let (header, after) = self.step(point, stop, &head)?;
            if header.last_offset() >= offset {
                return Ok((point, header));
            }
            point = after;
        }
    }
}

/// Stretches of a file that were read and found to be good: in no order, and none touches another.
#[derive(Default)]
pub(super) struct Checked {
    stretches: Vec<(u64, u64)>,
}

impl Checked {
    fn covers(&self, from: u64, to: u64) -> bool {
        let mut stretches = self.stretches.iter();
        stretches.any(|(begin, end)| *begin <= from && to <= *end)
    }

    /// Where there are too many, the shortest is forgotten: it is only checked again.
    fn add(&mut self, mut from: u64, mut to: u64) {
        self.stretches.retain(|(begin, end)| {
            let is_apart = *begin > to || *end < from;
            if !is_apart {
                from = from.min(*begin);
                to = to.max(*end);
            }
            is_apart
        });
        self.stretches.push((from, to));
        if self.stretches.len() > MAX_STRETCHES {
            let length = |(_, (from, to)): &(usize, &(u64, u64))| to - from;
            if let Some((shortest, _)) = self.stretches.iter().enumerate().min_by_key(length) {
                self.stretches.swap_remove(shortest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_known_to_be_good_was_checked(
            added in prop::collection::vec((0..200_u64, 1..30_u64), 1..80),
            asked in (0..200_u64, 1..60_u64),
        ) {
            let mut checked = Checked::default();
            let mut bytes = [false; 300];
            for (from, count) in &added {
                checked.add(*from, from + count);
                bytes[*from as usize..(from + count) as usize].fill(true);
            }
            let (from, to) = (asked.0, asked.0 + asked.1);
            let all = bytes[from as usize..to as usize].iter().all(|byte| *byte);
            prop_assert!(all || !checked.covers(from, to));
            if added.len() <= MAX_STRETCHES {
                prop_assert_eq!(checked.covers(from, to), all, "nothing had to be forgotten");
            }
        }
    }

    #[test]
    fn it_is_bounded_and_forgets_the_shortest() {
        let mut checked = Checked::default();
        checked.add(0, 100);
        for index in 1..=2 * MAX_STRETCHES as u64 {
            checked.add(index * 1_000, index * 1_000 + 10);
        }
        assert_eq!(checked.stretches.len(), MAX_STRETCHES);
        assert!(checked.covers(0, 100));
    }
}
