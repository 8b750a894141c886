//! The native Rust client of Mainstem, over gRPC.
//!
//! ```no_run
//! # async fn example() -> Result<(), mainstem_client::ClientError> {
//! use mainstem_client::{Client, ClientOptions, ProducerOptions, ProducerRecord, FetchOptions};
//!
//! let client = Client::connect(ClientOptions::new("127.0.0.1:7400")).await?;
//! let producer = client.producer(ProducerOptions::default()).await?;
//! let delivery = producer.send(ProducerRecord::new("flights").key("UA").value("{}")).await?;
//! let delivered = delivery.await?;
//! println!("partition {}, offset {}", delivered.partition, delivered.offset);
//! producer.close().await?;
//!
//! let mut stream = client.fetch(FetchOptions::new("flights")).await?;
//! while let Some(batch) = stream.next().await {
//!     for record in batch?.records()? {
//!         println!("{:?}", record?.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//! - **A record is written once.** A [`Producer`] numbers its batches, keeps at most five unanswered for a partition, and
//!   after a lost connection sends the same bytes again, in the same order, until they are answered or
//!   [`delivery_timeout`](ProducerOptions::delivery_timeout) has passed. Records of one producer stay in order within a
//!   partition.
//! - **A reader misses nothing and sees nothing twice.** A [`FetchStream`] connects again and goes on at the next offset.
//! - **Memory is bounded.** [`Producer::send`] waits while [`buffer_bytes`](ProducerOptions::buffer_bytes) are
//!   unacknowledged; a stream holds one answer.
//! - **Errors say what to do.** [`ClientError`] carries the server's stable code and its hint.
//!
//! What it refuses: to create topics by accident, to invent an outcome (a write that timed out says that its outcome is
//! unknown), to retry what a retry cannot mend.
//!
//! Where to start reading: [`Client`] (`client.rs`), then [`Producer`] (`producer/mod.rs`): records gather in
//! `producer/gather.rs`, what is under way is tracked in `producer/tracker.rs` (both pure: no I/O, no clock), and
//! `producer/sender.rs` moves them over the wire. [`FetchStream`] is in `fetch.rs`.

mod backoff;
mod client;
mod error;
mod fetch;
mod handlers;
mod options;
mod producer;
mod sql;
mod topics;

pub use client::Client;
pub use error::ClientError;
pub use fetch::{FetchOptions, FetchStream, FetchedBatch, Position, Start};
pub use handlers::Deployment;
pub use options::{ClientOptions, ProducerOptions};
pub use producer::{Delivered, Delivery, Producer, ProducerRecord};
pub use sql::{Notice, SqlStream};

/// The messages of the API, as the server answers them.
pub use mainstem_proto::v1 as proto;
/// Batches and records, as fetched and produced.
pub use mainstem_record as record;
