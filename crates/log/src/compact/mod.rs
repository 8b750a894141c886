//! Compaction by key: of each key the newest record stays.
//!
//! ```text
//!  start                    first dirty                known_before          not yet sealed or recorded
//!    | cleaned | cleaned      | dirty     | dirty   ¦    |  dirty              | active, tail
//!    `----------- rewritten against ----------------´
//!                               `-- the newest offsets of these keys --´
//! ```
//!
//! A pass looks at the dirty segments and notes the newest offset of each key, as many keys as fit into memory. Then it
//! goes through all segments up to there, oldest first, and writes what is to stay into new files, several small segments
//! into one. Each such group is one frame ([`ReplaceSegments`]) which names files that are durable already; so a crash
//! leaves the old segments or the new, and a pass may end anywhere: what it has done holds, because of every key that a
//! cleaned segment holds nothing older is left in the segments before it.
//!
//! Only segments that the last checkpoint records are touched. Replay begins there, and finds what a frame names. And only
//! those below the last stable offset: there it is known of each transaction how it has ended. Records of an aborted one
//! are the newest of no key, and go.

mod keys;
mod output;
mod retain;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mainstem_journal::Lsn;
use mainstem_record::{Batch, BatchHeader, Retained};

use crate::files::SegmentName;
use crate::log::{Log, Shared};
use crate::op::ReplaceSegments;
use crate::partition::{Control, Partition, State};
use crate::segment::Segment;
use crate::transactions::AbortedSpans;
use crate::{LogError, PartitionId};

use keys::NewestOffsets;
use output::Output;
use retain::Rules;

/// Read at once: what a step takes.
const STEP_BYTES: usize = 1 << 20;

/// Kafka's timestamp of what has none.
const NO_TIME: i64 = -1;

/// How a topic wants to be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// The time now, in milliseconds since 1970.
    pub now_ms: i64,
    /// A segment with a record that is younger than this is not compacted.
    pub min_lag_ms: i64,
    /// How long a tombstone stays after compaction has first seen it.
    pub delete_retention_ms: i64,
}

/// How much of a partition waits for compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compactable {
    /// Bytes of segments that compaction has been over.
    pub clean_bytes: u64,
    /// Bytes of segments that it has not, and could now.
    pub dirty_bytes: u64,
}

/// What a pass of compaction has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of what replaced them.
    pub bytes_after: u64,
}

/// What a step of compaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// There is more to do.
    Worked,
    /// These segments are written and durable: they are to be committed as one frame, as long as the partition exists. When that is done, go on with the next step; if it is refused, [`Compaction::discard`].
    Replace(ReplaceSegments),
    /// The pass is over.
    Done,
}

/// One pass over one partition, in steps. Belongs to the worker that flushes.
pub struct Compaction {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    policy: CompactionPolicy,
    /// What is to be gone through, oldest first.
    sources: VecDeque<Arc<Segment>>,
    newest: NewestOffsets,
    /// The transactions among the sources that were aborted.
    aborted: AbortedSpans,
    /// Keys of records below this offset are in `newest`.
    known_before: i64,
    phase: Phase,
    compacted: Compacted,
}

enum Phase {
    /// Notes keys; the index of the segment that is being read.
    Mapping(usize),
    Cleaning,
    Rewriting(Group),
    /// These files are written, and a frame that names them may be under way.
    Handed(Vec<Output>),
    Done,
}

/// Segments that are rewritten together.
struct Group {
    sources: Vec<Arc<Segment>>,
    /// Which of them is being read, and where.
    index: usize,
    offset: i64,
    generation: u32,
    /// The largest timestamp of batches that are gone since the last one that stays.
    gone_ms: i64,
    outputs: Vec<Output>,
    records: Vec<crate::SegmentRecord>,
    /// Looks whether anything changes at all, before it writes: possible where there is one segment.
    looking: bool,
}

impl Log {
    /// How much of a partition compaction has been over, and how much it could go over now.
    pub fn compactable(
        &self,
        partition: PartitionId,
        policy: &CompactionPolicy,
    ) -> Result<Compactable, LogError> {
        let partition = self.shared.find(partition)?;
        let state = partition.state.lock();
        let mut compactable = Compactable::default();
        for segment in self.shared.compactable(&state, policy) {
            let bytes = segment.end().position;
            if segment.is_cleaned() {
                compactable.clean_bytes += bytes;
            } else {
                compactable.dirty_bytes += bytes;
            }
        }
        Ok(compactable)
    }

