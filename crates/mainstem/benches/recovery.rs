//! How long it takes to open a data directory: after a kill with 1 GiB of journal since the last checkpoint, and after a
//! clean stop with much retained.
//!
//! `cargo bench -p mainstem --bench recovery` prints the table and leaves `target/bench/recovery.json`. Half of the
//! journal is 1 KiB records in frames of 64 KiB, half is steps: frames that change a hundred states of 100 bytes, keys
//! drawn from a million, and the offset that they come from. `RETAINED_GIB` is how much is retained, 2 by default.
//!
//! The journal is written by a process of its own, which is killed: this program, with other arguments.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use mainstem::broker::{NewTopic, ProduceBatch};
use mainstem::engine::{Append, Submission};
use mainstem::{Caller, Mainstem, Options, now_ms};
use mainstem_log::PartitionId;
use mainstem_record::{Batch, BatchBuilder, Compression};
use mainstem_runtime::keys::{StateKey, offset_key};
use mainstem_store::{Family, StoreOp};

const JOURNAL_BYTES: u64 = 1 << 30;
const RECORD_BYTES: usize = 1024;
/// Records of one frame: 64 KiB.
const BATCH_RECORDS: usize = 63;
const STATE_BYTES: usize = 100;
const STATES_IN_STEP: usize = 100;
const KEYS: u64 = 1_000_000;
/// Frames under way at a time.
const IN_FLIGHT: usize = 64;
/// Aims, in seconds.
const AFTER_KILL: f64 = 10.0;
const AFTER_STOP: f64 = 1.0;

