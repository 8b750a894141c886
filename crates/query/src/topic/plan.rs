//! Which offsets of which partitions are read, by how many streams.

use crate::columns::Source;
use crate::engine::QueryContext;
use crate::predicate::{Axis, ranges};
use crate::ranges::Ranges;
use crate::scan::{Plan, Rows};
use crate::topic::reader::TopicReader;
use crate::topic::table::TopicTable;
use crate::{QueryError, scan};
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::logical_expr::Expr;
use mainstem_broker::Topic;
use mainstem_engine::EngineError;
use mainstem_log::PartitionId;
use mainstem_schema::TopicSchema;
use std::fmt;
use std::sync::Arc;

/// Offsets `from..to` of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partition: PartitionId,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Span {
    pub(crate) fn rows(&self) -> u64 {
        u64::try_from(self.to.saturating_sub(self.from)).unwrap_or(0)
    }
}

/// A scan of a topic, planned.
pub(crate) struct TopicPlan {
    pub(crate) context: Arc<QueryContext>,
    pub(crate) topic: Arc<Topic>,
    /// The columns that come out, and where each comes from.
    pub(crate) schema: SchemaRef,
    pub(crate) sources: Vec<Source>,
    /// All columns of the values.
    pub(crate) value_schema: TopicSchema,
    /// The timestamps that are asked for.
    pub(crate) timestamps: Ranges,
    /// Rows after which a stream may stop.
    pub(crate) limit: Option<usize>,
    streams: Vec<Vec<Span>>,
}

impl TopicPlan {
    /// Plans the columns `schema` of a table, which come from `sources`, over at most `streams` streams.
    pub(crate) fn new(
        table: &TopicTable,
        (schema, sources): (SchemaRef, Vec<Source>),
        filters: &[Expr],
        limit: Option<usize>,
        streams: usize,
    ) -> Result<TopicPlan, QueryError> {
        let timestamps = filters
            .iter()
            .filter_map(|filter| ranges(filter, Axis::Timestamp))
            .fold(Ranges::all(), |all, one| all.and(&one));
        let spans = spans(&table.context, &table.topic, filters, &timestamps)?;
        Ok(TopicPlan {
            context: table.context.clone(),
            topic: table.topic.clone(),
            schema,
            sources,
            value_schema: table.value_schema.clone(),
            timestamps,
            limit,
            streams: split(spans, streams),
        })
    }

    pub(crate) fn spans(&self, stream: usize) -> &[Span] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }
}

/// Whether every offset of a topic is a record, so that offsets can be counted in place of records. Compaction leaves
/// gaps, which stay when the topic is compacted no longer; a transaction's end would be a marker, and the broker admits
/// none so far.
fn every_offset_is_a_record(context: &QueryContext, topic: &Topic) -> bool {
    let mut partitions = context.partitions(topic);
    topic.limits.compaction.is_none()
        && partitions.all(|(partition, _)| context.snapshot.log.is_dense(partition))
}

/// What the filters leave of the topic, in the order of partitions and offsets.
fn spans(
    context: &QueryContext,
    topic: &Topic,
    filters: &[Expr],
    timestamps: &Ranges,
) -> Result<Vec<Span>, QueryError> {
    let mut spans = Vec::new();
    for (partition, bounds) in context.partitions(topic) {
        let axis = Axis::Offset {
            partition: partition.index,
        };
        let wanted = filters
            .iter()
            .filter_map(|filter| ranges(filter, axis))
            .fold(
                Ranges::between(bounds.start, bounds.last_stable.saturating_sub(1)),
                |all, one| all.and(&one),
            );
        let Some(first) = wanted.first() else {
            continue;
        };
        // Every record before the first one at or after the earliest timestamp asked for is too old.
        let from = match timestamps.first() {
            None => continue,
            Some(i64::MIN) => first,
            Some(earliest) => match context
                .snapshot
                .log
                .offset_for_timestamp(partition, earliest)
            {
                Ok(Some((offset, _))) => first.max(offset),
                Ok(None) => continue,
                Err(error) => return Err(EngineError::from(error).into()),
            },
        };
        for (start, last) in wanted.and(&Ranges::between(from, i64::MAX)).iter() {
            spans.push(Span {
                partition,
                from: start,
                to: last.saturating_add(1),
            });
        }
    }
    Ok(spans)
}

