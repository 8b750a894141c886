//! What the values of a topic look like, and how they become columns.
//!
//! A [`TopicSchema`] is a list of columns, each a name and a [`ColumnKind`]. It is declared as text
//! (`carrier:text, dep_delay:float`) or JSON, or made from samples by [`infer`] and [`infer_csv`].
//! [`Decoder`] turns record values (JSON objects) into Arrow columns, decoding only the columns that
//! are asked for; [`CsvCoercer`] goes the other way into the log, from CSV rows to JSON objects.
//!
//! **What it promises.** Decoding never fails and never panics, whatever the bytes: a field that is
//! missing or null is NULL; a value that cannot be what its column says is NULL and the record counts
//! as malformed; a record that is not one JSON object is NULL throughout and malformed. Field by
//! field:
//!
//! | column | takes | everything else is NULL and malformed |
//! |---|---|---|
//! | `bool` | `true`, `false` | numbers and strings too |
//! | `int` | whole numbers of 64 bits; `3.0` and `3e2` too, up to 2^53 | `3.5`, `"3"` |
//! | `float` | any number that is finite as a double | `1e999`, `"3.5"` |
//! | `text` | strings, unescaped; any other value as its JSON text | nothing |
//! | `timestamp` | RFC 3339 strings (with a zone), whole numbers as milliseconds since 1970 | other strings |
//!
//! A field given twice counts as given last. Names are compared exactly. JSON is checked whole, also
//! where it is not projected; only with no column projected at all are values not looked at.
//!
//! **What it refuses.** Schemas with two columns of one name, with names that SQL needs for itself
//! ([`RESERVED_COLUMNS`]), or with more than [`MAX_COLUMNS`].
//!
//! **Where to start reading:** `topic_schema.rs`, then `decoder.rs` over the scanner in `scan.rs`.

mod csv;
mod decoder;
mod error;
mod infer;
mod number;
mod scan;
mod syntax;
mod timestamp;
mod topic_schema;

pub use csv::{CsvCoercer, coerce_csv, infer_csv};
pub use decoder::Decoder;
pub use error::SchemaError;
pub use infer::infer;
pub use timestamp::parse_rfc3339_ms;
pub use topic_schema::{Column, ColumnKind, MAX_COLUMNS, RESERVED_COLUMNS, TopicSchema};
