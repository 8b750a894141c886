//! The whole producer over a network that loses requests, answers and connections: nothing lost, nothing twice, in order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;

use futures::StreamExt;
use mainstem_proto::v1::{self, partition_result};
use mainstem_record::Batch;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::tracker::Identity;
use super::transport::{Transport, Wire};
use super::*;

/// What the network and the server do, each in so many of a thousand cases.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// The connection breaks before a request is looked at.
    lose_request: u32,
    /// It breaks after that, before the answer.
    lose_answer: u32,
    /// A request on a connection that has broken is looked at all the same, later.
    late: u32,
    /// A batch is refused, and a retry may pass.
    contended: u32,
    /// Connecting fails.
    no_connection: u32,
}

#[derive(Default)]
struct Partition {
    values: Vec<String>,
    /// By producer: first and last sequence and base offset of the last five batches.
    producers: BTreeMap<i64, VecDeque<(i32, i32, i64)>>,
}

/// A server with the rules of the real one.
struct Broker {
    partitions: Mutex<BTreeMap<u32, Partition>>,
    next_id: Mutex<i64>,
    faults: Faults,
    rng: Mutex<SmallRng>,
    connections: Mutex<u32>,
}

impl Broker {
    fn new(faults: Faults, seed: u64) -> Arc<Broker> {
        Arc::new(Broker {
            partitions: Mutex::default(),
            next_id: Mutex::new(0),
            faults,
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
            connections: Mutex::new(0),
        })
    }

    fn chance(&self, per_mille: u32) -> bool {
        self.rng.lock().random_range(0..1_000) < per_mille
    }

    fn append(&self, append: &v1::PartitionBatch) -> Result<v1::Produced, (&'static str, bool)> {
        if self.chance(self.faults.contended) {
            return Err(("contended", true));
        }
        let batch = Batch::parse(append.batch.clone()).unwrap();
        let records: Vec<_> = batch
            .records()
            .unwrap()
            .map(|record| record.unwrap())
            .collect();
        let values = records
            .iter()
            .map(|record| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap());
        let values: Vec<String> = values.collect();
        if values.iter().any(|value| value.contains("poison")) {
            return Err(("record_too_large", false));
        }
        let header = batch.header();
        let mut partitions = self.partitions.lock();
        let partition = partitions.entry(append.partition).or_default();
        let recent = partition.producers.entry(header.producer_id).or_default();
        let found = recent.iter().find(|(first, last, _)| {
            (*first, *last) == (header.base_sequence, header.last_sequence())
        });
        if let Some((_, _, base_offset)) = found {
            return Ok(v1::Produced {
                base_offset: *base_offset,
                duplicate: true,
                ..v1::Produced::default()
            });
        }
        let expected = recent.back().map_or(0, |(_, last, _)| last + 1);
        if header.base_sequence != expected {
            let code = if header.base_sequence < expected {
                "duplicate_sequence"
            } else {
                "out_of_order_sequence"
            };
            return Err((code, false));
        }
        let base_offset = partition.values.len() as i64;
        partition.values.extend(values);
        recent.push_back((header.base_sequence, header.last_sequence(), base_offset));
        if recent.len() > 5 {
            recent.pop_front();
        }
        Ok(v1::Produced {
            base_offset,
            ..v1::Produced::default()
        })
    }

    fn answer(&self, request: &v1::ProduceRequest) -> v1::ProduceResponse {
        let result = |append: &v1::PartitionBatch| {
            let result = match self.append(append) {
                Ok(produced) => partition_result::Result::Produced(produced),
                Err((code, retriable)) => partition_result::Result::Error(v1::Error {
                    code: code.into(),
                    retriable,
                    ..v1::Error::default()
                }),
            };
            v1::PartitionResult {
                topic: append.topic.clone(),
                partition: append.partition,
                result: Some(result),
            }
        };
        v1::ProduceResponse {
            correlation_id: request.correlation_id,
            results: request.batches.iter().map(result).collect(),
        }
    }
}

struct Network(Arc<Broker>);

impl Transport for Network {
    async fn init_producer(&self) -> Result<Identity, ClientError> {
        let mut next_id = self.0.next_id.lock();
        *next_id += 1;
        Ok(Identity {
            id: *next_id,
            epoch: 0,
        })
    }

