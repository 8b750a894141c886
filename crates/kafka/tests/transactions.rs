//! Transactions, as clients notice them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{
    Connection, Gateway, batch, first, name, produce_request, sequenced, text, transactional,
};
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use mainstem::record::Batch;

// Kafka's numbers of errors.
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_REQUEST: i16 = 42;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const OPERATION_NOT_ATTEMPTED: i16 = 55;
const UNSTABLE_OFFSET_COMMIT: i16 = 88;
const PRODUCER_FENCED: i16 = 90;
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
const TRANSACTION_ABORTABLE: i16 = 120;
const INVALID_REGULAR_EXPRESSION: i16 = 128;

/// A producer with a transactional id, as its last answer has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producer {
    id: &'static str,
    producer_id: i64,
    epoch: i16,
}

impl Producer {
    fn init(client: &mut Connection, id: &'static str) -> Producer {
        let (code, producer) = Producer::try_init(client, 5, id, 60_000, None);
        assert_eq!(code, 0);
        producer
    }

    fn try_init(
        client: &mut Connection,
        version: i16,
        id: &'static str,
        timeout_ms: i32,
        expected: Option<(i64, i16)>,
    ) -> (i16, Producer) {
        let (producer_id, epoch) = expected.unwrap_or((-1, -1));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(txn_id(id)))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch);
        let answer = client.call(version, &request);
        let producer = Producer {
            id,
            producer_id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        };
        (answer.error_code, producer)
    }

    /// A code for each partition.
    fn add(&self, client: &mut Connection, version: i16, partitions: &[(&str, i32)]) -> Vec<i16> {
        let topic = |(topic, partition): &(&str, i32)| {
            AddPartitionsToTxnTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![*partition])
        };
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(txn_id(self.id))
            .with_v3_and_below_producer_id(ProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(partitions.iter().map(topic).collect());
        let answer = client.call(version, &request);
        let topics = answer.results_by_topic_v3_and_below.iter();
        topics
            .map(|topic| topic.results_by_partition[0].partition_error_code)
            .collect()
    }

    fn verify(&self, client: &mut Connection, version: i16, partitions: &[i32]) -> Vec<i16> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name("t"))
            .with_partitions(partitions.to_vec());
        let one = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(txn_id(self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_verify_only(true)
            .with_topics(vec![topic]);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![one]);
        let answer = client.call(version, &request);
        assert_eq!(answer.error_code, 0);
        let topics = &answer.results_by_transaction[0].topic_results;
        let partitions = topics[0].results_by_partition.iter();
        partitions.map(|one| one.partition_error_code).collect()
    }

    /// Error and base offset.
    fn produce(
        &self,
        client: &mut Connection,
        version: i16,
        partition: i32,
        sequence: i32,
        values: &[&str],
    ) -> (i16, i64) {
        let batch = transactional(values, self.producer_id, self.epoch, sequence);
        let request =
            produce_request("t", partition, batch, -1).with_transactional_id(Some(txn_id(self.id)));
        let answer = client.call(version, &request);
        let one = first(&answer);
        (one.error_code, one.base_offset)
    }

    fn end(&self, client: &mut Connection, version: i16, commit: bool) -> EndTxnResponse {
        let request = EndTxnRequest::default()
            .with_transactional_id(txn_id(self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        client.call(version, &request)
    }

    /// Ends it as clients of `transaction.version` 2 do, and is the next epoch.
    fn end_and_go_on(&mut self, client: &mut Connection, commit: bool) {
        let answer = self.end(client, 5, commit);
        assert_eq!(answer.error_code, 0);
        assert_eq!(
            (answer.producer_id.0, answer.producer_epoch),
            (self.producer_id, self.epoch + 1)
        );
        self.epoch += 1;
    }

    fn add_offsets(&self, client: &mut Connection, version: i16) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(txn_id(self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_group_id(group());
        client.call(version, &request).error_code
    }

    fn commit_offset(&self, client: &mut Connection, version: i16, offset: i64) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("m")));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(txn_id(self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_group_id(group())
            .with_generation_id(-1)
            .with_topics(vec![topic]);
        client.call(version, &request).topics[0].partitions[0].error_code
    }
}

fn txn_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

fn group() -> GroupId {
    GroupId(text("g"))
}

/// A gateway with a topic `t` of two partitions, and a connection to it.
fn begin() -> (Gateway, Connection) {
    let gateway = Gateway::start_with(&[("group.initial.rebalance.delay.ms", "0")]);
    let mut client = gateway.connect();
    let topic = CreatableTopic::default()
        .with_name(name("t"))
        .with_num_partitions(2)
        .with_replication_factor(-1);
    let created = client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]));
    assert_eq!(created.topics[0].error_code, 0);
    (gateway, client)
}

