//! The producer: `send` puts a record into its partition's batch, a task of its own sends the batches.

mod delivery;
mod gather;
mod partitioner;
mod sender;
mod tracker;
mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mainstem_proto::MAX_MESSAGE_BYTES;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

pub use self::delivery::{Delivered, Delivery};
use self::gather::{Lane, Limits};
use self::partitioner::Partitioner;
use self::sender::{Sender, Shared};
use self::transport::{Grpc, Transport};
use crate::client::millis;
use crate::{Client, ClientError, ProducerOptions};

/// How long the number of a topic's partitions is taken for granted.
const TOPIC_AGE: Duration = Duration::from_secs(60);
/// What a request needs beside its batches, generously.
const REQUEST_OVERHEAD_BYTES: usize = 64 << 10;
/// What a record counts beside its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// A record to be produced.
#[derive(Clone, Debug, Default)]
pub struct ProducerRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition; without one the key decides, and without a key the producer.
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; without one the record is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970, UTC; without one it is the time of `send`.
    pub timestamp_ms: Option<i64>,
}

impl ProducerRecord {
    /// A record without key and value.
    pub fn new(topic: impl Into<Arc<str>>) -> ProducerRecord {
        ProducerRecord {
            topic: topic.into(),
            ..ProducerRecord::default()
        }
    }

    /// With this key.
    pub fn key(self, key: impl Into<Bytes>) -> ProducerRecord {
        ProducerRecord {
            key: Some(key.into()),
            ..self
        }
    }

    /// With this value.
    pub fn value(self, value: impl Into<Bytes>) -> ProducerRecord {
        ProducerRecord {
            value: Some(value.into()),
            ..self
        }
    }

    /// To this partition.
    pub fn partition(self, partition: u32) -> ProducerRecord {
        ProducerRecord {
            partition: Some(partition),
            ..self
        }
    }

    /// With one header more.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> ProducerRecord {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// With this time, in milliseconds since 1970, UTC.
    pub fn timestamp_ms(self, timestamp_ms: i64) -> ProducerRecord {
        ProducerRecord {
            timestamp_ms: Some(timestamp_ms),
            ..self
        }
    }

    fn buffered_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value) + 8);
        RECORD_OVERHEAD_BYTES + length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

/// What a producer knows of a topic.
struct Topic {
    number: u32,
    partitions: u32,
    partitioner: Partitioner,
    asked: Instant,
}

/// Writes records: batched, in order within a partition, each once. Cheap to clone; when the last clone is dropped, what
/// was not sent fails.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

struct Handle {
    client: Option<Client>,
    shared: Arc<Shared>,
    limits: Limits,
    buffer_bytes: usize,
    topics: Mutex<BTreeMap<Arc<str>, Topic>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("limits", &self.handle.limits)
            .finish_non_exhaustive()
    }
}

impl Producer {
    pub(crate) async fn start(
        client: Client,
        options: ProducerOptions,
    ) -> Result<Producer, ClientError> {
        let transport = Grpc::new(client.clone());
        // At once, so that a wrong tenant or a closed door shows here and not with the first record.
        let identity = transport.init_producer().await?;
        let mut producer = Producer::on(transport, options, Some(identity));
        if let Some(handle) = Arc::get_mut(&mut producer.handle) {
            handle.client = Some(client);
        }
        Ok(producer)
    }

    /// A producer over any transport.
    fn on(
        transport: impl Transport,
        options: ProducerOptions,
        identity: Option<tracker::Identity>,
    ) -> Producer {
        let limits = Limits {
            compression: options.compression,
            max_batch_bytes: options
                .max_batch_bytes
                .clamp(1, MAX_MESSAGE_BYTES - REQUEST_OVERHEAD_BYTES),
            max_record_bytes: MAX_MESSAGE_BYTES - REQUEST_OVERHEAD_BYTES,
            max_request_bytes: options
                .max_request_bytes
                .min(MAX_MESSAGE_BYTES - REQUEST_OVERHEAD_BYTES),
            linger_ms: millis(options.linger),
            delivery_timeout_ms: millis(options.delivery_timeout),
        };
        let shared = Arc::new(Shared::new(limits, options.buffer_bytes));
        let sender = Sender::new(
            shared.clone(),
            transport,
            limits,
            options.max_in_flight,
            identity,
        );
        Producer {
            handle: Arc::new(Handle {
                client: None,
                shared,
                limits,
                buffer_bytes: options.buffer_bytes,
                topics: Mutex::default(),
                task: Mutex::new(Some(tokio::spawn(sender.run()))),
            }),
        }
    }

