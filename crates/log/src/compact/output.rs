//! Writing the segments that replace others.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_journal::{Lsn, OpenMode};
use mainstem_record::{Batch, BatchHeader};

use crate::LogError;
use crate::files::SegmentName;
use crate::recorded::SegmentRecord;
use crate::segment::{Segment, SegmentShelf};
use crate::tail::{Stands, TailBatch};

/// Written between two syncs: a large one would hold up the journal's.
const SYNC_EVERY_BYTES: u64 = 8 << 20;
/// Gathered before it is written.
const RUN_BYTES: usize = 1 << 20;
/// The most offsets that one batch without records stands for.
const LONGEST_GAP: i64 = i32::MAX as i64;

/// A new segment file that nothing names yet. Offsets whose batches are gone become batches without records, so that a
/// segment stays without gaps.
pub(crate) struct Output {
    segment: Arc<Segment>,
    run: Vec<TailBatch>,
    run_bytes: usize,
    /// The first offset that nothing written stands for yet.
    written_to: i64,
    synced_to: u64,
}

impl Output {
    pub(crate) fn create(
        shelf: &SegmentShelf,
        dir: &Path,
        name: SegmentName,
    ) -> Result<Self, LogError> {
        Ok(Self {
            segment: Segment::begin(shelf, dir, name, OpenMode::Create)?,
            run: Vec::new(),
            run_bytes: 0,
            written_to: name.base_offset,
            synced_to: 0,
        })
    }

    /// Adds a batch. What lies between it and the one before is gone; `gone_ms` was the largest timestamp there.
    pub(crate) fn put(
        &mut self,
        shelf: &SegmentShelf,
        header: &BatchHeader,
        bytes: Bytes,
        gone_ms: i64,
    ) -> Result<(), LogError> {
        self.fill_gap(header.base_offset, gone_ms)?;
        self.written_to = header.next_offset();
        self.push(header, bytes);
        if self.run_bytes >= RUN_BYTES {
            self.write(shelf)?;
        }
        Ok(())
    }

    fn push(&mut self, header: &BatchHeader, bytes: Bytes) {
        self.run_bytes += bytes.len();
        self.run.push(TailBatch {
            lsn: Lsn::ZERO,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp_ms: header.max_timestamp_ms,
            begins_segment: false,
            stands: Stands::InJournal,
            bytes,
        });
    }

    fn fill_gap(&mut self, upto: i64, gone_ms: i64) -> Result<(), LogError> {
        while self.written_to < upto {
            let last = (upto - 1).min(self.written_to.saturating_add(LONGEST_GAP));
            let gap = Batch::empty(self.written_to, last, gone_ms).map_err(|source| {
                let what = format!("a gap up to offset {last} cannot be written: {source}");
                LogError::damaged(self.segment.path(), 0, what)
            })?;
            self.written_to = last + 1;
            let header = *gap.header();
            self.push(&header, gap.into_bytes());
        }
        Ok(())
    }

    fn write(&mut self, shelf: &SegmentShelf) -> Result<(), LogError> {
        if !self.run.is_empty() {
            self.segment.append(shelf, &self.run)?;
            self.run.clear();
            self.run_bytes = 0;
        }
        let end = self.segment.end().position;
        if end >= self.synced_to + SYNC_EVERY_BYTES {
            Segment::sync(shelf, std::slice::from_ref(&self.segment))?;
            self.synced_to = end;
        }
        Ok(())
    }

    /// Ends the file before `upto` and makes its bytes durable; the directory is the caller's. `gone_ms` as above. What
    /// the frame will say of it.
    pub(crate) fn finish(
        &mut self,
        shelf: &SegmentShelf,
        upto: i64,
        cleaned: bool,
        gone_ms: i64,
    ) -> Result<SegmentRecord, LogError> {
        self.fill_gap(upto, gone_ms)?;
        self.write(shelf)?;
        self.segment.seal(shelf, Lsn::ZERO)?;
        Segment::sync(shelf, std::slice::from_ref(&self.segment))?;
        self.segment.close(shelf);
        Ok(SegmentRecord {
            cleaned,
            ..self.segment.record()
        })
    }

    /// Removes the file, as far as it is there: nothing names it.
    pub(crate) fn discard(&self, shelf: &SegmentShelf) {
        self.segment.close(shelf);
        for path in [self.segment.path().to_path_buf(), self.segment.index_path()] {
            if let Err(error) = shelf.files.disk().remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(file = %path.display(), %error, "left for the next start to remove");
            }
        }
    }
}
