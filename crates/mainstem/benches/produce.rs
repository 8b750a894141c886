//! Durable produce of 1 KiB records through the broker, in process, at 1, 100, 1,000 and 10,000 partitions, against
//! what the disk itself can do in the same run.
//!
//! `cargo bench -p mainstem --bench produce` prints the table and leaves `target/bench/produce.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::write::{HUNDRED, ONE, Shape, TEN_THOUSAND, THOUSAND, flat_out, with_fresh};
use common::{Row, out_dir, report};
use mainstem_journal::limit::disk_limit;

fn main() {
    let out = out_dir();
    let dir = tempfile::tempdir_in(&out).unwrap();
    let mut before = disk_limit(dir.path()).unwrap();
    // The disk is shared and wanders: each limit is the mean of before and after.
    let mut measure = |shape: Shape| {
        let produced = with_fresh(dir.path(), |mainstem| flat_out(mainstem, shape));
        let after = disk_limit(dir.path()).unwrap();
        let limit = (before + after) / 2.0;
        before = after;
        (produced.bytes_per_second, limit)
    };
    let (one, hundred) = (measure(ONE), measure(HUNDRED));
    let (thousand, ten_thousand) = (measure(THOUSAND), measure(TEN_THOUSAND));
    let row = |partitions: &str, (value, limit): (f64, f64)| {
        Row::new(
            format!("durable produce, 1 KiB records, {partitions}, in process"),
            "bytes/s",
            value,
        )
        .limit(limit)
    };
    let rates = [one.0, hundred.0, ten_thousand.0];
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = rates.iter().copied().fold(0.0, f64::max);
    report(
        "broker",
        "produce",
        &[
            row("1 partition", one).aim(0.4),
            row("1 partition (the higher aim)", one).aim(0.6),
            row("100 partitions", hundred),
            row("1,000 partitions", thousand).aim(0.4),
            row("10,000 partitions", ten_thousand),
            Row::new("1,000 partitions against 1", "bytes/s", thousand.0)
                .limit(one.0)
                .aim(0.7),
            Row::new(
                "1, 100 and 10,000 partitions, in process: slowest against fastest",
                "bytes/s",
                slowest,
            )
            .limit(fastest)
            .aim(0.8),
        ],
    );
}
