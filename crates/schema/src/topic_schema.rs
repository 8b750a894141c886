//! The schema itself: names, kinds, their order, and what they are in Arrow.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::SchemaError;

/// The columns that every topic has in SQL; a schema cannot declare them again.
pub const RESERVED_COLUMNS: [&str; 6] = [
    "_partition",
    "_offset",
    "_timestamp",
    "_key",
    "_value",
    "_headers",
];

/// Columns that a schema has at most.
pub const MAX_COLUMNS: usize = 1_000;

/// What the values of a topic look like: columns in order, none when nothing was declared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Declared")]
pub struct TopicSchema {
    /// The columns, in order.
    pub columns: Vec<Column>,
}

/// A column: the name of a field of the JSON object, and what its values are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The field's name, exactly.
    pub name: String,
    /// What its values are.
    pub kind: ColumnKind,
}

/// What a column's values are. Each kind has one name in text and JSON, and takes the aliases of other
/// databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum ColumnKind {
    /// `bool`.
    Boolean,
    /// `int`, 64 bits.
    Int64,
    /// `float`, 64 bits.
    Float64,
    /// `text`.
    Utf8,
    /// `timestamp`, in milliseconds, UTC.
    Timestamp,
}

/// The JSON form before it is checked.
#[derive(Deserialize)]
struct Declared {
    columns: Vec<Column>,
}

impl TryFrom<Declared> for TopicSchema {
    type Error = SchemaError;

    fn try_from(declared: Declared) -> Result<Self, SchemaError> {
        TopicSchema::new(declared.columns)
    }
}

impl TopicSchema {
    /// Checks the columns' names and number. No columns are allowed: the topic's values are opaque.
    pub fn new(columns: Vec<Column>) -> Result<TopicSchema, SchemaError> {
        if columns.len() > MAX_COLUMNS {
            return Err(SchemaError::TooManyColumns {
                count: columns.len(),
                max: MAX_COLUMNS,
            });
        }
        let mut seen = BTreeSet::new();
        for (index, Column { name, .. }) in columns.iter().enumerate() {
            if name.is_empty() {
                return Err(SchemaError::EmptyName {
                    position: index + 1,
                });
            }
            if RESERVED_COLUMNS.contains(&name.as_str()) {
                return Err(SchemaError::ReservedName { name: name.clone() });
            }
            if !seen.insert(name.as_str()) {
                return Err(SchemaError::DuplicateName { name: name.clone() });
            }
        }
        Ok(TopicSchema { columns })
    }

    /// Whether nothing was declared.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The position of a column.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// These columns, then those of `other` that are not among them, up to [`MAX_COLUMNS`].
    pub fn extended_with(&self, other: &TopicSchema) -> TopicSchema {
        let mut columns = self.columns.clone();
        columns.extend(
            other
                .columns
                .iter()
                .filter(|column| self.index_of(&column.name).is_none())
                .cloned(),
        );
        columns.truncate(MAX_COLUMNS.max(self.columns.len()));
        TopicSchema { columns }
    }

    /// The columns as Arrow has them, all nullable.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns
                .iter()
                .map(Column::arrow_field)
                .collect::<Vec<_>>(),
        ))
    }
}

impl Column {
    /// The column as Arrow has it, nullable.
    pub fn arrow_field(&self) -> Field {
        Field::new(&self.name, self.kind.arrow_type(), true)
    }
}

impl ColumnKind {
    /// Every kind.
    pub const ALL: [ColumnKind; 5] = [
        ColumnKind::Boolean,
        ColumnKind::Int64,
        ColumnKind::Float64,
        ColumnKind::Utf8,
        ColumnKind::Timestamp,
    ];

    /// Its name in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Boolean => "bool",
            ColumnKind::Int64 => "int",
            ColumnKind::Float64 => "float",
            ColumnKind::Utf8 => "text",
            ColumnKind::Timestamp => "timestamp",
        }
    }

    /// Its Arrow type.
    pub fn arrow_type(self) -> DataType {
        match self {
            ColumnKind::Boolean => DataType::Boolean,
            ColumnKind::Int64 => DataType::Int64,
            ColumnKind::Float64 => DataType::Float64,
            ColumnKind::Utf8 => DataType::Utf8,
            ColumnKind::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        }
    }
}
