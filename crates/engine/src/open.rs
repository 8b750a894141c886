//! Opening a data directory: the last checkpoint, then everything after it, replayed into both views.
//!
//! The journal has made durable every frame it hands out, so what is replayed here may be shown.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstem_journal::{Disk, FileMedium, Group, Known, Lsn, Medium, View};
use mainstem_log::{Log, LogOp, PartitionRecord};
use mainstem_record::BatchHeader;
use mainstem_store::{Applied, Family, Store, StoreOp};

use crate::admission::{Admission, AdmittedPartition};
use crate::apply::{Apply, store_sections};
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
    /// Admission, journal, store, background and sync, in this order.
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

struct Recorded {
    mark: Option<CheckpointMark>,
    partitions: Vec<PartitionRecord>,
    shards: Shards,
    producers: Producers,
}

impl Engine {
    /// Opens the data directory `dir` (its folders `journal` and `topics`) over an open store,
    /// recovering what the last process left. `progress` is called as replay goes on.
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
        let recorded = read_checkpoint(store.as_ref())?;
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
            report: RecoveryReport {
                checkpoint,
                last: checkpoint,
                ..RecoveryReport::default()
            },
        };
        while let Some(group) = replay.next_group()? {
            recovering.group(&group)?;
            let (read_bytes, total_bytes) = replay.progress();
            recovering.report.read_bytes = read_bytes;
            progress(RecoveryProgress {
                read_bytes,
                total_bytes,
            });
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
                        self.remember(section.shard, &op);
                    }
                    self.shared.log.apply(frame.lsn, op)?;
                }
            }
        }
        self.shared.log.finish_group(last_lsn);
        let mut ops = Vec::new();
        for op in StoreOp::decode_all(&store_sections(group, self.store_applied)) {
            ops.push(op?);
        }
        if !ops.is_empty() {
            self.shared.store.write(
                &ops,
                Applied {
                    journal_id: self.shared.journal_id,
                    lsn: last_lsn.0,
                },
            )?;
            self.store_applied = last_lsn;
        }
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

    fn remember(&mut self, shard: u16, op: &LogOp) {
        match op {
            LogOp::CreatePartition { partition } => self.shards.insert(*partition, shard),
            LogOp::RemovePartition { partition } => self.producers.remove_partition(*partition),
            LogOp::Append { partition, batch } => {
                if let Ok(header) = BatchHeader::read(batch) {
                    self.producers.observe(*partition, &header);
                }
            }
            _ => {}
        }
    }

    fn finish(mut self, medium: impl Medium + 'static) -> Result<Opened, EngineError> {
        let shared = self.shared;
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
        shared.budget.tail_is(shared.log.tail_bytes());
        self.report.last = last;

        if shared.look_up_free_space().is_none() {
            at.free_bytes.store(u64::MAX, Ordering::Release);
        }

        let mut partitions = HashMap::new();
        for partition in shared.log.partitions() {
            let bounds = shared.log.bounds(partition)?;
            let shard = self.shards.get(partition);
            partitions.insert(
                partition,
                AdmittedPartition {
                    shard,
                    start: bounds.start,
                    next_offset: bounds.high_watermark,
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

fn read_checkpoint(store: &dyn Store) -> Result<Recorded, EngineError> {
    let damaged = |what: &str| {
        EngineError::Damaged(format!("the checkpoint's {what} in the store cannot be read").into())
    };
    let mark = match store.get(Family::Catalog, &keys::checkpoint_key())? {
        Some(value) => Some(keys::decode_checkpoint(&value).ok_or_else(|| damaged("position"))?),
        None => None,
    };
    let mut partitions = Vec::new();
    let shards = Shards::default();
    let mut failure = None;
    let (from, to) = keys::partition_range();
    store.scan(Family::Catalog, &from, Some(&to), &mut |_, value| {
        let decoded = keys::decode_partition(value)
            .ok_or_else(|| damaged("record of a partition"))
            .and_then(|(shard, bytes)| Ok((shard, PartitionRecord::decode(bytes)?)));
        match decoded {
            Ok((shard, record)) => {
                shards.insert(record.partition, shard);
                partitions.push(record);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    let mut producers = Producers::default();
    let (from, to) = keys::producer_range();
    store.scan(Family::Catalog, &from, Some(&to), &mut |key, value| match (
        keys::decode_producer_key(key),
        keys::decode_producer(value),
    ) {
        (Some((partition, producer_id)), Some(state)) => {
            producers.insert(partition, producer_id, state);
            ControlFlow::Continue(())
        }
        _ => {
            failure = Some(damaged("record of a producer"));
            ControlFlow::Break(())
        }
    })?;
    match failure {
        Some(error) => Err(error),
        None => Ok(Recorded {
            mark,
            partitions,
            shards,
            producers,
        }),
    }
}

/// The journal that the store was built from, if it holds anything yet.
fn one_journal(
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
