//! The log against a model of it, through crashes of every kind, from a seed.
//!
//! `MAINSTEM_SEED=n` replays one seed, `MAINSTEM_SEEDS=n` runs that many instead of the usual few.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use bytes::Bytes;
use common::{batch, open, partition, place, placed, topics};
use mainstem_journal::{Disk, Lsn, MemoryDisk};
use mainstem_log::{
    AheadBatch, AheadWriter, Bounds, Compaction, CompactionPolicy, CompactionStep, Log, LogError,
    LogOp, LogSnapshot, PartitionId, PartitionRecord, PartitionState, SegmentLimits, Unsynced,
};
use mainstem_record::BatchHeader;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 60;
const STEPS: usize = 400;

#[derive(Clone, Default)]
struct ModelPartition {
    start: i64,
    end: i64,
    batches: Vec<ModelBatch>,
}

#[derive(Clone)]
struct ModelBatch {
    base: i64,
    last: i64,
    timestamps: Vec<i64>,
    bytes: Bytes,
}

type Model = BTreeMap<PartitionId, ModelPartition>;

struct Simulation {
    rng: SmallRng,
    disk: MemoryDisk,
    log: Log,
    model: Model,
    /// Every frame ever made durable, and the model before the first of them.
    frames: Vec<(Lsn, Vec<LogOp>)>,
    recorded: BTreeMap<PartitionId, PartitionRecord>,
    checkpoint: Lsn,
    /// What must be synced before the next one, what it will record, and its position.
    checkpointing: Option<(Unsynced, Vec<PartitionRecord>, Lsn)>,
    snapshots: Vec<(LogSnapshot, Model)>,
    /// Every record has a key of its own, so compaction changes nothing that can be read.
    pass: Option<Compaction>,
    /// Writes what frames refer to.
    writer: AheadWriter,
    /// To where the last flush goes, whether it is through or not.
    flushing: Lsn,
    next_topic: u64,
    /// What happened, to compare two runs of a seed.
    trace: u32,
    crashes: u64,
    replayed: u64,
    replaced: u64,
    referenced: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new(seed);
        disk.create_dir_all(&topics()).unwrap();
        let log = open(&disk, Vec::new(), Lsn::ZERO);
        Self {
            rng: SmallRng::seed_from_u64(seed),
            writer: AheadWriter::new(&log),
            log,
            disk,
            model: Model::new(),
            frames: Vec::new(),
            recorded: BTreeMap::new(),
            checkpoint: Lsn::ZERO,
            checkpointing: None,
            flushing: Lsn::ZERO,
            snapshots: Vec::new(),
            pass: None,
            next_topic: 1,
            trace: 0,
            crashes: 0,
            replayed: 0,
            replaced: 0,
            referenced: 0,
        }
    }

    fn note(&mut self, what: &[u8]) {
        self.trace = crc32c::crc32c_append(self.trace, what);
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.random_range(0..100) {
                0..30 => self.group(),
                30..45 => self.read(),
                45..49 => self.timestamp(),
                49..52 => self.compact(),
                52..56 => self.flush(),
                56..60 => {
                    self.flush_part();
                }
                60..63 => self.begin_checkpoint(),
                63..66 => self.end_checkpoint(),
                66..72 => self.evict(),
                72..78 => self.snapshot(),
                78..86 => self.read_snapshot(),
                86..89 => self.remove_files(),
                89..91 => self.spoil_index(),
                91..93 => self.retention(),
                93 => self.limits(),
                94..96 => self.halt(),
                96..98 => self.crash(),
                _ => self.check_all(),
            }
        }
        self.check_all();
    }

    fn any_partition(&mut self) -> Option<PartitionId> {
        let ids: Vec<_> = self.model.keys().copied().collect();
        ids.choose(&mut self.rng).copied()
    }

    /// Makes an operation, and changes the model by it.
    fn op(&mut self) -> LogOp {
        let choice = self.rng.random_range(0..40);
        let existing = self.any_partition();
        let (Some(id), false) = (existing, choice == 0 && self.model.len() < 6) else {
            let id = partition(self.next_topic / 2, (self.next_topic % 2) as u32);
            self.next_topic += 1;
            self.model.insert(id, ModelPartition::default());
            return LogOp::CreatePartition { partition: id };
        };
        if choice == 1 {
            self.model.remove(&id);
            return LogOp::RemovePartition { partition: id };
        }
        let model = self.model.get_mut(&id).unwrap();
        if choice == 2 {
            let offset = self.rng.random_range(0..=model.end);
            model.start = model.start.max(offset);
            return LogOp::SetStart {
                partition: id,
                offset,
            };
        }
        let count = self.rng.random_range(1..5);
        let about = model.end * 10;
        let timestamps: Vec<i64> = (0..count)
            .map(|_| about + self.rng.random_range(-60..60))
            .collect();
        let value_bytes = [0, 10, 100, 700, 4000][self.rng.random_range(0..5)];
        let bytes = batch(
            model.end,
            self.rng.random_range(0..3),
            &timestamps,
            value_bytes,
        );
        let base = model.end;
        model.end += count;
        model.batches.push(ModelBatch {
            base,
            last: model.end - 1,
            timestamps,
            bytes: bytes.clone(),
        });
        LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: bytes,
        }
    }

    fn group(&mut self) {
        let mut lsn = self.frames.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        for _ in 0..self.rng.random_range(1..5) {
            lsn = lsn.next();
            let mut ops = Vec::new();
            for _ in 0..self.rng.random_range(1..4) {
                let op = self.op();
                let (op, bytes) = match op {
                    LogOp::Append {
                        partition, batch, ..
                    } if self.rng.random_bool(0.4) => {
                        let (op, bytes) = self.write_ahead(partition, batch);
                        (op, Some(bytes))
                    }
                    op => (placed(&self.log, op), None),
                };
                // Through the encoding, as in life.
                let mut body = Vec::new();
                op.encode(&mut body);
                let decoded = LogOp::decode_all(&body.into()).next().unwrap().unwrap();
                match (decoded, bytes) {
                    (LogOp::AppendReference(reference), Some(bytes)) => {
                        self.log.apply_reference(lsn, reference, bytes).unwrap();
                    }
                    (decoded, _) => self.log.apply(lsn, decoded).unwrap(),
                }
                ops.push(op);
            }
            self.frames.push((lsn, ops));
        }
        self.log.finish_group(lsn);
    }

    /// Writes a batch to its segment before its frame; what the frame holds then, and the batch.
    fn write_ahead(&mut self, partition: PartitionId, batch: Bytes) -> (LogOp, Bytes) {
        self.referenced += 1;
        let ahead = self.ahead(partition, batch);
        let (reference, bytes) = self.writer.write(&[ahead]).unwrap().remove(0);
        (LogOp::AppendReference(reference), bytes)
    }

    fn ahead(&self, partition: PartitionId, bytes: Bytes) -> AheadBatch {
        let header = BatchHeader::read(&bytes).unwrap();
        AheadBatch {
            partition,
            placement: place(&self.log, partition, &bytes),
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            bytes,
        }
    }

    /// Bytes whose frame never comes: they belong to nobody.
    fn write_for_nobody(&mut self) {
        let Some(id) = self.any_partition() else {
            return;
        };
        let (base, value_bytes) = (self.model[&id].end, self.rng.random_range(0..3_000));
        // Where replay was cut short, it is not there yet, or ends before.
        let bounds = self.log.bounds(id);
        if !bounds.is_ok_and(|bounds| bounds.high_watermark == base) {
            return;
        }
        let ahead = self.ahead(id, batch(base, 0, &[7, 7], value_bytes));
        // The disk may stand still already, or in the middle of it.
        let _ = self.writer.write(&[ahead]);
    }

    fn flush(&mut self) {
        let upto = self.flush_part();
        let flushed = self.log.flush(upto, &mut |_, _| {}).unwrap();
        assert_eq!((flushed.upto, flushed.more), (upto, false));
        self.note(&flushed.bytes.to_be_bytes());
    }

    /// A portion of a flush, which goes on with the next, and to where it goes.
    fn flush_part(&mut self) -> Lsn {
        let (from, to) = (self.log.flushed(), self.log.applied());
        let from = from.max(self.flushing);
        self.flushing = Lsn(self.rng.random_range(from.0..=to.0));
        let max_bytes = self.rng.random_range(1..20_000);
        let part = self
            .log
            .flush_part(self.flushing, max_bytes, &mut |_, _| {});
        let part = part.unwrap();
        assert_eq!(part.upto == self.flushing, !part.more);
        self.note(&part.bytes.to_be_bytes());
        self.flushing
    }

    /// Everything else may happen, and the node may die, before this one comes to its end.
    fn begin_checkpoint(&mut self) {
        self.end_checkpoint();
        self.flush();
        let taken = self.log.take_unsynced().unwrap();
        self.checkpointing = Some((taken, self.log.records(), self.log.flushed()));
    }

    fn end_checkpoint(&mut self) {
        if let Some((taken, records, lsn)) = self.checkpointing.take() {
            self.log.sync_taken(&taken).unwrap();
            self.record(records, lsn);
        }
    }

    /// What changed is durable: keeps it, through the encoding.
    fn record(&mut self, records: Vec<PartitionRecord>, lsn: Lsn) {
        for record in records {
            let mut encoded = Vec::new();
            record.encode(&mut encoded);
            self.note(&encoded);
            assert_eq!(PartitionRecord::decode(&encoded).unwrap(), record);
            match record.state {
                PartitionState::Live { .. } => self.recorded.insert(record.partition, record),
                PartitionState::Removed => self.recorded.remove(&record.partition),
            };
        }
        self.checkpoint = lsn;
    }

    fn evict(&mut self) {
        let target = self.rng.random_range(0..=self.log.tail_bytes());
        let dropped = self.log.evict(target);
        self.note(&dropped.to_be_bytes());
        // Whole groups go: one that is flushed in part stays.
        assert!(self.log.tail_bytes() <= target || self.log.flushed() < self.log.applied());
    }

    fn remove_files(&mut self) {
        let removed = self.log.remove_files(self.checkpoint).unwrap();
        self.note(&removed.bytes.to_be_bytes());
    }

    fn compact(&mut self) {
        for _ in 0..self.rng.random_range(1..20) {
            let Some(pass) = &mut self.pass else {
                let Some(id) = self.any_partition() else {
                    return;
                };
                let policy = CompactionPolicy {
                    now_ms: 0,
                    min_lag_ms: 0,
                    delete_retention_ms: 0,
                };
                self.log.remove_files(self.checkpoint).unwrap();
                self.pass = self.log.compaction(id, policy).unwrap();
                continue;
            };
            match pass.step().unwrap() {
                CompactionStep::Worked => {}
                CompactionStep::Done => self.pass = None,
                CompactionStep::Replace(replace) if self.model.contains_key(&replace.partition) => {
                    let lsn = self.log.applied().next();
                    let op = LogOp::ReplaceSegments(replace);
                    self.log.apply(lsn, op.clone()).unwrap();
                    self.log.finish_group(lsn);
                    self.frames.push((lsn, vec![op]));
                    self.replaced += 1;
                }
                CompactionStep::Replace(_) => {
                    pass.discard();
                    self.pass = None;
                }
            }
        }
    }

    fn limits(&mut self) {
        let Some(id) = self.any_partition() else {
            return;
        };
        let limits = SegmentLimits {
            segment_bytes: [None, Some(1), Some(700), Some(20_000)][self.rng.random_range(0..4)],
            segment_ms: [None, Some(0), Some(150)][self.rng.random_range(0..3)],
        };
        self.log.set_segment_limits(id.topic, limits);
    }

    fn retention(&mut self) {
        let Some(id) = self.any_partition() else {
            return;
        };
        let model = self.model.get_mut(&id).unwrap();
        let (now, size) = (model.end * 10, self.log.size_bytes(id).unwrap());
        let bytes = self
            .rng
            .random_bool(0.5)
            .then(|| self.rng.random_range(0..=size));
        let Some(start) = self.log.expired(id, now, Some(300), bytes).unwrap() else {
            return;
        };
        assert!(start > model.start && start <= model.end);
        model.start = start;
        let lsn = self.log.applied().next();
        let op = LogOp::SetStart {
            partition: id,
            offset: start,
        };
        self.log.apply(lsn, op.clone()).unwrap();
        self.log.finish_group(lsn);
        self.frames.push((lsn, vec![op]));
    }

    fn snapshot(&mut self) {
        if self.snapshots.len() >= 3 {
            let at = self.rng.random_range(0..self.snapshots.len());
            self.snapshots.remove(at);
        }
        let snapshot = self.log.snapshot();
        assert_eq!(snapshot.lsn, self.log.applied());
        assert!(
            snapshot.partitions.keys().eq(self.model.keys()),
            "a snapshot has exactly the partitions there are"
        );
        self.snapshots.push((snapshot, self.model.clone()));
    }

    fn read(&mut self) {
        let Some(id) = self.any_partition() else {
            return;
        };
        let (log, model) = (self.log.clone(), self.model[&id].clone());
        assert_eq!(log.bounds(id).unwrap(), bounds(&model));
        self.check_read(&model, |offset, max, upto| log.read(id, offset, max, upto));
    }

    fn read_snapshot(&mut self) {
        let Some((snapshot, model)) = self.snapshots.choose(&mut self.rng).cloned() else {
            return;
        };
        let ids: Vec<_> = model.keys().copied().collect();
        let Some(id) = ids.choose(&mut self.rng).copied() else {
            return;
        };
        assert_eq!(snapshot.bounds(id).unwrap(), bounds(&model[&id]));
        self.check_read(&model[&id], |offset, max, upto| {
            snapshot.read(id, offset, max, upto)
        });
        let ts = self.rng.random_range(-100..=model[&id].end * 10 + 100);
        assert_eq!(
            snapshot.offset_for_timestamp(id, ts).unwrap(),
            first_at(&model[&id], ts)
        );
    }

    fn check_read(
        &mut self,
        model: &ModelPartition,
        read: impl Fn(i64, usize, Option<i64>) -> Result<mainstem_log::Read, LogError>,
    ) {
        let offset = self.rng.random_range(-1..=model.end + 1);
        let max_bytes = [0, 1, 500, 5000, 1 << 20][self.rng.random_range(0..5)];
        let upto = self
            .rng
            .random_bool(0.3)
            .then(|| self.rng.random_range(0..=model.end + 1));
        let result = read(offset, max_bytes, upto);
        if offset < model.start || offset > model.end {
            assert!(
                matches!(result, Err(LogError::OffsetOutOfRange { .. })),
                "{result:?}"
            );
            return;
        }
        let found = result.unwrap();
        assert_eq!(
            (found.start, found.high_watermark),
            (model.start, model.end)
        );
        let limit = upto.unwrap_or(model.end);
        let due = model
            .batches
            .iter()
            .filter(|batch| batch.last >= offset && batch.base < limit && offset < limit);
        let got: Vec<u8> = found.batches.concat();
        self.note(&got);
        let mut rest = got.as_slice();
        let mut taken = 0;
        for batch in due {
            if rest.is_empty() {
                assert!(taken > 0, "at least one batch is returned");
                return;
            }
            assert!(taken == 0 || taken + batch.bytes.len() <= max_bytes);
            assert_eq!(&rest[..batch.bytes.len()], &batch.bytes[..]);
            taken += batch.bytes.len();
            rest = &rest[batch.bytes.len()..];
        }
        assert!(rest.is_empty(), "nothing beyond what there is");
    }

    fn timestamp(&mut self) {
        let Some(id) = self.any_partition() else {
            return;
        };
        let ts = self.rng.random_range(-100..=self.model[&id].end * 10 + 100);
        assert_eq!(
            self.log.offset_for_timestamp(id, ts).unwrap(),
            first_at(&self.model[&id], ts),
            "{id} {ts}"
        );
    }

    fn check_all(&mut self) {
        assert_eq!(
            self.log.partitions(),
            self.model.keys().copied().collect::<Vec<_>>()
        );
        for (id, model) in &self.model {
            assert_eq!(self.log.bounds(*id).unwrap(), bounds(model));
            let due = model
                .batches
                .iter()
                .filter(|batch| batch.last >= model.start);
            let due: Vec<u8> = due.flat_map(|batch| batch.bytes.iter().copied()).collect();
            assert_eq!(common::read_all(&self.log, *id, 2500), due, "{id}");
        }
    }

    fn spoil_index(&mut self) {
        let mut indexes: Vec<PathBuf> = Vec::new();
        for topic in self.disk.list(&topics()).unwrap() {
            for partition in self.disk.list(&topics().join(&topic)).unwrap() {
                let dir = topics().join(&topic).join(partition);
                let names = self
                    .disk
                    .list(&dir)
                    .unwrap()
                    .into_iter()
                    .filter(|name| name.ends_with(".index"));
                indexes.extend(names.map(|name| dir.join(name)));
            }
        }
        let Some(path) = indexes.choose(&mut self.rng) else {
            return;
        };
        if self.rng.random_bool(0.5) {
            self.disk.remove_file(path).unwrap();
        } else {
            let position = self.rng.random_range(0..60);
            // An index that a crash has emptied has no such byte.
            let _ = self
                .disk
                .flip_bits(path, position, 1 << self.rng.random_range(0..8));
        }
    }

    /// The disk dies somewhere in the middle of what the worker does.
    fn halt(&mut self) {
        self.end_checkpoint();
        self.disk.halt_after(self.rng.random_range(0..30));
        let upto = self.log.applied();
        let done = self
            .log
            .flush(upto, &mut |_, _| {})
            .and_then(|_| self.log.sync());
        if done.is_ok() {
            self.record(self.log.records(), self.log.flushed());
            let _ = self.log.remove_files(self.checkpoint);
        } else {
            assert!(matches!(self.log.sync(), Err(LogError::Poisoned)));
        }
        self.crash();
    }

    fn crash(&mut self) {
        self.crashes += 1;
        if self.rng.random_bool(0.3) {
            self.write_for_nobody();
        }
        self.snapshots.clear();
        self.checkpointing = None;
        self.flushing = Lsn::ZERO;
        self.pass = None;
        if self.rng.random_bool(0.5) {
            self.disk.crash_process();
        } else {
            self.disk.crash_power(self.rng.random());
        }
        let recorded = self.recorded.values().cloned().collect();
        self.log = open(&self.disk, recorded, self.checkpoint);
        self.writer = AheadWriter::new(&self.log);
        // Frames at or below the checkpoint change nothing when they come again.
        let from = Lsn(self
            .checkpoint
            .0
            .saturating_sub(self.rng.random_range(0..5)));
        let frames = self.frames.clone();
        let mut again = false;
        for (lsn, ops) in frames.into_iter().filter(|(lsn, _)| *lsn > from) {
            self.replayed += 1;
            for op in ops {
                self.log.apply(lsn, op).unwrap();
            }
            if self.rng.random_bool(0.5) {
                self.log.finish_group(lsn);
                // Memory is bounded while replaying, too.
                if self.rng.random_bool(0.1) {
                    self.flush();
                    self.evict();
                }
                // And a crash can come at any time.
                again = self.rng.random_bool(0.01);
                if again {
                    break;
                }
            }
        }
        if again {
            return self.crash();
        }
        if let Some((lsn, _)) = self.frames.last() {
            self.log.finish_group(*lsn);
        }
        let strays_first = self.rng.random_bool(0.5);
        if strays_first {
            self.log.remove_strays().unwrap();
        }
        // What frames refer to can be read from now on.
        self.log.flush(self.log.applied(), &mut |_, _| {}).unwrap();
        if !strays_first && self.rng.random_bool(0.5) {
            self.log.remove_strays().unwrap();
        }
        self.check_all();
    }
}