fn fetch_request(partition: i32, offset: i64, read_committed: bool) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(i8::from(read_committed))
        .with_topics(vec![topic])
}

fn fetch(client: &mut Connection, partition: i32, read_committed: bool) -> PartitionData {
    let request = fetch_request(partition, 0, read_committed);
    client
        .call(12, &request)
        .responses
        .remove(0)
        .partitions
        .remove(0)
}

/// The records of a fetch as a reader delivers them: without markers, and without what is aborted, as it was told.
fn delivered(found: &PartitionData) -> Vec<(i64, String)> {
    let mut aborted: Vec<(i64, i64)> = found
        .aborted_transactions
        .iter()
        .flatten()
        .map(|one| (one.first_offset, one.producer_id.0))
        .collect();
    aborted.sort_unstable();
    let mut leaving_out = Vec::new();
    let mut bytes = found.records.clone().unwrap_or_default();
    let mut shown = Vec::new();
    while let Some(batch) = Batch::split_first(&mut bytes).unwrap() {
        let header = batch.header();
        while aborted
            .first()
            .is_some_and(|(offset, _)| *offset <= header.last_offset())
        {
            leaving_out.push(aborted.remove(0).1);
        }
        if header.is_control() {
            leaving_out.retain(|id| *id != header.producer_id);
            continue;
        }
        if header.is_transactional() && leaving_out.contains(&header.producer_id) {
            continue;
        }
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            shown.push((record.offset, value));
        }
    }
    shown
}

fn committed(client: &mut Connection, partition: i32) -> Vec<String> {
    let found = fetch(client, partition, true);
    assert_eq!(found.error_code, 0);
    delivered(&found)
        .into_iter()
        .map(|(_, value)| value)
        .collect()
}

fn latest(client: &mut Connection, isolation: i8, timestamp: i64) -> i64 {
    let wanted = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let found = client
        .call(9, &request)
        .topics
        .remove(0)
        .partitions
        .remove(0);
    assert_eq!(found.error_code, 0);
    found.offset
}

/// Error and offset that the group has in partition 0.
fn group_offset(client: &mut Connection, require_stable: bool) -> (i16, i64) {
    let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    let wanted = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![wanted])
        .with_require_stable(require_stable);
    let answer = client.call(8, &request);
    let one = &answer.groups[0].topics[0].partitions[0];
    (one.error_code, one.committed_offset)
}

