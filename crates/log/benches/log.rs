//! What the log costs: applying against a plain copy of the same batches, flushing against plain writes of one hot
//! block, reading from segments against reading the same files in order. Applying and flushing are measured in this
//! thread's processor time, reading by the clock.
//!
//! `cargo bench -p mainstem-log` prints the table and leaves `target/bench/log.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mainstem_journal::{Lsn, RealDisk};
use mainstem_log::{Log, LogOp, LogOptions, PartitionId, PartitionRecord, TopicId, encode_append};
use mainstem_record::{BatchBuilder, Compression};

/// What this thread has spent on a processor: other work on the machine hardly shows in it.
struct CpuClock(f64);

impl CpuClock {
    fn start() -> Self {
        Self(Self::now())
    }

    fn seconds(&self) -> f64 {
        Self::now() - self.0
    }

    fn now() -> f64 {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        line.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    }
}

/// 1 KiB records, one in a batch: the most expensive way to bring bytes here.
const VALUE_BYTES: usize = 1024;
const GROUP_BATCHES: usize = 1000;
const GROUPS: usize = 200;
const RUNS: usize = 5;
const READ_BYTES: usize = 1 << 20;

struct Row {
    name: &'static str,
    unit: &'static str,
    value: f64,
    limit: f64,
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

    let copy = best(|| copy_rate(&groups(1)));
    let one = best(|| apply_rate(dir.path(), 1));
    let thousand = best(|| apply_rate(dir.path(), 1000));
    let mut rows = Vec::new();
    for (name, value, aim) in [
        ("apply, 1 partition (limit: a copy of each batch)", one, 0.8),
        (
            "apply, 1,000 partitions (limit: a copy of each batch)",
            thousand,
            0.4,
        ),
    ] {
        rows.push(Row {
            name,
            unit: "batches/s",
            value,
            limit: copy,
            aim,
        });
    }
    for (partitions, names) in [
        (
            1,
            [
                "flush, 1 partition (limit: 1 MiB writes)",
                "cold read, 1 partition (limit: files in order)",
                "warm read, 1 partition (limit: files in order)",
            ],
        ),
        (
            1000,
            [
                "flush, 1,000 partitions (limit: 1 MiB writes)",
                "cold read, 1,000 partitions (limit: files in order)",
                "warm read, 1,000 partitions (limit: files in order)",
            ],
        ),
    ] {
        let files = Files::new(dir.path(), partitions);
        let aims = if partitions == 1 {
            [0.5, 0.7, 0.4]
        } else {
            [0.2, 0.5, 0.4]
        };
        let [flush, cold, warm] = names;
        println!(
            "first flush of {partitions} new partitions: {:.3} s",
            files.first_flush_s
        );
        rows.push(Row {
            name: flush,
            unit: "bytes/s",
            value: files.flush_rate,
            limit: files.write_rate,
            aim: aims[0],
        });
        for (name, evicted, aim) in [(cold, true, aims[1]), (warm, false, aims[2])] {
            let (value, limit) = files.compare_reads(evicted);
            rows.push(Row {
                name,
                unit: "bytes/s",
                value,
                limit,
                aim,
            });
        }
    }
    report(&out, &rows);
}

fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

fn ids(partitions: usize) -> Vec<PartitionId> {
    let topic = TopicId(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    (0..partitions as u32)
        .map(|index| PartitionId::new(topic, index))
        .collect()
}

/// Section bodies as admission makes them: batches go to the partitions in turn.
fn groups(partitions: usize) -> Vec<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder
        .append(1_700_000_000_000, None, Some(&[b'x'; VALUE_BYTES]), &[])
        .unwrap();
    let batch = builder.build().unwrap();
    let ids = ids(partitions);
    let group = |group: usize| {
        let mut body = Vec::with_capacity(GROUP_BATCHES * (batch.bytes().len() + 25));
        for index in group * GROUP_BATCHES..(group + 1) * GROUP_BATCHES {
            let id = ids[index % partitions];
            encode_append(
                &mut body,
                id,
                batch.bytes(),
                (index / partitions) as i64,
                0,
                false,
            );
        }
        Bytes::from(body)
    };
    (0..GROUPS).map(group).collect()
}

fn copy_rate(groups: &[Bytes]) -> f64 {
    let batch_bytes = groups[0].len() / GROUP_BATCHES;
    let mut target = vec![0; groups[0].len()];
    let begun = CpuClock::start();
    for group in groups {
        for (from, to) in group
            .chunks(batch_bytes)
            .zip(target.chunks_mut(batch_bytes))
        {
            black_box(to).copy_from_slice(from);
        }
    }
    (GROUPS * GROUP_BATCHES) as f64 / begun.seconds()
}

fn empty(dir: &Path, partitions: usize) -> Log {
    let log = Log::open(
        Arc::new(RealDisk),
        dir,
        LogOptions::default(),
        Vec::new(),
        Lsn::ZERO,
    )
    .unwrap();
    for partition in ids(partitions) {
        log.apply(Lsn(1), LogOp::CreatePartition { partition })
            .unwrap();
    }
    log.finish_group(Lsn(1));
    log
}

fn apply_all(log: &Log, groups: Vec<Bytes>) {
    let mut lsn = log.applied();
    for group in groups {
        for op in LogOp::decode_all(&group) {
            lsn = lsn.next();
            log.apply(lsn, op.unwrap()).unwrap();
        }
        log.finish_group(lsn);
    }
}

fn apply_rate(dir: &Path, partitions: usize) -> f64 {
    let (log, groups) = (empty(dir, partitions), groups(partitions));
    let begun = CpuClock::start();
    apply_all(&log, groups);
    (GROUPS * GROUP_BATCHES) as f64 / begun.seconds()
}

