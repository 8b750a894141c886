//! Why a connection, or the gateway, ends. What concerns one request alone is an error code in its answer instead: see
//! `codes.rs`.

use std::io;

/// An error that ends a connection, or keeps the gateway from starting.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The socket cannot be used.
    #[error("the Kafka listener cannot be used: {0}; check its address")]
    Listener(#[source] io::Error),
    /// A setting has a value it does not take.
    #[error("{name}={value}: {why}")]
    Setting {
        /// The setting, by Kafka's name.
        name: &'static str,
        /// The value given.
        value: String,
        /// What it takes.
        why: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    /// A length prefix that is negative or above the limit.
    #[error(
        "a request says it has {bytes} bytes; socket.request.max.bytes allows {limit_bytes}. Is this a Kafka client?"
    )]
    FrameSize {
        /// What the prefix says.
        bytes: i64,
        /// The limit.
        limit_bytes: usize,
    },
    /// The client went silent in the middle of a request, or does not take its answer.
    #[error("the client was silent for {silent_ms} ms in the middle of a request or an answer")]
    Stalled {
        /// For how long.
        silent_ms: u64,
    },
    /// A request that cannot be read.
    #[error("a {api} request cannot be read: {why}")]
    Malformed {
        /// Which request.
        api: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A request of a kind, or in a version, that ApiVersions does not name.
    #[error("API {api_key} version {version} is not served; ApiVersions tells what is")]
    Unsupported {
        /// The API's number.
        api_key: i16,
        /// The version asked for.
        version: i16,
    },
    /// An answer that its version cannot carry: a fault of this gateway.
    #[error(
        "an answer to {api} cannot be written: {why}; this is a fault of the server, report it"
    )]
    Answer {
        /// Which request.
        api: &'static str,
        /// What it is.
        why: String,
    },
    /// A produce without acknowledgement failed: all that can be done is to end the connection, as Kafka does.
    #[error("records sent with acks=0 were refused: {why}")]
    Unacknowledged {
        /// The first refusal.
        why: String,
    },
}

impl KafkaError {
    pub(crate) fn malformed(api: &'static str, why: impl ToString) -> KafkaError {
        KafkaError::Malformed {
            api,
            why: why.to_string(),
        }
    }
}
