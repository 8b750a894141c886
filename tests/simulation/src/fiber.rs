//! A step of a worker that can stand still in the middle of a disk call, while everybody else moves on: a slow write, a
//! slow sync. It runs on a thread of its own, but only one of the two ever runs: it or the scheduler.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;

use mainstem_engine::{Progress, Worker};
use parking_lot::{Condvar, Mutex};

use crate::coverage::{self, Counts};

/// A thread that steps workers.
pub struct Fiber {
    baton: Arc<Baton>,
    thread: Option<JoinHandle<()>>,
}

/// Where a step stands.
pub enum Stand {
    /// In the middle of a disk call.
    Paused,
    /// At its end: the worker, and what its step said or panicked with.
    Done(Box<Worker>, std::thread::Result<Progress>),
}

#[derive(Default)]
struct Baton {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    /// For the fiber: step this.
    Step(Box<Worker>),
    /// For the scheduler: it stands still.
    Paused,
    /// For the fiber: go on.
    Resume,
    Running,
    /// For the scheduler: it is done.
    Done(Box<Worker>, std::thread::Result<Progress>),
    Quit,
}

thread_local! {
    static MINE: RefCell<Option<Arc<Baton>>> = const { RefCell::new(None) };
}

/// Whether this thread is a fiber's.
pub fn is_fiber() -> bool {
    MINE.with_borrow(Option::is_some)
}

/// Stands still until the scheduler lets it go on. Called on a fiber's thread, with no lock held that others need.
pub fn pause() {
    let Some(baton) = MINE.with_borrow(Clone::clone) else {
        return;
    };
    let mut state = baton.state.lock();
    *state = State::Paused;
    baton.bell.notify_all();
    while !matches!(*state, State::Resume) {
        baton.bell.wait(&mut state);
    }
    *state = State::Running;
}

impl Fiber {
    /// Starts the thread; what it meets counts in `counts`.
    pub fn new(counts: Counts) -> Fiber {
        let baton: Arc<Baton> = Arc::default();
        let mine = baton.clone();
        let thread = std::thread::spawn(move || {
            coverage::count_in(counts);
            MINE.set(Some(mine.clone()));
            mine.run();
        });
        Fiber {
            baton,
            thread: Some(thread),
        }
    }

    /// Begins a step.
    pub fn step(&self, worker: Worker) -> Stand {
        self.baton.hand_over(State::Step(Box::new(worker)))
    }

    /// Lets a paused step go on.
    pub fn resume(&self) -> Stand {
        self.baton.hand_over(State::Resume)
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        let idle = matches!(*self.baton.state.lock(), State::Free);
        // One that stands still after a failure is left behind: what it holds is gone with the run.
        if idle {
            *self.baton.state.lock() = State::Quit;
            self.baton.bell.notify_all();
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Baton {
    /// The scheduler's side: gives the baton away and waits until it is back.
    fn hand_over(&self, next: State) -> Stand {
        let mut state = self.state.lock();
        *state = next;
        self.bell.notify_all();
        loop {
            match std::mem::take(&mut *state) {
                State::Paused => {
                    *state = State::Paused;
                    return Stand::Paused;
                }
                State::Done(worker, outcome) => return Stand::Done(worker, outcome),
                other => *state = other,
            }
            self.bell.wait(&mut state);
        }
    }

    /// The fiber's side.
    fn run(&self) {
        loop {
            let mut state = self.state.lock();
            let mut worker = loop {
                match std::mem::take(&mut *state) {
                    State::Step(worker) => {
                        *state = State::Running;
                        break worker;
                    }
                    State::Quit => return,
                    other => *state = other,
                }
                self.bell.wait(&mut state);
            };
            drop(state);
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| worker.step()));
            *self.state.lock() = State::Done(worker, outcome);
            self.bell.notify_all();
        }
    }
}