#[test]
fn a_transaction_is_seen_when_it_is_committed_and_never_when_it_is_aborted() {
    let (gateway, mut client) = begin();
    let producer = Producer::init(&mut client, "x");
    assert_eq!(producer.add(&mut client, 3, &[("t", 0), ("t", 1)]), [0, 0]);
    assert_eq!(producer.produce(&mut client, 9, 0, 0, &["a", "b"]), (0, 0));
    assert_eq!(producer.produce(&mut client, 9, 1, 0, &["c"]), (0, 0));
    // Whoever does not mind sees it; who does is told of nothing, not even by looking for it.
    let open = fetch(&mut client, 0, false);
    assert_eq!(delivered(&open).len(), 2);
    assert!(open.aborted_transactions.is_none());
    let open = fetch(&mut client, 0, true);
    assert_eq!((open.high_watermark, open.last_stable_offset), (2, 0));
    assert!(open.records.as_ref().unwrap().is_empty());
    assert!(open.aborted_transactions.is_some());
    assert_eq!(
        (latest(&mut client, 0, -1), latest(&mut client, 1, -1)),
        (2, 0)
    );
    assert_eq!(
        (latest(&mut client, 0, 1_000), latest(&mut client, 1, 1_000)),
        (0, -1)
    );
    assert_eq!(
        (latest(&mut client, 0, -3), latest(&mut client, 1, -3)),
        (0, -1)
    );
    // A reader that waits is woken by the end, and others' records behind the open transaction wait with it.
    let mut reader = gateway.connect();
    reader.send(12, &fetch_request(0, 0, true).with_max_wait_ms(20_000));
    assert_eq!(client.produce("t", 0, batch(&["plain"])).base_offset, 2);
    assert_eq!(committed(&mut client, 0), [""; 0]);
    assert_eq!(producer.end(&mut client, 3, true).error_code, 0);
    let woken = reader.receive::<FetchRequest>(12).1;
    assert_eq!(delivered(&woken.responses[0].partitions[0]).len(), 3);
    assert_eq!(committed(&mut client, 0), ["a", "b", "plain"]);
    assert_eq!(committed(&mut client, 1), ["c"]);
    // The markers are records of their own.
    assert_eq!(
        (latest(&mut client, 0, -1), latest(&mut client, 1, -1)),
        (4, 4)
    );

    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [0]);
    assert_eq!(producer.produce(&mut client, 9, 0, 2, &["no"]), (0, 4));
    assert_eq!(client.produce("t", 0, batch(&["yes"])).base_offset, 5);
    assert_eq!(producer.end(&mut client, 3, false).error_code, 0);
    assert_eq!(committed(&mut client, 0), ["a", "b", "plain", "yes"]);
    let all = fetch(&mut client, 0, false);
    let values: Vec<String> = delivered(&all)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, ["a", "b", "plain", "no", "yes"]);
    let told = fetch(&mut client, 0, true).aborted_transactions.unwrap();
    let told: Vec<(i64, i64)> = told
        .iter()
        .map(|one| (one.producer_id.0, one.first_offset))
        .collect();
    assert_eq!(told, [(producer.producer_id, 4)]);
    // The same end asked again is answered the same, another one is not.
    assert_eq!(producer.end(&mut client, 3, false).error_code, 0);
    assert_eq!(
        producer.end(&mut client, 3, true).error_code,
        INVALID_TXN_STATE
    );
}

#[test]
fn with_version_2_partitions_are_added_by_writing_and_each_end_has_a_new_epoch() {
    let (_gateway, mut client) = begin();
    let mut producer = Producer::init(&mut client, "x");
    let before = producer;
    assert_eq!(producer.produce(&mut client, 12, 0, 0, &["a"]), (0, 0));
    assert_eq!(producer.produce(&mut client, 12, 0, 1, &["b"]), (0, 1));
    assert_eq!(producer.produce(&mut client, 12, 1, 0, &["c"]), (0, 0));
    producer.end_and_go_on(&mut client, true);
    // The answer was lost: it is given again.
    let again = before.end(&mut client, 5, true);
    assert_eq!(
        (again.error_code, again.producer_epoch),
        (0, producer.epoch)
    );
    // What comes late is of an epoch that is over.
    let late = before.produce(&mut client, 12, 0, 2, &["late"]);
    assert_eq!(late, (INVALID_PRODUCER_EPOCH, -1));
    // Sequences begin anew with the epoch.
    assert_eq!(producer.produce(&mut client, 12, 0, 0, &["d"]).0, 0);
    producer.end_and_go_on(&mut client, false);
    assert_eq!(producer.produce(&mut client, 12, 0, 0, &["e"]).0, 0);
    producer.end_and_go_on(&mut client, true);
    assert_eq!(committed(&mut client, 0), ["a", "b", "e"]);
    assert_eq!(committed(&mut client, 1), ["c"]);
    // A transaction without anything in it may be aborted.
    producer.end_and_go_on(&mut client, false);
    assert_eq!(
        producer.end(&mut client, 5, true).error_code,
        INVALID_TXN_STATE
    );
}

