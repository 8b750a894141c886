//! Back-pressure: bytes are reserved before a submission enters the queue, in the order of asking.
//! What counts against the limit is reserved, being committed, or still held by the log's tail.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::EngineError;
use crate::ticket::{Promise, Ticket, ticket};
use crate::worker::Signal;

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
        self.budget
            .store_bytes
            .fetch_sub(self.store_bytes, Ordering::AcqRel);
        self.budget.grant_waiting();
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
    waiting: Mutex<VecDeque<Waiting>>,
    closed: AtomicBool,
    /// Woken when somebody has to wait: the background worker then makes room.
    pressure: Arc<Signal>,
}

struct Waiting {
    bytes: u64,
    store_bytes: u64,
    promise: Promise<Permit>,
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
            waiting: Mutex::new(VecDeque::new()),
            closed: AtomicBool::new(false),
            pressure,
        })
    }

    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, store_bytes: usize) -> Ticket<Permit> {
        if self.closed.load(Ordering::Acquire) {
            return Ticket::ready(Err(EngineError::Closed));
        }
        // A single submission larger than the limit waits for an empty house, not for ever.
        let bytes = (bytes as u64).min(self.limit_bytes);
        let store_bytes = (store_bytes as u64).min(self.store_limit_bytes);
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() && self.fits(bytes, store_bytes) {
            return Ticket::ready(Ok(self.permit(bytes, store_bytes)));
        }
        let (promise, ticket) = ticket();
        waiting.push_back(Waiting {
            bytes,
            store_bytes,
            promise,
        });
        drop(waiting);
        self.pressure.notify();
        // Room may have come between the test and the queue.
        self.grant_waiting();
        ticket
    }

    fn fits(&self, bytes: u64, store_bytes: u64) -> bool {
        let used = self.used_bytes();
        let store_used = self.store_bytes.load(Ordering::Acquire);
        used + bytes <= self.limit_bytes && store_used + store_bytes <= self.store_limit_bytes
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

    /// Grants the front of the line as far as there is room.
    pub(crate) fn grant_waiting(self: &Arc<Self>) {
        loop {
            let granted = {
                let mut waiting = self.waiting.lock();
                match waiting.front() {
                    Some(front) if self.fits(front.bytes, front.store_bytes) => waiting
                        .pop_front()
                        .map(|front| (self.permit(front.bytes, front.store_bytes), front.promise)),
                    _ => None,
                }
            };
            // Resolved outside the lock: a waker may run anything.
            match granted {
                Some((permit, promise)) => promise.resolve(Ok(permit)),
                None => return,
            }
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

    pub(crate) fn store_applied(self: &Arc<Self>, bytes: u64) {
        self.store_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.grant_waiting();
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.reserved_bytes.load(Ordering::Acquire)
            + self.in_flight_bytes.load(Ordering::Acquire)
            + self.tail_bytes.load(Ordering::Acquire)
    }

    /// Whether somebody waits for room.
    pub(crate) fn under_pressure(&self) -> bool {
        !self.waiting.lock().is_empty()
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Answers everybody who waits with `error`, and everybody who comes later with `Closed`.
    pub(crate) fn close(&self, error: &EngineError) {
        self.closed.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for one in waiting {
            one.promise.resolve(Err(error.clone()));
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
}