    /// How old what compaction could go over now is, and has not: the time of the oldest record, as Kafka finds it. Each
    /// segment has that of its first batch, the largest one in it, which is what segments are cut by as well. None where no
    /// record has a time. May read from files.
    pub fn oldest_dirty_ms(
        &self,
        partition: PartitionId,
        policy: &CompactionPolicy,
    ) -> Result<Option<i64>, LogError> {
        let partition = self.shared.find(partition)?;
        let dirty: Vec<Arc<Segment>> = {
            let state = partition.state.lock();
            let segments = self.shared.compactable(&state, policy);
            segments
                .filter(|segment| !segment.is_cleaned())
                .cloned()
                .collect()
        };
        let times = dirty
            .iter()
            .filter_map(|segment| segment.first_timestamp_ms(&self.shared.shelf));
        Ok(times.filter(|time_ms| *time_ms >= 0).min())
    }

    /// Begins a pass over a partition; none where nothing is dirty. There must be no other pass over it.
    pub fn compaction(
        &self,
        partition: PartitionId,
        policy: CompactionPolicy,
    ) -> Result<Option<Compaction>, LogError> {
        let partition = self.shared.find(partition)?;
        let (sources, aborted) = {
            let state = partition.state.lock();
            let sources = self.shared.compactable(&state, &policy).cloned();
            let sources: VecDeque<Arc<Segment>> = sources.collect();
            let from = sources.front().map_or(0, |first| first.base_offset());
            let upto = sources.back().map_or(from, |last| last.end().offset);
            (sources, state.transactions.aborted(from, upto))
        };
        let Some(dirty) = sources.iter().position(|segment| !segment.is_cleaned()) else {
            return Ok(None);
        };
        let newest = NewestOffsets::new(partition.id.topic, self.shared.compaction_memory_bytes);
        Ok(Some(Compaction {
            shared: self.shared.clone(),
            policy,
            known_before: sources
                .get(dirty)
                .map_or(0, |segment| segment.base_offset()),
            newest,
            aborted: AbortedSpans::new(&aborted),
            sources,
            partition,
            phase: Phase::Mapping(dirty),
            compacted: Compacted::default(),
        }))
    }
}

impl Shared {
    /// The segments from the start on that the last checkpoint records as sealed, that are old enough, and that hold nothing
    /// of an open transaction or behind its beginning; none while a frame waits for a flush that replaces some of them:
    /// its files have the names that the next pass would give.
    fn compactable<'a>(
        &self,
        state: &'a State,
        policy: &CompactionPolicy,
    ) -> impl Iterator<Item = &'a Arc<Segment>> {
        let checkpoint = Lsn(self.checkpoint.load(Ordering::Acquire));
        let newest_ms = policy.now_ms.saturating_sub(policy.min_lag_ms);
        let all_old = policy.min_lag_ms <= 0;
        let last_stable = state.bounds().last_stable;
        let mut pending = state.pending.iter();
        let settled = !pending.any(|(_, control)| matches!(control, Control::Replace(_)));
        let due = move |segment: &&Arc<Segment>| {
            let recorded = segment
                .sealed_at()
                .is_some_and(|sealed| sealed <= checkpoint);
            let old =
                segment.is_cleaned() || all_old || segment.end().max_timestamp_ms <= newest_ms;
            settled && recorded && old && segment.end().offset <= last_stable
        };
        state.segments.range(state.retired..).take_while(due)
    }
}

impl Compaction {
    /// Which partition.
    pub fn partition(&self) -> PartitionId {
        self.partition.id
    }

    /// What has been done so far.
    pub fn compacted(&self) -> Compacted {
        self.compacted
    }

