//! The gRPC gateway: `proto/mainstem/v1` turned into calls of [`mainstem::Mainstem`].
//!
//! What it promises:
//! - **An answer is durable.** A produce is answered when the broker says that its records are synced and readable.
//! - **Order.** The requests of one produce stream are submitted and answered in the order in which they came, however
//!   many are under way.
//! - **Nothing is buffered without bound.** A produce stream has at most 8 MiB under way; a reader that stalls pins one
//!   answer of about 1 MiB; a query advances only as it is read.
//! - **Bytes come in checked.** Every batch is parsed, its CRC compared and its records walked here, before the broker
//!   sees it; compressed batches are decompressed once for that.
//! - **Whoever goes away stops the work.** A stream that its client drops ends its reading, its waiting or its query.
//! - **Errors say what to do**: status, `mainstem-code`, `mainstem-hint` (see [`mainstem_proto::metadata`]).
//!
//! What it refuses: to decide anything that the broker, the runtime or the query engine decides; messages above
//! [`mainstem_proto::MAX_MESSAGE_BYTES`].
//!
//! Where to start reading: `server.rs` puts the services together; then one file for each service. `produce_stream.rs`
//! and `fetch.rs` are the two with a life of their own.

mod call;
mod errors;
mod fetch;
mod handlers;
mod produce;
mod produce_stream;
mod server;
mod sql;
mod status;
mod topics;

pub use server::{GrpcError, serve};
