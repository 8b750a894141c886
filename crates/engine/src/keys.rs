//! The engine's own keys in the store: what a checkpoint records of this node. They belong to no
//! shard, so they begin with a number no shard has, and stand in the family `Catalog`.
//!
//! | key | value |
//! |---|---|
//! | `FFFF 'C'` | version u8, journal id u128, checkpoint LSN u64 |
//! | `FFFF 'P' topic u128 index u32` | version u8, shard u16, the log's partition record |
//! | `FFFF 'Q' topic u128 index u32 producer i64` | version u8, epoch i16, last seen i64 (ms since 1970), count u8, count × (base sequence i32, last sequence i32, base offset i64, last offset i64) |
//!
//! All numbers are big-endian.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mainstem_journal::Lsn;
use mainstem_log::{PartitionId, TopicId};

use crate::producers::{ProducerState, RememberedBatch};

const NODE: u16 = 0xFFFF;
const CHECKPOINT: u8 = b'C';
const PARTITION: u8 = b'P';
const PRODUCER: u8 = b'Q';
const VERSION: u8 = 1;

/// Where the last checkpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointMark {
    pub(crate) journal_id: u128,
    pub(crate) lsn: Lsn,
}

fn kind(kind: u8) -> BytesMut {
    let mut key = BytesMut::with_capacity(32);
    key.put_u16(NODE);
    key.put_u8(kind);
    key
}

pub(crate) fn checkpoint_key() -> Bytes {
    kind(CHECKPOINT).freeze()
}

pub(crate) fn encode_checkpoint(mark: CheckpointMark) -> Bytes {
    let mut value = BytesMut::with_capacity(25);
    value.put_u8(VERSION);
    value.put_u128(mark.journal_id);
    value.put_u64(mark.lsn.0);
    value.freeze()
}

pub(crate) fn decode_checkpoint(value: &[u8]) -> Option<CheckpointMark> {
    let mut value = versioned(value)?;
    Some(CheckpointMark {
        journal_id: value.try_get_u128().ok()?,
        lsn: Lsn(value.try_get_u64().ok()?),
    })
}

/// The keys of all partition records.
pub(crate) fn partition_range() -> (Bytes, Bytes) {
    (kind(PARTITION).freeze(), kind(PARTITION + 1).freeze())
}

/// The keys of all producer records.
pub(crate) fn producer_range() -> (Bytes, Bytes) {
    (kind(PRODUCER).freeze(), kind(PRODUCER + 1).freeze())
}

pub(crate) fn partition_key(partition: PartitionId) -> Bytes {
    let mut key = kind(PARTITION);
    key.put_u128(partition.topic.0);
    key.put_u32(partition.index);
    key.freeze()
}

pub(crate) fn decode_partition_key(key: &[u8]) -> Option<PartitionId> {
    let mut key = key.get(3..)?;
    let topic = TopicId(key.try_get_u128().ok()?);
    let index = key.try_get_u32().ok()?;
    Some(PartitionId { topic, index })
}

pub(crate) fn encode_partition(shard: u16, record: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(3 + record.len());
    value.put_u8(VERSION);
    value.put_u16(shard);
    value.put_slice(record);
    value.freeze()
}

/// The shard, and the log's own bytes.
pub(crate) fn decode_partition(value: &[u8]) -> Option<(u16, &[u8])> {
    let mut value = versioned(value)?;
    let shard = value.try_get_u16().ok()?;
    Some((shard, value))
}

pub(crate) fn producer_key(partition: PartitionId, producer_id: i64) -> Bytes {
    let mut key = kind(PRODUCER);
    key.put_u128(partition.topic.0);
    key.put_u32(partition.index);
    key.put_i64(producer_id);
    key.freeze()
}

pub(crate) fn decode_producer_key(key: &[u8]) -> Option<(PartitionId, i64)> {
    let mut key = key.get(3..)?;
    let topic = TopicId(key.try_get_u128().ok()?);
    let index = key.try_get_u32().ok()?;
    Some((PartitionId { topic, index }, key.try_get_i64().ok()?))
}

pub(crate) fn encode_producer(state: &ProducerState) -> Bytes {
    let mut value = BytesMut::with_capacity(12 + 24 * state.batches.len());
    value.put_u8(VERSION);
    value.put_i16(state.epoch);
    value.put_i64(state.last_seen_ms);
    value.put_u8(state.batches.len() as u8);
    for batch in &state.batches {
        value.put_i32(batch.base_sequence);
        value.put_i32(batch.last_sequence);
        value.put_i64(batch.base_offset);
        value.put_i64(batch.last_offset);
    }
    value.freeze()
}

pub(crate) fn decode_producer(value: &[u8]) -> Option<ProducerState> {
    let mut value = versioned(value)?;
    let epoch = value.try_get_i16().ok()?;
    let last_seen_ms = value.try_get_i64().ok()?;
    let count = value.try_get_u8().ok()?;
    let mut batches = VecDeque::with_capacity(usize::from(count));
    for _ in 0..count {
        batches.push_back(RememberedBatch {
            base_sequence: value.try_get_i32().ok()?,
            last_sequence: value.try_get_i32().ok()?,
            base_offset: value.try_get_i64().ok()?,
            last_offset: value.try_get_i64().ok()?,
        });
    }
    Some(ProducerState {
        epoch,
        batches,
        last_seen_ms,
    })
}

fn versioned(value: &[u8]) -> Option<&[u8]> {
    match value.split_first() {
        Some((&VERSION, rest)) => Some(rest),
        _ => None,
    }
}
