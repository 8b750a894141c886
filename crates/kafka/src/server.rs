//! The listener: it takes connections and gives each a task.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use mainstem::Mainstem;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, Gateway};
use crate::connection;
use crate::error::KafkaError;
use crate::settings::Settings;

/// How long accepting pauses after a failure that is not one connection's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the platform to Kafka clients on a socket that listens, until `shutdown`. Then no request is read any more,
/// those under way are answered, and it returns.
pub async fn serve(
    mainstem: Mainstem,
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), KafkaError> {
    listener
        .set_nonblocking(true)
        .map_err(KafkaError::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(KafkaError::Listener)?;
    let address = listener.local_addr().map_err(KafkaError::Listener)?;
    let settings = settings.serving(address, &mainstem.status().data_dir)?;
    let (stop, stopping) = watch::channel(false);
    let gateway = Arc::new(Gateway::new(mainstem, settings, stopping));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&gateway)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a Kafka connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// One connection, from its start to its end.
async fn converse(stream: TcpStream, gateway: Arc<Gateway>) {
    // Gone before it was looked at.
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
        return;
    };
    let client = Arc::new(Client::new(gateway, local, peer));
    match connection::run(stream, client).await {
        Ok(()) => tracing::debug!(%peer, "Kafka connection closed"),
        Err(KafkaError::Connection(error)) => {
            tracing::debug!(%peer, %error, "Kafka connection broke");
        }
        Err(error @ KafkaError::Answer { .. }) => {
            tracing::error!(%peer, %error, "Kafka connection ended");
        }
        Err(error) => tracing::info!(%peer, %error, "Kafka connection ended"),
    }
}
