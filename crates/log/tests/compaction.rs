//! Compaction against a naive model of it, a map of the last value of each key: in steps, between everything else that
//! happens to a partition, with crashes in between, from a seed.
//!
//! `MAINSTEM_SEED=n` replays one seed, `MAINSTEM_SEEDS=n` runs that many instead of the usual few.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use bytes::Bytes;
use common::{partition, topics};
use mainstem_journal::{Disk, Lsn, MemoryDisk};
use mainstem_log::{
    Bounds, Compaction, CompactionPolicy, CompactionStep, Log, LogError, LogOp, LogOptions,
    LogSnapshot, PartitionId, PartitionRecord, PartitionState, Read, SegmentLimits, Stable,
};
use mainstem_record::{Batch, BatchBuilder, Compression, Marker, Record, assign};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 60;
const STEPS: usize = 500;
const DELETE_RETENTION_MS: i64 = 40;

fn options(compaction_memory_bytes: usize) -> LogOptions {
    LogOptions {
        segment_bytes: 700,
        compaction_memory_bytes,
        ..common::small()
    }
}

fn id() -> PartitionId {
    partition(1, 0)
}

#[derive(Clone, Default)]
struct Model {
    start: i64,
    records: Vec<Record>,
    /// Offsets of records in transactions that have no end yet, by producer.
    open: BTreeMap<i64, Vec<i64>>,
    /// Offsets of markers and of records of aborted transactions.
    left_out: BTreeSet<i64>,
    /// When the first pass began that may have seen a tombstone, by offset, and the last pass began of all.
    seen_ms: BTreeMap<i64, i64>,
    last_pass_ms: i64,
}

impl Model {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// The last record of each key, from the start on. One of an open transaction may yet be committed.
    fn newest(&self) -> BTreeMap<Bytes, &Record> {
        let live = self.records.iter().filter(|record| {
            record.offset >= self.start && !self.left_out.contains(&record.offset)
        });
        live.map(|record| (record.key.clone().unwrap(), record))
            .collect()
    }

    /// What a reader of everything finds, against what was written.
    fn check(&self, bounds: Bounds, read: impl Fn(i64) -> Result<Read, LogError>) {
        assert_eq!(
            (bounds.start, bounds.high_watermark),
            (self.start, self.end())
        );
        let mut next = self.start;
        let mut found: BTreeMap<Bytes, Record> = BTreeMap::new();
        while next < self.end() {
            let pieces = read(next).unwrap().batches;
            assert!(!pieces.is_empty(), "nothing at {next}");
            for mut piece in pieces {
                while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                    assert!(
                        batch.base_offset() == next || next == self.start,
                        "batches have no gaps"
                    );
                    assert!(batch.base_offset() <= next && batch.next_offset() > next);
                    next = batch.next_offset();
                    if batch.header().is_control() {
                        continue;
                    }
                    for record in batch.records().unwrap().map(Result::unwrap) {
                        let written = &self.records[record.offset as usize];
                        assert_eq!(&record, written, "a record is as it was written");
                        if record.offset >= self.start && !self.left_out.contains(&record.offset) {
                            found.insert(record.key.clone().unwrap(), record);
                        }
                    }
                }
            }
        }
        for (key, newest) in self.newest() {
            let found = found.remove(&key);
            if newest.value.is_none() && found.is_none() {
                let seen_ms = self.seen_ms[&newest.offset];
                assert!(
                    self.last_pass_ms >= seen_ms + DELETE_RETENTION_MS,
                    "the tombstone at {} went too early",
                    newest.offset
                );
            } else {
                assert_eq!(
                    found.as_ref(),
                    Some(newest),
                    "the newest record of a key stays"
                );
            }
        }
        assert!(
            found.is_empty(),
            "a key came back that was deleted: {found:?}"
        );
    }
}

