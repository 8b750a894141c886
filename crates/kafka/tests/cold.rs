//! Fetching what stands in segments alone, and clients that do not take it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Connection, Gateway, batch, name, text};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use mainstem::broker::{Piece, PieceLimits};
use mainstem::record::Batch;

const PARTITIONS: i32 = 3;
/// Of each partition; with 3 records each, of 4 KiB to 64 KiB.
const BATCHES: usize = 260;
const RECORDS: i64 = 3;

/// Each batch of each partition, as it is to come: its base offset is its place's.
type Written = Vec<Vec<Bytes>>;

/// A gateway that has a topic `t` of several segments a partition, and nothing of it in memory.
fn cold() -> (Gateway, Written) {
    let (gateway, written) = warm();
    (gateway.restart(), written)
}

/// The same with what has been written still in memory.
fn warm() -> (Gateway, Written) {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let config = CreatableTopicConfig::default()
        .with_name(text("segment.bytes"))
        .with_value(Some(text("1048576")));
    let topic = CreatableTopic::default()
        .with_name(name("t"))
        .with_num_partitions(PARTITIONS)
        .with_replication_factor(-1)
        .with_configs(vec![config]);
    let create = CreateTopicsRequest::default().with_topics(vec![topic]);
    assert_eq!(client.call(7, &create).topics[0].error_code, 0);
    let mut written = Written::new();
    for partition in 0..PARTITIONS {
        let mut batches = Vec::new();
        for index in 0..BATCHES {
            let size = 1_000 + (index * 7_919 + partition as usize * 104_729) % 20_000;
            let value = format!("{partition}/{index}/").repeat(size / 6);
            let sent = batch(&[&value, "", &value]);
            let produced = client.produce("t", partition, sent.clone());
            assert_eq!(
                (produced.error_code, produced.base_offset),
                (0, index as i64 * RECORDS)
            );
            let mut stored = sent.to_vec();
            stored[..8].copy_from_slice(&produced.base_offset.to_be_bytes());
            stored[12..16].copy_from_slice(&0_i32.to_be_bytes());
            batches.push(stored.into());
        }
        written.push(batches);
    }
    drop(client);
    (gateway, written)
}

fn fetch_of(partitions: &[(i32, i64)], partition_bytes: i32, max_bytes: i32) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(partition_bytes)
    };
    let topic = FetchTopic::default()
        .with_topic(name("t"))
        .with_partitions(partitions.iter().map(partition).collect());
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_topics(vec![topic])
}

/// Everything of a partition from an offset on.
fn rest_of(written: &Written, partition: i32, offset: i64) -> Vec<u8> {
    written[partition as usize][(offset / RECORDS) as usize..].concat()
}

/// How far the records go, which must be what was written from the batch on that holds `offset`.
fn check(written: &Written, partition: i32, offset: i64, records: &Option<Bytes>) -> i64 {
    let bytes = records.clone().unwrap_or_default();
    let rest = rest_of(written, partition, offset);
    assert!(
        rest.starts_with(&bytes),
        "partition {partition}, offset {offset}"
    );
    let (mut rest, mut next) = (bytes, offset);
    while let Some(batch) = Batch::split_first(&mut rest).unwrap() {
        next = batch.next_offset();
    }
    next
}

#[test]
fn records_in_files_come_as_they_were_written_over_the_bounds_of_segments() {
    let (gateway, written) = cold();
    if cfg!(target_os = "linux") {
        // It is the system that sends them.
        let caller = mainstem::Caller::anonymous();
        let broker = gateway.mainstem.broker();
        let topic = broker.topic(&caller, "t").unwrap();
        let limits = PieceLimits {
            max_bytes: 1 << 20,
            max_memory_bytes: 1 << 20,
            at_least_one: true,
            stable: false,
            files: true,
        };
        let found = broker.fetch_pieces(&caller, &topic, 0, 0, &limits).unwrap();
        assert!(matches!(found.pieces[0], Piece::File(_)), "{found:?}");
    }
    let mut client = gateway.connect();
    for (partition_bytes, max_bytes) in [
        (1, 1),
        (50_000, 1 << 20),
        (1 << 20, 50 << 20),
        (50 << 20, 2 << 20),
    ] {
        // From the middle of a batch on.
        let mut next = vec![1_i64; PARTITIONS as usize];
        let end = BATCHES as i64 * RECORDS;
        let mut turn = 0;
        while next.iter().any(|next| *next < end) {
            // Each has its turn to be the first.
            turn += 1;
            let order = (0..PARTITIONS).map(|index| (index + turn) % PARTITIONS);
            let wanted: Vec<(i32, i64)> =
                order.map(|index| (index, next[index as usize])).collect();
            let fetched = client.call(12, &fetch_of(&wanted, partition_bytes, max_bytes));
            let mut bytes = 0;
            let mut moved = false;
            for found in &fetched.responses[0].partitions {
                assert_eq!((found.error_code, found.high_watermark), (0, end));
                let index = found.partition_index;
                let from = next[index as usize];
                let upto = check(&written, index, from, &found.records);
                next[index as usize] = upto;
                moved |= upto > from;
                bytes += found.records.as_ref().map_or(0, Bytes::len);
            }
            assert!(moved, "at least one batch comes");
            assert!(
                bytes <= (max_bytes as usize).max(50_000),
                "{bytes} of {max_bytes}"
            );
            if max_bytes == 50 << 20 && turn == 1 {
                assert!(
                    bytes > 2_000_000,
                    "an answer is not bounded by memory: {bytes}"
                );
            }
        }
    }
}

