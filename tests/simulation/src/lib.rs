//! # A deterministic simulation of a node
//!
//! One seed decides everything: what clients ask and when, who moves next, how long a disk call takes, which one fails
//! and how, when the process dies or the power goes, and what is left of what was not synced. A model that shares nothing
//! with the product but its encodings then says what must be there.
//!
//! ```text
//!   actors ── broker ── engine ──┬── medium (slow, completes out of order) ── disk ──┐
//!  (clients)                     ├── log ─────────────────────────────────────────── disk ── faults, crashes
//!      │                         └── store                                           │
//!      │ what they were told                                     what the journal was given
//!      ▼                                                                             ▼
//!   world ──────────────── verify ─────────────── views ◀──────────────────────── history
//! ```
//!
//! - The **history** is taken from the writes to the journal's files, and read by the format alone.
//! - The **views** are log and store as that history says they must be. After every restart, and at snapshots under
//!   load, everything that the node shows is compared with them.
//! - The **rules** judge each frame: sequences of producers, offsets, steps of tasks, commits and records of groups,
//!   starts that move.
//! - The **world** is what clients were told or have read. All of it must be in the history, for good.
//!
//! Where to start reading: `run.rs` (one seed), `life.rs` (who moves next), `actors/` (the workload), `disk.rs` and
//! `faults.rs` (what goes wrong), `views.rs`, `rules.rs`, `groups/` and `world.rs` (what must hold), `runner.rs` (many seeds).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod actors;
pub mod clock;
pub mod coverage;
mod damage;
pub mod disk;
pub mod faults;
pub mod fiber;
pub mod groups;
pub mod history;
pub mod life;
pub mod medium;
#[cfg(feature = "mutations")]
pub mod mutations;
pub mod node;
pub mod rules;
pub mod run;
pub mod runner;
pub mod store;
pub mod trace;
pub mod views;
pub mod world;
