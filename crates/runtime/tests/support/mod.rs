//! A whole node in memory with a runtime on it, moved by one seed.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::{Mutex, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use mainstem_broker::{
    Broker, BrokerSettings, Caller, FetchRequest, Isolation, NewRecord, NewTopic,
};
use mainstem_engine::EngineError;
use mainstem_engine::testing::{Crash, TestNode, poll_once};
use mainstem_record::{Batch, Record};
use mainstem_runtime::keys::StateKey;
use mainstem_runtime::{
    Deployment, Event, HandlerStatus, Next, OutputRecord, Runtime, RuntimeOptions, StepState,
    TaskState,
};
use mainstem_store::{Family, StoreSnapshot};

#[path = "../../../server/src/guest/toolchain.rs"]
#[allow(dead_code)]
pub mod toolchain;

/// The component of one of the guests beside this file, built once a process.
#[allow(dead_code)]
pub fn guest(name: &str) -> Bytes {
    component(&format!("crates/runtime/tests/guests/{name}"))
}

/// The component of a folder in the repository, built once a process.
#[allow(dead_code)]
pub fn component(folder: &str) -> Bytes {
    static BUILT: OnceLock<Mutex<BTreeMap<String, Bytes>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Mutex::default).lock().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let build = || {
        let mut said = Vec::new();
        let (dir, target) = (root.join(folder), root.join("target/guests"));
        let path = toolchain::build_in(&dir, Some(&target), &mut |line| said.push(line.to_owned()))
            .unwrap_or_else(|error| panic!("{}\n{error}\n{}", said.join("\n"), error.hint()));
        Bytes::from(std::fs::read(path).unwrap())
    };
    built.entry(folder.to_owned()).or_insert_with(build).clone()
}

pub struct Bed {
    pub node: TestNode,
    pub broker: Broker,
    pub runtime: Runtime,
    pub now_ms: i64,
    seed: u64,
    /// Starts with a number of their own, so that crashes do not give topics the same ids again.
    lives: u64,
    handlers_memory_bytes: u64,
}

pub fn caller() -> Caller {
    Caller::anonymous()
}

fn open(
    node: &TestNode,
    seed: u64,
    lives: u64,
    now_ms: i64,
    handlers_memory_bytes: u64,
) -> (Broker, Runtime) {
    let mut next = u128::from(seed) << 64 | u128::from(lives) << 32;
    let random = Box::new(move || {
        next += 1;
        next
    });
    let broker = Broker::open(node.engine.clone(), BrokerSettings::new(random)).unwrap();
    let mut options = RuntimeOptions::new(node.disk.clone(), "/node/modules");
    // The node's frames are small.
    options.max_step_bytes = 48 << 10;
    options.max_step_events = 512;
    options.handlers_memory_bytes = handlers_memory_bytes;
    options.schedule_seed = Some(seed ^ lives << 1 | 1);
    let runtime = Runtime::open(broker.clone(), options, now_ms).unwrap();
    (broker, runtime)
}

#[allow(dead_code)]
impl Bed {
    pub fn new(seed: u64) -> Bed {
        Bed::with_memory(seed, 128 << 20)
    }

    /// With so many bytes for the instances of all handlers.
    pub fn with_memory(seed: u64, handlers_memory_bytes: u64) -> Bed {
        let node = TestNode::open(seed).unwrap();
        let (broker, runtime) = open(&node, seed, 0, 1_000, handlers_memory_bytes);
        Bed {
            node,
            broker,
            runtime,
            now_ms: 1_000,
            seed,
            lives: 0,
            handlers_memory_bytes,
        }
    }

    /// Goes down and comes back.
    pub fn crash(self, crash: Crash) -> Result<Bed, EngineError> {
        let Bed {
            node,
            broker,
            runtime,
            now_ms,
            seed,
            lives,
            handlers_memory_bytes,
        } = self;
        runtime.close();
        drop((runtime, broker));
        let node = node.crash(crash)?;
        let (broker, runtime) = open(&node, seed, lives + 1, now_ms, handlers_memory_bytes);
        Ok(Bed {
            node,
            broker,
            runtime,
            now_ms,
            seed,
            lives: lives + 1,
            handlers_memory_bytes,
        })
    }

    /// Moves tasks and the engine until nothing is left to do at this time.
    pub fn settle(&mut self) {
        loop {
            let mut worked = false;
            while self.runtime.work(self.now_ms) == Next::Worked {
                worked = true;
                self.node.driver.step();
            }
            self.node.driver.settle();
            if !worked && matches!(self.runtime.work(self.now_ms), Next::IdleUntil(_)) {
                return;
            }
        }
    }

    /// Moves one thing: a task or the engine.
    pub fn step(&mut self, choice: u64) -> bool {
        match choice % 3 {
            0 => self.runtime.work(self.now_ms) == Next::Worked,
            _ => self.node.driver.step(),
        }
    }

