//! One segment: a file of whole batches, one after another from position 0, and its sparse index.
//!
//! The file has no header: its version stands in the checkpoint's record, which also says where it ends. Only the
//! worker that flushes moves its end; anyone reads, up to the end that the worker has published. Behind it may stand
//! batches that frames refer to, or will: see `layout.rs`.

mod held;
mod index;
mod read;
mod slice;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use mainstem_journal::{DiskFile, Lsn, OpenMode};
use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader};
use parking_lot::Mutex;

use self::held::HeldFile;
pub(crate) use self::held::HeldFiles;
use self::index::IndexMemory;
pub(crate) use self::read::CRC_FROM;
use self::slice::Checked;
pub use self::slice::FileSlice;
pub(crate) use self::verify::{IndexFound, Verified};
use crate::LogError;
use crate::files::{OpenFiles, SegmentName};
use crate::index::{Index, Point};
use crate::recorded::SegmentRecord;
use crate::tail::TailBatch;

/// What one write to disk carries, unless a single batch is larger.
pub(crate) const WRITE_BYTES: usize = 1 << 20;
/// An active segment's index is saved whenever the segment has grown by this: what a restart reads anew is bounded.
const INDEX_SAVED_EVERY_BYTES: u64 = 16 << 20;

/// What all segments of a log share.
pub(crate) struct SegmentShelf {
    pub(crate) files: OpenFiles,
    pub(crate) held_files: HeldFiles,
    pub(crate) indexes: IndexMemory,
    pub(crate) interval_bytes: u64,
    next_id: AtomicU64,
}

impl SegmentShelf {
    pub(crate) fn new(
        files: OpenFiles,
        held_files: HeldFiles,
        index_cache_bytes: usize,
        interval_bytes: u64,
    ) -> Self {
        let indexes = IndexMemory::new(index_cache_bytes, interval_bytes);
        Self {
            files,
            held_files,
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
    /// What was read once and found to be good: it may be sent without being read again.
    checked: Checked,
    /// The file, while stretches of it are on their way to clients.
    held: Weak<HeldFile>,
}

/// Batches that were written at the end of a segment.
pub(crate) struct Written {
    start: Point,
    end: Point,
    points: Index,
    pub(crate) headers: Vec<BatchHeader>,
}

impl Segment {
    /// Opens or creates the file, as `mode` says, and creates its directory. The caller syncs the file, the directory and,
    /// where they are new, those above it before anything relies on it.
    pub(crate) fn begin(
        shelf: &SegmentShelf,
        dir: &Path,
        name: SegmentName,
        mode: OpenMode,
    ) -> Result<Arc<Self>, LogError> {
        // Not synced one by one: whoever makes many syncs what is above them once.
        for dir in dir.parent().into_iter().chain([dir]) {
            let made = shelf.files.disk().create_dir(dir);
            made.map_err(LogError::io("create the directory", dir))?;
        }
        let segment = Self::new(shelf, dir, Point::start(name.base_offset), name);
        segment.file(shelf, mode)?;
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
            checked: Checked::default(),
            held: Weak::new(),
        };
        Self {
            id: shelf.next_id.fetch_add(1, Ordering::Relaxed),
            path: dir.join(name.log()),
            name,
            state: Mutex::new(state),
            loading: Mutex::default(),
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

    /// The open file; writable, as long as there is something to write.
    fn open(&self, shelf: &SegmentShelf) -> Result<Arc<dyn DiskFile>, LogError> {
        let mode = if self.is_sealed() {
            OpenMode::Read
        } else {
            OpenMode::Write
        };
        self.file(shelf, mode)
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

    /// Writes batches at the end and publishes them.
    pub(crate) fn append(
        &self,
        shelf: &SegmentShelf,
        batches: &[TailBatch],
    ) -> Result<(), LogError> {
        let written = self.write(shelf, batches)?;
        self.publish(shelf, &written)
    }

    /// Writes batches at the end, in one go.
    pub(crate) fn write(
        &self,
        shelf: &SegmentShelf,
        batches: &[TailBatch],
    ) -> Result<Written, LogError> {
        let file = self.file(shelf, OpenMode::Write)?;
        let written = self.lay_out(shelf, batches)?;
        let parts: Vec<&[u8]> = batches.iter().map(|batch| &*batch.bytes).collect();
        file.write_parts_at(&parts, written.start.position)
            .map_err(LogError::io("write", &self.path))?;
        Ok(written)
    }

    /// Takes in batches that stand at the end already.
    pub(crate) fn take_in(
        &self,
        shelf: &SegmentShelf,
        batches: &[TailBatch],
    ) -> Result<Written, LogError> {
        let written = self.lay_out(shelf, batches)?;
        let file = self.file(shelf, OpenMode::Write)?;
        let length = file.len().map_err(LogError::io("measure", &self.path))?;
        if length < written.end.position {
            let what = format!(
                "the file ends here, before batches up to {} that the journal names",
                written.end.position
            );
            return Err(LogError::damaged(&self.path, length, what));
        }
        Ok(written)
    }

    /// What the segment is with these batches at its end.
    fn lay_out(&self, shelf: &SegmentShelf, batches: &[TailBatch]) -> Result<Written, LogError> {
        let start = self.end();
        let mut points = Index::new(shelf.interval_bytes);
        let mut end = start;
        let mut headers = Vec::with_capacity(batches.len());
        for batch in batches {
            let header = BatchHeader::read(&batch.bytes).map_err(|source| {
                LogError::damaged(
                    &self.path,
                    end.position,
                    format!("a batch to be written is not valid: {source}"),
                )
            })?;
            points.note(end);
            end = end.after(&header, &batch.bytes);
            headers.push(header);
        }
        Ok(Written {
            start,
            end,
            points,
            headers,
        })
    }

    /// What was written may be read.
    pub(crate) fn publish(&self, shelf: &SegmentShelf, written: &Written) -> Result<(), LogError> {
        let save = {
            let mut state = self.state.lock();
            debug_assert_eq!(state.end, written.start, "only one worker appends");
            for point in written.points.points() {
                state.index.note(*point);
            }
            state.end = written.end;
            if written.start.position == 0 {
                let first = written.headers.first();
                state.first_timestamp_ms = first.map(|first| first.max_timestamp_ms);
            }
            written.end.position >= state.index_saved + INDEX_SAVED_EVERY_BYTES
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
    pub(crate) fn sync(shelf: &SegmentShelf, segments: &[Arc<Self>]) -> Result<(), LogError> {
        let Some(first) = segments.first() else {
            return Ok(());
        };
        let files: Result<Vec<_>, _> = segments
            .iter()
            .map(|segment| segment.file(shelf, OpenMode::Write))
            .collect();
        shelf.files.disk().sync_files(&files?).map_err(LogError::io(
            "sync segments, the first of which is",
            &first.path,
        ))
    }
}
