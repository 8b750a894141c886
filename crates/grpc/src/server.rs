//! The listener, and all services on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::TcpListener;
use std::time::Duration;

use mainstem::Mainstem;
use mainstem_proto::v1::fetch_server::FetchServer;
use mainstem_proto::v1::handlers_server::HandlersServer;
use mainstem_proto::v1::produce_server::ProduceServer;
use mainstem_proto::v1::server_server::ServerServer;
use mainstem_proto::v1::sql_server::SqlServer;
use mainstem_proto::v1::topics_server::TopicsServer;
use mainstem_proto::{FILE_DESCRIPTOR_SET, MAX_MESSAGE_BYTES};
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;

use crate::call::Platform;
use crate::fetch::Fetch;
use crate::handlers::Handlers;
use crate::produce::Produce;
use crate::sql::Sql;
use crate::status::Server;
use crate::topics::Topics;

/// What a client may send on one stream before it is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for one connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The largest piece that a message is cut into on its way here.
const FRAME_BYTES: u32 = 256 << 10;
/// Calls and streams that one connection may have open.
const MAX_STREAMS: u32 = 200;
/// How often a silent client is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why the gateway could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The socket cannot be used.
    #[error("the gRPC listener cannot be used: {0}; check its address")]
    Listener(#[from] std::io::Error),
    /// The server failed.
    #[error("the gRPC server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// What reflection is to tell cannot be read.
    #[error("the API's description cannot be read: {0}; build again")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves the platform on a socket that listens, with health and reflection, until `shutdown`. Then streams end, calls
/// under way are answered, and it returns. `addresses` is what `Status` tells: what the server listens on, by protocol.
pub async fn serve(
    mainstem: Mainstem,
    listener: TcpListener,
    addresses: BTreeMap<String, String>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), GrpcError> {
    listener.set_nonblocking(true)?;
    let incoming =
        TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let (stop, stopping) = watch::channel(false);
    let platform = Platform::new(mainstem, addresses, stopping);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<TopicsServer<Topics>>().await;
    health.set_serving::<ProduceServer<Produce>>().await;
    health.set_serving::<FetchServer<Fetch>>().await;
    health.set_serving::<HandlersServer<Handlers>>().await;
    health.set_serving::<SqlServer<Sql>>().await;
    health.set_serving::<ServerServer<Server>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;

    let stopped = async move {
        shutdown.await;
        health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        // Long-lived streams end, or the connections would never.
        let _ = stop.send(true);
    };
    let service = || platform.clone();
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(
            TopicsServer::new(Topics {
                platform: service(),
            })
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            ProduceServer::new(Produce {
                platform: service(),
            })
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            FetchServer::new(Fetch {
                platform: service(),
            })
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            HandlersServer::new(Handlers {
                platform: service(),
            })
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            SqlServer::new(Sql {
                platform: service(),
            })
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            ServerServer::new(Server {
                platform: service(),
            })
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}
