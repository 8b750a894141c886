//! One segment: a file of whole batches, one after another from position 0, and its sparse index.
//!
//! The file has no header: its version stands in the checkpoint's record, which also says where it ends. Only the
//! worker that flushes appends; anyone reads, up to the end that the worker has published.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use mainstem_journal::{BlockBuffer, DiskFile, Lsn, OpenMode};
use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader};
use parking_lot::{Mutex, MutexGuard};

use crate::LogError;
use crate::files::{OpenFiles, SegmentName};
use crate::index::{Index, MAX_FILE_BYTES, Point};
use crate::recorded::SegmentRecord;
use crate::tail::TailBatch;

/// What one write to disk carries, unless a single batch is larger.
pub(crate) const WRITE_BYTES: usize = 1 << 20;
/// An active segment's index is saved whenever the segment has grown by this: what a restart reads anew is bounded.
const INDEX_SAVED_EVERY_BYTES: u64 = 16 << 20;
/// Reading headers one after another: a large window where batches are small, else a small one.
const HEADERS_WINDOW_BYTES: usize = 256 << 10;
const HEADER_WINDOW_BYTES: usize = 4 << 10;
/// The first byte of a batch that its CRC covers.
const CRC_FROM: usize = 21;

/// What all segments of a log share.
pub(crate) struct SegmentShelf {
    pub(crate) files: OpenFiles,
    pub(crate) indexes: IndexMemory,
    pub(crate) interval_bytes: u64,
    next_id: AtomicU64,
}

impl SegmentShelf {
    pub(crate) fn new(files: OpenFiles, index_cache_bytes: usize, interval_bytes: u64) -> Self {
        let indexes = IndexMemory {
            limit_bytes: index_cache_bytes,
            interval_bytes,
            loaded: Mutex::default(),
        };
        Self {
            files,
            indexes,
            interval_bytes,
            next_id: AtomicU64::new(0),
        }
    }
}

/// A segment of one partition.
pub(crate) struct Segment {
    id: u64,
    path: PathBuf,
    name: SegmentName,
    state: Mutex<State>,
    /// One builds the index at a time; the others wait for it.
    loading: Mutex<()>,
    /// Holds bytes that no sync has covered.
    pub(crate) unsynced: AtomicBool,
    /// Set once, when the segment falls below the log start: as of which LSN, and the first snapshot that does not
    /// need it.
    pub(crate) retired: OnceLock<(Lsn, u64)>,
    /// When retention first looked at it, where its records have no times of their own.
    pub(crate) noticed_ms: OnceLock<i64>,
}

struct State {
    /// What is written and may be read. Its offset is the next segment's base.
    end: Point,
    /// Nothing is appended any more, as of that flush.
    sealed_at: Option<Lsn>,
    /// Compaction has been over it.
    cleaned: bool,
    /// Points from `from` on; what lies before is in the index file, or is found by reading the headers.
    index: Index,
    from: Point,
    index_saved: u64,
    /// Largest timestamp of the first batch, where it was written or looked up.
    first_timestamp_ms: Option<i64>,
    /// Used since the index memory last looked.
    used: bool,
}

/// What a read of one segment found.
pub(crate) struct SegmentRead {
    /// Whole batches; empty only if the first did not fit.
    pub(crate) bytes: Bytes,
    /// Offset after them.
    pub(crate) next_offset: i64,
}

/// Batches put together for the end of a segment.
pub(crate) struct Gathered {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) start: Point,
    end: Point,
    points: Index,
    first_timestamp_ms: Option<i64>,
}

impl Segment {
    /// Creates the file and its directory. The caller syncs the file, the directory and, where they are new, those above
    /// it before anything relies on it.
    pub(crate) fn create(
        shelf: &SegmentShelf,
        dir: &Path,
        name: SegmentName,
    ) -> Result<Arc<Self>, LogError> {
        // Not synced one by one: whoever makes many syncs what is above them once.
        for dir in dir.parent().into_iter().chain([dir]) {
            let made = shelf.files.disk().create_dir(dir);
            made.map_err(LogError::io("create the directory", dir))?;
        }
        let segment = Self::new(shelf, dir, Point::start(name.base_offset), name);
        segment.file(shelf, OpenMode::Create)?;
        Ok(Arc::new(segment))
    }

