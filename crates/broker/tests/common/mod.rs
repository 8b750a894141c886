//! A broker on a node in memory, moved by one thread and a seed.
#![allow(dead_code)]

pub mod model;

use bytes::Bytes;
use mainstem_broker::{
    Broker, BrokerError, BrokerSettings, Caller, FetchRequest, Isolation, NewRecord, ProduceBatch,
    ProducerIdentity,
};
use mainstem_engine::EngineOptions;
use mainstem_engine::testing::{Crash, TestNode, small_options};
use mainstem_record::{Batch, BatchBuilder, Compression, Record};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub struct TestBroker {
    pub node: TestNode,
    pub broker: Broker,
    pub caller: Caller,
    pub seed: u64,
}

pub fn settings(seed: u64) -> BrokerSettings {
    let mut rng = SmallRng::seed_from_u64(seed);
    BrokerSettings::new(Box::new(move || rng.random()))
}

impl TestBroker {
    pub fn open(seed: u64) -> TestBroker {
        TestBroker::open_with(seed, small_options())
    }

    pub fn open_with(seed: u64, options: EngineOptions) -> TestBroker {
        TestBroker::on(TestNode::open_with(seed, options).unwrap(), seed)
    }

    fn on(node: TestNode, seed: u64) -> TestBroker {
        let broker = Broker::open(node.engine.clone(), settings(seed)).unwrap();
        TestBroker {
            node,
            broker,
            caller: Caller::anonymous(),
            seed,
        }
    }

    pub fn crash(self, crash: Crash) -> TestBroker {
        drop(self.broker);
        TestBroker::on(self.node.crash(crash).unwrap(), self.seed + 1)
    }

    pub fn restart(self) -> TestBroker {
        drop(self.broker);
        TestBroker::on(self.node.restart().unwrap(), self.seed + 1)
    }

    pub fn run<F: Future>(&mut self, call: impl FnOnce(Broker, Caller) -> F) -> F::Output {
        self.node
            .driver
            .block_on(call(self.broker.clone(), self.caller.clone()))
    }

    pub fn produce_one(
        &mut self,
        topic: &str,
        partition: u32,
        batch: Batch,
    ) -> Result<mainstem_broker::Produced, BrokerError> {
        let batches = vec![ProduceBatch {
            topic: topic.into(),
            partition,
            batch,
        }];
        let mut outcomes =
            self.run(|broker, caller| async move { broker.produce(&caller, batches, 0).await })?;
        outcomes.pop().unwrap()
    }

    /// Reads a whole partition, checking that its offsets are dense.
    pub fn read_all(&self, topic: &str, partition: u32) -> Vec<Record> {
        let start = self
            .broker
            .partition_bounds(&self.caller, topic, partition)
            .unwrap()
            .log_start;
        read_from(&self.broker, &self.caller, topic, partition, start, 20_000)
    }
}

/// Reads a partition from an offset to its end, checking that offsets are dense.
pub fn read_from(
    broker: &Broker,
    caller: &Caller,
    topic: &str,
    partition: u32,
    from: i64,
    max_bytes: usize,
) -> Vec<Record> {
    let mut records = Vec::new();
    let mut offset = from;
    loop {
        let request = FetchRequest {
            topic: topic.into(),
            partition,
            offset,
            max_bytes,
            isolation: Isolation::ReadUncommitted,
        };
        let fetched = broker.fetch(caller, &request).unwrap();
        if fetched.batches.is_empty() {
            assert_eq!(offset, fetched.high_watermark);
            return records;
        }
        for record in records_of(&fetched.batches) {
            if record.offset < offset {
                continue;
            }
            assert_eq!(record.offset, offset, "offsets are dense");
            offset += 1;
            records.push(record);
        }
    }
}

pub fn records_of(pieces: &[Bytes]) -> Vec<Record> {
    let mut records = Vec::new();
    for piece in pieces {
        let mut rest = piece.clone();
        while let Some(batch) = Batch::split_first(&mut rest).unwrap() {
            records.extend(batch.records().unwrap().map(Result::unwrap));
        }
    }
    records
}

pub fn batch(values: &[&str]) -> Batch {
    build(None, values)
}

pub fn sequenced(producer: ProducerIdentity, sequence: i32, values: &[&str]) -> Batch {
    build(Some((producer, sequence)), values)
}

fn build(producer: Option<(ProducerIdentity, i32)>, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    if let Some((producer, sequence)) = producer {
        builder.producer(producer.id, producer.epoch, sequence);
    }
    for value in values {
        builder
            .append(1_000, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder.build().unwrap()
}

pub fn record(key: Option<&str>, value: &str) -> NewRecord {
    NewRecord {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..NewRecord::default()
    }
}

pub fn values(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap())
        .collect()
}
