//! Where the broker's things lie in the store: `shard | tenant | kind | name` in [`Family::Catalog`], shard 0.
//!
//! The tenant has its length in front, the name stands last and bare, so that names of one kind in one tenant lie
//! together and in order.

use bytes::Bytes;
use mainstem_store::{CATALOG_SHARD, Family, KeyReader, shard_key};

/// The family of all keys here.
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
}

/// The key of something with a name.
pub fn catalog_key(tenant: &str, kind: Kind, name: &str) -> Bytes {
    shard_key(CATALOG_SHARD)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

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
    }
}