struct Simulation {
    rng: SmallRng,
    disk: MemoryDisk,
    log: Log,
    memory_bytes: usize,
    model: Model,
    frames: Vec<(Lsn, LogOp)>,
    recorded: BTreeMap<PartitionId, PartitionRecord>,
    checkpoint: Lsn,
    snapshots: Vec<(LogSnapshot, Model)>,
    pass: Option<Compaction>,
    now_ms: i64,
    trace: u32,
    counts: Counts,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Counts {
    crashes: u64,
    replaced: u64,
    passes: u64,
    saved_bytes: u64,
    failed: u64,
    aborted: u64,
}

/// What a Kafka client makes of the answer to one fetch of committed records: offsets, and where it goes on.
fn as_client(stable: Stable) -> (Vec<i64>, i64) {
    let mut coming = stable.aborted;
    coming.sort_by_key(|one| std::cmp::Reverse(one.first_offset));
    let mut aborted = BTreeSet::new();
    let mut offsets = Vec::new();
    for mut piece in stable.read.batches {
        while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
            let header = *batch.header();
            while let Some(one) = coming.pop_if(|one| one.first_offset <= header.last_offset()) {
                aborted.insert(one.producer_id);
            }
            if header.is_control() {
                if Marker::read(batch.bytes()) == Some(Marker::Abort) {
                    aborted.remove(&header.producer_id);
                }
            } else if !(header.is_transactional() && aborted.contains(&header.producer_id)) {
                let records = batch.records().unwrap().map(Result::unwrap);
                offsets.extend(records.map(|record| record.offset));
            }
        }
    }
    (offsets, stable.read.next_offset)
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = MemoryDisk::new(seed);
        disk.create_dir_all(&topics()).unwrap();
        // Room for a few keys, or for all of them.
        let memory_bytes = [64 * 3, 64 * 8, 1 << 20][rng.random_range(0..3)];
        let log = open(&disk, memory_bytes, Vec::new(), Lsn::ZERO);
        let mut simulation = Self {
            rng,
            disk,
            log,
            memory_bytes,
            model: Model::default(),
            frames: Vec::new(),
            recorded: BTreeMap::new(),
            checkpoint: Lsn::ZERO,
            snapshots: Vec::new(),
            pass: None,
            now_ms: 1_000,
            trace: 0,
            counts: Counts::default(),
        };
        simulation.commit(LogOp::CreatePartition { partition: id() });
        simulation
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now_ms += self.rng.random_range(0..4);
            match self.rng.random_range(0..100) {
                0..22 => self.append(),
                22..30 => self.end_transaction(),
                30..36 => self.flush(),
                36..48 => self.take_checkpoint(),
                48..52 => {
                    self.log.evict(self.log.tail_bytes() / 2);
                }
                52..78 => self.compact(),
                78..80 => self.delete_records(),
                80..84 => self.snapshot(),
                84..88 => self.check_snapshot(),
                88..92 => {
                    self.log.remove_files(self.checkpoint).unwrap();
                }
                92 => self.limits(),
                93 => self.halt(),
                94..97 => self.crash(),
                _ => self.check(),
            }
        }
        self.check();
    }

    fn commit(&mut self, op: LogOp) {
        let lsn = self.frames.last().map_or(Lsn(1), |(lsn, _)| lsn.next());
        let mut body = Vec::new();
        let op = common::placed(&self.log, op);
        op.encode(&mut body);
        let decoded = LogOp::decode_all(&body.into()).next().unwrap().unwrap();
        assert_eq!(decoded, op);
        self.log.apply(lsn, decoded).unwrap();
        self.log.finish_group(lsn);
        self.frames.push((lsn, op));
    }

    fn append(&mut self) {
        let codec =
            [Compression::None, Compression::None, Compression::Lz4][self.rng.random_range(0..3)];
        let mut builder = BatchBuilder::new(codec, 1 << 20);
        let mut open = None;
        match self.rng.random_range(0..4) {
            0 => {}
            1 => {
                builder.producer(7, 0, self.rng.random_range(0..100));
            }
            _ => {
                let id = self.rng.random_range(20..23);
                builder.producer(id, 0, 0).transactional();
                open = Some(id);
            }
        }
        let base = self.model.end();
        for _ in 0..self.rng.random_range(1..5) {
            let key = format!("key-{}", self.rng.random_range(0..12));
            let value = self.rng.random_bool(0.75).then(|| {
                format!(
                    "{}-{}",
                    self.model.end(),
                    "x".repeat(self.rng.random_range(0..120))
                )
            });
            let record = Record {
                offset: self.model.end(),
                timestamp_ms: self.now_ms - self.rng.random_range(0..20),
                key: Some(key.into()),
                value: value.map(Bytes::from),
                headers: Vec::new(),
            };
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            builder
                .append(record.timestamp_ms, key, value, &[])
                .unwrap();
            if let Some(id) = open {
                self.model.open.entry(id).or_default().push(record.offset);
            }
            self.model.records.push(record);
        }
        self.commit_batch(&builder.build().unwrap(), base);
    }

    fn commit_batch(&mut self, batch: &Batch, base_offset: i64) {
        let mut bytes = batch.bytes().to_vec();
        assign(&mut bytes, base_offset, 0);
        self.commit(LogOp::Append {
            begins_segment: false,
            partition: id(),
            batch: bytes.into(),
        });
    }

    fn end_transaction(&mut self) {
        let open: Vec<i64> = self.model.open.keys().copied().collect();
        let Some(producer) = open.choose(&mut self.rng).copied() else {
            return self.append();
        };
        let marker = [Marker::Commit, Marker::Abort][self.rng.random_range(0..2)];
        let offsets = self.model.open.remove(&producer).unwrap();
        if marker == Marker::Abort {
            self.counts.aborted += 1;
            self.model.left_out.extend(offsets);
        }
        let offset = self.model.end();
        self.model.left_out.insert(offset);
        self.model.records.push(Record {
            offset,
            timestamp_ms: self.now_ms,
            key: None,
            value: None,
            headers: Vec::new(),
        });
        let batch = marker.batch(producer, 0, self.now_ms).unwrap();
        self.commit_batch(&batch, offset);
    }

    fn delete_records(&mut self) {
        let (start, end) = (self.model.start, self.model.end());
        let offset = self.rng.random_range(start..=(start + 20).min(end));
        self.model.start = offset;
        self.commit(LogOp::SetStart {
            partition: id(),
            offset,
        });
    }

    fn limits(&mut self) {
        let limits = SegmentLimits {
            segment_bytes: [None, Some(1), Some(3_000)][self.rng.random_range(0..3)],
            segment_ms: None,
        };
        self.log.set_segment_limits(id().topic, limits);
    }

    fn flush(&mut self) {
        let (from, to) = (self.log.flushed().0, self.log.applied().0);
        let upto = Lsn(self.rng.random_range(from..=to));
        self.log.flush(upto, &mut |_, _| {}).unwrap();
    }

    fn take_checkpoint(&mut self) {
        self.flush();
        self.log.sync().unwrap();
        self.record();
    }

    fn record(&mut self) {
        for record in self.log.records() {
            let mut encoded = Vec::new();
            record.encode(&mut encoded);
            self.trace = crc32c::crc32c_append(self.trace, &encoded);
            assert_eq!(PartitionRecord::decode(&encoded).unwrap(), record);
            assert!(matches!(record.state, PartitionState::Live { .. }));
            self.recorded.insert(record.partition, record);
        }
        self.checkpoint = self.log.flushed();
    }

    fn policy(&mut self) -> CompactionPolicy {
        CompactionPolicy {
            now_ms: self.now_ms,
            min_lag_ms: [0, 0, 30][self.rng.random_range(0..3)],
            delete_retention_ms: DELETE_RETENTION_MS,
        }
    }

    /// Some steps of a pass, or the beginning of one.
    fn compact(&mut self) {
        for _ in 0..self.rng.random_range(1..8) {
            if let Err(error) = self.step() {
                panic!("{error}");
            }
        }
    }

    fn step(&mut self) -> Result<(), LogError> {
        let Some(pass) = &mut self.pass else {
            let policy = self.policy();
            self.log.remove_files(self.checkpoint)?;
            self.pass = self.log.compaction(id(), policy)?;
            if self.pass.is_some() {
                self.model.last_pass_ms = self.now_ms;
                for record in self
                    .model
                    .records
                    .iter()
                    .filter(|record| record.value.is_none())
                {
                    self.model
                        .seen_ms
                        .entry(record.offset)
                        .or_insert(self.now_ms);
                }
            }
            return Ok(());
        };
        match pass.step() {
            Ok(CompactionStep::Worked) => {}
            Ok(CompactionStep::Replace(_)) if self.rng.random_bool(0.05) => {
                // Refused, as it is when the partition is gone.
                pass.discard();
                self.pass = None;
            }
            Ok(CompactionStep::Replace(replace)) => {
                self.counts.replaced += 1;
                self.commit(LogOp::ReplaceSegments(replace));
                // A pass may end anywhere; what is committed stays.
                let ends = self.rng.random_bool(0.1);
                if let Some(mut pass) = self.pass.take_if(|_| ends) {
                    pass.committed();
                    pass.discard();
                }
            }
            Ok(CompactionStep::Done) => {
                let done = pass.compacted();
                self.counts.passes += 1;
                self.counts.saved_bytes += done.bytes_before.saturating_sub(done.bytes_after);
                self.pass = None;
            }
            Err(error) => {
                pass.discard();
                self.pass = None;
                return Err(error);
            }
        }
        Ok(())
    }

    fn check(&mut self) {
        let log = &self.log;
        let max_bytes = self.rng.random_range(1..3_000);
        self.model.check(log.bounds(id()).unwrap(), |next| {
            log.read(id(), next, max_bytes, None)
        });
        self.check_committed(max_bytes);
        for _ in 0..3 {
            let wanted = self.rng.random_range(900..self.now_ms + 10);
            let found = log.offset_for_timestamp(id(), wanted).unwrap();
            if let Some((offset, timestamp_ms)) = found {
                let record = &self.model.records[offset as usize];
                assert_eq!(record.timestamp_ms, timestamp_ms);
                assert!(timestamp_ms >= wanted && offset >= self.model.start);
            }
        }
    }

    /// Readers of committed records, inside the house and Kafka's, find the same, and nothing that is open or aborted.
    fn check_committed(&self, max_bytes: usize) {
        let bounds = self.log.bounds(id()).unwrap();
        let open = self.model.open.values().flatten().min();
        let stable = open.map_or(self.model.end(), |open| *open.max(&self.model.start));
        assert_eq!(bounds.last_stable, stable);
        let mut next = bounds.start;
        while next < stable {
            let read = self.log.read_stable(id(), next, max_bytes, None).unwrap();
            let mut delivered = Vec::new();
            for mut piece in read.clone().delivered(id()).unwrap().batches {
                while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                    let records = batch.records().unwrap().map(Result::unwrap);
                    delivered.extend(records.map(|record| record.offset));
                }
            }
            assert!(delivered.iter().all(|offset| *offset < stable));
            let is_out = |offset: &&i64| self.model.left_out.contains(offset);
            assert_eq!(delivered.iter().find(is_out), None, "it was aborted");
            let (offsets, then) = as_client(read);
            assert_eq!(offsets, delivered);
            assert!(then > next);
            next = then;
        }
    }

    fn snapshot(&mut self) {
        if self.snapshots.len() >= 3 {
            let at = self.rng.random_range(0..self.snapshots.len());
            self.snapshots.remove(at);
        }
        self.snapshots
            .push((self.log.snapshot(), self.model.clone()));
    }

    fn check_snapshot(&mut self) {
        if let Some((snapshot, model)) = self.snapshots.choose(&mut self.rng) {
            model.check(snapshot.bounds(id()).unwrap(), |next| {
                snapshot.read(id(), next, 2_000, None)
            });
        }
    }

    /// The disk dies somewhere in the middle of what the worker does.
    fn halt(&mut self) {
        self.disk.halt_after(self.rng.random_range(0..60));
        for _ in 0..30 {
            if self.step().is_err() {
                self.counts.failed += 1;
                break;
            }
        }
        let upto = self.log.applied();
        let done = self.log.flush(upto, &mut |_, _| {});
        if done.and_then(|_| self.log.sync()).is_ok() {
            self.record();
            let _ = self.log.remove_files(self.checkpoint);
        }
        self.crash();
    }

    fn crash(&mut self) {
        self.counts.crashes += 1;
        self.snapshots.clear();
        self.pass = None;
        if self.rng.random_bool(0.5) {
            self.disk.crash_process();
        } else {
            self.disk.crash_power(self.rng.random());
        }
        let recorded = self.recorded.values().cloned().collect();
        self.log = open(&self.disk, self.memory_bytes, recorded, self.checkpoint);
        for (lsn, op) in self.frames.clone() {
            self.log.apply(lsn, op).unwrap();
            self.log.finish_group(lsn);
            if self.rng.random_bool(0.01) {
                self.flush();
                self.log.evict(0);
            }
        }
        self.log.remove_strays().unwrap();
        self.check();
    }
}

