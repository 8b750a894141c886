//! The log as a whole: opening it, and applying durable frames to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use bytes::Bytes;
use mainstem_journal::{Disk, Lsn};
use mainstem_record::{BatchHeader, RecordError};
use parking_lot::{Mutex, RwLock};

use crate::files::OpenFiles;
use crate::flush::Worker;
use crate::layout::Layout;
use crate::partition::{Control, Partition};
use crate::recorded::{PartitionRecord, PartitionState};
use crate::segment::{HeldFiles, SegmentShelf};
use crate::tail::{Stands, TailBatch};
use crate::waiter::Waiter;
use crate::{
    AppendReference, LogError, LogOp, OpenTransaction, PartitionId, ReplaceSegments, TopicId,
};

/// Sizes of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment that would grow beyond this is sealed and a new one begun, where its topic has no size of its own
    /// (see [`Log::set_segment_limits`]).
    pub segment_bytes: u64,
    /// Least distance of two points in a segment's index, which doubles as a segment grows.
    pub index_interval_bytes: u64,
    /// Segment files kept open.
    pub max_open_files: usize,
    /// Segment files kept open beside these, because stretches of them are on their way to clients. Where there are more,
    /// records are read into memory.
    pub max_sent_files: usize,
    /// Memory for the indexes of sealed segments; those not used lately are read again when needed.
    pub index_cache_bytes: usize,
    /// Memory for the keys that a pass of compaction knows; where it is too little for all, there are several passes.
    pub compaction_memory_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            index_interval_bytes: 4096,
            max_open_files: 2_000,
            max_sent_files: 250,
            index_cache_bytes: 16 << 20,
            compaction_memory_bytes: 32 << 20,
        }
    }
}

/// When the segments of a topic's partitions are sealed, so that retention and compaction can have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentLimits {
    /// When the next batch would make it larger than this; `None` is [`LogOptions::segment_bytes`].
    pub segment_bytes: Option<u64>,
    /// When the next batch is more than this later than its first, by the batches' own largest timestamps.
    pub segment_ms: Option<i64>,
}

/// What of a partition can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First offset that can be read: the log start.
    pub start: i64,
    /// First offset that is not yet durable and readable.
    pub high_watermark: i64,
    /// First offset of an open transaction, or the high watermark.
    pub last_stable: i64,
}

/// All partitions of a node. Clones are the same log. One thread applies and takes snapshots, one flushes, syncs,
/// evicts and removes, any number read.
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) topics_dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_limits: RwLock<BTreeMap<TopicId, SegmentLimits>>,
    pub(crate) shelf: SegmentShelf,
    pub(crate) partitions: RwLock<Partitions>,
    /// Removed partitions whose files are still there, with the flush that passed the removal and the first snapshot
    /// that does not need them.
    pub(crate) departed: Mutex<BTreeMap<PartitionId, Departed>>,
    pub(crate) applier: Mutex<Applier>,
    pub(crate) worker: Mutex<Worker>,
    pub(crate) pins: Mutex<Pins>,
    applied: AtomicU64,
    pub(crate) flushed: AtomicU64,
    /// A write or sync failed: nothing that was written since the last sync can be relied on.
    pub(crate) poisoned: AtomicBool,
    /// The last checkpoint that is known to be durable.
    pub(crate) checkpoint: AtomicU64,
    pub(crate) compaction_memory_bytes: usize,
    pub(crate) tail_bytes: AtomicU64,
    pub(crate) unflushed_bytes: AtomicU64,
}

/// Looked up by everyone, never iterated where order could matter.
pub(crate) type Partitions = HashMap<PartitionId, Arc<Partition>, BuildHasherDefault<IdHasher>>;

pub(crate) struct Departed {
    pub(crate) partition: Arc<Partition>,
    pub(crate) flushed: Option<(Lsn, u64)>,
}