#[test]
fn what_was_not_added_is_refused_as_the_version_knows_it() {
    let (_gateway, mut client) = begin();
    let producer = Producer::init(&mut client, "x");
    assert_eq!(producer.add(&mut client, 3, &[("t", 1)]), [0]);
    for (version, code) in [(9, INVALID_TXN_STATE), (11, TRANSACTION_ABORTABLE)] {
        assert_eq!(
            producer.produce(&mut client, version, 0, 0, &["a"]),
            (code, -1)
        );
    }
    assert_eq!(producer.produce(&mut client, 11, 1, 0, &["a"]), (0, 0));
    assert_eq!(
        producer.verify(&mut client, 4, &[0, 1]),
        [INVALID_TXN_STATE, 0]
    );
    assert_eq!(
        producer.verify(&mut client, 5, &[0, 1]),
        [TRANSACTION_ABORTABLE, 0]
    );
    for (version, code) in [(3, INVALID_TXN_STATE), (4, TRANSACTION_ABORTABLE)] {
        assert_eq!(producer.commit_offset(&mut client, version, 1), code);
    }
    // All are added or none.
    let codes = producer.add(&mut client, 3, &[("t", 0), ("none", 0)]);
    assert_eq!(codes, [OPERATION_NOT_ATTEMPTED, UNKNOWN_TOPIC_OR_PARTITION]);
    let codes = producer.add(&mut client, 3, &[("t", 0), ("t", -1)]);
    assert_eq!(codes, [OPERATION_NOT_ATTEMPTED, UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(
        producer.verify(&mut client, 5, &[0]),
        [TRANSACTION_ABORTABLE]
    );
    // A transactional batch belongs to somebody.
    let batch = transactional(&["a"], producer.producer_id, producer.epoch, 1);
    let nobody = client.call(9, &produce_request("t", 1, batch, -1));
    assert_eq!(
        first(&nobody).error_code,
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    );
    // What is not transactional is no part of it, whoever brings it.
    let request = produce_request("t", 0, common::batch(&["plain"]), -1)
        .with_transactional_id(Some(txn_id("x")));
    assert_eq!(first(&client.call(9, &request)).error_code, 0);
    assert_eq!(producer.end(&mut client, 4, true).error_code, 0);
    assert_eq!(committed(&mut client, 0), ["plain"]);
}

#[test]
fn a_successor_fences_and_what_was_open_is_aborted() {
    let (_gateway, mut client) = begin();
    let first = Producer::init(&mut client, "x");
    assert_eq!(first.add(&mut client, 3, &[("t", 0)]), [0]);
    assert_eq!(first.produce(&mut client, 9, 0, 0, &["a"]), (0, 0));
    let second = Producer::init(&mut client, "x");
    assert_eq!(second.producer_id, first.producer_id);
    assert!(second.epoch > first.epoch);
    assert_eq!(committed(&mut client, 0), [""; 0]);
    assert_eq!(latest(&mut client, 1, -1), 2);
    for (version, code) in [(1, INVALID_PRODUCER_EPOCH), (3, PRODUCER_FENCED)] {
        assert_eq!(first.add(&mut client, version, &[("t", 0)]), [code]);
        assert_eq!(first.add_offsets(&mut client, version), code);
        assert_eq!(first.end(&mut client, version, true).error_code, code);
    }
    assert_eq!(first.end(&mut client, 5, true).error_code, PRODUCER_FENCED);
    for version in [3, 5] {
        let code = first.commit_offset(&mut client, version, 1);
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "{version}");
    }
    for version in [9, 12] {
        let (code, _) = first.produce(&mut client, version, 0, 1, &["b"]);
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "{version}");
    }
    // Who says who it was is told that it is nobody any more; who it is, its next epoch (KIP-360).
    let was = Some((first.producer_id, first.epoch));
    for (version, code) in [(3, INVALID_PRODUCER_EPOCH), (4, PRODUCER_FENCED)] {
        let (told, _) = Producer::try_init(&mut client, version, "x", 60_000, was);
        assert_eq!(told, code);
    }
    let other = Some((first.producer_id + 1, first.epoch));
    let (told, _) = Producer::try_init(&mut client, 5, "x", 60_000, other);
    assert_eq!(told, PRODUCER_FENCED);
    let is = Some((second.producer_id, second.epoch));
    let (code, next) = Producer::try_init(&mut client, 5, "x", 60_000, is);
    assert_eq!((code, next.epoch), (0, second.epoch + 1));
    let (code, again) = Producer::try_init(&mut client, 5, "x", 60_000, is);
    assert_eq!((code, again), (0, next));
}

