//! librdkafka, in Rust.

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication, TopicResult,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer,
};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::{Record, Result, TIMEOUT};

fn settings(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap);
    for (name, value) in more {
        settings.set(*name, *value);
    }
    settings
}

/// A consumer of partition 0 from an offset on, in no group.
fn reader<C: FromClientConfig + Consumer>(
    bootstrap: &str,
    topic: &str,
    offset: Offset,
) -> Result<C> {
    let more = [
        ("group.id", topic),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
    ];
    let consumer: C = settings(bootstrap, &more).create()?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topic, 0, offset)?;
    consumer.assign(&assigned)?;
    Ok(consumer)
}

pub(crate) async fn produce(
    bootstrap: &str,
    topic: &str,
    codec: &str,
    records: Vec<Record>,
) -> Result<()> {
    let more = [("compression.type", codec), ("enable.idempotence", "true")];
    let producer: FutureProducer = settings(bootstrap, &more).create()?;
    let mut sent = Vec::new();
    for Record {
        key,
        value,
        headers,
    } in &records
    {
        let mut named = OwnedHeaders::new();
        for (key, value) in headers {
            named = named.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let mut record = FutureRecord::to(topic).partition(0);
        if !headers.is_empty() {
            record = record.headers(named);
        }
        record.key = key.as_ref();
        record.payload = value.as_ref();
        sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
    }
    for one in sent {
        one.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}

pub(crate) async fn consume(bootstrap: &str, topic: &str, count: usize) -> Result<()> {
    let consumer: StreamConsumer = reader(bootstrap, topic, Offset::Beginning)?;
    for _ in 0..count {
        let found = tokio::time::timeout(TIMEOUT, consumer.recv()).await??;
        let headers = found.headers().map_or(Vec::new(), |headers| {
            let named = headers
                .iter()
                .map(|one| (one.key.to_owned(), one.value.map(<[u8]>::to_vec)));
            named.collect()
        });
        let (key, value) = (
            found.key().map(<[u8]>::to_vec),
            found.payload().map(<[u8]>::to_vec),
        );
        Record {
            key,
            value,
            headers,
        }
        .print();
    }
    Ok(())
}

/// Commits what was read before partitions are taken away.
struct CommitFirst;

impl ClientContext for CommitFirst {}

impl ConsumerContext for CommitFirst {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Revoke(_)) {
            // Nothing to commit is an error to it.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
        }
    }
}

pub(crate) async fn group(bootstrap: &str, topic: &str, group: &str) -> Result<()> {
    let more = [
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("auto.commit.interval.ms", "200"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ];
    let consumer: StreamConsumer<CommitFirst> =
        settings(bootstrap, &more).create_with_context(CommitFirst)?;
    consumer.subscribe(&[topic])?;
    let mut left = std::pin::pin!(crate::left());
    loop {
        tokio::select! {
            () = &mut left => return Ok(()),
            found = consumer.recv() => {
                let found = found?;
                println!("{} {}", found.partition(), found.offset());
            }
        }
    }
}

pub(crate) fn offsets(bootstrap: &str, topic: &str, group: &str) -> Result<()> {
    let consumer: BaseConsumer = settings(bootstrap, &[("group.id", group)]).create()?;
    let (earliest, latest) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, Offset::Offset(1004))?;
    let found = consumer.offsets_for_times(wanted, TIMEOUT)?;
    let at = found
        .elements()
        .first()
        .and_then(|one| one.offset().to_raw())
        .unwrap_or(-1);
    println!("earliest: {earliest}\nlatest: {latest}\nat 1004: {at}");
    let mut committed = TopicPartitionList::new();
    let mut one = committed.add_partition(topic, 0);
    one.set_offset(Offset::Offset(7))?;
    one.set_metadata("note");
    consumer.commit(&committed, CommitMode::Sync)?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic, 0);
    for one in consumer.committed_offsets(wanted, TIMEOUT)?.elements() {
        println!(
            "committed: {} {}",
            one.offset().to_raw().unwrap_or(-1),
            one.metadata()
        );
    }
    Ok(())
}