fn open(
    disk: &MemoryDisk,
    memory_bytes: usize,
    recorded: Vec<PartitionRecord>,
    applied: Lsn,
) -> Log {
    let disk = Arc::new(disk.clone());
    Log::open(disk, &topics(), options(memory_bytes), recorded, applied).unwrap()
}

fn run(seed: u64) -> (u32, Counts) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = Simulation::new(seed);
        simulation.run(STEPS);
        (simulation.trace, simulation.counts)
    }));
    result.unwrap_or_else(|panic| {
        eprintln!("failed with MAINSTEM_SEED={seed}");
        resume_unwind(panic)
    })
}

#[test]
fn the_last_record_of_every_key_stays_through_crashes() {
    if let Ok(seed) = std::env::var("MAINSTEM_SEED") {
        println!(
            "{:?}",
            run(seed.parse().expect("MAINSTEM_SEED is a number"))
        );
        return;
    }
    let seeds = std::env::var("MAINSTEM_SEEDS").map_or(SEEDS, |seeds| {
        seeds.parse().expect("MAINSTEM_SEEDS is a number")
    });
    let mut all = Counts::default();
    for seed in 0..seeds {
        let (_, counts) = run(seed);
        all.crashes += counts.crashes;
        all.replaced += counts.replaced;
        all.passes += counts.passes;
        all.saved_bytes += counts.saved_bytes;
        all.failed += counts.failed;
        all.aborted += counts.aborted;
    }
    println!("{all:?}");
    assert!(
        all.crashes > seeds && all.replaced > seeds && all.passes > seeds && all.failed > 0,
        "{all:?}"
    );
    assert!(
        all.aborted > seeds && all.saved_bytes > 1_000 * seeds,
        "{all:?}"
    );
}

