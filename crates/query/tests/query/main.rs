//! SQL against a real engine and broker on a disk and a store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bench;
mod results;
mod state;
mod statements;
mod tables;
mod values;
