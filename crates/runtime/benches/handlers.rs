//! Handlers from topic to topic on the real parts: files, RocksDB, every frame synced. 'One core' means the process's
//! CPU seconds, the engine's threads included. The limit of each row is the native handler of the same kind in the same
//! run, so that a component's ratio is what WebAssembly costs.
//!
//! `cargo bench -p mainstem-runtime` prints the table and leaves `target/bench/runtime.json`; components are built for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mainstem_broker::{Broker, BrokerSettings, Caller, NewTopic, ProduceBatch};
use mainstem_engine::{Engine, EngineOptions};
use mainstem_journal::RealDisk;
use mainstem_record::{BatchBuilder, Compression};
use mainstem_runtime::{
    Code, Deployment, Event, NativeHandler, Next, OutputRecord, Runtime, RuntimeOptions, StepState,
};
use mainstem_store::{RocksStore, StoreOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[path = "../../server/src/guest/toolchain.rs"]
#[allow(dead_code)]
mod toolchain;

const EVENT_BYTES: usize = 100;
const KEYS: u64 = 1_000_000;
const RECORDS_PER_BATCH: usize = 1000;

struct Row {
    name: &'static str,
    value: f64,
    limit: f64,
    aim: f64,
}

fn main() {
    let guest = guest();
    if let Ok(kind) = std::env::var("BENCH_ONLY") {
        // One run, for a profiler.
        let code = if kind == "native" {
            native(add)
        } else {
            Code::Component(guest)
        };
        let topic = if kind == "prefetched" {
            "cells-prefetched"
        } else {
            "cells"
        };
        run(topic, 2_000_000, code);
        return;
    }
    let mut rows = Vec::new();
    let stateless_native = run("echo", 3_000_000, native(echo));
    let stateless = run("echo", 3_000_000, Code::Component(guest.clone()));
    let stateful_native = run("cells", 2_000_000, native(add));
    let stateful = run("cells", 2_000_000, Code::Component(guest.clone()));
    let prefetched = run("cells-prefetched", 2_000_000, Code::Component(guest));
    for (name, value, limit, aim) in [
        (
            "stateless handler, native, 100-byte events",
            stateless_native,
            stateless_native,
            500_000.0,
        ),
        (
            "stateless handler, component, 100-byte events",
            stateless,
            stateless_native,
            500_000.0,
        ),
        (
            "stateful handler, native, 1,000,000 uniform keys",
            stateful_native,
            stateful_native,
            150_000.0,
        ),
        (
            "stateful handler, component, 1,000,000 uniform keys",
            stateful,
            stateful_native,
            150_000.0,
        ),
        (
            "stateful handler, component, keys prefetched",
            prefetched,
            stateful_native,
            150_000.0,
        ),
    ] {
        rows.push(Row {
            name,
            value,
            limit,
            aim,
        });
    }
    report(&rows);
}

fn native<F>(handle: F) -> Code
where
    F: Fn(&Event, &mut StepState, &mut Vec<OutputRecord>) -> Result<(), String>
        + Send
        + Sync
        + 'static,
{
    Code::Native {
        version: "1".into(),
        module: Arc::new(NativeHandler::new(handle)),
    }
}

fn echo(event: &Event, _: &mut StepState, out: &mut Vec<OutputRecord>) -> Result<(), String> {
    thread_local!(static OUT: Arc<str> = "out".into());
    out.push(OutputRecord {
        topic: OUT.with(Arc::clone),
        key: event.key.clone(),
        value: event.value.clone(),
        timestamp_ms: Some(event.timestamp_ms),
        ..OutputRecord::default()
    });
    Ok(())
}

fn add(event: &Event, state: &mut StepState, _: &mut Vec<OutputRecord>) -> Result<(), String> {
    let key = event.key.as_deref().unwrap_or_default();
    let cell = state.get("cells", key)?;
    let count = cell
        .and_then(|cell| cell.as_ref().try_into().ok())
        .map_or(0, u64::from_le_bytes);
    state.put("cells", key, (count + 1).to_le_bytes().to_vec())
}

fn guest() -> Bytes {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dir, target) = (
        root.join("tests/guests/kitchen"),
        root.join("../../target/guests"),
    );
    let path = toolchain::build_in(&dir, Some(&target), &mut |line| eprintln!("{line}"))
        .unwrap_or_else(|error| panic!("{error}: {}", error.hint()));
    std::fs::read(path).unwrap().into()
}

