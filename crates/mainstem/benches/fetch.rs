//! Fetching in process: 1 and 50 readers of what stands in the tail, against plain copies over loopback by as many
//! streams; and cold from segments, against reading the same files in order. Every reader checks every batch.
//!
//! `cargo bench -p mainstem --bench fetch` prints the table and leaves `target/bench/fetch.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::read::{COLD_BYTES, TAIL_BYTES, evict, files_in_order, fill, many, segments, whole};
use common::write::{create, with_fresh};
use common::{Row, out_dir, report};
use mainstem::{Mainstem, Options};
use mainstem_journal::limit::loopback_limit;

const AIM: f64 = 0.7;
const RUNS: usize = 3;

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let mut rows = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    with_fresh(dir.path(), |mainstem| {
        let topic = runtime.block_on(async {
            let topic = create(mainstem, "tail", 1).await;
            fill(mainstem, &topic, TAIL_BYTES).await;
            topic
        });
        for (readers, name) in [(1, "1 reader"), (50, "50 readers")] {
            let limit = loopback_limit(readers, Duration::from_secs(2)).unwrap();
            let row = Row::new(
                format!("tail fetch, {name}, in process"),
                "bytes/s",
                many(mainstem, &topic, readers),
            );
            rows.push(row.limit(limit).aim(AIM));
        }
    });
    let (value, limit) = cold(dir.path());
    rows.push(
        Row::new("cold fetch from segments, in process", "bytes/s", value)
            .limit(limit)
            .aim(AIM),
    );
    report("broker", "fetch", &rows);
}

/// All bytes through the broker and all bytes file by file, in turns; the best of each, since the disk wanders.
fn cold(dir: &Path) -> (f64, f64) {
    let data = dir.join("cold");
    let topic = {
        let mainstem = Mainstem::open(&data, Options::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let topic = runtime.block_on(async {
            let topic = create(&mainstem, "cold", 1).await;
            fill(&mainstem, &topic, COLD_BYTES).await;
            topic
        });
        // Everything is in segments then, and the next one to open begins with an empty tail.
        mainstem.shutdown().unwrap();
        topic
    };
    let files = segments(&data);
    let (mut value, mut limit) = (0.0f64, 0.0f64);
    for _ in 0..RUNS {
        let mainstem = Mainstem::open(&data, Options::default()).unwrap();
        evict(&files);
        let begun = Instant::now();
        let bytes = whole(&mainstem, &topic);
        assert!(bytes >= COLD_BYTES as u64);
        value = value.max(bytes as f64 / begun.elapsed().as_secs_f64());
        mainstem.shutdown().unwrap();
        evict(&files);
        limit = limit.max(files_in_order(&files));
    }
    (value, limit)
}
