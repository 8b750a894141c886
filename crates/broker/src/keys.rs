//! Where the broker's things lie in the store.
//!
//! | family | key |
//! |---|---|
//! | `catalog` | shard 0, tenant, kind u8, name |
//! | `catalog` | shard 0, no tenant, kind `BrokerConfigs`, the node's number, or nothing for all nodes |
//! | `catalog` | the group's shard, tenant, kind `Group`, name |
//! | `catalog` | the transactional id's shard, tenant, kind `Transaction`, id |
//! | `catalog` | the group's shard, tenant, kind `GroupConfigs`, name |
//! | `offsets` | the group's shard, `g`, tenant, group, topic id u128, partition u32 |
//!
//! A name has its length in front unless it stands last: so names of one kind in one tenant lie together and in order.

use bytes::Bytes;
use mainstem_log::{PartitionId, TopicId};
use mainstem_store::{CATALOG_SHARD, Family, KeyBuilder, KeyReader, SHARDS, shard_key, shard_of};

/// The family of what has a name.
pub const FAMILY: Family = Family::Catalog;

/// What a catalogue key is about. Other rooms that keep names in the catalogue choose their own kind, and say so here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A counter of the whole data directory; the tenant is empty.
    Counter = 1,
    /// A topic.
    Topic = 2,
    /// A handler (the runtime's).
    Handler = 3,
    /// A consumer group; it lies in its own shard.
    Group = 4,
    /// A transactional id; it lies in its own shard.
    Transaction = 5,
    /// The settings of a consumer group; they lie in its shard.
    GroupConfigs = 6,
    /// What settings of the broker were changed to while it ran; the tenant is empty.
    BrokerConfigs = 7,
}

/// The key of something with a name.
pub fn catalog_key(tenant: &str, kind: Kind, name: &str) -> Bytes {
    named(CATALOG_SHARD, tenant, kind, name)
}

fn named(shard: u16, tenant: &str, kind: Kind, name: &str) -> Bytes {
    shard_key(shard)
        .text(tenant.as_bytes())
        .u8(kind as u8)
        .raw(name.as_bytes())
        .finish()
}

/// What all keys of a kind in a tenant begin with.
pub fn catalog_prefix(tenant: &str, kind: Kind) -> Bytes {
    catalog_key(tenant, kind, "")
}

/// What all keys of the catalogue begin with.
pub fn whole_catalog() -> Bytes {
    shard_key(CATALOG_SHARD).finish()
}

/// Takes a catalogue key apart into tenant, kind number and name.
pub fn parse_catalog_key(key: &[u8]) -> Option<(&str, u8, &str)> {
    let mut reader = KeyReader::new(key);
    let _shard = reader.u16()?;
    let tenant = std::str::from_utf8(reader.text()?).ok()?;
    let kind = reader.u8()?;
    Some((tenant, kind, std::str::from_utf8(reader.rest()).ok()?))
}

/// The key of the first producer id that no block has taken yet; its value is eight bytes, big-endian.
pub fn next_producer_id() -> Bytes {
    catalog_key("", Kind::Counter, "producer-id")
}

/// The key of the settings of a node, or of all of them.
pub fn broker_configs(node_id: Option<u32>) -> Bytes {
    let name = node_id.map(|node_id| node_id.to_string());
    catalog_key("", Kind::BrokerConfigs, &name.unwrap_or_default())
}

/// The shard of a group: its record and its offsets lie in it. Part of the format, never to change.
pub fn group_shard(tenant: &str, group: &str) -> u16 {
    // No tenant's name has a slash in it.
    shard_of(&[tenant.as_bytes(), b"/", group.as_bytes()].concat())
}

/// The key of a group's record.
pub fn group(tenant: &str, group: &str) -> Bytes {
    named(group_shard(tenant, group), tenant, Kind::Group, group)
}

/// The key of a transactional id's record.
pub fn transaction(tenant: &str, id: &str) -> Bytes {
    // As for a group: part of the format, never to change.
    let shard = shard_of(&[tenant.as_bytes(), b"/", id.as_bytes()].concat());
    named(shard, tenant, Kind::Transaction, id)
}

/// The key of a group's settings.
pub fn group_configs(tenant: &str, group: &str) -> Bytes {
    named(
        group_shard(tenant, group),
        tenant,
        Kind::GroupConfigs,
        group,
    )
}

/// The range in which the records and settings of all groups and transactional ids lie, among the rest of the catalogue.
pub fn all_shards() -> (Bytes, Bytes) {
    (shard_key(0).finish(), shard_key(SHARDS).finish())
}

