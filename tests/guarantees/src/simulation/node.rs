//! A whole node in memory: engine, broker and runtime, moved by one seed, which can go down at any moment.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use mainstem_broker::{Broker, BrokerSettings, Caller};
use mainstem_engine::testing::{Crash, Driver, node_dir, poll_once};
use mainstem_engine::{Engine, EngineOptions};
use mainstem_journal::MemoryDisk;
use mainstem_runtime::{Next, Runtime, RuntimeOptions};
use mainstem_store::MemoryStore;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::handler::deployment;
use crate::{Failure, Tally, ensure};

/// Sizes of a node.
#[derive(Clone)]
pub(super) struct Sizes {
    pub(super) engine: EngineOptions,
    pub(super) step_bytes: usize,
    pub(super) step_events: usize,
}

pub(super) struct Node {
    pub(super) disk: Arc<MemoryDisk>,
    store: Arc<MemoryStore>,
    live: Option<Live>,
    pub(super) rng: SmallRng,
    pub(super) now_ms: i64,
    /// Starts so far: each has topic ids of its own.
    lives: u64,
    sizes: Sizes,
    pub(super) tally: Tally,
}

/// What a crash ends.
pub(super) struct Live {
    pub(super) engine: Engine,
    driver: Driver,
    pub(super) broker: Broker,
    pub(super) runtime: Runtime,
    /// Native code is not kept: it is deployed again while everything else goes on.
    deploying: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

pub(super) fn caller() -> Caller {
    Caller::anonymous()
}

impl Node {
    pub(super) fn new(seed: u64, sizes: Sizes) -> Result<Node, Failure> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (disk, store) = (
            MemoryDisk::new(rng.random()),
            MemoryStore::new(rng.random()),
        );
        let mut node = Node {
            disk: Arc::new(disk),
            store: Arc::new(store),
            live: None,
            rng,
            now_ms: 1_000,
            lives: 0,
            sizes,
            tally: Tally::default(),
        };
        node.live = Some(node.open().map_err(Failure::new)?);
        Ok(node)
    }

    pub(super) fn live(&self) -> &Live {
        self.live
            .as_ref()
            .expect("the node is up between two crashes")
    }

    fn live_mut(&mut self) -> &mut Live {
        self.live
            .as_mut()
            .expect("the node is up between two crashes")
    }

    fn open(&mut self) -> Result<Live, String> {
        self.lives += 1;
        let options = self.sizes.engine.clone();
        let opened = Engine::open(
            self.disk.clone(),
            &node_dir(),
            self.store.clone(),
            options,
            &mut |_| {},
        );
        let opened = opened.map_err(|error| format!("the node does not come up: {error}"))?;
        self.tally.replayed += opened.recovery.replayed_frames;
        let mut next = u128::from(self.lives) << 64;
        let random = Box::new(move || {
            next += 1;
            next
        });
        let broker = Broker::open(opened.engine.clone(), BrokerSettings::new(random));
        let broker = broker.map_err(|error| format!("the broker does not come up: {error}"))?;
        let mut options = RuntimeOptions::new(self.disk.clone(), "/node/modules");
        options.max_step_bytes = self.sizes.step_bytes;
        options.max_step_events = self.sizes.step_events;
        options.backoff_ms = 5;
        options.schedule_seed = Some(self.rng.random::<u64>() | 1);
        let runtime = Runtime::open(broker.clone(), options, self.now_ms);
        let runtime = runtime.map_err(|error| format!("the runtime does not come up: {error}"))?;
        let driver = Driver::new(opened.workers, self.rng.random());
        Ok(Live {
            engine: opened.engine,
            driver,
            broker,
            runtime,
            deploying: None,
        })
    }

    /// Goes down as told and comes back, sometimes only after further crashes on the way.
    pub(super) fn crash(&mut self, crash: Crash) -> Result<(), Failure> {
        let mut crash = crash;
        loop {
            self.go_down(crash);
            let halted = self.rng.random_bool(0.2);
            if halted {
                self.disk.halt_after(self.rng.random_range(0..60));
            }
            match self.open() {
                Ok(live) => {
                    self.live = Some(live);
                    // Where recovery was done before the disk would have stopped, it goes on.
                    self.disk.halt_after(u64::MAX);
                    return Ok(());
                }
                Err(why) => {
                    ensure!(halted, "{why}");
                    self.tally.during_recovery += 1;
                    crash = self.any_crash();
                }
            }
        }
    }

    pub(super) fn any_crash(&mut self) -> Crash {
        if self.rng.random_bool(0.5) {
            Crash::Process
        } else {
            Crash::Power
        }
    }

    fn go_down(&mut self, crash: Crash) {
        self.end();
        self.tally.kills += 1;
        match crash {
            Crash::Process => self.disk.crash_process(),
            Crash::Power => {
                self.tally.power_losses += 1;
                self.disk.crash_power(self.rng.random());
            }
        }
        self.store.crash();
    }

    /// The runtime and what it waits for hold each other until it is closed.
    fn end(&mut self) {
        if let Some(live) = self.live.take() {
            live.runtime.close();
        }
    }

    /// Stops cleanly and opens again.
    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        if let Some(mut live) = self.live.take() {
            live.engine.close();
            live.driver.settle();
            ensure!(live.driver.stopped(), "the engine does not stop");
            live.runtime.close();
        }
        self.store.crash();
        self.live = Some(self.open().map_err(Failure::new)?);
        Ok(())
    }

    /// Begins to deploy the handler, in the background.
    pub(super) fn deploy(&mut self) {
        let (now_ms, live) = (self.now_ms, self.live_mut());
        let runtime = live.runtime.clone();
        live.deploying = Some(Box::pin(async move {
            // It fails only while the node is going down.
            let _ = runtime.deploy(&caller(), deployment(), now_ms).await;
        }));
    }

    /// Moves one worker of the engine.
    pub(super) fn move_engine(&mut self) -> bool {
        self.live_mut().driver.step()
    }

    /// Moves one task.
    pub(super) fn move_runtime(&mut self) -> bool {
        let (now_ms, live) = (self.now_ms, self.live_mut());
        if let Some(deploying) = &mut live.deploying
            && poll_once(deploying.as_mut()).is_ready()
        {
            live.deploying = None;
        }
        live.runtime.work(now_ms) == Next::Worked
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self) {
        self.now_ms += 7;
        self.live_mut().driver.tick();
    }

    /// Moves anything, in the order of the seed, until the future is ready.
    pub(super) fn block_on<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        for _ in 0..200_000 {
            if let Poll::Ready(output) = poll_once(future.as_mut()) {
                return Ok(output);
            }
            match self.rng.random_range(0..10) {
                0..2 => drop(self.move_runtime()),
                2 => self.tick(),
                _ => drop(self.move_engine()),
            }
        }
        Err(Failure::new("what is waited for does not come"))
    }

    /// Moves everything until nothing is left to do at this time.
    pub(super) fn settle(&mut self) {
        loop {
            let mut worked = false;
            while self.move_runtime() {
                worked = true;
                self.move_engine();
            }
            self.live_mut().driver.settle();
            if !worked && !self.move_runtime() {
                return;
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
