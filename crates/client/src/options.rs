//! What can be set, with its defaults.

use std::time::Duration;

use mainstem_record::Compression;

/// Where the server is, and who calls.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `host:port`, or `http://host:port`.
    pub server: String,
    /// The name space of topics, handlers and principals.
    pub tenant: String,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a call may take, retries included. Streams and queries have no such limit.
    pub request_timeout: Duration,
    /// How long a stream goes on trying to reach a server that it has lost.
    pub reconnect_timeout: Duration,
}

impl ClientOptions {
    /// The options for a server, with the defaults: tenant `default`, 5 s to connect, 30 s for a call, 120 s to come back.
    pub fn new(server: impl Into<String>) -> ClientOptions {
        ClientOptions {
            server: server.into(),
            tenant: mainstem_proto::metadata::DEFAULT_TENANT.to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            reconnect_timeout: Duration::from_secs(120),
        }
    }

    /// The same for another tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> ClientOptions {
        self.tenant = tenant.into();
        self
    }

    /// The server's URI.
    pub(crate) fn uri(&self) -> String {
        if self.server.contains("://") {
            self.server.clone()
        } else {
            format!("http://{}", self.server)
        }
    }
}

impl Default for ClientOptions {
    /// A server on this machine, on the port where it listens unless told otherwise.
    fn default() -> ClientOptions {
        ClientOptions::new("127.0.0.1:7400")
    }
}

/// How a producer gathers and sends.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How long a batch that is not full waits for more. Zero: what has gathered goes out as soon as nothing is under
    /// way, so a slow producer has no delay and a fast one has large batches.
    pub linger: Duration,
    /// The most bytes in a batch, before compression. A larger record travels alone.
    pub max_batch_bytes: usize,
    /// About the most bytes in a request, which holds at most one batch of each partition.
    pub max_request_bytes: usize,
    /// Requests under way at most, 1 to 5: the server remembers the last five batches of a producer in a partition.
    pub max_in_flight: usize,
    /// Bytes of records that are not acknowledged; beyond these, `send` waits.
    pub buffer_bytes: usize,
    /// How records are compressed.
    pub compression: Compression,
    /// How long a record may take from `send` to its acknowledgement, retries included.
    pub delivery_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            linger: Duration::ZERO,
            max_batch_bytes: 1_000_000,
            max_request_bytes: 4 << 20,
            max_in_flight: 5,
            buffer_bytes: 32 << 20,
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}
