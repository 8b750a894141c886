//! Durable produce of 1 KiB records with the native client over gRPC, at 1 and at 1,000 partitions, against what the disk
//! can do in the same run; and fetch against a plain copy over loopback. Client and server share this process.
//!
//! `cargo bench -p mainstem-grpc --bench grpc` prints the table and leaves `target/bench/grpc.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstem::{Mainstem, Options};
use mainstem_client::proto::CreateTopicRequest;
use mainstem_client::{Client, ClientOptions, FetchOptions, ProducerOptions, ProducerRecord};
use mainstem_journal::limit::disk_limit;

const RECORD_BYTES: usize = 1024;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);
/// What is read back.
const FETCHED_BYTES: u64 = 1 << 30;

async fn create(client: &Client, name: &str, partitions: u32) {
    let request = CreateTopicRequest {
        name: name.into(),
        partitions: Some(partitions),
        configs: [("retention.bytes".to_owned(), "2147483648".to_owned())].into(),
        ..CreateTopicRequest::default()
    };
    client.create_topic(request).await.unwrap();
}

/// Bytes of values a second, acknowledged as durable.
async fn produce(client: &Client, partitions: u32) -> f64 {
    let topic = format!("bench-{partitions}");
    create(client, &topic, partitions).await;
    let producer = client.producer(ProducerOptions::default()).await.unwrap();
    let record = ProducerRecord::new(topic.as_str()).value(Bytes::from(vec![b'x'; RECORD_BYTES]));
    let begun = Instant::now();
    let (mut sent, mut before, mut since) = (0u64, None, begun);
    while begun.elapsed() < WARM_UP + MEASURED {
        for _ in 0..256 {
            let partition = (sent % u64::from(partitions)) as u32;
            drop(
                producer
                    .send(record.clone().partition(partition))
                    .await
                    .unwrap(),
            );
            sent += 1;
        }
        if before.is_none() && begun.elapsed() > WARM_UP {
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

/// Bytes of batches a second, read and checked by the client.
async fn fetch(client: &Client) -> f64 {
    let begun = Instant::now();
    let mut stream = client.fetch(FetchOptions::new("bench-1")).await.unwrap();
    let mut bytes = 0;
    while bytes < FETCHED_BYTES
        && let Some(batch) = stream.next().await
    {
        bytes += batch.unwrap().batch.bytes().len() as u64;
    }
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// Bytes a second through a plain socket on loopback, from one buffer into another.
fn loopback() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let buffer = vec![7u8; 1 << 20];
        for _ in 0..FETCHED_BYTES >> 20 {
            socket.write_all(&buffer).unwrap();
        }
    });
    let mut socket = TcpStream::connect(address).unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    let begun = Instant::now();
    let mut bytes = 0u64;
    loop {
        match socket.read(&mut buffer).unwrap() {
            0 => break,
            count => bytes += count as u64,
        }
    }
    let rate = bytes as f64 / begun.elapsed().as_secs_f64();
    sender.join().unwrap();
    rate
}

fn out_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let out = target.join("bench");
    std::fs::create_dir_all(&out).unwrap();
    out
}

async fn measure(address: SocketAddr) -> (f64, f64, f64) {
    let client = Client::connect(ClientOptions::new(address.to_string()))
        .await
        .unwrap();
    let single = produce(&client, 1).await;
    let fetched = fetch(&client).await;
    let many = produce(&client, 1000).await;
    (single, many, fetched)
}

fn main() {
    let out = out_dir();
    let dir = tempfile::tempdir_in(&out).unwrap();
    let before = disk_limit(dir.path()).unwrap();
    let plain = loopback();
    let mainstem = Mainstem::open(dir.path().join("data"), Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = mainstem.clone();
    let server = runtime.spawn(async move {
        let shutdown = async { drop(stopped.await) };
        mainstem_grpc::serve(served, listener, BTreeMap::new(), shutdown).await
    });
    let (single, many, fetched) = runtime.block_on(measure(address));
    let _ = stop.send(());
    runtime.block_on(server).unwrap().unwrap();
    mainstem.shutdown().unwrap();
    // Disk and network wander: each limit is the mean of before and after.
    let limit = (before + disk_limit(dir.path()).unwrap()) / 2.0;
    let plain = (plain + loopback()) / 2.0;
    let rows = [
        (
            "durable produce, 1 KiB records, 1 partition, over gRPC",
            single,
            limit,
            None,
        ),
        (
            "durable produce, 1 KiB records, 1,000 partitions, over gRPC",
            many,
            limit,
            None,
        ),
        (
            "1,000 partitions against 1, over gRPC",
            many,
            single,
            Some(0.7),
        ),
        (
            "fetch over gRPC against a loopback copy",
            fetched,
            plain,
            Some(0.5),
        ),
    ];
    println!(
        "{:<62} {:>10} {:>10} {:>6} {:>5}",
        "", "MB/s", "limit", "ratio", "aim"
    );
    for (name, value, limit, aim) in rows {
        let aim = aim.map_or(String::new(), |aim: f64| aim.to_string());
        println!(
            "{name:<62} {:>10.0} {:>10.0} {:>6.2} {aim:>5}",
            value / 1e6,
            limit / 1e6,
            value / limit
        );
    }
    let json: Vec<_> = rows
        .iter()
        .map(|(name, value, limit, aim)| {
            serde_json::json!({"name": name, "layer": "grpc", "value": value, "unit": "bytes/s", "limit": limit, "ratio": value / limit, "aim": aim})
        })
        .collect();
    std::fs::write(
        out.join("grpc.json"),
        serde_json::to_vec_pretty(&json).unwrap(),
    )
    .unwrap();
}