/// A client that has asked for everything, more than sockets keep for it, and has read only the beginning.
struct Begun {
    client: Connection,
    head: Vec<u8>,
    length: usize,
}

fn begin(gateway: &Gateway) -> Begun {
    let mut client = gateway.connect();
    let socket = socket2::SockRef::from(&client.stream);
    // More than a packet of the loopback device, and little.
    socket.set_recv_buffer_size(128 << 10).unwrap();
    client.send(12, &fetch_of(&[(2, 0), (0, 1), (1, 2)], 50 << 20, 50 << 20));
    let mut head = vec![0; 5_000];
    client.stream.read_exact(&mut head).unwrap();
    let length = i32::from_be_bytes(*head.first_chunk().unwrap()) as usize + 4;
    assert!(length > 10 << 20, "{length}");
    Begun {
        client,
        head,
        length,
    }
}

impl Begun {
    /// Reads the rest, which must be everything.
    fn finish(mut self, written: &Written) -> Connection {
        let mut answer = self.head;
        let read = answer.len();
        answer.resize(self.length, 0);
        self.client.stream.read_exact(&mut answer[read..]).unwrap();
        let mut answer = Bytes::from(answer).split_off(4);
        ResponseHeader::decode(&mut answer, 1).unwrap();
        let fetched = FetchResponse::decode(&mut answer, 12).unwrap();
        assert_eq!(fetched.responses[0].partitions.len(), 3);
        for found in &fetched.responses[0].partitions {
            let upto = check(written, found.partition_index, 0, &found.records);
            assert_eq!(upto, BATCHES as i64 * RECORDS);
        }
        self.client
    }
}

