//! Columns where none are declared: a sample of the first values shows them.

use crate::engine::QueryContext;
use crate::state::HandlerTable;
use crate::{QueryError, state};
use bytes::Bytes;
use mainstem_broker::Topic;
use mainstem_engine::EngineError;
use mainstem_log::{PartitionId, TopicId};
use mainstem_record::Batch;
use mainstem_schema::{TopicSchema, infer};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records that are looked at, over all partitions.
const SAMPLE_RECORDS: usize = 1_000;
/// At least this many of each partition that is looked at.
const LEAST_PER_PARTITION: usize = 16;
/// Bytes read of a partition at most; of its values, decompressed, about as many are kept.
const SAMPLE_BYTES: usize = 256 << 10;
/// Bytes of values that are kept at most, over all partitions. A longer value shows no columns.
const SAMPLE_VALUE_BYTES: usize = 8 << 20;
/// Bytes that are decompressed of a partition, before the batch that goes beyond.
const MOST_DECOMPRESSED_BYTES: usize = 1 << 20;

/// Values that are looked at. They are copied: a slice would keep its whole batch, decompressed, in memory.
#[derive(Default)]
pub(crate) struct Sample {
    values: Vec<Bytes>,
    bytes: usize,
    seen: usize,
}

impl Sample {
    /// Values looked at, those that were too long included.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the value if there is room; whether there is room for more.
    pub(crate) fn push(&mut self, value: &[u8]) -> bool {
        self.seen += 1;
        if self.bytes + value.len() <= SAMPLE_VALUE_BYTES {
            self.bytes += value.len();
            self.values.push(Bytes::copy_from_slice(value));
        }
        self.bytes < SAMPLE_VALUE_BYTES
    }

    fn schema(&self) -> TopicSchema {
        infer(self.values.iter().map(Bytes::as_ref))
    }
}

/// What was sampled (which offsets of which partitions) and what it showed. The same records show the same columns,
/// so a sample is read again only when other records are now the first.
type Sampled = (Vec<(u32, i64, i64)>, TopicSchema);

/// The samples of all topics that have been asked for.
#[derive(Default)]
pub(crate) struct SampleCache {
    topics: Mutex<BTreeMap<TopicId, Sampled>>,
}

/// The columns of a topic's values: declared, or those that a sample of its first records shows.
pub(crate) fn topic_schema(
    context: &QueryContext,
    topic: &Arc<Topic>,
) -> Result<TopicSchema, QueryError> {
    if let Some(declared) = &topic.schema {
        return Ok(declared.clone());
    }
    let spans = sample_spans(context, topic);
    let print: Vec<(u32, i64, i64)> = spans
        .iter()
        .map(|(partition, from, to)| (partition.index, *from, *to))
        .collect();
    if let Some((_, schema)) = context
        .samples
        .topics
        .lock()
        .get(&topic.id)
        .filter(|(sampled, _)| *sampled == print)
    {
        return Ok(schema.clone());
    }
    let mut taken = Sample::default();
    for (partition, from, to) in spans {
        sample(context, topic, partition, from, to, &mut taken)?;
    }
    let schema = taken.schema();
    context
        .samples
        .topics
        .lock()
        .insert(topic.id, (print, schema.clone()));
    Ok(schema)
}

/// The first records of each partition, enough of them for a sample.
fn sample_spans(context: &QueryContext, topic: &Topic) -> Vec<(PartitionId, i64, i64)> {
    let filled: Vec<_> = context
        .partitions(topic)
        .filter(|(_, bounds)| bounds.last_stable > bounds.start)
        .collect();
    let each = (SAMPLE_RECORDS / filled.len().max(1)).max(LEAST_PER_PARTITION);
    filled
        .into_iter()
        .take(SAMPLE_RECORDS / LEAST_PER_PARTITION)
        .map(|(partition, bounds)| {
            let last = bounds
                .start
                .saturating_add(i64::try_from(each).unwrap_or(i64::MAX));
            (partition, bounds.start, bounds.last_stable.min(last))
        })
        .collect()
}

fn sample(
    context: &QueryContext,
    topic: &Topic,
    partition: PartitionId,
    from: i64,
    to: i64,
    taken: &mut Sample,
) -> Result<(), QueryError> {
    let most_bytes = taken.bytes() + SAMPLE_BYTES;
    let mut decompressed = 0;
    let damaged = |message: String| QueryError::Damaged {
        topic: topic.name.to_string(),
        partition: partition.index,
        offset: from,
        message,
    };
    let read = context
        .snapshot
        .log
        .read_committed(partition, from, SAMPLE_BYTES, None)
        .map_err(EngineError::from)?;
    for mut bytes in read.batches {
        while let Some(batch) =
            Batch::split_first_trusted(&mut bytes).map_err(|error| damaged(error.to_string()))?
        {
            if batch.header().is_control() {
                continue;
            }
            let payload = batch
                .payload()
                .map_err(|error| damaged(error.to_string()))?;
            for record in payload.views() {
                let record = record.map_err(|error| damaged(error.to_string()))?;
                if record.offset >= to {
                    return Ok(());
                }
                let wanted = record.value.filter(|_| record.offset >= from);
                if let Some(value) = wanted
                    && (!taken.push(value) || taken.bytes() >= most_bytes)
                {
                    return Ok(());
                }
            }
            // Values that were too long to keep have been decompressed all the same.
            decompressed += payload.size_bytes();
            if decompressed >= MOST_DECOMPRESSED_BYTES {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The columns of a handler's state: those of its deployment, or those that a sample shows.
pub(crate) fn state_schema(
    context: &QueryContext,
    handler: &HandlerTable,
) -> Result<TopicSchema, QueryError> {
    if let Some(declared) = &handler.schema {
        return Ok(declared.clone());
    }
    let each = (SAMPLE_RECORDS / handler.tasks.len().max(1)).max(LEAST_PER_PARTITION);
    let mut taken = Sample::default();
    for task in handler
        .tasks
        .iter()
        .take(SAMPLE_RECORDS / LEAST_PER_PARTITION)
    {
        state::first_values(context, handler.id, *task, each, &mut taken)?;
    }
    Ok(taken.schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded_and_holds_no_batch() {
        let mut sample = Sample::default();
        let long = vec![b'x'; SAMPLE_VALUE_BYTES + 1];
        assert!(sample.push(&long), "there is room for shorter ones");
        assert!(sample.push(br#"{"a": 1}"#));
        assert_eq!((sample.seen(), sample.bytes()), (2, 8));
        let large = vec![b' '; SAMPLE_VALUE_BYTES / 2];
        for _ in 0..10 {
            sample.push(&large);
        }
        assert!(sample.bytes() <= SAMPLE_VALUE_BYTES);
        assert_eq!(sample.schema().columns.len(), 1);
    }
}
