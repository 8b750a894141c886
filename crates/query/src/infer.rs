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
/// Bytes read of a partition at most.
const SAMPLE_BYTES: usize = 256 << 10;

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
    let mut values = Vec::with_capacity(SAMPLE_RECORDS);
    for (partition, from, to) in spans {
        sample(context, topic, partition, from, to, &mut values)?;
    }
    let schema = infer(values.iter().map(Bytes::as_ref));
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
    values: &mut Vec<Bytes>,
) -> Result<(), QueryError> {
    let damaged = |message: String| QueryError::Damaged {
        topic: topic.name.to_string(),
        partition: partition.index,
        offset: from,
        message,
    };
    let read = context
        .snapshot
        .log
        .read(partition, from, SAMPLE_BYTES, None)
        .map_err(EngineError::from)?;
    for mut bytes in read.batches {
        while let Some(batch) =
            Batch::split_first_trusted(&mut bytes).map_err(|error| damaged(error.to_string()))?
        {
            if batch.header().is_control() {
                continue;
            }
            for record in batch
                .records()
                .map_err(|error| damaged(error.to_string()))?
            {
                let record = record.map_err(|error| damaged(error.to_string()))?;
                if record.offset >= to {
                    return Ok(());
                }
                if record.offset >= from {
                    values.extend(record.value);
                }
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
    let mut values = Vec::new();
    for task in handler
        .tasks
        .iter()
        .take(SAMPLE_RECORDS / LEAST_PER_PARTITION)
    {
        state::first_values(context, handler.id, *task, each, &mut values)?;
    }
    Ok(infer(values.iter().map(Bytes::as_ref)))
}
