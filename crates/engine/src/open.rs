//! Opening a data directory: the last checkpoint, then everything after it, replayed into both views.
//!
//! The journal has made durable every frame it hands out, so what is replayed here may be shown.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstem_journal::{Disk, FileMedium, Group, Known, Lsn, Medium, View};
use mainstem_log::{Log, LogOp, PartitionId, PartitionRecord};
use mainstem_record::BatchHeader;
use mainstem_store::{Applied, Family, Store, StoreOp, StoreSnapshot};

use crate::admission::{Admission, AdmittedPartition, Company};
use crate::ahead::WriteAhead;
use crate::apply::{Apply, RUN_BYTES};
use crate::background::Background;
use crate::commit::Commit;
use crate::engine::Engine;
use crate::keys::{self, CheckpointMark};
use crate::producers::Producers;
use crate::shards::Shards;
use crate::shared::{Shared, SharedParts};
use crate::sync::Sync;
use crate::worker::Worker;
use crate::{EngineError, EngineOptions};

/// An open engine and what moves it: a thread for each worker, or a scheduler.
pub struct Opened {
    /// The handle.
    pub engine: Engine,
    /// Admission, journal, store, background, sync and ahead, in this order.
    pub workers: Vec<Worker>,
    /// What recovery did.
    pub recovery: RecoveryReport,
}

/// What recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Replay began after this frame.
    pub checkpoint: Lsn,
    /// The last frame found.
    pub last: Lsn,
    /// Frames replayed into the log or the store.
    pub replayed_frames: u64,
    /// Journal bytes read.
    pub read_bytes: u64,
}

/// How far replay has come, in bytes of journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Read so far.
    pub read_bytes: u64,
    /// To read in all.
    pub total_bytes: u64,
}

/// What the last checkpoint has recorded.
pub(crate) struct Recorded {
    pub(crate) mark: Option<CheckpointMark>,
    pub(crate) partitions: Vec<PartitionRecord>,
    pub(crate) shards: Shards,
    pub(crate) producers: Producers,
}

impl Engine {
    /// Opens the data directory `dir` (its folders `journal` and `topics`) over an open store,
    /// recovering what the last process left. `progress` is called as replay goes on, and once all is read.
    ///
    /// Fails on damage, naming it; on a store that belongs to another journal; and on disk errors.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        store: Arc<dyn Store>,
        options: EngineOptions,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<Opened, EngineError> {
        Engine::open_through(disk, dir, store, options, progress, |files| files)
    }

    /// Like [`Engine::open`], with another medium between the engine and the journal's files: one that is slower, or
    /// sees what passes.
    pub fn open_through<M: Medium + 'static>(
        disk: Arc<dyn Disk>,
        dir: &Path,
        store: Arc<dyn Store>,
        options: EngineOptions,
        progress: &mut dyn FnMut(RecoveryProgress),
        through: impl FnOnce(FileMedium) -> M,
    ) -> Result<Opened, EngineError> {
        let recorded = read_checkpoint(store.as_ref(), &mut |_, error| Err(error))?;
        let checkpoint = recorded.mark.map_or(Lsn(0), |mark| mark.lsn);
        let applied = store.applied()?;
        let store_applied = applied.map_or(Lsn(0), |applied| Lsn(applied.lsn));
        let known = Known {
            checkpoint,
            journal_id: one_journal(recorded.mark, applied)?,
            views: store_applied,
        };
        let (medium, mut replay) = FileMedium::open(
            disk.clone(),
            &dir.join("journal"),
            options.journal.clone(),
            known,
        )?;
        let journal_id = medium.journal_id();
        if store_applied > checkpoint {
            tracing::debug!(case = "store further than the checkpoint", %store_applied, %checkpoint);
        }
        let log = Log::open(
            disk.clone(),
            &dir.join("topics"),
            options.log.clone(),
            recorded.partitions,
            checkpoint,
        )?;
        let shared = Shared::new(SharedParts {
            disk,
            dir: dir.to_path_buf(),
            options,
            journal_id,
            log,
            store,
        });
        let mut recovering = Recovering {
            shared: shared.clone(),
            shards: Arc::new(recorded.shards),
            flushed_producers: recorded.producers.clone(),
            producers: recorded.producers,
            store_applied,
            run: Vec::new(),
            run_bytes: 0,
            run_lsn: Lsn(0),
            refers: false,
            referenced_bytes: 0,
            report: RecoveryReport {
                checkpoint,
                last: checkpoint,
                ..RecoveryReport::default()
            },
        };
        loop {
            let group = replay.next_group()?;
            let (read_bytes, total_bytes) = replay.progress();
            if total_bytes > 0 {
                progress(RecoveryProgress {
                    read_bytes,
                    total_bytes,
                });
            }
            let Some(group) = group else { break };
            recovering.report.read_bytes = read_bytes;
            recovering.group(&group)?;
        }
        recovering.finish(through(medium))
    }
}

