//! What the broker adds to the engine below it: batches that a client has built are produced, and fetched one at a time
//! from the tail, through the broker and through the engine directly, to the same partitions and in turns.
//!
//! Of producing, the processor time is the whole process's, commits included; of fetching, it is this thread's.
//!
//! `cargo bench -p mainstem-broker` prints the table and leaves `target/bench/broker.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../engine/benches/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::{
    Node, RECORD_BYTES, Row, batch, concurrently, cpu_seconds, out_dir, report, runtime,
    thread_cpu_seconds,
};
use mainstem_broker::{
    Broker, BrokerSettings, Caller, FetchRequest, Isolation, NewTopic, PartitionId, ProduceBatch,
};
use mainstem_engine::{Append, Engine, EngineOptions, Submission};
use mainstem_record::Batch;
use tokio::runtime::Runtime;

/// 64 KiB of records.
const BATCH_RECORDS: usize = 64;
/// Batches in one call: 2 MiB.
const CALL_BATCHES: usize = 32;
const CALLERS: usize = 16;
/// Calls of each caller in a round: 128 MiB by all together.
const CALLS: usize = 4;
const ROUND_RECORDS: usize = CALLERS * CALLS * CALL_BATCHES * BATCH_RECORDS;
const ROUNDS: usize = 4;
/// The time is given from outside, and nothing here depends on it.
const NOW_MS: i64 = 1_700_000_000_000;
/// What stands in the tail when it is read, in calls of one caller: 64 MiB.
const TAIL_CALLS: usize = 32;
/// One reading of the tail is over too soon to be measured.
const PASSES: usize = 200;

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let mut rows = Vec::new();
    for (partitions, name) in [(1, "1 partition"), (100, "100 partitions")] {
        let bench = Bench::new(dir.path(), partitions);
        // Fetching first: it reads what the tail holds.
        let fetch = bench.fetch();
        rows.extend(bench.produce(name));
        rows.push(
            Row::new(
                format!("processor time of a tail fetch, {name} (limit: the log)"),
                "us/record",
                fetch.0,
            )
            .limit(fetch.1),
        );
    }
    report("broker", "broker", &rows);
}

struct Bench {
    // Before the node, whose directory goes with it.
    broker: Broker,
    node: Node,
    runtime: Runtime,
    topic: Arc<str>,
    partitions: Arc<[PartitionId]>,
    batch: Batch,
}

/// What producing took.
#[derive(Default)]
struct Spent {
    seconds: f64,
    cpu_seconds: f64,
}

impl Spent {
    fn add(&mut self, work: impl FnOnce()) {
        let (begun, before) = (Instant::now(), cpu_seconds());
        work();
        self.seconds += begun.elapsed().as_secs_f64();
        self.cpu_seconds += cpu_seconds() - before;
    }

    fn bytes_per_second(&self) -> f64 {
        (ROUNDS * ROUND_RECORDS * RECORD_BYTES) as f64 / self.seconds
    }

    fn cpu_us_per_record(&self) -> f64 {
        self.cpu_seconds * 1e6 / (ROUNDS * ROUND_RECORDS) as f64
    }
}

impl Bench {
    fn new(dir: &Path, partitions: u32) -> Bench {
        let node = Node::open(dir, EngineOptions::default());
        let broker = Broker::open(node.engine.clone(), BrokerSettings::default()).unwrap();
        let runtime = runtime();
        let caller = Caller::anonymous();
        let new = NewTopic::named("bench").partitions(partitions);
        runtime
            .block_on(broker.create_topic(&caller, new, NOW_MS))
            .unwrap();
        let topic = broker.topic(&caller, "bench").unwrap();
        Bench {
            node,
            runtime,
            topic: topic.name.clone(),
            partitions: topic.partition_ids().collect(),
            batch: batch(BATCH_RECORDS, RECORD_BYTES),
            broker,
        }
    }

    /// Producing through the broker against the same through the engine: the rate and the processor time.
    fn produce(&self, name: &str) -> [Row; 2] {
        // The first round makes files.
        self.through_the_broker();
        self.through_the_engine();
        let (mut broker, mut engine) = (Spent::default(), Spent::default());
        for _ in 0..ROUNDS {
            broker.add(|| self.through_the_broker());
            engine.add(|| self.through_the_engine());
        }
        [
            Row::new(
                format!("produce, {name} (limit: the engine)"),
                "bytes/s",
                broker.bytes_per_second(),
            )
            .limit(engine.bytes_per_second()),
            Row::new(
                format!("processor time of produce, {name} (limit: the engine)"),
                "us/record",
                broker.cpu_us_per_record(),
            )
            .limit(engine.cpu_us_per_record()),
        ]
    }

