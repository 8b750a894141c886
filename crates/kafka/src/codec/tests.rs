//! Our codecs of Produce and Fetch, against `kafka-protocol` in every version, and against any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use mainstem::broker::Piece;
use proptest::prelude::*;
use uuid::Uuid;

use super::{fetch, produce};
use crate::topic_ref::TopicRef;
use crate::wire::{Reader, Writer};

/// A partition's number and its records.
type Data = (i32, Option<Vec<u8>>);
/// A topic's name, its id, and its partitions.
type Named = (String, u128, Vec<Data>);

fn topics() -> impl Strategy<Value = Vec<Named>> {
    let records = prop::option::of(prop::collection::vec(any::<u8>(), 0..50));
    let partitions = prop::collection::vec((0..100_i32, records), 0..4);
    prop::collection::vec(("[a-z]{1,9}", any::<u128>(), partitions), 0..4)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn joined(pieces: Vec<Piece>) -> Bytes {
    let bytes = pieces.iter().map(|piece| match piece {
        Piece::Memory(bytes) => bytes.clone(),
        Piece::File(slice) => slice.read().unwrap(),
    });
    Bytes::from(bytes.collect::<Vec<_>>().concat())
}

proptest! {
    #[test]
    fn produce_requests_are_read_as_they_are_written(
        topics in topics(), acks in -1..=1_i16, id in prop::option::of("[a-z]{0,5}"), version in 3..=13_i16,
    ) {
        let by_id = version >= 13;
        let topic = |(name, id, partitions): &Named| {
            let partition = |(index, records): &Data| PartitionProduceData::default()
                .with_index(*index)
                .with_records(records.clone().map(Bytes::from));
            let topic = TopicProduceData::default().with_partition_data(partitions.iter().map(partition).collect());
            if by_id { topic.with_topic_id(Uuid::from_u128(*id)) } else { topic.with_name(topic_name(name)) }
        };
        let written = ProduceRequest::default()
            .with_transactional_id(id.clone().map(|id| TransactionalId(StrBytes::from_string(id))))
            .with_acks(acks)
            .with_timeout_ms(7)
            .with_topic_data(topics.iter().map(topic).collect());
        let mut bytes = BytesMut::new();
        written.encode(&mut bytes, version).unwrap();
        let bytes = bytes.freeze();
        let mut reader = Reader::new(&bytes, version >= 9);
        let read = produce::Request::read(&mut reader, version).unwrap();
        prop_assert_eq!(reader.left(), 0);
        prop_assert_eq!((read.acks, read.timeout_ms, read.transactional_id), (acks, 7, id));
        prop_assert_eq!(read.topics.len(), topics.len());
        for (read, (name, id, partitions)) in read.topics.iter().zip(&topics) {
            let wanted = if by_id { TopicRef::Id(*id) } else { TopicRef::Name(name.as_str().into()) };
            prop_assert_eq!(&read.topic, &wanted);
            let read: Vec<_> = read.partitions.iter().map(|one| (one.index, one.records.as_ref().map(|bytes| bytes.to_vec()))).collect();
            prop_assert_eq!(&read, partitions);
        }
    }

    #[test]
    fn produce_responses_are_what_clients_read(
        error_code in any::<i16>(), base_offset in any::<i64>(), message in prop::option::of("[a-z]{0,9}"),
        record_errors in prop::collection::vec((any::<i32>(), "[a-z]{0,9}"), 0..3), version in 3..=13_i16,
    ) {
        let by_id = version >= 13;
        let topic = if by_id { TopicRef::Id(5) } else { TopicRef::Name("t".into()) };
        let result = produce::PartitionResult {
            index: 3, error_code, base_offset, append_time_ms: 11, log_start: 2,
            record_errors: record_errors.clone(), message: message.clone(),
        };
        let results = [produce::TopicResult { topic, partitions: vec![result.clone(), result] }];
        let mut writer = Writer::new(version >= 9);
        produce::write(&mut writer, version, &results);
        let mut bytes = joined(writer.finish());
        let read = ProduceResponse::decode(&mut bytes, version).unwrap();
        prop_assert!(bytes.is_empty());
        let topic = &read.responses[0];
        prop_assert_eq!(topic.partition_responses.len(), 2);
        let one = &topic.partition_responses[1];
        prop_assert_eq!((one.index, one.error_code, one.base_offset, one.log_append_time_ms), (3, error_code, base_offset, 11));
        prop_assert_eq!(one.log_start_offset, if version >= 5 { 2 } else { -1 });
        let told = one.error_message.as_ref().map(ToString::to_string);
        prop_assert_eq!(told, message.filter(|_| version >= 8));
        let of_records = one.record_errors.iter();
        let of_records: Vec<_> = of_records.map(|one| {
            (one.batch_index, one.batch_index_error_message.as_ref().unwrap().to_string())
        }).collect();
        prop_assert_eq!(of_records, if version >= 8 { record_errors } else { Vec::new() });
        if by_id {
            prop_assert_eq!(topic.topic_id, Uuid::from_u128(5));
        } else {
            prop_assert_eq!(topic.name.as_str(), "t");
        }
    }

    #[test]
    fn fetch_requests_are_read_as_they_are_written(
        topics in topics(), session in any::<(i32, i32)>(), offset in any::<i64>(), version in 4..=18_i16,
    ) {
        let by_id = version >= 13;
        let topic = |(name, id, partitions): &Named| {
            let partition = |(index, _): &Data| {
                let partition = FetchPartition::default().with_partition(*index).with_fetch_offset(offset)
                    .with_partition_max_bytes(99);
                if version >= 9 { partition.with_current_leader_epoch(4) } else { partition }
            };
            let topic = FetchTopic::default().with_partitions(partitions.iter().map(partition).collect());
            if by_id { topic.with_topic_id(Uuid::from_u128(*id)) } else { topic.with_topic(topic_name(name)) }
        };
        let mut written = FetchRequest::default()
            .with_max_wait_ms(5).with_min_bytes(6).with_max_bytes(7).with_isolation_level(1)
            .with_topics(topics.iter().map(topic).collect());
        if version <= 14 {
            written.replica_id = BrokerId(-1);
        }
        if version >= 7 {
            (written.session_id, written.session_epoch) = session;
            let forgotten = ForgottenTopic::default().with_partitions(vec![8, 9]);
            let forgotten = if by_id { forgotten.with_topic_id(Uuid::from_u128(3)) } else { forgotten.with_topic(topic_name("f")) };
            written.forgotten_topics_data = vec![forgotten];
        }
        let mut bytes = BytesMut::new();
        written.encode(&mut bytes, version).unwrap();
        let bytes = bytes.freeze();
        let mut reader = Reader::new(&bytes, version >= 12);
        let read = fetch::Request::read(&mut reader, version).unwrap();
        prop_assert_eq!(reader.left(), 0);
        prop_assert_eq!((read.max_wait_ms, read.min_bytes, read.max_bytes, read.read_committed), (5, 6, 7, true));
        let expected = if version >= 7 { session } else { (0, -1) };
        prop_assert_eq!((read.session_id, read.session_epoch), expected);
        prop_assert_eq!(read.forgotten.iter().map(|one| one.partitions.clone()).collect::<Vec<_>>(),
            if version >= 7 { vec![vec![8, 9]] } else { vec![] });
        for (read, (name, id, partitions)) in read.topics.iter().zip(&topics) {
            let wanted = if by_id { TopicRef::Id(*id) } else { TopicRef::Name(name.as_str().into()) };
            prop_assert_eq!(&read.topic, &wanted);
            for (read, (index, _)) in read.partitions.iter().zip(partitions) {
                let epoch = if version >= 9 { 4 } else { -1 };
                prop_assert_eq!((read.index, read.offset, read.max_bytes, read.leader_epoch), (*index, offset, 99, epoch));
            }
        }
    }

    #[test]
    fn fetch_responses_are_what_clients_read(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
        aborted in prop::option::of(prop::collection::vec(any::<(i64, i64)>(), 0..4)), version in 4..=18_i16,
    ) {
        let by_id = version >= 13;
        let topic = if by_id { TopicRef::Id(5) } else { TopicRef::Name("t".into()) };
        let result = fetch::PartitionResult {
            index: 3, error_code: 1, high_watermark: 9, last_stable: 8, log_start: 2,
            aborted: aborted.clone(),
            records: records.iter().cloned().map(|bytes| Bytes::from(bytes).into()).collect(),
        };
        let response = fetch::Response {
            error_code: 0, session_id: 77,
            topics: vec![fetch::TopicResult { topic, partitions: vec![result.clone(), result] }],
        };
        let mut writer = Writer::new(version >= 12);
        response.write(&mut writer, version);
        let mut bytes = joined(writer.finish());
        let read = FetchResponse::decode(&mut bytes, version).unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(read.session_id, if version >= 7 { 77 } else { 0 });
        for one in &read.responses[0].partitions {
            prop_assert_eq!((one.partition_index, one.error_code, one.high_watermark, one.last_stable_offset), (3, 1, 9, 8));
            prop_assert_eq!(one.records.as_ref().unwrap().to_vec(), records.concat());
            let told = one.aborted_transactions.as_ref();
            let told = told.map(|all| all.iter().map(|one| (one.first_offset, one.producer_id.0)).collect::<Vec<_>>());
            prop_assert_eq!(&told, &aborted);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 3..=18_i16) {
        let bytes = Bytes::from(bytes);
        let _ = produce::Request::read(&mut Reader::new(&bytes, version >= 9), version.min(13));
        let _ = fetch::Request::read(&mut Reader::new(&bytes, version >= 12), version.max(4));
    }

    #[test]
    fn a_request_that_is_cut_anywhere_is_refused(topics in topics(), version in 3..=12_i16, at in any::<prop::sample::Index>()) {
        let topic = |(name, _, partitions): &Named| {
            let partition = |(index, records): &Data| PartitionProduceData::default()
                .with_index(*index).with_records(records.clone().map(Bytes::from));
            TopicProduceData::default().with_name(topic_name(name)).with_partition_data(partitions.iter().map(partition).collect())
        };
        let written = ProduceRequest::default().with_topic_data(topics.iter().map(topic).collect());
        let mut bytes = BytesMut::new();
        written.encode(&mut bytes, version).unwrap();
        let bytes = bytes.freeze();
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert!(produce::Request::read(&mut Reader::new(&cut, version >= 9), version).is_err());
    }
}
