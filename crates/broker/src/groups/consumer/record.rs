//! What of a group of the consumer protocol survives a restart: one value under [`crate::keys::group`], written with
//! every change of it that anybody is told of.
//!
//! Version u8 (2; 1 is a [classic group](crate::groups::record)), epoch i32, since when it has members or has none i64
//! (ms since 1970), target epoch i32, count u32 of topics and for each: name, id u128, partitions u32; count u32 of
//! members and for each: id, static name, rack, client id, client host, rebalance timeout i64, count u32 of topic names
//! and each of them, pattern, assignor, state u8 (0 stable, 1 revoking, 2 waiting), epoch i32, epoch before i32, and
//! three times partitions: assigned, to be given up, target. Texts and partitions as in [`crate::encoding`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mainstem_log::TopicId;

use super::assignor::{Assignor, Partitions};
use super::member::MemberState;
use crate::encoding::{partitions, put, put_partitions, text};
use crate::groups::topics::TopicSize;

/// What the value begins with.
pub(crate) const VERSION: u8 = 2;

/// A group, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConsumerRecord {
    pub(super) epoch: i32,
    pub(super) since_ms: i64,
    pub(super) target_epoch: i32,
    pub(super) topics: Vec<(String, TopicSize)>,
    pub(super) members: Vec<ConsumerMemberRecord>,
}

/// A member, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConsumerMemberRecord {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i64,
    pub(super) names: Vec<String>,
    pub(super) pattern: Option<String>,
    pub(super) assignor: Option<Assignor>,
    pub(super) state: MemberState,
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) assigned: Partitions,
    pub(super) revoking: Partitions,
    pub(super) target: Partitions,
}

impl ConsumerRecord {
    /// The value in the store.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + 256 * self.members.len());
        out.put_u8(VERSION);
        out.put_i32(self.epoch);
        out.put_i64(self.since_ms);
        out.put_i32(self.target_epoch);
        out.put_u32(self.topics.len() as u32);
        for (name, size) in &self.topics {
            put(&mut out, Some(name.as_bytes()));
            out.put_u128(size.id.0);
            out.put_u32(size.partitions);
        }
        out.put_u32(self.members.len() as u32);
        for member in &self.members {
            member.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads a value behind its version; `None` where it is damaged.
    pub(crate) fn read(rest: &mut &[u8]) -> Option<ConsumerRecord> {
        let mut record = ConsumerRecord {
            epoch: rest.try_get_i32().ok()?,
            since_ms: rest.try_get_i64().ok()?,
            target_epoch: rest.try_get_i32().ok()?,
            ..ConsumerRecord::default()
        };
        for _ in 0..rest.try_get_u32().ok()? {
            let name = text(rest)??;
            let size = TopicSize {
                id: TopicId(rest.try_get_u128().ok()?),
                partitions: rest.try_get_u32().ok()?,
            };
            record.topics.push((name, size));
        }
        for _ in 0..rest.try_get_u32().ok()? {
            record.members.push(ConsumerMemberRecord::read(rest)?);
        }
        Some(record)
    }
}

impl ConsumerMemberRecord {
    fn encode(&self, out: &mut BytesMut) {
        let maybe = |text: &Option<String>| text.clone().map(String::into_bytes);
        put(out, Some(self.id.as_bytes()));
        put(out, maybe(&self.instance_id).as_deref());
        put(out, maybe(&self.rack_id).as_deref());
        put(out, Some(self.client_id.as_bytes()));
        put(out, Some(self.client_host.as_bytes()));
        out.put_i64(self.rebalance_timeout_ms);
        out.put_u32(self.names.len() as u32);
        for name in &self.names {
            put(out, Some(name.as_bytes()));
        }
        put(out, maybe(&self.pattern).as_deref());
        put(out, self.assignor.map(|one| one.name().as_bytes()));
        out.put_u8(match self.state {
            MemberState::Stable => 0,
            MemberState::Revoking => 1,
            MemberState::Waiting => 2,
        });
        out.put_i32(self.epoch);
        out.put_i32(self.previous_epoch);
        for partitions in [&self.assigned, &self.revoking, &self.target] {
            put_partitions(out, partitions);
        }
    }

    fn read(rest: &mut &[u8]) -> Option<ConsumerMemberRecord> {
        Some(ConsumerMemberRecord {
            id: text(rest)??,
            instance_id: text(rest)?,
            rack_id: text(rest)?,
            client_id: text(rest)??,
            client_host: text(rest)??,
            rebalance_timeout_ms: rest.try_get_i64().ok()?,
            names: {
                let count = rest.try_get_u32().ok()?;
                (0..count).map(|_| text(rest)?).collect::<Option<_>>()?
            },
            pattern: text(rest)?,
            // One that this release does not know is as none.
            assignor: text(rest)?.and_then(|name| Assignor::find(&name)),
            state: match rest.try_get_u8().ok()? {
                0 => MemberState::Stable,
                1 => MemberState::Revoking,
                2 => MemberState::Waiting,
                _ => return None,
            },
            epoch: rest.try_get_i32().ok()?,
            previous_epoch: rest.try_get_i32().ok()?,
            assigned: partitions(rest)?,
            revoking: partitions(rest)?,
            target: partitions(rest)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::groups::record::Record;
    use mainstem_log::PartitionId;

    fn record() -> ConsumerRecord {
        let partition = |index| PartitionId {
            topic: TopicId(1),
            index,
        };
        let size = TopicSize {
            id: TopicId(1),
            partitions: 3,
        };
        ConsumerRecord {
            epoch: 4,
            since_ms: 5,
            target_epoch: 3,
            topics: vec![("t".into(), size)],
            members: vec![ConsumerMemberRecord {
                id: "m".into(),
                instance_id: Some("s".into()),
                rack_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 6,
                names: vec!["t".into(), "u".into()],
                pattern: Some("v.*".into()),
                assignor: Some(Assignor::Range),
                state: MemberState::Revoking,
                epoch: 2,
                previous_epoch: 1,
                assigned: [partition(0)].into(),
                revoking: [partition(1)].into(),
                target: [partition(0), partition(2)].into(),
            }],
        }
    }

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let simple = ConsumerRecord {
            epoch: 258,
            since_ms: 1,
            target_epoch: 257,
            ..ConsumerRecord::default()
        };
        assert_eq!(
            simple.encode().as_ref(),
            b"\x02\0\0\x01\x02\0\0\0\0\0\0\0\x01\0\0\x01\x01\0\0\0\0\0\0\0\0"
        );
        let value = record().encode();
        let expected = Record::Consumer(Box::new(record()));
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
