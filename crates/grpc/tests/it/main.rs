//! The gateway in one process with its clients, over a real directory and real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod client;
mod delete_records;
mod support;
mod wire;
