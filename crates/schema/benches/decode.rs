//! Decoding JSON objects of about 200 bytes, one core, against Arrow's own JSON reader.
//!
//! `cargo bench -p mainstem-schema` prints the table and leaves `target/bench/schema.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use mainstem_schema::{ColumnKind, Decoder, TopicSchema, infer};

const ROWS: usize = 8_192;
const RUNS: usize = 7;
const AIM: f64 = 2_000_000.0;

/// Rows a second of the best of several runs, each of at least 100 ms.
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
    ROWS as f64 / best
}

fn value(n: u64) -> Vec<u8> {
    let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    format!(
        r#"{{"year":2013,"month":{},"day":{},"carrier":"{}","flight":{},"tailnum":"N{}","origin":"JFK","dest":"LAX","dep_time":{},"dep_delay":{:.1},"arr_delay":{},"distance":{},"time_hour":"2013-01-{:02}T{:02}:00:00Z"}}"#,
        1 + noise % 12,
        1 + noise % 28,
        ["UA", "AA", "DL", "B6"][(noise % 4) as usize],
        noise % 9_000,
        noise % 100_000,
        noise % 2_400,
        (noise % 3_000) as f64 / 10.0 - 30.0,
        (noise >> 9) % 200,
        noise % 5_000,
        1 + noise % 28,
        noise % 24,
    )
    .into_bytes()
}

fn main() {
    let values: Vec<Vec<u8>> = (0..ROWS as u64).map(value).collect();
    let bytes: usize = values.iter().map(Vec::len).sum();
    let schema = infer(values.iter().map(Vec::as_slice));
    let decode = |names: &[&str]| {
        let projection: Vec<usize> = names
            .iter()
            .map(|name| schema.index_of(name).unwrap())
            .collect();
        let mut decoder = Decoder::new(&schema, &projection);
        rate(|| {
            values.iter().for_each(|value| decoder.push(Some(value)));
            black_box(decoder.finish());
        })
    };
    let arrow = |schema: &TopicSchema| {
        let lines = values.join(&b'\n');
        let mut decoder = arrow::json::ReaderBuilder::new(schema.arrow_schema())
            .with_batch_size(ROWS)
            .build_decoder()
            .unwrap();
        rate(|| {
            decoder.decode(&lines).unwrap();
            black_box(decoder.flush().unwrap());
        })
    };
    let two = TopicSchema::parse("carrier:text, dep_delay:float").unwrap();
    let limit = arrow(&two);
    // Without a time zone database Arrow's reader knows no zone by name.
    let mut times_as_text = schema.clone();
    times_as_text
        .columns
        .iter_mut()
        .filter(|column| column.kind == ColumnKind::Timestamp)
        .for_each(|column| column.kind = ColumnKind::Utf8);
    let all: Vec<&str> = schema
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let rows = [
        ("arrow-json, 2 columns", limit, None),
        (
            "arrow-json, all columns, times as text",
            arrow(&times_as_text),
            None,
        ),
        (
            "2 columns (text, float)",
            decode(&["carrier", "dep_delay"]),
            Some(AIM),
        ),
        (
            "3 columns (text, float, timestamp)",
            decode(&["carrier", "dep_delay", "time_hour"]),
            Some(AIM),
        ),
        ("all 13 columns", decode(&all), None),
        (
            "serde_json to Value, for comparison",
            rate(|| {
                for value in &values {
                    black_box(serde_json::from_slice::<serde_json::Value>(value).unwrap());
                }
            }),
            None,
        ),
    ];

    let size = bytes as f64 / ROWS as f64;
    println!("JSON objects of {size:.0} bytes, schema: {schema}; one core");
    println!(
        "{:<38} {:>12} {:>8} {:>8} {:>12}",
        "what", "rows/s", "GB/s", "ratio", "aim rows/s"
    );
    let mut json = Vec::new();
    for (name, value, aim) in rows {
        let aim_text = aim.map_or_else(String::new, |aim| format!("{aim:.0}"));
        println!(
            "{name:<38} {value:>12.0} {:>8.2} {:>8.2} {aim_text:>12}",
            value * size / 1e9,
            value / limit
        );
        json.push(format!(
            r#"  {{"name": "schema: {name}", "layer": "schema", "value": {value:.0}, "unit": "rows/s", "limit": {limit:.0}, "ratio": {:.4}, "aim": {}}}"#,
            value / limit,
            aim.map_or_else(|| "null".to_owned(), |aim| format!("{:.4}", aim / limit)),
        ));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(
        format!("{folder}/schema.json"),
        format!("[\n{}\n]\n", json.join(",\n")),
    )
    .unwrap();
}