struct Recovering {
    shared: Arc<Shared>,
    shards: Arc<Shards>,
    producers: Producers,
    flushed_producers: Producers,
    store_applied: Lsn,
    /// What the store does not have yet, how much memory it keeps, and up to where it goes.
    run: Vec<StoreOp>,
    run_bytes: usize,
    run_lsn: Lsn,
    /// A frame refers to bytes in a segment.
    refers: bool,
    /// How many in all.
    referenced_bytes: u64,
    report: RecoveryReport,
}

impl Recovering {
    fn group(&mut self, group: &Group) -> Result<(), EngineError> {
        let last_lsn = group.last_lsn();
        for frame in group.frames() {
            self.report.replayed_frames += u64::from(frame.lsn > self.report.checkpoint);
            for section in frame
                .sections()
                .filter(|section| matches!(section.view, View::Log))
            {
                for op in LogOp::decode_all(&section.body) {
                    let op = op?;
                    if frame.lsn > self.report.checkpoint {
                        self.remember(frame.lsn, section.shard, &op);
                    }
                    self.shared.log.apply(frame.lsn, op)?;
                }
            }
        }
        self.shared.log.finish_group(last_lsn);
        self.for_the_store(group)?;
        self.report.last = last_lsn;
        // Recovery keeps to the same memory as the running engine.
        if self.shared.log.unflushed_bytes() > self.shared.options.flush_bytes {
            let producers = &mut self.flushed_producers;
            self.shared.log.flush(last_lsn, &mut |partition, header| {
                producers.observe(partition, header)
            })?;
            self.shared.log.evict(self.shared.options.memory_bytes / 4);
        }
        Ok(())
    }

    /// Gathers what a group does to the store: it is written in runs of whole groups, as the running engine does.
    fn for_the_store(&mut self, group: &Group) -> Result<(), EngineError> {
        let before = self.run.len();
        for frame in group
            .frames()
            .filter(|frame| frame.lsn > self.store_applied)
        {
            for section in frame.sections() {
                if matches!(section.view, View::Store) {
                    for op in StoreOp::decode_all(&section.body) {
                        self.run.push(op?);
                    }
                }
            }
        }
        if self.run.len() > before {
            // Operations are slices of their group.
            self.run_bytes += group.buffer_bytes();
            self.run_lsn = group.last_lsn();
        }
        if self.run_bytes >= RUN_BYTES {
            self.write_run()?;
        }
        Ok(())
    }

    fn write_run(&mut self) -> Result<(), EngineError> {
        if self.run.is_empty() {
            return Ok(());
        }
        let applied = Applied {
            journal_id: self.shared.journal_id,
            lsn: self.run_lsn.0,
        };
        self.shared.store.write(&self.run, applied)?;
        self.store_applied = self.run_lsn;
        self.run.clear();
        self.run_bytes = 0;
        Ok(())
    }

    fn remember(&mut self, lsn: Lsn, shard: u16, op: &LogOp) {
        match op {
            LogOp::CreatePartition { partition } => self.shards.insert(*partition, shard),
            LogOp::RemovePartition { partition } => self.producers.remove_partition(*partition),
            LogOp::Append {
                partition, batch, ..
            } => self.remember_batch(*partition, batch),
            LogOp::AppendReference(reference) => {
                self.refers = true;
                tracing::debug!(case = "reference replayed", lsn = %lsn);
                if let Ok(header) = BatchHeader::read(&reference.header) {
                    self.referenced_bytes += header.size_bytes() as u64;
                }
                self.remember_batch(reference.partition, &reference.header);
            }
            _ => {}
        }
    }

    fn remember_batch(&mut self, partition: PartitionId, batch: &[u8]) {
        if let Ok(header) = BatchHeader::read(batch) {
            self.producers.observe(partition, &header);
        }
    }

