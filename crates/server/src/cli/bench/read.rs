//! The readers' side: those that follow a phase, and those that read what is there afterwards.

use super::BenchArguments;
use super::latencies::Latencies;
use super::load::Clock;
use super::produce::due_ns;
use super::report::Fetched;
use crate::failure::Failure;
use mainstem_client::record::RecordError;
use mainstem_client::{
    Client, ClientError, FetchOptions, FetchStream, FetchedBatch, Position, Start,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a reader may see nothing new while records are missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much is read afterwards.
const NEWEST_BYTES: u64 = 128 << 20;

/// Readers that stand at the end of the topic.
#[derive(Default)]
pub struct Following {
    pub streams: Vec<FetchStream>,
}

/// Readers under way.
pub struct Followers {
    /// How many records there are to be read, once it is known.
    total: watch::Sender<Option<u64>>,
    readers: JoinSet<Result<Latencies, Failure>>,
}

/// What all readers have seen.
pub struct Followed {
    /// Of the records due within the window, once for each reader.
    pub latencies: Latencies,
}

impl Following {
    /// Lets them read. They stop when they have read everything, or are dropped.
    pub fn start(self, clock: Clock, window: Range<u64>) -> Followers {
        let (total, told) = watch::channel(None);
        let mut readers = JoinSet::new();
        for stream in self.streams {
            readers.spawn(follow(stream, clock, window.clone(), told.clone()));
        }
        Followers { total, readers }
    }
}

impl Followers {
    /// Waits until each has read that many records.
    pub async fn end(mut self, total: u64) -> Result<Followed, Failure> {
        let _ = self.total.send(Some(total));
        let mut latencies = Latencies::new()?;
        while let Some(reader) = self.readers.join_next().await {
            let reader = reader.map_err(|error| {
                Failure::new("internal", format!("a reader failed: {error}"), "")
            })?;
            latencies.add(&reader?);
        }
        Ok(Followed { latencies })
    }
}

async fn follow(
    mut stream: FetchStream,
    clock: Clock,
    window: Range<u64>,
    mut total: watch::Receiver<Option<u64>>,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new()?;
    let mut read = 0u64;
    loop {
        let wanted = *total.borrow_and_update();
        if wanted.is_some_and(|wanted| read >= wanted) {
            return Ok(latencies);
        }
        tokio::select! {
            batch = stream.next() => {
                let Some(batch) = batch.transpose()? else {
                    return Err(Failure::new("reader_ended", "a reader that follows the topic was told that it ends", ""));
                };
                let now_ns = clock.now_ns();
                read += each_due(&batch, |due_ns| {
                    if window.contains(&due_ns) {
                        latencies.record_ns(now_ns.saturating_sub(due_ns));
                    }
                })?;
            }
            _ = total.changed(), if wanted.is_none() => {}
            () = tokio::time::sleep(PATIENCE), if wanted.is_some() => {
                let wanted = wanted.unwrap_or_default();
                return Err(Failure::new(
                    "reader_stalled",
                    format!("a reader has {read} of {wanted} records, and nothing came for {} s", PATIENCE.as_secs()),
                    "look at the server's log and at `mainstem status`",
                ));
            }
        }
    }
}

/// Counts the records of a batch that were asked for, and gives each one's time.
fn each_due(batch: &FetchedBatch, mut each: impl FnMut(u64)) -> Result<u64, Failure> {
    let mut count = 0;
    batch
        .batch
        .for_each(|record| {
            if record.offset >= batch.from_offset {
                count += 1;
                // A record that is not ours has no time, and counts all the same.
                if let Some(due_ns) = due_ns(record.value) {
                    each(due_ns);
                }
            }
            Ok::<_, RecordError>(())
        })
        .map_err(|error| Failure::from(ClientError::from(error)))?;
    Ok(count)
}

/// Lets so many readers read the newest records over and over, each by itself.
pub async fn fetch(
    client: &Client,
    topic: &Arc<str>,
    arguments: &BenchArguments,
    readers: usize,
) -> Result<Fetched, Failure> {
    let partitions = client.describe_topic(topic).await?.partitions;
    let records = NEWEST_BYTES / arguments.record_bytes as u64 / partitions.len().max(1) as u64;
    let newest = i64::try_from(records.max(1)).unwrap_or(i64::MAX);
    let starts = partitions.iter().map(|partition| Start {
        partition: partition.index,
        at: Position::Offset(
            partition
                .start_offset
                .max(partition.high_watermark - newest),
        ),
        end_offset: Some(partition.high_watermark),
    });
    let options = FetchOptions {
        partitions: starts.collect(),
        ..FetchOptions::new(topic.clone())
    };
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(arguments.seconds);
    let mut sides = JoinSet::new();
    for _ in 0..readers {
        sides.spawn(read_until(client.clone(), options.clone(), until));
    }
    let mut fetched = Fetched {
        readers,
        records: 0,
        bytes: 0,
        seconds: 0.0,
    };
    while let Some(side) = sides.join_next().await {
        let side = side
            .map_err(|error| Failure::new("internal", format!("a reader failed: {error}"), ""))?;
        let (records, bytes) = side?;
        fetched.records += records;
        fetched.bytes += bytes;
    }
    fetched.seconds = begun.elapsed().as_secs_f64();
    Ok(fetched)
}

/// Reads again and again until the time is up; at least once to the end of what is there, so that a short run reads all.
async fn read_until(
    client: Client,
    options: FetchOptions,
    until: Instant,
) -> Result<(u64, u64), Failure> {
    let (mut records, mut bytes) = (0, 0);
    let mut whole = false;
    while !whole || Instant::now() < until {
        let mut stream = client.fetch(options.clone()).await?;
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            records += u64::try_from(batch.batch.record_count()).unwrap_or_default();
            bytes += batch.batch.bytes().len() as u64;
            if whole && Instant::now() >= until {
                break;
            }
        }
        whole = true;
    }
    Ok((records, bytes))
}
