//! Group commit against the disk itself: raw overwrites of a written-through file, each as large as the group and followed
//! by fdatasync, in the same directory and in turns, so that both meet the same disk.
//!
//! `committers` is the number of frames that wait when a group is closed: each committer has one frame under way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use mainstem_journal::limit::{Overwrites, Overwritten, disk_limit};
use mainstem_journal::{FileMedium, GroupBuilder, JournalOptions, Known, Medium, RealDisk, View};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_millis(250);
const SIZES_BYTES: [usize; 2] = [1 << 10, 64 << 10];
/// How much is written before a checkpoint lets files be recycled.
const CHECKPOINT_BYTES: usize = 256 << 20;
const COMMITTERS: [usize; 3] = [1, 16, 256];

struct Row {
    name: String,
    unit: &'static str,
    value: f64,
    limit: f64,
    ratio: f64,
    aim: f64,
}

fn main() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let out = target.join("bench");
    std::fs::create_dir_all(&out).unwrap();
    let dir = tempfile::tempdir_in(&out).unwrap();
    let mut bench = Bench::new(dir.path());
    let mut rows = Vec::new();
    for size_bytes in SIZES_BYTES {
        for committers in COMMITTERS {
            bench.compare(size_bytes, committers, &mut rows);
        }
    }
    let limit = disk_limit(dir.path()).unwrap();
    let best = rows
        .iter()
        .filter(|row| row.unit == "bytes/s")
        .map(|row| row.value)
        .fold(0.0, f64::max);
    let name = "best group commit against the disk's limit".to_owned();
    rows.push(Row {
        name,
        unit: "bytes/s",
        value: best,
        limit,
        ratio: best / limit,
        aim: 0.8,
    });

    println!(
        "{:<46} {:>12} {:>12} {:>7} {:>5}",
        "journal", "value", "limit", "ratio", "aim"
    );
    for row in &rows {
        let (value, limit) = match row.unit {
            "bytes/s" => (
                format!("{:.1} MB/s", row.value / 1e6),
                format!("{:.1} MB/s", row.limit / 1e6),
            ),
            _ => (
                format!("{:.3} ms", row.value),
                format!("{:.3} ms", row.limit),
            ),
        };
        println!(
            "{:<46} {value:>12} {limit:>12} {:>7.2} {:>5.2}",
            row.name, row.ratio, row.aim
        );
    }
    let json: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name, "layer": "journal", "value": row.value, "unit": row.unit,
                "limit": row.limit, "ratio": row.ratio, "aim": row.aim,
            })
        })
        .collect();
    std::fs::write(
        out.join("journal.json"),
        serde_json::to_vec_pretty(&json).unwrap(),
    )
    .unwrap();
}

struct Bench {
    raw: Overwrites,
    medium: FileMedium,
    builder: GroupBuilder,
    since_checkpoint_bytes: usize,
}

impl Bench {
    fn new(dir: &Path) -> Bench {
        let disk = Arc::new(RealDisk);
        let opened = FileMedium::open(
            disk,
            &dir.join("journal"),
            JournalOptions::default(),
            Known::default(),
        );
        let mut bench = Bench {
            raw: Overwrites::new(dir).unwrap(),
            medium: opened.unwrap().0,
            builder: GroupBuilder::new(),
            since_checkpoint_bytes: 0,
        };
        bench.settle();
        // Twice from checkpoint to checkpoint: from then on files are recycled, not made.
        for _ in 0..CHECKPOINT_BYTES >> 19 {
            bench.commit(1 << 20, 1, &vec![7; 1 << 20]);
        }
        bench.settle();
        bench
    }

    /// Lets the journal do what it does in quiet moments.
    fn settle(&mut self) {
        self.medium.recycle(self.medium.durable_lsn()).unwrap();
        while self.medium.has_background_work() {
            self.medium.drive().unwrap();
        }
    }

    /// One group: encoded, written, synced, handed back and dropped.
    fn commit(&mut self, size_bytes: usize, committers: usize, body: &[u8]) {
        let mut lsn = self.medium.durable_lsn();
        self.builder.reserve((size_bytes + 16) * committers);
        for shard in 0..committers {
            lsn = lsn.next();
            self.builder.begin_frame(lsn);
            self.builder.section(shard as u16, View::Log, |out| {
                out.extend_from_slice(&body[..size_bytes])
            });
            self.builder.end_frame();
        }
        self.medium.submit(self.builder.seal()).unwrap();
        let durable = self.medium.drive().unwrap();
        assert_eq!(durable.last().unwrap().last_lsn(), lsn);
        self.since_checkpoint_bytes += size_bytes * committers;
        if self.since_checkpoint_bytes >= CHECKPOINT_BYTES {
            self.since_checkpoint_bytes = 0;
            self.medium.recycle(lsn).unwrap();
        }
    }

    fn compare(&mut self, size_bytes: usize, committers: usize, rows: &mut Vec<Row>) {
        let group_bytes = size_bytes * committers;
        let body: Vec<u8> = (0..size_bytes).map(|i| (i * 17 + 3) as u8).collect();
        let mut raw = Overwritten {
            size_bytes: group_bytes,
            times: Vec::new(),
        };
        let mut journal = raw.clone();
        for _ in 0..ROUNDS {
            raw.times
                .extend(self.raw.run(group_bytes, ROUND).unwrap().times);
            let begun = Instant::now();
            while begun.elapsed() < ROUND {
                let start = Instant::now();
                self.commit(size_bytes, committers, &body);
                journal.times.push(start.elapsed());
            }
        }
        let name = format!("{} KiB, {committers} committers", size_bytes >> 10);
        let (value, limit) = (journal.bytes_per_second(), raw.bytes_per_second());
        rows.push(Row {
            name: format!("{name}: bytes committed"),
            unit: "bytes/s",
            value,
            limit,
            ratio: value / limit,
            aim: 0.85,
        });
        for (part, label) in [(0.5, "p50"), (0.99, "p99")] {
            let ms = |run: &Overwritten| run.quantile(part).as_secs_f64() * 1e3;
            let (value, limit) = (ms(&journal), ms(&raw));
            rows.push(Row {
                name: format!("{name}: commit {label}"),
                unit: "ms",
                value,
                limit,
                ratio: limit / value,
                aim: 0.5,
            });
        }
    }
}