#[test]
fn a_seed_runs_the_same_twice() {
    assert_eq!(run(11), run(11));
}

/// A partition with one record a batch, and one batch a segment or many.
struct Small {
    log: Log,
    end: i64,
}

impl Small {
    fn new(segment_bytes: u64, memory_bytes: usize) -> Small {
        let disk = MemoryDisk::new(1);
        disk.create_dir_all(&topics()).unwrap();
        let log = open(&disk, memory_bytes, Vec::new(), Lsn::ZERO);
        common::apply(&log, LogOp::CreatePartition { partition: id() });
        let limits = SegmentLimits {
            segment_bytes: Some(segment_bytes),
            segment_ms: None,
        };
        log.set_segment_limits(id().topic, limits);
        Small { log, end: 0 }
    }

    fn append(&mut self, records: &[(Option<&str>, Option<&str>)]) {
        self.append_of(None, records);
    }

    /// A batch of a producer's transaction, or of none.
    fn append_of(&mut self, producer: Option<i64>, records: &[(Option<&str>, Option<&str>)]) {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        if let Some(id) = producer {
            builder.producer(id, 0, 0).transactional();
        }
        for (key, value) in records {
            let key = key.map(str::as_bytes);
            builder
                .append(self.end, key, value.map(str::as_bytes), &[])
                .unwrap();
        }
        let mut bytes = builder.build().unwrap().bytes().to_vec();
        assign(&mut bytes, self.end, 0);
        self.end += records.len() as i64;
        self.put(bytes.into());
    }