/// The family of committed offsets.
pub const OFFSETS: Family = Family::Offsets;

const GROUP_OFFSET: u8 = b'g';

/// The key of what a group has committed in a partition.
pub fn group_offset(tenant: &str, group: &str, partition: PartitionId) -> Bytes {
    group_offsets_builder(tenant, group)
        .u128(partition.topic.0)
        .u32(partition.index)
        .finish()
}

/// What the keys of all offsets of a group begin with.
pub fn group_offsets(tenant: &str, group: &str) -> Bytes {
    group_offsets_builder(tenant, group).finish()
}

/// What the keys of the offsets of all groups in a shard begin with.
pub fn group_offsets_in_shard(shard: u16) -> Bytes {
    shard_key(shard).u8(GROUP_OFFSET).finish()
}

fn group_offsets_builder(tenant: &str, group: &str) -> KeyBuilder {
    shard_key(group_shard(tenant, group))
        .u8(GROUP_OFFSET)
        .text(tenant.as_bytes())
        .text(group.as_bytes())
}

/// The key of a group's offset, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOffsetKey<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The group.
    pub group: &'a str,
    /// The partition, by its topic's id.
    pub partition: PartitionId,
}

/// Takes a key of family `offsets` apart; `None` where it is not a group's.
pub fn parse_group_offset(key: &[u8]) -> Option<GroupOffsetKey<'_>> {
    let mut reader = KeyReader::new(key);
    let _shard = reader.u16()?;
    if reader.u8()? != GROUP_OFFSET {
        return None;
    }
    let tenant = std::str::from_utf8(reader.text()?).ok()?;
    let group = std::str::from_utf8(reader.text()?).ok()?;
    let partition = PartitionId {
        topic: TopicId(reader.u128()?),
        index: reader.u32()?,
    };
    reader.rest().is_empty().then_some(GroupOffsetKey {
        tenant,
        group,
        partition,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId {
        topic: TopicId(1),
        index: 2,
    };

    #[test]
    fn a_groups_keys_are_taken_apart_as_they_were_built() {
        let key = group_offset("default", "readers", PARTITION);
        let parsed = GroupOffsetKey {
            tenant: "default",
            group: "readers",
            partition: PARTITION,
        };
        assert_eq!(parse_group_offset(&key), Some(parsed));
        assert!(key.starts_with(&group_offsets("default", "readers")));
        assert!(!key.starts_with(&group_offsets("default", "reader")));
        assert!(key.starts_with(&group_offsets_in_shard(group_shard("default", "readers"))));
        assert_eq!(parse_group_offset(&key[..key.len() - 1]), None);
        let record = group("default", "readers");
        assert_eq!(
            parse_catalog_key(&record),
            Some(("default", Kind::Group as u8, "readers"))
        );
        let (from, to) = all_shards();
        assert!(from <= record && record < to);
    }

    #[test]
    fn the_layout_of_groups_is_part_of_the_format() {
        assert_eq!(group_shard("t", "n"), 0x00b1);
        assert_eq!(
            group_offset("t", "n", PARTITION).as_ref(),
            b"\0\xb1g\0\x01t\0\x01n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02"
        );
        assert_eq!(group("t", "n").as_ref(), b"\0\xb1\0\x01t\x04n");
        assert_eq!(transaction("t", "n").as_ref(), b"\0\xb1\0\x01t\x05n");
        assert_eq!(group_configs("t", "n").as_ref(), b"\0\xb1\0\x01t\x06n");
    }

    #[test]
    fn keys_are_taken_apart_as_they_were_built() {
        let key = catalog_key("default", Kind::Topic, "flights");
        assert_eq!(
            parse_catalog_key(&key),
            Some(("default", Kind::Topic as u8, "flights"))
        );
        assert!(key.starts_with(&whole_catalog()));
        assert!(key.starts_with(&catalog_prefix("default", Kind::Topic)));
        assert!(!key.starts_with(&catalog_prefix("defaul", Kind::Topic)));
    }

    #[test]
    fn the_layout_is_part_of_the_format() {
        assert_eq!(
            catalog_key("t", Kind::Topic, "n").as_ref(),
            b"\0\0\0\x01t\x02n"
        );
        assert_eq!(broker_configs(None).as_ref(), b"\0\0\0\0\x07");
        assert_eq!(broker_configs(Some(12)).as_ref(), b"\0\0\0\0\x0712");
    }
}
