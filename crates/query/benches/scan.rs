//! SQL over JSON values of about 200 bytes, in rows per second of CPU time, against DataFusion's own NDJSON reader
//! on the same values in the same run. `target/bench/query.json` has the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use datafusion::prelude::{JsonReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use mainstem_broker::{Broker, BrokerSettings, Caller, NewTopic, ProduceBatch};
use mainstem_engine::testing::Driver;
use mainstem_engine::{Engine, EngineOptions};
use mainstem_journal::RealDisk;
use mainstem_query::{QueryEngine, QueryOptions};
use mainstem_record::{BatchBuilder, Compression};
use mainstem_store::{RocksStore, StoreOptions};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const AIM_ROWS_PER_S: f64 = 1_500_000.0;
const PARTITIONS: u32 = 4;
const BATCH_RECORDS: usize = 500;
/// Each query runs until it has used this much CPU time, so that the kernel's clock ticks do not matter.
const LEAST_CPU_S: f64 = 3.0;
const SCHEMA: &str = "carrier:text, flight:int, tailnum:text, origin:text, dest:text, dep_time:int, dep_delay:int, arr_delay:int, air_time:int, distance:int, day:text, plane_model:text";
const QUERIES: [(&str, &str); 3] = [
    ("count", "SELECT count(dep_delay) FROM flights"),
    ("sum", "SELECT sum(dep_delay) FROM flights"),
    (
        "group by",
        "SELECT carrier, count(*), sum(dep_delay) FROM flights GROUP BY carrier",
    ),
];

fn main() {
    let rows: usize = std::env::var("ROWS")
        .ok()
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let ndjson = dir.path().join("flights.json");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();

    let _guard = runtime.enter();
    let bytes = load(dir.path(), &ndjson, rows);
    println!("{rows} rows, {:.0} bytes each", bytes as f64 / rows as f64);
    let (engine, mut driver) = open(dir.path());
    let broker = Broker::open(engine, BrokerSettings::default()).unwrap();
    let query = QueryEngine::new(
        broker,
        QueryOptions {
            memory_bytes: 256 << 20,
            threads: 1,
        },
    )
    .unwrap();
    let caller = Caller::anonymous();
    let context = SessionContext::new_with_config(
        SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(8_192),
    );
    runtime
        .block_on(context.register_json(
            "flights",
            ndjson.to_str().unwrap(),
            JsonReadOptions::default(),
        ))
        .unwrap();

    let mut figures = Vec::new();
    println!(
        "{:<10} {:>16} {:>16} {:>8}",
        "query", "mainstem rows/s", "ndjson rows/s", "ratio"
    );
    for (name, sql) in QUERIES {
        let limit = rate(rows, || {
            runtime.block_on(async { context.sql(sql).await.unwrap().collect().await.unwrap() });
        });
        let value = rate(rows, || {
            let result = driver.block_on(query.sql(&caller, sql)).unwrap();
            let notices = result.notices.clone();
            let batches: Vec<_> = runtime.block_on(result.stream.try_collect()).unwrap();
            assert!(!batches.is_empty() && notices.is_empty());
            assert_eq!(notices.counts().values_decoded, rows as u64);
        });
        println!(
            "{name:<10} {value:>16.0} {limit:>16.0} {:>8.2}",
            value / limit
        );
        figures.push(serde_json::json!({
            "name": format!("SQL {name} over JSON values of 200 bytes, one core"),
            "layer": "query",
            "value": value.round(),
            "unit": "rows/s of CPU time",
            "limit": limit.round(),
            "ratio": value / limit,
            "aim": AIM_ROWS_PER_S,
        }));
    }
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(
        out.join("query.json"),
        serde_json::to_string_pretty(&figures).unwrap(),
    )
    .unwrap();
}

/// Rows per second of CPU time, after one run to warm up.
fn rate(rows: usize, mut run: impl FnMut()) -> f64 {
    run();
    let (start, before) = (Instant::now(), cpu_s());
    let mut runs = 0;
    while cpu_s() - before < LEAST_CPU_S && start.elapsed().as_secs() < 30 {
        run();
        runs += 1;
    }
    (rows * runs) as f64 / (cpu_s() - before)
}

/// CPU time of this process so far, user and system; the kernel counts it in hundredths of a second.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
}

fn open(dir: &Path) -> (Engine, Driver) {
    let store = Arc::new(RocksStore::open(&dir.join("store"), StoreOptions::default()).unwrap());
    let options = EngineOptions::default();
    let opened = Engine::open(
        Arc::new(RealDisk),
        &dir.join("data"),
        store,
        options,
        &mut |_| {},
    )
    .unwrap();
    (opened.engine, Driver::new(opened.workers, 1))
}

/// Writes the same rows to a topic and to an NDJSON file, and closes the engine: what is measured is read from
/// segments, as the file is.
fn load(dir: &Path, ndjson: &Path, rows: usize) -> usize {
    let (engine, mut driver) = open(dir);
    let broker = Broker::open(engine.clone(), BrokerSettings::default()).unwrap();
    let caller = Caller::anonymous();
    let new = NewTopic {
        name: "flights".into(),
        partitions: Some(PARTITIONS),
        configs: Default::default(),
        schema: Some(SCHEMA.parse().unwrap()),
    };
    driver
        .block_on(broker.create_topic(&caller, new, 0))
        .unwrap();
    let mut file = std::io::BufWriter::new(std::fs::File::create(ndjson).unwrap());
    let mut bytes = 0;
    let mut value = String::new();
    for first in (0..rows).step_by(BATCH_RECORDS) {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        for row in first..(first + BATCH_RECORDS).min(rows) {
            value.clear();
            flight(row as u64, &mut value);
            bytes += value.len();
            writeln!(file, "{value}").unwrap();
            builder
                .append(row as i64, None, Some(value.as_bytes()), &[])
                .unwrap();
        }
        let partition = (first / BATCH_RECORDS) as u32 % PARTITIONS;
        let batch = ProduceBatch {
            topic: "flights".into(),
            partition,
            batch: builder.build().unwrap(),
        };
        let outcomes = driver
            .block_on(broker.produce(&caller, vec![batch], rows as i64))
            .unwrap();
        for outcome in outcomes {
            outcome.unwrap();
        }
    }
    file.flush().unwrap();
    drop(broker);
    engine.close();
    driver.settle();
    bytes
}

/// A made-up departure: the shape of the flights of the demonstration, the same for every run.
fn flight(row: u64, out: &mut String) {
    const CARRIERS: [&str; 16] = [
        "9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN",
        "YV",
    ];
    const ORIGINS: [&str; 3] = ["EWR", "JFK", "LGA"];
    let random = row
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let pick = |shift: u32, of: u64| (random >> shift) % of;
    write!(
        out,
        r#"{{"carrier":"{}","flight":{},"tailnum":"N{:05}","origin":"{}","dest":"D{:02}","dep_time":{},"dep_delay":{},"arr_delay":{},"air_time":{},"distance":{},"day":"2013-{:02}-{:02}","plane_model":"A320-{:03}"}}"#,
        CARRIERS[pick(3, 16) as usize],
        pick(7, 6_000),
        pick(11, 100_000),
        ORIGINS[pick(13, 3) as usize],
        pick(17, 100),
        pick(19, 2_400),
        pick(23, 400) as i64 - 30,
        pick(29, 400) as i64 - 40,
        pick(31, 600),
        pick(37, 5_000),
        1 + pick(41, 12),
        1 + pick(43, 28),
        pick(47, 1_000),
    )
    .unwrap();
}