    fn put(&self, batch: Bytes) {
        common::apply(
            &self.log,
            LogOp::Append {
                begins_segment: false,
                partition: id(),
                batch,
            },
        );
    }

    fn end_transaction(&mut self, producer: i64, marker: Marker) {
        let mut bytes = marker
            .batch(producer, 0, self.end)
            .unwrap()
            .bytes()
            .to_vec();
        assign(&mut bytes, self.end, 0);
        self.end += 1;
        self.put(bytes.into());
    }

    fn checkpoint(&self) {
        common::checkpoint(&self.log);
        self.log.remove_files(self.log.flushed()).unwrap();
        self.log.evict(0);
    }

    /// A whole pass; how many frames it made.
    fn compact(&self, now_ms: i64) -> usize {
        let policy = CompactionPolicy {
            now_ms,
            min_lag_ms: 0,
            delete_retention_ms: 100,
        };
        let mut pass = self.log.compaction(id(), policy).unwrap();
        let mut frames = 0;
        while let Some(going) = &mut pass {
            match going.step().unwrap() {
                CompactionStep::Worked => {}
                CompactionStep::Replace(replace) => {
                    frames += 1;
                    common::apply(&self.log, LogOp::ReplaceSegments(replace));
                }
                CompactionStep::Done => break,
            }
        }
        self.checkpoint();
        frames
    }

