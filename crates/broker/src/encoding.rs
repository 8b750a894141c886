//! How the parts of what is kept of groups and transactions are written, one behind the other: texts, bytes, partitions.
//!
//! Texts and bytes have their length u32 in front; `FFFFFFFF` is none. A partition is its topic's id u128 and its index u32;
//! many have their count u32 in front. Big-endian. What reads answers `None` where the value is damaged.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, BytesMut};
use mainstem_log::{PartitionId, TopicId};

const NONE: u32 = u32::MAX;

/// Bytes, or a text's.
pub(crate) fn put(out: &mut BytesMut, part: Option<&[u8]>) {
    match part {
        Some(part) => {
            out.put_u32(part.len() as u32);
            out.put_slice(part);
        }
        None => out.put_u32(NONE),
    }
}

/// The outer `None` is damage, the inner one says that there is none.
pub(crate) fn part<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = rest.try_get_u32().ok()?;
    if length == NONE {
        return Some(None);
    }
    let (part, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(part))
}

/// As [`part`], and damage where it is no text.
pub(crate) fn text(rest: &mut &[u8]) -> Option<Option<String>> {
    match part(rest)? {
        Some(part) => Some(Some(std::str::from_utf8(part).ok()?.to_owned())),
        None => Some(None),
    }
}

pub(crate) fn put_partition(out: &mut BytesMut, partition: PartitionId) {
    out.put_u128(partition.topic.0);
    out.put_u32(partition.index);
}

pub(crate) fn partition(rest: &mut &[u8]) -> Option<PartitionId> {
    Some(PartitionId {
        topic: TopicId(rest.try_get_u128().ok()?),
        index: rest.try_get_u32().ok()?,
    })
}

pub(crate) fn put_partitions(out: &mut BytesMut, partitions: &BTreeSet<PartitionId>) {
    out.put_u32(partitions.len() as u32);
    for one in partitions {
        put_partition(out, *one);
    }
}

pub(crate) fn partitions(rest: &mut &[u8]) -> Option<BTreeSet<PartitionId>> {
    let count = rest.try_get_u32().ok()?;
    (0..count).map(|_| partition(rest)).collect()
}
