//! From what a step has made to what goes into its frame: records sorted into batches, one or more a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_broker::Topic;
use mainstem_engine::Append;
use mainstem_log::PartitionId;
use mainstem_record::{Batch, BatchBuilder, Codec, Compression, RecordError};

use crate::{Event, OutputRecord, StepFailure};

/// The topics that a handler may write to.
pub(crate) type OutputTopics = BTreeMap<Arc<str>, Arc<Topic>>;

/// Builds the batches of a step, in the order its records were made within each partition.
pub(crate) struct OutputBatches<'a> {
    topics: &'a OutputTopics,
    /// Where records without key and partition go, and the time of those without one.
    partition: u32,
    timestamp_ms: i64,
    open: BTreeMap<PartitionId, Open>,
    done: Vec<Append>,
    records: u64,
}

struct Open {
    limits: BatchLimits,
    builder: BatchBuilder,
}

/// What the batches of a topic are to be.
#[derive(Clone, Copy)]
struct BatchLimits {
    codec: Codec,
    /// Before compression.
    max_bytes: usize,
}

impl BatchLimits {
    fn of(topic: &Topic, max_bytes: usize) -> BatchLimits {
        BatchLimits {
            codec: topic.limits.codec.unwrap_or(Compression::None.into()),
            max_bytes,
        }
    }

    fn builder(self) -> BatchBuilder {
        BatchBuilder::new(self.codec, self.max_bytes)
    }
}

