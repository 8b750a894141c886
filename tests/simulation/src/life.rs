//! Who moves next: workers of the engine and actors of the workload, in an order that the seed decides. An actor moves
//! when it was woken, a worker when its bell has rung or its time has come; so a wake that is forgotten is found: nothing
//! moves any more.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mainstem_engine::{Progress, Worker};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::actors::Actor;
use crate::clock::Clock;
use crate::coverage::met;
use crate::fiber::{Fiber, Stand};
use crate::note;
use crate::trace::Trace;

/// A crash came between a batch's way to its segment and its frame.
pub const DIED_AHEAD: &str = "death while a batch is on its way to its segment";

/// A life in progress.
pub struct Life {
    workers: Vec<Moved>,
    actors: Vec<Task>,
    clock: Clock,
    trace: Arc<Trace>,
    fibers: Fibers,
    turn: u64,
    /// Of a hundred steps of those that touch the disk so many can be stopped in a disk call.
    fiber_percent: u32,
}

/// One thread for each worker that does I/O. They outlive the lives.
#[derive(Clone)]
pub struct Fibers(pub Arc<[Fiber; 4]>);

struct Moved {
    name: &'static str,
    state: Standing,
    /// How eager it is: a worker that is slow compared with the others meets other states.
    weight: u32,
}

enum Standing {
    /// Step it.
    Ready(Worker),
    /// Its bell wakes it, or the time, if there is one.
    Idle(Worker, Option<i64>),
    /// In the middle of a disk call, on this fiber, at least until that turn.
    Paused(usize, u64),
    Stopped,
}

struct Task {
    name: &'static str,
    actor: Actor,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// What moves.
#[derive(Clone, Copy)]
enum Who {
    Worker(usize),
    Actor(usize),
}

impl Life {
    /// Begins a life.
    pub fn new(
        workers: Vec<Worker>,
        actors: Vec<Actor>,
        clock: Clock,
        trace: Arc<Trace>,
        fibers: Fibers,
        rng: &mut SmallRng,
    ) -> Life {
        let moved = |worker: Worker| Moved {
            name: worker.name(),
            weight: [1, 4, 4, 4, 16][rng.random_range(0..5)],
            state: Standing::Ready(worker),
        };
        let workers = workers.into_iter().map(moved).collect();
        let task = |actor: Actor| Task {
            name: actor.0,
            actor,
            woken: Arc::new(Woken(AtomicBool::new(true))),
        };
        Life {
            workers,
            actors: actors.into_iter().map(task).collect(),
            clock,
            trace,
            fibers,
            turn: 0,
            fiber_percent: [0, 30, 100][rng.random_range(0..3)],
        }
    }

    /// Whether every actor has come to its end.
    pub fn is_done(&self) -> bool {
        self.actors.is_empty()
    }

    /// Whether every worker has stopped.
    pub fn has_stopped(&self) -> bool {
        self.workers
            .iter()
            .all(|one| matches!(one.state, Standing::Stopped))
    }

    /// Nobody asks for anything any more.
    pub fn drop_actors(&mut self) {
        self.actors.clear();
    }

    /// One of them moves; false where nobody can, now or later.
    pub fn turn(&mut self, rng: &mut SmallRng) -> bool {
        self.turn += 1;
        let passed_ms = match rng.random_range(0..400) {
            0 => rng.random_range(0..3_000),
            1..200 => 1,
            _ => 0,
        };
        self.clock.advance_to(self.clock.now_ms() + passed_ms);
        loop {
            if let Some(who) = self.choose(rng) {
                match who {
                    Who::Worker(index) => self.move_worker(index, rng),
                    Who::Actor(index) => self.move_actor(index),
                }
                return true;
            }
            if !self.pass_time() {
                return false;
            }
        }
    }

    /// Somebody who can move now.
    fn choose(&mut self, rng: &mut SmallRng) -> Option<Who> {
        let now_ms = self.clock.now_ms();
        let mut ready: Vec<(Who, u32)> = Vec::with_capacity(24);
        for (index, one) in self.workers.iter_mut().enumerate() {
            one.look(now_ms);
            let is_ready = match one.state {
                Standing::Ready(_) => true,
                Standing::Paused(_, until) => until <= self.turn,
                _ => false,
            };
            if is_ready {
                ready.push((Who::Worker(index), one.weight));
            }
        }
        for (index, task) in self.actors.iter().enumerate() {
            if task.woken.0.load(Ordering::Acquire) {
                ready.push((Who::Actor(index), 4));
            }
        }
        let total: u32 = ready.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.random_range(0..total.max(1));
        for (who, weight) in ready {
            if at < weight {
                return Some(who);
            }
            at -= weight;
        }
        None
    }

