//! A segment's index: derived, so that it may be lost, and bounded in memory.

use std::sync::{Arc, Weak};

use mainstem_journal::{DiskFile, OpenMode};
use mainstem_record::BATCH_HEADER_BYTES;
use parking_lot::Mutex;

use super::{Segment, SegmentShelf};
use crate::LogError;
use crate::index::{Index, MAX_FILE_BYTES, Point};

/// Reading headers one after another: a large window where batches are small, else a small one.
const HEADERS_WINDOW_BYTES: usize = 256 << 10;
const HEADER_WINDOW_BYTES: usize = 4 << 10;

impl Segment {
    /// Writes the index file, if all of the index is in memory. Not synced: it is derived, and has a checksum.
    pub(crate) fn save_index(&self, shelf: &SegmentShelf) -> Result<(), LogError> {
        let (encoded, end) = {
            let state = self.state.lock();
            if state.from.position > 0 || state.index_saved == state.end.position {
                return Ok(());
            }
            (
                state.index.encode(self.name.base_offset, state.end),
                state.end.position,
            )
        };
        let path = self.index_path();
        let file = shelf
            .files
            .disk()
            .open(&path, OpenMode::Create)
            .map_err(LogError::io("create", &path))?;
        file.write_all_at(&encoded, 0)
            .map_err(LogError::io("write", &path))?;
        self.state.lock().index_saved = end;
        Ok(())
    }
    /// Makes the whole index available: from its file if that is good, else from the batch headers.
    pub(super) fn load_index(self: &Arc<Self>, shelf: &SegmentShelf) -> Result<(), LogError> {
        let _one = self.loading.lock();
        let upto = self.state.lock().from;
        if upto.position == 0 {
            return Ok(());
        }
        let file = self.open(shelf)?;
        let mut reaches = 0;
        let from_start = || {
            let index = Index::new(shelf.interval_bytes);
            self.walk_headers(&*file, index, Point::start(self.name.base_offset), upto)
        };
        let prefix = match self.saved_index(shelf, upto) {
            Some((index, end)) => match self.walk_headers(&*file, index, end, upto) {
                Ok(prefix) => {
                    reaches = end.position;
                    Ok(prefix)
                }
                Err(error) => {
                    tracing::warn!(case = "index that does not fit built again", file = %self.index_path().display(), %error, "the index does not fit its segment");
                    from_start()
                }
            },
            None => from_start(),
        };
        let prefix = prefix.map_err(|error| self.locate(&*file, upto, error))?;
        let sealed = {
            let mut state = self.state.lock();
            state.index.prepend(prefix);
            state.from = Point::start(self.name.base_offset);
            state.index_saved = reaches;
            state.sealed_at.is_some()
        };
        if sealed {
            // A rebuilt index that cannot be saved is only built again.
            if let Err(error) = self.save_index(shelf) {
                tracing::warn!(%error, "a rebuilt index was not saved");
            }
            self.keep_index(shelf);
        }
        Ok(())
    }

    /// The index file, if it is there, undamaged, and about what lies before `upto`.
    fn saved_index(&self, shelf: &SegmentShelf, upto: Point) -> Option<(Index, Point)> {
        match self.read_index(shelf) {
            Ok((index, end)) if end.position <= upto.position => Some((index, end)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(case = "index built again", file = %self.index_path().display(), %error);
                None
            }
        }
    }

    /// What the index file says, whether or not it fits: the index, and the end that it reaches to.
    pub(super) fn read_index(&self, shelf: &SegmentShelf) -> Result<(Index, Point), LogError> {
        let path = self.index_path();
        let file = shelf
            .files
            .disk()
            .open(&path, OpenMode::Read)
            .map_err(LogError::io("open", &path))?;
        let len_bytes = file.len().map_err(LogError::io("measure", &path))?;
        // What is cut off fails its checksum.
        let mut bytes = vec![0; len_bytes.min(MAX_FILE_BYTES) as usize];
        let count = file
            .read_at(&mut bytes, 0)
            .map_err(LogError::io("read", &path))?;
        Index::decode(self.name.base_offset, &bytes[..count])
    }

