//! Checking a whole segment, for a check of the directory: every batch, in bounded memory, and on behind damage.
//!
//! Where a header cannot be trusted, nobody knows where the next batch begins; the segment's index does, if it is
//! undamaged, and the walk goes on at its next point. Points also say between which of them a header is not what was
//! written, where all batches match their CRCs.

use std::sync::Arc;

use mainstem_journal::{DiskFile, OpenMode};
use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader};

use super::read::CRC_FROM;
use super::{Segment, SegmentShelf};
use crate::LogError;
use crate::index::Point;

/// What is read at once.
const WINDOW_BYTES: usize = 1 << 20;
/// Stretches named for one segment; more are only counted.
const MAX_STRETCHES: usize = 100;

/// What a segment was found to be.
#[derive(Default)]
pub(crate) struct Verified {
    /// Bytes in the file.
    pub(crate) length: u64,
    /// Batches that were read.
    pub(crate) batches: u64,
    /// What cannot be read, in order.
    pub(crate) damage: Vec<Stretch>,
    /// So many more are not named.
    pub(crate) unnamed: u64,
    pub(crate) index: IndexFound,
}

/// Offsets that cannot be read.
pub(crate) struct Stretch {
    /// Where in the file it begins.
    pub(crate) position: u64,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) what: String,
}

/// What stands in the index file.
#[derive(Default, PartialEq, Eq)]
pub(crate) enum IndexFound {
    /// A good index.
    #[default]
    Good,
    /// None yet: a sealed segment gets one when it is first read.
    Missing,
    /// One that is longer than what is recorded of the segment: a crash came between the two.
    Ahead,
    Damaged(String),
}

impl Verified {
    fn add(&mut self, stretch: Stretch) {
        if self.damage.len() < MAX_STRETCHES {
            self.damage.push(stretch);
        } else {
            self.unnamed += 1;
        }
    }

    fn covers(&self, from: Point, to: Point) -> bool {
        self.damage
            .iter()
            .any(|stretch| stretch.position >= from.position && stretch.position < to.position)
    }
}

impl Segment {
    /// Reads the whole segment, up to its recorded end, and its index. `progress` hears of bytes read. Fails where the
    /// file cannot be opened.
    pub(crate) fn verify(
        &self,
        shelf: &SegmentShelf,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verified, LogError> {
        let file = shelf.files.get(self.id, &self.path, OpenMode::Read)?;
        let end = self.end();
        let mut verified = Verified {
            length: file.len().map_err(LogError::io("measure", &self.path))?,
            ..Verified::default()
        };
        let mut marks = Vec::new();
        match self.read_index(shelf) {
            Ok((_, reaches)) if reaches.position > end.position => {
                verified.index = IndexFound::Ahead;
            }
            Ok((index, reaches)) => {
                marks.extend_from_slice(index.points());
                marks.push(reaches);
            }
            Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                verified.index = IndexFound::Missing;
            }
            Err(error) => verified.index = IndexFound::Damaged(short(&error)),
        }
        self.walk(&*file, end, &marks, &mut verified, progress);
        Ok(verified)
    }

    fn walk(
        &self,
        file: &dyn DiskFile,
        end: Point,
        marks: &[Point],
        verified: &mut Verified,
        progress: &mut dyn FnMut(u64),
    ) {
        let limit = end.position.min(verified.length);
        let mut window = Window::new(self, file, limit, WINDOW_BYTES);
        let mut marks = marks.iter().copied().peekable();
        let mut point = Point::start(self.name.base_offset);
        marks.next_if_eq(&point);
        // The last place that the index vouches for, and the headers' checksum as it really is from the beginning on.
        let mut vouched = point;
        let mut whole = Some(0);
        let mut suspects = Vec::new();
        let mut misfit = false;
        while point.position < end.position {
            progress(point.position);
            verified.batches += 1;
            point = match self.verify_batch(&mut window, point, end, &mut whole) {
                Ok(after) => after,
                Err((after, error)) => {
                    let is_before = |mark: &Point| mark.position <= point.position;
                    while marks.next_if(is_before).is_some() {}
                    // What a damaged batch says of its end counts only where another one begins there.
                    let mut next =
                        after.and_then(|after| self.next_batch(&mut window, point, after, end));
                    if next.is_none() {
                        whole = None;
                        next = marks.next().filter(|mark| mark.position < verified.length);
                        vouched = next.unwrap_or(vouched);
                    }
                    verified.add(Stretch {
                        position: place(&error, point.position),
                        from: point.offset,
                        to: next.map_or(end.offset, |next| next.offset),
                        what: short(&error),
                    });
                    match next {
                        Some(next) => next,
                        None => return,
                    }
                }
            };
            while let Some(mark) = marks.next_if(|mark| mark.position <= point.position) {
                if (mark.position, mark.offset) != (point.position, point.offset) {
                    misfit = true;
                    continue;
                }
                if mark.checksum != point.checksum {
                    suspects.push((vouched, mark));
                    point.checksum = mark.checksum;
                }
                vouched = mark;
            }
        }
        let ends_well = (point.offset, point.position) == (end.offset, end.position);
        if ends_well && whole == Some(end.checksum) {
            if misfit || !suspects.is_empty() {
                verified.index = IndexFound::Damaged("it does not fit its segment".to_owned());
            }
            return;
        }
        if point.checksum != end.checksum || !ends_well {
            suspects.push((vouched, end));
        }
        for (from, to) in suspects {
            if !verified.covers(from, to) {
                let what = format!(
                    "the batch headers from here to {} do not match their checksum",
                    to.position
                );
                verified.add(Stretch {
                    position: from.position,
                    from: from.offset,
                    to: to.offset,
                    what,
                });
            }
        }
    }