/// Kafka's number of what became of one topic; 0 for no error.
fn code(results: Vec<TopicResult>) -> i32 {
    results
        .into_iter()
        .find_map(|one| one.err())
        .map_or(0, |(_, code)| code as i32)
}

pub(crate) async fn admin(bootstrap: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = settings(bootstrap, &[]).create()?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let (three, unknown) = (format!("{topic}-3"), format!("{topic}-c"));
    let plain = |name| NewTopic::new(name, 3, TopicReplication::Fixed(1));
    for (step, new) in [
        ("create", plain(topic).set("retention.ms", "60000")),
        ("create again", plain(topic)),
        ("create a bad name", plain("a b")),
        (
            "create with 3 replicas",
            NewTopic::new(&three, 3, TopicReplication::Fixed(3)),
        ),
        (
            "create with an unknown config",
            plain(&unknown).set("no.such", "1"),
        ),
    ] {
        println!(
            "{step}: {}",
            code(admin.create_topics(&[new], &options).await?)
        );
    }
    let partitions = || -> Result<usize> {
        let found = admin.inner().fetch_metadata(Some(topic), TIMEOUT)?;
        Ok(found
            .topics()
            .first()
            .map_or(0, |one| one.partitions().len()))
    };
    println!("partitions: {}", partitions()?);
    admin
        .create_partitions(&[NewPartitions::new(topic, 5)], &options)
        .await?;
    println!("partitions: {}", partitions()?);
    println!(
        "fewer partitions: {}",
        code(
            admin
                .create_partitions(&[NewPartitions::new(topic, 2)], &options)
                .await?
        )
    );
    let resource = ResourceSpecifier::Topic(topic);
    for altered in admin
        .alter_configs(
            &[AlterConfig::new(resource).set("retention.ms", "70000")],
            &options,
        )
        .await?
    {
        altered.map_err(|(_, code)| KafkaError::AdminOp(code))?;
    }
    for described in admin.describe_configs(&[resource], &options).await? {
        let described = described?;
        let found = described
            .get("retention.ms")
            .and_then(|one| one.value.as_deref());
        println!("retention.ms: {}", found.unwrap_or("none"));
    }
    println!(
        "delete: {}",
        code(admin.delete_topics(&[topic], &options).await?)
    );
    println!(
        "delete again: {}",
        code(admin.delete_topics(&[topic], &options).await?)
    );
    Ok(())
}

pub(crate) async fn refused(bootstrap: &str, topic: &str) -> Result<()> {
    fn code(error: &KafkaError) -> i32 {
        match error.rdkafka_error_code() {
            // As it says that an offset is out of range, to who did not ask for another.
            Some(RDKafkaErrorCode::AutoOffsetReset) => 1,
            other => other.map_or(-1, |code| code as i32),
        }
    }
    let producer: FutureProducer = settings(bootstrap, &[]).create()?;
    let large = FutureRecord::<(), _>::to(topic)
        .partition(0)
        .payload(&[0_u8; 5000]);
    let produced = producer.send(large, TIMEOUT).await;
    println!(
        "too large: {}",
        produced.err().map_or(0, |(error, _)| code(&error))
    );
    let consumer: StreamConsumer = reader(bootstrap, topic, Offset::Offset(1000))?;
    let found = tokio::time::timeout(TIMEOUT, consumer.recv()).await?;
    println!(
        "out of range: {}",
        found.err().map_or(0, |error| code(&error))
    );
    Ok(())
}

/// A producer with a transactional id, ready to begin.
fn transactional(bootstrap: &str, id: &str) -> Result<FutureProducer> {
    let producer: FutureProducer = settings(bootstrap, &[("transactional.id", id)]).create()?;
    producer.init_transactions(TIMEOUT)?;
    Ok(producer)
}

async fn send(producer: &FutureProducer, topic: &str, value: &[u8]) -> Result<()> {
    let record = FutureRecord::<(), _>::to(topic).payload(value);
    producer.send(record, TIMEOUT).await.map_err(|(error, _)| error)?;
    Ok(())
}