#[test]
fn what_makes_no_sense_has_kafkas_codes() {
    let (_gateway, mut client) = begin();
    for (id, timeout_ms, expected, code) in [
        ("", 60_000, None, INVALID_REQUEST),
        ("x", 0, None, INVALID_TRANSACTION_TIMEOUT),
        ("x", 900_001, None, INVALID_TRANSACTION_TIMEOUT),
        ("x", 60_000, Some((1, -1)), INVALID_REQUEST),
        ("x", 60_000, Some((-1, 1)), INVALID_REQUEST),
    ] {
        let (told, producer) = Producer::try_init(&mut client, 5, id, timeout_ms, expected);
        assert_eq!(
            (told, producer.producer_id),
            (code, -1),
            "{id} {timeout_ms}"
        );
    }
    let nobody = Producer {
        id: "none",
        producer_id: 5,
        epoch: 0,
    };
    assert_eq!(
        nobody.add(&mut client, 3, &[("t", 0)]),
        [INVALID_PRODUCER_ID_MAPPING]
    );
    assert_eq!(
        nobody.add_offsets(&mut client, 4),
        INVALID_PRODUCER_ID_MAPPING
    );
    assert_eq!(
        nobody.end(&mut client, 5, true).error_code,
        INVALID_PRODUCER_ID_MAPPING
    );
    let nameless = Producer { id: "", ..nobody };
    assert_eq!(nameless.add(&mut client, 3, &[("t", 0)]), [INVALID_REQUEST]);
    assert_eq!(
        nameless.end(&mut client, 5, true).error_code,
        INVALID_REQUEST
    );
    let producer = Producer::init(&mut client, "x");
    let other = Producer {
        producer_id: producer.producer_id + 1,
        ..producer
    };
    assert_eq!(
        other.end(&mut client, 3, true).error_code,
        INVALID_PRODUCER_ID_MAPPING
    );
    // Nothing has begun that could be ended.
    assert_eq!(
        producer.end(&mut client, 3, true).error_code,
        INVALID_TXN_STATE
    );
    // Once it has, no batch of its producer may be apart from it, with or without the transactional id.
    assert_eq!(producer.produce(&mut client, 12, 0, 0, &["a"]), (0, 0));
    let aside = |partition, sequence| {
        let (id, epoch) = (producer.producer_id, producer.epoch);
        produce_request("t", partition, sequenced(&["b"], id, epoch, sequence), -1)
    };
    for request in [
        aside(0, 1),
        aside(0, 1).with_transactional_id(Some(txn_id("x"))),
    ] {
        let answer = client.call(12, &request);
        assert_eq!(first(&answer).error_code, INVALID_TXN_STATE);
    }
    let answer = client.call(12, &aside(1, 0));
    assert_eq!(first(&answer).error_code, 0, "its transaction is not there");
}

