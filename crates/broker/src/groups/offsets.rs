//! A committed offset, as the store keeps it: one value a group and partition, under [`crate::keys::group_offset`].
//!
//! Version u8 (1), offset i64, leader epoch i32 (−1: none), commit time i64 (ms since 1970), metadata UTF-8 to the
//! end; big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::BrokerError;

const VERSION: u8 = 1;

/// How far a group has come in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: i64,
    /// The leader epoch that came with it.
    pub leader_epoch: Option<i32>,
    /// What the client wanted to keep with it.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970.
    pub committed_ms: i64,
}

impl CommittedOffset {
    /// The value in the store.
    pub(crate) fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(21 + self.metadata.len());
        value.put_u8(VERSION);
        value.put_i64(self.offset);
        value.put_i32(self.leader_epoch.unwrap_or(-1));
        value.put_i64(self.committed_ms);
        value.put_slice(self.metadata.as_bytes());
        value.freeze()
    }

    /// Reads a value of the store; fails where it is damaged or of a newer version.
    pub fn decode(value: &[u8]) -> Result<CommittedOffset, BrokerError> {
        let damaged = |why: &str| BrokerError::DamagedCatalog {
            what: "a group's offset".into(),
            why: why.into(),
        };
        let mut rest = value;
        let mut read = || {
            let version = rest.try_get_u8().ok()?;
            let offset = rest.try_get_i64().ok()?;
            let leader_epoch = rest.try_get_i32().ok()?;
            let committed_ms = rest.try_get_i64().ok()?;
            Some((version, offset, leader_epoch, committed_ms))
        };
        let (version, offset, leader_epoch, committed_ms) =
            read().ok_or_else(|| damaged("it is too short"))?;
        if version != VERSION {
            return Err(damaged("it has another version; use a newer release"));
        }
        let metadata = std::str::from_utf8(rest).map_err(|_| damaged("its metadata is no text"))?;
        Ok(CommittedOffset {
            offset,
            leader_epoch: Some(leader_epoch).filter(|epoch| *epoch >= 0),
            metadata: metadata.to_owned(),
            committed_ms,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let committed = CommittedOffset {
            offset: 258,
            leader_epoch: Some(3),
            metadata: "me".into(),
            committed_ms: 4,
        };
        let value = committed.encode();
        assert_eq!(
            value.as_ref(),
            b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\x03\0\0\0\0\0\0\0\x04me"
        );
        assert_eq!(CommittedOffset::decode(&value).unwrap(), committed);
        let plain = CommittedOffset {
            leader_epoch: None,
            metadata: String::new(),
            ..committed
        };
        assert_eq!(CommittedOffset::decode(&plain.encode()).unwrap(), plain);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused() {
        for value in [
            &b""[..],
            b"\x01\0\0",
            b"\x02\0\0\0\0\0\0\x01\x02\0\0\0\x03\0\0\0\0\0\0\0\x04",
            b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\x03\0\0\0\0\0\0\0\x04\xff",
        ] {
            let error = CommittedOffset::decode(value).unwrap_err();
            assert_eq!(error.code(), "damaged_catalog");
        }
    }
}
