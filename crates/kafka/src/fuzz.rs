//! What becomes of bytes from outside, one function for each that reads them: the targets of `make fuzz`, whose engine looks
//! for new paths through them. The tests here run them over the kept seeds. They need nothing of the platform, so that the
//! project in `fuzz/` takes this file as it is.
//!
//! Each is to end without a panic, and without taking more memory than [`within`] allows for so many bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use mainstem_record::{Batch, Compression};

use crate::codec::{fetch as fetch_codec, produce as produce_codec};
use crate::frame;
use crate::shape::{self, Shape};
use crate::shapes;
use crate::wire::Reader;

/// What the broker reads of the subscriptions in joins.
#[allow(dead_code)]
#[path = "../../broker/src/groups/subscription.rs"]
mod subscription;

/// The largest frame, as `socket.request.max.bytes` would say.
const FRAME_BYTES: usize = 16 << 20;
/// What a batch may have when decompressed.
const DECOMPRESSED_BYTES: usize = 1 << 20;
/// Memory for one byte of a control request at most: an item of an array is a structure of some hundred bytes, and has one
/// byte on the wire at the least.
const BYTES_FOR_A_BYTE: usize = 512;
/// What is taken whatever a frame holds: its first buffer, and a decoder's own state.
const BYTES_FOR_NOTHING: usize = 2 << 20;
/// The largest blocks of LZ4, and tables of gzip.
const CODEC_BYTES: usize = 18 << 20;

/// A control request: how it is looked over, and what decodes it then.
struct Control {
    key: i16,
    versions: (i16, i16),
    flexible: fn(i16) -> bool,
    shape: Shape,
    /// Whether it could be.
    decode: fn(Bytes, i16) -> bool,
}

macro_rules! controls {
    ($($key:literal $versions:tt $shape:ident $message:ident,)*) => {
        const CONTROLS: &[Control] = &[$(Control {
            key: $key,
            versions: $versions,
            flexible: |version| $message::header_version(version) == 2,
            shape: shapes::$shape,
            decode: |mut body, version| $message::decode(&mut body, version).is_ok(),
        },)*];
    };
}

// As the table in `api.rs` has them; a test says what is missing here. The seeds name them by their place: new ones come last.
controls! {
    2 (1, 10) LIST_OFFSETS ListOffsetsRequest,
    3 (0, 13) METADATA MetadataRequest,
    8 (2, 9) OFFSET_COMMIT OffsetCommitRequest,
    9 (1, 9) OFFSET_FETCH OffsetFetchRequest,
    10 (0, 6) FIND_COORDINATOR FindCoordinatorRequest,
    11 (0, 9) JOIN_GROUP JoinGroupRequest,
    12 (0, 4) HEARTBEAT HeartbeatRequest,
    13 (0, 5) LEAVE_GROUP LeaveGroupRequest,
    14 (0, 5) SYNC_GROUP SyncGroupRequest,
    15 (0, 6) DESCRIBE_GROUPS DescribeGroupsRequest,
    16 (0, 5) LIST_GROUPS ListGroupsRequest,
    18 (0, 4) API_VERSIONS ApiVersionsRequest,
    19 (2, 7) CREATE_TOPICS CreateTopicsRequest,
    20 (1, 6) DELETE_TOPICS DeleteTopicsRequest,
    21 (0, 2) DELETE_RECORDS DeleteRecordsRequest,
    22 (0, 5) INIT_PRODUCER_ID InitProducerIdRequest,
    23 (2, 4) OFFSET_FOR_LEADER_EPOCH OffsetForLeaderEpochRequest,
    29 (1, 3) DESCRIBE_ACLS DescribeAclsRequest,
    30 (1, 3) CREATE_ACLS CreateAclsRequest,
    31 (1, 3) DELETE_ACLS DeleteAclsRequest,
    32 (1, 4) DESCRIBE_CONFIGS DescribeConfigsRequest,
    33 (0, 2) ALTER_CONFIGS AlterConfigsRequest,
    35 (1, 4) DESCRIBE_LOG_DIRS DescribeLogDirsRequest,
    37 (0, 3) CREATE_PARTITIONS CreatePartitionsRequest,
    42 (0, 2) DELETE_GROUPS DeleteGroupsRequest,
    43 (0, 2) ELECT_LEADERS ElectLeadersRequest,
    44 (0, 1) INCREMENTAL_ALTER_CONFIGS IncrementalAlterConfigsRequest,
    45 (0, 1) ALTER_PARTITION_REASSIGNMENTS AlterPartitionReassignmentsRequest,
    46 (0, 0) LIST_PARTITION_REASSIGNMENTS ListPartitionReassignmentsRequest,
    47 (0, 0) OFFSET_DELETE OffsetDeleteRequest,
    60 (0, 2) DESCRIBE_CLUSTER DescribeClusterRequest,
    75 (0, 0) DESCRIBE_TOPIC_PARTITIONS DescribeTopicPartitionsRequest,
    24 (0, 5) ADD_PARTITIONS_TO_TXN AddPartitionsToTxnRequest,
    25 (0, 4) ADD_OFFSETS_TO_TXN AddOffsetsToTxnRequest,
    26 (0, 5) END_TXN EndTxnRequest,
    28 (0, 5) TXN_OFFSET_COMMIT TxnOffsetCommitRequest,
    61 (0, 0) DESCRIBE_PRODUCERS DescribeProducersRequest,
    65 (0, 0) DESCRIBE_TRANSACTIONS DescribeTransactionsRequest,
    66 (0, 2) LIST_TRANSACTIONS ListTransactionsRequest,
    68 (0, 1) CONSUMER_GROUP_HEARTBEAT ConsumerGroupHeartbeatRequest,
    69 (0, 1) CONSUMER_GROUP_DESCRIBE ConsumerGroupDescribeRequest,
}

