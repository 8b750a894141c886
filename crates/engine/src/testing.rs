//! Driving an engine without threads: one seed decides which worker moves next.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use mainstem_journal::MemoryDisk;
use mainstem_log::Costs;
use mainstem_store::MemoryStore;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::verify::{Cost, Finding, Seen, StoreView, Verified, verify};
use crate::{Engine, EngineError, EngineOptions, Progress, RecoveryReport, Worker};

/// Moves workers in an order given by a seed.
pub struct Driver {
    workers: Vec<Worker>,
    rng: SmallRng,
}

struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {}
}

/// Polls a future once.
pub fn poll_once<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(Quiet));
    future.poll(&mut Context::from_waker(&waker))
}

impl Driver {
    /// Takes the workers of an engine.
    pub fn new(workers: Vec<Worker>, seed: u64) -> Driver {
        Driver {
            workers,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Steps one worker chosen by the seed; says whether it did anything.
    pub fn step(&mut self) -> bool {
        if self.workers.is_empty() {
            return false;
        }
        let index = self.rng.random_range(0..self.workers.len());
        self.step_worker(index)
    }

    fn step_worker(&mut self, index: usize) -> bool {
        let Some(worker) = self.workers.get_mut(index) else {
            return false;
        };
        match worker.step() {
            Progress::Worked => true,
            Progress::Idle | Progress::IdleFor { .. } => false,
            Progress::Stopped => {
                self.workers.remove(index);
                true
            }
        }
    }

    /// Steps all workers until none has anything to do.
    pub fn settle(&mut self) {
        loop {
            let mut worked = false;
            for index in (0..self.workers.len()).rev() {
                while self.step_worker(index) {
                    worked = true;
                    if index >= self.workers.len() {
                        break;
                    }
                }
            }
            if !worked {
                return;
            }
        }
    }

    /// Steps the workers of these names, one after the other, until none of them has anything to do: the others stand
    /// still.
    pub fn settle_only(&mut self, names: &[&str]) {
        loop {
            let mut worked = false;
            for worker in &mut self.workers {
                if names.contains(&worker.name()) {
                    worked |= worker.step() == Progress::Worked;
                }
            }
            if !worked {
                return;
            }
        }
    }

    /// Lets the time that idle workers asked for pass once.
    pub fn tick(&mut self) {
        for worker in &mut self.workers {
            if matches!(worker.step(), Progress::IdleFor { .. }) {
                worker.tick();
            }
        }
    }

    /// Whether every worker has stopped.
    pub fn stopped(&self) -> bool {
        self.workers.is_empty()
    }

    /// Steps workers until the future is ready. `None` where everything is idle and it is not.
    pub fn try_block_on<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut idle = 0;
        loop {
            if let Poll::Ready(output) = poll_once(future.as_mut()) {
                return Some(output);
            }
            if self.step() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle > 8 {
                idle = 0;
                let before = self.workers.len();
                let worked = (0..before).rev().any(|index| self.step_worker(index));
                if !worked {
                    return match poll_once(future.as_mut()) {
                        Poll::Ready(output) => Some(output),
                        Poll::Pending => None,
                    };
                }
            }
        }
    }

    /// Like [`Driver::try_block_on`], for a future that must come to its end.
    ///
    /// # Panics
    /// Where everything is idle and the future is not ready.
    #[allow(clippy::panic)]
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self.try_block_on(future) {
            Some(output) => output,
            None => panic!("the engine is idle, but what is waited for has not come"),
        }
    }
}

/// How a node went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process died: what was written can still be read, synced or not.
    Process,
    /// The power went: what was not synced is gone, kept or torn, by chance.
    Power,
}

/// A whole engine in memory that can crash and come back.
pub struct TestNode {
    /// The disk, to inject faults into.
    pub disk: Arc<MemoryDisk>,
    /// The store in memory.
    pub store: Arc<MemoryStore>,
    /// The engine that is open now.
    pub engine: Engine,
    /// What moves it.
    pub driver: Driver,
    /// What the last recovery did.
    pub recovery: RecoveryReport,
    options: EngineOptions,
    rng: SmallRng,
}

