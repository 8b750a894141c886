//! The workload against the real binary, over gRPC, with kill -9 at random moments.
//!
//! Departures go in by several idempotent producers; `examples/flights/handler` counts them in its state and tells
//! `daily` and `alerts`; a query joins offsets, state and outputs over and over; a reader follows the input. Afterwards
//! everything is compared with a recount that shares no code with the handler.

mod departures;
mod memory;
mod process;
mod run;
mod sql;
mod verdict;

pub use memory::{MemoryPlan, MemoryReport, memory};
pub use run::{Plan, run};
