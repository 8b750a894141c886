//! The way to disk: tails into segments, sync, and what a checkpoint records. One background worker calls all of this.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstem_journal::{DiskWork, Lsn, OpenMode, mutation};
use mainstem_record::BatchHeader;

use crate::files::SegmentName;
use crate::log::{Log, Shared};
use crate::partition::{Control, Partition};
use crate::recorded::PartitionRecord;
use crate::segment::{Segment, SegmentShelf, WRITE_BYTES, Written};
use crate::tail::{Stands, TailBatch};
use crate::{LogError, PartitionId};

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Everything up to here stands in segments.
    pub upto: Lsn,
    /// Bytes written.
    pub bytes: u64,
    /// There is more to write up to what was asked for.
    pub more: bool,
}

/// Files and directories of which a part was not synced when they were [taken](Log::take_unsynced).
#[must_use = "what is not synced may be lost"]
pub struct Unsynced {
    segments: Vec<Arc<Segment>>,
    dirs: BTreeSet<PathBuf>,
}

/// Batches taken from a tail under one hold of its lock.
const RUN_BATCHES: usize = 1024;
/// Partitions whose batches are written together.
const RUNS_AT_ONCE: usize = 16;
/// Segments synced together, all of them open: enough to keep a disk busy.
const SYNCED_AT_ONCE: usize = 256;
/// Batches dropped under one hold of a partition's lock.
const EVICTED_RUN: usize = 1024;

/// What belongs to the background worker.
#[derive(Default)]
pub(crate) struct Worker {
    /// Partitions with something that no flush has passed.
    dirty: Vec<Arc<Partition>>,
    /// Those that the flush under way has yet to look at, up to `passing_upto`.
    passing: VecDeque<Arc<Partition>>,
    passing_upto: Lsn,
    /// Segments with bytes that no sync has covered, and directories with new names.
    unsynced: BTreeMap<PathBuf, Arc<Segment>>,
    unsynced_dirs: BTreeSet<PathBuf>,
    /// Partitions whose record differs from the one handed out last.
    changed: BTreeMap<PartitionId, Arc<Partition>>,
    /// Partitions whose tail holds batches that can be evicted.
    evictable: Vec<Arc<Partition>>,
    /// Partitions with segments below their recorded start.
    pub(crate) retiring: BTreeMap<PartitionId, Arc<Partition>>,
    /// Emptied lists, to be used again.
    lists: Vec<Vec<TailBatch>>,
}

/// Batches of one partition on their way into a segment, or those that stand there already.
struct Run {
    partition: Arc<Partition>,
    segment: Arc<Segment>,
    batches: Vec<TailBatch>,
    outcome: Result<Written, LogError>,
}

impl Run {
    fn bytes(&self) -> u64 {
        let bytes = self.batches.iter().map(|batch| batch.bytes.len() as u64);
        bytes.sum()
    }

    fn write(&mut self, shelf: &SegmentShelf) {
        let written = match self.batches.first().map(|first| first.stands) {
            Some(Stands::InSegment | Stands::OnlyInSegment) => {
                self.segment.take_in(shelf, &self.batches)
            }
            _ => self.segment.write(shelf, &self.batches),
        };
        self.outcome = written;
    }
}

impl Worker {
    pub(crate) fn note_unsynced(&mut self, segment: &Arc<Segment>) {
        self.unsynced
            .insert(segment.path().to_path_buf(), segment.clone());
    }
}

impl Log {
    /// Writes every applied batch of frames up to `upto` to its segment, without syncing, and takes control operations
    /// up to there into what [`records`](Self::records) describes. `observe` sees the header of each batch that passes, in
    /// order within a partition; batches of a partition that is removed at or below `upto` may be left out.
    ///
    /// After an error of this or of [`sync`](Self::sync) every later call fails: the log must be opened again.
    pub fn flush(
        &self,
        upto: Lsn,
        observe: &mut dyn FnMut(PartitionId, &BatchHeader),
    ) -> Result<Flushed, LogError> {
        self.flush_part(upto, u64::MAX, observe)
    }

