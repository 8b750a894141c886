//! Deleting records from the front of a partition, and who reads there.

use mainstem_client::{FetchOptions, Position, ProducerOptions, ProducerRecord};

use crate::support::{TestServer, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_gone_and_a_reader_is_told_what_there_is() {
    let mut server = TestServer::start().await;
    let client = server.client().await;
    client.create_topic(topic("t", 2)).await.unwrap();
    let producer = client.producer(ProducerOptions::default()).await.unwrap();
    for number in 0..10 {
        let record = ProducerRecord::new("t")
            .partition(1)
            .value(format!("{number}"));
        producer.send(record).await.unwrap().await.unwrap();
    }
    producer.close().await.unwrap();
    let now = client.delete_records("t", 1, Some(4)).await.unwrap();
    assert_eq!(
        (now.index, now.start_offset, now.high_watermark),
        (1, 4, 10)
    );
    server.stop(true).await;
    server.restart().await;
    let client = server.client().await;
    let earliest = client
        .resolve_offset("t", 1, Position::Earliest)
        .await
        .unwrap();
    assert_eq!(earliest, 4);
    let read = FetchOptions::new("t").partition(1, Position::Offset(2));
    let error = match client.fetch(read).await {
        Ok(mut stream) => stream.next().await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), "offset_out_of_range");
    assert!(error.hint().unwrap().contains("from 4"), "{error}");
    let now = client.delete_records("t", 1, None).await.unwrap();
    assert_eq!((now.start_offset, now.high_watermark), (10, 10));
    let error = client.delete_records("t", 1, Some(11)).await.unwrap_err();
    assert_eq!(error.code(), "offset_out_of_range");
}
