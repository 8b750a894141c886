//! The connection, and calls on it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstem_proto::v1::server_client::ServerClient;
use mainstem_proto::{metadata, v1};
use tonic::metadata::Ascii;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::backoff::Backoff;
use crate::producer::Producer;
use crate::{ClientError, ClientOptions, FetchOptions, FetchStream, ProducerOptions};

/// What a stream may have under way before its reader has read it.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest piece that a message is cut into on its way here.
const FRAME_BYTES: u32 = 256 << 10;
/// How often a silent connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection to a server. Cheap to clone; all clones share the connection, which comes back by itself.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) server: Arc<str>,
    tenant: MetadataValue<Ascii>,
    endpoint: Endpoint,
    channel: Channel,
}

impl Client {
    /// Connects. Fails when nothing answers within `connect_timeout`.
    pub async fn connect(options: ClientOptions) -> Result<Client, ClientError> {
        let server: Arc<str> = options.server.as_str().into();
        let invalid = |why: String| ClientError::InvalidServer {
            server: server.clone(),
            why: why.into(),
        };
        let endpoint = Endpoint::from_shared(options.uri())
            .map_err(|error| invalid(error.to_string()))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let tenant = metadata::encode(&options.tenant)
            .parse()
            .map_err(|_| invalid(format!("the tenant '{}' cannot be sent", options.tenant)))?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| ClientError::Unreachable {
                server: server.clone(),
                why: innermost(&error).into(),
            })?;
        Ok(Client {
            inner: Arc::new(Inner {
                options,
                server,
                tenant,
                endpoint,
                channel,
            }),
        })
    }

    /// The server's address, as it was given.
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// How the server is.
    pub async fn status(&self) -> Result<v1::ServerStatus, ClientError> {
        self.read(
            |request| async { ServerClient::new(self.channel()).status(request).await },
            v1::ServerStatusRequest {},
        )
        .await
    }

    /// A producer, with an identity of its own.
    pub async fn producer(&self, options: ProducerOptions) -> Result<Producer, ClientError> {
        Producer::start(self.clone(), options).await
    }

    /// Reads a topic.
    pub async fn fetch(&self, options: FetchOptions) -> Result<FetchStream, ClientError> {
        FetchStream::open(self.clone(), options).await
    }

    /// The shared connection.
    pub(crate) fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    /// A connection of its own, for a stream that may stall: streams on one connection share its flow control.
    pub(crate) fn own_channel(&self) -> Channel {
        self.inner.endpoint.connect_lazy()
    }

    /// A request with the tenant.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert(metadata::TENANT, self.inner.tenant.clone());
        request
    }

    pub(crate) fn error(&self, status: &Status) -> ClientError {
        ClientError::from_status(status, &self.inner.server)
    }

    /// A call that may be made again: it is, while the connection fails and `request_timeout` lasts.
    pub(crate) async fn read<Q, A, F>(
        &self,
        call: impl Fn(Request<Q>) -> F,
        message: Q,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let until = Instant::now() + self.inner.options.request_timeout;
        let mut backoff = Backoff::default();
        loop {
            let error = match self.until(until, call(self.request(message.clone()))).await {
                Err(error) if error.is_connection() => error,
                answer => return answer,
            };
            let wait = backoff.next();
            if Instant::now() + wait >= until {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A call that is made once, since a second one would have another effect.
    pub(crate) async fn write<A>(
        &self,
        call: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, ClientError> {
        self.until(Instant::now() + self.inner.options.request_timeout, call)
            .await
    }

    async fn until<A>(
        &self,
        until: Instant,
        call: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, ClientError> {
        match tokio::time::timeout_at(until.into(), call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(ClientError::Timeout {
                server: self.inner.server.clone(),
                timeout_ms: millis(self.inner.options.request_timeout),
            }),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
