//! How long a durable produce takes, in process and from the moment it was due, against fdatasync of the same disk in the
//! same run: at 1,000 records a second, one in a batch, and at half of the most, in batches of 64 KiB. 1 KiB records, 1
//! partition. Beside them, what a bare sync takes at the pace of the first: a disk that rests between two is slower.
//!
//! `cargo bench -p mainstem --bench latency` prints the table and leaves `target/bench/latency.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::write::{ONE, create, flat_out, when_due, with_fresh};
use common::{RECORD_BYTES, Row, batch, out_dir, report};
use mainstem_journal::limit::{Overwrites, Overwritten, SYNC_BYTES, sync_times};

const MEASURED: Duration = Duration::from_secs(10);
const SYNCED: Duration = Duration::from_secs(4);
/// At most 3 times.
const AIM: f64 = 0.33;

fn ms(run: &Overwritten, part: f64) -> f64 {
    run.quantile(part).as_secs_f64() * 1e3
}

/// How long overwrites of 4 KiB take, each with its sync, when one is begun each millisecond.
fn paced_syncs(dir: &Path) -> Overwritten {
    const EACH: Duration = Duration::from_millis(1);
    let mut file = Overwrites::new(dir).unwrap();
    let begun = Instant::now();
    let mut times = Vec::new();
    for index in 0.. {
        let due = EACH * index;
        if due >= SYNCED {
            break;
        }
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        // For no longer than one takes.
        let one = file.run(SYNC_BYTES, Duration::from_micros(1)).unwrap();
        times.extend(one.times);
    }
    Overwritten {
        size_bytes: SYNC_BYTES,
        times,
    }
}

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let most = with_fresh(dir.path(), |mainstem| flat_out(mainstem, ONE)).bytes_per_second;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut rows = Vec::new();
    let paced = paced_syncs(dir.path());
    let mut before = sync_times(dir.path(), SYNCED).unwrap();
    for (quantile, part) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("a bare sync of 4 KiB, 1,000 a second, {quantile}");
        rows.push(Row::new(name, "ms", ms(&paced, part)).limit(ms(&before, part)));
    }
    let batch_bytes = (ONE.batch_records * RECORD_BYTES) as f64;
    for (name, records, per_second) in [
        ("1,000 records/s", 1, 1_000.0),
        ("half load", ONE.batch_records, most / 2.0 / batch_bytes),
    ] {
        let times = with_fresh(dir.path(), |mainstem| {
            let topic = runtime.block_on(create(mainstem, "latency", 1));
            when_due(
                mainstem,
                &topic,
                &batch(records, RECORD_BYTES),
                per_second,
                MEASURED,
            )
        });
        let after = sync_times(dir.path(), SYNCED).unwrap();
        // The disk is shared and wanders: what lies between two measurements is held against both.
        let syncs = Overwritten {
            times: [before.times, after.times.clone()].concat(),
            ..after
        };
        before = after;
        let times = Overwritten {
            size_bytes: 0,
            times,
        };
        for (quantile, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let row = Row::new(
                format!("durable produce, {name}, in process, {quantile}"),
                "ms",
                ms(&times, part),
            );
            let row = row.limit(ms(&syncs, part));
            rows.push(if quantile == "p99" { row.aim(AIM) } else { row });
        }
    }
    report("broker", "latency", &rows);
}
