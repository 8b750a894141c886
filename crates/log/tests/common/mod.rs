//! What the tests share: batches, and a log on a disk in memory. Not every test uses all of it.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_journal::{Lsn, MemoryDisk};
use mainstem_log::{Log, LogOp, LogOptions, PartitionId, PartitionRecord, Placement, TopicId};
use mainstem_record::{BatchBuilder, BatchHeader, Compression, assign};

/// A partition of a topic whose id looks like a real one.
pub fn partition(topic: u64, index: u32) -> PartitionId {
    let id = (u128::from(topic) << 64 | u128::from(topic))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    PartitionId::new(TopicId(id), index)
}

/// A batch with a record for each timestamp, each with a value of `value_bytes` and a key of its own.
pub fn batch(
    base_offset: i64,
    leader_epoch: i32,
    timestamps_ms: &[i64],
    value_bytes: usize,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 24);
    for (index, timestamp_ms) in timestamps_ms.iter().enumerate() {
        let value = vec![(base_offset as usize + index) as u8; value_bytes];
        // Of a length that does not depend on the offset.
        let key = format!("{:06}", base_offset + index as i64);
        builder
            .append(*timestamp_ms, Some(key.as_bytes()), Some(&value), &[])
            .unwrap();
    }
    let mut bytes = builder.build().unwrap().bytes().to_vec();
    assign(&mut bytes, base_offset, leader_epoch);
    bytes.into()
}

/// Small sizes, so that everything that can happen does.
pub fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 3000,
        index_interval_bytes: 200,
        max_open_files: 3,
        max_sent_files: 2,
        index_cache_bytes: 4096,
        compaction_memory_bytes: 1 << 20,
    }
}

pub fn topics() -> PathBuf {
    PathBuf::from("/data/topics")
}

pub fn open(disk: &MemoryDisk, recorded: Vec<PartitionRecord>, applied: Lsn) -> Log {
    Log::open(
        Arc::new(disk.clone()),
        &topics(),
        small(),
        recorded,
        applied,
    )
    .unwrap()
}

/// An append with its place decided, as whoever makes the frame decides it; any other operation as it is.
pub fn placed(log: &Log, mut op: LogOp) -> LogOp {
    if let LogOp::Append {
        partition,
        batch,
        begins_segment,
    } = &mut op
    {
        *begins_segment = place(log, *partition, batch).begins_segment;
    }
    op
}

/// Where the next batch of a partition goes.
pub fn place(log: &Log, partition: PartitionId, batch: &[u8]) -> Placement {
    let bounds = log.bounds(partition).unwrap();
    let all_deleted = bounds.start == bounds.high_watermark;
    let header = BatchHeader::read(batch).unwrap();
    let mut layout = log.layout(partition).unwrap();
    log.place(&mut layout, partition.topic, &header, all_deleted)
}

/// Applies one operation as a group of its own.
pub fn apply(log: &Log, op: LogOp) -> Lsn {
    let op = placed(log, op);
    let lsn = log.applied().next();
    log.apply(lsn, op).unwrap();
    log.finish_group(lsn);
    lsn
}

/// Flush, sync, records: what a checkpoint does with the log.
pub fn checkpoint(log: &Log) -> Vec<PartitionRecord> {
    log.flush(log.applied(), &mut |_, _| {}).unwrap();
    log.sync().unwrap();
    log.records()
}

/// Every batch of a partition, by reads of `max_bytes`.
pub fn read_all(log: &Log, partition: PartitionId, max_bytes: usize) -> Vec<u8> {
    let bounds = log.bounds(partition).unwrap();
    let mut next = bounds.start;
    let mut all = Vec::new();
    while next < bounds.high_watermark {
        let read = log.read(partition, next, max_bytes, None).unwrap();
        assert!(!read.batches.is_empty(), "nothing at {next} of {bounds:?}");
        for bytes in read.batches {
            let mut rest = bytes.clone();
            while let Some(batch) = mainstem_record::Batch::split_first(&mut rest).unwrap() {
                next = batch.next_offset();
            }
            all.extend_from_slice(&bytes);
        }
    }
    all
}
