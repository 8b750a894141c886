//! What of a transactional id is kept: one value under [`crate::keys::transaction`], written whenever a producer takes the
//! id, a transaction is told of a partition, a group or offsets, and when it ends.
//!
//! Version u8 (1), producer id i64, epoch i16, whether there is a producer before u8 and then its id i64 and epoch i16,
//! timeout i64 (ms), status u8 (0 empty, 1 ongoing, 2 committed, 3 aborted), when the transaction began i64 and when this was
//! written i64 (ms since 1970), partitions, count u32 of groups and for each its name, count u32 of offsets, and for each
//! the partition and the offset as a group has it; partitions, names and offsets as in [`crate::encoding`].
//!
//! A partition that came into the transaction with its first batch is not in it: the log says so itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mainstem_log::PartitionId;

use crate::encoding::{part, partition, partitions, put, put_partition, put_partitions, text};
use crate::{BrokerError, CommittedOffset, ProducerIdentity};

const VERSION: u8 = 1;

/// What became of the last transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// There was none since the producer began.
    #[default]
    Empty,
    Ongoing,
    Committed,
    Aborted,
}

/// Offsets to be committed for groups, by their names.
pub(crate) type GroupOffsets = BTreeMap<String, BTreeMap<PartitionId, CommittedOffset>>;

/// A transactional id, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionRecord {
    pub(crate) producer: ProducerIdentity,
    /// Who the producer was before it was given a new epoch at its own wish: to answer the same question the same again.
    pub(crate) before: Option<ProducerIdentity>,
    pub(crate) timeout_ms: i64,
    pub(crate) status: Status,
    pub(crate) started_ms: i64,
    pub(crate) written_ms: i64,
    /// Those that it was told of.
    pub(crate) partitions: BTreeSet<PartitionId>,
    pub(crate) groups: GroupOffsets,
}

impl TransactionRecord {
    /// The value in the store.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + 20 * self.partitions.len());
        out.put_u8(VERSION);
        put_producer(&mut out, self.producer);
        out.put_u8(u8::from(self.before.is_some()));
        if let Some(before) = self.before {
            put_producer(&mut out, before);
        }
        out.put_i64(self.timeout_ms);
        out.put_u8(match self.status {
            Status::Empty => 0,
            Status::Ongoing => 1,
            Status::Committed => 2,
            Status::Aborted => 3,
        });
        out.put_i64(self.started_ms);
        out.put_i64(self.written_ms);
        put_partitions(&mut out, &self.partitions);
        out.put_u32(self.groups.len() as u32);
        for (group, offsets) in &self.groups {
            put(&mut out, Some(group.as_bytes()));
            out.put_u32(offsets.len() as u32);
            for (partition, committed) in offsets {
                put_partition(&mut out, *partition);
                put(&mut out, Some(&committed.encode()));
            }
        }
        out.freeze()
    }

    /// Reads the value of a transactional id; fails where it is damaged or of a newer version.
    pub(crate) fn decode(id: &str, value: &[u8]) -> Result<TransactionRecord, BrokerError> {
        let damaged = |why: &str| BrokerError::DamagedCatalog {
            what: format!("transactional id '{id}'"),
            why: why.into(),
        };
        match value.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(damaged("it has another version; use a newer release")),
            None => return Err(damaged("it is empty")),
        }
        let mut rest = value;
        let record = read(&mut rest).ok_or_else(|| damaged("it is cut short or makes no sense"))?;
        match rest {
            [] => Ok(record),
            _ => Err(damaged("there is more in it than a transactional id")),
        }
    }
}

fn put_producer(out: &mut BytesMut, producer: ProducerIdentity) {
    out.put_i64(producer.id);
    out.put_i16(producer.epoch);
}

fn read(rest: &mut &[u8]) -> Option<TransactionRecord> {
    let _version = rest.try_get_u8().ok()?;
    let producer = producer(rest)?;
    let before = match rest.try_get_u8().ok()? {
        0 => None,
        _ => Some(self::producer(rest)?),
    };
    let mut record = TransactionRecord {
        producer,
        before,
        timeout_ms: rest.try_get_i64().ok()?,
        status: match rest.try_get_u8().ok()? {
            0 => Status::Empty,
            1 => Status::Ongoing,
            2 => Status::Committed,
            3 => Status::Aborted,
            _ => return None,
        },
        started_ms: rest.try_get_i64().ok()?,
        written_ms: rest.try_get_i64().ok()?,
        partitions: partitions(rest)?,
        groups: BTreeMap::new(),
    };
    for _ in 0..rest.try_get_u32().ok()? {
        let group = text(rest)??;
        let offsets = record.groups.entry(group).or_default();
        for _ in 0..rest.try_get_u32().ok()? {
            let partition = partition(rest)?;
            offsets.insert(partition, CommittedOffset::decode(part(rest)??).ok()?);
        }
    }
    Some(record)
}

fn producer(rest: &mut &[u8]) -> Option<ProducerIdentity> {
    Some(ProducerIdentity {
        id: rest.try_get_i64().ok()?,
        epoch: rest.try_get_i16().ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mainstem_log::TopicId;

    fn record() -> TransactionRecord {
        let partition = PartitionId {
            topic: TopicId(7),
            index: 1,
        };
        let committed = CommittedOffset {
            offset: 5,
            leader_epoch: None,
            metadata: "m".into(),
            committed_ms: 6,
        };
        TransactionRecord {
            producer: ProducerIdentity { id: 258, epoch: 3 },
            before: Some(ProducerIdentity { id: 258, epoch: 2 }),
            timeout_ms: 9,
            status: Status::Ongoing,
            started_ms: 10,
            written_ms: 11,
            partitions: [partition].into(),
            groups: [("g".to_owned(), [(partition, committed)].into())].into(),
        }
    }

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let simple = TransactionRecord {
            before: None,
            status: Status::Committed,
            partitions: BTreeSet::new(),
            groups: BTreeMap::new(),
            ..record()
        };
        let expected = [
            &b"\x01\0\0\0\0\0\0\x01\x02\0\x03\0\0\0\0\0\0\0\0\x09\x02"[..],
            b"\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\0",
        ];
        assert_eq!(simple.encode(), expected.concat());
        assert_eq!(
            TransactionRecord::decode("t", &record().encode()).unwrap(),
            record()
        );
    }

    #[test]
    fn a_record_that_is_cut_or_longer_is_named() {
        let value = record().encode();
        for cut in 0..value.len() {
            let error = TransactionRecord::decode("t", &value[..cut]).unwrap_err();
            assert!(error.to_string().contains("'t'"), "{cut}");
        }
        let longer = [&value[..], b"x"].concat();
        assert!(TransactionRecord::decode("t", &longer).is_err());
    }
}
