//! Whether those who clean up keep those who write and read waiting: durable produce at 1,000 records a second, and as many
//! reads of 64 KiB, in process, while nothing else happens, and while a topic is compacted, one is cut to a size, one has
//! its records deleted, and whole topics are deleted.
//!
//! `cargo bench -p mainstem --bench cleaning` prints the table and leaves `target/bench/cleaning.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::read::fill;
use common::write::when_due;
use common::{RECORD_BYTES, Row, batch, out_dir, report};
use mainstem::broker::{FetchRequest, Isolation, NewTopic, ProduceBatch};
use mainstem::{Caller, Mainstem, Options, now_ms};
use mainstem_journal::limit::Overwritten;
use mainstem_record::{BatchBuilder, Compression};

const MEASURED: Duration = Duration::from_secs(10);
const PER_SECOND: f64 = 1_000.0;
/// Of each topic that is cleaned.
const FILLED_BYTES: usize = 128 << 20;
const SEGMENT_BYTES: &str = "4194304";
/// Topics that are deleted, one each second.
const GONE: usize = 10;
const READ_BYTES: usize = 64 << 10;
const READS_EVERY: Duration = Duration::from_millis(1);

/// What a run came to.
struct Times {
    produce: Overwritten,
    fetch: Overwritten,
}

fn times(times: Vec<Duration>) -> Overwritten {
    Overwritten {
        size_bytes: 0,
        times,
    }
}

fn options() -> Options {
    Options {
        // Only what a checkpoint has passed is compacted.
        checkpoint_bytes: 64 << 20,
        // Nothing cleans by itself.
        broker: [
            ("log.cleaner.backoff.ms", "3600000"),
            ("log.retention.check.interval.ms", "3600000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..Options::default()
    }
}

async fn create(mainstem: &Mainstem, name: &str, configs: &[(&str, &str)]) -> Arc<str> {
    // The times in the records are of long ago.
    let mut new = NewTopic::named(name)
        .config("segment.bytes", SEGMENT_BYTES)
        .config("retention.ms", "-1");
    for (key, value) in configs {
        new = new.config(*key, *value);
    }
    let caller = Caller::anonymous();
    let broker = mainstem.broker();
    broker.create_topic(&caller, new, now_ms()).await.unwrap();
    name.into()
}

/// The same thousand keys again and again.
async fn fill_keyed(mainstem: &Mainstem, topic: &Arc<str>) {
    let value = vec![b'v'; RECORD_BYTES];
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for number in 0..64 {
        let key = format!("key-{}", number * 15);
        let (key, value) = (key.as_bytes(), value.as_slice());
        builder
            .append(now_ms(), Some(key), Some(value), &[])
            .unwrap();
    }
    let one = ProduceBatch {
        topic: topic.clone(),
        partition: 0,
        batch: builder.build().unwrap(),
    };
    for _ in 0..FILLED_BYTES / RECORD_BYTES / 64 / 16 {
        let call = vec![one.clone(); 16];
        let (caller, now_ms) = (Caller::anonymous(), now_ms());
        let produced = mainstem.broker().produce(&caller, call, now_ms);
        assert!(produced.await.unwrap().iter().all(Result::is_ok));
    }
}

/// Cleans all that there is to clean, for as long as it is measured.
async fn clean(mainstem: &Mainstem, is_over: &AtomicBool) {
    let (broker, caller) = (mainstem.broker(), Caller::anonymous());
    let (mut compacted, mut cut, mut upto, mut gone) = (0, 0, 0, 0);
    let begun = Instant::now();
    while !is_over.load(Ordering::Acquire) {
        compacted += broker.compaction_round(now_ms()).unwrap().requested;
        cut += broker.retention_round(now_ms()).await.unwrap().moved;
        upto += 5_000;
        let asked = [(0, Some(upto.min((FILLED_BYTES / RECORD_BYTES / 2) as i64)))];
        broker
            .delete_records(&caller, "deleted", &asked)
            .await
            .unwrap();
        if gone < GONE && begun.elapsed().as_secs() >= gone as u64 {
            let name = format!("gone-{gone}");
            broker.delete_topic(&caller, &name).await.unwrap();
            gone += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        compacted > 0 && cut > 0 && gone == GONE,
        "nothing was cleaned"
    );
}

/// How long a read takes, of a topic that nobody writes to.
fn read(mainstem: &Mainstem, topic: &Arc<str>, is_over: &AtomicBool) -> Vec<Duration> {
    let caller = Caller::anonymous();
    let end = (FILLED_BYTES / RECORD_BYTES) as i64;
    let mut times = Vec::new();
    for index in 0.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        std::thread::sleep(READS_EVERY);
        let request = FetchRequest {
            topic: topic.clone(),
            partition: 0,
            offset: index * 7_919 % end,
            max_bytes: READ_BYTES,
            isolation: Isolation::ReadUncommitted,
        };
        let begun = Instant::now();
        let fetched = mainstem.broker().fetch(&caller, &request).unwrap();
        times.push(begun.elapsed());
        assert!(!fetched.batches.is_empty());
    }
    times
}

fn run(dir: &Path, cleans: bool) -> Times {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let mainstem = Mainstem::open(dir.path(), options()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (written, kept) = runtime.block_on(async {
        let compact = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        let keyed = create(&mainstem, "keyed", &compact).await;
        fill_keyed(&mainstem, &keyed).await;
        let cut = create(&mainstem, "cut", &[("retention.bytes", "16777216")]).await;
        let deleted = create(&mainstem, "deleted", &[]).await;
        let kept = create(&mainstem, "kept", &[]).await;
        for topic in [&cut, &deleted, &kept] {
            fill(&mainstem, topic, FILLED_BYTES).await;
        }
        for number in 0..GONE {
            let gone = create(&mainstem, &format!("gone-{number}"), &[]).await;
            fill(&mainstem, &gone, FILLED_BYTES / GONE).await;
        }
        (create(&mainstem, "written", &[]).await, kept)
    });
    let is_over = AtomicBool::new(false);
    let one = batch(1, RECORD_BYTES);
    let measured = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&mainstem, &kept, &is_over));
        let cleaner = scope.spawn(|| {
            if cleans {
                runtime.block_on(clean(&mainstem, &is_over));
            }
        });
        let produced = when_due(&mainstem, &written, &one, PER_SECOND, MEASURED);
        is_over.store(true, Ordering::Release);
        cleaner.join().unwrap();
        Times {
            produce: times(produced),
            fetch: times(reader.join().unwrap()),
        }
    });
    mainstem.shutdown().unwrap();
    measured
}

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let quiet = run(dir.path(), false);
    let cleaning = run(dir.path(), true);
    let ms = |run: &Overwritten, part: f64| run.quantile(part).as_secs_f64() * 1e3;
    let mut rows = Vec::new();
    for (what, with, without) in [
        (
            "durable produce, 1,000 records/s",
            &cleaning.produce,
            &quiet.produce,
        ),
        (
            "a fetch of 64 KiB, 1,000 a second at most",
            &cleaning.fetch,
            &quiet.fetch,
        ),
    ] {
        for (quantile, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let name = format!(
                "{what}, in process, beside compaction, retention and deletions, {quantile}"
            );
            rows.push(Row::new(name, "ms", ms(with, part)).limit(ms(without, part)));
        }
    }
    report("broker", "cleaning", &rows);
}
