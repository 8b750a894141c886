//! Time, as the simulation has it: it passes when the scheduler says so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A clock and those who wait for a time. Clones are the same clock.
#[derive(Clone)]
pub struct Clock {
    inner: Rc<Inner>,
}

struct Inner {
    now_ms: Cell<i64>,
    next_id: Cell<u64>,
    sleepers: RefCell<BTreeMap<(i64, u64), Waker>>,
}

impl Clock {
    /// A clock that stands at `now_ms`.
    pub fn new(now_ms: i64) -> Clock {
        Clock {
            inner: Rc::new(Inner {
                now_ms: Cell::new(now_ms),
                next_id: Cell::new(0),
                sleepers: RefCell::default(),
            }),
        }
    }

    /// The present, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.inner.now_ms.get()
    }

    /// Moves on to `now_ms` and wakes those whose time has come.
    pub fn advance_to(&self, now_ms: i64) {
        self.inner.now_ms.set(now_ms.max(self.now_ms()));
        loop {
            let mut sleepers = self.inner.sleepers.borrow_mut();
            let due = sleepers
                .first_entry()
                .filter(|first| first.key().0 <= self.now_ms());
            let Some(waker) = due.map(|first| first.remove()) else {
                return;
            };
            drop(sleepers);
            waker.wake();
        }
    }

    /// When the first of those who wait is due.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.inner
            .sleepers
            .borrow()
            .first_key_value()
            .map(|((due_ms, _), _)| *due_ms)
    }

    /// Waits so long.
    pub fn sleep(&self, ms: i64) -> Sleep {
        let id = self.inner.next_id.get();
        self.inner.next_id.set(id + 1);
        Sleep {
            clock: self.clone(),
            key: (self.now_ms() + ms, id),
        }
    }
}

/// See [`Clock::sleep`].
pub struct Sleep {
    clock: Clock,
    key: (i64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.key.0 <= self.clock.now_ms() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        self.clock
            .inner
            .sleepers
            .borrow_mut()
            .insert(self.key, waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.inner.sleepers.borrow_mut().remove(&self.key);
    }
}

/// Waits for a call, at most so long; none where it took longer.
pub async fn within<F: Future + Unpin>(clock: &Clock, ms: i64, mut call: F) -> Option<F::Output> {
    let mut sleep = clock.sleep(ms);
    std::future::poll_fn(|context| {
        if let Poll::Ready(outcome) = Pin::new(&mut call).poll(context) {
            return Poll::Ready(Some(outcome));
        }
        Pin::new(&mut sleep).poll(context).map(|()| None)
    })
    .await
}
