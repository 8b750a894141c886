//! The Kafka gateway: Kafka's protocol turned into calls of [`mainstem::Mainstem`], for clients that know nothing of it.
//!
//! What it promises:
//! - **What is named is served.** One table ([`table_markdown`] prints it) drives decoding, dispatch and ApiVersions; a
//!   request of another kind or version ends its connection, as in Kafka.
//! - **An answer is durable.** acks=1 is answered like acks=all; only acks=0 asks for no answer.
//! - **Order.** A connection's requests are answered in their order; produces behind produces are under way together.
//! - **Bytes stay as they are.** A batch is checked as a slice of its request and kept byte for byte; fetched batches go
//!   out as the log hands them out, those of a segment from its file to the socket by the operating system. No record is
//!   decoded but where it is compressed, or its topic asks for it (`compression.type`, keys, limits of time).
//! - **The network waits for no file.** Records that stand in one are looked up, read and sent beside it.
//! - **Nothing is taken on a client's word.** No length or count on the wire makes this allocate more than the frame has;
//!   frames, requests under way, answers and waiting are bounded; a client that stalls is left.
//! - **Errors** have Kafka's codes, chosen in one place, and say what to do where the answer has a place for it.
//!
//! What it refuses: to decide anything that the broker decides; record formats before version 2.
//!
//! Where to start reading: `api.rs` is the table, `connection.rs` a connection's life, `call.rs` a request and its answer;
//! `send.rs` how answers go out; `produce.rs` and `fetch.rs` with `codec/` carry records, the other files a group of control requests each. `shape.rs`
//! says how counts are checked before `kafka-protocol` decodes.

mod acls;
mod api;
mod asked;
mod call;
mod client;
mod cluster;
mod codec;
mod codes;
mod configs;
mod connection;
mod error;
mod features;
mod fetch;
mod fetch_session;
mod frame;
#[cfg(test)]
mod fuzz;
mod group_admin;
mod group_heartbeats;
mod group_members;
mod group_offsets;
mod internal_topics;
mod metadata;
mod offsets;
mod piece;
mod produce;
mod room;
mod send;
mod server;
mod settings;
mod shape;
mod shapes;
mod topic_ref;
mod topics;
mod transaction_admin;
mod transactions;
mod wire;

pub use api::table_markdown;
pub use error::KafkaError;
pub use server::serve;
pub use settings::Settings;
