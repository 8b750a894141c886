//! What the benchmarks of the platform share, in process and through gRPC: rows, batches, a platform that produces as
//! fast as it can, and files that are read cold.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each benchmark uses a part.

mod batch;
pub mod read;
mod rows;
pub mod write;

pub use batch::*;
pub use rows::*;