    /// Lets time pass, and settles at every moment that somebody waits for.
    pub fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        loop {
            self.settle();
            match self.runtime.work(self.now_ms) {
                Next::IdleUntil(Some(at_ms)) if at_ms <= end => {
                    self.now_ms = at_ms.max(self.now_ms)
                }
                Next::Worked => {}
                _ => break,
            }
        }
        self.now_ms = end;
        self.settle();
    }

    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        for _ in 0..1_000_000 {
            if let Poll::Ready(output) = poll_once(future.as_mut()) {
                return output;
            }
            self.runtime.work(self.now_ms);
            self.node.driver.step();
        }
        panic!("what is waited for has not come");
    }

    pub fn topic(&mut self, name: &str, partitions: u32) {
        let (broker, now_ms) = (self.broker.clone(), self.now_ms);
        self.block_on(broker.create_topic(
            &caller(),
            NewTopic::named(name).partitions(partitions),
            now_ms,
        ))
        .unwrap();
    }

    pub fn produce(&mut self, topic: &str, records: &[(&str, &str)]) -> Vec<(u32, i64)> {
        let record = |(key, value): &(&str, &str)| NewRecord {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..NewRecord::default()
        };
        self.produce_records(topic, records.iter().map(record).collect())
    }

    pub fn produce_records(&mut self, topic: &str, records: Vec<NewRecord>) -> Vec<(u32, i64)> {
        let (broker, now_ms) = (self.broker.clone(), self.now_ms);
        self.block_on(broker.produce_records(&caller(), topic, records, now_ms))
            .unwrap()
    }

    pub fn deploy(&mut self, deployment: Deployment) -> HandlerStatus {
        let (runtime, now_ms) = (self.runtime.clone(), self.now_ms);
        self.block_on(runtime.deploy(&caller(), deployment, now_ms))
            .unwrap()
    }

    pub fn status(&self, name: &str) -> HandlerStatus {
        self.runtime.status(&caller(), name).unwrap()
    }

    /// Every record of a topic, partition by partition.
    pub fn read(&self, topic: &str) -> Vec<Vec<Record>> {
        let partitions = self.broker.topic(&caller(), topic).unwrap().partitions;
        (0..partitions)
            .map(|partition| self.read_partition(topic, partition))
            .collect()
    }

    fn read_partition(&self, topic: &str, partition: u32) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let offset = records.last().map_or(0, |last| last.offset + 1);
            let request = FetchRequest {
                topic: topic.into(),
                partition,
                offset,
                max_bytes: 1 << 20,
                isolation: Isolation::ReadUncommitted,
            };
            let fetched = self.broker.fetch(&caller(), &request).unwrap();
            if fetched.batches.is_empty() {
                return records;
            }
            for mut piece in fetched.batches {
                while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                    records.extend(
                        batch
                            .records()
                            .unwrap()
                            .map(Result::unwrap)
                            .filter(|record| record.offset >= offset),
                    );
                }
            }
        }
    }

    /// Values of a topic as text, over all partitions, with their keys.
    pub fn values(&self, topic: &str) -> Vec<(String, String)> {
        let text =
            |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        self.read(topic)
            .into_iter()
            .flatten()
            .map(|record| (text(record.key), text(record.value)))
            .collect()
    }

    /// A handler's state as text: (partition, table, key) and value.
    pub fn state(&self, handler: &str) -> BTreeMap<(u32, String, Vec<u8>), Vec<u8>> {
        let mut found = BTreeMap::new();
        for (partition, prefix) in self.runtime.state_prefixes(&caller(), handler).unwrap() {
            self.node
                .store
                .scan_prefix(Family::State, &prefix, &mut |key, value| {
                    let key = StateKey::decode(key).unwrap();
                    assert_eq!(key.partition, partition);
                    found.insert(
                        (partition, key.table.to_owned(), key.key.to_vec()),
                        value.to_vec(),
                    );
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        found
    }

    pub fn task_states(&self, handler: &str) -> Vec<TaskState> {
        self.status(handler)
            .tasks
            .iter()
            .map(|task| task.state)
            .collect()
    }
}

/// What the guests do, as a closure: the native handler of the conformance tests.
#[allow(dead_code)]
pub fn obey(
    event: &Event,
    state: &mut StepState,
    out: &mut Vec<OutputRecord>,
) -> Result<(), String> {
    let key = event.key.clone().unwrap_or_default();
    let value = event.value.clone().unwrap_or_default();
    let mut emit = |topic: &str, key: Bytes, value: String, partition| {
        out.push(OutputRecord {
            topic: topic.into(),
            key: Some(key),
            value: Some(value.into()),
            timestamp_ms: Some(event.timestamp_ms),
            partition,
            ..OutputRecord::default()
        });
    };
    match value.as_ref() {
        b"count" => {
            let before = state.get("counts", &key)?;
            let before = before.map_or(0, |value| {
                String::from_utf8_lossy(&value).parse().unwrap_or(0u64)
            });
            let count = (before + 1).to_string();
            state.put("counts", &key, count.clone())?;
            emit("out", key, count, None);
        }
        b"list" => {
            let found = state.scan("counts", &[], None, 100)?;
            let found = found.iter().map(|(key, value)| {
                format!(
                    "\"{}={}\"",
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(value)
                )
            });
            emit(
                "out",
                "list".into(),
                format!("[{}]", found.collect::<Vec<_>>().join(",")),
                None,
            );
        }
        b"copy" => out.push(OutputRecord {
            topic: "out".into(),
            key: Some(key),
            value: Some("copied".into()),
            headers: event.headers.clone(),
            timestamp_ms: Some(event.timestamp_ms),
            partition: None,
        }),
        b"forget" => state.delete("counts", &key)?,
        b"panic" => panic!("the milk is sour"),
        b"error" => return Err("no such thing".to_owned()),
        b"undeclared" => emit("nowhere", key, "1".into(), None),
        b"nowhere" => emit("out", key, "1".into(), Some(99)),
        other => return Err(format!("unknown order {}", String::from_utf8_lossy(other))),
    }
    Ok(())
}