/// Small sizes, so that tests meet rotation, flushes and checkpoints.
pub fn small_options() -> EngineOptions {
    let mut options = EngineOptions {
        memory_bytes: 1 << 20,
        store_backlog_bytes: 256 << 10,
        flush_bytes: 64 << 10,
        flush_portion_bytes: 8 << 10,
        group_bytes: 64 << 10,
        max_frame_bytes: 256 << 10,
        admission_bytes_per_lock: 32 << 10,
        checkpoint_bytes: 256 << 10,
        reference_bytes: usize::MAX,
        checkpoint_idle_ms: 2_000,
        min_free_bytes: 0,
        ballast_bytes: 0,
        ..EngineOptions::default()
    };
    options.journal.file_bytes = 512 << 10;
    options.log.segment_bytes = 64 << 10;
    options
}

/// A check of a node that is not open, and the damage that it finds.
fn look_through(disk: &Arc<MemoryDisk>, store: &Arc<MemoryStore>) -> (Verified, Vec<Finding>) {
    let mut damage = Vec::new();
    let view = StoreView::Read(store.as_ref());
    let verified = verify(disk.clone(), &node_dir(), view, false, &mut |seen| {
        if let Seen::Finding(finding) = seen
            && !matches!(
                finding.costs,
                // A loss of power tears what is not synced because it is derived.
                Cost::Log(Costs::Harmless(_) | Costs::NoIndex { .. } | Costs::DamagedIndex { .. })
            )
        {
            damage.push(finding);
        }
    });
    (verified, damage)
}

/// Where the node's directory lies on its disk.
pub fn node_dir() -> PathBuf {
    PathBuf::from("/node")
}

impl TestNode {
    /// A fresh node with [`small_options`]. Everything it does follows from `seed`.
    pub fn open(seed: u64) -> Result<TestNode, EngineError> {
        TestNode::open_with(seed, small_options())
    }

    /// A fresh node.
    pub fn open_with(seed: u64, options: EngineOptions) -> Result<TestNode, EngineError> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = Arc::new(MemoryDisk::new(rng.random()));
        let store = Arc::new(MemoryStore::new(rng.random()));
        TestNode::start(disk, store, options, rng)
    }

    fn start(
        disk: Arc<MemoryDisk>,
        store: Arc<MemoryStore>,
        options: EngineOptions,
        mut rng: SmallRng,
    ) -> Result<TestNode, EngineError> {
        let (looked_through, damage) = look_through(&disk, &store);
        let opened = Engine::open(
            disk.clone(),
            &node_dir(),
            store.clone(),
            options.clone(),
            &mut |_| {},
        )?;
        // A check made before says what recovery comes to.
        assert_eq!(damage, [], "where recovery finds nothing wrong");
        let last = looked_through.journal.last_lsn;
        assert_eq!(last.max(looked_through.checkpoint), opened.recovery.last);
        let driver = Driver::new(opened.workers, rng.random());
        Ok(TestNode {
            disk,
            store,
            engine: opened.engine,
            driver,
            recovery: opened.recovery,
            options,
            rng,
        })
    }

    /// Goes down as told and comes back by recovery.
    pub fn crash(mut self, crash: Crash) -> Result<TestNode, EngineError> {
        match crash {
            Crash::Process => self.disk.crash_process(),
            Crash::Power => {
                self.disk.crash_power(self.rng.random());
            }
        }
        self.store.crash();
        drop(self.driver);
        TestNode::start(self.disk, self.store, self.options, self.rng)
    }

    /// Stops cleanly and opens again.
    pub fn restart(mut self) -> Result<TestNode, EngineError> {
        self.engine.close();
        self.driver.settle();
        self.store.crash();
        TestNode::start(self.disk, self.store, self.options, self.rng)
    }
}
