//! The one error type of this crate.

use crate::ColumnKind;

/// Why a schema or a CSV row was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Nothing was declared.
    #[error("a schema needs at least one column; write it as `name:kind, name:kind`")]
    NoColumns,
    /// More columns than allowed.
    #[error(
        "a schema has at most {max} columns, this one has {count}; keep what you do not query out of it"
    )]
    TooManyColumns {
        /// Columns declared.
        count: usize,
        /// Columns allowed.
        max: usize,
    },
    /// Not of the form `name:kind`.
    #[error("column {position} of the schema (`{text}`) is not of the form `name:kind`")]
    Syntax {
        /// Counted from 1.
        position: usize,
        /// What stands there.
        text: String,
    },
    /// A kind that does not exist.
    #[error("column kind `{kind}` is unknown; use bool, int, float, text or timestamp")]
    UnknownKind {
        /// What was written.
        kind: String,
    },
    /// A column or CSV header without a name.
    #[error("column {position} has no name")]
    EmptyName {
        /// Counted from 1.
        position: usize,
    },
    /// A name that SQL uses for the record itself.
    #[error(
        "`{name}` is a column of every topic already; rename the field or leave it out of the schema"
    )]
    ReservedName {
        /// The name.
        name: String,
    },
    /// One name twice.
    #[error("column `{name}` is there twice; give every column its own name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Not the JSON form of a schema.
    #[error(
        "the schema's JSON cannot be read: {why}; expected {{\"columns\": [{{\"name\": …, \"kind\": …}}]}}"
    )]
    Json {
        /// What the parser said.
        why: String,
    },
    /// A CSV row of another length than its header.
    #[error("the row has {got} fields where the header has {expected}")]
    FieldCount {
        /// Fields in the header.
        expected: usize,
        /// Fields in the row.
        got: usize,
    },
    /// A CSV field that cannot be what its column says.
    #[error(
        "column `{column}` wants {kind}, the field is `{field}`; correct it, or name it as a null token, or declare the column as text"
    )]
    Field {
        /// The column.
        column: String,
        /// What it wants.
        kind: ColumnKind,
        /// What stands there, cut to a readable length.
        field: String,
    },
}
