//! The background worker: moves the log's tail into segments, makes room in memory, and writes
//! checkpoints, after which journal files are recycled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstem_journal::{Lsn, mutation};
use mainstem_log::{PartitionId, PartitionState};
use mainstem_store::{Family, StoreOp};

use crate::EngineError;
use crate::compaction::Compactor;
use crate::keys::{self, CheckpointMark};
use crate::producers::Producers;
use crate::shards::Shards;
use crate::shared::{ApplyItem, Shared};
use crate::space::Ballast;
use crate::sync::SyncItem;
use crate::ticket::{Ticket, ticket};
use crate::worker::{Progress, Steps};

/// How often an idle background worker looks around.
const IDLE_MS: u64 = 1_000;
/// Between two portions that a checkpoint waits for, where nothing presses.
const PORTION_WAIT_MS: u64 = 4;

pub(crate) struct Background {
    pub(crate) shared: Arc<Shared>,
    /// The checkpoint's copy: it moves with what is flushed, so that it is exact as of that position.
    pub(crate) producers: Producers,
    pub(crate) shards: Arc<Shards>,
    pub(crate) recycle_to: Arc<AtomicU64>,
    phase: Phase,
    written_bytes_at_checkpoint: u64,
    /// The time when the last checkpoint began, or when time was first told.
    checkpoint_ms: Option<i64>,
    /// How long nothing has happened.
    idle_ms: u64,
    /// What the last step asked to wait.
    wait_ms: u64,
    ballast: Ballast,
    compactor: Compactor,
    /// Files that this checkpoint has forgotten are still to be removed.
    removing: Option<Lsn>,
    /// Up to where the tail is going to segments, in portions.
    flushing: Option<Lsn>,
    /// The ballast was given up for a checkpoint, which has yet to bring the tail to segments.
    space_was_made: bool,
}

enum Phase {
    Rest,
    /// Everything up to `lsn` is going to segments.
    Moving {
        lsn: Lsn,
    },
    /// Segments are being synced up to `lsn`; `ops` are the records of what changed, as of there.
    Syncing {
        lsn: Lsn,
        ops: Vec<StoreOp>,
        synced: Ticket<()>,
    },
    /// The checkpoint's records are with the store's worker, which stands at or past `lsn` when it
    /// has written them.
    Writing {
        lsn: Lsn,
        written: Ticket<()>,
    },
    /// The store is being flushed: then the checkpoint stands.
    Flushing {
        lsn: Lsn,
        flushed: Ticket<()>,
    },
}

impl Phase {
    /// Whether it waits for another worker.
    fn waits(&self) -> bool {
        match self {
            Phase::Rest | Phase::Moving { .. } => false,
            Phase::Syncing { synced, .. } => !synced.is_ready(),
            Phase::Writing { written, .. } => !written.is_ready(),
            Phase::Flushing { flushed, .. } => !flushed.is_ready(),
        }
    }
}

impl Background {
    pub(crate) fn new(
        shared: Arc<Shared>,
        producers: Producers,
        shards: Arc<Shards>,
        recycle_to: Arc<AtomicU64>,
    ) -> Background {
        let ballast = Ballast::find(
            shared.disk.as_ref(),
            &shared.dir,
            shared.options.ballast_bytes,
        );
        Background {
            compactor: Compactor::new(shared.clone()),
            removing: None,
            shared,
            ballast,
            flushing: None,
            space_was_made: false,
            producers,
            shards,
            recycle_to,
            phase: Phase::Rest,
            written_bytes_at_checkpoint: 0,
            checkpoint_ms: None,
            idle_ms: 0,
            wait_ms: 0,
        }
    }

    fn try_step(&mut self) -> Result<Progress, EngineError> {
        // Where nobody writes to the store, nobody else finds out what it has met in the background.
        self.shared.store.check()?;
        self.look_after_space();
        if self.phase.waits() {
            // The tail must not grow without bound while the disk or the store is slow.
            return self.tend();
        }
        match std::mem::replace(&mut self.phase, Phase::Rest) {
            Phase::Moving { lsn } => return self.move_tail(lsn),
            Phase::Syncing { lsn, ops, synced } => {
                synced.wait()?;
                self.write_records(lsn, ops)?;
            }
            Phase::Writing { lsn, written } => {
                written.wait()?;
                self.flush_store(lsn);
            }
            Phase::Flushing { lsn, flushed } => {
                flushed.wait()?;
                self.finish_checkpoint(lsn)?;
            }
            Phase::Rest if self.checkpoint_due() => return self.begin_checkpoint(),
            Phase::Rest if self.ending() => return Ok(Progress::Stopped),
            Phase::Rest => return self.tend(),
        }
        Ok(Progress::Worked)
    }