    /// A segment as recorded as of the LSN `recorded_at`, which ends before `next_offset`. The file is not touched.
    pub(crate) fn recorded(
        shelf: &SegmentShelf,
        dir: &Path,
        record: &SegmentRecord,
        next_offset: i64,
        recorded_at: Lsn,
    ) -> Arc<Self> {
        let end = Point {
            offset: next_offset,
            position: record.end_position,
            max_timestamp_ms: record.max_timestamp_ms,
            checksum: record.header_checksum,
        };
        let segment = Self::new(shelf, dir, end, record.name());
        {
            let mut state = segment.state.lock();
            state.sealed_at = record.sealed.then_some(recorded_at);
            state.cleaned = record.cleaned;
        }
        Arc::new(segment)
    }

    fn new(shelf: &SegmentShelf, dir: &Path, end: Point, name: SegmentName) -> Self {
        let state = State {
            end,
            sealed_at: None,
            cleaned: false,
            index: Index::new(shelf.interval_bytes),
            from: end,
            index_saved: end.position,
            first_timestamp_ms: None,
            used: false,
        };
        Self {
            id: shelf.next_id.fetch_add(1, Ordering::Relaxed),
            path: dir.join(name.log()),
            name,
            state: Mutex::new(state),
            loading: Mutex::default(),
            unsynced: AtomicBool::new(false),
            retired: OnceLock::new(),
            noticed_ms: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> SegmentName {
        self.name
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.name.base_offset
    }

    pub(crate) fn end(&self) -> Point {
        self.state.lock().end
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed_at().is_some()
    }

    /// The flush as of which nothing is appended any more.
    pub(crate) fn sealed_at(&self) -> Option<Lsn> {
        self.state.lock().sealed_at
    }

    /// Whether compaction has been over it.
    pub(crate) fn is_cleaned(&self) -> bool {
        self.state.lock().cleaned
    }

    pub(crate) fn set_cleaned(&self, cleaned: bool) {
        self.state.lock().cleaned = cleaned;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_file_name(self.name.index())
    }

    pub(crate) fn record(&self) -> SegmentRecord {
        let state = self.state.lock();
        SegmentRecord {
            base_offset: self.name.base_offset,
            generation: self.name.generation,
            end_position: state.end.position,
            header_checksum: state.end.checksum,
            max_timestamp_ms: state.end.max_timestamp_ms,
            sealed: state.sealed_at.is_some(),
            cleaned: state.cleaned,
        }
    }

    fn file(&self, shelf: &SegmentShelf, mode: OpenMode) -> Result<Arc<dyn DiskFile>, LogError> {
        shelf.files.get(self.id, &self.path, mode)
    }

    /// The open file; writable, as long as there is something to write or to sync.
    fn open(&self, shelf: &SegmentShelf) -> Result<Arc<dyn DiskFile>, LogError> {
        let done = self.is_sealed() && !self.unsynced.load(Ordering::Relaxed);
        self.file(
            shelf,
            if done {
                OpenMode::Read
            } else {
                OpenMode::Write
            },
        )
    }

    /// The largest timestamp of its first batch, read from the file if need be; none while it is empty, or where it
    /// cannot be read: whoever reads the records will say why.
    pub(crate) fn first_timestamp_ms(&self, shelf: &SegmentShelf) -> Option<i64> {
        {
            let state = self.state.lock();
            if state.first_timestamp_ms.is_some() || state.end.position == 0 {
                return state.first_timestamp_ms;
            }
        }
        let mut head = [0; BATCH_HEADER_BYTES];
        let file = self.open(shelf).ok()?;
        self.read_exact(&*file, &mut head, 0).ok()?;
        let first_ms = BatchHeader::read(&head).ok()?.max_timestamp_ms;
        self.state.lock().first_timestamp_ms = Some(first_ms);
        Some(first_ms)
    }

    /// Closes the file, before it is removed.
    pub(crate) fn close(&self, shelf: &SegmentShelf) {
        shelf.files.close(self.id);
    }

    /// Bytes in the file, which must reach to the end that is known.
    pub(crate) fn check_length(&self, shelf: &SegmentShelf) -> Result<u64, LogError> {
        let length = self
            .open(shelf)?
            .len()
            .map_err(LogError::io("measure", &self.path))?;
        let end = self.end().position;
        if length < end {
            let what = format!("the file ends here, before its recorded end at {end}");
            return Err(LogError::damaged(&self.path, length, what));
        }
        Ok(length)
    }

    /// Writes batches at the end and publishes them. `buffer` is scratch.
    pub(crate) fn append(
        &self,
        shelf: &SegmentShelf,
        batches: &[TailBatch],
        buffer: &mut BlockBuffer,
        observe: &mut dyn FnMut(&BatchHeader),
    ) -> Result<(), LogError> {
        let gathered = self.gather(shelf, batches, buffer, observe)?;
        gathered
            .file
            .write_all_at(buffer.bytes(), gathered.start.position)
            .map_err(LogError::io("write", &self.path))?;
        self.publish(shelf, &gathered)
    }

    /// Puts batches together in `buffer`, for one write at the end.
    pub(crate) fn gather(
        &self,
        shelf: &SegmentShelf,
        batches: &[TailBatch],
        buffer: &mut BlockBuffer,
        observe: &mut dyn FnMut(&BatchHeader),
    ) -> Result<Gathered, LogError> {
        let file = self.file(shelf, OpenMode::Write)?;
        // Before the write: after an error any part may have been written.
        self.unsynced.store(true, Ordering::Relaxed);
        let start = self.end();
        let mut points = Index::new(shelf.interval_bytes);
        let mut end = start;
        buffer.begin(
            start.position,
            batches.iter().map(|batch| batch.bytes.len()).sum(),
        );
        for batch in batches {
            let header = BatchHeader::read(&batch.bytes).map_err(|source| {
                LogError::damaged(
                    &self.path,
                    end.position,
                    format!("a batch to be written is not valid: {source}"),
                )
            })?;
            observe(&header);
            points.note(end);
            end = end.after(&header, &batch.bytes);
            buffer.extend(&batch.bytes);
        }
        Ok(Gathered {
            file,
            start,
            end,
            points,
            first_timestamp_ms: batches.first().map(|first| first.max_timestamp_ms),
        })
    }

    /// What was gathered is written: it may be read.
    pub(crate) fn publish(
        &self,
        shelf: &SegmentShelf,
        gathered: &Gathered,
    ) -> Result<(), LogError> {
        let save = {
            let mut state = self.state.lock();
            debug_assert_eq!(state.end, gathered.start, "only one worker appends");
            for point in gathered.points.points() {
                state.index.note(*point);
            }
            state.end = gathered.end;
            if gathered.start.position == 0 {
                state.first_timestamp_ms = gathered.first_timestamp_ms;
            }
            gathered.end.position >= state.index_saved + INDEX_SAVED_EVERY_BYTES
                && state.from.position == 0
        };
        if save {
            self.save_index(shelf)?;
        }
        Ok(())
    }

    /// Nothing is appended from now on, as of the flush up to `flushed`. The index is written out; its memory may go when others need it.
    pub(crate) fn seal(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
        flushed: Lsn,
    ) -> Result<(), LogError> {
        let whole = {
            let mut state = self.state.lock();
            state.sealed_at = Some(flushed);
            if state.from.position > 0 {
                // Found at a restart and never read since: the first read builds the index.
                state.index = Index::new(shelf.interval_bytes);
                state.from = state.end;
            }
            state.from.position == 0
        };
        if whole {
            self.save_index(shelf)?;
            self.keep_index(shelf);
        }
        Ok(())
    }

    /// Makes the bytes of some segments durable. The directories are the caller's.
    pub(crate) fn sync(shelf: &SegmentShelf, segments: &[&Arc<Self>]) -> Result<(), LogError> {
        let Some(first) = segments.first() else {
            return Ok(());
        };
        let files: Result<Vec<_>, _> = segments
            .iter()
            .map(|segment| segment.file(shelf, OpenMode::Write))
            .collect();
        shelf
            .files
            .disk()
            .sync_files(&files?)
            .map_err(LogError::io(
                "sync segments, the first of which is",
                &first.path,
            ))?;
        for segment in segments {
            segment.unsynced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

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
        let points = state.index.points();
        let at = points.partition_point(|point| point.offset <= offset);
        let begin = at.checked_sub(1).and_then(|at| points.get(at)).copied();
        let Some(begin) = begin.filter(|_| offset < state.end.offset) else {
            return Err(LogError::damaged(
                &self.path,
                0,
                format!("its index does not reach offset {offset}"),
            ));
        };
        let enough = begin.position.saturating_add(max_bytes as u64);
        let later = &points[at..];
        let stop = later
            .get(later.partition_point(|point| point.position < enough))
            .copied();
        Ok((begin, stop.unwrap_or(state.end)))
    }

    /// The state with an index that knows `offset`, loading it first if need be.
    fn with_index(
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

    fn read_range(
        &self,
        file: &dyn DiskFile,
        begin: Point,
        stop: Point,
    ) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; (stop.position - begin.position) as usize];
        self.read_exact(file, &mut bytes, begin.position)?;
        Ok(bytes)
    }

    fn read_exact(
        &self,
        file: &dyn DiskFile,
        bytes: &mut [u8],
        position: u64,
    ) -> Result<(), LogError> {
        let count = file
            .read_at(bytes, position)
            .map_err(LogError::io("read", &self.path))?;
        if count < bytes.len() {
            let what = format!(
                "the file ends here, {} bytes before it should",
                bytes.len() - count
            );
            return Err(LogError::damaged(&self.path, position + count as u64, what));
        }
        Ok(())
    }

    /// Reads the header at `point`, checks it against what is due there, and goes on to the next batch.
    fn step(
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

    fn check_crc(&self, point: Point, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        if crc32c::crc32c(&batch[CRC_FROM..]) == header.crc {
            return Ok(());
        }
        let what = format!(
            "the batch of offset {} does not match its CRC",
            point.offset
        );
        Err(LogError::damaged(&self.path, point.position, what))
    }

    fn check_stop(&self, begin: Point, reached: Point, stop: Point) -> Result<(), LogError> {
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

    /// Makes the whole index available: from its file if that is good, else from the batch headers.
    fn load_index(self: &Arc<Self>, shelf: &SegmentShelf) -> Result<(), LogError> {
        let _one = self.loading.lock();
        let upto = self.state.lock().from;
        if upto.position == 0 {
            return Ok(());
        }
        let file = self.open(shelf)?;
        let saved = self.saved_index(shelf, upto);
        let reaches = saved.as_ref().map_or(0, |(_, end)| end.position);
        let prefix = match saved {
            Some((index, end)) => self.walk_headers(&*file, index, end, upto).or_else(|error| {
                tracing::warn!(file = %self.index_path().display(), %error, "the index does not fit its segment");
                self.walk_headers(&*file, Index::new(shelf.interval_bytes), Point::start(self.name.base_offset), upto)
            }),
            None => self.walk_headers(&*file, Index::new(shelf.interval_bytes), Point::start(self.name.base_offset), upto),
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
        let path = self.index_path();
        let read = || -> Result<(Index, Point), LogError> {
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
        };
        match read() {
            Ok((index, end)) if end.position <= upto.position => Some((index, end)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(file = %path.display(), %error, "building the index again");
                None
            }
        }
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

    fn keep_index(self: &Arc<Self>, shelf: &SegmentShelf) {
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
    fn add(&self, segment: &Arc<Segment>, bytes: usize) {
        let mut loaded = self.loaded.lock();
        loaded.segments.push_back((Arc::downgrade(segment), bytes));
        loaded.bytes += bytes;
        // Each gets a second chance once, so two rounds are enough.
        for _ in 0..2 * loaded.segments.len() {
            if loaded.bytes <= self.limit_bytes {
                break;
            }
            let Some((weak, bytes)) = loaded.segments.pop_front() else {
                break;
            };
            let keep = weak
                .upgrade()
                .is_some_and(|old| !old.drop_index(self.interval_bytes));
            if keep {
                loaded.segments.push_back((weak, bytes));
            } else {
                loaded.bytes -= bytes;
            }
        }
    }
}