    /// Offsets, keys and values of what is there.
    fn read(&self) -> Vec<(i64, Option<String>, Option<String>)> {
        let text =
            |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let mut bytes = Bytes::from(common::read_all(&self.log, id(), 300));
        let mut all = Vec::new();
        while let Some(batch) = Batch::split_first(&mut bytes).unwrap() {
            let records = batch.records().unwrap().map(Result::unwrap);
            all.extend(records.map(|record| (record.offset, text(record.key), text(record.value))));
        }
        all
    }

    fn offsets(&self) -> Vec<i64> {
        self.read().into_iter().map(|(offset, ..)| offset).collect()
    }
}

#[test]
fn superseded_records_go_and_small_segments_are_put_together() {
    let mut small = Small::new(150, 1 << 20);
    for round in 0..10 {
        let value = round.to_string();
        small.append(&[
            (Some("a"), Some(&value)),
            (Some(if round == 3 { "c" } else { "b" }), Some(&value)),
        ]);
    }
    // The last batch stands in the active segment, which is left alone.
    small.checkpoint();
    assert_eq!(small.log.segment_count(id()).unwrap(), 10);
    small
        .log
        .set_segment_limits(id().topic, SegmentLimits::default());
    assert!(small.compact(0) > 0);
    assert_eq!(small.offsets(), [7, 16, 17, 18, 19]);
    assert!(small.log.segment_count(id()).unwrap() < 5);
    assert_eq!(small.compact(1), 0, "there is nothing to do again");
    let bounds = small.log.bounds(id()).unwrap();
    assert_eq!((bounds.start, bounds.high_watermark), (0, 20));
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_the_key_is_gone() {
    let mut small = Small::new(1, 1 << 20);
    small.append(&[(Some("a"), Some("1"))]);
    small.append(&[(Some("a"), None), (Some("b"), Some("2"))]);
    let more = |small: &mut Small| {
        small.append(&[(Some("z"), Some("z"))]);
        small.append(&[(Some("z"), Some("z"))]);
        small.checkpoint();
    };
    more(&mut small);
    small.compact(1_000);
    assert_eq!(
        small.offsets()[..2],
        [1, 2],
        "the value is gone, the tombstone is not"
    );
    more(&mut small);
    small.compact(1_099);
    assert_eq!(small.offsets()[..2], [1, 2], "its time is not over");
    more(&mut small);
    small.compact(1_100);
    assert_eq!(small.offsets()[0], 2, "now it is");
}

#[test]
fn records_without_a_key_go_and_batches_of_one_key_never_fit_too_little_memory() {
    // Room for two keys, and batches of three.
    let mut small = Small::new(1, 128);
    for round in 0..8 {
        let value = round.to_string();
        small.append(&[
            (Some("a"), Some(&value)),
            (None, Some(&value)),
            (Some(&value), Some("x")),
        ]);
    }
    small.checkpoint();
    let mut passes = 0;
    loop {
        let policy = CompactionPolicy {
            now_ms: 0,
            min_lag_ms: 0,
            delete_retention_ms: 0,
        };
        if small.log.compactable(id(), &policy).unwrap().dirty_bytes == 0 {
            break;
        }
        small.compact(0);
        passes += 1;
        assert!(passes < 20, "every pass comes further");
    }
    assert!(passes > 1, "it did not fit into one");
    let found = small.read();
    let sealed = found.iter().filter(|(offset, ..)| *offset < 18);
    let sealed: Vec<_> = sealed
        .map(|(_, key, _)| key.clone().unwrap_or_default())
        .collect();
    assert!(!sealed.contains(&String::new()));
    assert!(
        sealed.iter().filter(|key| *key == "a").count() <= 1,
        "{sealed:?}"
    );
}

#[test]
fn what_transactions_have_committed_is_compacted_and_what_they_have_aborted_goes() {
    let mut small = Small::new(1, 1 << 20);
    small.append(&[(Some("a"), Some("before"))]);
    for (value, marker) in [
        ("first", Marker::Commit),
        ("aborted", Marker::Abort),
        ("second", Marker::Commit),
        ("aborted too", Marker::Abort),
    ] {
        small.append_of(Some(5), &[(Some("a"), Some(value))]);
        small.end_transaction(5, marker);
    }
    // Nothing of an open transaction is looked at, nor what comes after.
    small.append_of(Some(6), &[(Some("a"), Some("open"))]);
    small.append(&[(Some("a"), Some("after"))]);
    small.append(&[(Some("a"), Some("last"))]);
    small.checkpoint();
    small.compact(0);
    // The newest that is committed, the markers of both aborts, and all from the open transaction on.
    assert_eq!(small.offsets(), [4, 5, 8, 9, 10, 11]);
    small.end_transaction(6, Marker::Abort);
    small.append(&[(Some("b"), Some("b"))]);
    small.append(&[(Some("b"), Some("b"))]);
    small.checkpoint();
    small.compact(0);
    assert_eq!(small.offsets(), [4, 8, 11, 12, 13, 14]);
    let read = small.log.read_committed(id(), 0, 10_000, None).unwrap();
    let mut found = Vec::new();
    for mut piece in read.batches {
        while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
            found.extend(
                batch
                    .records()
                    .unwrap()
                    .map(|record| record.unwrap().offset),
            );
        }
    }
    assert_eq!(found, [11, 13, 14]);
}
