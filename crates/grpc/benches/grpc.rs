//! Over gRPC with the native client, which shares this process with the server: durable produce of 1 KiB records at 1,
//! 100, 1,000 and 10,000 partitions, against what the disk can do in the same run and against the same in process; and
//! fetch, from the tail and cold from segments, against plain copies over loopback.
//!
//! `cargo bench -p mainstem-grpc --bench grpc` prints the table and leaves `target/bench/grpc.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../mainstem/benches/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::read::{COLD_BYTES, TAIL_BYTES, evict, files_in_order, fill, segments};
use common::write::{
    HUNDRED, ONE, Shape, TEN_THOUSAND, THOUSAND, create, flat_out, warm_up, with_fresh,
};
use common::{RECORD_BYTES, Row, out_dir, report};
use mainstem::{Mainstem, Options};
use mainstem_client::{Client, ClientOptions, FetchOptions, ProducerOptions, ProducerRecord};
use mainstem_journal::limit::{disk_limit, loopback_limit};

const MEASURED: Duration = Duration::from_secs(6);
/// What is read back of what was produced.
const FETCHED_BYTES: u64 = 1 << 30;
/// How long readers of the tail are measured.
const READ: Duration = Duration::from_secs(4);
const COPIED: Duration = Duration::from_secs(2);

/// Serves while the work goes on.
fn served<T>(mainstem: &Mainstem, work: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mainstem = mainstem.clone();
    let server = runtime.spawn(async move {
        let shutdown = async { drop(stopped.await) };
        mainstem_grpc::serve(mainstem, listener, BTreeMap::new(), shutdown).await
    });
    let result = runtime.block_on(async {
        let client = Client::connect(ClientOptions::new(address.to_string()))
            .await
            .unwrap();
        work(client).await
    });
    let _ = stop.send(());
    runtime.block_on(server).unwrap().unwrap();
    result
}

/// Bytes of values a second, acknowledged as durable.
async fn produce(mainstem: &Mainstem, client: &Client, topic: &Arc<str>, partitions: usize) -> f64 {
    let producer = client.producer(ProducerOptions::default()).await.unwrap();
    let record = ProducerRecord::new(topic.clone()).value(Bytes::from(vec![b'x'; RECORD_BYTES]));
    let warming_up = tokio::spawn({
        let mainstem = mainstem.clone();
        async move { warm_up(&mainstem).await }
    });
    let (mut sent, mut before, mut since) = (0u64, None, Instant::now());
    while before.is_none() || since.elapsed() < MEASURED {
        for _ in 0..256 {
            let partition = (sent % partitions as u64) as u32;
            drop(
                producer
                    .send(record.clone().partition(partition))
                    .await
                    .unwrap(),
            );
            sent += 1;
        }
        if before.is_none() && warming_up.is_finished() {
            before = Some(acknowledged(&producer, sent));
            since = Instant::now();
        }
    }
    let after = acknowledged(&producer, sent);
    let seconds = since.elapsed().as_secs_f64();
    producer.close().await.unwrap();
    (after - before.unwrap()) / seconds
}

/// Bytes of values that have been acknowledged: sent and not buffered any more.
fn acknowledged(producer: &mainstem_client::Producer, sent: u64) -> f64 {
    sent as f64 * RECORD_BYTES as f64 - producer.buffered_bytes() as f64
}

/// Bytes of batches, read and checked by the client, up to a limit.
async fn read(client: &Client, topic: &Arc<str>, most_bytes: u64) -> u64 {
    let mut stream = client
        .fetch(FetchOptions::new(topic.clone()))
        .await
        .unwrap();
    let mut bytes = 0;
    while bytes < most_bytes
        && let Some(batch) = stream.next().await
    {
        bytes += batch.unwrap().batch.bytes().len() as u64;
    }
    bytes
}