#[test]
fn offsets_are_committed_with_the_transaction() {
    let (_gateway, mut client) = begin();
    let mut producer = Producer::init(&mut client, "x");
    assert_eq!(producer.add_offsets(&mut client, 4), 0);
    assert_eq!(producer.commit_offset(&mut client, 3, 5), 0);
    assert_eq!(group_offset(&mut client, false), (0, -1));
    assert_eq!(
        group_offset(&mut client, true),
        (UNSTABLE_OFFSET_COMMIT, -1)
    );
    assert_eq!(producer.end(&mut client, 3, true).error_code, 0);
    assert_eq!(group_offset(&mut client, true), (0, 5));
    // Without being added, from version 5 on; and an abort leaves what was.
    assert_eq!(producer.commit_offset(&mut client, 5, 8), 0);
    assert_eq!(group_offset(&mut client, false), (0, 5));
    assert_eq!(
        group_offset(&mut client, true),
        (UNSTABLE_OFFSET_COMMIT, -1)
    );
    let all = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_topics(None);
    let all = OffsetFetchRequest::default()
        .with_groups(vec![all])
        .with_require_stable(true);
    let told = client.call(8, &all);
    let one = &told.groups[0].topics[0].partitions[0];
    assert_eq!(
        (one.error_code, one.committed_offset),
        (UNSTABLE_OFFSET_COMMIT, -1)
    );
    producer.end_and_go_on(&mut client, false);
    assert_eq!(group_offset(&mut client, true), (0, 5));
    assert_eq!(producer.commit_offset(&mut client, 5, 9), 0);
    assert_eq!(producer.produce(&mut client, 12, 0, 0, &["a"]).0, 0);
    producer.end_and_go_on(&mut client, true);
    assert_eq!(group_offset(&mut client, true), (0, 9));
    assert_eq!(committed(&mut client, 0), ["a"]);
}