pub(crate) async fn transactions(bootstrap: &str, topic: &str, group: &str) -> Result<()> {
    let output = format!("{topic}-out");
    let producer = transactional(bootstrap, &output)?;
    producer.begin_transaction()?;
    send(&producer, &output, b"kept").await?;
    producer.commit_transaction(TIMEOUT)?;
    producer.begin_transaction()?;
    send(&producer, &output, b"dropped").await?;
    producer.abort_transaction(TIMEOUT)?;

    let more = [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
    ];
    let consumer: StreamConsumer = settings(bootstrap, &more).create()?;
    consumer.subscribe(&[topic])?;
    producer.begin_transaction()?;
    let mut offsets = TopicPartitionList::new();
    for _ in 0..10 {
        let found = tokio::time::timeout(TIMEOUT, consumer.recv()).await??;
        send(&producer, &output, found.payload().unwrap_or_default()).await?;
        offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, 0, Offset::Offset(found.offset() + 1))?;
    }
    let member = consumer.group_metadata().ok_or("it is a member")?;
    producer.send_offsets_to_transaction(&offsets, &member, TIMEOUT)?;
    producer.commit_transaction(TIMEOUT)?;
    drop(consumer);

    producer.begin_transaction()?;
    send(&producer, &output, b"fenced").await?;
    let successor = transactional(bootstrap, &output)?;
    let fenced = producer.commit_transaction(TIMEOUT);
    let code = fenced.err().and_then(|error| error.rdkafka_error_code());
    println!("fenced: {}", code.map_or(0, |code| code as i32));
    successor.begin_transaction()?;
    send(&successor, &output, b"successor").await?;
    successor.commit_transaction(TIMEOUT)?;

    let reader: StreamConsumer = reader(bootstrap, &output, Offset::Beginning)?;
    let mut found: Vec<String> = Vec::new();
    while found.last().is_none_or(|last| last != "successor") {
        let one = tokio::time::timeout(TIMEOUT, reader.recv()).await??;
        let value = one.payload().unwrap_or_default();
        found.push(String::from_utf8_lossy(value).into_owned());
    }
    println!("read: {}", found.join(" "));
    Ok(())
}

/// Its examples `simple_producer` and `simple_consumer`.
pub(crate) async fn start(brokers: &str, topic_name: &str) -> Result<()> {
    let producer: &FutureProducer = &ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("message.timeout.ms", "5000")
        .create()?;
    let futures = (0..5)
        .map(|i| async move {
            let headers = OwnedHeaders::new().insert(Header {
                key: "header_key",
                value: Some("header_value"),
            });
            let (payload, key) = (format!("Message {i}"), format!("Key {i}"));
            let record = FutureRecord::to(topic_name)
                .payload(&payload)
                .key(&key)
                .headers(headers);
            producer
                .send(record, TIMEOUT)
                .await
                .map_err(|(error, _)| error)
        })
        .collect::<Vec<_>>();
    for future in futures {
        future.await?;
    }
    let consumer: StreamConsumer = ClientConfig::new()
        .set("group.id", "example_consumer_group_id")
        .set("bootstrap.servers", brokers)
        .set("enable.partition.eof", "false")
        .set("session.timeout.ms", "6000")
        .set("enable.auto.commit", "true")
        .set("auto.offset.reset", "smallest")
        .create()?;
    consumer.subscribe(&[topic_name])?;
    let mut last: Option<BorrowedMessage<'_>> = None;
    for _ in 0..5 {
        let found = tokio::time::timeout(TIMEOUT, consumer.recv()).await??;
        consumer.commit_message(&found, CommitMode::Async)?;
        last = Some(found);
    }
    println!(
        "{}",
        last.and_then(|found| found
            .payload_view::<str>()
            .and_then(std::result::Result::ok)
            .map(str::to_owned))
            .unwrap_or_default()
    );
    Ok(())
}