pub(crate) type Target = fn(&[u8]);

/// Every target, by its name.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("frame", frame),
    ("produce", produce),
    ("fetch", fetch),
    ("control", control),
    ("batch", batch),
    ("subscription", subscribed),
];

/// What a connection sends: a length, and a frame of whichever request.
pub(crate) fn frame(stream: &[u8]) {
    within(stream, 0, || {
        let (prefix, mut rest) = stream.split_first_chunk()?;
        let length = frame::length(*prefix, FRAME_BYTES)?;
        let mut bytes = BytesMut::new();
        while bytes.len() < length && !rest.is_empty() {
            let room = frame::next_step(bytes.len(), length) - bytes.len();
            bytes.reserve(room);
            let (come, later) = rest.split_at(room.min(rest.len()));
            bytes.extend_from_slice(come);
            rest = later;
        }
        let bytes = (bytes.len() == length).then(|| bytes.freeze())?;
        let header = frame::Header::read(&bytes).ok()?;
        let version = header.version;
        match header.api_key {
            0 => produced(header.body(&bytes, version >= 9).ok()?, version),
            1 => fetched(header.body(&bytes, version >= 12).ok()?, version),
            key => {
                let api = CONTROLS.iter().find(|one| one.key == key)?;
                let served = (api.versions.0..=api.versions.1).contains(&version);
                let body = header.body(&bytes, served && (api.flexible)(version));
                served.then(|| controlled(api, body.ok()?, version))?
            }
        }
    });
}

/// A version, and the body of a produce request.
pub(crate) fn produce(bytes: &[u8]) {
    within(bytes, 0, || {
        let (version, body) = bytes.split_first()?;
        let version = 3 + i16::from(version % 11);
        produced(Bytes::copy_from_slice(body), version)
    });
}

/// A version, and the body of a fetch request.
pub(crate) fn fetch(bytes: &[u8]) {
    within(bytes, 0, || {
        let (version, body) = bytes.split_first()?;
        let version = 4 + i16::from(version % 15);
        fetched(Bytes::copy_from_slice(body), version)
    });
}

/// Which control request, its version, and its body.
pub(crate) fn control(bytes: &[u8]) {
    within(bytes, 0, || {
        let ([which, version], body) = bytes.split_first_chunk()?;
        let api = CONTROLS.get(usize::from(*which) % CONTROLS.len())?;
        let (from, to) = api.versions;
        let version = from + i16::from(*version) % (to - from + 1);
        controlled(api, Bytes::copy_from_slice(body), version)
    });
}