/// Deals the spans out in equal shares, cutting them where need be: a topic of one partition uses every core, one of
/// a thousand partitions holds a few chunks in memory and not a thousand.
fn split(spans: Vec<Span>, streams: usize) -> Vec<Vec<Span>> {
    let total: u64 = spans.iter().map(Span::rows).sum();
    let share = total
        .div_ceil(streams.max(1) as u64)
        .max(scan::BATCH_ROWS as u64);
    let mut shares = vec![Vec::new()];
    let mut room = share;
    for mut span in spans {
        while span.rows() > 0 {
            if room == 0 {
                shares.push(Vec::new());
                room = share;
            }
            let taken = span.rows().min(room);
            let cut = span
                .from
                .saturating_add(i64::try_from(taken).unwrap_or(i64::MAX));
            if let Some(last) = shares.last_mut() {
                last.push(Span { to: cut, ..span });
            }
            room -= taken;
            span.from = cut;
        }
    }
    shares
}

impl Plan for TopicPlan {
    fn streams(&self) -> usize {
        self.streams.len()
    }

    fn open(self: Arc<Self>, stream: usize) -> Box<dyn Rows> {
        Box::new(TopicReader::new(self, stream))
    }

    fn row_count(&self, stream: Option<usize>) -> Precision<usize> {
        let offsets: u64 = match stream {
            Some(stream) => self.spans(stream).iter().map(Span::rows).sum(),
            None => self.streams.iter().flatten().map(Span::rows).sum(),
        };
        let rows = usize::try_from(offsets).unwrap_or(usize::MAX);
        let exact = every_offset_is_a_record(&self.context, &self.topic)
            && self.timestamps.is_all()
            && self.limit.is_none();
        if exact || rows == 0 {
            Precision::Exact(rows)
        } else {
            Precision::Inexact(self.limit.map_or(rows, |limit| rows.min(limit)))
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: u64 = self.streams.iter().flatten().map(Span::rows).sum();
        let mut partitions: Vec<u32> = self
            .streams
            .iter()
            .flatten()
            .map(|span| span.partition.index)
            .collect();
        partitions.dedup();
        write!(
            f,
            "topic={}, partitions={} of {}, offsets={offsets}",
            self.topic.name,
            partitions.len(),
            self.topic.partitions
        )?;
        if !self.timestamps.is_all() {
            write!(f, ", timestamps pruned")?;
        }
        match self.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::{Span, split};
    use mainstem_log::{PartitionId, TopicId};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_hold_every_offset_once_and_in_order(rows in prop::collection::vec(0i64..100_000, 0..20), streams in 1usize..9) {
            let spans: Vec<Span> = rows.iter().enumerate()
                .map(|(index, rows)| Span { partition: PartitionId::new(TopicId(1), index as u32), from: 7, to: 7 + rows })
                .collect();
            let shares = split(spans.clone(), streams);
            prop_assert!(!shares.is_empty() && shares.len() <= streams);
            let mut joined: Vec<Span> = Vec::new();
            for span in shares.into_iter().flatten() {
                match joined.last_mut().filter(|last| last.partition == span.partition) {
                    Some(last) => { prop_assert_eq!(last.to, span.from); last.to = span.to; }
                    None => joined.push(span),
                }
            }
            let expected: Vec<Span> = spans.into_iter().filter(|span| span.rows() > 0).collect();
            prop_assert_eq!(joined, expected);
        }
    }
}
