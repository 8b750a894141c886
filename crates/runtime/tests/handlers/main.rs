//! Handlers on a whole node in memory: native ones and components.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../support/mod.rs"]
mod support;

mod components;
mod flights;
mod lifecycle;
mod outputs;
mod poison;
mod simulation;
mod transactions;
