//! The native client against the real server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{TestServer, topic};
use mainstem_client::proto::{
    AlterTopicRequest, Column, ColumnKind, ConfigSource, CreateTopicRequest, Schema,
};
use mainstem_client::{
    Client, ClientError, ClientOptions, Deployment, FetchOptions, Position, Producer,
    ProducerOptions, ProducerRecord, Start,
};

/// Everything that a stream has, as values by partition and offset.
async fn read(client: &Client, options: FetchOptions) -> BTreeMap<(u32, i64), String> {
    let mut stream = client.fetch(options).await.unwrap();
    let mut found = BTreeMap::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert!(
                found
                    .insert((batch.partition, record.offset), value)
                    .is_none(),
                "twice: {}",
                record.offset
            );
        }
    }
    found
}

async fn produce(
    producer: &Producer,
    topic: &str,
    numbers: std::ops::Range<u32>,
) -> BTreeMap<(u32, i64), String> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = ProducerRecord::new(topic)
            .key(format!("{}", number % 97))
            .value(format!("{number}"));
        deliveries.push((number, producer.send(record).await.unwrap()));
    }
    let mut acknowledged = BTreeMap::new();
    for (number, delivery) in deliveries {
        let delivered = delivery.await.unwrap();
        assert!(
            acknowledged
                .insert((delivered.partition, delivered.offset), format!("{number}"))
                .is_none()
        );
    }
    acknowledged
}