impl<'a> OutputBatches<'a> {
    pub(crate) fn new(
        topics: &'a OutputTopics,
        partition: u32,
        timestamp_ms: i64,
    ) -> OutputBatches<'a> {
        OutputBatches {
            topics,
            partition,
            timestamp_ms,
            open: BTreeMap::new(),
            done: Vec::new(),
            records: 0,
        }
    }

    /// Adds the outputs of a step; refuses what the deployment does not allow.
    pub(crate) fn add_all(&mut self, records: &[OutputRecord]) -> Result<(), StepFailure> {
        // Records of one topic follow each other, so the topic is looked up anew only when its name changes.
        let mut last: Option<(&Arc<str>, &Topic)> = None;
        for record in records {
            let topic = match last {
                Some((name, topic)) if Arc::ptr_eq(name, &record.topic) => topic,
                _ => self
                    .topics
                    .get(&record.topic)
                    .map(|topic| &**topic)
                    .ok_or_else(|| self.undeclared(&record.topic))?,
            };
            last = Some((&record.topic, topic));
            self.add(topic, record)?;
        }
        Ok(())
    }

    fn add(&mut self, topic: &Topic, record: &OutputRecord) -> Result<(), StepFailure> {
        if record.key.is_none() && topic.limits.compaction.is_some() {
            let why = format!(
                "topic `{}` is compacted by key, and an output has none",
                topic.name
            );
            return Err(StepFailure::Output(why));
        }
        let index = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => topic.partition_for_key(key),
            (None, None) => self.partition % topic.partitions.max(1),
        };
        let partition = topic.partition_id(index).ok_or_else(|| {
            let last = topic.partitions.saturating_sub(1);
            StepFailure::Output(format!(
                "topic `{}` has partitions 0 to {last}; there is no {index}",
                topic.name
            ))
        })?;
        let headers: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    std::str::from_utf8(name).unwrap_or_default(),
                    value.as_deref(),
                )
            })
            .collect();
        let limits = BatchLimits::of(topic, topic.limits.max_message_bytes);
        let time = record.timestamp_ms.unwrap_or(self.timestamp_ms);
        self.append(partition, limits, time, record.key.as_ref(), record.value.as_ref(), &headers).map_err(|error| {
            StepFailure::Output(match error {
                RecordError::RecordTooLarge { record_bytes, max_bytes } => format!(
                    "a record of {record_bytes} bytes exceeds topic `{}`'s max.message.bytes of {max_bytes}",
                    topic.name
                ),
                other => other.to_string(),
            })
        })
    }

    /// Adds a record that failed, with what is known about its failure. What would not fit into a frame (a record that is
    /// compressed in its topic may be larger) is left out, and a header says so.
    pub(crate) fn add_dead_letter(
        &mut self,
        topic: &Topic,
        event: &Event,
        error: &str,
        attempts: u32,
        max_bytes: usize,
    ) -> Result<(), StepFailure> {
        const MAX_ERROR_BYTES: usize = 4096;
        const MAX_KEPT_KEY_BYTES: usize = 4096;
        let error = error
            .get(..error.floor_char_boundary(MAX_ERROR_BYTES))
            .unwrap_or_default();
        let (partition, offset) = (event.partition.to_string(), event.offset.to_string());
        let attempts = attempts.to_string();
        let is_whole = event.size_bytes() <= max_bytes;
        let own = event.headers.iter().filter(|_| is_whole);
        let mut headers: Vec<(&str, Option<&[u8]>)> = own
            .map(|(name, value)| {
                (
                    std::str::from_utf8(name).unwrap_or_default(),
                    value.as_deref(),
                )
            })
            .collect();
        let key = event.key.as_ref();
        let key = key.filter(|key| is_whole || key.len() <= MAX_KEPT_KEY_BYTES);
        let value = event.value.as_ref().filter(|_| is_whole);
        let left_out = format!(
            "the record has {} bytes, more than a frame holds: its value and headers are left out here{}, and stand at topic, partition and offset",
            event.size_bytes(),
            if key == event.key.as_ref() {
                ""
            } else {
                ", its key as well"
            },
        );
        if !is_whole {
            headers.push(("mainstem-left-out", Some(left_out.as_bytes())));
        }
        headers.extend([
            ("mainstem-error", Some(error.as_bytes())),
            ("mainstem-topic", Some(event.topic.as_bytes())),
            ("mainstem-partition", Some(partition.as_bytes())),
            ("mainstem-offset", Some(offset.as_bytes())),
            ("mainstem-attempts", Some(attempts.as_bytes())),
        ]);
        let target = topic
            .partition_id(self.partition % topic.partitions.max(1))
            .ok_or_else(|| {
                StepFailure::Host(format!(
                    "dead-letter topic `{}` has no partitions",
                    topic.name
                ))
            })?;
        self.append(
            target,
            BatchLimits::of(topic, i32::MAX as usize),
            event.timestamp_ms,
            key,
            value,
            &headers,
        )
        .map_err(|error| StepFailure::Host(format!("the dead letter could not be built: {error}")))
    }

    fn append(
        &mut self,
        partition: PartitionId,
        limits: BatchLimits,
        timestamp_ms: i64,
        key: Option<&Bytes>,
        value: Option<&Bytes>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), RecordError> {
        let open = self.open.entry(partition).or_insert_with(|| Open {
            limits,
            builder: limits.builder(),
        });
        let (key, value) = (key.map(Bytes::as_ref), value.map(Bytes::as_ref));
        match open.builder.append(timestamp_ms, key, value, headers) {
            Err(RecordError::Full { .. }) => {
                let full = std::mem::replace(&mut open.builder, open.limits.builder());
                self.done.push(Append {
                    partition,
                    batch: full.build()?,
                });
                open.builder.append(timestamp_ms, key, value, headers)?;
            }
            other => other?,
        }
        self.records += 1;
        Ok(())
    }

    /// The batches, and how many records are in them.
    pub(crate) fn finish(self) -> Result<(Vec<Append>, u64), StepFailure> {
        let mut appends = self.done;
        for (partition, open) in self.open {
            let batch: Batch = open.builder.build().map_err(|error| {
                StepFailure::Host(format!("the outputs could not be built: {error}"))
            })?;
            appends.push(Append { partition, batch });
        }
        Ok((appends, self.records))
    }

    fn undeclared(&self, topic: &str) -> StepFailure {
        let declared: Vec<&str> = self.topics.keys().map(|name| &**name).collect();
        StepFailure::Output(match declared.as_slice() {
            [] => format!("topic `{topic}` is not declared: the deployment has no output topics"),
            names => format!(
                "topic `{topic}` is not declared; the deployment declares `{}`",
                names.join("`, `")
            ),
        })
    }
}