    fn ending(&self) -> bool {
        self.shared.life.journal_ended.load(Ordering::Acquire)
    }

    fn applied(&self) -> Lsn {
        Lsn(self.shared.positions.log_applied.load(Ordering::Acquire))
    }

    /// Bytes that frames have brought to the disk: in the journal, or in segments that the journal refers to.
    fn written_bytes(&self) -> u64 {
        let at = &self.shared.positions;
        at.journal_bytes.load(Ordering::Acquire) + at.referenced_bytes.load(Ordering::Acquire)
    }

    /// Milliseconds since the last checkpoint, as far as time is told.
    fn since_checkpoint_ms(&mut self) -> u64 {
        let now_ms = self.shared.positions.now_ms.load(Ordering::Acquire);
        if now_ms == 0 {
            return 0;
        }
        let begun_ms = *self.checkpoint_ms.get_or_insert(now_ms);
        u64::try_from(now_ms.saturating_sub(begun_ms)).unwrap_or(0)
    }

    fn checkpoint_due(&mut self) -> bool {
        let since_ms = self.since_checkpoint_ms();
        if self.applied().0 <= self.shared.positions.checkpoint.load(Ordering::Acquire)
            || !self.shared.has_room_to_flush()
        {
            return false;
        }
        let written = self.written_bytes() - self.written_bytes_at_checkpoint;
        self.ending()
            || self.space_was_made
            || written >= self.shared.options.checkpoint_bytes
            || since_ms >= self.shared.options.checkpoint_interval_ms
            || self.idle_ms >= self.shared.options.checkpoint_idle_ms
    }

    /// How much of the tail goes to segments at once: a little, and as much as has come beyond what may wait, so that it
    /// goes at the pace at which records come. All of it where somebody waits for the room or the end, or space is short.
    fn portion_bytes(&self) -> u64 {
        let options = &self.shared.options;
        if self.ending() || self.space_was_made || self.shared.budget.under_pressure() {
            return u64::MAX;
        }
        let unflushed = self.shared.log.unflushed_bytes();
        let excess = unflushed.saturating_sub(options.flush_bytes);
        excess.max(options.flush_portion_bytes)
    }

    /// Moves a portion of the tail to segments; says whether there is more of it up to `upto`.
    fn flush_portion(&mut self, upto: Lsn) -> Result<bool, EngineError> {
        let max_bytes = self.portion_bytes();
        let producers = &mut self.producers;
        producers.tell_time(self.shared.positions.now_ms.load(Ordering::Acquire));
        let log = &self.shared.log;
        let flushed = log.flush_part(upto, max_bytes, &mut |partition, header| {
            producers.observe(partition, header)
        })?;
        if flushed.more {
            tracing::debug!(case = "a flush goes on in portions");
        }
        Ok(flushed.more)
    }

    /// Removes a bounded number of files; the rest when there is nothing more urgent, or at the next start.
    fn remove_files(&mut self) -> Result<(), EngineError> {
        if let Some(lsn) = self.removing.take()
            && self.shared.log.remove_files(lsn)?.more
        {
            self.removing = Some(lsn);
        }
        Ok(())
    }

    /// What is done whenever there is nothing more urgent.
    fn tend(&mut self) -> Result<Progress, EngineError> {
        let mut progress = self.make_room()?;
        // Not while files are being synced: what is gone cannot be.
        let syncing = matches!(self.phase, Phase::Syncing { .. });
        if self.removing.is_some() && !self.ending() && !syncing {
            self.remove_files()?;
            progress = Progress::Worked;
        }
        // When the engine ends, what is not compacted is so the next time.
        Ok(if !self.ending() && self.compactor.step() {
            Progress::Worked
        } else {
            progress
        })
    }