/// A producer's very first batch is refused while those behind it are on their way: none of them may pass for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_refused_first_batch_is_stored_before_it_is_acknowledged() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let limited = CreateTopicRequest {
        configs: [("max.message.bytes".to_owned(), "1024".to_owned())].into(),
        ..topic("limited", 1)
    };
    client.create_topic(limited).await.unwrap();
    for round in 0..20 {
        let options = ProducerOptions {
            max_batch_bytes: 200,
            max_request_bytes: 400,
            ..ProducerOptions::default()
        };
        let producer = client.producer(options).await.unwrap();
        let record = |value: String| ProducerRecord::new("limited").partition(0).value(value);
        let refused = producer.send(record("x".repeat(5_000))).await.unwrap();
        let mut deliveries = Vec::new();
        for number in 0..100 {
            let value = format!("{round}-{number}");
            deliveries.push((value.clone(), producer.send(record(value)).await.unwrap()));
        }
        assert_eq!(refused.await.unwrap_err().code(), "record_too_large");
        let mut acknowledged = BTreeMap::new();
        for (value, delivery) in deliveries {
            acknowledged.insert((0, delivery.await.unwrap().offset), value);
        }
        let first_error = producer.close().await.unwrap_err();
        assert_eq!(first_error.code(), "record_too_large");
        let stored = read(&client, FetchOptions::new("limited")).await;
        let mine = stored
            .into_iter()
            .filter(|(_, value)| value.starts_with(&format!("{round}-")));
        assert_eq!(mine.collect::<BTreeMap<_, _>>(), acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_described_altered_and_deleted() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let column = |name: &str, kind: ColumnKind| Column {
        name: name.into(),
        kind: kind.into(),
    };
    let schema = Schema {
        columns: vec![
            column("carrier", ColumnKind::Utf8),
            column("delay", ColumnKind::Float64),
        ],
    };
    let request = CreateTopicRequest {
        configs: [("retention.ms".to_owned(), "1000000".to_owned())].into(),
        schema: Some(schema.clone()),
        ..topic("flights", 3)
    };
    let created = client.create_topic(request.clone()).await.unwrap();
    assert_eq!(
        (created.name.as_str(), created.partition_count),
        ("flights", 3)
    );
    assert_eq!(created.schema, Some(schema));
    assert_eq!(created.partitions.len(), 3);
    let retention = created
        .configs
        .iter()
        .find(|config| config.name == "retention.ms")
        .unwrap();
    assert_eq!(
        (retention.value.as_str(), retention.source()),
        ("1000000", ConfigSource::Topic)
    );
    assert!(!retention.doc.is_empty() && !retention.default_value.is_empty());

    let error = client.create_topic(request).await.unwrap_err();
    assert_eq!(error.code(), "topic_exists");
    assert!(error.hint().is_some());
    assert_eq!(
        client.describe_topic("flight").await.unwrap_err().code(),
        "topic_not_found"
    );
    let wrong = CreateTopicRequest {
        configs: [("a.b".to_owned(), "1".to_owned())].into(),
        ..topic("x", 1)
    };
    assert_eq!(
        client.create_topic(wrong).await.unwrap_err().code(),
        "unknown_config"
    );

    let change = AlterTopicRequest {
        name: "flights".into(),
        unset: vec!["retention.ms".into()],
        partitions: Some(4),
        ..AlterTopicRequest::default()
    };
    let altered = client.alter_topic(change).await.unwrap();
    assert_eq!(altered.partition_count, 4);
    let retention = altered
        .configs
        .iter()
        .find(|config| config.name == "retention.ms")
        .unwrap();
    assert_eq!(retention.source(), ConfigSource::Default);

    client.create_topic(topic("alerts", 1)).await.unwrap();
    let names: Vec<String> = client
        .list_topics()
        .await
        .unwrap()
        .into_iter()
        .map(|topic| topic.name)
        .collect();
    assert_eq!(names, ["alerts", "flights"]);
    let options = ClientOptions::new(server.address.to_string()).tenant("other");
    let other = Client::connect(options).await.unwrap();
    assert!(other.list_topics().await.unwrap().is_empty());
    client.delete_topic("alerts").await.unwrap();
    assert_eq!(client.list_topics().await.unwrap().len(), 1);

    let status = client.status().await.unwrap();
    assert_eq!((status.topics, status.partitions), (1, 4));
    assert!(status.memory_bytes > 0 && status.journal.unwrap().durable_lsn > 0);
    assert_eq!(status.addresses["grpc"], server.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_is_fetched_once_and_in_order() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("numbers", 5)).await.unwrap();
    let producer = client.producer(ProducerOptions::default()).await.unwrap();
    let acknowledged = produce(&producer, "numbers", 0..20_000).await;
    assert_eq!(
        read(&client, FetchOptions::new("numbers")).await,
        acknowledged
    );

    let ends: Vec<i64> = client
        .describe_topic("numbers")
        .await
        .unwrap()
        .partitions
        .iter()
        .map(|p| p.high_watermark)
        .collect();
    assert_eq!(ends.iter().sum::<i64>(), 20_000);
    // From the middle of a batch to the middle of another.
    let end = ends[2];
    let start = Start {
        partition: 2,
        at: Position::Offset(end / 3),
        end_offset: Some(end / 2),
    };
    let part = read(
        &client,
        FetchOptions {
            partitions: vec![start],
            ..FetchOptions::new("numbers")
        },
    )
    .await;
    let expected: Vec<_> = (end / 3..end / 2).map(|offset| (2, offset)).collect();
    assert_eq!(part.keys().copied().collect::<Vec<_>>(), expected);
    // From a time: everything, and nothing.
    let all = read(
        &client,
        FetchOptions::new("numbers").start(Position::Timestamp(0)),
    )
    .await;
    assert_eq!(all.len(), 20_000);
    let none = read(
        &client,
        FetchOptions::new("numbers").start(Position::Latest),
    )
    .await;
    assert!(none.is_empty());
    assert_eq!(
        client
            .resolve_offset("numbers", 2, Position::Latest)
            .await
            .unwrap(),
        end
    );

    let error = client
        .fetch(FetchOptions::new("numbers").partition(2, Position::Offset(end + 1)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "offset_out_of_range");
    assert!(error.hint().unwrap().contains(&end.to_string()));
    let error = client
        .fetch(FetchOptions::new("numbers").partition(5, Position::Earliest))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "partition_not_found");
    let error = producer
        .send(ProducerRecord::new("nowhere").value("x"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "topic_not_found");
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_arrives() {
    use mainstem_client::record::Compression;
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("packed", 1)).await.unwrap();
    let mut acknowledged = BTreeMap::new();
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let options = ProducerOptions {
            compression,
            ..ProducerOptions::default()
        };
        let producer = client.producer(options).await.unwrap();
        acknowledged.extend(produce(&producer, "packed", 0..500).await);
    }
    assert_eq!(
        read(&client, FetchOptions::new("packed")).await,
        acknowledged
    );
    assert_eq!(acknowledged.len(), 2_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_hears_of_new_records_at_once() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("news", 3)).await.unwrap();
    let options = FetchOptions {
        max_wait: Duration::from_secs(20),
        ..FetchOptions::new("news").follow()
    };
    let mut stream = client.fetch(options).await.unwrap();
    let producer = client.producer(ProducerOptions::default()).await.unwrap();
    for number in 0..30 {
        let started = Instant::now();
        let sent = producer
            .send_and_wait(ProducerRecord::new("news").value(format!("{number}")))
            .await
            .unwrap();
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!(
            (batch.partition, batch.from_offset),
            (sent.partition, sent.offset)
        );
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(100), stream.next())
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_and_reader_survive_restarts_of_the_server() {
    let mut server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("numbers", 4)).await.unwrap();

    let reading = {
        let client = client.clone();
        tokio::spawn(async move {
            let mut stream = client
                .fetch(FetchOptions::new("numbers").follow())
                .await
                .unwrap();
            let mut found = BTreeMap::new();
            while found.len() < 30_000 {
                let batch = stream.next().await.unwrap().unwrap();
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    assert!(
                        found
                            .insert((batch.partition, record.offset), value)
                            .is_none(),
                        "twice"
                    );
                }
            }
            found
        })
    };
    let writing = {
        let client = client.clone();
        tokio::spawn(async move {
            let options = ProducerOptions {
                max_batch_bytes: 4_000,
                max_request_bytes: 10_000,
                buffer_bytes: 100_000,
                ..ProducerOptions::default()
            };
            let producer = client.producer(options).await.unwrap();
            let mut acknowledged = BTreeMap::new();
            for part in 0..30 {
                acknowledged
                    .extend(produce(&producer, "numbers", part * 1_000..(part + 1) * 1_000).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            acknowledged
        })
    };
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.stop(round % 2 == 0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.restart().await;
    }
    let acknowledged = tokio::time::timeout(Duration::from_secs(60), writing)
        .await
        .unwrap()
        .unwrap();
    let found = tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(acknowledged.len(), 30_000);
    assert_eq!(found, acknowledged);
    // In order within each partition, per key.
    let stored = read(&client, FetchOptions::new("numbers")).await;
    assert_eq!(stored, acknowledged);
    let mut last: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for ((partition, _), value) in stored {
        let number: u32 = value.parse().unwrap();
        let before = last.insert((partition, number % 97), number);
        assert!(before.is_none_or(|before| before < number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_record_fails_alone() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let request = CreateTopicRequest {
        configs: [("max.message.bytes".to_owned(), "2000".to_owned())].into(),
        ..topic("small", 1)
    };
    client.create_topic(request).await.unwrap();
    let options = ProducerOptions {
        max_batch_bytes: 1_500,
        ..ProducerOptions::default()
    };
    let producer = client.producer(options).await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..200 {
        let value = if number % 50 == 7 {
            "x".repeat(3_000)
        } else {
            format!("{number}")
        };
        deliveries.push(
            producer
                .send(ProducerRecord::new("small").value(value))
                .await
                .unwrap(),
        );
    }
    assert_eq!(
        producer.flush().await.unwrap_err().code(),
        "record_too_large"
    );
    let mut stored = 0;
    for (number, delivery) in deliveries.into_iter().enumerate() {
        match delivery.await {
            Ok(delivered) => {
                assert_eq!(delivered.offset, stored);
                stored += 1;
            }
            Err(error) => {
                assert_eq!((number % 50, error.code()), (7, "record_too_large"));
                assert!(error.hint().is_some());
            }
        }
    }
    assert_eq!(stored, 196);
    assert_eq!(read(&client, FetchOptions::new("small")).await.len(), 196);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_are_none_are_refused() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("in", 1)).await.unwrap();
    let deployment = Deployment {
        name: "h".into(),
        inputs: vec!["in".into()],
        ..Deployment::default()
    };
    let error = client
        .deploy(deployment, vec![7; 3_000_000].into())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "invalid_component", "{error}");
    assert!(error.hint().is_some());
    assert_eq!(
        client.handler_status("h").await.unwrap_err().code(),
        "handler_not_found"
    );
    assert!(client.list_handlers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_there_is_told_with_a_hint() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = Client::connect(ClientOptions::new(nobody.to_string()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.hint().unwrap().contains("mainstem serve"), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(matches!(
        Client::connect(ClientOptions::new("not a server")).await,
        Err(ClientError::InvalidServer { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_answers_in_arrow() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("flights", 2)).await.unwrap();
    let producer = client.producer(ProducerOptions::default()).await.unwrap();
    for number in 0..1_000 {
        let value = if number == 500 {
            "{broken".to_owned()
        } else {
            format!(r#"{{"delay":{number}}}"#)
        };
        drop(
            producer
                .send(ProducerRecord::new("flights").value(value))
                .await
                .unwrap(),
        );
    }
    producer.close().await.unwrap();
    let mut result = client
        .sql("SELECT count(*) AS n, sum(delay) AS total FROM flights")
        .await
        .unwrap();
    let mut ipc = Vec::new();
    while let Some(chunk) = result.next().await {
        ipc.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(
        (result.notices()[0].code.as_str(), result.notices()[0].count),
        ("malformed_values", 1)
    );
    assert!(result.lsn() > 0);
    let batches: Vec<_> = arrow::ipc::reader::StreamReader::try_new(&ipc[..], None)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let text = format!("{batches:?}");
    assert!(text.contains("1000") && text.contains("499000"), "{text}");

    let error = client.sql("SELEKT 1").await.unwrap_err();
    assert_eq!(error.code(), "sql_syntax");
    assert!(error.hint().is_some());
    assert_eq!(
        client.sql("SELECT * FROM flight").await.unwrap_err().code(),
        "sql_unknown_table"
    );
}