    /// Nobody can move: lets the time pass until somebody can.
    fn pass_time(&mut self) -> bool {
        // A disk call that stands still comes to its end sooner or later.
        let paused = self
            .workers
            .iter_mut()
            .find_map(|one| match &mut one.state {
                Standing::Paused(_, until) => Some(until),
                _ => None,
            });
        if let Some(until) = paused {
            *until = self.turn;
            return true;
        }
        let idle = self.workers.iter().filter_map(|one| match one.state {
            Standing::Idle(_, due_ms) => due_ms,
            _ => None,
        });
        match idle.chain(self.clock.next_due_ms()).min() {
            Some(due_ms) => {
                self.clock.advance_to(due_ms);
                true
            }
            None => false,
        }
    }

    fn move_worker(&mut self, index: usize, rng: &mut SmallRng) {
        let one = &mut self.workers[index];
        let (fiber, stand) = match std::mem::replace(&mut one.state, Standing::Stopped) {
            Standing::Ready(mut worker) => {
                note!(self.trace, "{} {} steps", self.turn, one.name);
                // Only these touch the disk.
                let fiber = match one.name {
                    "journal" => 0,
                    "background" => 1,
                    "sync" => 2,
                    "ahead" => 3,
                    _ => usize::MAX,
                };
                if fiber == usize::MAX || rng.random_range(0..100) >= self.fiber_percent {
                    let progress = worker.step();
                    one.state = Standing::after(worker, progress, self.clock.now_ms());
                    return;
                }
                (fiber, self.fibers.0[fiber].step(worker))
            }
            Standing::Paused(fiber, _) => {
                note!(self.trace, "{} {} goes on", self.turn, one.name);
                (fiber, self.fibers.0[fiber].resume())
            }
            other => {
                one.state = other;
                return;
            }
        };
        one.state = match stand {
            Stand::Paused => {
                let slow = if rng.random_bool(0.1) {
                    rng.random_range(20..200)
                } else {
                    rng.random_range(0..8)
                };
                Standing::Paused(fiber, self.turn + slow)
            }
            Stand::Done(worker, Ok(progress)) => {
                Standing::after(*worker, progress, self.clock.now_ms())
            }
            Stand::Done(_, Err(panic)) => resume_unwind(panic),
        };
    }

    fn move_actor(&mut self, index: usize) {
        let task = &mut self.actors[index];
        task.woken.0.store(false, Ordering::Release);
        note!(self.trace, "{} {} {index} moves", self.turn, task.name);
        let waker = Waker::from(task.woken.clone());
        let polled = task.actor.1.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(()) = polled {
            self.actors.swap_remove(index);
        }
    }

    /// The process is dead: disk calls that stand still come to their end, with an error.
    pub fn end(mut self) {
        self.actors.clear();
        for one in &mut self.workers {
            if let Standing::Paused(fiber, _) = one.state {
                if one.name == "ahead" {
                    met(DIED_AHEAD);
                }
                loop {
                    match self.fibers.0[fiber].resume() {
                        Stand::Paused => {}
                        Stand::Done(_, Ok(_)) => break,
                        Stand::Done(_, Err(panic)) => resume_unwind(panic),
                    }
                }
                one.state = Standing::Stopped;
            }
        }
    }
}

impl Moved {
    /// Looks whether an idle worker wants to move.
    fn look(&mut self, now_ms: i64) {
        self.state = match std::mem::replace(&mut self.state, Standing::Stopped) {
            Standing::Idle(worker, due_ms) => {
                if worker.has_rung() {
                    Standing::Ready(worker)
                } else if due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
                    let mut worker = worker;
                    worker.tick();
                    Standing::Ready(worker)
                } else {
                    Standing::Idle(worker, due_ms)
                }
            }
            other => other,
        };
    }
}

impl Standing {
    fn after(worker: Worker, progress: Progress, now_ms: i64) -> Standing {
        match progress {
            Progress::Worked => Standing::Ready(worker),
            Progress::Idle => Standing::Idle(worker, None),
            Progress::IdleFor { wait_ms } => Standing::Idle(worker, Some(now_ms + wait_ms as i64)),
            Progress::Stopped => Standing::Stopped,
        }
    }
}
