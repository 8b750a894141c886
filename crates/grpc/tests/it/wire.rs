//! The API as any gRPC client sees it.

use std::time::Duration;

use crate::support::{TestServer, topic};
use bytes::Bytes;
use mainstem_proto::v1::fetch_client::FetchClient;
use mainstem_proto::v1::produce_client::ProduceClient;
use mainstem_proto::v1::{
    FetchRequest, InitProducerRequest, NewRecord, PartitionBatch, ProduceRecordsRequest,
    ProduceRequest, partition_result,
};
use mainstem_record::{BatchBuilder, Compression};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

async fn channel(server: &TestServer) -> Channel {
    Channel::from_shared(format!("http://{}", server.address))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn batch(value: &[u8], producer: Option<(i64, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 2_000_000);
    if let Some((id, sequence)) = producer {
        builder.producer(id, 0, sequence);
    }
    builder.append(1, None, Some(value), &[]).unwrap();
    builder.build().unwrap().into_bytes()
}

fn request(correlation_id: u64, topic: &str, batches: &[(u32, Bytes)]) -> ProduceRequest {
    let batch = |(partition, batch): &(u32, Bytes)| PartitionBatch {
        topic: topic.into(),
        partition: *partition,
        batch: batch.clone(),
    };
    ProduceRequest {
        correlation_id,
        batches: batches.iter().map(batch).collect(),
    }
}

/// Base offset and whether it was a duplicate, or the code of the refusal.
fn outcome(result: &mainstem_proto::v1::PartitionResult) -> Result<(i64, bool), String> {
    match result.result.as_ref().unwrap() {
        partition_result::Result::Produced(produced) => {
            Ok((produced.base_offset, produced.duplicate))
        }
        partition_result::Result::Error(error) => {
            assert!(!error.message.is_empty());
            Err(error.code.clone())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_fail_one_by_one() {
    let server = TestServer::start().await;
    server
        .client()
        .await
        .create_topic(topic("t", 2))
        .await
        .unwrap();
    let mut produce = ProduceClient::new(channel(&server).await);
    let mut corrupt = batch(b"x", None).to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let batches = [
        (0, batch(b"a", None)),
        (1, Bytes::from(corrupt)),
        (7, batch(b"b", None)),
        (1, Bytes::from_static(b"no")),
    ];
    let answer = produce
        .produce(request(9, "t", &batches))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.correlation_id, 9);
    let outcomes: Vec<_> = answer.results.iter().map(outcome).collect();
    let refused = |code: &str| Err(code.to_owned());
    assert_eq!(
        outcomes,
        [
            Ok((0, false)),
            refused("invalid_batch"),
            refused("partition_not_found"),
            refused("invalid_batch")
        ]
    );
    let answer = produce
        .produce(request(1, "nowhere", &[(0, batch(b"a", None))]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(outcome(&answer.results[0]), refused("topic_not_found"));
}

/// Few bytes on the wire, much memory here: refused as a whole, unary and in a stream, and the server goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_very_many_batches_or_endless_names_is_refused() {
    let server = TestServer::start().await;
    server
        .client()
        .await
        .create_topic(topic("few", 1))
        .await
        .unwrap();
    let mut client = ProduceClient::new(channel(&server).await);
    let many = request(1, "", &vec![(0, Bytes::new()); 1_000_000]);
    let endless = request(2, &"x".repeat(1 << 20), &[(0, Bytes::new())]);
    for refused in [many, endless] {
        let status = client.produce(refused.clone()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        let (requests, receiver) = mpsc::channel(1);
        requests.send(refused).await.unwrap();
        let stream = client.produce_stream(ReceiverStream::new(receiver)).await;
        let status = stream.unwrap().into_inner().message().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
    let answer = client
        .produce(request(3, "few", &[(0, batch(b"one", None))]))
        .await
        .unwrap();
    assert_eq!(outcome(&answer.into_inner().results[0]), Ok((0, false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_answered_with_the_first_offset() {
    let server = TestServer::start().await;
    server
        .client()
        .await
        .create_topic(topic("t", 1))
        .await
        .unwrap();
    let mut produce = ProduceClient::new(channel(&server).await);
    let id = produce
        .init_producer(InitProducerRequest {})
        .await
        .unwrap()
        .into_inner()
        .producer_id;
    let mut outcomes = Vec::new();
    for sequence in [0, 1, 1, 0, 3, 2] {
        let bytes = batch(format!("{sequence}").as_bytes(), Some((id, sequence)));
        let answer = produce
            .produce(request(0, "t", &[(0, bytes)]))
            .await
            .unwrap()
            .into_inner();
        outcomes.push(outcome(&answer.results[0]));
    }
    let expected = [
        Ok((0, false)),
        Ok((1, false)),
        Ok((1, true)),
        Ok((0, true)),
        Err("out_of_order_sequence".to_owned()),
        Ok((2, false)),
    ];
    assert_eq!(outcomes, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_pipelined_and_answered_in_order() {
    let server = TestServer::start().await;
    server
        .client()
        .await
        .create_topic(topic("t", 3))
        .await
        .unwrap();
    let mut produce = ProduceClient::new(channel(&server).await);
    let id = produce
        .init_producer(InitProducerRequest {})
        .await
        .unwrap()
        .into_inner()
        .producer_id;
    let (requests, outgoing) = mpsc::channel(1_000);
    for sequence in 0..500 {
        let batches = [(
            sequence % 3,
            batch(&[b'x'; 1_000], Some((id, (sequence / 3) as i32))),
        )];
        requests
            .try_send(request(sequence.into(), "t", &batches))
            .unwrap();
    }
    drop(requests);
    let mut answers = produce
        .produce_stream(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    for sequence in 0..500 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.correlation_id, sequence);
        assert_eq!(
            outcome(&answer.results[0]),
            Ok(((sequence / 3) as i64, false))
        );
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_reads_no_answers_holds_up_nobody() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("t", 1)).await.unwrap();
    let mut stalled = ProduceClient::new(channel(&server).await);
    let (requests, outgoing) = mpsc::channel(1);
    let answers = stalled
        .produce_stream(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let flood = tokio::spawn(async move {
        for number in 0.. {
            let full = request(number, "t", &[(0, batch(&[b'x'; 900_000], None))]);
            if requests.send(full).await.is_err() {
                return;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let producer = client
        .producer(mainstem_client::ProducerOptions::default())
        .await
        .unwrap();
    for _ in 0..20 {
        let record = mainstem_client::ProducerRecord::new("t").value("y");
        let sent = producer.send_and_wait(record);
        tokio::time::timeout(Duration::from_secs(10), sent)
            .await
            .expect("held up")
            .unwrap();
    }
    flood.abort();
    drop(answers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_without_a_batch_are_batched_by_the_server() {
    let server = TestServer::start().await;
    server
        .client()
        .await
        .create_topic(topic("t", 4))
        .await
        .unwrap();
    let mut produce = ProduceClient::new(channel(&server).await);
    let record = |key: &'static str| NewRecord {
        key: Some(Bytes::from_static(key.as_bytes())),
        value: Some(Bytes::from_static(b"v")),
        ..NewRecord::default()
    };
    let records = vec![record("a"), record("b"), record("a")];
    let asked = ProduceRecordsRequest {
        topic: "t".into(),
        records,
    };
    let positions = produce
        .produce_records(asked)
        .await
        .unwrap()
        .into_inner()
        .positions;
    let partition = mainstem_record::partition_for_key(b"a", 4);
    assert_eq!(
        (positions[0].partition, positions[2].partition),
        (partition, partition)
    );
    assert!(positions[2].offset > positions[0].offset);
    let places: std::collections::BTreeSet<_> = positions
        .iter()
        .map(|position| (position.partition, position.offset))
        .collect();
    assert_eq!(places.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_where_it_starts_and_that_it_lives() {
    let server = TestServer::start().await;
    server
        .client()
        .await
        .create_topic(topic("t", 2))
        .await
        .unwrap();
    let mut fetch = FetchClient::new(channel(&server).await);
    let request = FetchRequest {
        topic: "t".into(),
        follow: true,
        max_wait_ms: 50,
        ..FetchRequest::default()
    };
    let mut answers = fetch.fetch(request.clone()).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.partitions.len(), 2);
    assert!(
        first
            .partitions
            .iter()
            .all(|fetched| fetched.batches.is_empty() && fetched.end_offset.is_none())
    );
    for _ in 0..3 {
        assert!(
            answers
                .message()
                .await
                .unwrap()
                .unwrap()
                .partitions
                .is_empty()
        );
    }
    // The other kind ends.
    let mut answers = fetch
        .fetch(FetchRequest {
            follow: false,
            ..request
        })
        .await
        .unwrap()
        .into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(
        first
            .partitions
            .iter()
            .all(|fetched| fetched.end_offset == Some(0))
    );
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_records_are_held_back_for_min_bytes() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("t", 1)).await.unwrap();
    let mut fetch = FetchClient::new(channel(&server).await);
    let request = FetchRequest {
        topic: "t".into(),
        follow: true,
        max_wait_ms: 60_000,
        min_bytes: 5_000,
        ..FetchRequest::default()
    };
    let mut answers = fetch.fetch(request).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let producer = client
        .producer(mainstem_client::ProducerOptions::default())
        .await
        .unwrap();
    for _ in 0..6 {
        let record = mainstem_client::ProducerRecord::new("t").value(vec![b'x'; 1_000]);
        producer.send_and_wait(record).await.unwrap();
    }
    let answer = answers.message().await.unwrap().unwrap();
    let bytes: usize = answer
        .partitions
        .iter()
        .flat_map(|fetched| &fetched.batches)
        .map(Bytes::len)
        .sum();
    assert!(bytes >= 5_000, "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let server = TestServer::start().await;
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", "mainstem.v1.Produce"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status(),
            ServingStatus::Serving
        );
    }
    let mut reflection = ServerReflectionClient::new(channel(&server).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    let names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for service in ["Topics", "Produce", "Fetch", "Handlers", "Sql", "Server"] {
        assert!(
            names.contains(&format!("mainstem.v1.{service}")),
            "{names:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_do_not_keep_the_server_from_stopping() {
    let mut server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("t", 1)).await.unwrap();
    let mut fetch = FetchClient::new(channel(&server).await);
    let request = FetchRequest {
        topic: "t".into(),
        follow: true,
        ..FetchRequest::default()
    };
    let mut answers = fetch.fetch(request).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let mut produce = ProduceClient::new(channel(&server).await);
    let (_requests, outgoing) = mpsc::channel::<ProduceRequest>(1);
    let mut produced = produce
        .produce_stream(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    server.stop(true).await;
    let error = produced.message().await.unwrap_err();
    assert_eq!(error.metadata().get("mainstem-code").unwrap(), "closed");
    let error = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if complete"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.metadata().get("mainstem-code").unwrap(), "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_does_not_go_on_in_a_later_topic_of_the_name() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("again", 1)).await.unwrap();
    let channel = channel(&server).await;
    let mut produce = ProduceClient::new(channel.clone());
    let first = request(
        1,
        "again",
        &[(0, batch(b"a", None)), (0, batch(b"b", None))],
    );
    produce.produce(first.clone()).await.unwrap();
    let follow = FetchRequest {
        topic: "again".into(),
        follow: true,
        max_wait_ms: 50,
        ..FetchRequest::default()
    };
    let mut stream = FetchClient::new(channel)
        .fetch(follow)
        .await
        .unwrap()
        .into_inner();
    let mut read = 0;
    while read < 2 {
        let answer = stream.message().await.unwrap().unwrap();
        read += answer
            .partitions
            .iter()
            .map(|one| one.batches.len())
            .sum::<usize>();
        if answer.partitions.iter().any(|one| one.next_offset == 2) {
            break;
        }
    }
    client.delete_topic("again").await.unwrap();
    client.create_topic(topic("again", 1)).await.unwrap();
    for correlation_id in 2..5 {
        let request = request(
            correlation_id,
            "again",
            &[(0, batch(b"c", None)), (0, batch(b"d", None))],
        );
        produce.produce(request).await.unwrap();
    }
    loop {
        match stream.message().await {
            Ok(Some(answer)) => {
                let records: usize = answer.partitions.iter().map(|one| one.batches.len()).sum();
                assert_eq!(records, 0, "another topic's records: {answer:?}");
            }
            Ok(None) => panic!("it ended without a word"),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_decompresses_to_is_bounded() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("bombs", 1)).await.unwrap();
    let mut produce = ProduceClient::new(channel(&server).await);
    let mut builder = BatchBuilder::new(Compression::Zstd, 64 << 20);
    let value = vec![b'x'; 30 << 20];
    builder.append(1, None, Some(&value), &[]).unwrap();
    let bomb = builder.build().unwrap().into_bytes();
    assert!(bomb.len() < 100_000);
    let few = request(1, "bombs", &vec![(0, bomb.clone()); 2]);
    let answer = produce.produce(few).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| outcome(result).is_ok()));
    let many = request(2, "bombs", &vec![(0, bomb.clone()); 20]);
    let answer = produce.produce(many).await.unwrap().into_inner();
    let refused = answer
        .results
        .iter()
        .filter(|result| outcome(result).is_err());
    assert_eq!(refused.count(), 12, "eight have 240 MiB");
    let nowhere = request(3, "nowhere", &[(0, bomb)]);
    let answer = produce.produce(nowhere).await.unwrap().into_inner();
    assert_eq!(outcome(&answer.results[0]).unwrap_err(), "topic_not_found");
}