    /// Where the batch after a damaged one begins, if there is one where its header says so.
    fn next_batch(
        &self,
        window: &mut Window<'_>,
        point: Point,
        after: Point,
        end: Point,
    ) -> Option<Point> {
        if after.position == end.position {
            return Some(Point {
                offset: end.offset,
                ..after
            });
        }
        let head = window
            .read(after.position, BATCH_HEADER_BYTES as u64)
            .ok()?;
        let offset = BatchHeader::read(head).ok()?.base_offset;
        (point.offset < offset && offset < end.offset).then_some(Point { offset, ..after })
    }

    /// Checks one batch, and goes on to the next; `headers` is the checksum of all headers. What is damaged comes with
    /// the next place, as far as the header gives one.
    fn verify_batch(
        &self,
        window: &mut Window<'_>,
        point: Point,
        end: Point,
        headers: &mut Option<u32>,
    ) -> Result<Point, (Option<Point>, Box<LogError>)> {
        let begun = window
            .read(point.position, BATCH_HEADER_BYTES as u64)
            .and_then(|head| {
                let step = self.step(point, end, head)?;
                *headers = headers.map(|headers| crc32c::crc32c_append(headers, head));
                Ok(step)
            });
        let (header, after) = begun.map_err(|error| (None, Box::new(error)))?;
        self.verify_body(window, point, &header, after)
            .map_err(|error| (Some(after), Box::new(error)))?;
        Ok(after)
    }

    /// Checks the part of a batch that its CRC covers, piece by piece.
    pub(super) fn verify_body(
        &self,
        window: &mut Window<'_>,
        point: Point,
        header: &BatchHeader,
        after: Point,
    ) -> Result<(), LogError> {
        let mut position = point.position + CRC_FROM as u64;
        let mut crc = 0;
        while position < after.position {
            let bytes = window.read_some(position, after.position - position)?;
            crc = crc32c::crc32c_append(crc, bytes);
            position += bytes.len() as u64;
        }
        self.compare_crc(point, header, crc)
    }

    /// Builds the index anew where it is missing or damaged, and saves it.
    pub(crate) fn rebuild_index(self: &Arc<Self>, shelf: &SegmentShelf) -> Result<(), LogError> {
        let path = self.index_path();
        match shelf.files.disk().remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LogError::io("remove", &path)(error));
            }
            _ => {}
        }
        self.load_index(shelf)?;
        self.save_index(shelf)
    }
}

/// A part of the file, that moves.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    file: &'a dyn DiskFile,
    /// Nothing is read from here on.
    limit: u64,
    begin: u64,
    /// Room for a whole window, of which the first `filled` bytes are the file's.
    bytes: Vec<u8>,
    filled: u64,
}

impl<'a> Window<'a> {
    /// At least a batch's header has to fit into `window_bytes`.
    pub(super) fn new(
        segment: &'a Segment,
        file: &'a dyn DiskFile,
        limit: u64,
        window_bytes: usize,
    ) -> Self {
        Self {
            segment,
            file,
            limit,
            begin: 0,
            bytes: vec![0; window_bytes],
            filled: 0,
        }
    }

    /// Exactly so many bytes, no more than a window.
    pub(super) fn read(&mut self, position: u64, count: u64) -> Result<&[u8], LogError> {
        if position < self.begin || position + count > self.begin + self.filled {
            self.filled = 0;
            self.begin = position;
            let wanted = self
                .limit
                .saturating_sub(position)
                .min(self.bytes.len() as u64);
            if wanted < count {
                let what = "the file ends here, before its recorded end";
                return Err(LogError::damaged(&self.segment.path, self.limit, what));
            }
            let window = &mut self.bytes[..wanted as usize];
            self.segment.read_exact(self.file, window, position)?;
            self.filled = wanted;
        }
        let from = (position - self.begin) as usize;
        Ok(&self.bytes[from..from + count as usize])
    }

    /// Some bytes, at least one and no more than asked for.
    fn read_some(&mut self, position: u64, most: u64) -> Result<&[u8], LogError> {
        let end = self.begin + self.filled;
        let there = match position {
            _ if position >= self.begin && position < end => end - position,
            _ => self
                .limit
                .saturating_sub(position)
                .clamp(1, self.bytes.len() as u64),
        };
        self.read(position, there.min(most))
    }
}

/// What was found, without the place, which stands beside it.
fn short(error: &LogError) -> String {
    match error {
        LogError::Damaged { what, .. } => what.clone(),
        LogError::Malformed { why, .. } => (*why).to_owned(),
        other => other.to_string(),
    }
}

/// Where it was found.
fn place(error: &LogError, otherwise: u64) -> u64 {
    match error {
        LogError::Damaged { position, .. } => *position,
        _ => otherwise,
    }
}