fn bounds(model: &ModelPartition) -> Bounds {
    Bounds {
        start: model.start,
        high_watermark: model.end,
        last_stable: model.end,
    }
}

fn first_at(model: &ModelPartition, timestamp_ms: i64) -> Option<(i64, i64)> {
    let records = model.batches.iter().flat_map(|batch| {
        batch
            .timestamps
            .iter()
            .enumerate()
            .map(|(index, ts)| (batch.base + index as i64, *ts))
    });
    records
        .filter(|(offset, _)| *offset >= model.start)
        .find(|(_, ts)| *ts >= timestamp_ms)
}

fn run(seed: u64) -> (u32, [u64; 4]) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = Simulation::new(seed);
        simulation.run(STEPS);
        (
            simulation.trace,
            [
                simulation.crashes,
                simulation.replayed,
                simulation.replaced,
                simulation.referenced,
            ],
        )
    }));
    result.unwrap_or_else(|panic| {
        eprintln!("failed with MAINSTEM_SEED={seed}");
        resume_unwind(panic)
    })
}

#[test]
fn log_equals_its_model_through_crashes() {
    if let Ok(seed) = std::env::var("MAINSTEM_SEED") {
        run(seed.parse().expect("MAINSTEM_SEED is a number"));
        return;
    }
    let mut all = [0; 4];
    let seeds = std::env::var("MAINSTEM_SEEDS").map_or(SEEDS, |seeds| {
        seeds.parse().expect("MAINSTEM_SEEDS is a number")
    });
    for seed in 0..seeds {
        let (_, of_seed) = run(seed);
        all.iter_mut()
            .zip(of_seed)
            .for_each(|(all, one)| *all += one);
    }
    assert!(
        all.iter().all(|count| *count > seeds),
        "crashes, frames replayed, segments replaced, batches referred to: {all:?}"
    );
}

#[test]
fn a_seed_runs_the_same_twice() {
    assert_eq!(run(7), run(7));
}
