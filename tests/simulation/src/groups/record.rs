//! The record of a group, read by its format alone (`docs/formats.md`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Buf;
use mainstem_log::{PartitionId, TopicId};

use super::READ;

/// A group as it is kept, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which protocol it speaks.
    pub is_consumer: bool,
    /// Its generation, or its epoch.
    pub epoch: i32,
    /// Its members, by id.
    pub members: BTreeMap<String, KeptMember>,
}

/// A member of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMember {
    /// Its static name.
    pub name: Option<String>,
    /// Its epoch; the group's generation where the members assign.
    pub epoch: i32,
    /// What it may have: what is assigned to it, and what it has not given up yet. Of the classic protocol that is the
    /// workload's own: places in [`READ`], one byte each.
    pub holds: BTreeSet<PartitionId>,
}

impl Kept {
    /// Reads a record.
    pub fn read(mut value: &[u8]) -> Kept {
        let rest = &mut value;
        let kept = match rest.get_u8() {
            1 => classic(rest),
            2 => consumer(rest),
            other => panic!("a group's record has version {other}"),
        };
        assert!(rest.is_empty(), "there is more in a record than a group");
        kept
    }
}

fn classic(rest: &mut &[u8]) -> Kept {
    let epoch = rest.get_i32();
    let _since_ms = rest.get_i64();
    (0..3).for_each(|_| drop(part(rest)));
    let member = |rest: &mut &[u8]| {
        let id = text(rest).expect("an id");
        let name = text(rest);
        (0..2).for_each(|_| drop(part(rest)));
        rest.advance(16);
        let _subscription = part(rest);
        let holds = part(rest).unwrap_or_default();
        let holds = holds.into_iter().map(|place| {
            assert!(usize::from(place) < READ.len());
            PartitionId::new(TopicId(0), u32::from(place))
        });
        let holds = holds.collect();
        (id, KeptMember { name, epoch, holds })
    };
    let members = (0..rest.get_u32()).map(|_| member(rest)).collect();
    Kept {
        is_consumer: false,
        epoch,
        members,
    }
}

fn consumer(rest: &mut &[u8]) -> Kept {
    let epoch = rest.get_i32();
    rest.advance(8 + 4);
    for _ in 0..rest.get_u32() {
        let _topic = text(rest);
        rest.advance(16 + 4);
    }
    let member = |rest: &mut &[u8]| {
        let id = text(rest).expect("an id");
        let name = text(rest);
        (0..3).for_each(|_| drop(part(rest)));
        rest.advance(8);
        (0..rest.get_u32()).for_each(|_| drop(part(rest)));
        (0..2).for_each(|_| drop(part(rest)));
        rest.advance(1);
        let epoch = rest.get_i32();
        rest.advance(4);
        let mut holds = partitions(rest);
        holds.extend(partitions(rest));
        let _target = partitions(rest);
        (id, KeptMember { name, epoch, holds })
    };
    let members = (0..rest.get_u32()).map(|_| member(rest)).collect();
    Kept {
        is_consumer: true,
        epoch,
        members,
    }
}

fn partitions(rest: &mut &[u8]) -> BTreeSet<PartitionId> {
    (0..rest.get_u32())
        .map(|_| {
            let topic = TopicId(rest.get_u128());
            PartitionId::new(topic, rest.get_u32())
        })
        .collect()
}

fn part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = rest.get_u32();
    (length != u32::MAX).then(|| rest.copy_to_bytes(length as usize).to_vec())
}

fn text(rest: &mut &[u8]) -> Option<String> {
    part(rest).map(|text| String::from_utf8(text).expect("names are text"))
}
