//! The gRPC API of Mainstem, generated from `proto/mainstem/v1`.
//!
//! What it promises: the types and services of [`v1`] are exactly what the `.proto` files say; `bytes` fields are
//! [`bytes::Bytes`](prost::bytes::Bytes), so that decoding a record batch copies nothing. What it refuses: behaviour. The
//! client's side is in `mainstem-client`, the server's in `mainstem-grpc`; what both must agree on beyond the messages
//! (the names in a call's metadata) is in [`metadata`].

/// Version 1 of the API.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("mainstem.v1");
}

mod codec;
pub mod metadata;

pub use codec::Codec;

/// The compiled `.proto` files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mainstem.v1.bin"));

/// The largest message that server and client accept, in bytes: a whole request, so also the largest batch.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The most bytes of a component, a query's result or fetched batches that one message carries, unless a single batch is
/// larger.
pub const CHUNK_BYTES: usize = 1 << 20;
