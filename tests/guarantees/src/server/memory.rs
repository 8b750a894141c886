//! Memory under overload: producers without pace, a reader that stands still, a scan over everything.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstem_client::proto::CreateTopicRequest;
use mainstem_client::{Client, ClientOptions, FetchOptions, ProducerOptions, ProducerRecord};

use super::process::Server;
use super::run::said;
use super::sql;
use crate::{Failure, ensure};

const TOPIC: &str = "load";
const PARTITIONS: u32 = 16;
const RECORD_BYTES: usize = 1_000;

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Producers, as fast as they are let.
    pub producers: u64,
    /// What they send together.
    pub bytes: u64,
    /// What the server is told to keep to.
    pub limit_bytes: u64,
}

impl Default for MemoryPlan {
    fn default() -> Self {
        MemoryPlan {
            producers: 16,
            bytes: 4 << 30,
            limit_bytes: 1 << 30,
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryReport {
    /// The most that the process had in memory and could not give back (`RssAnon`), sampled every 20 ms.
    pub peak_anonymous_bytes: u64,
    /// The most that it had in memory in all (`VmHWM`), with pages of files that the kernel may take back.
    pub peak_resident_bytes: u64,
    /// Records acknowledged; as many were counted by SQL.
    pub records: u64,
    /// Bytes of their values a second.
    pub bytes_per_second: u64,
    /// Scans that came to their end meanwhile.
    pub scans: u64,
}

/// Runs a plan in a fresh directory.
pub fn memory(plan: MemoryPlan) -> Result<MemoryReport, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    let dir = tempfile::tempdir().map_err(|error| Failure::new(error.to_string()))?;
    runtime.block_on(play(plan, dir.path()))
}

async fn play(plan: MemoryPlan, dir: &Path) -> Result<MemoryReport, Failure> {
    let data_dir = dir.join("data");
    std::fs::create_dir_all(&data_dir).map_err(|error| Failure::new(error.to_string()))?;
    let limit = plan.limit_bytes.to_string();
    let server = Server::start(&data_dir, &["--memory-limit", &limit])?;
    let options = ClientOptions::new(server.grpc());
    let client = Client::connect(options.clone()).await.map_err(said)?;
    let topic = CreateTopicRequest {
        name: TOPIC.into(),
        partitions: Some(PARTITIONS),
        ..Default::default()
    };
    client.create_topic(topic).await.map_err(said)?;

    let stop = Arc::new(AtomicBool::new(false));
    let anonymous = tokio::spawn(watch(server.pid(), stop.clone()));
    // It asks for everything and reads one answer.
    let mut stalled = client
        .fetch(FetchOptions::new(TOPIC).follow())
        .await
        .map_err(said)?;
    let scans = Arc::new(AtomicU64::new(0));
    let scanner = tokio::spawn(scan(client.clone(), stop.clone(), scans.clone()));

    let began = Instant::now();
    let each = plan.bytes / plan.producers / RECORD_BYTES as u64;
    let mut producers = Vec::new();
    for number in 0..plan.producers {
        let client = Client::connect(options.clone()).await.map_err(said)?;
        producers.push(tokio::spawn(produce(client, number, each)));
    }
    let first = tokio::time::timeout(Duration::from_secs(60), stalled.next()).await;
    ensure!(
        matches!(first, Ok(Some(Ok(_)))),
        "the reader got nothing at all"
    );
    let mut records = 0;
    for producer in producers {
        records += producer
            .await
            .map_err(|error| Failure::new(error.to_string()))??;
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Release);
    scanner
        .await
        .map_err(|error| Failure::new(error.to_string()))??;
    let statement = format!("SELECT count(*) AS n FROM {TOPIC}");
    let rows = match sql::rows(&client, &statement).await {
        Ok(rows) => rows,
        Err(sql::NoRows::Client(error)) => return Err(said(error)),
        Err(sql::NoRows::Unreadable(why)) => return Err(Failure::new(why)),
    };
    let counted = rows.first().and_then(|row| row["n"].as_u64()).unwrap_or(0);
    ensure!(
        counted == records,
        "{records} records were acknowledged, {counted} are there"
    );
    // The reader was not forgotten: it goes on where it stood.
    let next = tokio::time::timeout(Duration::from_secs(60), stalled.next()).await;
    ensure!(
        matches!(next, Ok(Some(Ok(_)))),
        "the stalled reader cannot go on"
    );
    let report = MemoryReport {
        peak_anonymous_bytes: anonymous
            .await
            .map_err(|error| Failure::new(error.to_string()))?,
        peak_resident_bytes: memory_of(server.pid(), "VmHWM"),
        records,
        bytes_per_second: (records * RECORD_BYTES as u64 * 1_000)
            / u64::try_from(took.as_millis()).unwrap_or(1).max(1),
        scans: scans.load(Ordering::Acquire),
    };
    let peak = report.peak_resident_bytes;
    ensure!(peak > 0, "the server's memory cannot be read from /proc");
    ensure!(
        peak <= plan.limit_bytes,
        "the server took {} MiB of {} MiB",
        peak >> 20,
        plan.limit_bytes >> 20
    );
    Ok(report)
}

/// Sends as fast as it is let, and counts what was acknowledged. Any refusal is a failure.
async fn produce(client: Client, number: u64, count: u64) -> Result<u64, Failure> {
    let producer = client
        .producer(ProducerOptions::default())
        .await
        .map_err(said)?;
    // Not compressible by accident, and the same for every record: what it holds does not matter here.
    let value: Bytes = (0..RECORD_BYTES)
        .map(|at| b'a' + ((at as u64 * 7 + number) % 26) as u8)
        .collect();
    let mut last = None;
    for index in 0..count {
        let partition = ((index / 64 + number) % u64::from(PARTITIONS)) as u32;
        let record = ProducerRecord::new(TOPIC)
            .partition(partition)
            .value(value.clone());
        last = Some(producer.send(record).await.map_err(said)?);
    }
    producer.flush().await.map_err(said)?;
    if let Some(last) = last {
        last.await.map_err(said)?;
    }
    producer.close().await.map_err(said)?;
    Ok(count)
}

/// Scans over everything, one after the other; the last to its end.
async fn scan(client: Client, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Result<(), Failure> {
    loop {
        let last = stop.load(Ordering::Acquire);
        // Bytes of every record are touched.
        sql::drain(
            &client,
            &format!("SELECT max(length(_value)), min(_timestamp) FROM {TOPIC}"),
        )
        .await
        .map_err(said)?;
        done.fetch_add(1, Ordering::AcqRel);
        if last {
            return Ok(());
        }
    }
}

async fn watch(pid: u32, stop: Arc<AtomicBool>) -> u64 {
    let mut peak = 0;
    while !stop.load(Ordering::Acquire) {
        peak = peak.max(memory_of(pid, "RssAnon"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peak
}

/// A line of `/proc/<pid>/status` in bytes; 0 where there is none.
fn memory_of(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
