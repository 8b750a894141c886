//! `mainstem produce`: rows in, acknowledged records out.
//!
//! Three things run side by side: this command hands rows to the client, [`Acknowledged`] counts what comes back, and
//! a timer tells how far both are.

mod acknowledged;
mod pace;
mod rejects;

use super::connect::connect;
use super::input::{self, Broken, Format, MAX_ROW_BYTES, Row, RowOptions};
use super::output::{document, fields, table};
use super::topic::schema_of;
use super::{Common, Output};
use crate::failure::Failure;
use acknowledged::{Acknowledged, Telling, tell};
use clap::{Args, ValueEnum};
use mainstem_client::record::Compression;
use mainstem_client::{ClientError, Producer, ProducerOptions, ProducerRecord};
use pace::Pace;
use rejects::Rejects;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::mpsc;

/// `mainstem produce`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  mainstem produce orders orders.csv.gz --key customer
  mainstem produce orders orders.jsonl --key customer --rejects broken.jsonl
  tail -f app.log | mainstem produce logs
  mainstem produce flights flights.csv --key carrier --rate 2000

A CSV needs a heading; its rows become JSON objects, typed by the topic's columns, else by a sample of the \
file. A broken row stops with its line number, or goes to --rejects as {\"line\", \"error\", \"row\"}; everything \
before it is acknowledged either way. What is acknowledged is durable.")]
pub struct ProduceArguments {
    /// The topic
    pub topic: String,
    /// What to read, plain, .gz or .zip; `-` or nothing reads standard input
    pub file: Option<PathBuf>,
    /// How it is cut into records: lines, jsonl or csv [default: by the file's name, else lines]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Option<Format>,
    /// The field whose value becomes the record's key; the same key goes to the same partition
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// A text that means null in a CSV, as an empty field does; repeatable
    #[arg(long = "null", value_name = "TEXT", default_value = "NA")]
    pub nulls: Vec<String>,
    /// Put broken rows here and go on
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// No faster than this
    #[arg(long, value_name = "RECORDS/S")]
    pub rate: Option<f64>,
    /// Bytes that may wait for their acknowledgement; beyond it reading waits
    #[arg(long, value_name = "BYTES", default_value_t = ProducerOptions::default().buffer_bytes)]
    pub buffer_bytes: usize,
    /// How batches are compressed
    #[arg(long, value_name = "CODEC", default_value = "none")]
    pub compression: Codec,
    /// Milliseconds between two lines of progress where standard error is no terminal
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub progress_ms: u64,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Compression {
        match codec {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

pub async fn run(common: &Common, arguments: ProduceArguments) -> Result<(), Failure> {
    let client = connect(common).await?;
    let topic = client.describe_topic(&arguments.topic).await?;
    let compression = arguments.compression.into();
    let producer = client
        .producer(ProducerOptions {
            compression,
            buffer_bytes: arguments.buffer_bytes,
            ..ProducerOptions::default()
        })
        .await?;
    let file = arguments.file.filter(|path| path != Path::new("-"));
    let options = RowOptions {
        format: arguments.format,
        key: arguments.key,
        nulls: arguments.nulls.into_iter().collect(),
        schema: schema_of(&topic),
        max_row_bytes: MAX_ROW_BYTES,
    };
    let mut sending = Sending {
        topic: arguments.topic.clone(),
        producer,
        acknowledged: Acknowledged::start(),
        pace: arguments.rate.map(Pace::new).transpose()?,
        rejects: arguments
            .rejects
            .as_deref()
            .map(Rejects::create)
            .transpose()?,
        begun: Instant::now(),
    };
    let waiting = sending.producer.clone();
    let telling = tell(
        Arc::clone(&sending.acknowledged.counters),
        arguments.progress_ms,
        move || waiting.trouble().map(|why| why.to_string()),
    );
    let sent = sending.everything(input::read(file, options)).await;
    sending.end(common, sent, telling).await
}

/// The hand-over of rows to the client.
struct Sending {
    topic: String,
    producer: Producer,
    acknowledged: Acknowledged,
    pace: Option<Pace>,
    rejects: Option<Rejects>,
    begun: Instant,
}

impl Sending {
    async fn everything(
        &mut self,
        mut chunks: mpsc::Receiver<Result<input::Chunk, Failure>>,
    ) -> Result<(), Failure> {
        while let Some(chunk) = chunks.recv().await {
            for row in chunk? {
                match row {
                    Ok(row) => self.row(row).await?,
                    Err(broken) => self.reject(broken)?,
                }
            }
        }
        Ok(())
    }

    async fn row(&mut self, row: Row) -> Result<(), Failure> {
        if let Some(pace) = &mut self.pace {
            pace.wait().await;
        }
        let mut record = ProducerRecord::new(self.topic.as_str()).value(row.value);
        if let Some(key) = row.key {
            record = record.key(key);
        }
        let delivery = self
            .producer
            .send(record)
            .await
            .map_err(|error| at_line(row.line, error))?;
        self.acknowledged.expect(row.line, delivery)
    }

    fn reject(&mut self, broken: Broken) -> Result<(), Failure> {
        let Some(rejects) = &mut self.rejects else {
            let message = format!("line {}: {}", broken.line, broken.why);
            return Err(Failure::new(
                "broken_row",
                message,
                "mend the row, or add --rejects FILE to put broken rows aside",
            ));
        };
        rejects.write(&broken)?;
        self.acknowledged
            .counters
            .rejected
            .fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for every answer, and says what was acknowledged, also when sending has failed.
    async fn end(
        self,
        common: &Common,
        sent: Result<(), Failure>,
        telling: Telling,
    ) -> Result<(), Failure> {
        let closed = self.producer.close().await;
        let counters = Arc::clone(&self.acknowledged.counters);
        let (partitions, lost) = self.acknowledged.end().await;
        telling.end().await;
        let counts = counters.counts();
        let seconds = self.begun.elapsed().as_secs_f64();
        let by_partition: Vec<_> = partitions
            .iter()
            .map(|(partition, one)| {
                json!({ "partition": partition, "records": one.records, "first_offset": one.first, "last_offset": one.last })
            })
            .collect();
        let summary = json!({
            "topic": self.topic,
            "sent": counts.sent,
            "acknowledged": counts.acknowledged,
            "rejected": counts.rejected,
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "partitions": by_partition,
        });
        // Where nothing was read there is nothing to sum up but the error.
        let nothing = sent.is_err() && counts.sent == 0 && counts.rejected == 0;
        if nothing && common.output == Output::Table {
            return sent;
        }
        document(common.output, &summary, || {
            let mut text = fields([
                (
                    "acknowledged",
                    format!("{} of {}", counts.acknowledged, counts.sent),
                ),
                ("rejected", counts.rejected.to_string()),
                ("seconds", format!("{seconds:.1}")),
            ]);
            let rows = partitions.iter().map(|(partition, one)| {
                vec![
                    partition.to_string(),
                    one.records.to_string(),
                    one.first.to_string(),
                    one.last.to_string(),
                ]
            });
            if !partitions.is_empty() {
                text += "\n";
                text += &table(
                    &["partition", "records", "first offset", "last offset"],
                    rows,
                );
            }
            text
        })?;
        if let Some(rejects) = self.rejects {
            rejects.finish()?;
        }
        sent?;
        lost?;
        closed?;
        Ok(())
    }
}

fn at_line(line: u64, error: ClientError) -> Failure {
    let failure = Failure::from(error);
    Failure {
        message: format!("line {line}: {}", failure.message),
        ..failure
    }
}
