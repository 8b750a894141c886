//! The columns that tables have beside those of their values.

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use mainstem_schema::TopicSchema;
use std::sync::Arc;

/// A record's place and parts, or those of an entry of a handler's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Partition,
    Offset,
    Timestamp,
    /// The table of a handler's state.
    Table,
    Key,
    Value,
    Headers,
}

impl Pseudo {
    /// Those of a topic, in the order of its columns.
    pub(crate) const TOPIC: [Pseudo; 6] = [
        Pseudo::Partition,
        Pseudo::Offset,
        Pseudo::Timestamp,
        Pseudo::Key,
        Pseudo::Value,
        Pseudo::Headers,
    ];
    /// Those of a handler's state.
    pub(crate) const STATE: [Pseudo; 4] =
        [Pseudo::Partition, Pseudo::Table, Pseudo::Key, Pseudo::Value];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pseudo::Partition => "_partition",
            Pseudo::Offset => "_offset",
            Pseudo::Timestamp => "_timestamp",
            Pseudo::Table => "_table",
            Pseudo::Key => "_key",
            Pseudo::Value => "_value",
            Pseudo::Headers => "_headers",
        }
    }

    fn field(self) -> Field {
        match self {
            Pseudo::Partition => Field::new(self.name(), DataType::Int32, false),
            Pseudo::Offset => Field::new(self.name(), DataType::Int64, false),
            Pseudo::Timestamp => Field::new(self.name(), timestamp_type(), false),
            Pseudo::Table => Field::new(self.name(), DataType::Utf8, false),
            Pseudo::Key | Pseudo::Value => Field::new(self.name(), DataType::Binary, true),
            Pseudo::Headers => Field::new(self.name(), DataType::List(header_item()), false),
        }
    }
}

/// The time zone of timestamps, as an offset: every reader of Arrow knows those.
pub(crate) const TIME_ZONE: &str = "+00:00";

/// TIMESTAMPTZ in milliseconds, as the log keeps it.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(TIME_ZONE.into()))
}

/// The fields of one header.
pub(crate) fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

/// One header, as the item of a list.
pub(crate) fn header_item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(header_fields()), false))
}

/// Where a column of a table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A field of the JSON value: its index in the topic's schema.
    Value(usize),
    /// The record itself.
    Pseudo(Pseudo),
}

/// The columns of a topic's table: the value's fields first, then the record's own.
pub(crate) fn topic_columns(schema: &TopicSchema) -> (SchemaRef, Vec<Source>) {
    let (values, own) = (value_columns(schema), own_columns(&Pseudo::TOPIC));
    table(values.chain(own))
}

/// The columns of a handler's state: where an entry stands, then the value's fields.
pub(crate) fn state_columns(schema: &TopicSchema) -> (SchemaRef, Vec<Source>) {
    let (values, own) = (value_columns(schema), own_columns(&Pseudo::STATE));
    table(own.chain(values))
}

/// The columns that a query asks for, all of them where it does not say.
pub(crate) fn project(
    schema: &SchemaRef,
    sources: &[Source],
    projection: Option<&Vec<usize>>,
) -> Result<(SchemaRef, Vec<Source>), ArrowError> {
    let Some(columns) = projection else {
        return Ok((schema.clone(), sources.to_vec()));
    };
    let asked = columns
        .iter()
        .filter_map(|column| sources.get(*column).copied());
    Ok((Arc::new(schema.project(columns)?), asked.collect()))
}

fn table(columns: impl Iterator<Item = (Arc<Field>, Source)>) -> (SchemaRef, Vec<Source>) {
    let (fields, sources): (Vec<Arc<Field>>, Vec<Source>) = columns.unzip();
    (Arc::new(Schema::new(fields)), sources)
}

fn own_columns(pseudos: &'static [Pseudo]) -> impl Iterator<Item = (Arc<Field>, Source)> {
    pseudos
        .iter()
        .map(|pseudo| (Arc::new(pseudo.field()), Source::Pseudo(*pseudo)))
}

/// The value's fields. One with the name of a column of ours gives way to it; `_value` still holds it.
fn value_columns(schema: &TopicSchema) -> impl Iterator<Item = (Arc<Field>, Source)> {
    let fields = schema.arrow_schema().fields().clone();
    (0..fields.len()).filter_map(move |index| {
        let field = fields.get(index)?;
        let taken = Pseudo::TOPIC
            .iter()
            .chain(&Pseudo::STATE)
            .any(|own| own.name() == field.name());
        // A malformed value is NULL in every column, whatever the schema says.
        (!taken).then(|| {
            (
                Arc::new(field.as_ref().clone().with_nullable(true)),
                Source::Value(index),
            )
        })
    })
}
