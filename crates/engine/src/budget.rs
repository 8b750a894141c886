//! Back-pressure: bytes are reserved before a submission enters the queue, in the order of asking.
//! What counts against the limit is reserved, being committed, or still held by the log's tail.
//!
//! There are two lines, so that a store that is behind holds up nobody who has nothing for it. Who waits at the front
//! of the store's line for the store alone is passed over; who waits for memory is not, in either line: the oldest is
//! served first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::EngineError;
use crate::ticket::{Promise, Ticket, ticket};
use crate::worker::Signal;

/// With so many waiting, those who have gone away meanwhile are looked for.
const SWEEP_FROM: usize = 1024;

/// Room for one submission; given back when dropped.
#[must_use = "dropping a permit gives its bytes back"]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
    store_bytes: u64,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget
            .reserved_bytes
            .fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.store_applied(self.store_bytes);
    }
}

impl Permit {
    /// Takes the store's share out of the permit: it is given back only when the frame has been
    /// applied to the store.
    pub(crate) fn take_store_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.store_bytes)
    }
}

pub(crate) struct Budget {
    limit_bytes: u64,
    store_limit_bytes: u64,
    reserved_bytes: AtomicU64,
    /// Admitted, but not yet in the log's tail.
    in_flight_bytes: AtomicU64,
    /// Held by the log's tail, as it last said.
    tail_bytes: AtomicU64,
    /// Reserved for, or admitted and not yet applied to, the store.
    store_bytes: AtomicU64,
    line: Mutex<Line>,
    /// Woken when somebody has to wait: the background worker then makes room.
    pressure: Arc<Signal>,
}

/// Everybody who waits.
#[derive(Default)]
struct Line {
    plain: VecDeque<Waiting>,
    /// Those who have something for the store.
    store: VecDeque<Waiting>,
    next_place: u64,
    /// Somebody has come, or has come to wait for memory, since the last look at whether there is room.
    newly: bool,
    /// Somebody is handing out permits, and goes on as long as there is room: one at a time, so that nobody is
    /// overtaken between the grant and its answer, and an answer that gives its permit back at once does not nest.
    granting: bool,
    closed: bool,
    sweep_at: usize,
}

struct Waiting {
    place: u64,
    bytes: u64,
    store_bytes: u64,
    who: Box<dyn Waiter>,
}

/// Somebody in the line.
pub(crate) trait Waiter: Send {
    /// Whether nobody cares for the answer any more.
    fn is_gone(&self) -> bool;
    /// The turn has come, or never will. Called outside every lock.
    fn answer(self: Box<Self>, outcome: Result<Permit, EngineError>);
}

impl Waiter for Promise<Permit> {
    fn is_gone(&self) -> bool {
        self.is_abandoned()
    }

    fn answer(self: Box<Self>, outcome: Result<Permit, EngineError>) {
        self.resolve(outcome);
    }
}

impl Line {
    fn push(&mut self, bytes: u64, store_bytes: u64, who: Box<dyn Waiter>) {
        if self.plain.len() + self.store.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.plain.retain(|one| !one.who.is_gone());
            self.store.retain(|one| !one.who.is_gone());
            self.sweep_at = 2 * (self.plain.len() + self.store.len());
        }
        let place = self.next_place;
        self.next_place += 1;
        let line = if store_bytes > 0 {
            &mut self.store
        } else {
            &mut self.plain
        };
        line.push_back(Waiting {
            place,
            bytes,
            store_bytes,
            who,
        });
    }
}

impl Budget {
    pub(crate) fn new(
        limit_bytes: u64,
        store_limit_bytes: u64,
        pressure: Arc<Signal>,
    ) -> Arc<Budget> {
        Arc::new(Budget {
            limit_bytes,
            store_limit_bytes,
            reserved_bytes: AtomicU64::new(0),
            in_flight_bytes: AtomicU64::new(0),
            tail_bytes: AtomicU64::new(0),
            store_bytes: AtomicU64::new(0),
            line: Mutex::new(Line::default()),
            pressure,
        })
    }

