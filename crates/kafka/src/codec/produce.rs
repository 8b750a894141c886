//! Produce, versions 3 to 13. Records stay the slices of the frame that they came as.
//!
//! ```text
//! request   transactional id | acks i16 | timeout i32 | topics: name, or id from 13 on
//!           | partitions: index i32 | records
//! response  topics: name or id | partitions: index i32 | error i16 | base offset i64 | append time i64
//!           | log start i64 (5+) | record errors: index i32 in the batch, message; message (8+)
//!           | throttle i32
//! ```
//! Source: `ProduceRequest.json` and `ProduceResponse.json` of Kafka 4.1.

use bytes::Bytes;

use crate::codec::topic::TopicRef;
use crate::wire::{Reader, WireError, Writer};

/// The first version that names topics by their ids.
const BY_ID: i16 = 13;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) transactional_id: Option<String>,
    pub(crate) acks: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) topics: Vec<Topic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) records: Option<Bytes>,
}

impl Request {
    pub(crate) fn read(reader: &mut Reader<'_>, version: i16) -> Result<Request, WireError> {
        let transactional_id = reader.nullable_text()?.map(str::to_owned);
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let count = reader.count(3)?;
        let mut topics = Vec::with_capacity(count.min(FIRST_ITEMS));
        for _ in 0..count {
            topics.push(Topic::read(reader, version)?);
        }
        reader.tags()?;
        Ok(Request {
            transactional_id,
            acks,
            timeout_ms,
            topics,
        })
    }
}

/// Items that memory is taken for before they are read.
pub(crate) const FIRST_ITEMS: usize = 64;

impl Topic {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Topic, WireError> {
        let topic = TopicRef::read(reader, version >= BY_ID)?;
        let count = reader.count(5)?;
        let mut partitions = Vec::with_capacity(count.min(FIRST_ITEMS));
        for _ in 0..count {
            partitions.push(Partition {
                index: reader.i32()?,
                records: reader.nullable_bytes()?,
            });
            reader.tags()?;
        }
        reader.tags()?;
        Ok(Topic { topic, partitions })
    }
}

/// What became of one partition's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionResult {
    pub(crate) index: i32,
    pub(crate) error_code: i16,
    /// Of the first record; -1 with an error.
    pub(crate) base_offset: i64,
    /// The time the log gave to the records, -1 where they keep their own.
    pub(crate) append_time_ms: i64,
    pub(crate) log_start: i64,
    /// What is wrong with single records, by their position in the batch.
    pub(crate) record_errors: Vec<(i32, String)>,
    pub(crate) message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicResult {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<PartitionResult>,
}

pub(crate) fn write(writer: &mut Writer, version: i16, topics: &[TopicResult]) {
    writer.count(Some(topics.len()));
    for topic in topics {
        topic.topic.write(writer);
        writer.count(Some(topic.partitions.len()));
        for partition in &topic.partitions {
            writer.i32(partition.index);
            writer.i16(partition.error_code);
            writer.i64(partition.base_offset);
            writer.i64(partition.append_time_ms);
            if version >= 5 {
                writer.i64(partition.log_start);
            }
            if version >= 8 {
                writer.count(Some(partition.record_errors.len()));
                for (index, why) in &partition.record_errors {
                    writer.i32(*index);
                    writer.text(Some(why));
                    writer.tags();
                }
                writer.text(partition.message.as_deref());
            }
            writer.tags();
        }
        writer.tags();
    }
    writer.i32(0);
    writer.tags();
}