fn batch() -> Batch {
    let value = vec![b'x'; RECORD_BYTES];
    let mut builder = BatchBuilder::new(Compression::None, 8 << 20);
    for _ in 0..BATCH_RECORDS {
        builder.append(0, None, Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}

/// A checkpoint only when asked for by a clean stop.
fn without_checkpoints() -> Options {
    Options {
        checkpoint_bytes: u64::MAX,
        checkpoint_interval_ms: u64::MAX,
        checkpoint_idle_ms: u64::MAX,
        ..Options::default()
    }
}

/// The directory's topic, made if it is not there.
async fn topic(mainstem: &Mainstem) -> PartitionId {
    let caller = Caller::anonymous();
    let new = NewTopic::named("bench").partitions(1);
    // It may be there already.
    let _ = mainstem.broker().create_topic(&caller, new, now_ms()).await;
    let topic = mainstem.broker().topic(&caller, "bench").unwrap();
    PartitionId::new(topic.id, 0)
}

/// Steps of a handler with one task, as the runtime submits them.
struct Steps {
    random: u64,
    done: u64,
}

impl Steps {
    fn next(&mut self) -> Submission {
        let mut store_ops = Vec::with_capacity(STATES_IN_STEP + 1);
        for _ in 0..STATES_IN_STEP {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let key = format!("key-{:08}", self.random % KEYS);
            let key = StateKey {
                shard: 7,
                handler: 1,
                partition: 0,
                table: "totals",
                key: key.as_bytes(),
            };
            let value = vec![self.random as u8; STATE_BYTES];
            store_ops.push(StoreOp::put(Family::State, key.encode(), value));
        }
        self.done += STATES_IN_STEP as u64;
        let offset = offset_key(7, 1, 0, 99);
        let at = self.done.to_be_bytes().to_vec();
        store_ops.push(StoreOp::put(Family::Offsets, offset, at));
        Submission {
            store_ops,
            all_or_nothing: true,
            ..Submission::default()
        }
    }
}

/// Writes the journal, says so, and waits to be killed.
fn fill(dir: &Path) {
    let mainstem = Mainstem::open(dir, without_checkpoints()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let partition = topic(&mainstem).await;
        let engine = mainstem.engine();
        let begun = engine.status().journal_bytes;
        let (batch, mut steps) = (batch(), Steps { random: 1, done: 0 });
        let mut in_flight = std::collections::VecDeque::new();
        let (mut records, mut states) = (0u64, 0u64);
        while engine.status().journal_bytes - begun < JOURNAL_BYTES {
            // Whichever has written less so far: half of each.
            let submission = if records <= states {
                records += batch.bytes().len() as u64;
                let append = Append {
                    partition,
                    batch: batch.clone(),
                };
                Submission {
                    appends: vec![append],
                    ..Submission::default()
                }
            } else {
                let step = steps.next();
                states += step.size_bytes() as u64;
                step
            };
            in_flight.push_back(engine.submit_in_turn(submission));
            if in_flight.len() == IN_FLIGHT {
                in_flight.pop_front().unwrap().await.unwrap();
            }
        }
        for ticket in in_flight {
            ticket.await.unwrap();
        }
    });
    let status = mainstem.engine().status();
    println!("{} {}", status.journal_bytes, status.checkpoint_lsn.0);
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// What opening took, and what it had to do.
struct Opening {
    seconds: f64,
    replayed_frames: u64,
    read_bytes: u64,
}

fn open(dir: &Path) -> (Opening, Mainstem) {
    let begun = Instant::now();
    let mainstem = Mainstem::open(dir, without_checkpoints()).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let recovery = mainstem.status().recovery;
    let opening = Opening {
        seconds,
        replayed_frames: recovery.replayed_frames,
        read_bytes: recovery.read_bytes,
    };
    (opening, mainstem)
}

fn after_kill(dir: &Path) -> Opening {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--fill")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let figures: Vec<u64> = line
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert!(figures[0] >= JOURNAL_BYTES, "{line}");
    let (opening, mainstem) = open(dir);
    assert!(
        opening.read_bytes >= JOURNAL_BYTES,
        "{}",
        opening.read_bytes
    );
    mainstem.shutdown().unwrap();
    opening
}

/// Retains so many bytes, stops cleanly, and opens again.
fn after_stop(dir: &Path, bytes: u64) -> Opening {
    let mainstem = Mainstem::open(dir, Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        topic(&mainstem).await;
        let caller = Caller::anonymous();
        let name: Arc<str> = "bench".into();
        let one = ProduceBatch {
            topic: name,
            partition: 0,
            batch: batch(),
        };
        let call_bytes = 32 * one.batch.bytes().len() as u64;
        let calls = bytes.div_ceil(call_bytes * 8);
        let eighth = |_| async {
            for _ in 0..calls {
                let produced = mainstem.broker();
                let results = produced
                    .produce(&caller, vec![one.clone(); 32], now_ms())
                    .await
                    .unwrap();
                assert!(results.iter().all(Result::is_ok));
            }
        };
        futures::future::join_all((0..8).map(eighth)).await;
    });
    mainstem.shutdown().unwrap();
    drop(mainstem);
    let (opening, mainstem) = open(dir);
    let partition = runtime.block_on(topic(&mainstem));
    let retained = mainstem.engine().log().size_bytes(partition).unwrap();
    assert!(retained >= bytes, "{retained} bytes are retained");
    mainstem.shutdown().unwrap();
    opening
}

fn out_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let out = target.join("bench");
    std::fs::create_dir_all(&out).unwrap();
    out
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "--fill") {
        return fill(Path::new(&arguments[2]));
    }
    let out = out_dir();
    let gib: u64 = std::env::var("RETAINED_GIB").map_or(2, |gib| gib.parse().unwrap());

    let dir = tempfile::tempdir_in(&out).unwrap();
    let killed = after_kill(&dir.path().join("data"));
    drop(dir);

    let dir = tempfile::tempdir_in(&out).unwrap();
    let quarter = after_stop(&dir.path().join("data"), gib << 28);
    drop(dir);
    let dir = tempfile::tempdir_in(&out).unwrap();
    let stopped = after_stop(&dir.path().join("data"), gib << 30);
    drop(dir);

    println!(
        "after the kill: {} frames, {} MiB of journal read, at {:.0} MB/s",
        killed.replayed_frames,
        killed.read_bytes >> 20,
        killed.read_bytes as f64 / 1e6 / killed.seconds
    );
    // A time's ratio is what it may be against what it is.
    let rows = [
        (
            "restart after kill, 1 GiB of journal since the checkpoint".to_owned(),
            killed.seconds,
            AFTER_KILL,
            1.0,
        ),
        (
            format!("restart after a clean stop, {gib} GiB retained"),
            stopped.seconds,
            AFTER_STOP,
            1.0,
        ),
        (
            "the same against a quarter of it retained".to_owned(),
            stopped.seconds,
            quarter.seconds,
            0.7,
        ),
    ];
    println!(
        "{:<62} {:>10} {:>10} {:>6} {:>6}",
        "", "seconds", "limit", "ratio", "aim"
    );
    for (name, value, limit, aim) in &rows {
        println!(
            "{name:<62} {value:>10.2} {limit:>10.2} {:>6.2} {aim:>6}",
            limit / value
        );
    }
    let json: Vec<_> = rows
        .iter()
        .map(|(name, value, limit, aim)| {
            serde_json::json!({"name": name, "layer": "mainstem", "value": value, "unit": "s", "limit": limit, "ratio": limit / value, "aim": aim})
        })
        .collect();
    std::fs::write(
        out.join("recovery.json"),
        serde_json::to_vec_pretty(&json).unwrap(),
    )
    .unwrap();
}
