//! The topic table: planning (`table.rs`), what to read (`plan.rs`), reading (`reader.rs`).

mod plan;
mod reader;
mod table;

pub(crate) use table::TopicTable;