/// What belongs to the thread that applies.
#[derive(Default)]
pub(crate) struct Applier {
    pub(crate) applied: Lsn,
    /// Bytes that this group has added.
    group_bytes: u64,
    /// Bytes in memory by the last LSN of their group, oldest first: what eviction gives back, in whole groups,
    /// because batches are slices of their group's buffer.
    pub(crate) groups: VecDeque<(Lsn, u64)>,
    /// Partitions with something that no flush has seen.
    pub(crate) dirty: Vec<Arc<Partition>>,
    /// Partitions whose waiters are woken at the end of this group.
    woken: Vec<Arc<Partition>>,
    /// Partitions whose bounds changed since the last snapshot, and the bounds that it had.
    pub(crate) touched: Vec<Arc<Partition>>,
    pub(crate) snapshot_bounds: Arc<BTreeMap<PartitionId, Bounds>>,
}

/// Snapshots that are alive, by number.
#[derive(Default)]
pub(crate) struct Pins {
    pub(crate) next: u64,
    pub(crate) live: BTreeSet<u64>,
}

impl Pins {
    /// Whether a snapshot older than `number` is alive.
    pub(crate) fn older_than(&self, number: u64) -> bool {
        self.live.first().is_some_and(|oldest| *oldest < number)
    }
}

/// How a batch comes to its segment.
enum Place {
    ByFlush { begins_segment: bool },
    Given(AppendReference, Stands),
}

impl Place {
    fn stands(&self) -> Stands {
        match self {
            Place::ByFlush { .. } => Stands::InJournal,
            Place::Given(_, stands) => *stands,
        }
    }
}

/// Groups are put together in the accounts until they have this size.
const ACCOUNTED_GROUP_BYTES: u64 = 256 << 10;