/// So many readers read a topic again and again; bytes a second of all together.
async fn many(client: &Client, topic: &Arc<str>, readers: usize) -> f64 {
    let begun = Instant::now();
    let readers = (0..readers).map(|_| {
        let (client, topic) = (client.clone(), topic.clone());
        tokio::spawn(async move {
            let mut bytes = 0;
            while begun.elapsed() < READ {
                bytes += read(&client, &topic, u64::MAX).await;
            }
            bytes
        })
    });
    let bytes: u64 = futures::future::join_all(readers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// What one number of partitions gives.
struct Produced {
    in_process: f64,
    over_grpc: f64,
    disk: f64,
    /// Reading back what was produced, and a loopback copy.
    fetched: f64,
    loopback: f64,
}

fn produced(dir: &Path, shape: Shape) -> Produced {
    // Disk and network wander: each limit is the mean of before and after.
    let before = (disk_limit(dir).unwrap(), loopback_limit(1, COPIED).unwrap());
    let in_process = with_fresh(dir, |mainstem| flat_out(mainstem, shape)).bytes_per_second;
    let (over_grpc, fetched) = with_fresh(dir, |mainstem| {
        served(mainstem, async |client| {
            let topic = create(mainstem, "bench", shape.partitions).await;
            let over_grpc = produce(mainstem, &client, &topic, shape.partitions).await;
            let begun = Instant::now();
            let bytes = read(&client, &topic, FETCHED_BYTES).await;
            (over_grpc, bytes as f64 / begun.elapsed().as_secs_f64())
        })
    });
    let after = (disk_limit(dir).unwrap(), loopback_limit(1, COPIED).unwrap());
    Produced {
        in_process,
        over_grpc,
        disk: (before.0 + after.0) / 2.0,
        fetched,
        loopback: (before.1 + after.1) / 2.0,
    }
}

fn tail_rows(dir: &Path, rows: &mut Vec<Row>) {
    with_fresh(dir, |mainstem| {
        served(mainstem, async |client| {
            let topic = create(mainstem, "tail", 1).await;
            fill(mainstem, &topic, TAIL_BYTES).await;
            for (readers, name) in [(1, "1 reader"), (50, "50 readers")] {
                let value = many(&client, &topic, readers).await;
                let limit = loopback_limit(readers, COPIED).unwrap();
                let row = Row::new(format!("tail fetch, {name}, over gRPC"), "bytes/s", value);
                rows.push(row.limit(limit).aim(0.7));
            }
        });
    });
}

/// Through the server against the slower of the files themselves and loopback.
fn cold_row(dir: &Path) -> Row {
    let data = dir.join("cold");
    let topic = {
        let mainstem = Mainstem::open(&data, Options::default()).unwrap();
        let topic = served(&mainstem, async |_| {
            let topic = create(&mainstem, "cold", 1).await;
            fill(&mainstem, &topic, COLD_BYTES).await;
            topic
        });
        mainstem.shutdown().unwrap();
        topic
    };
    let files = segments(&data);
    evict(&files);
    let in_order = files_in_order(&files);
    let mainstem = Mainstem::open(&data, Options::default()).unwrap();
    evict(&files);
    let value = served(&mainstem, async |client| {
        let begun = Instant::now();
        let bytes = read(&client, &topic, u64::MAX).await;
        bytes as f64 / begun.elapsed().as_secs_f64()
    });
    mainstem.shutdown().unwrap();
    evict(&files);
    let limit = (in_order + files_in_order(&files)) / 2.0;
    let limit = limit.min(loopback_limit(1, COPIED).unwrap());
    Row::new("cold fetch from segments, over gRPC", "bytes/s", value)
        .limit(limit)
        .aim(0.7)
}

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let counts = [
        ("1", ONE),
        ("100", HUNDRED),
        ("1,000", THOUSAND),
        ("10,000", TEN_THOUSAND),
    ];
    let [one, hundred, thousand, ten_thousand] =
        counts.map(|(_, shape)| produced(dir.path(), shape));
    let mut rows = Vec::new();
    for ((name, _), produced) in counts
        .iter()
        .zip([&one, &hundred, &thousand, &ten_thousand])
    {
        let partitions = if *name == "1" {
            "1 partition".to_owned()
        } else {
            format!("{name} partitions")
        };
        let name = format!("durable produce, 1 KiB records, {partitions}, over gRPC");
        rows.push(Row::new(name, "bytes/s", produced.over_grpc).limit(produced.disk));
    }
    rows.push(
        Row::new(
            "1,000 partitions against 1, over gRPC",
            "bytes/s",
            thousand.over_grpc,
        )
        .limit(one.over_grpc)
        .aim(0.7),
    );
    let rates = [one.over_grpc, hundred.over_grpc, ten_thousand.over_grpc];
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = rates.iter().copied().fold(0.0, f64::max);
    rows.push(
        Row::new(
            "1, 100 and 10,000 partitions, over gRPC: slowest against fastest",
            "bytes/s",
            slowest,
        )
        .limit(fastest)
        .aim(0.8),
    );
    for (partitions, produced) in [
        ("1 partition", &one),
        ("100 partitions", &hundred),
        ("10,000 partitions", &ten_thousand),
    ] {
        let row = Row::new(
            format!("over gRPC against in process, {partitions}"),
            "bytes/s",
            produced.over_grpc,
        );
        rows.push(row.limit(produced.in_process).aim(0.8));
    }
    let fetched = Row::new(
        "fetch over gRPC against a loopback copy",
        "bytes/s",
        one.fetched,
    );
    rows.push(fetched.limit(one.loopback).aim(0.5));
    tail_rows(dir.path(), &mut rows);
    rows.push(cold_row(dir.path()));
    report("grpc", "grpc", &rows);
}
