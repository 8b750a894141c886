//! Waiting without a runtime: a [`Promise`] is kept by whoever does the work, its [`Ticket`] by
//! whoever waits. A ticket is a plain [`Future`] on standard wakers and can also block a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::EngineError;

struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    value: Option<Result<T, EngineError>>,
    resolved: bool,
    waker: Option<Waker>,
}

/// The working end: resolves the ticket once. Dropped unresolved, it resolves it with
/// [`EngineError::Closed`], so that nobody waits for ever.
pub struct Promise<T>(Option<Arc<Slot<T>>>);

/// The waiting end. Resolves to the outcome; polled again after that, it answers
/// [`EngineError::Closed`].
#[must_use = "a ticket does nothing unless it is awaited"]
pub struct Ticket<T>(Arc<Slot<T>>);

/// A connected pair.
pub fn ticket<T>() -> (Promise<T>, Ticket<T>) {
    let slot = Arc::new(Slot {
        state: Mutex::new(State {
            value: None,
            resolved: false,
            waker: None,
        }),
        changed: Condvar::new(),
    });
    (Promise(Some(slot.clone())), Ticket(slot))
}

impl<T> Promise<T> {
    /// Hands the outcome over and wakes the waiter.
    pub fn resolve(mut self, outcome: Result<T, EngineError>) {
        self.settle(outcome);
    }

    /// Whether nobody waits any more: the ticket is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|slot| Arc::strong_count(slot) == 1)
    }

    fn settle(&mut self, outcome: Result<T, EngineError>) {
        let Some(slot) = self.0.take() else { return };
        let waker = {
            let mut state = slot.state.lock();
            state.value = Some(outcome);
            state.resolved = true;
            state.waker.take()
        };
        slot.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.settle(Err(EngineError::Closed));
    }
}

impl<T> Ticket<T> {
    /// A ticket that is resolved from the start.
    pub fn ready(outcome: Result<T, EngineError>) -> Ticket<T> {
        let (promise, ticket) = ticket();
        promise.resolve(outcome);
        ticket
    }

    /// Whether waiting would return at once.
    pub fn is_ready(&self) -> bool {
        self.0.state.lock().resolved
    }

    /// Blocks this thread until the outcome is there. Not for threads that drive the engine.
    pub fn wait(self) -> Result<T, EngineError> {
        let mut state = self.0.state.lock();
        while !state.resolved {
            self.0.changed.wait(&mut state);
        }
        state.value.take().unwrap_or(Err(EngineError::Closed))
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, EngineError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if state.resolved {
            return Poll::Ready(state.value.take().unwrap_or(Err(EngineError::Closed)));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_promise_answers_closed() {
        let (promise, waiting) = ticket::<u8>();
        drop(promise);
        assert!(matches!(waiting.wait(), Err(EngineError::Closed)));
    }

    #[test]
    fn a_ticket_waits_for_another_thread() {
        let (promise, waiting) = ticket();
        let thread = std::thread::spawn(move || promise.resolve(Ok(7)));
        assert_eq!(waiting.wait().unwrap(), 7);
        thread.join().unwrap();
    }
}
