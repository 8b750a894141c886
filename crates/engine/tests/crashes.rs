//! The engine under crashes: a seed decides the workload, the order in which workers move, and when
//! the node goes down and how. A model checks what must be true afterwards.
//!
//! A failing seed is printed; `MAINSTEM_SEED=n cargo test --release -p mainstem-engine --test crashes` runs it alone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstem_engine::testing::{Crash, TestNode, poll_once};
use mainstem_engine::{
    Append, Check, Committed, CompactionPolicy, CompactionRequest, EngineError, Submission, Ticket,
};
use mainstem_log::{LogOp, PartitionId, SegmentLimits, TopicId};
use mainstem_record::{Batch, BatchBuilder, Compression};
use mainstem_store::{Family, StoreOp, StoreSnapshot};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const PARTITIONS: u32 = 5;
const PRODUCERS: i64 = 3;

fn partition(index: u32) -> PartitionId {
    PartitionId {
        topic: TopicId(7),
        index,
    }
}

/// A partition that is compacted: records have one of a few keys.
fn keyed() -> PartitionId {
    PartitionId {
        topic: TopicId(8),
        index: 0,
    }
}

const KEYS: u64 = 6;

fn batch(producer: Option<(i64, i32)>, values: &[String]) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    if let Some((id, sequence)) = producer {
        builder.producer(id, 0, sequence);
    }
    for value in values {
        builder
            .append(1, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder.build().unwrap()
}

/// What one producer has sent to one partition, batch by batch.
#[derive(Default)]
struct Sent {
    next_sequence: i32,
    /// The batch not yet acknowledged: retried until it is.
    open: Option<(i32, Vec<String>)>,
}

struct Waiting {
    ticket: std::pin::Pin<Box<Ticket<Committed>>>,
    what: What,
}

enum What {
    Produce {
        producer: i64,
        partition: u32,
        values: Vec<String>,
    },
    Step {
        count: u64,
    },
    Keyed {
        records: Vec<(String, String)>,
    },
}

/// A run of one seed. A step adds 1 to a counter in the store and appends the counter's new value to
/// the last partition, in one frame: the two must always agree.
struct Run {
    node: Option<TestNode>,
    rng: SmallRng,
    sent: BTreeMap<(i64, u32), Sent>,
    /// Values acknowledged, by partition, with the offset of the acknowledgement.
    acknowledged: BTreeMap<(u32, i64), String>,
    /// What a reader has seen, by partition: offset i holds value i.
    seen: BTreeMap<u32, Vec<String>>,
    waiting: Vec<Waiting>,
    steps_acknowledged: u64,
    next_step: u64,
    epoch: u64,
    next_value: u64,
    /// What was seen or acknowledged in the compacted partition, by offset: key and value.
    keyed: BTreeMap<i64, (String, String)>,
    /// Reads of it that found something gone.
    compacted: u32,
    crashes: u32,
    replayed: u64,
}

const STEPS: u32 = PARTITIONS - 1;

impl Run {
    fn new(seed: u64) -> Run {
        let mut node = TestNode::open(seed).unwrap();
        let create = Submission {
            log_ops: (0..PARTITIONS)
                .map(|index| {
                    (
                        index as u16,
                        LogOp::CreatePartition {
                            partition: partition(index),
                        },
                    )
                })
                .chain([(9, LogOp::CreatePartition { partition: keyed() })])
                .collect(),
            ..Submission::default()
        };
        small_segments(&node);
        let permit = node.engine.reserve(0).wait().unwrap();
        let created = node.engine.submit(create, permit);
        node.driver.block_on(created).unwrap();
        Run {
            node: Some(node),
            rng: SmallRng::seed_from_u64(seed ^ 0x5eed),
            sent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            waiting: Vec::new(),
            steps_acknowledged: 0,
            next_step: 1,
            epoch: 1,
            next_value: 0,
            keyed: BTreeMap::new(),
            compacted: 0,
            crashes: 0,
            replayed: 0,
        }
    }

    fn node(&mut self) -> &mut TestNode {
        self.node.as_mut().unwrap()
    }

    fn submit(&mut self, submission: Submission, what: What) {
        let node = self.node.as_mut().unwrap();
        let reserved = node
            .engine
            .reserve_with_store(submission.size_bytes(), submission.store_bytes());
        let permit = node.driver.block_on(reserved).unwrap();
        let ticket = Box::pin(node.engine.submit(submission, permit));
        self.waiting.push(Waiting { ticket, what });
    }

    fn produce(&mut self) {
        let producer = self.rng.random_range(0..PRODUCERS);
        let index = self.rng.random_range(0..STEPS);
        let count = self.rng.random_range(1..20);
        let size = if self.rng.random_bool(0.05) {
            3_000
        } else {
            40
        };
        let sent = self.sent.entry((producer, index)).or_default();
        let (sequence, values) = match &sent.open {
            Some(open) => open.clone(),
            None => {
                let values: Vec<String> = (0..count)
                    .map(|_| {
                        self.next_value += 1;
                        format!("{:0size$}", self.next_value)
                    })
                    .collect();
                let open = (sent.next_sequence, values);
                sent.next_sequence += count;
                sent.open = Some(open.clone());
                open
            }
        };
        let append = Append {
            partition: partition(index),
            batch: batch(Some((producer, sequence)), &values),
        };
        let submission = Submission {
            appends: vec![append],
            ..Submission::default()
        };
        self.submit(
            submission,
            What::Produce {
                producer,
                partition: index,
                values,
            },
        );
    }

    /// Pipelined: the next step is sent before the one before it is durable.
    fn step(&mut self) {
        let count = self.next_step;
        self.next_step += 1;
        let output = batch(None, &[count.to_string()]);
        let submission = Submission {
            appends: vec![Append {
                partition: partition(STEPS),
                batch: output,
            }],
            store_ops: vec![StoreOp::put(
                Family::State,
                counter_key(),
                count.to_string().into_bytes(),
            )],
            checks: vec![Check::Fence {
                owner: Bytes::from_static(b"steps"),
                epoch: self.epoch,
            }],
            all_or_nothing: true,
            ..Submission::default()
        };
        self.submit(submission, What::Step { count });
    }

    /// Records with keys, not repeated: where the answer is lost they may be there or not.
    fn produce_keyed(&mut self) {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        let mut records = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            self.next_value += 1;
            let key = format!("k{}", self.rng.random_range(0..KEYS));
            let value = format!("{:060}", self.next_value);
            let (one, two) = (Some(key.as_bytes()), Some(value.as_bytes()));
            builder.append(1, one, two, &[]).unwrap();
            records.push((key, value));
        }
        let submission = Submission {
            appends: vec![Append {
                partition: keyed(),
                batch: builder.build().unwrap(),
            }],
            ..Submission::default()
        };
        self.submit(submission, What::Keyed { records });
    }

    fn compact(&mut self) {
        let request = CompactionRequest {
            partition: keyed(),
            shard: 9,
            policy: CompactionPolicy {
                now_ms: 1,
                min_lag_ms: 0,
                delete_retention_ms: 0,
            },
        };
        self.node().engine.compact(request);
    }

    /// The newest record of each key that was acknowledged or seen is there, or a newer one; and no offset names another
    /// record than before.
    fn check_keyed(&mut self) {
        let log = self.node().engine.log().clone();
        let bounds = log.bounds(keyed()).unwrap();
        let (mut next, mut found) = (0, 0);
        let mut newest: BTreeMap<String, i64> = BTreeMap::new();
        while next < bounds.high_watermark {
            for mut bytes in log.read(keyed(), next, 16 << 10, None).unwrap().batches {
                while let Some(batch) = Batch::split_first(&mut bytes).unwrap() {
                    assert_eq!(batch.base_offset(), next, "batches have no gaps");
                    next = batch.next_offset();
                    for record in batch.records().unwrap().map(Result::unwrap) {
                        let text = |bytes: Option<Bytes>| {
                            String::from_utf8(bytes.unwrap().to_vec()).unwrap()
                        };
                        let now = (text(record.key), text(record.value));
                        newest.insert(now.0.clone(), record.offset);
                        let before = self
                            .keyed
                            .entry(record.offset)
                            .or_insert_with(|| now.clone());
                        assert_eq!(*before, now, "an offset names another record");
                        found += 1;
                    }
                }
            }
        }
        for (offset, (key, _)) in &self.keyed {
            assert!(
                newest.get(key).is_some_and(|newest| newest >= offset),
                "{key} at {offset} is lost"
            );
        }
        self.compacted += u32::from(found < bounds.high_watermark);
    }

    fn collect(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() {
            let std::task::Poll::Ready(outcome) = poll_once(self.waiting[index].ticket.as_mut())
            else {
                index += 1;
                continue;
            };
            let what = self.waiting.remove(index).what;
            match outcome {
                Ok(committed) => self.acknowledge(what, &committed),
                Err(EngineError::Poisoned { .. } | EngineError::Closed) => {}
                Err(other) => panic!("unexpected refusal: {other}"),
            }
        }
    }

    fn acknowledge(&mut self, what: What, committed: &Committed) {
        let appended = committed.appends[0].clone().unwrap();
        match what {
            What::Produce {
                producer,
                partition,
                values,
            } => {
                for (offset, value) in (appended.base_offset..).zip(&values) {
                    let before = self.acknowledged.insert((partition, offset), value.clone());
                    assert!(
                        before.is_none_or(|before| before == *value),
                        "an offset was acknowledged for two records"
                    );
                }
                let sent = self.sent.get_mut(&(producer, partition)).unwrap();
                if sent.open.as_ref().is_some_and(|open| open.1 == values) {
                    sent.open = None;
                }
            }
            What::Keyed { records } => {
                for (offset, record) in (appended.base_offset..).zip(records) {
                    let before = self.keyed.insert(offset, record.clone());
                    assert!(before.is_none_or(|before| before == record));
                }
            }
            What::Step { count } => {
                assert_eq!(
                    appended.base_offset as u64 + 1,
                    count,
                    "a step's output is not at its place"
                );
                self.steps_acknowledged = self.steps_acknowledged.max(count);
            }
        }
    }

    fn read_all(&mut self, index: u32) -> Vec<String> {
        let log = self.node().engine.log().clone();
        let bounds = log.bounds(partition(index)).unwrap();
        let mut values = Vec::new();
        while (values.len() as i64) < bounds.high_watermark {
            let read = log
                .read(partition(index), values.len() as i64, 64 << 10, None)
                .unwrap();
            for bytes in read.batches {
                let mut rest = bytes;
                while let Some(batch) = Batch::split_first(&mut rest).unwrap() {
                    assert_eq!(
                        batch.base_offset(),
                        values.len() as i64,
                        "offsets are dense"
                    );
                    for record in batch.records().unwrap() {
                        values.push(
                            String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap(),
                        );
                    }
                }
            }
        }
        values
    }

    /// What a reader sees now must continue what it has seen before.
    fn read(&mut self) {
        for index in 0..PARTITIONS {
            let now = self.read_all(index);
            let before = self.seen.entry(index).or_default();
            assert!(
                now.len() >= before.len(),
                "partition {index}: a reader saw a record that vanished"
            );
            assert_eq!(
                now[..before.len()],
                before[..],
                "partition {index}: an offset names another record"
            );
            *before = now;
        }
    }

    fn counter(&mut self) -> u64 {
        let store = self.node().engine.store().clone();
        let value = StoreSnapshot::get(&*store, Family::State, &counter_key()).unwrap();
        value.map_or(0, |value| {
            String::from_utf8(value.to_vec()).unwrap().parse().unwrap()
        })
    }

    fn check(&mut self) {
        self.read();
        self.check_keyed();
        for ((index, offset), value) in &self.acknowledged {
            assert_eq!(
                self.seen[index].get(*offset as usize),
                Some(value),
                "an acknowledged record is lost"
            );
        }
        for index in 0..STEPS {
            let mut values = self.seen[&index].clone();
            values.sort();
            values.dedup();
            assert_eq!(
                values.len(),
                self.seen[&index].len(),
                "partition {index}: a retry was appended twice"
            );
        }
        let steps = self.seen[&STEPS].len() as u64;
        let in_order: Vec<String> = (1..=steps).map(|count| count.to_string()).collect();
        assert_eq!(
            self.seen[&STEPS], in_order,
            "steps are there once and in order"
        );
        assert!(
            steps >= self.steps_acknowledged,
            "an acknowledged step is lost"
        );
        // Once everything is applied, output and state agree.
        self.node().driver.settle();
        self.collect();
        let outputs = self
            .node()
            .engine
            .log()
            .bounds(partition(STEPS))
            .unwrap()
            .high_watermark as u64;
        assert_eq!(
            self.counter(),
            outputs,
            "a step's state and its output disagree"
        );
    }

    fn snapshot(&mut self) {
        let node = self.node.as_mut().unwrap();
        let ticket = node.engine.snapshot();
        let snapshot = node.driver.block_on(ticket).unwrap();
        let outputs = snapshot
            .log
            .bounds(partition(STEPS))
            .unwrap()
            .high_watermark as u64;
        let value = snapshot.store.get(Family::State, &counter_key()).unwrap();
        let counter = value.map_or(0, |value| {
            String::from_utf8(value.to_vec()).unwrap().parse().unwrap()
        });
        assert_eq!(
            outputs, counter,
            "a snapshot shows log and store at two moments"
        );
    }

    fn come_back(&mut self, node: TestNode) {
        self.replayed += node.recovery.replayed_frames;
        self.waiting.clear();
        small_segments(&node);
        self.node = Some(node);
        self.check();
        self.epoch += 1;
        self.next_step = self.counter() + 1;
    }

    fn crash(&mut self) {
        self.crashes += 1;
        let crash = if self.rng.random_bool(0.5) {
            Crash::Process
        } else {
            Crash::Power
        };
        let node = self.node.take().unwrap();
        let node = node.crash(crash).unwrap();
        self.come_back(node);
    }

    fn run(mut self, operations: u32) -> (u32, u64, u32) {
        for _ in 0..operations {
            match self.rng.random_range(0..100) {
                0..30 => self.produce(),
                30..40 => self.produce_keyed(),
                40..57 => self.step(),
                57..60 => self.compact(),
                60..88 => {
                    let steps = self.rng.random_range(1..8);
                    (0..steps).for_each(|_| {
                        self.node().driver.step();
                    });
                    self.collect();
                }
                88..92 => self.read(),
                92..94 => self.node().driver.tick(),
                94..96 => self.snapshot(),
                96..98 => self.crash(),
                98 => {
                    let node = self.node.take().unwrap().restart().unwrap();
                    self.come_back(node);
                }
                _ => self.check(),
            }
        }
        self.crash();
        (self.crashes, self.replayed, self.compacted)
    }
}