#[test]
fn a_client_that_stops_in_the_middle_of_an_answer_holds_up_nobody_and_can_go_on() {
    let (gateway, written) = cold();
    let stopped: Vec<_> = (0..8).map(|_| begin(&gateway)).collect();
    let mut client = gateway.connect();
    let fetched = client.call(12, &fetch_of(&[(1, 0)], 50 << 20, 50 << 20));
    let found = &fetched.responses[0].partitions[0];
    assert_eq!(
        check(&written, 1, 0, &found.records),
        BATCHES as i64 * RECORDS
    );
    assert_eq!(client.produce("t", 0, batch(&["x"])).error_code, 0);
    for begun in stopped {
        begun.finish(&written);
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_an_answer_leaves_nothing_behind() {
    let (gateway, written) = cold();
    for _ in 0..20 {
        drop(begin(&gateway));
    }
    let mut client = gateway.connect();
    let fetched = client.call(12, &fetch_of(&[(0, 0)], 50 << 20, 50 << 20));
    let found = &fetched.responses[0].partitions[0];
    assert_eq!(
        check(&written, 0, 0, &found.records),
        BATCHES as i64 * RECORDS
    );
}

#[test]
fn records_that_are_deleted_while_they_are_sent_come_all_the_same() {
    let (gateway, written) = cold();
    let begun = begin(&gateway);
    let mut client = gateway.connect();
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(0)
        .with_offset(-1);
    let topic = DeleteRecordsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let delete = DeleteRecordsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    let deleted = client.call(2, &delete);
    assert_eq!(deleted.topics[0].partitions[0].error_code, 0);
    let topic = DeleteTopicsRequest::default()
        .with_timeout_ms(10_000)
        .with_topic_names(vec![name("t")]);
    assert_eq!(client.call(5, &topic).responses[0].error_code, 0);
    let mut reader = begun.finish(&written);
    // The same connection is told that there is nothing any more.
    let gone = reader.call(12, &fetch_of(&[(0, 0)], 1 << 20, 1 << 20));
    assert_eq!(gone.responses[0].partitions[0].error_code, 3);
}

/// The files of a partition of the only topic, oldest first.
fn segments(dir: &Path, partition: i32) -> Vec<PathBuf> {
    let topics = std::fs::read_dir(dir.join("topics")).unwrap();
    let topic = topics.map(|entry| entry.unwrap().path()).next().unwrap();
    let files = std::fs::read_dir(topic.join(partition.to_string())).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}

#[test]
fn what_cannot_be_sent_ends_the_connection_once_and_is_named_from_then_on() {
    let (gateway, written) = cold();
    let wanted = fetch_of(&[(0, 0), (1, 0), (2, 0)], 50 << 20, 50 << 20);
    let mut client = gateway.connect();
    let fetched = client.call(12, &wanted);
    for found in &fetched.responses[0].partitions {
        assert_eq!(found.error_code, 0);
    }
    // All of it has been checked; now some of it is lost.
    let path = segments(gateway.dir(), 1).remove(0);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(500_000).unwrap();
    client.send(12, &wanted);
    if cfg!(target_os = "linux") {
        assert!(client.frame().is_none(), "the answer cannot be completed");
    }
    let mut client = gateway.connect();
    let fetched = client.call(12, &wanted);
    let [first, damaged, last] = fetched.responses[0].partitions.as_slice() else {
        panic!("all three are told of");
    };
    assert_eq!((first.error_code, last.error_code), (0, 0));
    let end = BATCHES as i64 * RECORDS;
    assert_eq!(check(&written, 0, 0, &first.records), end);
    assert_eq!(check(&written, 2, 0, &last.records), end);
    assert_eq!(damaged.error_code, 2);
}

#[test]
fn damage_ahead_keeps_back_nothing_that_stands_before_it() {
    let (gateway, written) = warm();
    let gateway = gateway.restart_after(|dir| {
        let path = segments(dir, 1).remove(1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    });
    let path = segments(gateway.dir(), 1).remove(1);
    let damaged_at: i64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut client = gateway.connect();
    // It is to wait for more than it finds before the damage, and does not.
    let wait = |offset| {
        fetch_of(&[(1, offset)], 50 << 20, 50 << 20)
            .with_min_bytes(50 << 20)
            .with_max_wait_ms(60_000)
    };
    let fetched = client.call(12, &wait(0));
    let found = &fetched.responses[0].partitions[0];
    assert_eq!(found.error_code, 0);
    assert_eq!(check(&written, 1, 0, &found.records), damaged_at);
    let fetched = client.call(12, &wait(damaged_at));
    let found = &fetched.responses[0].partitions[0];
    assert_eq!(found.error_code, 2);
}

#[test]
fn damage_is_an_error_of_its_partition_before_a_byte_of_it_is_sent() {
    let (gateway, written) = warm();
    let gateway = gateway.restart_after(|dir| {
        let path = segments(dir, 1).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    });
    let mut client = gateway.connect();
    let wanted = [(0, 0), (1, 0), (2, 0)];
    let fetched = client.call(12, &fetch_of(&wanted, 50 << 20, 50 << 20));
    let [first, damaged, last] = fetched.responses[0].partitions.as_slice() else {
        panic!("all three are told of");
    };
    assert_eq!((first.error_code, last.error_code), (0, 0));
    let end = BATCHES as i64 * RECORDS;
    assert_eq!(check(&written, 0, 0, &first.records), end);
    assert_eq!(check(&written, 2, 0, &last.records), end);
    assert_eq!(damaged.error_code, 2);
    assert!(damaged.records.as_ref().is_none_or(Bytes::is_empty));
}

/// A produce of so many bytes, with its length, which is refused and answered.
fn large_request(bytes: usize) -> Vec<u8> {
    let mut frame = bytes::BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(0)
        .with_request_api_version(9)
        .with_correlation_id(1);
    header.encode(&mut frame, 2).unwrap();
    let records = Bytes::from(vec![0; bytes]);
    let produce = common::produce_request("none", 0, records, -1);
    produce.encode(&mut frame, 9).unwrap();
    let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
    [&length[..], &frame].concat()
}

#[test]
fn clients_that_announce_much_and_are_silent_hold_up_nobody() {
    let gateway = Gateway::start();
    // Together twenty times what there is room for.
    let request = large_request(5 << 20);
    let mut silent: Vec<Connection> = (0..40).map(|_| gateway.connect()).collect();
    for client in &mut silent {
        client.stream.write_all(&request[..100]).unwrap();
    }
    let mut client = gateway.connect();
    assert_eq!(client.produce("none", 0, batch(&["x"])).error_code, 3);
    client.stream.write_all(&request).unwrap();
    assert!(client.frame().is_some(), "a large one is served as well");
    // None of them was left for it: each still gets its answer.
    for client in &mut silent[..2] {
        client.stream.write_all(&request[100..]).unwrap();
        assert!(client.frame().is_some());
    }
}

#[test]
fn requests_that_come_at_the_same_time_and_are_more_than_there_is_room_for_are_all_answered() {
    let gateway = Gateway::start();
    let request = large_request(3 << 20);
    let (begin, rest) = request.split_at(request.len() / 2);
    let mut clients: Vec<Connection> = (0..8).map(|_| gateway.connect()).collect();
    // All have begun theirs before any has the rest.
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| client.stream.write_all(begin).unwrap());
        }
    });
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                client.stream.write_all(rest).unwrap();
                assert!(client.frame().is_some());
            });
        }
    });
}