    /// Room for a submission, once there is.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, store_bytes: usize) -> Ticket<Permit> {
        let (promise, ticket) = ticket();
        self.line_up(bytes, store_bytes, Box::new(promise));
        ticket
    }

    /// Puts somebody into the line; who finds room is answered before this returns.
    pub(crate) fn line_up(
        self: &Arc<Self>,
        bytes: usize,
        store_bytes: usize,
        who: Box<dyn Waiter>,
    ) {
        // A single submission larger than the limit waits for an empty house, not for ever.
        let bytes = (bytes as u64).min(self.limit_bytes);
        let store_bytes = (store_bytes as u64).min(self.store_limit_bytes);
        let mut line = self.line.lock();
        if line.closed {
            drop(line);
            return who.answer(Err(EngineError::Closed));
        }
        line.push(bytes, store_bytes, who);
        line.newly = true;
        self.serve(line);
    }

    fn fits_memory(&self, waiting: &Waiting) -> bool {
        self.used_bytes() + waiting.bytes <= self.limit_bytes
    }

    fn fits_store(&self, waiting: &Waiting) -> bool {
        self.store_bytes.load(Ordering::Acquire) + waiting.store_bytes <= self.store_limit_bytes
    }

    /// Whose turn it is: the line that the oldest of those stands in who do not wait for the store.
    fn in_turn<'a>(&self, line: &'a mut Line) -> Option<&'a mut VecDeque<Waiting>> {
        for one in [&mut line.plain, &mut line.store] {
            while one.front().is_some_and(|one| one.who.is_gone()) {
                one.pop_front();
            }
        }
        let store = line.store.front().filter(|front| self.fits_store(front));
        match (line.plain.front(), store) {
            (None, None) => None,
            (Some(plain), Some(store)) if store.place < plain.place => Some(&mut line.store),
            (None, Some(_)) => Some(&mut line.store),
            (Some(_), _) => Some(&mut line.plain),
        }
    }

    fn next(&self, line: &mut Line) -> Option<Waiting> {
        let line = self.in_turn(line)?;
        let fits = line.front().is_some_and(|front| self.fits_memory(front));
        if fits { line.pop_front() } else { None }
    }

    fn permit(self: &Arc<Self>, bytes: u64, store_bytes: u64) -> Permit {
        self.reserved_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.store_bytes.fetch_add(store_bytes, Ordering::AcqRel);
        Permit {
            budget: self.clone(),
            bytes,
            store_bytes,
        }
    }

    /// Serves the lines as far as there is room. Called after room has been given back, so that whoever is serving them
    /// already sees it.
    pub(crate) fn grant_waiting(self: &Arc<Self>) {
        self.serve(self.line.lock());
    }

    fn serve<'a>(self: &'a Arc<Self>, mut line: MutexGuard<'a, Line>) {
        if std::mem::replace(&mut line.granting, true) {
            return;
        }
        while let Some(waiting) = self.next(&mut line) {
            let permit = self.permit(waiting.bytes, waiting.store_bytes);
            drop(line);
            // Outside the lock: a waker may run anything.
            waiting.who.answer(Ok(permit));
            line = self.line.lock();
        }
        line.granting = false;
        let lacks_room = std::mem::take(&mut line.newly) && self.in_turn(&mut line).is_some();
        drop(line);
        if lacks_room {
            self.pressure.notify();
        }
    }

    pub(crate) fn admitted(&self, bytes: u64) {
        self.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// `bytes` of what was admitted have reached the tail, which now holds `tail_bytes`.
    pub(crate) fn applied(self: &Arc<Self>, bytes: u64, tail_bytes: u64) {
        self.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.tail_is(tail_bytes);
    }

    pub(crate) fn tail_is(self: &Arc<Self>, tail_bytes: u64) {
        self.tail_bytes.store(tail_bytes, Ordering::Release);
        self.grant_waiting();
    }

    /// `bytes` of the store's share are given back: applied, or never used.
    pub(crate) fn store_applied(self: &Arc<Self>, bytes: u64) {
        self.store_bytes.fetch_sub(bytes, Ordering::AcqRel);
        let mut line = self.line.lock();
        // Who waited for the store may now be waiting for memory.
        line.newly |= bytes > 0;
        self.serve(line);
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.reserved_bytes.load(Ordering::Acquire)
            + self.in_flight_bytes.load(Ordering::Acquire)
            + self.tail_bytes.load(Ordering::Acquire)
    }

    /// Whether somebody waits for memory.
    pub(crate) fn under_pressure(&self) -> bool {
        self.in_turn(&mut self.line.lock()).is_some()
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Answers everybody who waits with `error`, and everybody who comes later with `Closed`.
    pub(crate) fn close(&self, error: &EngineError) {
        let (plain, store) = {
            let mut line = self.line.lock();
            line.closed = true;
            (
                std::mem::take(&mut line.plain),
                std::mem::take(&mut line.store),
            )
        };
        for one in plain.into_iter().chain(store) {
            one.who.answer(Err(error.clone()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_served_in_order_as_room_returns() {
        let budget = Budget::new(100, 100, Arc::new(Signal::default()));
        let first = budget.reserve(80, 0).wait().unwrap();
        let second = budget.reserve(50, 0);
        let third = budget.reserve(10, 0);
        assert!(
            !second.is_ready() && !third.is_ready(),
            "a small one never overtakes"
        );
        drop(first);
        let second = second.wait().unwrap();
        assert!(third.is_ready());
        drop(second);
    }

    #[test]
    fn more_than_the_limit_waits_for_an_empty_house() {
        let budget = Budget::new(100, 100, Arc::new(Signal::default()));
        let small = budget.reserve(1, 0).wait().unwrap();
        let large = budget.reserve(1_000, 0);
        assert!(!large.is_ready());
        drop(small);
        drop(large.wait().unwrap());
    }
    #[test]
    fn a_store_that_is_behind_holds_up_nobody_else() {
        let budget = Budget::new(100, 100, Arc::new(Signal::default()));
        let stalled = budget.reserve(10, 100).wait().unwrap();
        let second = budget.reserve(10, 1);
        let third = budget.reserve(10, 1);
        assert!(!second.is_ready() && !third.is_ready());
        assert!(!budget.under_pressure(), "memory would not help them");
        let plain = budget.reserve(90, 0);
        assert!(plain.is_ready(), "there is memory, and it needs no more");
        drop(stalled);
        assert!(second.is_ready(), "it was there before");
        assert!(!third.is_ready() && budget.under_pressure());
        // It now waits for memory, and keeps its place.
        let last = budget.reserve(1, 0);
        drop(second);
        assert!(third.is_ready() && !last.is_ready());
        drop(plain);
        assert!(last.is_ready());
    }

    #[test]
    fn who_is_gone_leaves_the_line() {
        let budget = Budget::new(100, 100, Arc::new(Signal::default()));
        let first = budget.reserve(100, 0).wait().unwrap();
        for round in 0..100_000 {
            drop(budget.reserve(10, round % 2));
        }
        let line = budget.line.lock();
        assert!(line.plain.len() + line.store.len() <= 2 * SWEEP_FROM);
        drop(line);
        assert!(!budget.under_pressure());
        drop(first);
        assert!(budget.reserve(100, 0).is_ready());
    }

    /// Gives its permit back as soon as it has it.
    struct Fickle(Mutex<Option<Ticket<Permit>>>);

    impl std::task::Wake for Fickle {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().take());
        }
    }

    #[test]
    fn permits_that_come_back_at_once_do_not_nest() {
        use std::future::Future;
        let budget = Budget::new(100, 100, Arc::new(Signal::default()));
        let first = budget.reserve(100, 0).wait().unwrap();
        for _ in 0..100_000 {
            let mut ticket = budget.reserve(100, 0);
            let fickle = Arc::new(Fickle(Mutex::new(None)));
            let waker = std::task::Waker::from(fickle.clone());
            let mut context = std::task::Context::from_waker(&waker);
            assert!(
                std::pin::Pin::new(&mut ticket)
                    .poll(&mut context)
                    .is_pending()
            );
            *fickle.0.lock() = Some(ticket);
        }
        let last = budget.reserve(100, 0);
        drop(first);
        assert!(last.is_ready());
    }

    #[test]
    fn nobody_waits_in_a_house_that_is_closed() {
        let budget = Budget::new(100, 100, Arc::new(Signal::default()));
        let first = budget.reserve(100, 100).wait().unwrap();
        let waiting = [budget.reserve(1, 0), budget.reserve(1, 1)];
        budget.close(&EngineError::Closed);
        for ticket in waiting {
            assert!(matches!(ticket.wait(), Err(EngineError::Closed)));
        }
        drop(first);
        let late = budget.reserve(1, 0);
        assert!(matches!(late.wait(), Err(EngineError::Closed)));
    }
}
