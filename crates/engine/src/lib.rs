//! # mainstem-engine: one frame, one journal, two views
//!
//! The only door to journal, log and store. A [`Submission`] becomes one frame, all or nothing:
//! records for any number of partitions together with changes to the store. Frames are ordered by
//! LSN, made durable in groups by one sync, and then applied to the log and to the store.
//!
//! ## Promises
//! - A ticket that resolves with [`Committed`] means: the frame is on disk, survives kill -9 and power
//!   loss, and every view it touches shows it. Nothing is visible before it is durable.
//! - Offsets are dense and in journal order. A retry by an idempotent producer is recognised and
//!   answered with the first offsets, once the original is durable.
//! - Every answer, refusals included, waits for every frame whose effect it has seen.
//! - [`Engine::snapshot`] shows log and store after one and the same frame.
//! - Memory is bounded: [`Engine::reserve`] makes writers wait, in order. Writers to a slow store wait
//!   by themselves and hold up nobody else.
//!
//! ## Refusals
//! - It owns no thread, no clock and no runtime: [`Worker`]s are stepped from outside, waiting is a
//!   [`Ticket`].
//! - A failed write or sync stops all writes ([`EngineError::Poisoned`]): nothing is retried or undone
//!   in place. Opening the directory again recovers.
//! - It knows no topics, no names and no protocol.
//!
//! ## Where to start reading
//! `shared.rs` draws the way of a submission; `admission.rs`, `commit.rs`, `apply.rs` and
//! `background.rs` are its stations in this order; `open.rs` is recovery, `verify.rs` a check of the directory offline.

mod admission;
mod ahead;
mod apply;
mod background;
mod budget;
mod commit;
mod compaction;
mod engine;
mod error;
mod keys;
mod mutated;
mod open;
mod options;
mod overlay;
mod producers;
mod shards;
mod shared;
mod snapshot;
mod space;
mod submission;
mod sync;
pub mod testing;
mod ticket;
mod transactions;
pub mod verify;
mod waiting;
mod worker;

pub use budget::Permit;
pub use compaction::CompactionRequest;
pub use engine::{Engine, EngineStatus};
pub use error::{AppendError, EngineError};
pub use mainstem_journal::Lsn;
pub use mainstem_log::CompactionPolicy;
pub use mainstem_record::Marker;
pub use open::{Opened, RecoveryProgress, RecoveryReport};
pub use options::EngineOptions;
pub use snapshot::Snapshot;
pub use space::make_space;
pub use submission::{Append, Appended, Check, Committed, MARKER_BYTES, Submission};
pub use ticket::{Promise, Ticket, ticket};
pub use transactions::{KnownProducer, Transaction, TransactionEnd};
pub use worker::{Progress, Signal, Worker};