    /// Continues `index` from `point` to `upto` by reading headers, and checks that it ends as it should.
    fn walk_headers(
        &self,
        file: &dyn DiskFile,
        mut index: Index,
        mut point: Point,
        upto: Point,
    ) -> Result<Index, LogError> {
        let begin = point;
        let mut buffer = vec![0; HEADERS_WINDOW_BYTES];
        let mut window = HEADERS_WINDOW_BYTES;
        while point.position < upto.position {
            let here = point.position;
            let count = window.min((upto.position - here) as usize);
            self.read_exact(file, &mut buffer[..count], here)?;
            let mut headers = 0;
            while point.position < upto.position {
                let at = (point.position - here) as usize;
                let rest = buffer.get(at..count).unwrap_or_default();
                if rest.len() < BATCH_HEADER_BYTES && headers > 0 {
                    break;
                }
                let (_, after) = self.step(point, upto, rest)?;
                index.note(point);
                point = after;
                headers += 1;
            }
            window = if headers < 4 {
                HEADER_WINDOW_BYTES
            } else {
                HEADERS_WINDOW_BYTES
            };
        }
        self.check_stop(begin, point, upto)?;
        Ok(index)
    }

    /// The chain of headers does not hold: finds the batch that is to blame, if its CRC tells. It may stand well before
    /// the place where the chain broke.
    fn locate(&self, file: &dyn DiskFile, upto: Point, error: LogError) -> LogError {
        if !matches!(&error, LogError::Damaged { .. }) {
            return error;
        }
        let mut point = Point::start(self.name.base_offset);
        let mut walk = || -> Result<(), LogError> {
            while point.position < upto.position {
                let mut head = [0; BATCH_HEADER_BYTES];
                self.read_exact(file, &mut head, point.position)?;
                let (header, after) = self.step(point, upto, &head)?;
                let bytes = self.read_range(file, point, after)?;
                self.check_crc(point, &header, &bytes)?;
                point = after;
            }
            Ok(())
        };
        walk().err().unwrap_or(error)
    }

    pub(super) fn keep_index(self: &Arc<Self>, shelf: &SegmentShelf) {
        let bytes = self.state.lock().index.memory_bytes();
        shelf.indexes.add(self, bytes);
    }

    /// Gives the index's memory back. False if it was used lately and should get another round.
    fn drop_index(&self, interval_bytes: u64) -> bool {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.used) || state.index_saved != state.end.position {
            return false;
        }
        state.index = Index::new(interval_bytes);
        state.from = state.end;
        true
    }
}

/// Bounds the memory that sealed segments' indexes take: those not used lately go first.
pub(crate) struct IndexMemory {
    limit_bytes: usize,
    interval_bytes: u64,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    segments: std::collections::VecDeque<(Weak<Segment>, usize)>,
    bytes: usize,
}

impl IndexMemory {
    pub(super) fn new(limit_bytes: usize, interval_bytes: u64) -> Self {
        Self {
            limit_bytes,
            interval_bytes,
            loaded: Mutex::default(),
        }
    }

    fn add(&self, segment: &Arc<Segment>, bytes: usize) {
        let mut loaded = self.loaded.lock();
        loaded.segments.push_back((Arc::downgrade(segment), bytes));
        loaded.bytes += bytes;
        // Each gets a second chance once, so two rounds are enough. The one that was just loaded stays, however small the
        // limit: whoever has loaded it is about to use it.
        for _ in 0..2 * loaded.segments.len() {
            if loaded.bytes <= self.limit_bytes || loaded.segments.len() == 1 {
                break;
            }
            let Some((weak, bytes)) = loaded.segments.pop_front() else {
                break;
            };
            let keep = weak.upgrade().is_some_and(|old| {
                Arc::ptr_eq(&old, segment) || !old.drop_index(self.interval_bytes)
            });
            if keep {
                loaded.segments.push_back((weak, bytes));
            } else {
                loaded.bytes -= bytes;
            }
        }
    }
}
