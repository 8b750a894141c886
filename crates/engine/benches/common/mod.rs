//! What the benchmarks of engine and broker share: an engine on the disk with a thread for each of its workers, and
//! callers that are under way at the same time.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each benchmark uses a part.

#[path = "../../../mainstem/benches/common/batch.rs"]
mod batch;
#[path = "../../../mainstem/benches/common/rows.rs"]
mod rows;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use batch::*;
use mainstem_engine::{Engine, EngineOptions};
use mainstem_journal::RealDisk;
use mainstem_store::{RocksStore, StoreOptions};
pub use rows::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// An engine in a fresh directory, which goes with it.
pub struct Node {
    pub engine: Engine,
    threads: Vec<JoinHandle<()>>,
    _dir: TempDir,
}

impl Node {
    /// The real disk and RocksDB below it, as a server has them.
    pub fn open(dir: &Path, options: EngineOptions) -> Node {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let store = RocksStore::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        let (disk, store) = (Arc::new(RealDisk), Arc::new(store));
        let opened = Engine::open(disk, dir.path(), store, options, &mut |_| {}).unwrap();
        let workers = opened.workers.into_iter();
        Node {
            engine: opened.engine,
            threads: workers
                .map(|worker| std::thread::spawn(move || worker.run()))
                .collect(),
            _dir: dir,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.close();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// One thread, as a gateway has for its connections: the machine's other core is left to the engine.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Runs so many callers at the same time, to their end.
pub fn concurrently<T, F>(runtime: &Runtime, callers: usize, call: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    runtime.block_on(async {
        (0..callers)
            .map(call)
            .collect::<JoinSet<_>>()
            .join_all()
            .await
    })
}