    /// Does a bounded piece of work. After an error nothing is lost: discard the pass, and begin another some time.
    pub fn step(&mut self) -> Result<CompactionStep, LogError> {
        self.committed();
        if self.partition.state.lock().removed {
            self.discard();
            return Ok(CompactionStep::Done);
        }
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Mapping(index) => self.note_keys(index)?,
            Phase::Cleaning => match self.next_group() {
                Some(group) => self.phase = Phase::Rewriting(group),
                None => return Ok(CompactionStep::Done),
            },
            Phase::Rewriting(mut group) => {
                let result = self.rewrite(&mut group);
                self.phase = Phase::Rewriting(group);
                if result? {
                    return self.hand_over();
                }
            }
            Phase::Handed(_) | Phase::Done => return Ok(CompactionStep::Done),
        }
        Ok(CompactionStep::Worked)
    }

    /// The frame that [`step`](Self::step) has asked for is committed: the files have names. The next step says so, too.
    pub fn committed(&mut self) {
        if matches!(self.phase, Phase::Handed(_)) {
            self.phase = Phase::Cleaning;
        }
    }

    /// Removes files that no frame names: those being written, and those of a frame that was refused. Not to be called
    /// while the outcome of a frame is unknown.
    pub fn discard(&mut self) {
        let outputs = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Rewriting(group) => group.outputs,
            Phase::Handed(outputs) => outputs,
            _ => return,
        };
        for output in outputs {
            output.discard(&self.shared.shelf);
        }
    }

    /// Reads a piece of a dirty segment and notes its keys.
    fn note_keys(&mut self, index: usize) -> Result<(), LogError> {
        let Some(segment) = self.sources.get(index).cloned() else {
            self.phase = Phase::Cleaning;
            return Ok(());
        };
        let end = segment.end().offset;
        let read = segment.read(&self.shared.shelf, self.known_before, STEP_BYTES, end, true)?;
        let mut bytes = read.bytes;
        while let Some(batch) = self.batch(&mut bytes)? {
            if batch.header().is_control() || self.aborted.hold(batch.header()) {
                self.known_before = batch.next_offset();
                continue;
            }
            let keys = usize::try_from(batch.record_count()).unwrap_or(0);
            if !self.newest.fits(keys) {
                self.phase = Phase::Cleaning;
                return Ok(());
            }
            let payload = batch.payload().map_err(|source| self.bad(source))?;
            for view in payload.views() {
                let view = view.map_err(|source| self.bad(source))?;
                if let Some(key) = view.key {
                    self.newest.note(key, view.offset);
                }
            }
            self.known_before = batch.next_offset();
        }
        self.phase = Phase::Mapping(index + usize::from(self.known_before >= end));
        Ok(())
    }

    /// The next segments to rewrite: as many as make one of the topic's size, up to where keys are known.
    fn next_group(&mut self) -> Option<Group> {
        let limit = self.shared.limits_of(self.partition.id.topic).segment_bytes;
        let mut sources: Vec<Arc<Segment>> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.sources.front() {
            let end = next.end();
            bytes += end.position;
            // One that lies wholly beyond may join none: it stays as it is.
            let beyond = next.base_offset() >= self.known_before;
            if beyond || (!sources.is_empty() && bytes > limit) {
                break;
            }
            sources.extend(self.sources.pop_front());
        }
        let first = sources.first()?;
        let generation = sources
            .iter()
            .map(|segment| segment.name().generation)
            .max();
        let whole = sources
            .last()
            .is_some_and(|last| last.end().offset <= self.known_before);
        Some(Group {
            index: 0,
            offset: first.base_offset(),
            generation: generation.unwrap_or(0).saturating_add(1),
            gone_ms: NO_TIME,
            outputs: Vec::new(),
            records: Vec::new(),
            looking: whole && sources.len() == 1,
            sources,
        })
    }

    /// Reads a piece of the group and writes what stays. True when the group is done.
    fn rewrite(&self, group: &mut Group) -> Result<bool, LogError> {
        let Some(source) = group.sources.get(group.index).cloned() else {
            self.finish(group)?;
            return Ok(true);
        };
        let end = source.end().offset;
        let read = source.read(&self.shared.shelf, group.offset, STEP_BYTES, end, true)?;
        let mut bytes = read.bytes;
        let rules = Rules {
            newest: &self.newest,
            aborted: &self.aborted,
            known_before: self.known_before,
            now_ms: self.policy.now_ms,
            delete_retention_ms: self.policy.delete_retention_ms,
        };
        while let Some(batch) = self.batch(&mut bytes)? {
            let retained = rules
                .apply(batch.bytes())
                .map_err(|source| self.bad(source))?;
            // A gap that stands alone stays as it is.
            let unchanged = retained == Retained::All || batch.record_count() == 0;
            if group.looking && !unchanged {
                group.looking = false;
                group.offset = source.base_offset();
                return Ok(false);
            }
            group.offset = batch.next_offset();
            if group.looking {
                continue;
            }
            match retained {
                // A copy: a slice would hold all that was read with it, for as long as little is kept.
                Retained::All => {
                    self.put(group, batch.header(), Bytes::copy_from_slice(batch.bytes()))?;
                }
                Retained::Some(less) => self.put(group, less.header(), less.bytes().clone())?,
                // Retention goes on as if it were there.
                Retained::Nothing => {
                    group.gone_ms = group.gone_ms.max(batch.header().max_timestamp_ms);
                }
            }
        }
        if group.offset >= end {
            group.index += 1;
        }
        Ok(false)
    }

    /// Writes a batch; what lies beyond the known keys goes into a file of its own, which is as dirty as it was.
    fn put(&self, group: &mut Group, header: &BatchHeader, bytes: Bytes) -> Result<(), LogError> {
        let beyond = header.base_offset >= self.known_before;
        if beyond && group.outputs.len() < 2 {
            self.finish_cleaned(group, self.known_before)?;
            self.open_output(group, self.known_before)?;
        } else if group.outputs.is_empty() {
            let first = group.sources.first().map_or(0, |first| first.base_offset());
            self.open_output(group, first)?;
        }
        match group.outputs.last_mut() {
            Some(output) => {
                let gone_ms = std::mem::replace(&mut group.gone_ms, NO_TIME);
                output.put(&self.shared.shelf, header, bytes, gone_ms)
            }
            None => Ok(()),
        }
    }

    fn open_output(&self, group: &mut Group, base_offset: i64) -> Result<(), LogError> {
        let name = SegmentName {
            base_offset,
            generation: group.generation,
        };
        let output = Output::create(&self.shared.shelf, &self.partition.dir, name)?;
        group.outputs.push(output);
        Ok(())
    }

    /// Ends the file of what was compacted; it is there even if nothing stays, to stand for its offsets.
    fn finish_cleaned(&self, group: &mut Group, upto: i64) -> Result<(), LogError> {
        if group.outputs.is_empty() {
            let first = group.sources.first().map_or(0, |first| first.base_offset());
            self.open_output(group, first)?;
        }
        let gone_ms = std::mem::replace(&mut group.gone_ms, NO_TIME);
        if let Some(output) = group.outputs.last_mut() {
            group
                .records
                .push(output.finish(&self.shared.shelf, upto, true, gone_ms)?);
        }
        Ok(())
    }

    fn finish(&self, group: &mut Group) -> Result<(), LogError> {
        let end = group.sources.last().map_or(0, |last| last.end().offset);
        if group.looking {
            // Nothing changes but that it was looked at.
            let records = group.sources.iter().filter(|source| !source.is_cleaned());
            group.records = records
                .map(|source| crate::SegmentRecord {
                    cleaned: true,
                    ..source.record()
                })
                .collect();
            return Ok(());
        }
        if group.outputs.len() < 2 {
            self.finish_cleaned(group, end)?;
        } else if let Some(output) = group.outputs.last_mut() {
            group
                .records
                .push(output.finish(&self.shared.shelf, end, false, NO_TIME)?);
        }
        let dir = &self.partition.dir;
        let disk = self.shared.shelf.files.disk();
        disk.sync_dir(dir)
            .map_err(LogError::io("sync the directory", dir))
    }

    /// The group's files are durable: what the frame is to say.
    fn hand_over(&mut self) -> Result<CompactionStep, LogError> {
        let Phase::Rewriting(group) = std::mem::replace(&mut self.phase, Phase::Cleaning) else {
            return Ok(CompactionStep::Worked);
        };
        if group.records.is_empty() {
            return Ok(CompactionStep::Worked);
        }
        let before = group.sources.iter().map(|source| source.end().position);
        self.compacted.bytes_before += before.sum::<u64>();
        let after = group.records.iter().map(|record| record.end_position);
        self.compacted.bytes_after += after.sum::<u64>();
        self.phase = Phase::Handed(group.outputs);
        Ok(CompactionStep::Replace(ReplaceSegments {
            partition: self.partition.id,
            replaced: group.sources.iter().map(|source| source.name()).collect(),
            with: group.records,
        }))
    }

    /// The next batch of bytes that a segment has vouched for.
    fn batch(&self, bytes: &mut Bytes) -> Result<Option<Batch>, LogError> {
        Batch::split_first_trusted(bytes).map_err(|source| self.bad(source))
    }

    fn bad(&self, source: mainstem_record::RecordError) -> LogError {
        LogError::Batch {
            partition: self.partition.id,
            offset: self.known_before,
            source,
        }
    }
}