    async fn open(&self) -> Result<Wire, ClientError> {
        let broker = self.0.clone();
        if broker.chance(broker.faults.no_connection) {
            return Err(ClientError::Unreachable {
                server: "test".into(),
                why: "refused".into(),
            });
        }
        *broker.connections.lock() += 1;
        let (requests, mut incoming) = mpsc::channel::<v1::ProduceRequest>(6);
        let (outgoing, answers) = mpsc::channel(6);
        tokio::spawn(async move {
            let mut broken = false;
            while let Some(request) = incoming.recv().await {
                let lose_request = broken || broker.chance(broker.faults.lose_request);
                if lose_request {
                    broken = true;
                    incoming.close();
                    if broker.chance(broker.faults.late) {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        broker.answer(&request);
                    }
                    continue;
                }
                tokio::task::yield_now().await;
                let answer = broker.answer(&request);
                if broker.chance(broker.faults.lose_answer) {
                    return;
                }
                if outgoing.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Wire {
            requests,
            answers: ReceiverStream::new(answers).boxed(),
        })
    }
}

const PARTITIONS: u32 = 7;

/// Produces over a bad network and compares what was acknowledged with what is stored. Returns how many connections it
/// took.
async fn run(faults: Faults, seed: u64, poison: bool) -> u32 {
    let broker = Broker::new(faults, seed);
    let options = ProducerOptions {
        max_batch_bytes: 400,
        buffer_bytes: 5_000,
        ..ProducerOptions::default()
    };
    let producer = Producer::on(Network(broker.clone()), options, None);
    producer.know(&"t".into(), PARTITIONS);
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut sent = Vec::new();
    for number in 0..3_000 {
        let is_poison = poison && rng.random_range(0..200) == 0;
        let value = if is_poison {
            format!("poison {number}")
        } else {
            format!("{number}")
        };
        let mut record = ProducerRecord::new("t").value(value.clone());
        if rng.random_bool(0.5) {
            record = record.key(format!("{}", rng.random_range(0..50)));
        }
        sent.push((value, producer.send(record).await.unwrap()));
        if rng.random_range(0..20) == 0 {
            tokio::task::yield_now().await;
        }
    }
    let flushed = tokio::time::timeout(Duration::from_secs(60), producer.flush())
        .await
        .expect("it hangs");
    assert_eq!(flushed.is_ok(), !poison);
    assert_eq!(producer.buffered_bytes(), 0);

    let partitions = broker.partitions.lock();
    let mut acknowledged: BTreeMap<u32, Vec<(i64, String)>> = BTreeMap::new();
    for (value, delivery) in sent {
        match delivery.result().expect("flushed without an outcome") {
            Ok(delivered) => {
                acknowledged
                    .entry(delivered.partition)
                    .or_default()
                    .push((delivered.offset, value));
            }
            Err(error) => assert_eq!(error.code(), "record_too_large", "seed {seed}: {error}"),
        }
    }
    for (partition, stored) in partitions.iter() {
        let stored: Vec<(i64, String)> = (0..).zip(stored.values.iter().cloned()).collect();
        assert_eq!(
            Some(&stored),
            acknowledged.get(partition),
            "seed {seed}, partition {partition}"
        );
    }
    assert_eq!(partitions.len(), acknowledged.len());
    *broker.connections.lock()
}

#[tokio::test]
async fn a_good_network() {
    assert_eq!(run(Faults::default(), 1, false).await, 1);
}

#[tokio::test]
async fn lost_answers_requests_and_late_copies() {
    let faults = Faults {
        lose_request: 30,
        lose_answer: 30,
        late: 500,
        contended: 10,
        no_connection: 100,
    };
    let runs = (0..24).map(|seed| run(faults, seed, false));
    let connections: u32 = futures::future::join_all(runs).await.into_iter().sum();
    assert!(
        connections > 100,
        "{connections} connections in 24 runs: too few were lost"
    );
}

#[tokio::test]
async fn refusals_for_good_between_lost_answers() {
    let faults = Faults {
        lose_request: 20,
        lose_answer: 20,
        late: 0,
        contended: 20,
        no_connection: 50,
    };
    let runs = (100..124).map(|seed| run(faults, seed, true));
    let connections: u32 = futures::future::join_all(runs).await.into_iter().sum();
    assert!(
        connections > 100,
        "{connections} connections in 24 runs: too few were lost"
    );
}

#[tokio::test]
async fn a_full_buffer_makes_send_wait_and_an_unreachable_server_fails_what_waits() {
    let broker = Broker::new(
        Faults {
            no_connection: 1_000,
            ..Faults::default()
        },
        1,
    );
    let options = ProducerOptions {
        buffer_bytes: 4 * (RECORD_OVERHEAD_BYTES + 100),
        delivery_timeout: Duration::from_millis(300),
        ..ProducerOptions::default()
    };
    let producer = Producer::on(Network(broker), options, None);
    producer.know(&"t".into(), 1);
    let record = ProducerRecord::new("t").value(vec![0; 100]);
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(producer.send(record.clone()).await.unwrap());
    }
    let mut fifth = Box::pin(producer.send(record.clone()));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), fifth.as_mut())
            .await
            .is_err(),
        "there was no room"
    );
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap_err().code(), "not_sent");
    }
    let fifth = fifth.as_mut().await.unwrap();
    assert_eq!(producer.flush().await.unwrap_err().code(), "not_sent");
    assert_eq!(fifth.await.unwrap_err().code(), "not_sent");
    let too_large = ProducerRecord::new("t").value(vec![0; 1_000]);
    assert_eq!(
        producer.send(too_large).await.unwrap_err().code(),
        "record_too_large"
    );
    assert_eq!(
        producer
            .send(record.clone().partition(9))
            .await
            .unwrap_err()
            .code(),
        "partition_not_found"
    );
    producer.flush().await.unwrap();
}