    /// As [`flush`](Self::flush), and ends when it has written `max_bytes` or somewhat more. What is left is for further
    /// calls, of the same `upto` or a later one; until they are through, [`records`](Self::records) describe no one moment.
    pub fn flush_part(
        &self,
        upto: Lsn,
        max_bytes: u64,
        observe: &mut dyn FnMut(PartitionId, &BatchHeader),
    ) -> Result<Flushed, LogError> {
        let mut worker = self.shared.worker.lock();
        let worker = &mut *worker;
        self.shared.check()?;
        let applied = {
            let mut applier = self.shared.applier.lock();
            worker.dirty.append(&mut applier.dirty);
            applier.applied
        };
        let upto = upto.min(applied);
        if upto < self.flushed() {
            return Ok(Flushed {
                upto: self.flushed(),
                ..Flushed::default()
            });
        }
        if worker.passing.is_empty() || upto > worker.passing_upto {
            worker.passing.extend(worker.dirty.drain(..));
            worker.passing_upto = upto;
        }
        let bytes = self
            .shared
            .flush_passing(worker, max_bytes, observe)
            .inspect_err(|_| self.shared.poison())?;
        let more = !worker.passing.is_empty();
        if !more {
            let upto = worker.passing_upto;
            self.shared.flushed.store(upto.0, Ordering::Release);
        }
        Ok(Flushed {
            upto: self.flushed(),
            bytes,
            more,
        })
    }

    /// Takes what was flushed and no sync covers yet, to be handed to [`sync_taken`](Self::sync_taken).
    pub fn take_unsynced(&self) -> Result<Unsynced, LogError> {
        let mut worker = self.shared.worker.lock();
        self.shared.check()?;
        Ok(Unsynced {
            segments: std::mem::take(&mut worker.unsynced).into_values().collect(),
            dirs: std::mem::take(&mut worker.unsynced_dirs),
        })
    }

    /// Makes durable what was taken: each file with new bytes, then each directory with new names. Flushes go on
    /// meanwhile, on another thread; files must not be [removed](Self::remove_files).
    pub fn sync_taken(&self, taken: &Unsynced) -> Result<(), LogError> {
        let result = taken
            .segments
            .chunks(SYNCED_AT_ONCE)
            .try_for_each(|segments| Segment::sync(&self.shared.shelf, segments))
            .and_then(|()| {
                let disk = self.shared.shelf.files.disk();
                taken.dirs.iter().try_for_each(|dir| {
                    disk.sync_dir(dir)
                        .map_err(LogError::io("sync the directory", dir))
                })
            });
        if result.is_err() {
            self.shared.poison();
        }
        result
    }

    /// Makes durable everything that was flushed.
    pub fn sync(&self) -> Result<(), LogError> {
        self.sync_taken(&self.take_unsynced()?)
    }

    /// What has changed since the last call, as of the last [`flush`](Self::flush): true only once all that was flushed
    /// is synced. In order of partition.
    pub fn records(&self) -> Vec<PartitionRecord> {
        let mut worker = self.shared.worker.lock();
        std::mem::take(&mut worker.changed)
            .into_values()
            .map(|partition| partition.record())
            .collect()
    }

    /// Gives memory back until at most `target_tail_bytes` of batches are left, or all that is left is not flushed:
    /// the oldest groups first, and whole groups, because batches share their group's buffer. Returns the bytes dropped.
    pub fn evict(&self, target_tail_bytes: u64) -> u64 {
        let mut worker = self.shared.worker.lock();
        let (cut, dropped) = {
            let mut applier = self.shared.applier.lock();
            let (mut cut, mut dropped) = (Lsn::ZERO, 0);
            let tail = self.tail_bytes();
            while tail - dropped > target_tail_bytes
                && let Some((last_lsn, bytes)) = applier.groups.front().copied()
                && last_lsn <= self.flushed()
            {
                applier.groups.pop_front();
                (cut, dropped) = (last_lsn, dropped + bytes);
            }
            (cut, dropped)
        };
        if dropped > 0 {
            worker.evictable.retain(|partition| {
                loop {
                    let mut state = partition.state.lock();
                    if state.tail.evict(cut, EVICTED_RUN) {
                        state.listed.evictable = state.tail.has_flushed();
                        return state.listed.evictable;
                    }
                }
            });
            self.shared.tail_bytes.fetch_sub(dropped, Ordering::Relaxed);
        }
        dropped
    }
}