fn produced(body: Bytes, version: i16) -> Option<()> {
    let mut reader = Reader::new(&body, version >= 9);
    let request = produce_codec::Request::read(&mut reader, version).ok()?;
    let partitions = request.topics.into_iter().flat_map(|one| one.partitions);
    for records in partitions.filter_map(|one| one.records) {
        let _ = Batch::parse(records);
    }
    Some(())
}

fn fetched(body: Bytes, version: i16) -> Option<()> {
    let mut reader = Reader::new(&body, version >= 12);
    fetch_codec::Request::read(&mut reader, version).ok()?;
    Some(())
}

fn controlled(api: &Control, body: Bytes, version: i16) -> Option<()> {
    let reader = Reader::new(&body, (api.flexible)(version));
    shape::check(reader, api.shape, version).ok()?;
    // What has the right shape may still not be UTF-8, or be null where it may not.
    let _ = (api.decode)(body, version);
    Some(())
}

/// A batch: as it is, and with its length and CRC set right, so that what lies behind these is reached.
pub(crate) fn batch(bytes: &[u8]) {
    const LENGTH: std::ops::Range<usize> = 8..12;
    const CRC: std::ops::Range<usize> = 17..21;
    within(bytes, DECOMPRESSED_BYTES * 4 + CODEC_BYTES, || {
        batches(Bytes::copy_from_slice(bytes));
        let mut right = bytes.to_vec();
        let length = i32::try_from(right.len().checked_sub(LENGTH.end)?).ok()?;
        right
            .get_mut(LENGTH)?
            .copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(right.get(CRC.end..)?);
        right.get_mut(CRC)?.copy_from_slice(&crc.to_be_bytes());
        batches(right.into());
        Some(())
    });
}

/// As a producer's and as a reader's.
fn batches(bytes: Bytes) {
    if let Ok(batch) = Batch::parse(bytes.clone())
        && let Ok((plain, _)) = batch.recompress(Compression::None.into(), DECOMPRESSED_BYTES)
    {
        // What was found good can be read: all of it, and in order. In another codec it is a producer's batch as before.
        for batch in [batch, plain.clone()] {
            let records = batch
                .records()
                .map(|records| records.flatten().map(|one| one.offset));
            let expected = batch.base_offset()..batch.next_offset();
            assert!(records.is_ok_and(|found| found.eq(expected)));
        }
        assert!(Batch::parse(plain.into_bytes()).is_ok());
    }
    let mut rest = bytes;
    while let Ok(Some(batch)) = Batch::split_first(&mut rest) {
        if let Ok(payload) = batch.payload_within(DECOMPRESSED_BYTES) {
            payload.into_records().for_each(drop);
        }
    }
}

/// What a member says of itself when it joins. The topics that are found in it take no more room than they do there.
pub(crate) fn subscribed(bytes: &[u8]) {
    within(bytes, 0, || {
        let mut topics = BTreeSet::new();
        subscription::add_topics(bytes, &mut topics)?;
        let found: usize = topics.iter().map(|topic| 2 + topic.len()).sum();
        assert!(6 + found <= bytes.len());
        Some(())
    });
}

thread_local! {
    /// Bytes that this thread has allocated and not given back, and the most of them at once.
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that ends has nothing to count any more.
    let _ = LIVE.try_with(|live| {
        let (now, most) = live.get();
        live.set((now + bytes, most.max(now + bytes)));
    });
}

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both stand while the bytes are copied.
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a target, and panics where it took more memory than so many bytes may ask for. It answers where it got to the end.
fn within(bytes: &[u8], more_bytes: usize, target: impl FnOnce() -> Option<()>) {
    let before = LIVE.get().0;
    LIVE.set((before, before));
    let _ = target();
    let most = LIVE.get().1 - before;
    let limit = bytes.len() * BYTES_FOR_A_BYTE + BYTES_FOR_NOTHING + more_bytes;
    assert!(
        usize::try_from(most).unwrap_or(0) <= limit,
        "{} bytes on the wire took {most} bytes of memory; {limit} are allowed",
        bytes.len()
    );
}

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod tests;
