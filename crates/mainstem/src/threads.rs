//! Who moves the state machines: the threads, and the end of them.
//!
//! | thread | moves |
//! |---|---|
//! | `admission`, `journal`, `store`, `background`, `sync`, `ahead` | the engine's workers, one each |
//! | `task-0` … | handler tasks, one task at a time |
//! | `compile` | code of handlers that is not in memory: read, or compiled |
//! | `coordinators` | consumer groups and transactions: their timers, and the answers to whoever waits for their frames |
//! | `retention` | one round of retention now and then, and of looking for what to compact; tells the engine the time |
//!
//! The end is in order: tasks first, so that no new step begins; then the engine, which finishes what it has
//! admitted and takes a checkpoint; then the coordinators, which answer for the last frames; then there is nothing left to do.

use crate::platform::now_ms;
use mainstem_broker::Broker;
use mainstem_engine::{Engine, Worker};
use mainstem_runtime::{Next, Runtime};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Every thread of the platform but those of SQL.
pub(crate) struct Threads {
    engine: Engine,
    runtime: Option<Runtime>,
    engine_threads: Vec<JoinHandle<()>>,
    task_threads: Vec<JoinHandle<()>>,
    /// Dropped to end the timer.
    timer: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    coordinators: Option<Coordinators>,
}

/// The thread that moves consumer groups and transactions.
struct Coordinators {
    broker: Broker,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// How often the engine is told the time: what it does after a while, it does so much later at most.
const TELL_TIME_EVERY: Duration = Duration::from_secs(5);

/// The longest a task thread sleeps when nobody wakes it.
const LONGEST_PARK: Duration = Duration::from_secs(1);

impl Threads {
    /// Starts the engine's threads: from here on it commits.
    pub(crate) fn start(engine: Engine, workers: Vec<Worker>) -> std::io::Result<Threads> {
        let mut threads = Threads {
            engine,
            runtime: None,
            engine_threads: Vec::new(),
            task_threads: Vec::new(),
            timer: None,
            coordinators: None,
        };
        for worker in workers {
            let thread = spawn(worker.name().to_string(), move || worker.run())?;
            threads.engine_threads.push(thread);
        }
        Ok(threads)
    }

    /// Starts the threads that move handler tasks, and the one that compiles for them.
    pub(crate) fn start_tasks(&mut self, runtime: Runtime, count: usize) -> std::io::Result<()> {
        self.runtime = Some(runtime.clone());
        for index in 0..count {
            let runtime = runtime.clone();
            self.task_threads
                .push(spawn(format!("task-{index}"), move || {
                    keep_moving(|| runtime.work(now_ms()), |timeout| runtime.park(timeout))
                })?);
        }
        let compiling = move || {
            keep_moving(
                || runtime.compile(now_ms()),
                |timeout| runtime.park_compiler(timeout),
            )
        };
        self.task_threads
            .push(spawn("compile".to_owned(), compiling)?);
        Ok(())
    }

    /// Starts the thread that moves consumer groups and transactions.
    pub(crate) fn start_coordinators(&mut self, broker: Broker) -> std::io::Result<()> {
        let ends = Arc::new(AtomicBool::new(false));
        let thread = spawn("coordinators".into(), {
            let (broker, ends) = (broker.clone(), Arc::clone(&ends));
            move || move_coordinators(&broker, &ends)
        })?;
        self.coordinators = Some(Coordinators {
            broker,
            ends,
            thread,
        });
        Ok(())
    }