#[test]
fn transactions_and_producers_are_listed_and_described() {
    let (_gateway, mut client) = begin();
    let idle = Producer::init(&mut client, "idle");
    let busy = Producer::init(&mut client, "busy-1");
    assert_eq!(busy.produce(&mut client, 12, 0, 0, &["a", "b"]), (0, 0));
    assert_eq!(busy.commit_offset(&mut client, 5, 1), 0);
    let ids = ["busy-1", "idle", "none"].map(txn_id).to_vec();
    let described = client.call(
        0,
        &DescribeTransactionsRequest::default().with_transactional_ids(ids),
    );
    let [one, two, none] = &described.transaction_states[..] else {
        panic!("{described:?}");
    };
    assert_eq!(
        (one.error_code, one.transaction_state.as_str()),
        (0, "Ongoing")
    );
    assert_eq!(
        (one.producer_id.0, one.producer_epoch),
        (busy.producer_id, busy.epoch)
    );
    assert_eq!(one.transaction_timeout_ms, 60_000);
    assert!(one.transaction_start_time_ms > 1_700_000_000_000);
    let topics: Vec<(&str, &[i32])> = one
        .topics
        .iter()
        .map(|topic| (topic.topic.as_str(), &topic.partitions[..]))
        .collect();
    assert_eq!(topics, [("t", &[0][..]), ("__consumer_offsets", &[3])]);
    assert_eq!(
        (two.transaction_state.as_str(), two.topics.len()),
        ("Empty", 0)
    );
    assert_eq!(two.transaction_start_time_ms, -1);
    assert_eq!(none.error_code, TRANSACTIONAL_ID_NOT_FOUND);

    let list = |client: &mut Connection, version: i16, request: &ListTransactionsRequest| {
        let answer = client.call(version, request);
        let found: Vec<String> = answer
            .transaction_states
            .iter()
            .map(|one| {
                format!(
                    "{} {}",
                    one.transactional_id.as_str(),
                    one.transaction_state
                )
            })
            .collect();
        let unknown = answer
            .unknown_state_filters
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        (answer.error_code, found, unknown)
    };
    let every = ListTransactionsRequest::default().with_duration_filter(-1);
    let of = |found: &[&str]| {
        (
            0,
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            vec![],
        )
    };
    for version in 0..=2 {
        assert_eq!(
            list(&mut client, version, &every),
            of(&["busy-1 Ongoing", "idle Empty"])
        );
    }
    let ongoing = every
        .clone()
        .with_state_filters(vec![text("Ongoing"), text("Dead")]);
    assert_eq!(list(&mut client, 2, &ongoing), of(&["busy-1 Ongoing"]));
    let unknown = every.clone().with_state_filters(vec![text("nonsense")]);
    assert_eq!(
        list(&mut client, 2, &unknown),
        (0, vec![], vec!["nonsense".to_owned()])
    );
    let of_idle = every
        .clone()
        .with_producer_id_filters(vec![ProducerId(idle.producer_id)]);
    assert_eq!(list(&mut client, 0, &of_idle), of(&["idle Empty"]));
    let long = every
        .clone()
        .with_state_filters(vec![text("Ongoing")])
        .with_duration_filter(3_600_000);
    assert_eq!(list(&mut client, 1, &long), of(&[]));
    let pattern = |pattern| {
        every
            .clone()
            .with_transactional_id_pattern(Some(text(pattern)))
    };
    assert_eq!(
        list(&mut client, 2, &pattern("busy-.*")),
        of(&["busy-1 Ongoing"])
    );
    assert_eq!(list(&mut client, 2, &pattern("busy")), of(&[]));
    assert_eq!(
        list(&mut client, 2, &pattern("(")).0,
        INVALID_REGULAR_EXPRESSION
    );

    let topic = |name_of: &str, partitions: Vec<i32>| {
        describe_producers_request::TopicRequest::default()
            .with_name(name(name_of))
            .with_partition_indexes(partitions)
    };
    let request = DescribeProducersRequest::default()
        .with_topics(vec![topic("t", vec![0, 1, 9]), topic("none", vec![0])]);
    let answer = client.call(0, &request);
    let partitions = &answer.topics[0].partitions;
    let [one] = &partitions[0].active_producers[..] else {
        panic!("{answer:?}");
    };
    assert_eq!(
        (one.producer_id.0, one.producer_epoch),
        (busy.producer_id, busy.epoch.into())
    );
    assert_eq!((one.last_sequence, one.current_txn_start_offset), (1, 0));
    assert!(partitions[1].active_producers.is_empty());
    assert_eq!(partitions[2].error_code, UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(
        answer.topics[1].partitions[0].error_code,
        UNKNOWN_TOPIC_OR_PARTITION
    );
}

#[test]
fn a_transaction_that_stays_open_is_aborted_in_time() {
    let (gateway, mut client) = begin();
    let (code, producer) = Producer::try_init(&mut client, 5, "x", 200, None);
    assert_eq!(code, 0);
    assert_eq!(producer.produce(&mut client, 12, 0, 0, &["a"]), (0, 0));
    assert_eq!(client.produce("t", 0, batch(&["plain"])).base_offset, 1);
    let mut reader = gateway.connect();
    reader.send(12, &fetch_request(0, 0, true).with_max_wait_ms(20_000));
    let found = reader.receive::<FetchRequest>(12).1;
    let found = delivered(&found.responses[0].partitions[0]);
    assert_eq!(found, [(1, "plain".to_owned())]);
    // Its producer is fenced, and begins anew.
    assert_eq!(
        producer.end(&mut client, 5, true).error_code,
        PRODUCER_FENCED
    );
    let (code, _) = producer.produce(&mut client, 12, 0, 1, &["b"]);
    assert_eq!(code, INVALID_PRODUCER_EPOCH);
    let next = Producer::init(&mut client, "x");
    assert!(next.epoch > producer.epoch);
}
