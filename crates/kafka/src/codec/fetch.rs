//! Fetch, versions 4 to 18. Batches go out as the bytes they are, or as the stretch of a file where they stand.
//!
//! ```text
//! request   replica id i32 (to 14) | max wait i32 | min bytes i32 | max bytes i32 | isolation i8
//!           | session id i32, epoch i32 (7+)
//!           | topics: name, or id from 13 on | partitions: index i32 | leader epoch i32 (9+) | offset i64
//!             | last fetched epoch i32 (12+) | log start i64 (5+) | max bytes i32
//!           | forgotten topics: name or id | partitions i32 (7+)
//!           | rack (11+)
//! response  throttle i32 | error i16, session id i32 (7+)
//!           | topics: name or id | partitions: index i32 | error i16 | high watermark i64 | last stable i64
//!             | log start i64 (5+) | aborted transactions: producer id i64, first offset i64
//!             | preferred replica i32 (11+) | records
//! ```
//! Source: `FetchRequest.json` and `FetchResponse.json` of Kafka 4.1; sessions: KIP-227.

use crate::codec::produce::FIRST_ITEMS;
use crate::codec::topic::TopicRef;
use crate::piece::Piece;
use crate::wire::{Reader, WireError, Writer};

/// The first version that names topics by their ids.
const BY_ID: i16 = 13;
/// The first version with sessions.
const SESSIONS: i16 = 7;
/// The epoch of a fetch that keeps no session.
pub(crate) const NO_SESSION: i32 = -1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) read_committed: bool,
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    pub(crate) topics: Vec<Topic>,
    pub(crate) forgotten: Vec<Forgotten>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    /// The leader epoch that the client knows, or -1.
    pub(crate) leader_epoch: i32,
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
}

/// Partitions that a session is to leave out from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<i32>,
}

impl Request {
    pub(crate) fn read(reader: &mut Reader<'_>, version: i16) -> Result<Request, WireError> {
        if version <= 14 {
            let _replica = reader.i32()?;
        }
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let read_committed = reader.i8()? == 1;
        let (session_id, session_epoch) = if version >= SESSIONS {
            (reader.i32()?, reader.i32()?)
        } else {
            (0, NO_SESSION)
        };
        let count = reader.count(3)?;
        let mut topics = Vec::with_capacity(count.min(FIRST_ITEMS));
        for _ in 0..count {
            topics.push(Topic::read(reader, version)?);
        }
        let mut forgotten = Vec::new();
        if version >= SESSIONS {
            for _ in 0..reader.count(3)? {
                forgotten.push(Forgotten::read(reader, version)?);
            }
        }
        if version >= 11 {
            let _rack = reader.nullable_text()?;
        }
        reader.tags()?;
        Ok(Request {
            max_wait_ms,
            min_bytes,
            max_bytes,
            read_committed,
            session_id,
            session_epoch,
            topics,
            forgotten,
        })
    }
}

impl Topic {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Topic, WireError> {
        let topic = TopicRef::read(reader, version >= BY_ID)?;
        let count = reader.count(16)?;
        let mut partitions = Vec::with_capacity(count.min(FIRST_ITEMS));
        for _ in 0..count {
            let index = reader.i32()?;
            let leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
            let offset = reader.i64()?;
            if version >= 12 {
                let _last_fetched_epoch = reader.i32()?;
            }
            if version >= 5 {
                let _log_start = reader.i64()?;
            }
            partitions.push(Partition {
                index,
                leader_epoch,
                offset,
                max_bytes: reader.i32()?,
            });
            reader.tags()?;
        }
        reader.tags()?;
        Ok(Topic { topic, partitions })
    }
}

impl Forgotten {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Forgotten, WireError> {
        let topic = TopicRef::read(reader, version >= BY_ID)?;
        let count = reader.count(4)?;
        let mut partitions = Vec::with_capacity(count.min(FIRST_ITEMS));
        for _ in 0..count {
            partitions.push(reader.i32()?);
        }
        reader.tags()?;
        Ok(Forgotten { topic, partitions })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) error_code: i16,
    pub(crate) session_id: i32,
    pub(crate) topics: Vec<TopicResult>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicResult {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<PartitionResult>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionResult {
    pub(crate) index: i32,
    pub(crate) error_code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// The aborted transactions that a reader of committed records is to leave out, as first offset and producer id; none
    /// for who reads everything.
    pub(crate) aborted: Option<Vec<(i64, i64)>>,
    pub(crate) records: Vec<Piece>,
}

impl Response {
    pub(crate) fn write(self, writer: &mut Writer, version: i16) {
        writer.i32(0);
        if version >= SESSIONS {
            writer.i16(self.error_code);
            writer.i32(self.session_id);
        }
        writer.count(Some(self.topics.len()));
        for topic in self.topics {
            topic.topic.write(writer);
            writer.count(Some(topic.partitions.len()));
            for partition in topic.partitions {
                partition.write(writer, version);
            }
            writer.tags();
        }
        writer.tags();
    }
}

impl PartitionResult {
    fn write(self, writer: &mut Writer, version: i16) {
        writer.i32(self.index);
        writer.i16(self.error_code);
        writer.i64(self.high_watermark);
        writer.i64(self.last_stable);
        if version >= 5 {
            writer.i64(self.log_start);
        }
        writer.count(self.aborted.as_ref().map(Vec::len));
        for (first_offset, producer_id) in self.aborted.into_iter().flatten() {
            writer.i64(producer_id);
            writer.i64(first_offset);
            writer.tags();
        }
        if version >= 11 {
            writer.i32(-1);
        }
        writer.pieces(self.records);
        writer.tags();
    }
}