    fn make_room(&mut self) -> Result<Progress, EngineError> {
        let shared = self.shared.clone();
        let pressed = shared.budget.under_pressure();
        let unflushed = shared.log.unflushed_bytes();
        let wanted = unflushed >= shared.options.flush_bytes || (pressed && unflushed > 0);
        let flushes = wanted && shared.has_room_to_flush();
        if flushes {
            let upto = self.flushing.unwrap_or_else(|| self.applied());
            self.flushing = self.flush_portion(upto)?.then_some(upto);
        }
        // What is flushed stays as a cache for readers near the end, unless writers need the room.
        let keep = if pressed {
            shared.budget.limit_bytes() / 4
        } else {
            shared.budget.limit_bytes() / 2
        };
        let evicts = shared.log.tail_bytes() > keep;
        if evicts {
            shared.log.evict(keep);
        }
        shared.budget.tail_is(shared.log.tail_bytes());
        Ok(if flushes {
            Progress::Worked
        } else {
            Progress::IdleFor { wait_ms: IDLE_MS }
        })
    }

    fn begin_checkpoint(&mut self) -> Result<Progress, EngineError> {
        self.written_bytes_at_checkpoint = self.written_bytes();
        self.idle_ms = 0;
        self.checkpoint_ms = None;
        self.since_checkpoint_ms();
        self.move_tail(self.applied())
    }

    /// Everything up to the checkpoint's position goes to segments, which are handed over to be synced; what is to be
    /// recorded of them is taken now, before it moves on.
    fn move_tail(&mut self, lsn: Lsn) -> Result<Progress, EngineError> {
        if !self.shared.has_room_to_flush() {
            if self.ending() {
                return Ok(Progress::Stopped);
            }
            self.phase = Phase::Moving { lsn };
            return self.make_room();
        }
        if self.flush_portion(lsn)? {
            self.phase = Phase::Moving { lsn };
            let wait_ms = PORTION_WAIT_MS;
            return Ok(Progress::IdleFor { wait_ms });
        }
        (self.flushing, self.space_was_made) = (None, false);
        let taken = self.shared.log.take_unsynced()?;
        let mut ops = Vec::new();
        for record in self.shared.log.records() {
            ops.push(self.partition_op(record.partition, &record));
        }
        while self
            .producers
            .sweep(self.shared.options.producer_expiration_ms)
        {}
        let changes = self.producers.take_changes();
        for (partition, producer_id, state) in self.shared.admitting.instead_of(changes) {
            let key = keys::producer_key(partition, producer_id);
            ops.push(StoreOp {
                family: Family::Catalog,
                key,
                value: state.map(|state| keys::encode_producer(&state)),
            });
        }
        let (promise, synced) = ticket();
        self.hand_over(SyncItem::Segments { taken, promise });
        self.phase = Phase::Syncing { lsn, ops, synced };
        Ok(Progress::Worked)
    }

    fn hand_over(&self, item: SyncItem) {
        self.shared.sync_queue.lock().push_back(item);
        self.shared.signals.sync.notify();
    }

    /// The segments are synced: the records go through the store's queue, behind every store operation up to there.
    fn write_records(&mut self, lsn: Lsn, mut ops: Vec<StoreOp>) -> Result<(), EngineError> {
        if mutation::active(mutation::SEGMENT_REMOVED_BEFORE_CHECKPOINT) {
            self.shared.log.remove_files(lsn)?;
        }
        let mark = CheckpointMark {
            journal_id: self.shared.journal_id,
            lsn,
        };
        ops.push(StoreOp::put(
            Family::Catalog,
            keys::checkpoint_key(),
            keys::encode_checkpoint(mark),
        ));
        let (promise, written) = ticket();
        self.shared
            .apply_queue
            .lock()
            .push_back(ApplyItem::Checkpoint { ops, promise });
        self.shared.signals.store.notify();
        self.phase = Phase::Writing { lsn, written };
        if mutation::active(mutation::JOURNAL_RECYCLED_BEFORE_RECORD_FLUSHED) {
            self.recycle_journal(lsn);
        }
        Ok(())
    }

    /// The records are written, and must be on disk before anything is let go.
    fn flush_store(&mut self, lsn: Lsn) {
        let (promise, flushed) = ticket();
        self.hand_over(SyncItem::Store { promise });
        self.phase = Phase::Flushing { lsn, flushed };
    }

    fn recycle_journal(&self, lsn: Lsn) {
        self.recycle_to.store(lsn.0, Ordering::Release);
        self.shared.signals.journal.notify();
    }

    fn partition_op(
        &mut self,
        partition: PartitionId,
        record: &mainstem_log::PartitionRecord,
    ) -> StoreOp {
        let key = keys::partition_key(partition);
        if matches!(record.state, PartitionState::Removed) {
            self.producers.remove_partition(partition);
            self.shards.remove(partition);
            return StoreOp::delete(Family::Catalog, key);
        }
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        StoreOp::put(
            Family::Catalog,
            key,
            keys::encode_partition(self.shards.get(partition), &bytes),
        )
    }