    fn finish(mut self, medium: impl Medium + 'static) -> Result<Opened, EngineError> {
        self.write_run()?;
        let shared = self.shared;
        if self.refers {
            // What stands only in segments can be read once a flush has taken it in.
            let producers = &mut self.flushed_producers;
            let upto = shared.log.applied();
            shared.log.flush(upto, &mut |partition, header| {
                producers.observe(partition, header)
            })?;
        }
        // Before replay has ended, nothing may be removed: a second crash begins from the same files.
        shared.log.remove_strays()?;
        let last = self.report.last.max(medium.durable_lsn());
        shared.log.finish_group(last);
        let at = &shared.positions;
        for position in [&at.admitted, &at.durable, &at.log_applied] {
            position.store(last.0, Ordering::Release);
        }
        at.store_applied
            .store(self.store_applied.0, Ordering::Release);
        at.checkpoint
            .store(self.report.checkpoint.0, Ordering::Release);
        at.journal_bytes
            .store(self.report.read_bytes, Ordering::Release);
        at.referenced_bytes
            .store(self.referenced_bytes, Ordering::Release);
        shared.budget.tail_is(shared.log.tail_bytes());
        self.report.last = last;

        if shared.look_up_free_space().is_none() {
            at.free_bytes.store(u64::MAX, Ordering::Release);
        }

        let mut partitions = HashMap::new();
        for partition in shared.log.partitions() {
            let bounds = shared.log.bounds(partition)?;
            let shard = self.shards.get(partition);
            let open = shared.log.open_transactions_of(partition)?;
            partitions.insert(
                partition,
                AdmittedPartition {
                    shard,
                    start: bounds.start,
                    next_offset: bounds.high_watermark,
                    layout: shared.log.layout(partition)?,
                    open: open.iter().map(|open| open.producer_id).collect(),
                    company: Company::default(),
                },
            );
        }
        shared.admitting.begin(&self.producers);
        self.producers.forget_changes();
        let recycle_to = Arc::new(AtomicU64::new(self.report.checkpoint.0));
        let signals = &shared.signals;
        let admission = Admission::new(
            shared.clone(),
            Lsn(last.0 + 1),
            partitions,
            self.producers,
            self.shards.clone(),
            self.store_applied,
            medium.supports_references(),
        );
        let background = Background::new(
            shared.clone(),
            self.flushed_producers,
            self.shards,
            recycle_to.clone(),
        );
        let workers = vec![
            Worker::new("admission", signals.admission.clone(), admission),
            Worker::new(
                "journal",
                signals.journal.clone(),
                Commit::new(shared.clone(), medium, recycle_to),
            ),
            Worker::new(
                "store",
                signals.store.clone(),
                Apply {
                    shared: shared.clone(),
                },
            ),
            Worker::new("background", signals.background.clone(), background),
            Worker::new(
                "sync",
                signals.sync.clone(),
                Sync {
                    shared: shared.clone(),
                },
            ),
            Worker::new(
                "ahead",
                signals.ahead.clone(),
                WriteAhead::new(shared.clone()),
            ),
        ];
        Ok(Opened {
            engine: Engine {
                shared: shared.clone(),
            },
            workers,
            recovery: self.report,
        })
    }
}

/// Reads the last checkpoint. `wrong` hears of each record that cannot be read, and whose it is; its error ends the
/// reading.
pub(crate) fn read_checkpoint(
    store: &dyn StoreSnapshot,
    wrong: &mut dyn FnMut(Option<PartitionId>, EngineError) -> Result<(), EngineError>,
) -> Result<Recorded, EngineError> {
    let damaged = |what: &str| {
        EngineError::Damaged(format!("the checkpoint's {what} in the store cannot be read").into())
    };
    let mut recorded = Recorded {
        mark: None,
        partitions: Vec::new(),
        shards: Shards::default(),
        producers: Producers::default(),
    };
    if let Some(value) = store.get(Family::Catalog, &keys::checkpoint_key())? {
        recorded.mark = keys::decode_checkpoint(&value);
        if recorded.mark.is_none() {
            wrong(None, damaged("position"))?;
        }
    }
    let mut failure = None;
    let go_on = |outcome: Result<(), EngineError>, failure: &mut Option<EngineError>| match outcome
    {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *failure = Some(error);
            ControlFlow::Break(())
        }
    };
    let (from, to) = keys::partition_range();
    store.scan(Family::Catalog, &from, Some(&to), &mut |key, value| {
        let decoded = keys::decode_partition(value)
            .ok_or_else(|| damaged("record of a partition"))
            .and_then(|(shard, bytes)| Ok((shard, PartitionRecord::decode(bytes)?)));
        let outcome = decoded.map_or_else(
            |error| wrong(keys::decode_partition_key(key), error),
            |(shard, record)| {
                recorded.shards.insert(record.partition, shard);
                recorded.partitions.push(record);
                Ok(())
            },
        );
        go_on(outcome, &mut failure)
    })?;
    let (from, to) = keys::producer_range();
    store.scan(Family::Catalog, &from, Some(&to), &mut |key, value| {
        let whose = keys::decode_producer_key(key);
        let outcome = match (whose, keys::decode_producer(value)) {
            (Some((partition, producer_id)), Some(state)) => {
                recorded.producers.insert(partition, producer_id, state);
                Ok(())
            }
            _ => wrong(
                whose.map(|(partition, _)| partition),
                damaged("record of a producer"),
            ),
        };
        go_on(outcome, &mut failure)
    })?;
    failure.map_or(Ok(recorded), Err)
}

/// The journal that the store was built from, if it holds anything yet.
pub(crate) fn one_journal(
    mark: Option<CheckpointMark>,
    applied: Option<Applied>,
) -> Result<Option<u128>, EngineError> {
    match (mark.map(|mark| mark.journal_id), applied.map(|applied| applied.journal_id)) {
        (Some(mark), Some(applied)) if mark != applied => Err(EngineError::Damaged(
            format!("the store's checkpoint is of journal {mark:032x}, its content of journal {applied:032x}").into(),
        )),
        (mark, applied) => Ok(mark.or(applied)),
    }
}