/// Events a CPU second of one handler over a topic that is there already.
fn run(topic: &'static str, events: usize, code: Code) -> f64 {
    let dir = tempfile::tempdir_in(bench_dir()).unwrap();
    let disk = Arc::new(RealDisk);
    let store =
        Arc::new(RocksStore::open(&dir.path().join("store"), StoreOptions::default()).unwrap());
    let opened = Engine::open(
        disk.clone(),
        dir.path(),
        store,
        EngineOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    let engine = opened.engine.clone();
    let workers: Vec<_> = opened
        .workers
        .into_iter()
        .map(|worker| std::thread::spawn(move || worker.run()))
        .collect();
    let broker = Broker::open(engine.clone(), BrokerSettings::default()).unwrap();
    let runtime = Runtime::open(
        broker.clone(),
        RuntimeOptions::new(disk, dir.path().join("modules")),
        now_ms(),
    )
    .unwrap();
    let caller = Caller::anonymous();
    for name in [topic, "out"] {
        block_on(broker.create_topic(&caller, NewTopic::named(name).partitions(1), now_ms()))
            .unwrap();
    }
    fill(&broker, &caller, topic, events);

    let mover = {
        let runtime = runtime.clone();
        std::thread::spawn(move || {
            loop {
                match runtime.work(now_ms()) {
                    Next::Worked => {}
                    Next::IdleUntil(_) => runtime.park(Duration::from_millis(50)),
                    Next::Closed => return,
                }
            }
        })
    };
    let deployment = Deployment::new("bench", code).input(topic).output("out");
    block_on(runtime.deploy(&caller, deployment, now_ms())).unwrap();
    let (cpu, clock) = (cpu_seconds(), Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let status = runtime.status(&caller, "bench").unwrap();
        if status.events() as usize == events {
            break;
        }
        assert!(status.last_error().is_none(), "{:?}", status.last_error());
    }
    let (cpu, elapsed) = (cpu_seconds() - cpu, clock.elapsed().as_secs_f64());
    eprintln!("{topic}: {events} events in {elapsed:.2} s, {cpu:.2} CPU seconds");
    runtime.close();
    mover.join().unwrap();
    engine.close();
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    events as f64 / cpu
}

fn fill(broker: &Broker, caller: &Caller, topic: &'static str, events: usize) {
    let mut rng = SmallRng::seed_from_u64(1);
    let value = vec![b'v'; EVENT_BYTES - 8];
    let mut left = events;
    while left > 0 {
        let mut batches = Vec::new();
        while left > 0 && batches.len() < 16 {
            let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
            for _ in 0..RECORDS_PER_BATCH.min(left) {
                let key = rng.random_range(0..KEYS).to_be_bytes();
                builder
                    .append(now_ms(), Some(&key), Some(&value), &[])
                    .unwrap();
                left -= 1;
            }
            batches.push(ProduceBatch {
                topic: topic.into(),
                partition: 0,
                batch: builder.build().unwrap(),
            });
        }
        for result in block_on(broker.produce(caller, batches, now_ms())).unwrap() {
            result.unwrap();
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

/// User and system time of the whole process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn bench_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn report(rows: &[Row]) {
    println!(
        "{:<55} {:>12} {:>12} {:>7} {:>9}",
        "events a CPU second", "value", "native", "ratio", "aim"
    );
    let mut json = Vec::new();
    for Row {
        name,
        value,
        limit,
        aim,
    } in rows
    {
        let ratio = value / limit;
        println!("{name:<55} {value:>12.0} {limit:>12.0} {ratio:>7.2} {aim:>9.0}");
        json.push(serde_json::json!({
            "name": name, "layer": "runtime", "value": value, "unit": "events/s", "limit": limit, "ratio": ratio, "aim": aim
        }));
    }
    std::fs::write(
        bench_dir().join("runtime.json"),
        serde_json::to_vec_pretty(&json).unwrap(),
    )
    .unwrap();
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
