//! Batches that go to their segments before their frames, which then only refer to them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mainstem_journal::{BufferPool, DiskFile, DiskWork, OpenMode, PooledBuffer, mutation};
use mainstem_record::{BATCH_HEADER_BYTES, assign};

use crate::files::{SegmentName, partition_dir};
use crate::log::{Log, Shared};
use crate::segment::WRITE_BYTES;
use crate::{AppendReference, LogError, PartitionId, Placement};

/// A batch with its place.
#[derive(Clone, Debug)]
pub struct AheadBatch {
    /// Where to.
    pub partition: PartitionId,
    /// In which segment, and where in it.
    pub placement: Placement,
    /// The offset of its first record, and the leader epoch: they are written into it.
    pub base_offset: i64,
    /// See `base_offset`.
    pub leader_epoch: i32,
    /// The batch as it came.
    pub bytes: Bytes,
}

/// Writes batches to their segments and syncs them. One thread has it; flushes go on meanwhile: nobody else writes what
/// has been given to a batch, and a segment's end moves only when a flush takes the batch in.
pub struct AheadWriter {
    shared: Arc<Shared>,
    pool: BufferPool,
    /// The newest segment of each partition whose name is known to be durable.
    named: HashMap<PartitionId, i64>,
}

/// Memory of buffers that lie ready.
const POOLED_BYTES: usize = 32 << 20;
/// Partitions whose names are remembered; those forgotten are synced once more.
const MAX_NAMED: usize = 65_536;

/// Batches that follow one another in one segment.
struct Run {
    path: PathBuf,
    position: u64,
    /// Up to where they reach.
    end: u64,
    bytes: PooledBuffer,
    /// Of each batch, where in `bytes` it begins.
    starts: Vec<usize>,
    outcome: Result<Arc<dyn DiskFile>, LogError>,
}

impl Run {
    fn write(&mut self, shared: &Shared) {
        let path = &self.path;
        let disk = shared.shelf.files.disk();
        let open = disk.open(path, OpenMode::WriteOrCreate);
        self.outcome = open.map_err(LogError::io("open", path)).and_then(|file| {
            self.write_to(&*file).map_err(LogError::io("write", path))?;
            Ok(file)
        });
    }

    /// Piece by piece: what the journal writes meanwhile has no more than one piece of each run before it.
    fn write_to(&self, file: &dyn DiskFile) -> std::io::Result<()> {
        let (mut rest, mut position) = (self.bytes.as_ref(), self.position);
        while !rest.is_empty() {
            // Up to where a block begins: none is written in two parts.
            let room = WRITE_BYTES - (position % WRITE_BYTES as u64) as usize;
            let (piece, after) = rest.split_at(room.min(rest.len()));
            file.write_all_at(piece, position)?;
            (rest, position) = (after, position + piece.len() as u64);
        }
        Ok(())
    }
}

impl AheadWriter {
    /// For the segments of `log`.
    pub fn new(log: &Log) -> Self {
        Self {
            shared: log.shared.clone(),
            pool: BufferPool::new(POOLED_BYTES),
            named: HashMap::new(),
        }
    }

    /// Writes these batches where they belong and makes them durable, with the names of their files: then a frame may
    /// refer to them. Returns for each the reference, and the batch as it stands there. After an error nothing is known of
    /// any of them, and the log takes no more writes.
    pub fn write(
        &mut self,
        batches: &[AheadBatch],
    ) -> Result<Vec<(AppendReference, Bytes)>, LogError> {
        let written = self.shared.check().and_then(|()| self.try_write(batches));
        written.inspect_err(|_| self.shared.poison())
    }

    fn try_write(
        &mut self,
        batches: &[AheadBatch],
    ) -> Result<Vec<(AppendReference, Bytes)>, LogError> {
        let (mut runs, of_batch) = self.runs(batches);
        self.make_dirs(batches)?;
        let shared = &*self.shared;
        let disk = shared.shelf.files.disk();
        let work = |run| Box::new(move || Run::write(run, shared)) as DiskWork<'_>;
        disk.at_once(runs.iter_mut().map(work).collect());
        let mut files = Vec::with_capacity(runs.len());
        let mut written = Vec::with_capacity(runs.len());
        let first = runs.first().map(|run| run.path.clone()).unwrap_or_default();
        for run in runs {
            files.push(run.outcome?);
            written.push((run.bytes.freeze(), run.starts));
        }
        if !mutation::active(mutation::REFERENCE_BEFORE_SYNC) {
            let action = "sync segments, the first of which is";
            let synced = disk.sync_files(&files);
            synced.map_err(LogError::io(action, &first))?;
        }
        self.sync_names(batches)?;
        let referenced = batches.iter().zip(of_batch).map(|(batch, (run, at))| {
            let (bytes, starts) = &written[run];
            let end = starts.get(at + 1).copied().unwrap_or(bytes.len());
            let bytes = bytes.slice(starts[at]..end);
            let reference = AppendReference {
                partition: batch.partition,
                segment_base_offset: batch.placement.segment_base_offset,
                position: batch.placement.position,
                header: bytes.slice(..BATCH_HEADER_BYTES),
            };
            (reference, bytes)
        });
        Ok(referenced.collect())
    }

