//! The system's own tables, in schema `system`. Those of the broker are here; the layers above register theirs.

use crate::QueryError;
use crate::columns::timestamp_type;
use crate::engine::partitions;
use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_broker::{Broker, Caller, Topic};
use mainstem_engine::Snapshot;
use mainstem_log::{Bounds, PartitionId};
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

/// A table of schema `system`, made anew for each query that reads it.
///
/// # Contract
///
/// `rows` answers for the caller's tenant and from the query's snapshot, so that the table agrees with everything
/// else in the same query; what no snapshot holds (a rate, a last error) is the state at the time of the call. It
/// does not wait, and its batch has exactly `schema`.
pub trait SystemTable: Send + Sync + Debug {
    /// Its name, without the schema.
    fn name(&self) -> &str;
    /// Its columns.
    fn schema(&self) -> SchemaRef;
    /// Its rows as of the snapshot.
    fn rows(&self, caller: &Caller, snapshot: &Snapshot) -> Result<RecordBatch, QueryError>;
}

/// The tables of schema `system`, by name.
pub(crate) type SystemTables = BTreeMap<String, Arc<dyn SystemTable>>;

/// `system.topics`: one row per topic of the caller's tenant.
pub(crate) struct TopicsTable {
    broker: Broker,
    schema: SchemaRef,
}

impl TopicsTable {
    pub(crate) fn new(broker: Broker) -> TopicsTable {
        let schema = Schema::new(vec![
            Field::new("name", DataType::Utf8, false),
            Field::new("id", DataType::Utf8, false),
            Field::new("partitions", DataType::Int32, false),
            Field::new("records", DataType::Int64, false),
            Field::new("bytes", DataType::Int64, false),
            Field::new("configs", DataType::Utf8, false),
            Field::new("schema", DataType::Utf8, true),
            Field::new("created", timestamp_type(), false),
        ]);
        TopicsTable {
            broker,
            schema: Arc::new(schema),
        }
    }
}

impl Debug for TopicsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("system.topics")
    }
}

impl SystemTable for TopicsTable {
    fn name(&self) -> &str {
        "topics"
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self, caller: &Caller, snapshot: &Snapshot) -> Result<RecordBatch, QueryError> {
        let topics: Vec<Arc<Topic>> = self
            .broker
            .list_topics(caller)?
            .into_iter()
            .filter(|topic| partitions(snapshot, topic).next().is_some())
            .collect();
        let created = topics.iter().map(|topic| topic.created_ms);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                topics.iter().map(|topic| topic.name.as_ref()),
            )),
            Arc::new(StringArray::from_iter_values(
                topics.iter().map(|topic| topic.id.to_string()),
            )),
            Arc::new(Int32Array::from_iter_values(
                topics
                    .iter()
                    .map(|topic| partitions(snapshot, topic).count() as i32),
            )),
            Arc::new(Int64Array::from_iter_values(topics.iter().map(|topic| {
                partitions(snapshot, topic)
                    .map(|(_, bounds)| bounds.last_stable - bounds.start)
                    .sum::<i64>()
            }))),
            Arc::new(Int64Array::from_iter_values(topics.iter().map(|topic| {
                partitions(snapshot, topic)
                    .map(|(partition, _)| size_bytes(&self.broker, partition))
                    .sum::<i64>()
            }))),
            Arc::new(StringArray::from_iter_values(topics.iter().map(|topic| {
                serde_json::to_string(&topic.configs).unwrap_or_default()
            }))),
            Arc::new(StringArray::from_iter(
                topics
                    .iter()
                    .map(|topic| topic.schema.as_ref().map(ToString::to_string)),
            )),
            Arc::new(
                TimestampMillisecondArray::from_iter_values(created)
                    .with_data_type(timestamp_type()),
            ),
        ];
        batch(self.schema(), columns)
    }
}

/// `system.partitions`: one row per partition.
pub(crate) struct PartitionsTable {
    broker: Broker,
    schema: SchemaRef,
}

impl PartitionsTable {
    pub(crate) fn new(broker: Broker) -> PartitionsTable {
        let schema = Schema::new(vec![
            Field::new("topic", DataType::Utf8, false),
            Field::new("partition", DataType::Int32, false),
            Field::new("shard", DataType::Int32, true),
            Field::new("start_offset", DataType::Int64, false),
            Field::new("end_offset", DataType::Int64, false),
            Field::new("last_stable_offset", DataType::Int64, false),
            Field::new("bytes", DataType::Int64, false),
        ]);
        PartitionsTable {
            broker,
            schema: Arc::new(schema),
        }
    }
}

impl Debug for PartitionsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("system.partitions")
    }
}

impl SystemTable for PartitionsTable {
    fn name(&self) -> &str {
        "partitions"
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self, caller: &Caller, snapshot: &Snapshot) -> Result<RecordBatch, QueryError> {
        let topics = self.broker.list_topics(caller)?;
        let rows: Vec<(&Arc<Topic>, PartitionId, Bounds)> = topics
            .iter()
            .flat_map(|topic| {
                partitions(snapshot, topic)
                    .map(move |(partition, bounds)| (topic, partition, bounds))
            })
            .collect();
        let number = |of: fn(&Bounds) -> i64| {
            Int64Array::from_iter_values(rows.iter().map(|(_, _, bounds)| of(bounds)))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                rows.iter().map(|(topic, ..)| topic.name.as_ref()),
            )),
            Arc::new(Int32Array::from_iter_values(
                rows.iter().map(|(_, partition, _)| partition.index as i32),
            )),
            Arc::new(Int32Array::from_iter(rows.iter().map(
                |(topic, partition, _)| topic.shard(partition.index).map(i32::from),
            ))),
            Arc::new(number(|bounds| bounds.start)),
            Arc::new(number(|bounds| bounds.high_watermark)),
            Arc::new(number(|bounds| bounds.last_stable)),
            Arc::new(Int64Array::from_iter_values(
                rows.iter()
                    .map(|(_, partition, _)| size_bytes(&self.broker, *partition)),
            )),
        ];
        batch(self.schema(), columns)
    }
}

/// What a partition takes now; nothing if it went after the snapshot.
fn size_bytes(broker: &Broker, partition: PartitionId) -> i64 {
    broker
        .engine()
        .log()
        .size_bytes(partition)
        .map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, QueryError> {
    RecordBatch::try_new(schema, columns).map_err(|error| QueryError::Failed {
        message: error.to_string(),
    })
}
