//! The node in one of its lives: engine and broker over a disk and a store that may fail, and the workers that move it.

use std::path::PathBuf;
use std::sync::Arc;

use mainstem_broker::{Broker, BrokerError, BrokerSettings};
use mainstem_engine::{Engine, EngineError, EngineOptions, RecoveryReport, Worker, make_space};
use mainstem_journal::MemoryDisk;
use mainstem_store::MemoryStore;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::disk::{Control, SimDisk};
use crate::groups;
use crate::medium::SlowMedium;
use crate::store::SimStore;

/// Where the node's directory lies on its disk.
pub fn dir() -> PathBuf {
    PathBuf::from("/node")
}

/// What outlives every life: the hardware, and how the node is set up.
pub struct Machine {
    /// The disk.
    pub disk: Arc<MemoryDisk>,
    /// The store with its own disk.
    pub store: Arc<MemoryStore>,
    /// What the simulation shares with the disk.
    pub control: Arc<Control>,
    /// Sizes and limits.
    pub options: EngineOptions,
    /// How quick the medium is: see [`SlowMedium`].
    pub medium_percent: u32,
    /// While the node opens, one read of the store fails after so many others.
    pub store_read_fails_after: Option<u64>,
}

/// A node that runs.
pub struct Node {
    /// Messaging on it.
    pub broker: Broker,
    /// What moves it.
    pub workers: Vec<Worker>,
    /// What recovery did.
    pub recovery: RecoveryReport,
    /// The disk, as this life sees it.
    pub disk: SimDisk,
    /// The store, as this life sees it.
    pub store: Arc<SimStore>,
}

/// Sizes that differ from run to run, small enough that each run meets rotation, flushes, checkpoints and back-pressure.
pub fn any_options(rng: &mut SmallRng) -> EngineOptions {
    let mut one_of = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
    let file_bytes = one_of(&[64 << 10, 96 << 10, 192 << 10]);
    let mut options = EngineOptions {
        memory_bytes: one_of(&[96 << 10, 256 << 10, 1 << 20]),
        store_backlog_bytes: one_of(&[4 << 10, 64 << 10]),
        flush_bytes: one_of(&[1 << 10, 8 << 10, 32 << 10]),
        flush_portion_bytes: one_of(&[1, 4 << 10, 1 << 20]),
        group_bytes: one_of(&[1 << 10, 4 << 10, 16 << 10]) as usize,
        max_frame_bytes: 32 << 10,
        admission_bytes_per_lock: one_of(&[1, 2 << 10, 32 << 10]) as usize,
        checkpoint_bytes: one_of(&[6 << 10, 20 << 10, 60 << 10]),
        checkpoint_idle_ms: 2_000,
        min_free_bytes: 64 << 10,
        ballast_bytes: one_of(&[0, 48 << 10]),
        ..EngineOptions::default()
    };
    options.journal.file_bytes = file_bytes;
    // Each opening has its own.
    options.journal.entropy = 0;
    options.journal.max_spare_files = one_of(&[2, 3, 6]) as usize;
    options.log.segment_bytes = one_of(&[600, 2_000, 8_000]);
    options.log.index_interval_bytes = one_of(&[64, 500, 4_096]);
    options.log.max_open_files = one_of(&[2, 8, 100]) as usize;
    options.log.index_cache_bytes = one_of(&[0, 300, 16 << 10]) as usize;
    options.log.compaction_memory_bytes = one_of(&[200, 4 << 10, 64 << 10]) as usize;
    options.reference_bytes = one_of(&[1, 120, 300, 1_000, u64::MAX]) as usize;
    options.gathered_batch_bytes = one_of(&[1, 150, 1_000]) as usize;
    options
}

impl Machine {
    /// Opens the node: recovery of whatever the last life left.
    pub fn open(&self, rng: &mut SmallRng) -> Result<Node, EngineError> {
        let disk = SimDisk::new(self.disk.clone(), self.control.clone());
        let store = Arc::new(SimStore::new(self.store.clone(), self.control.clone()));
        let mut options = self.options.clone();
        options.journal.entropy = rng.random();
        let (percent, medium_seed) = (self.medium_percent, rng.random());
        let shared: Arc<SimDisk> = Arc::new(disk.clone());
        if let Some(reads) = self.store_read_fails_after {
            store.fail_read_after(reads);
        }
        make_space(&*shared, &dir(), 2 * options.journal.file_bytes);
        let opened = Engine::open_through(
            shared,
            &dir(),
            store.clone(),
            options,
            &mut |_| {},
            |files| SlowMedium::new(files, percent, medium_seed),
        );
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                disk.kill();
                return Err(error);
            }
        };
        let mut ids = SmallRng::seed_from_u64(rng.random());
        let mut settings = BrokerSettings::new(Box::new(move || ids.random()));
        settings.groups = groups::settings();
        let broker = match Broker::open(opened.engine, settings) {
            Ok(broker) => broker,
            Err(BrokerError::Engine(error)) => {
                disk.kill();
                return Err(error);
            }
            Err(error) => panic!("the catalogue cannot be read: {error}"),
        };
        store.fail_read_after(u64::MAX);
        Ok(Node {
            broker,
            workers: opened.workers,
            recovery: opened.recovery,
            disk,
            store,
        })
    }
}