    fn through_the_broker(&self) {
        let count = self.partitions.len();
        concurrently(&self.runtime, CALLERS, |caller| {
            let (broker, topic, batch) =
                (self.broker.clone(), self.topic.clone(), self.batch.clone());
            async move {
                for call in 0..CALLS {
                    let call = call_of(caller * CALLS + call, count, &topic, &batch);
                    produce(&broker, call).await;
                }
            }
        });
    }

    fn through_the_engine(&self) {
        concurrently(&self.runtime, CALLERS, |caller| {
            let (engine, partitions, batch) = (
                self.node.engine.clone(),
                Arc::clone(&self.partitions),
                self.batch.clone(),
            );
            async move {
                for call in 0..CALLS {
                    submit(&engine, caller * CALLS + call, &partitions, &batch).await;
                }
            }
        });
    }

    /// Processor time of a record, through the broker and from the log.
    fn fetch(&self) -> (f64, f64) {
        self.runtime.block_on(async {
            for call in 0..TAIL_CALLS {
                let call = call_of(call, self.partitions.len(), &self.topic, &self.batch);
                produce(&self.broker, call).await;
            }
        });
        let caller = Caller::anonymous();
        let by_broker = |partition: usize, offset: i64| {
            let request = FetchRequest {
                topic: self.topic.clone(),
                partition: partition as u32,
                offset,
                max_bytes: self.batch.bytes().len(),
                isolation: Isolation::ReadUncommitted,
            };
            let fetched = self.broker.fetch(&caller, &request).unwrap();
            (fetched.batches, fetched.next_offset)
        };
        let log = self.node.engine.log();
        let by_log = |partition: usize, offset: i64| {
            let max_bytes = self.batch.bytes().len();
            let read = log.read(self.partitions[partition], offset, max_bytes, None);
            let read = read.unwrap();
            (read.batches, read.next_offset)
        };
        let (mut broker, mut log) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            broker += self.read(by_broker);
            log += self.read(by_log);
        }
        let records = (ROUNDS * PASSES * TAIL_CALLS * CALL_BATCHES * BATCH_RECORDS) as f64;
        (broker * 1e6 / records, log * 1e6 / records)
    }

    /// Reads the tail again and again, a batch of each partition in turn; what this thread spent.
    fn read(&self, fetch: impl Fn(usize, i64) -> (Vec<Bytes>, i64)) -> f64 {
        let before = thread_cpu_seconds();
        for _ in 0..PASSES {
            let mut offsets = vec![0; self.partitions.len()];
            let mut bytes = 0;
            while bytes < TAIL_CALLS * CALL_BATCHES * self.batch.bytes().len() {
                for (partition, offset) in offsets.iter_mut().enumerate() {
                    let (read, next_offset) = fetch(partition, *offset);
                    bytes += read.iter().map(Bytes::len).sum::<usize>();
                    *offset = next_offset;
                }
            }
        }
        thread_cpu_seconds() - before
    }
}

/// Each call goes on where the one before ended, so that all partitions get as much.
fn call_of(number: usize, partitions: usize, topic: &Arc<str>, batch: &Batch) -> Vec<ProduceBatch> {
    (number * CALL_BATCHES..(number + 1) * CALL_BATCHES)
        .map(|index| ProduceBatch {
            topic: topic.clone(),
            partition: (index % partitions) as u32,
            batch: batch.clone(),
        })
        .collect()
}

async fn produce(broker: &Broker, call: Vec<ProduceBatch>) {
    let produced = broker.produce(&Caller::anonymous(), call, NOW_MS).await;
    assert!(produced.unwrap().iter().all(Result::is_ok));
}

async fn submit(engine: &Engine, number: usize, partitions: &[PartitionId], batch: &Batch) {
    let append = |index: usize| Append {
        partition: partitions[index % partitions.len()],
        batch: batch.clone(),
    };
    let submission = Submission {
        appends: (number * CALL_BATCHES..(number + 1) * CALL_BATCHES)
            .map(append)
            .collect(),
        ..Submission::default()
    };
    let committed = engine.submit_in_turn(submission).await.unwrap();
    assert!(committed.appends.iter().all(Result::is_ok));
}
