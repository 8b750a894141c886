//! The system tables that need more than the broker: `system.handlers`, `system.lag`,
//! `system.group_offsets`, `system.server`.

use crate::handlers::input_positions;
use crate::status::Facts;
use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use mainstem_broker::Caller;
use mainstem_engine::{EngineError, Snapshot};
use mainstem_query::{QueryEngine, QueryError, SystemTable};
use std::fmt;
use std::sync::Arc;

/// Adds the tables to the engine.
pub(crate) fn register(query: &QueryEngine, facts: &Facts) {
    for (name, rows) in [
        ("handlers", handlers as Rows),
        ("lag", lag as Rows),
        ("group_offsets", group_offsets as Rows),
        ("server", server as Rows),
    ] {
        query.register_system_table(Arc::new(Table {
            name,
            facts: facts.clone(),
            rows,
        }));
    }
}

/// The columns of a table, and their values; with no snapshot only the columns count.
type Rows = fn(&Facts, Option<(&Caller, &Snapshot)>) -> Result<Columns, QueryError>;
type Columns = Vec<(&'static str, ArrayRef)>;

struct Table {
    name: &'static str,
    facts: Facts,
    rows: Rows,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl SystemTable for Table {
    fn name(&self) -> &str {
        self.name
    }

    fn schema(&self) -> SchemaRef {
        // Without rows nothing is read, so nothing can fail.
        let columns = (self.rows)(&self.facts, None).unwrap_or_default();
        schema_of(&columns)
    }

    fn rows(&self, caller: &Caller, snapshot: &Snapshot) -> Result<RecordBatch, QueryError> {
        let columns = (self.rows)(&self.facts, Some((caller, snapshot)))?;
        let schema = schema_of(&columns);
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(schema, arrays).map_err(|error| QueryError::Failed {
            message: error.to_string(),
        })
    }
}

fn schema_of(columns: &Columns) -> SchemaRef {
    let fields = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let values: TimestampMillisecondArray = values.into_iter().collect();
    Arc::new(values.with_timezone("+00:00"))
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One row for each handler.
fn handlers(facts: &Facts, asked: Option<(&Caller, &Snapshot)>) -> Result<Columns, QueryError> {
    let all = asked
        .map(|(caller, _)| facts.runtime.list(caller))
        .unwrap_or_default();
    Ok(vec![
        ("name", texts(all.iter().map(|one| Some(&one.name)))),
        (
            "state",
            texts(all.iter().map(|one| Some(one.state.as_str()))),
        ),
        ("version", texts(all.iter().map(|one| Some(&one.version)))),
        (
            "inputs",
            texts(all.iter().map(|one| Some(one.inputs.join(",")))),
        ),
        (
            "outputs",
            texts(all.iter().map(|one| Some(one.outputs.join(",")))),
        ),
        (
            "tasks",
            numbers(all.iter().map(|one| Some(count(one.tasks.len() as u64)))),
        ),
        ("lag", numbers(all.iter().map(|one| Some(count(one.lag()))))),
        (
            "events",
            numbers(all.iter().map(|one| Some(count(one.events())))),
        ),
        ("last_error", texts(all.iter().map(|one| one.last_error()))),
        (
            "deployed",
            times(all.iter().map(|one| Some(one.updated_ms))),
        ),
    ])
}

/// One row for each handler, input topic and partition, from the query's own snapshot.
fn lag(facts: &Facts, asked: Option<(&Caller, &Snapshot)>) -> Result<Columns, QueryError> {
    let mut rows = Vec::new();
    if let Some((caller, snapshot)) = asked {
        let bounds = |partition| {
            let bounds = snapshot.log.partitions.get(&partition)?;
            Some((bounds.start, bounds.high_watermark))
        };
        for handler in facts.runtime.list(caller) {
            let store = snapshot.store.as_ref();
            let positions = input_positions(
                &facts.broker,
                &facts.runtime,
                caller,
                &handler,
                store,
                &bounds,
            )
            .map_err(EngineError::from)?;
            rows.extend(
                positions
                    .into_iter()
                    .map(|position| (handler.name.clone(), position)),
            );
        }
    }
    let partitions: Int32Array = rows
        .iter()
        .map(|(_, one)| i32::try_from(one.partition).ok())
        .collect();
    Ok(vec![
        (
            "handler",
            texts(rows.iter().map(|(handler, _)| Some(handler))),
        ),
        ("topic", texts(rows.iter().map(|(_, one)| Some(&one.topic)))),
        ("partition", Arc::new(partitions)),
        (
            "next_offset",
            numbers(rows.iter().map(|(_, one)| one.next_offset)),
        ),
        (
            "high_watermark",
            numbers(rows.iter().map(|(_, one)| Some(one.high_watermark))),
        ),
        (
            "lag",
            numbers(rows.iter().map(|(_, one)| Some(count(one.lag())))),
        ),
    ])
}

/// One row for each partition that a consumer group has committed in, from the query's own snapshot.
fn group_offsets(
    facts: &Facts,
    asked: Option<(&Caller, &Snapshot)>,
) -> Result<Columns, QueryError> {
    let mut rows = Vec::new();
    if let Some((caller, snapshot)) = asked {
        for one in facts
            .broker
            .group_offsets(caller, snapshot.store.as_ref())?
        {
            let partition = one.topic.partition_id(one.partition);
            let bounds = partition.and_then(|id| snapshot.log.partitions.get(&id));
            let high_watermark = bounds.map(|bounds| bounds.high_watermark);
            rows.push((one, high_watermark));
        }
    }
    let partitions: Int32Array = rows
        .iter()
        .map(|(one, _)| i32::try_from(one.partition).ok())
        .collect();
    Ok(vec![
        ("group", texts(rows.iter().map(|(one, _)| Some(&one.group)))),
        (
            "topic",
            texts(rows.iter().map(|(one, _)| Some(&*one.topic.name))),
        ),
        ("partition", Arc::new(partitions)),
        (
            "next_offset",
            numbers(rows.iter().map(|(one, _)| Some(one.committed.offset))),
        ),
        (
            "high_watermark",
            numbers(rows.iter().map(|(_, high_watermark)| *high_watermark)),
        ),
        (
            "lag",
            numbers(rows.iter().map(|(one, high_watermark)| {
                high_watermark.map(|end| (end - one.committed.offset).max(0))
            })),
        ),
        (
            "metadata",
            texts(rows.iter().map(|(one, _)| Some(&one.committed.metadata))),
        ),
        (
            "committed",
            times(rows.iter().map(|(one, _)| Some(one.committed.committed_ms))),
        ),
    ])
}

/// One row: this server.
fn server(facts: &Facts, asked: Option<(&Caller, &Snapshot)>) -> Result<Columns, QueryError> {
    let one: Vec<_> = asked.map(|_| facts.status()).into_iter().collect();
    Ok(vec![
        (
            "version",
            texts(one.iter().map(|status| Some(&status.version))),
        ),
        (
            "cluster_id",
            texts(one.iter().map(|status| Some(&status.cluster_id))),
        ),
        (
            "data_dir",
            texts(one.iter().map(|status| Some(&status.data_dir))),
        ),
        (
            "started",
            times(one.iter().map(|status| Some(status.started_ms))),
        ),
        (
            "durable_lsn",
            numbers(one.iter().map(|status| Some(count(status.durable_lsn)))),
        ),
        (
            "checkpoint_lsn",
            numbers(one.iter().map(|status| Some(count(status.checkpoint_lsn)))),
        ),
        (
            "memory_limit_bytes",
            numbers(
                one.iter()
                    .map(|status| Some(count(status.memory_limit_bytes))),
            ),
        ),
        (
            "records_memory_bytes",
            numbers(
                one.iter()
                    .map(|status| Some(count(status.records_memory_bytes))),
            ),
        ),
        (
            "disk_free_bytes",
            numbers(one.iter().map(|status| Some(count(status.disk_free_bytes)))),
        ),
        (
            "poisoned",
            texts(one.iter().map(|status| status.poisoned.as_deref())),
        ),
    ])
}
