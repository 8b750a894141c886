//! Load by librdkafka, for `make bench-kafka`. It prints one line: a JSON object.
//!
//! ```text
//! load produce BOOTSTRAP TOPIC PARTITIONS SECONDS      as fast as it goes, to each partition in turn
//! load rate    BOOTSTRAP TOPIC PARTITIONS SECONDS      1,000 records a second, linger 0
//! load consume BOOTSTRAP TOPIC PARTITIONS RECORDS      from the start, all partitions at once
//! load tail    BOOTSTRAP TOPIC PARTITIONS SECONDS      as `rate`, with a consumer that follows
//! ```
//!
//! Records are of 1 KiB, acks=all, nothing is compressed; else the client's own defaults. Latency is from when a record was
//! due, or given to the client, until its acknowledgement was heard; with `tail`, until it was read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

const RECORD_BYTES: usize = 1024;
const RATE: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What was acknowledged, and how many microseconds that took; the first refusal.
struct Heard {
    begun: Instant,
    latencies: Mutex<Vec<u32>>,
    refused: Mutex<Option<KafkaError>>,
}

impl ClientContext for Heard {}

impl ProducerContext for Heard {
    /// When it was due: microseconds since the beginning.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due_us: usize) {
        match result {
            Ok(_) => {
                let now_us = self.begun.elapsed().as_micros() as usize;
                if let Ok(mut latencies) = self.latencies.lock() {
                    latencies.push(now_us.saturating_sub(due_us) as u32);
                }
            }
            Err((error, _)) => {
                if let Ok(mut refused) = self.refused.lock() {
                    refused.get_or_insert(error.clone());
                }
            }
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, bootstrap, topic, partitions, much] = arguments.as_slice() else {
        return Err(
            "usage: load produce|rate|consume|tail BOOTSTRAP TOPIC PARTITIONS SECONDS|RECORDS"
                .into(),
        );
    };
    let (partitions, much) = (partitions.parse()?, much.parse()?);
    match verb.as_str() {
        "produce" | "rate" => {
            let rate = (verb == "rate").then_some(RATE);
            let heard = produce(
                bootstrap,
                topic,
                partitions,
                Duration::from_secs(much),
                rate,
            )?;
            heard.print();
            Ok(())
        }
        "tail" => tail(bootstrap, topic, partitions, Duration::from_secs(much)),
        "consume" => consume(bootstrap, topic, partitions, much),
        other => Err(format!("no verb {other}").into()),
    }
}

fn produce(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    length: Duration,
    rate: Option<u32>,
) -> Result<Measured> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all");
    if rate.is_some() {
        settings.set("linger.ms", "0");
    }
    let heard = Heard {
        begun: Instant::now(),
        latencies: Mutex::new(Vec::new()),
        refused: Mutex::new(None),
    };
    let producer: ThreadedProducer<Heard> = settings.create_with_context(heard)?;
    // The first metadata is not part of it.
    producer.client().fetch_metadata(Some(topic), PATIENCE)?;
    let mut payload: Vec<u8> = (0..RECORD_BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let begun = producer.context().begun;
    let first = begun.elapsed();
    let mut number: u32 = 0;
    loop {
        let mut due = begun.elapsed();
        if let Some(rate) = rate {
            let wanted = first + Duration::from_secs(1) * number / rate;
            std::thread::sleep(wanted.saturating_sub(due));
            due = wanted;
            // Whoever follows reads how old it is.
            let (stamp, _) = payload
                .split_first_chunk_mut()
                .ok_or("too short a record")?;
            let age_us = begun.elapsed().saturating_sub(due).as_micros() as u64;
            *stamp = now_us().saturating_sub(age_us).to_le_bytes();
        }
        if due >= first + length {
            break;
        }
        let partition = i32::try_from(number)? % partitions;
        let mut record =
            BaseRecord::<(), [u8], usize>::with_opaque_to(topic, due.as_micros() as usize)
                .payload(payload.as_slice())
                .partition(partition);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(Box::new(error));
            }
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
        number += 1;
    }
    producer.flush(PATIENCE)?;
    let seconds = (begun.elapsed() - first).as_secs_f64();
    let heard = producer.context();
    if let Some(error) = heard
        .refused
        .lock()
        .map_err(|_| "a callback failed")?
        .take()
    {
        return Err(Box::new(error));
    }
    let mut latencies = heard.latencies.lock().map_err(|_| "a callback failed")?;
    Ok(Measured {
        seconds,
        latencies_us: std::mem::take(&mut *latencies),
    })
}

/// What a load has come to.
struct Measured {
    seconds: f64,
    latencies_us: Vec<u32>,
}

impl Measured {
    fn print(mut self) {
        self.latencies_us.sort_unstable();
        let records = self.latencies_us.len();
        let quantile = |part: f64| {
            let at = (records.saturating_sub(1) as f64 * part) as usize;
            self.latencies_us.get(at).copied().unwrap_or(0)
        };
        println!(
            r#"{{"records": {records}, "seconds": {}, "p50_us": {}, "p99_us": {}, "p999_us": {}}}"#,
            self.seconds,
            quantile(0.5),
            quantile(0.99),
            quantile(0.999)
        );
    }
}

/// Microseconds since 1970.
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// A consumer reads what comes while it is written, and how old each record is by then.
fn tail(bootstrap: &str, topic: &str, partitions: i32, length: Duration) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "tail")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        assigned.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&assigned)?;
    let sent = AtomicUsize::new(usize::MAX);
    let latencies_us = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> std::result::Result<Vec<u32>, String> {
            let mut latencies_us = Vec::new();
            while latencies_us.len() < sent.load(Ordering::Acquire) {
                // Not for long: what was the last is known only once all is sent.
                let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let message = message.map_err(|error| error.to_string())?;
                let stamp = message.payload().and_then(|payload| payload.first_chunk());
                let due_us = u64::from_le_bytes(*stamp.ok_or("too short a record")?);
                latencies_us.push(now_us().saturating_sub(due_us) as u32);
            }
            Ok(latencies_us)
        });
        let written = produce(bootstrap, topic, partitions, length, Some(RATE));
        // Where it failed, nothing more is waited for.
        let count = written
            .as_ref()
            .map_or(0, |written| written.latencies_us.len());
        sent.store(count, Ordering::Release);
        let read = reader.join().map_err(|_| "the reader failed")??;
        written?;
        Ok::<_, Box<dyn std::error::Error>>(read)
    })?;
    Measured {
        seconds: length.as_secs_f64(),
        latencies_us,
    }
    .print();
    Ok(())
}

fn consume(bootstrap: &str, topic: &str, partitions: i32, records: u64) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "load")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        assigned.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let begun = Instant::now();
    consumer.assign(&assigned)?;
    let (mut found, mut bytes) = (0, 0);
    while found < records {
        let message = consumer
            .poll(PATIENCE)
            .ok_or("nothing came for a minute")??;
        found += 1;
        bytes += message.payload_len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(r#"{{"records": {found}, "seconds": {seconds}, "bytes": {bytes}}}"#);
    Ok(())
}
