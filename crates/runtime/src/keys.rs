//! What the runtime writes into the store, key by key. Numbers are big-endian; names have their length (u16) in front.
//!
//! | family | key | value |
//! |---|---|---|
//! | `state` | shard u16, handler id u64, partition u32, table name, key | the value, as the handler wrote it |
//! | `offsets` | shard u16, `h`, handler id u64, partition u32, topic id u128 | next offset i64 |
//! | `offsets` | shard u16, `e`, handler id u64, partition u32 | the task's epoch u64 |
//! | `catalog` | the broker's layout, kind `Handler`: tenant, name | the deployment, as versioned JSON |
//! | `catalog` | the broker's layout, kind `Counter`: `handler-id` | the next handler id u64 |
//!
//! A task's keys all lie in its own shard: that of its partition in the handler's first input topic, noted in the
//! deployment.

use bytes::Bytes;
use mainstem_broker::keys::{Kind, catalog_key};
use mainstem_store::{KeyBuilder, KeyReader, shard_key};

/// One key of a handler's state, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateKey<'a> {
    /// The shard of the task.
    pub shard: u16,
    /// The handler's number.
    pub handler: u64,
    /// The task's partition number.
    pub partition: u32,
    /// The table.
    pub table: &'a str,
    /// The key within the table.
    pub key: &'a [u8],
}

impl<'a> StateKey<'a> {
    /// Takes a key of family `state` apart; `None` where it is none.
    pub fn decode(key: &'a [u8]) -> Option<StateKey<'a>> {
        let mut reader = KeyReader::new(key);
        Some(StateKey {
            shard: reader.u16()?,
            handler: reader.u64()?,
            partition: reader.u32()?,
            table: std::str::from_utf8(reader.text()?).ok()?,
            key: reader.rest(),
        })
    }

    /// The key in the store.
    pub fn encode(&self) -> Bytes {
        table(self.shard, self.handler, self.partition, self.table)
            .raw(self.key)
            .finish()
    }
}

fn task(shard: u16, handler: u64, partition: u32) -> KeyBuilder {
    shard_key(shard).u64(handler).u32(partition)
}

fn table(shard: u16, handler: u64, partition: u32, table: &str) -> KeyBuilder {
    task(shard, handler, partition).text(table.as_bytes())
}

/// What all of a task's state keys begin with.
pub fn state_prefix(shard: u16, handler: u64, partition: u32) -> Bytes {
    task(shard, handler, partition).finish()
}

/// What the keys of one table of a task begin with.
pub fn table_prefix(shard: u16, handler: u64, partition: u32, name: &str) -> Bytes {
    table(shard, handler, partition, name).finish()
}

/// What the offsets of a task begin with.
pub fn offset_prefix(shard: u16, handler: u64, partition: u32) -> Bytes {
    shard_key(shard)
        .u8(b'h')
        .u64(handler)
        .u32(partition)
        .finish()
}

/// Where a task stands in one topic.
pub fn offset_key(shard: u16, handler: u64, partition: u32, topic: u128) -> Bytes {
    shard_key(shard)
        .u8(b'h')
        .u64(handler)
        .u32(partition)
        .u128(topic)
        .finish()
}

/// The epoch of a task; also the name of its fence.
pub fn epoch_key(shard: u16, handler: u64, partition: u32) -> Bytes {
    shard_key(shard)
        .u8(b'e')
        .u64(handler)
        .u32(partition)
        .finish()
}

/// A deployment.
pub fn handler_key(tenant: &str, name: &str) -> Bytes {
    catalog_key(tenant, Kind::Handler, name)
}

/// The next handler id.
pub fn next_id_key() -> Bytes {
    catalog_key("", Kind::Counter, "handler-id")
}

/// A number as a value.
pub(crate) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// A value as a number.
pub(crate) fn read_number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_state_key_is_read_as_it_was_written() {
        let key = StateKey {
            shard: 3,
            handler: 9,
            partition: 2,
            table: "days",
            key: b"UA 2013-01-31",
        };
        let encoded = key.encode();
        assert_eq!(StateKey::decode(&encoded), Some(key));
        assert!(encoded.starts_with(&state_prefix(3, 9, 2)));
        assert!(encoded.starts_with(&table_prefix(3, 9, 2, "days")));
        assert_eq!(StateKey::decode(&encoded[..10]), None);
    }

    #[test]
    fn one_tables_keys_are_apart_from_anothers() {
        let longer = StateKey {
            shard: 0,
            handler: 1,
            partition: 0,
            table: "ab",
            key: b"c",
        }
        .encode();
        assert!(
            !longer.starts_with(&table_prefix(0, 1, 0, "a")),
            "the length in front keeps `a` and `ab` apart"
        );
    }
}
