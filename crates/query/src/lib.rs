//! SQL over everything that is retained: topics, the state of handlers, and the system's own tables.
//!
//! # What it promises
//!
//! - **One snapshot.** A query takes one [`Snapshot`](mainstem_engine::Snapshot) of log and store, at one LSN, before
//!   it is planned, and everything in it reads that snapshot: a join of a topic, a handler's state and its input
//!   offsets always agrees.
//! - **Only what is asked for.** Partition, offset and timestamp predicates decide which batches are read, the
//!   projection decides what is decoded: `count(*)` decodes no value, `sum(x)` decodes one field.
//! - **Bounded memory.** A scan holds about 1 MiB of log and one batch of rows at a time; sorts, joins and groupings
//!   draw on one pool shared by all queries, and a query that would exceed it fails alone.
//! - **Bounded depth.** A statement that is nested more deeply than the stack of the threads for SQL
//!   ([`SQL_STACK_BYTES`]) carries is refused before anything recurses over it.
//! - **Bad data is no bad query.** A value that is not JSON, or not of the column's type, becomes NULL columns and a
//!   count in the query's [`Notices`].
//!
//! # What it refuses
//!
//! Everything that writes: topics are made, changed and written through the broker. Such a statement is answered
//! with [`QueryError::Refused`], which says what to use in its place.
//!
//! # Where to start reading
//!
//! [`QueryEngine::sql`] in `engine.rs` is a query from its text to its stream. `catalog.rs` says which tables it sees.
//! `topic/` is the topic table: `plan.rs` plans (with `predicate.rs`, which turns filters into offsets) and
//! `reader.rs` reads. `state.rs` is the handlers' state. Both run under one operator, `scan.rs`, and make their rows with
//! `rows.rs`. `system.rs` has the system's tables.

mod catalog;
mod columns;
mod engine;
mod error;
mod infer;
mod ipc;
mod nearest;
mod nesting;
mod notices;
mod predicate;
mod ranges;
mod rows;
mod scan;
mod state;
mod statement;
mod system;
mod topic;

pub use engine::{QueryEngine, QueryOptions, QueryResult};
pub use error::QueryError;
pub use ipc::{IpcStream, query_to_ipc};
pub use nesting::SQL_STACK_BYTES;
pub use notices::{Notice, Notices, ScanCounts};
pub use state::{HandlerCatalog, HandlerTable};
pub use system::SystemTable;
