//! What crosses crates: the promises of `docs/guarantees.md` under crashes, checked by code that shares nothing with
//! what it checks.
//!
//! Two workloads of the same shape, idempotent producers that retry, a stateful handler, queries at one snapshot:
//!
//! - [`simulation`]: in process on the in-memory disk and store. One seed decides everything: what is sent, who moves
//!   next, when the process dies or the power goes, also during recovery. A seed replays exactly.
//! - [`server`]: the real binary, killed with kill -9 at random moments.
//!
//! Both end with a [`Tally`]. A run that finds nothing to replay, or a promise broken, is a [`Failure`]. The binary
//! `guarantees` runs the long forms, `cargo test -p mainstem-guarantees` the short ones; with the feature `mutations`,
//! [`mutations`] shows that each deliberate fault is found.
//!
//! **Where to start reading:** `simulation/world.rs`, then [`recount`].
// It is all test code: a panic is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "mutations")]
pub mod mutations;
pub mod recount;
pub mod server;
pub mod simulation;
mod tally;

pub use tally::{Failure, Tally};
