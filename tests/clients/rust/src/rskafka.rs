//! A client in Rust alone. It has no groups, and one value for each name of a header.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeZone, Utc};
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};

use crate::{Record, Result};

const TIMEOUT_MS: i32 = 30_000;

async fn client(bootstrap: &str) -> Result<Client> {
    Ok(ClientBuilder::new(vec![bootstrap.to_owned()])
        .build()
        .await?)
}

async fn partition(bootstrap: &str, topic: &str) -> Result<PartitionClient> {
    let client = client(bootstrap).await?;
    Ok(client
        .partition_client(topic, 0, UnknownTopicHandling::Retry)
        .await?)
}

/// Kafka's number of an error; 0 for none.
fn code<T>(result: std::result::Result<T, Error>) -> Result<i16> {
    match result {
        Ok(_) => Ok(0),
        Err(Error::ServerError { protocol_error, .. }) => match protocol_error {
            ProtocolError::OffsetOutOfRange => Ok(1),
            ProtocolError::UnknownTopicOrPartition => Ok(3),
            ProtocolError::MessageTooLarge => Ok(10),
            ProtocolError::InvalidTopicException => Ok(17),
            ProtocolError::TopicAlreadyExists => Ok(36),
            ProtocolError::InvalidReplicationFactor => Ok(38),
            other => Err(Box::new(other)),
        },
        Err(other) => Err(Box::new(other)),
    }
}

pub(crate) async fn produce(
    bootstrap: &str,
    topic: &str,
    codec: &str,
    records: Vec<Record>,
) -> Result<()> {
    let codec = match codec {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    };
    let records = records.into_iter().map(
        |Record {
             key,
             value,
             headers,
         }| rskafka::record::Record {
            key,
            value,
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, value.unwrap_or_default()))
                .collect(),
            timestamp: Utc::now(),
        },
    );
    partition(bootstrap, topic)
        .await?
        .produce(records.collect(), codec)
        .await?;
    Ok(())
}

pub(crate) async fn consume(bootstrap: &str, topic: &str, count: i64) -> Result<()> {
    let partition = partition(bootstrap, topic).await?;
    let mut next = 0;
    while next < count {
        let (found, _) = partition.fetch_records(next, 1..1_000_000, 1_000).await?;
        for one in found {
            next = one.offset + 1;
            let rskafka::record::Record {
                key,
                value,
                headers,
                ..
            } = one.record;
            let headers = headers
                .into_iter()
                .map(|(name, value)| (name, Some(value)))
                .collect();
            Record {
                key,
                value,
                headers,
            }
            .print();
        }
    }
    Ok(())
}

pub(crate) async fn offsets(bootstrap: &str, topic: &str) -> Result<()> {
    let partition = partition(bootstrap, topic).await?;
    let time = DateTime::from_timestamp_millis(1004).ok_or("a time")?;
    for (step, at) in [
        ("earliest", OffsetAt::Earliest),
        ("latest", OffsetAt::Latest),
        ("at 1004", OffsetAt::Timestamp(time)),
    ] {
        println!("{step}: {}", partition.get_offset(at).await?);
    }
    Ok(())
}

pub(crate) async fn admin(bootstrap: &str, topic: &str) -> Result<()> {
    let client = client(bootstrap).await?;
    let controller = client.controller_client()?;
    let create = |name: String, replicas| controller.create_topic(name, 3, replicas, TIMEOUT_MS);
    println!("create: {}", code(create(topic.to_owned(), 1).await)?);
    println!("create again: {}", code(create(topic.to_owned(), 1).await)?);
    println!(
        "create a bad name: {}",
        code(create("a b".to_owned(), 1).await)?
    );
    println!(
        "create with 3 replicas: {}",
        code(create(format!("{topic}-3"), 3).await)?
    );
    let listed = client.list_topics().await?;
    let found = listed
        .iter()
        .find(|one| one.name == topic)
        .ok_or("the topic is listed")?;
    println!("partitions: {}", found.partitions.len());
    println!(
        "delete: {}",
        code(controller.delete_topic(topic, TIMEOUT_MS).await)?
    );
    println!(
        "delete again: {}",
        code(controller.delete_topic(topic, TIMEOUT_MS).await)?
    );
    Ok(())
}

pub(crate) async fn refused(bootstrap: &str, topic: &str) -> Result<()> {
    let partition = partition(bootstrap, topic).await?;
    let large = rskafka::record::Record {
        key: None,
        value: Some(vec![0; 5000]),
        headers: BTreeMap::new(),
        timestamp: Utc::now(),
    };
    println!(
        "too large: {}",
        code(
            partition
                .produce(vec![large], Compression::NoCompression)
                .await
        )?
    );
    println!(
        "out of range: {}",
        code(partition.fetch_records(1_000, 1..1_000_000, 1_000).await)?
    );
    Ok(())
}

/// The usage that its README shows.
pub(crate) async fn start(bootstrap: &str, topic: &str) -> Result<()> {
    let connection = bootstrap.to_owned();
    let client = ClientBuilder::new(vec![connection]).build().await?;
    let partition_client = client
        .partition_client(topic.to_owned(), 0, UnknownTopicHandling::Retry)
        .await?;
    let record = rskafka::record::Record {
        key: None,
        value: Some(b"hello kafka".to_vec()),
        headers: BTreeMap::from([("foo".to_owned(), b"bar".to_vec())]),
        timestamp: Utc.timestamp_millis_opt(42).single().ok_or("a time")?,
    };
    partition_client
        .produce(vec![record], Compression::default())
        .await?;
    let (records, _high_watermark) = partition_client
        .fetch_records(0, 1..1_000_000, 1_000)
        .await?;
    for one in records {
        println!(
            "{}",
            String::from_utf8(one.record.value.unwrap_or_default())?
        );
    }
    Ok(())
}