impl Shared {
    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(LogError::Poisoned);
        }
        Ok(())
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// Brings partitions that the flush under way has yet to look at to where it goes, some of them at a time, until so
    /// many bytes are written; one that has something left above stays on the list of the next.
    fn flush_passing(
        &self,
        worker: &mut Worker,
        max_bytes: u64,
        observe: &mut dyn FnMut(PartitionId, &BatchHeader),
    ) -> Result<u64, LogError> {
        let (upto, mut bytes) = (worker.passing_upto, 0);
        while !worker.passing.is_empty() && bytes < max_bytes {
            let mut runs: Vec<Run> = Vec::with_capacity(RUNS_AT_ONCE);
            let mut taken = 0;
            while runs.len() < RUNS_AT_ONCE
                && bytes + taken < max_bytes
                && let Some(partition) = worker.passing.pop_front()
            {
                match self.next_run(worker, &partition, upto)? {
                    Some(run) => {
                        taken += run.bytes();
                        runs.push(run);
                    }
                    None => {
                        if self.settle(worker, &partition, upto)? {
                            worker.changed.insert(partition.id, partition);
                        }
                    }
                }
            }
            let again = runs.iter().map(|run| run.partition.clone());
            worker.passing.extend(again);
            bytes += self.write_runs(worker, runs, observe)?;
        }
        Ok(bytes)
    }

    /// A partition removed at or below `upto` has nothing to write any more, unless a snapshot may still read it.
    fn drop_removed(&self, partition: &Partition, upto: Lsn) -> bool {
        let next = self.pins.lock().next;
        if self.pins.lock().older_than(next) {
            return false;
        }
        let mut state = partition.state.lock();
        let removed = state.removed && state.pending.back().is_some_and(|(lsn, _)| *lsn <= upto);
        if removed {
            let unflushed = state.tail.clear();
            self.unflushed_bytes.fetch_sub(unflushed, Ordering::Relaxed);
        }
        removed
    }

    /// The next batches of a partition, for one write; none when it has no more up to `upto`.
    fn next_run(
        &self,
        worker: &mut Worker,
        partition: &Arc<Partition>,
        upto: Lsn,
    ) -> Result<Option<Run>, LogError> {
        let created = partition.state.lock().created;
        if created > upto || self.drop_removed(partition, upto) {
            return Ok(None);
        }
        let mut batches = worker.lists.pop().unwrap_or_default();
        batches.clear();
        let active = {
            let state = partition.state.lock();
            state
                .tail
                .next_run(upto, WRITE_BYTES, RUN_BATCHES, &mut batches);
            state.active().cloned()
        };
        let Some(first) = batches.first() else {
            worker.lists.push(batches);
            return Ok(None);
        };
        let segment = match active.filter(|_| !first.begins_segment) {
            Some(segment) => segment,
            None => self.roll(worker, partition, first, upto)?,
        };
        worker.note_unsynced(&segment);
        Ok(Some(Run {
            partition: partition.clone(),
            segment,
            batches,
            // Until it is written.
            outcome: Err(LogError::Poisoned),
        }))
    }

    /// Writes runs of different partitions, and publishes them.
    fn write_runs(
        &self,
        worker: &mut Worker,
        mut runs: Vec<Run>,
        observe: &mut dyn FnMut(PartitionId, &BatchHeader),
    ) -> Result<u64, LogError> {
        let shelf = &self.shelf;
        let work = |run| Box::new(move || Run::write(run, shelf)) as DiskWork<'_>;
        let disk = shelf.files.disk();
        disk.at_once(runs.iter_mut().map(work).collect());
        let mut bytes = 0;
        for run in runs {
            let written = run.outcome?;
            for header in &written.headers {
                observe(run.partition.id, header);
            }
            run.segment.publish(shelf, &written)?;
            bytes += self.publish(worker, &run.partition, &run.batches);
            worker.changed.insert(run.partition.id, run.partition);
            worker.lists.push(run.batches);
        }
        Ok(bytes)
    }

    /// Seals the active segment, if there is one, and begins the next.
    fn roll(
        &self,
        worker: &mut Worker,
        partition: &Partition,
        first: &TailBatch,
        upto: Lsn,
    ) -> Result<Arc<Segment>, LogError> {
        let sealed = partition.state.lock().active().cloned();
        match sealed {
            Some(sealed) => sealed.seal(&self.shelf, upto)?,
            // The partition's first: the directories may be there from a process that died before it had synced them.
            None => {
                let above = partition.dir.ancestors().skip(1).take(2);
                worker.unsynced_dirs.extend(above.map(PathBuf::from));
            }
        }
        let name = SegmentName {
            base_offset: first.base_offset,
            generation: 0,
        };
        // Later batches may stand in it already, and the first of them does if it is a reference.
        let mode = match first.stands {
            Stands::InJournal => OpenMode::WriteOrCreate,
            Stands::InSegment | Stands::OnlyInSegment => OpenMode::Write,
        };
        let segment = Segment::begin(&self.shelf, &partition.dir, name, mode)?;
        worker.unsynced_dirs.insert(partition.dir.clone());
        worker.note_unsynced(&segment);
        partition.state.lock().segments.push_back(segment.clone());
        Ok(segment)
    }

    /// These batches stand in a segment now: readers may get them from there, and eviction may drop them.
    fn publish(
        &self,
        worker: &mut Worker,
        partition: &Arc<Partition>,
        batches: &[TailBatch],
    ) -> u64 {
        let mut state = partition.state.lock();
        let bytes = state.tail.mark_flushed(batches.len());
        if let Some(last) = batches.last() {
            state.recorded_end = last.last_offset + 1;
            state.transactions.flushed(last.last_offset + 1);
        }
        if !std::mem::replace(&mut state.listed.evictable, true) {
            worker.evictable.push(partition.clone());
        }
        self.unflushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }

    /// Takes control operations up to `upto` into the recorded state. True if there were any.
    fn settle(
        &self,
        worker: &mut Worker,
        partition: &Arc<Partition>,
        upto: Lsn,
    ) -> Result<bool, LogError> {
        let mut state = partition.state.lock();
        // Under the lock: a snapshot that comes now finds what is replaced, and is counted.
        let next_snapshot = self.pins.lock().next;
        let mut changed = false;
        while let Some((_, control)) = state.pending.pop_front_if(|(lsn, _)| *lsn <= upto) {
            changed = true;
            match control {
                Control::Create => {}
                Control::SetStart(_) if mutation::active(mutation::DELETED_RANGE_COMES_BACK) => {}
                Control::SetStart(offset) => state.recorded_start = offset,
                Control::Replace(replace) => {
                    let dir = &partition.dir;
                    state.replace(&self.shelf, dir, &replace, (upto, next_snapshot));
                    worker.retiring.insert(partition.id, partition.clone());
                }
                Control::Remove => {
                    if let Some(departed) = self.departed.lock().get_mut(&partition.id) {
                        departed.flushed = Some((upto, next_snapshot));
                    }
                }
            }
        }
        let mut sealed = None;
        while let Some(segment) = state.segments.get(state.retired)
            && segment.end().offset <= state.recorded_start
        {
            segment.retired.get_or_init(|| (upto, next_snapshot));
            sealed = Some(segment.clone()).filter(|segment| !segment.is_sealed());
            state.retired += 1;
            worker.retiring.insert(partition.id, partition.clone());
        }
        let done = !state.tail.has_unflushed() && state.pending.is_empty();
        state.listed.dirty = !done;
        drop(state);
        if !done {
            worker.dirty.push(partition.clone());
        }
        // The last segment went too: what comes next begins a new one, by the rule of [`Log::place`].
        sealed.map_or(Ok(()), |segment| segment.seal(&self.shelf, upto))?;
        Ok(changed)
    }
}
