//! What moves the engine. The engine owns no thread: it hands out [`Worker`]s, and a thread each (in
//! a server) or a scheduler with a seed (in a test) calls [`Worker::step`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something: step again.
    Worked,
    /// Nothing to do until the worker's signal rings.
    Idle,
    /// Nothing to do until the signal rings or this many milliseconds have passed; then
    /// [`Worker::tick`].
    IdleFor {
        /// How long to wait.
        wait_ms: u64,
    },
    /// The engine is closed and this worker has finished.
    Stopped,
}

/// A bell: rung by whoever makes work, waited on by the thread that does it.
#[derive(Default)]
pub struct Signal {
    rung: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Signal {
    /// Rings. Cheap when it has rung already.
    pub fn notify(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Taken so that a waiter between its test and its wait cannot miss the bell.
            drop(self.lock.lock());
            self.bell.notify_all();
        }
    }

    /// Whether it has rung since the last time somebody asked or waited.
    fn has_rung(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Waits for the bell, at most `timeout`; says whether it rang.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut guard = self.lock.lock();
        while !self.rung.swap(false, Ordering::AcqRel) {
            match timeout {
                Some(timeout) => {
                    if self.bell.wait_for(&mut guard, timeout).timed_out() {
                        return self.rung.swap(false, Ordering::AcqRel);
                    }
                }
                None => self.bell.wait(&mut guard),
            }
        }
        true
    }
}

/// The part of the engine that one thread moves.
pub(crate) trait Steps: Send {
    fn step(&mut self) -> Progress;
    /// The time asked for by [`Progress::IdleFor`] has passed without work.
    fn tick(&mut self) {}
}

/// One of the engine's moving parts.
pub struct Worker {
    name: &'static str,
    signal: Arc<Signal>,
    steps: Box<dyn Steps>,
}

impl Worker {
    pub(crate) fn new(
        name: &'static str,
        signal: Arc<Signal>,
        steps: impl Steps + 'static,
    ) -> Worker {
        Worker {
            name,
            signal,
            steps: Box::new(steps),
        }
    }

    /// What it moves: a good name for its thread.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Does a bounded piece of work. May block on the disk, never on another worker.
    pub fn step(&mut self) -> Progress {
        self.steps.step()
    }

    /// Whether its signal has rung since this was last asked: an idle worker then wants another step. For a scheduler
    /// that has no thread to wait with.
    pub fn has_rung(&self) -> bool {
        self.signal.has_rung()
    }

    /// Tells the worker that the time it asked for has passed.
    pub fn tick(&mut self) {
        self.steps.tick();
    }

    /// Moves this part on the calling thread until the engine is closed.
    pub fn run(mut self) {
        loop {
            match self.step() {
                Progress::Worked => {}
                Progress::Idle => {
                    self.signal.wait(None);
                }
                Progress::IdleFor { wait_ms } => {
                    if !self.signal.wait(Some(Duration::from_millis(wait_ms))) {
                        self.tick();
                    }
                }
                Progress::Stopped => return,
            }
        }
    }
}
