//! Building and reading batches of 100-byte records against a plain copy of the same bytes.
//!
//! `cargo bench -p mainstem-record` prints the table and leaves `target/bench/record.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use mainstem_record::{Batch, BatchBuilder, Compression};

const RECORDS: usize = 10_000;
const VALUE_BYTES: usize = 100;
const RUNS: usize = 7;

/// Records a second of the best of several runs, each of at least 100 ms.
fn rate(mut work: impl FnMut()) -> f64 {
    work();
    let best = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            let mut times = 0;
            while begun.elapsed().as_millis() < 100 {
                work();
                times += 1;
            }
            begun.elapsed().as_secs_f64() / f64::from(times)
        })
        .fold(f64::MAX, f64::min);
    RECORDS as f64 / best
}

/// Values with the redundancy of real events, so that the codecs have something to do.
fn values() -> Vec<Vec<u8>> {
    (0..RECORDS as u64)
        .map(|n| {
            let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut value = format!(
                r#"{{"id":{n},"user":"u{}","amount":{},"note":""#,
                noise >> 44,
                noise & 0xffff
            )
            .into_bytes();
            value.resize(VALUE_BYTES - 2, b'a' + (noise % 26) as u8);
            value.extend_from_slice(b"\"}");
            value
        })
        .collect()
}

fn build(codec: Compression, values: &[Vec<u8>]) -> Batch {
    let mut builder = BatchBuilder::new(codec, 16 << 20);
    builder.reserve(RECORDS * (VALUE_BYTES + 20));
    for (index, value) in values.iter().enumerate() {
        builder
            .append(
                1_700_000_000_000 + index as i64 / 8,
                Some(&value[6..14]),
                Some(value),
                &[],
            )
            .unwrap();
    }
    builder.build().unwrap()
}

fn main() {
    let values = values();
    let plain = build(Compression::None, &values);
    let mut target = vec![0u8; plain.size_bytes()];

    let memcpy = rate(|| black_box(&mut target).copy_from_slice(black_box(plain.bytes())));
    let crc = rate(|| {
        black_box(crc32c::crc32c(black_box(plain.bytes())));
    });
    let mut rows = vec![("memcpy", memcpy, memcpy), ("crc32c alone", crc, memcpy)];
    rows.push((
        "build",
        rate(|| drop(black_box(build(Compression::None, &values)))),
        memcpy,
    ));
    rows.push((
        "parse (crc and every record)",
        rate(|| drop(black_box(Batch::parse(plain.bytes().clone()).unwrap()))),
        memcpy,
    ));
    rows.push((
        "views",
        rate(|| {
            let payload = plain.payload().unwrap();
            let bytes: usize = payload
                .views()
                .map(|view| view.unwrap().value.map_or(0, <[u8]>::len))
                .sum();
            black_box(bytes);
        }),
        memcpy,
    ));
    rows.push((
        "records",
        rate(|| {
            black_box(
                plain
                    .records()
                    .unwrap()
                    .map(|record| record.unwrap().offset)
                    .max(),
            );
        }),
        memcpy,
    ));
    let names = [
        ("build gzip", "views gzip", Compression::Gzip),
        ("build snappy", "views snappy", Compression::Snappy),
        ("build lz4", "views lz4", Compression::Lz4),
        ("build zstd", "views zstd", Compression::Zstd),
    ];
    for (building, viewing, codec) in names {
        rows.push((
            building,
            rate(|| drop(black_box(build(codec, &values)))),
            memcpy,
        ));
        let batch = build(codec, &values);
        rows.push((
            viewing,
            rate(|| {
                black_box(batch.payload().unwrap().views().count());
            }),
            memcpy,
        ));
    }

    println!(
        "{RECORDS} records of {VALUE_BYTES} bytes, {} bytes as a batch; one core",
        plain.size_bytes()
    );
    println!(
        "{:<30} {:>14} {:>10} {:>8}",
        "what", "records/s", "GB/s", "ratio"
    );
    let mut json = Vec::new();
    for (name, value, limit) in rows {
        let gigabytes = value * plain.size_bytes() as f64 / RECORDS as f64 / 1e9;
        println!(
            "{name:<30} {value:>14.0} {gigabytes:>10.2} {:>8.3}",
            value / limit
        );
        json.push(format!(
            r#"  {{"name": "record: {name}", "layer": "record", "value": {value:.0}, "unit": "records/s", "limit": {limit:.0}, "ratio": {:.4}, "aim": null}}"#,
            value / limit
        ));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(
        format!("{folder}/record.json"),
        format!("[\n{}\n]\n", json.join(",\n")),
    )
    .unwrap();
}
