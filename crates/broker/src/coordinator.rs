//! What groups and transactions are moved by: many state machines behind one lock that is never held over I/O, with their
//! timers, their frames under way, and answers that are given once the lock is free.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mainstem_engine::{Committed, EngineError, Promise, Signal, Ticket};
use parking_lot::Mutex;

use crate::BrokerError;
use crate::frames::FramesDone;

/// An answer to somebody who waits.
pub(crate) type Answer<T> = Ticket<Result<T, BrokerError>>;

/// State machines of one kind, each under its key.
pub(crate) trait Machines {
    /// The name of one.
    type Key: Ord + Clone;
    /// What belongs to a frame under way.
    type Frame;

    fn pending(&mut self) -> &mut Pending<Self::Key, Self::Frame>;

    /// After a restart, the time is told for the first time.
    fn resume(&mut self, now_ms: i64);
}

/// Machines behind their lock.
pub(crate) struct Coordinator<M> {
    machines: Mutex<M>,
    done: Arc<FramesDone>,
}

/// What is to happen: at a time, when a frame is done, or once the lock is free.
pub(crate) struct Pending<K, F> {
    /// When which machine wants to be told the time: one entry for each at most, never later than its deadline.
    timers: BTreeSet<(i64, K)>,
    held: BTreeMap<K, i64>,
    frames: BTreeMap<u64, (Ticket<Committed>, F)>,
    done: Arc<FramesDone>,
    next_id: u64,
    /// Whether what a restart has found was told the time.
    resumed: bool,
    /// A waker may run anything.
    answers: Vec<Box<dyn FnOnce() + Send>>,
}

impl<M: Machines> Coordinator<M> {
    /// `make` is given what the machines keep what is to happen in; `signal` rings when [`Coordinator::advance`] has
    /// something to do before the time it was told.
    pub(crate) fn new(
        signal: Arc<Signal>,
        make: impl FnOnce(Pending<M::Key, M::Frame>) -> M,
    ) -> Coordinator<M> {
        let done = FramesDone::new(signal);
        let pending = Pending {
            timers: BTreeSet::new(),
            held: BTreeMap::new(),
            frames: BTreeMap::new(),
            done: done.clone(),
            next_id: 0,
            resumed: false,
            answers: Vec::new(),
        };
        Coordinator {
            machines: Mutex::new(make(pending)),
            done,
        }
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        self.done.signal()
    }

    /// Looks at the machines, or changes them at a moment in time.
    pub(crate) fn with<R>(&self, now_ms: Option<i64>, act: impl FnOnce(&mut M) -> R) -> R {
        let mut machines = self.machines.lock();
        let first_before = machines.pending().first_timer_ms();
        if let Some(now_ms) = now_ms
            && !std::mem::replace(&mut machines.pending().resumed, true)
        {
            machines.resume(now_ms);
        }
        let result = act(&mut machines);
        let answers = std::mem::take(&mut machines.pending().answers);
        let first = machines.pending().first_timer_ms();
        drop(machines);
        answers.into_iter().for_each(|give| give());
        if first.is_some_and(|first| first_before.is_none_or(|before| first < before)) {
            self.done.signal().notify();
        }
        result
    }

    /// Tells the machines of frames that are done and of time that has passed; returns when it wants to be called again
    /// at the latest.
    pub(crate) fn advance(
        &self,
        now_ms: i64,
        mut finish: impl FnMut(&mut M, u64, M::Frame, Result<(), EngineError>),
        mut tick: impl FnMut(&mut M, &M::Key),
    ) -> Option<i64> {
        let done = self.done.take();
        self.with(Some(now_ms), |machines| {
            for id in done {
                if let Some((frame, outcome)) = machines.pending().take_done(id) {
                    finish(machines, id, frame, outcome);
                }
            }
            while let Some(key) = machines.pending().take_due(now_ms) {
                tick(machines, &key);
            }
            machines.pending().first_timer_ms()
        })
    }
}

impl<K: Ord + Clone, F> Pending<K, F> {
    /// A number that nothing else here has: of a frame, or of who waits.
    pub(crate) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn first_timer_ms(&self) -> Option<i64> {
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }

    /// Has a machine told the time when it wants to be. An entry that is earlier than need be stays: when it comes up, the
    /// machine finds nothing to do.
    pub(crate) fn set_timer(&mut self, key: &K, deadline_ms: Option<i64>) {
        let Some(at_ms) = deadline_ms else {
            return;
        };
        if self.held.get(key).is_some_and(|held| *held <= at_ms) {
            return;
        }
        self.forget_timer(key);
        self.held.insert(key.clone(), at_ms);
        self.timers.insert((at_ms, key.clone()));
    }

    /// The machine is gone.
    pub(crate) fn forget_timer(&mut self, key: &K) {
        if let Some(at_ms) = self.held.remove(key) {
            self.timers.remove(&(at_ms, key.clone()));
        }
    }

    fn take_due(&mut self, now_ms: i64) -> Option<K> {
        if self.first_timer_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.timers.pop_first()?;
        self.held.remove(&key);
        Some(key)
    }

    /// A frame is under way under this number, and `frame` belongs to it.
    pub(crate) fn watch(&mut self, id: u64, ticket: Ticket<Committed>, frame: F) {
        let ticket = self.done.watch(id, ticket);
        self.frames.insert(id, (ticket, frame));
    }

    fn take_done(&mut self, id: u64) -> Option<(F, Result<(), EngineError>)> {
        let (ticket, _) = self.frames.get_mut(&id)?;
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(outcome) = Pin::new(ticket).poll(&mut context) else {
            return None;
        };
        let (_, frame) = self.frames.remove(&id)?;
        Some((frame, outcome.map(|_| ())))
    }

    /// Answers somebody once the lock is free.
    pub(crate) fn answer<T: Send + 'static>(
        &mut self,
        promise: Promise<Result<T, BrokerError>>,
        outcome: Result<T, BrokerError>,
    ) {
        self.answers.push(Box::new(|| promise.resolve(Ok(outcome))));
    }
}

/// The answer that a ticket brings.
pub(crate) async fn answered<T>(answer: Answer<T>) -> Result<T, BrokerError> {
    match answer.await {
        Ok(answer) => answer,
        Err(error) => Err(EngineError::into(error)),
    }
}