impl Log {
    /// Opens the log from what the last checkpoint recorded, as of the LSN `applied`. Directories are not looked into;
    /// what stands in files beyond what is recorded is ignored, and written again when later frames are applied.
    pub fn open(
        disk: Arc<dyn Disk>,
        topics_dir: &Path,
        options: LogOptions,
        recorded: Vec<PartitionRecord>,
        applied: Lsn,
    ) -> Result<Self, LogError> {
        disk.create_dir_all(topics_dir)
            .map_err(LogError::io("create the directory", topics_dir))?;
        let files = OpenFiles::new(disk, options.max_open_files);
        let shelf = SegmentShelf::new(
            files,
            HeldFiles::new(options.max_sent_files),
            options.index_cache_bytes,
            options.index_interval_bytes,
        );
        let mut worker = Worker::default();
        let mut partitions = Partitions::default();
        let mut bounds = BTreeMap::new();
        for PartitionRecord {
            partition: id,
            state,
        } in recorded
        {
            let PartitionState::Live {
                start,
                end,
                segments,
                transactions,
            } = state
            else {
                continue;
            };
            let partition = Partition::recorded(
                &shelf,
                topics_dir,
                id,
                start,
                end,
                &segments,
                transactions,
                applied,
            )?;
            let mut state = partition.state.lock();
            if let Some(active) = state.active() {
                let end = active.end().position;
                let first_ms = active.first_timestamp_ms(&shelf);
                let layout = Layout::after(active.base_offset(), end, first_ms);
                // Bytes beyond the recorded end may be replayed byte for byte, and must then be synced all the same.
                if active.check_length(&shelf)? > end {
                    tracing::debug!(case = "segment longer than recorded", path = %active.path().display());
                    worker.note_unsynced(active);
                }
                state.layout = layout;
            }
            bounds.insert(id, state.bounds());
            drop(state);
            partitions.insert(id, partition);
        }
        let applier = Applier {
            applied,
            snapshot_bounds: Arc::new(bounds),
            ..Applier::default()
        };
        let shared = Shared {
            topics_dir: topics_dir.to_path_buf(),
            segment_bytes: options.segment_bytes,
            segment_limits: RwLock::default(),
            shelf,
            partitions: RwLock::new(partitions),
            departed: Mutex::default(),
            applier: Mutex::new(applier),
            worker: Mutex::new(worker),
            pins: Mutex::default(),
            applied: AtomicU64::new(applied.0),
            flushed: AtomicU64::new(applied.0),
            poisoned: AtomicBool::new(false),
            checkpoint: AtomicU64::new(applied.0),
            compaction_memory_bytes: options.compaction_memory_bytes,
            tail_bytes: AtomicU64::new(0),
            unflushed_bytes: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Applies one operation of the durable frame `lsn`; nothing happens if that is at or below
    /// [`applied`](Self::applied). Frames come in LSN order, [`finish_group`](Self::finish_group) follows the last of
    /// a group. An error means that journal and log do not fit each other, and nothing more may be applied.
    pub fn apply(&self, lsn: Lsn, op: LogOp) -> Result<(), LogError> {
        let mut applier = self.shared.applier.lock();
        if lsn <= applier.applied {
            return Ok(());
        }
        match op {
            LogOp::Append {
                partition,
                batch,
                begins_segment,
            } => {
                let place = Place::ByFlush { begins_segment };
                self.shared
                    .append(&mut applier, lsn, partition, batch, place)
            }
            LogOp::CreatePartition { partition } => {
                self.shared.create(&mut applier, lsn, partition)
            }
            LogOp::RemovePartition { partition } => {
                self.shared.remove(&mut applier, lsn, partition)
            }
            LogOp::SetStart { partition, offset } => {
                self.shared.set_start(&mut applier, lsn, partition, offset)
            }
            LogOp::AppendReference(reference) => {
                let AppendReference {
                    partition, header, ..
                } = reference.clone();
                let place = Place::Given(reference, Stands::OnlyInSegment);
                self.shared
                    .append(&mut applier, lsn, partition, header, place)
            }
            LogOp::ReplaceSegments(replace) => self.shared.replace(&mut applier, lsn, replace),
        }
    }

    /// Applies a reference to bytes that are at hand, so that they can be read from memory: what [`apply`](Self::apply)
    /// makes of it can be read once a flush has passed it.
    pub fn apply_reference(
        &self,
        lsn: Lsn,
        reference: AppendReference,
        batch: Bytes,
    ) -> Result<(), LogError> {
        let mut applier = self.shared.applier.lock();
        if lsn <= applier.applied {
            return Ok(());
        }
        let partition = reference.partition;
        let place = Place::Given(reference, Stands::InSegment);
        self.shared
            .append(&mut applier, lsn, partition, batch, place)
    }

    /// Every frame up to `last_lsn` has been applied: moves [`applied`](Self::applied) and wakes waiters, once.
    pub fn finish_group(&self, last_lsn: Lsn) {
        let woken = {
            let mut applier = self.shared.applier.lock();
            if last_lsn <= applier.applied {
                return;
            }
            applier.applied = last_lsn;
            self.shared.applied.store(last_lsn.0, Ordering::Release);
            let bytes = std::mem::take(&mut applier.group_bytes);
            if bytes > 0 {
                self.shared.tail_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.shared
                    .unflushed_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
                match applier
                    .groups
                    .back_mut()
                    .filter(|(_, before)| before + bytes <= ACCOUNTED_GROUP_BYTES)
                {
                    Some(group) => *group = (last_lsn, group.1 + bytes),
                    None => applier.groups.push_back((last_lsn, bytes)),
                }
            }
            std::mem::take(&mut applier.woken)
        };
        let mut wakers = Vec::new();
        for partition in woken {
            let mut state = partition.state.lock();
            state.listed.woken = false;
            let (end, last_stable) = if state.removed {
                (i64::MAX, i64::MAX)
            } else {
                (state.end, state.bounds().last_stable)
            };
            state.parked.due(end, last_stable, &mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The LSN up to which everything is applied.
    pub fn applied(&self) -> Lsn {
        Lsn(self.shared.applied.load(Ordering::Acquire))
    }

    /// The LSN up to which everything is written to segments, not necessarily synced: what
    /// [`records`](Self::records) describes.
    pub fn flushed(&self) -> Lsn {
        Lsn(self.shared.flushed.load(Ordering::Acquire))
    }

    /// Bytes of batches that no segment holds yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.shared.unflushed_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of batches in memory, flushed or not.
    pub fn tail_bytes(&self) -> u64 {
        self.shared.tail_bytes.load(Ordering::Relaxed)
    }

    /// What of a partition can be read now.
    pub fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        Ok(self.shared.find(partition)?.state.lock().bounds())
    }

    /// How many segments a partition has, as of the last flush.
    pub fn segment_count(&self, partition: PartitionId) -> Result<usize, LogError> {
        let partition = self.shared.find(partition)?;
        let state = partition.state.lock();
        Ok(state.segments.len() - state.retired)
    }

    /// Every partition, in order.
    pub fn partitions(&self) -> Vec<PartitionId> {
        let mut ids: Vec<_> = self.shared.partitions.read().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Sets when segments of a topic are sealed from now on; the default limits forget what was set. It is a wish about
    /// files to come, not part of what the log holds: it is not kept over a restart.
    pub fn set_segment_limits(&self, topic: TopicId, limits: SegmentLimits) {
        let mut all = self.shared.segment_limits.write();
        if limits == SegmentLimits::default() {
            all.remove(&topic);
        } else {
            all.insert(topic, limits);
        }
    }

    /// Resolves when the partition's high watermark is above `offset`, or when it is or has gone away.
    pub fn on_data(&self, partition: PartitionId, offset: i64) -> Waiter {
        Waiter::new(self.shared.find(partition).ok(), offset, false)
    }

    /// As [`on_data`](Self::on_data), for the last stable offset.
    pub fn on_stable_data(&self, partition: PartitionId, offset: i64) -> Waiter {
        Waiter::new(self.shared.find(partition).ok(), offset, true)
    }

    /// Every open transaction of every partition, in their order.
    pub fn open_transactions(&self) -> Vec<(PartitionId, OpenTransaction)> {
        let mut found = Vec::new();
        for id in self.partitions() {
            if let Ok(partition) = self.shared.find(id) {
                let state = partition.state.lock();
                found.extend(state.transactions.open().map(|open| (id, open)));
            }
        }
        found
    }

    /// The open transactions of one partition, by producer.
    pub fn open_transactions_of(
        &self,
        partition: PartitionId,
    ) -> Result<Vec<OpenTransaction>, LogError> {
        let partition = self.shared.find(partition)?;
        let state = partition.state.lock();
        Ok(state.transactions.open().collect())
    }
}

impl Shared {
    pub(crate) fn find(&self, partition: PartitionId) -> Result<Arc<Partition>, LogError> {
        self.partitions
            .read()
            .get(&partition)
            .cloned()
            .ok_or(LogError::UnknownPartition { partition })
    }

    fn append(
        &self,
        applier: &mut Applier,
        lsn: Lsn,
        id: PartitionId,
        bytes: Bytes,
        place: Place,
    ) -> Result<(), LogError> {
        let partitions = self.partitions.read();
        let partition = partitions
            .get(&id)
            .ok_or(LogError::UnknownPartition { partition: id })?;
        let mut state = partition.state.lock();
        let bad = |source| LogError::Batch {
            partition: id,
            offset: state.end,
            source,
        };
        let header = BatchHeader::read(&bytes).map_err(bad)?;
        let stands = place.stands();
        if stands != Stands::OnlyInSegment && header.size_bytes() != bytes.len() {
            return Err(bad(RecordError::Truncated {
                needed_bytes: header.size_bytes(),
                have_bytes: bytes.len(),
            }));
        }
        if header.base_offset != state.end || header.last_offset_delta < 0 {
            let (expected, got) = (state.end, header.base_offset);
            return Err(LogError::NotDense {
                partition: id,
                lsn,
                expected,
                got,
            });
        }
        let mut layout = state.layout;
        let placement = match place {
            Place::ByFlush { begins_segment } => layout.follow(&header, begins_segment),
            Place::Given(given, _) => {
                let begins_segment = given.segment_base_offset == header.base_offset;
                let placement = layout.follow(&header, begins_segment);
                let due = (placement.segment_base_offset, placement.position);
                if due != (given.segment_base_offset, given.position) {
                    return Err(LogError::Misplaced {
                        partition: id,
                        lsn,
                        segment_base_offset: given.segment_base_offset,
                        position: given.position,
                    });
                }
                placement
            }
        };
        applier.group_bytes += bytes.len() as u64;
        state.transactions.observe(&header, &bytes);
        let batch = TailBatch {
            begins_segment: placement.begins_segment,
            stands,
            lsn,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp_ms: header.max_timestamp_ms,
            bytes,
        };
        state.layout = layout;
        state.end = header.next_offset();
        state.tail.push(batch);
        self.enlist(applier, partition, &mut state);
        Ok(())
    }

    fn create(&self, applier: &mut Applier, lsn: Lsn, id: PartitionId) -> Result<(), LogError> {
        let mut partitions = self.partitions.write();
        if partitions.contains_key(&id) || self.departed.lock().contains_key(&id) {
            return Err(LogError::PartitionExists { partition: id });
        }
        let partition = Partition::new(&self.topics_dir, id, lsn);
        self.enlist(applier, &partition, &mut partition.state.lock());
        partitions.insert(id, partition);
        Ok(())
    }

    fn remove(&self, applier: &mut Applier, lsn: Lsn, id: PartitionId) -> Result<(), LogError> {
        let mut partitions = self.partitions.write();
        let partition = partitions
            .remove(&id)
            .ok_or(LogError::UnknownPartition { partition: id })?;
        let mut state = partition.state.lock();
        state.removed = true;
        state.pending.push_back((lsn, Control::Remove));
        self.enlist(applier, &partition, &mut state);
        drop(state);
        self.departed.lock().insert(
            id,
            Departed {
                partition,
                flushed: None,
            },
        );
        Ok(())
    }

    fn set_start(
        &self,
        applier: &mut Applier,
        lsn: Lsn,
        id: PartitionId,
        offset: i64,
    ) -> Result<(), LogError> {
        let partition = self.find(id)?;
        let mut state = partition.state.lock();
        if offset > state.end {
            return Err(LogError::NotDense {
                partition: id,
                lsn,
                expected: state.end,
                got: offset,
            });
        }
        if offset > state.start {
            state.start = offset;
            state.pending.push_back((lsn, Control::SetStart(offset)));
            self.enlist(applier, &partition, &mut state);
        }
        Ok(())
    }

    /// What is read stays the same: the segments change when a flush passes this.
    fn replace(
        &self,
        applier: &mut Applier,
        lsn: Lsn,
        replace: ReplaceSegments,
    ) -> Result<(), LogError> {
        let partition = self.find(replace.partition)?;
        let mut state = partition.state.lock();
        state.pending.push_back((lsn, Control::Replace(replace)));
        self.enlist(applier, &partition, &mut state);
        Ok(())
    }

    /// Puts a changed partition into every work list where it does not stand yet.
    fn enlist(
        &self,
        applier: &mut Applier,
        partition: &Arc<Partition>,
        state: &mut crate::partition::State,
    ) {
        if !std::mem::replace(&mut state.listed.dirty, true) {
            applier.dirty.push(partition.clone());
        }
        if !std::mem::replace(&mut state.listed.touched, true) {
            applier.touched.push(partition.clone());
        }
        if !state.parked.is_empty() && !std::mem::replace(&mut state.listed.woken, true) {
            applier.woken.push(partition.clone());
        }
    }
}

/// Ids are random already (a UUID, and a small number beside it): mixing them is enough.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(26) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64((value >> 64) as u64 ^ value as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits, the multiplication mixes best into the high ones.
        self.0 ^ (self.0 >> 32)
    }
}
