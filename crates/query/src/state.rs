//! The state of handlers as tables: `state.<handler>`, read from the snapshot's store.

use crate::columns::{Source, project, state_columns};
use crate::engine::QueryContext;
use crate::infer::Sample;
use crate::notices::ScanCounts;
use crate::predicate::{Axis, ranges};
use crate::rows::{Row, RowBuilder};
use crate::scan::{BATCH_BYTES, CHUNK_BYTES, Plan, Rows, ScanExec};
use crate::{QueryError, predicate};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::stats::Precision;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use mainstem_broker::Caller;
use mainstem_engine::EngineError;
use mainstem_runtime::keys::{StateKey, state_prefix, table_prefix};
use mainstem_schema::TopicSchema;
use mainstem_store::{Family, prefix_end};
use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What SQL must know of a handler to read its state.
#[derive(Clone, Debug)]
pub struct HandlerTable {
    /// The handler's name: the table's name in schema `state`.
    pub name: Arc<str>,
    /// Its id in the keys of the store.
    pub id: u64,
    /// Each task's partition number and the shard its keys lie in.
    pub tasks: Vec<(u32, u16)>,
    /// The columns of its values, if the deployment says; else a sample shows them.
    pub schema: Option<TopicSchema>,
}

/// Who knows the handlers of a tenant.
pub trait HandlerCatalog: Send + Sync {
    /// The caller's handlers.
    fn handlers(&self, caller: &Caller) -> Vec<HandlerTable>;
}

/// A handler's state at a query's snapshot.
pub(crate) struct StateTable {
    context: Arc<QueryContext>,
    handler: Arc<HandlerTable>,
    value_schema: TopicSchema,
    schema: SchemaRef,
    sources: Vec<Source>,
}

impl StateTable {
    pub(crate) fn new(
        context: Arc<QueryContext>,
        handler: Arc<HandlerTable>,
        value_schema: TopicSchema,
    ) -> StateTable {
        let (schema, sources) = state_columns(&value_schema);
        StateTable {
            context,
            handler,
            value_schema,
            schema,
            sources,
        }
    }
}

impl fmt::Debug for StateTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state of handler {}", self.handler.name)
    }
}

#[async_trait]
impl TableProvider for StateTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| {
                match predicate::is_exact(filter) || predicate::table_names(filter).is_some() {
                    true => TableProviderFilterPushDown::Exact,
                    false => TableProviderFilterPushDown::Unsupported,
                }
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (schema, sources) = project(&self.schema, &self.sources, projection)?;
        let prefixes = self.prefixes(filters);
        let share = prefixes
            .len()
            .div_ceil(state.config().target_partitions().max(1))
            .max(1);
        let mut streams: Vec<Vec<Bytes>> = prefixes.chunks(share).map(<[Bytes]>::to_vec).collect();
        if streams.is_empty() {
            streams.push(Vec::new());
        }
        let plan = StatePlan {
            context: self.context.clone(),
            handler: self.handler.clone(),
            schema: schema.clone(),
            sources,
            value_schema: self.value_schema.clone(),
            streams,
        };
        Ok(Arc::new(ScanExec::new(schema, Arc::new(plan))))
    }
}

impl StateTable {
    /// What the keys begin with that the filters leave: those of whole tasks, or of tables of them.
    fn prefixes(&self, filters: &[Expr]) -> Vec<Bytes> {
        let tables: Option<Vec<String>> =
            filters
                .iter()
                .filter_map(predicate::table_names)
                .reduce(|mut all, one| {
                    all.retain(|name| one.contains(name));
                    all
                });
        let mut prefixes = Vec::new();
        for (partition, shard) in self.handler.tasks.iter().copied() {
            let axis = Axis::Offset { partition };
            if filters
                .iter()
                .filter_map(|filter| ranges(filter, axis))
                .any(|wanted| wanted.first().is_none())
            {
                continue;
            }
            match &tables {
                None => prefixes.push(state_prefix(shard, self.handler.id, partition)),
                Some(tables) => {
                    prefixes.extend(
                        tables
                            .iter()
                            .map(|table| table_prefix(shard, self.handler.id, partition, table)),
                    );
                }
            }
        }
        prefixes
    }
}

/// A scan of a handler's state, planned: each stream reads some prefixes of keys.
struct StatePlan {
    context: Arc<QueryContext>,
    handler: Arc<HandlerTable>,
    schema: SchemaRef,
    sources: Vec<Source>,
    value_schema: TopicSchema,
    streams: Vec<Vec<Bytes>>,
}