/// A wish, so not kept over a restart.
fn small_segments(node: &TestNode) {
    let limits = SegmentLimits {
        segment_bytes: Some(2_000),
        segment_ms: None,
    };
    node.engine.log().set_segment_limits(keyed().topic, limits);
}

fn counter_key() -> Bytes {
    Bytes::from_static(b"\x00\x04counter")
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_taken_back() {
    let named = std::env::var("MAINSTEM_SEED")
        .ok()
        .map(|seed| seed.parse::<u64>().expect("MAINSTEM_SEED is a number"));
    let seeds = match named {
        Some(seed) => vec![seed],
        None => (0..60).collect(),
    };
    let (mut crashes, mut replayed, mut compacted) = (0, 0, 0);
    for seed in seeds {
        let guard = PrintSeed(seed);
        let (seed_crashes, seed_replayed, seed_compacted) = Run::new(seed).run(600);
        std::mem::forget(guard);
        crashes += seed_crashes;
        replayed += seed_replayed;
        compacted += seed_compacted;
    }
    assert!(
        replayed > 0,
        "no crash left anything to replay: the test shows nothing"
    );
    assert!(
        compacted > 0 || std::env::var("MAINSTEM_SEED").is_ok(),
        "nothing was compacted"
    );
    println!(
        "{crashes} crashes, {replayed} frames replayed, {compacted} reads of a compacted partition"
    );
}

/// Says how to run a failing seed again.
struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        eprintln!(
            "replay with: MAINSTEM_SEED={} cargo test --release -p mainstem-engine --test crashes",
            self.0
        );
    }
}