/// A flushed log, and what its files are.
struct Files {
    dir: tempfile::TempDir,
    partitions: usize,
    records: Vec<PartitionRecord>,
    applied: Lsn,
    paths: Vec<PathBuf>,
    flush_rate: f64,
    write_rate: f64,
    first_flush_s: f64,
}

impl Files {
    fn new(dir: &Path, partitions: usize) -> Self {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let log = empty(dir.path(), partitions);
        let mut groups = groups(partitions);
        // The first flush makes the files, the second writes the most.
        let rest = groups.split_off(GROUPS / 10);
        apply_all(&log, groups);
        let begun = Instant::now();
        log.flush(log.applied(), &mut |_, _| {}).unwrap();
        let first_flush_s = begun.elapsed().as_secs_f64();
        apply_all(&log, rest);
        let begun = CpuClock::start();
        let flushed = log.flush(log.applied(), &mut |_, _| {}).unwrap();
        let flush_rate = flushed.bytes as f64 / begun.seconds();
        let write_rate = best(|| plain_write_rate(dir.path(), flushed.bytes));
        log.sync().unwrap();
        let mut paths = Vec::new();
        for id in log.partitions() {
            let dir = dir
                .path()
                .join(id.topic.to_string())
                .join(id.index.to_string());
            let entries = std::fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let mut segments: Vec<_> = entries
                .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
                .collect();
            segments.sort();
            paths.append(&mut segments);
        }
        let (records, applied) = (log.records(), log.applied());
        Self {
            dir,
            partitions,
            records,
            applied,
            paths,
            flush_rate,
            write_rate,
            first_flush_s,
        }
    }

    /// All bytes by the log and all bytes file by file, in turns.
    fn compare_reads(&self, cold: bool) -> (f64, f64) {
        let (mut log_rate, mut file_rate) = (0.0_f64, 0.0_f64);
        for _ in 0..RUNS {
            self.prepare(cold);
            log_rate = log_rate.max(self.read_log());
            self.prepare(cold);
            file_rate = file_rate.max(self.read_files());
        }
        (log_rate, file_rate)
    }

    fn prepare(&self, cold: bool) {
        for path in &self.paths {
            let file = File::open(path).unwrap();
            if cold {
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
        }
        if !cold {
            self.read_files();
        }
    }

    /// A log just opened: its indexes are loaded, its checksums are checked.
    fn read_log(&self) -> f64 {
        let records = self.records.clone();
        let log = Log::open(
            Arc::new(RealDisk),
            self.dir.path(),
            LogOptions::default(),
            records,
            self.applied,
        )
        .unwrap();
        let mut bytes = 0;
        let begun = Instant::now();
        for id in ids(self.partitions) {
            let mut next = 0;
            let end = log.bounds(id).unwrap().high_watermark;
            while next < end {
                let read = log.read(id, next, READ_BYTES, None).unwrap();
                bytes += read.batches.iter().map(Bytes::len).sum::<usize>();
                next = next_offset(&read.batches);
            }
        }
        bytes as f64 / begun.elapsed().as_secs_f64()
    }

    fn read_files(&self) -> f64 {
        let mut bytes = 0;
        let begun = Instant::now();
        for path in &self.paths {
            let file = File::open(path).unwrap();
            let mut position = 0;
            loop {
                let mut buffer = vec![0; READ_BYTES];
                let count = file.read_at(&mut buffer, position).unwrap();
                if count == 0 {
                    break;
                }
                black_box(&buffer);
                position += count as u64;
                bytes += count;
            }
        }
        bytes as f64 / begun.elapsed().as_secs_f64()
    }
}

/// Where a read ended: every batch here has the size of the first.
fn next_offset(batches: &[Bytes]) -> i64 {
    let last = batches.last().unwrap();
    let size = mainstem_record::BatchHeader::read(last)
        .unwrap()
        .size_bytes();
    mainstem_record::BatchHeader::read(&last[last.len() - size..])
        .unwrap()
        .next_offset()
}

fn plain_write_rate(dir: &Path, bytes: u64) -> f64 {
    let path = dir.join("plain");
    let file = File::create(&path).unwrap();
    let block = vec![b'x'; 1 << 20];
    let begun = CpuClock::start();
    for index in 0..bytes >> 20 {
        file.write_all_at(&block, index << 20).unwrap();
    }
    let rate = bytes as f64 / begun.seconds();
    std::fs::remove_file(path).unwrap();
    rate
}

fn report(out: &Path, rows: &[Row]) {
    println!(
        "{:<56} {:>12} {:>12} {:>6} {:>5}",
        "log", "value", "limit", "ratio", "aim"
    );
    for row in rows {
        let show = |value: f64| match row.unit {
            "bytes/s" => format!("{:.0} MB/s", value / 1e6),
            _ => format!("{:.2} M/s", value / 1e6),
        };
        let ratio = row.value / row.limit;
        println!(
            "{:<56} {:>12} {:>12} {ratio:>6.2} {:>5.2}",
            row.name,
            show(row.value),
            show(row.limit),
            row.aim
        );
    }
    let json = rows.iter().map(|row| {
        serde_json::json!({
            "name": row.name, "layer": "log", "value": row.value, "unit": row.unit,
            "limit": row.limit, "ratio": row.value / row.limit, "aim": row.aim,
        })
    });
    std::fs::write(
        out.join("log.json"),
        serde_json::to_vec_pretty(&json.collect::<Vec<_>>()).unwrap(),
    )
    .unwrap();
}