impl Plan for StatePlan {
    fn streams(&self) -> usize {
        self.streams.len()
    }

    fn open(self: Arc<Self>, stream: usize) -> Box<dyn Rows> {
        let prefixes = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        Box::new(StateReader {
            ranges: prefixes
                .iter()
                .map(|prefix| (prefix.to_vec(), prefix_end(prefix)))
                .collect(),
            rows: RowBuilder::new(self.schema.clone(), &self.sources, &self.value_schema),
            plan: self,
        })
    }

    fn row_count(&self, stream: Option<usize>) -> Precision<usize> {
        let nothing = match stream {
            Some(stream) => self.streams.get(stream).is_none_or(Vec::is_empty),
            None => self.streams.iter().all(Vec::is_empty),
        };
        if nothing {
            Precision::Exact(0)
        } else {
            Precision::Absent
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: usize = self.streams.iter().map(Vec::len).sum();
        write!(f, "handler={}, prefixes={prefixes}", self.handler.name)
    }
}

/// One stream of it: a chunk of keys at a time, so that no read holds the store's iterator for long.
struct StateReader {
    plan: Arc<StatePlan>,
    /// Keys still to be read: from, and up to.
    ranges: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
    rows: RowBuilder,
}

impl StateReader {
    /// Reads until the batch is full, or the first range has ended.
    fn step(&mut self) -> Result<(), QueryError> {
        let Some((from, to)) = self.ranges.front_mut() else {
            return Ok(());
        };
        let rows = &mut self.rows;
        let mut bytes = 0;
        let mut counts = ScanCounts::default();
        let mut stopped_at = None;
        let visit = &mut |key: &[u8], value: &[u8]| {
            counts.records_walked += 1;
            bytes += key.len() + value.len();
            if let Some(entry) = StateKey::decode(key) {
                rows.add(Row {
                    partition: entry.partition,
                    offset: 0,
                    timestamp_ms: 0,
                    table: entry.table,
                    key: Some(entry.key),
                    value: Some(value),
                    headers: None,
                });
            }
            if rows.is_full() || bytes >= CHUNK_BYTES {
                stopped_at = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        self.plan
            .context
            .snapshot
            .store
            .scan(Family::State, from, to.as_deref(), visit)
            .map_err(|error| QueryError::from(EngineError::from(error)))?;
        match stopped_at {
            // The smallest key above the one just read.
            Some(mut key) => {
                key.push(0);
                *from = key;
            }
            None => {
                self.ranges.pop_front();
            }
        }
        counts.bytes_read = bytes as u64;
        self.plan.context.notices.count(counts);
        Ok(())
    }
}

impl Rows for StateReader {
    fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        while !self.rows.is_full() && !self.ranges.is_empty() {
            self.step()?;
        }
        if self.rows.is_empty() {
            return Ok(None);
        }
        let mut counts = ScanCounts::default();
        let context = &self.plan.context;
        let name = format!("state.{}", self.plan.handler.name);
        let batch = self
            .rows
            .finish(&mut counts, |count| context.notices.malformed(&name, count))?;
        context.notices.count(counts);
        Ok(Some(batch))
    }

    fn held_bytes(&self) -> usize {
        CHUNK_BYTES + BATCH_BYTES
    }
}

/// The first values of each table of a task's state, for a sample; tables may be many, keys may be very many.
pub(crate) fn first_values(
    context: &QueryContext,
    handler: u64,
    (partition, shard): (u32, u16),
    count: usize,
    taken: &mut Sample,
) -> Result<(), QueryError> {
    let prefix = state_prefix(shard, handler, partition);
    let (mut from, to) = (prefix.to_vec(), prefix_end(&prefix));
    let most = taken.seen() + count;
    let mut room = true;
    while room && taken.seen() < most {
        let most_of_table = most.min(taken.seen() + count.div_ceil(4));
        let mut table = None;
        let visit = &mut |key: &[u8], value: &[u8]| {
            let name = StateKey::decode(key).map(|entry| entry.table.to_owned());
            let next_table = table.as_ref().is_some_and(|table| *table != name);
            if next_table || taken.seen() >= most_of_table {
                return ControlFlow::Break(());
            }
            table = Some(name);
            room = taken.push(value);
            match room {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let store = &context.snapshot.store;
        store
            .scan(Family::State, &from, to.as_deref(), visit)
            .map_err(EngineError::from)?;
        // On with what follows this table.
        let next = table
            .flatten()
            .and_then(|name| prefix_end(&table_prefix(shard, handler, partition, &name)));
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(())
}