    /// Starts the timer for retention and compaction.
    pub(crate) fn start_retention(
        &mut self,
        broker: Broker,
        every: Duration,
        compaction_every: Duration,
    ) -> std::io::Result<()> {
        let (stop, stopped) = mpsc::channel::<()>();
        let waiting = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = spawn("retention".into(), move || {
            let mut retention = Timer::new(every);
            let mut compaction = Timer::new(compaction_every);
            let mut clock = Timer::new(TELL_TIME_EVERY);
            let first = |timers: [&Timer; 3]| timers.map(Timer::left).into_iter().min();
            while stopped.recv_timeout(first([&retention, &compaction, &clock]).unwrap_or_default())
                == Err(RecvTimeoutError::Timeout)
            {
                if clock.rings() {
                    broker.engine().tell_time(now_ms());
                }
                if retention.rings() {
                    retain(&broker, &waiting);
                }
                if compaction.rings() {
                    compact(&broker);
                }
            }
        })?;
        self.timer = Some((stop, thread));
        Ok(())
    }

    /// Ends every thread, in order, and waits for them.
    pub(crate) fn stop(&mut self) {
        let timer = self.timer.take().map(|(_, thread)| thread);
        if let Some(runtime) = self.runtime.take() {
            runtime.close();
        }
        self.task_threads.drain(..).for_each(join);
        self.engine.close();
        // Not before: a round of retention may be waiting for room, which a store that stalls never gives.
        timer.into_iter().for_each(join);
        self.engine_threads.drain(..).for_each(join);
        if let Some(coordinators) = self.coordinators.take() {
            coordinators.ends.store(true, Ordering::Release);
            coordinators.broker.coordinators_signal().notify();
            join(coordinators.thread);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A thread that takes the process down if it panics: a stage that is gone would leave everybody waiting, and what
/// is acknowledged is on disk.
fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.clone()).spawn(move || {
        if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(
                thread = name,
                "stopping the process: this thread panicked; everything acknowledged is on disk"
            );
            std::process::abort();
        }
    })
}

fn join(thread: JoinHandle<()>) {
    // A panic inside has ended the process already.
    let _ = thread.join();
}

fn keep_moving(work: impl Fn() -> Next, park: impl Fn(Duration)) {
    loop {
        match work() {
            Next::Worked => {}
            Next::IdleUntil(None) => park(LONGEST_PARK),
            Next::IdleUntil(Some(at_ms)) => {
                let wait = Duration::from_millis(u64::try_from(at_ms - now_ms()).unwrap_or(0));
                park(wait.min(LONGEST_PARK));
            }
            Next::Closed => return,
        }
    }
}

fn move_coordinators(broker: &Broker, ends: &AtomicBool) {
    loop {
        let last = ends.load(Ordering::Acquire);
        let next_ms = broker.move_coordinators(now_ms());
        if last {
            return;
        }
        let wait = next_ms.map(|at_ms| {
            Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0))
        });
        broker.coordinators_signal().wait(wait);
    }
}

/// Rings again and again.
struct Timer {
    every: Duration,
    next: Instant,
}

impl Timer {
    fn new(every: Duration) -> Timer {
        let next = Instant::now() + every;
        Timer { every, next }
    }

    fn left(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn rings(&mut self) -> bool {
        let rings = self.left().is_zero();
        if rings {
            self.next = Instant::now() + self.every;
        }
        rings
    }
}

fn compact(broker: &Broker) {
    match broker.compaction_round(now_ms()) {
        Ok(round) => tracing::debug!(?round, "compaction"),
        Err(error) => {
            tracing::warn!(%error, "a round of compaction failed; the next one tries again")
        }
    }
}

fn retain(broker: &Broker, waiting: &tokio::runtime::Runtime) {
    broker.engine().tell_time(now_ms());
    match waiting.block_on(broker.retention_round(now_ms())) {
        Ok(round) => tracing::debug!(?round, "retention"),
        Err(error) => {
            tracing::warn!(%error, "a round of retention failed; the next one tries again")
        }
    }
    match waiting.block_on(broker.group_expiry_round(now_ms())) {
        Ok(round) => tracing::debug!(?round, "expired offsets"),
        Err(error) => {
            tracing::warn!(%error, "a round of removing expired offsets failed; the next one tries again")
        }
    }
}
