//! Durable produce of 1 KiB records through the broker, in process, at 1 and at 1,000 partitions, against
//! what the disk itself can do in the same run.
//!
//! `cargo bench -p mainstem --bench produce` prints the table and leaves `target/bench/produce.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstem::broker::{NewTopic, ProduceBatch};
use mainstem::{Caller, Mainstem, Options, now_ms};
use mainstem_journal::limit::disk_limit;
use mainstem_record::{Batch, BatchBuilder, Compression};

const RECORD_BYTES: usize = 1024;
/// Records in one call: 2 MiB.
const CALL_RECORDS: usize = 2 * 1024;
/// Calls under way at a time: 32 MiB together, what Kafka's producer buffers (`buffer.memory`).
const CALLS_IN_FLIGHT: usize = 16;
/// Records of a batch at most: 64 KiB. With 1,000 partitions a call leaves two for each.
const BATCH_RECORDS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);

fn batch(records: usize) -> Batch {
    let value = vec![b'x'; RECORD_BYTES];
    let mut builder = BatchBuilder::new(Compression::None, 8 << 20);
    for _ in 0..records {
        builder.append(0, None, Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}

/// One call's batches: spread over the partitions, each batch as large as that allows.
fn call(topic: &Arc<str>, partitions: usize) -> Vec<ProduceBatch> {
    let records = (CALL_RECORDS / partitions).clamp(1, BATCH_RECORDS);
    let batch = batch(records);
    (0..CALL_RECORDS / records)
        .map(|index| ProduceBatch {
            topic: topic.clone(),
            partition: (index % partitions) as u32,
            batch: batch.clone(),
        })
        .collect()
}

/// Bytes of values a second, durable.
fn measure(mainstem: &Mainstem, partitions: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let topic: Arc<str> = format!("bench-{partitions}").into();
    let caller = Caller::anonymous();
    runtime.block_on(async {
        let new = NewTopic::named(&*topic)
            .partitions(partitions as u32)
            .config("retention.bytes", "67108864");
        mainstem
            .broker()
            .create_topic(&caller, new, now_ms())
            .await
            .unwrap();
        let begun = Instant::now();
        let one = |_| async {
            let mut counted = 0u64;
            while begun.elapsed() < WARM_UP + MEASURED {
                let results = mainstem
                    .broker()
                    .produce(&caller, call(&topic, partitions), now_ms())
                    .await
                    .unwrap();
                assert!(results.iter().all(Result::is_ok));
                if begun.elapsed() > WARM_UP {
                    counted += (CALL_RECORDS * RECORD_BYTES) as u64;
                }
            }
            counted
        };
        let counted: u64 = futures::future::join_all((0..CALLS_IN_FLIGHT).map(one))
            .await
            .into_iter()
            .sum();
        counted as f64 / MEASURED.as_secs_f64()
    })
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
    let out = out_dir();
    let dir = tempfile::tempdir_in(&out).unwrap();
    let before = disk_limit(dir.path()).unwrap();
    let mainstem = Mainstem::open(dir.path().join("data"), Options::default()).unwrap();
    let single = measure(&mainstem, 1);
    let many = measure(&mainstem, 1000);
    mainstem.shutdown().unwrap();
    // The disk is shared and wanders: the limit is the mean of before and after.
    let limit = (before + disk_limit(dir.path()).unwrap()) / 2.0;
    let rows = [
        (
            "durable produce, 1 KiB records, 1 partition, in process",
            single,
            limit,
            0.4,
        ),
        (
            "durable produce, 1 KiB records, 1,000 partitions, in process",
            many,
            limit,
            0.4,
        ),
        ("1,000 partitions against 1", many, single, 0.7),
    ];
    println!(
        "{:<62} {:>10} {:>10} {:>6} {:>5}",
        "", "MB/s", "limit", "ratio", "aim"
    );
    for (name, value, limit, aim) in rows {
        println!(
            "{name:<62} {:>10.0} {:>10.0} {:>6.2} {aim:>5}",
            value / 1e6,
            limit / 1e6,
            value / limit
        );
    }
    let json: Vec<_> = rows
        .iter()
        .map(|(name, value, limit, aim)| {
            serde_json::json!({"name": name, "layer": "broker", "value": value, "unit": "bytes/s", "limit": limit, "ratio": value / limit, "aim": aim})
        })
        .collect();
    std::fs::write(
        out.join("produce.json"),
        serde_json::to_vec_pretty(&json).unwrap(),
    )
    .unwrap();
}
