//! A server in this process, which can be stopped and started again on the same port and directory.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use mainstem::{Mainstem, Options};
use mainstem_client::proto::CreateTopicRequest;
use mainstem_client::{Client, ClientOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server, and the directory it serves.
pub struct TestServer {
    pub address: SocketAddr,
    dir: TempDir,
    running: Option<Running>,
}

struct Running {
    mainstem: Mainstem,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start() -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let running = Some(run(dir.path(), listener).await);
        TestServer {
            address,
            dir,
            running,
        }
    }

    /// Stops: gracefully, or by dropping every connection in the middle of whatever they do.
    pub async fn stop(&mut self, gracefully: bool) {
        let Running {
            mainstem,
            stop,
            task,
        } = self.running.take().unwrap();
        if gracefully {
            let _ = stop.send(());
            tokio::time::timeout(Duration::from_secs(10), task)
                .await
                .expect("it does not stop")
                .unwrap();
        } else {
            task.abort();
            let _ = task.await;
        }
        tokio::task::spawn_blocking(move || mainstem.shutdown())
            .await
            .unwrap()
            .unwrap();
    }

    /// Starts again on the same directory and port.
    pub async fn restart(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.running = Some(run(self.dir.path(), listener).await);
    }

    pub async fn client(&self) -> Client {
        Client::connect(ClientOptions::new(self.address.to_string()))
            .await
            .unwrap()
    }
}

async fn run(dir: &Path, listener: TcpListener) -> Running {
    let dir = dir.to_owned();
    // An abrupt end leaves the old handle in streams that end a little later.
    let mainstem = tokio::task::spawn_blocking(move || {
        for _ in 0..100 {
            match Mainstem::open(
                &dir,
                Options {
                    min_free_bytes: 1 << 20,
                    ..Options::default()
                },
            ) {
                Ok(mainstem) => return mainstem,
                Err(mainstem::Error::InUse { .. }) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the directory stays in use");
    })
    .await
    .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let address = listener.local_addr().unwrap().to_string();
    let addresses = BTreeMap::from([("grpc".to_owned(), address)]);
    let served = mainstem.clone();
    let task = tokio::spawn(async move {
        let shutdown = async { drop(stopped.await) };
        mainstem_grpc::serve(served, listener, addresses, shutdown)
            .await
            .unwrap();
    });
    Running {
        mainstem,
        stop,
        task,
    }
}

/// What to create: a topic with so many partitions.
pub fn topic(name: &str, partitions: u32) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.into(),
        partitions: Some(partitions),
        ..CreateTopicRequest::default()
    }
}
