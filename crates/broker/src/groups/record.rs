//! What of a classic group survives a restart: one value under [`crate::keys::group`], written when a generation becomes
//! stable, when a static member comes back, when the group becomes empty, and with its first offset.
//!
//! Version u8 (1), generation i32, since when it is in its state i64 (ms since 1970), protocol type, protocol, leader,
//! count u32 of members and for each: id, static name, client id, client host, session timeout i64, rebalance timeout
//! i64, metadata, assignment; texts and bytes as in [`crate::encoding`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::consumer::record::{self as consumer, ConsumerRecord};
use crate::BrokerError;
use crate::encoding::{part, put, text};

const VERSION: u8 = 1;

/// A group of either protocol, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Classic(Box<GroupRecord>),
    Consumer(Box<ConsumerRecord>),
}

impl Record {
    /// The value in the store.
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Record::Classic(record) => record.encode(),
            Record::Consumer(record) => record.encode(),
        }
    }

    /// Reads the value of a group; fails where it is damaged or of a newer version.
    pub(crate) fn decode(group: &str, value: &[u8]) -> Result<Record, BrokerError> {
        let damaged = |why: &str| BrokerError::DamagedCatalog {
            what: format!("group '{group}'"),
            why: why.into(),
        };
        let (version, mut rest) = value.split_first().ok_or_else(|| damaged("it is empty"))?;
        let record = match *version {
            VERSION => read(&mut rest).map(|record| Record::Classic(Box::new(record))),
            consumer::VERSION => {
                ConsumerRecord::read(&mut rest).map(|record| Record::Consumer(Box::new(record)))
            }
            _ => return Err(damaged("it has another version; use a newer release")),
        };
        let record = record.ok_or_else(|| damaged("it is cut short or no text"))?;
        match rest {
            [] => Ok(record),
            _ => Err(damaged("there is more in it than a group")),
        }
    }
}

/// A classic group, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupRecord {
    pub(crate) generation: i32,
    /// Since when it is in its state: how long it has been empty decides when its offsets go.
    pub(crate) since_ms: i64,
    /// `None` where nobody has ever joined.
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    /// None: the group is empty. Some: it is stable.
    pub(crate) members: Vec<MemberRecord>,
}

/// A member, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: i64,
    pub(crate) rebalance_timeout_ms: i64,
    /// What it says in the chosen protocol.
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

impl GroupRecord {
    /// The value in the store.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + 256 * self.members.len());
        out.put_u8(VERSION);
        out.put_i32(self.generation);
        out.put_i64(self.since_ms);
        for text in [&self.protocol_type, &self.protocol, &self.leader] {
            put(&mut out, text.as_deref().map(str::as_bytes));
        }
        out.put_u32(self.members.len() as u32);
        for member in &self.members {
            put(&mut out, Some(member.member_id.as_bytes()));
            put(&mut out, member.instance_id.as_deref().map(str::as_bytes));
            put(&mut out, Some(member.client_id.as_bytes()));
            put(&mut out, Some(member.client_host.as_bytes()));
            out.put_i64(member.session_timeout_ms);
            out.put_i64(member.rebalance_timeout_ms);
            put(&mut out, Some(&member.metadata));
            put(&mut out, Some(&member.assignment));
        }
        out.freeze()
    }
}

fn read(rest: &mut &[u8]) -> Option<GroupRecord> {
    let mut record = GroupRecord {
        generation: rest.try_get_i32().ok()?,
        since_ms: rest.try_get_i64().ok()?,
        protocol_type: text(rest)?,
        protocol: text(rest)?,
        leader: text(rest)?,
        members: Vec::new(),
    };
    for _ in 0..rest.try_get_u32().ok()? {
        record.members.push(MemberRecord {
            member_id: text(rest)??,
            instance_id: text(rest)?,
            client_id: text(rest)??,
            client_host: text(rest)??,
            session_timeout_ms: rest.try_get_i64().ok()?,
            rebalance_timeout_ms: rest.try_get_i64().ok()?,
            metadata: Bytes::copy_from_slice(part(rest)??),
            assignment: Bytes::copy_from_slice(part(rest)??),
        });
    }
    Some(record)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record() -> GroupRecord {
        GroupRecord {
            generation: 7,
            since_ms: 8,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: Some("m".into()),
            members: vec![MemberRecord {
                member_id: "m".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                session_timeout_ms: 9,
                rebalance_timeout_ms: 10,
                metadata: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"all"),
            }],
        }
    }

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let simple = GroupRecord {
            since_ms: 1,
            ..GroupRecord::default()
        };
        assert_eq!(
            simple.encode().as_ref(),
            b"\x01\0\0\0\0\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"
        );
        let value = record().encode();
        let expected = Record::Classic(Box::new(record()));
        assert_eq!(Record::decode("g", &value).unwrap(), expected);
    }

    #[test]
    fn a_record_that_is_cut_or_longer_is_named() {
        let value = record().encode();
        for cut in 0..value.len() {
            let error = Record::decode("g", &value[..cut]).unwrap_err();
            assert!(error.to_string().contains("'g'"), "{cut}");
        }
        let longer = [&value[..], b"x"].concat();
        assert!(Record::decode("g", &longer).is_err());
    }
}