    /// Takes a record for sending; waits while `buffer_bytes` are not acknowledged. The future that it returns tells when
    /// the record is durable, and where it is.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ClientError> {
        let Handle {
            shared,
            limits,
            buffer_bytes,
            ..
        } = &*self.handle;
        let bytes = record.buffered_bytes();
        let limit_bytes = limits.max_record_bytes.min(*buffer_bytes);
        let permits = match u32::try_from(bytes) {
            Ok(permits) if bytes <= limit_bytes => permits,
            _ => {
                return Err(ClientError::RecordTooLarge {
                    record_bytes: bytes,
                    limit_bytes,
                });
            }
        };
        let lane = match self.place(&record, bytes)? {
            Some(lane) => lane,
            None => {
                self.learn(&record.topic).await?;
                self.place(&record, bytes)?.ok_or(ClientError::Closed)?
            }
        };
        let room = shared
            .room
            .acquire_many(permits)
            .await
            .map_err(|_| ClientError::Closed)?;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_clock_ms);
        let (delivery, wake) =
            shared
                .gather
                .lock()
                .append(lane, &record, timestamp_ms, bytes, shared.now_ms())?;
        // Given back when the record has its outcome.
        room.forget();
        if wake {
            shared.wake.notify_one();
        }
        Ok(delivery)
    }

    /// Sends a record and waits until it is durable.
    pub async fn send_and_wait(&self, record: ProducerRecord) -> Result<Delivered, ClientError> {
        self.send(record).await?.await
    }

    /// Waits until every record taken so far has its outcome. Fails with the first failure since the last flush.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let shared = &self.handle.shared;
        let epoch = shared.gather.lock().flush();
        shared.wake.notify_one();
        loop {
            let settled = shared.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if shared.gather.lock().is_flushed(epoch) {
                break;
            }
            settled.await;
        }
        shared.first_error.lock().take().map_or(Ok(()), Err)
    }

    /// Flushes and ends the producer; later records are refused.
    pub async fn close(self) -> Result<(), ClientError> {
        let flushed = self.flush().await;
        self.handle.shared.close();
        let task = self.handle.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
        flushed
    }

    /// Why records wait at this moment, if the server or the way to it is in trouble: they are sent again until
    /// `delivery_timeout`.
    pub fn trouble(&self) -> Option<Arc<ClientError>> {
        self.handle.shared.trouble.lock().clone()
    }

    /// Bytes of records that are not acknowledged.
    pub fn buffered_bytes(&self) -> usize {
        self.handle
            .buffer_bytes
            .saturating_sub(self.handle.shared.room.available_permits())
    }

    /// Where a record goes; `None` while its topic is not known.
    fn place(&self, record: &ProducerRecord, bytes: usize) -> Result<Option<Lane>, ClientError> {
        let mut topics = self.handle.topics.lock();
        let Some(topic) = topics.get_mut(&record.topic) else {
            return Ok(None);
        };
        if topic.asked.elapsed() > TOPIC_AGE {
            topic.asked = Instant::now();
            let (producer, name) = (self.clone(), record.topic.clone());
            // Partitions may have been added. Nobody waits for this: what is known holds until then.
            tokio::spawn(async move { producer.learn(&name).await });
        }
        let partition = match record.partition {
            Some(partition) if partition >= topic.partitions => {
                let (topic, partitions) = (record.topic.clone(), topic.partitions);
                return Err(ClientError::NoSuchPartition {
                    topic,
                    partition,
                    partitions,
                });
            }
            Some(partition) => partition,
            None => topic
                .partitioner
                .partition(record.key.as_deref(), bytes, topic.partitions),
        };
        Ok(Some(Lane {
            topic: topic.number,
            partition,
        }))
    }

    /// Asks the server for a topic.
    async fn learn(&self, name: &Arc<str>) -> Result<(), ClientError> {
        let client = self.handle.client.as_ref().ok_or(ClientError::Closed)?;
        let partitions = client.describe_topic(name).await?.partition_count;
        self.know(name, partitions);
        Ok(())
    }

    fn know(&self, name: &Arc<str>, partitions: u32) {
        let mut topics = self.handle.topics.lock();
        match topics.get_mut(name) {
            Some(topic) => topic.partitions = partitions,
            None => {
                let number = self.handle.shared.number_topic(name);
                let partitioner = Partitioner::new(rand::random());
                topics.insert(
                    name.clone(),
                    Topic {
                        number,
                        partitions,
                        partitioner,
                        asked: Instant::now(),
                    },
                );
            }
        }
    }
}

fn wall_clock_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "faulty_tests.rs"]
mod tests;
