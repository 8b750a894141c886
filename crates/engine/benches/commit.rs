//! Group commit through the engine, by committers that are really under way at the same time: each has one batch and
//! submits the next when it is durable and visible. Held against raw overwrites of a written-through file, each followed by
//! fdatasync, with as many bytes of batches as the engine had in a group in the mean (by its own count of groups), in the
//! same directory and in turns, so that both meet the same disk.
//!
//! Every committer has a partition of its own: batches of one partition go to its segments first where many wait, and to
//! the journal by reference.
//!
//! `cargo bench -p mainstem-engine` prints the table and leaves `target/bench/engine.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Node, RECORD_BYTES, Row, batch, concurrently, out_dir, report, runtime};
use mainstem_engine::{Append, Engine, EngineOptions, Submission};
use mainstem_journal::limit::{Overwrites, Overwritten, SYNC_BYTES};
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::Batch;
use tokio::runtime::Runtime;

const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(200);
const SIZES_BYTES: [usize; 2] = [1 << 10, 64 << 10];
const COMMITTERS: [usize; 3] = [1, 16, 256];
/// Small, so that the warm-up is short.
const CHECKPOINT_BYTES: u64 = 128 << 20;
/// From the second checkpoint on the journal's files are used again: until then each is written through once more, as
/// the file of the limit was before it was measured.
const WARM_CHECKPOINTS: usize = 2;
/// Where checkpoints do not come.
const LONGEST_WARM_UP: Duration = Duration::from_secs(10);

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let mut bench = Bench::new(dir.path());
    bench.warm_up();
    let mut rows = bench.lone();
    for size_bytes in SIZES_BYTES {
        for committers in COMMITTERS {
            rows.extend(bench.compare(size_bytes, committers));
        }
    }
    report("engine", "engine", &rows);
}

/// What committers did together.
#[derive(Default)]
struct Commits {
    /// What each commit took its committer.
    times: Vec<Duration>,
    groups: u64,
    seconds: f64,
}

struct Bench {
    raw: Overwrites,
    node: Node,
    runtime: Runtime,
}

impl Bench {
    fn new(dir: &Path) -> Bench {
        let options = EngineOptions {
            checkpoint_bytes: CHECKPOINT_BYTES,
            ..EngineOptions::default()
        };
        let bench = Bench {
            raw: Overwrites::new(dir).unwrap(),
            node: Node::open(dir, options),
            runtime: runtime(),
        };
        let partitions = (0..COMMITTERS.into_iter().max().unwrap()).map(partition);
        let create = Submission {
            log_ops: partitions
                .map(|partition| (0, LogOp::CreatePartition { partition }))
                .collect(),
            ..Submission::default()
        };
        bench.node.engine.submit_in_turn(create).wait().unwrap();
        bench
    }

    fn warm_up(&mut self) {
        let begun = Instant::now();
        let large = batch_of(SIZES_BYTES[1]);
        let mut checkpoints = 0;
        while checkpoints < WARM_CHECKPOINTS && begun.elapsed() < LONGEST_WARM_UP {
            let before = self.node.engine.status().checkpoint_lsn;
            self.commit(&large, COMMITTERS[1]);
            checkpoints += usize::from(self.node.engine.status().checkpoint_lsn != before);
        }
    }

    /// A round of so many committers.
    fn commit(&self, batch: &Batch, committers: usize) -> Commits {
        let engine = &self.node.engine;
        let before = engine.status().groups;
        let begun = Instant::now();
        let times = concurrently(&self.runtime, committers, |index| {
            committer(engine.clone(), partition(index), batch.clone(), begun)
        });
        Commits {
            seconds: begun.elapsed().as_secs_f64(),
            times: times.into_iter().flatten().collect(),
            groups: engine.status().groups - before,
        }
    }

    /// One committer of little, against a sync of the least that is written at a time.
    fn lone(&mut self) -> Vec<Row> {
        let batch = batch_of(SIZES_BYTES[0]);
        let mut syncs = nothing(SYNC_BYTES);
        let mut commits = nothing(SIZES_BYTES[0]);
        for _ in 0..ROUNDS {
            commits.times.extend(self.commit(&batch, 1).times);
            syncs
                .times
                .extend(self.raw.run(SYNC_BYTES, ROUND).unwrap().times);
        }
        let row = |(part, label)| {
            let ms = |run: &Overwritten| run.quantile(part).as_secs_f64() * 1e3;
            let name = format!("a lone commit of 1 KiB (limit: a sync) {label}");
            Row::new(name, "ms", ms(&commits)).limit(ms(&syncs))
        };
        [(0.5, "p50"), (0.99, "p99")].map(row).into()
    }

    fn compare(&mut self, size_bytes: usize, committers: usize) -> [Row; 2] {
        let batch = batch_of(size_bytes);
        let mut all = Commits::default();
        let (mut raw_bytes, mut raw_seconds) = (0, 0.0);
        for _ in 0..ROUNDS {
            let round = self.commit(&batch, committers);
            all.groups += round.groups;
            all.seconds += round.seconds;
            all.times.extend(round.times);
            let group_bytes = batch.bytes().len() * all.times.len() / all.groups as usize;
            let raw = self.raw.run(group_bytes, ROUND).unwrap();
            raw_bytes += raw.size_bytes * raw.times.len();
            raw_seconds += raw.times.iter().map(Duration::as_secs_f64).sum::<f64>();
        }
        let commits = all.times.len() as f64;
        let name = format!("{} KiB, {committers} at a time", size_bytes >> 10);
        let rate = commits * batch.bytes().len() as f64 / all.seconds;
        [
            Row::new(
                format!("group commit, {name} (limit: overwrites as large as groups)"),
                "bytes/s",
                rate,
            )
            .limit(raw_bytes as f64 / raw_seconds),
            Row::new(
                format!("commits in a group, {name}"),
                "commits",
                commits / all.groups as f64,
            ),
        ]
    }
}

/// One after another until the round is over; the time of each.
async fn committer(
    engine: Engine,
    partition: PartitionId,
    batch: Batch,
    begun: Instant,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while begun.elapsed() < ROUND {
        let start = Instant::now();
        let batch = batch.clone();
        let submission = Submission {
            appends: vec![Append { partition, batch }],
            ..Submission::default()
        };
        let committed = engine.submit_in_turn(submission).await.unwrap();
        assert!(committed.appends.iter().all(Result::is_ok));
        times.push(start.elapsed());
    }
    times
}

fn nothing(size_bytes: usize) -> Overwritten {
    Overwritten {
        size_bytes,
        times: Vec::new(),
    }
}

fn partition(index: usize) -> PartitionId {
    PartitionId::new(
        TopicId(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
        index as u32,
    )
}

fn batch_of(size_bytes: usize) -> Batch {
    batch(size_bytes / RECORD_BYTES, RECORD_BYTES)
}
