//! The sockets: bound before anything is opened, so that a port in use is the first thing told.

use super::config::Config;
use crate::failure::Failure;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use tokio::sync::watch;

/// One socket for each protocol.
pub struct Listeners {
    pub grpc: TcpListener,
    pub http: TcpListener,
    pub kafka: TcpListener,
}

/// Where they listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub kafka: SocketAddr,
}

impl Addresses {
    /// By the protocols' names, as `endpoints.json` and the server's status give them.
    pub fn by_protocol(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("grpc".into(), self.grpc.to_string()),
            ("http".into(), self.http.to_string()),
            ("kafka".into(), self.kafka.to_string()),
        ])
    }
}

/// Binds every socket.
pub fn bind(config: &Config) -> Result<Listeners, Failure> {
    Ok(Listeners {
        grpc: bind_one("--listen-grpc", config.listen_grpc)?,
        http: bind_one("--listen-http", config.listen_http)?,
        kafka: bind_one("--listen-kafka", config.listen_kafka)?,
    })
}

impl Listeners {
    /// The same sockets once more: who connects while nobody accepts waits.
    pub fn again(&self) -> Result<Listeners, Failure> {
        let again = |listener: &TcpListener| {
            listener.try_clone().map_err(|error| {
                Failure::new(
                    "io",
                    format!("cannot share a socket: {error}"),
                    "check the limits (`ulimit -n`)",
                )
            })
        };
        Ok(Listeners {
            grpc: again(&self.grpc)?,
            http: again(&self.http)?,
            kafka: again(&self.kafka)?,
        })
    }

    /// The addresses, with the ports that were picked.
    pub fn addresses(&self) -> Result<Addresses, Failure> {
        let of = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| {
                Failure::new(
                    "io",
                    format!("cannot ask a socket for its address: {error}"),
                    "",
                )
            })
        };
        Ok(Addresses {
            grpc: of(&self.grpc)?,
            http: of(&self.http)?,
            kafka: of(&self.kafka)?,
        })
    }
}

fn bind_one(flag: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(
            "port_in_use",
            format!("{flag} {address} is in use by another process"),
            format!(
                "stop that process, or choose another address with {flag} (port 0 picks a free one)"
            ),
        ),
        std::io::ErrorKind::PermissionDenied => Failure::new(
            "permission_denied",
            format!("{flag} {address}: {error}"),
            "ports below 1024 need privileges: choose a higher one",
        ),
        _ => Failure::new(
            "io",
            format!("{flag} {address}: {error}"),
            "check that this machine has that address",
        ),
    })
}

/// Resolves when the server stops.
pub async fn until(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told_with_the_flag() {
        let held = bind_one("--listen-grpc", "127.0.0.1:0".parse().unwrap()).unwrap();
        let failure = bind_one("--listen-grpc", held.local_addr().unwrap()).unwrap_err();
        assert_eq!(failure.code, "port_in_use");
        assert!(failure.hint.contains("--listen-grpc"));
    }
}