    /// Puts together what follows one another; says of each batch which it is of which run.
    fn runs(&self, batches: &[AheadBatch]) -> (Vec<Run>, Vec<(usize, usize)>) {
        let mut ends: Vec<(PartitionId, i64, u64, u64)> = Vec::new();
        let mut newest: HashMap<PartitionId, usize> = HashMap::new();
        let mut run_of = Vec::with_capacity(batches.len());
        for batch in batches {
            let Placement {
                segment_base_offset: segment,
                position,
                ..
            } = batch.placement;
            let end = position + batch.bytes.len() as u64;
            let fits = |at: &usize| ends[*at].1 == segment && ends[*at].3 == position;
            let at = newest.get(&batch.partition).copied().filter(fits);
            let at = at.unwrap_or(ends.len());
            match ends.get_mut(at) {
                Some(run) => run.3 = end,
                None => ends.push((batch.partition, segment, position, end)),
            }
            newest.insert(batch.partition, at);
            run_of.push(at);
        }
        let run = |(partition, base_offset, position, end): (PartitionId, i64, u64, u64)| {
            let dir = partition_dir(&self.shared.topics_dir, partition);
            Run {
                path: dir.join(name(base_offset).log()),
                position,
                end,
                bytes: self.pool.take((end - position) as usize),
                starts: Vec::new(),
                // Until it is written.
                outcome: Err(LogError::Poisoned),
            }
        };
        let mut runs: Vec<Run> = ends.into_iter().map(run).collect();
        let of_batch = batches.iter().zip(run_of).map(|(batch, at)| {
            let run = &mut runs[at];
            run.starts.push(run.bytes.as_ref().len());
            let bytes = run.bytes.extend(&batch.bytes);
            assign(bytes, batch.base_offset, batch.leader_epoch);
            (at, run.starts.len() - 1)
        });
        let of_batch = of_batch.collect();
        debug_assert!(
            runs.iter()
                .all(|run| run.position + run.bytes.as_ref().len() as u64 == run.end)
        );
        (runs, of_batch)
    }

    /// The partitions whose segment may have a name that is not durable.
    fn unnamed<'a>(&self, batches: &'a [AheadBatch]) -> impl Iterator<Item = &'a AheadBatch> {
        batches.iter().filter(|batch| {
            self.named.get(&batch.partition) != Some(&batch.placement.segment_base_offset)
        })
    }

    fn make_dirs(&self, batches: &[AheadBatch]) -> Result<(), LogError> {
        let disk = self.shared.shelf.files.disk();
        for batch in self.unnamed(batches) {
            let dir = partition_dir(&self.shared.topics_dir, batch.partition);
            for dir in dir.parent().into_iter().chain([&*dir]) {
                let made = disk.create_dir(dir);
                made.map_err(LogError::io("create the directory", dir))?;
            }
        }
        Ok(())
    }

    /// Makes durable the names of files, and of directories where they may be new. Whoever made them, and however long
    /// ago: only what was synced here is known to be.
    fn sync_names(&mut self, batches: &[AheadBatch]) -> Result<(), LogError> {
        let mut dirs = BTreeSet::new();
        for batch in self.unnamed(batches) {
            let dir = partition_dir(&self.shared.topics_dir, batch.partition);
            if !self.named.contains_key(&batch.partition) {
                let above = dir.ancestors().skip(1).take(2);
                dirs.extend(above.map(Path::to_path_buf));
            }
            dirs.insert(dir);
        }
        self.sync_dirs(&dirs)?;
        if self.named.len() + batches.len() > MAX_NAMED {
            self.named.clear();
        }
        let named = batches
            .iter()
            .map(|batch| (batch.partition, batch.placement.segment_base_offset));
        self.named.extend(named);
        Ok(())
    }

    fn sync_dirs(&self, dirs: &BTreeSet<PathBuf>) -> Result<(), LogError> {
        let disk = self.shared.shelf.files.disk();
        let mut outcomes: Vec<_> = dirs.iter().map(|dir| (dir, Ok(()))).collect();
        let work = outcomes
            .iter_mut()
            .map(|(dir, outcome)| Box::new(|| *outcome = disk.sync_dir(dir)) as DiskWork<'_>);
        disk.at_once(work.collect());
        for (dir, outcome) in outcomes {
            outcome.map_err(LogError::io("sync the directory", dir))?;
        }
        Ok(())
    }
}

fn name(base_offset: i64) -> SegmentName {
    SegmentName {
        base_offset,
        generation: 0,
    }
}