    /// The records are on disk: nothing before `lsn` is needed any more.
    fn finish_checkpoint(&mut self, lsn: Lsn) -> Result<(), EngineError> {
        self.shared
            .positions
            .checkpoint
            .store(lsn.0, Ordering::Release);
        tracing::debug!(case = "checkpoint", %lsn);
        self.removing = Some(lsn);
        self.remove_files()?;
        self.recycle_journal(lsn);
        Ok(())
    }

    /// Before anything is written here, so that there is room for it.
    fn look_after_space(&mut self) {
        if let Some(free_bytes) = self.shared.look_up_free_space() {
            let needed_bytes = self.shared.positions.needed_bytes.load(Ordering::Acquire);
            let disk = self.shared.disk.as_ref();
            self.space_was_made |= self.ballast.keep(disk, free_bytes, needed_bytes);
        }
    }

    fn end(&self) -> Progress {
        self.shared
            .life
            .background_ended
            .store(true, Ordering::Release);
        self.shared.signals.store.notify();
        self.shared.signals.sync.notify();
        Progress::Stopped
    }
}

impl Steps for Background {
    fn step(&mut self) -> Progress {
        if self.shared.poison().is_some() {
            return if self.ending() {
                self.end()
            } else {
                Progress::Idle
            };
        }
        match self.try_step() {
            Ok(Progress::Stopped) => self.end(),
            Ok(progress) => {
                if let Progress::IdleFor { wait_ms } = progress {
                    self.wait_ms = wait_ms;
                }
                progress
            }
            Err(error) => {
                self.shared.set_poison(&error);
                Progress::Worked
            }
        }
    }

    fn tick(&mut self) {
        self.idle_ms += self.wait_ms;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{node_dir, small_options};
    use crate::{Engine, EngineOptions, Opened, Submission};
    use mainstem_journal::MemoryDisk;
    use mainstem_store::MemoryStore;

    fn open(options: EngineOptions) -> Opened {
        let (disk, store) = (Arc::new(MemoryDisk::new(1)), Arc::new(MemoryStore::new(1)));
        Engine::open(disk, &node_dir(), store, options, &mut |_| {}).unwrap()
    }

    /// A frame of so many bytes for the store, durable and applied; then the background worker has its turn.
    fn write(opened: &mut Opened, bytes: usize) {
        let put = StoreOp::put(Family::State, &b"\x00\x01key"[..], vec![7; bytes]);
        let submission = Submission {
            store_ops: vec![put],
            ..Submission::default()
        };
        drop(opened.engine.submit_in_turn(submission));
        turn(opened);
    }

    /// Everybody has a few turns.
    fn turn(opened: &mut Opened) {
        for _ in 0..4 {
            opened.workers.iter_mut().for_each(|worker| {
                worker.step();
            });
        }
    }

    fn checkpoint(opened: &Opened) -> u64 {
        opened.engine.status().checkpoint_lsn.0
    }

    #[test]
    fn a_checkpoint_comes_after_so_many_bytes_or_so_much_time() {
        let mut opened = open(EngineOptions {
            checkpoint_bytes: 100_000,
            checkpoint_interval_ms: 60_000,
            ..small_options()
        });
        opened.engine.tell_time(1_000_000);
        write(&mut opened, 40_000);
        assert_eq!(checkpoint(&opened), 0);
        write(&mut opened, 70_000);
        assert_eq!(checkpoint(&opened), 2, "so many bytes");
        write(&mut opened, 10);
        opened.engine.tell_time(1_059_999);
        turn(&mut opened);
        assert_eq!(checkpoint(&opened), 2);
        opened.engine.tell_time(1_060_000);
        turn(&mut opened);
        assert_eq!(checkpoint(&opened), 3, "so much time");
        opened.engine.tell_time(9_000_000);
        turn(&mut opened);
        assert_eq!(checkpoint(&opened), 3, "there is nothing new");
        write(&mut opened, 10);
        assert_eq!(checkpoint(&opened), 4, "it was due long ago");
    }

    #[test]
    fn small_groups_count_with_the_blocks_that_they_take() {
        let mut opened = open(EngineOptions {
            checkpoint_bytes: 100_000,
            ..small_options()
        });
        for _ in 0..30 {
            write(&mut opened, 10);
        }
        assert!(
            checkpoint(&opened) > 20,
            "30 groups take 120 KiB of journal"
        );
    }
}
