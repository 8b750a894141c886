//! A small executor for tasks: it owns no thread and no clock, and under one caller it is deterministic.
//!
//! A job is in one of four states. Whoever takes it out of the ready queue polls it; a wake meanwhile is remembered.
//!
//! ```text
//!   idle ──wake──► queued ──work──► running ──pending──► idle
//!                     ▲                │ wake
//!                     └──pending── notified
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What a call of [`crate::Runtime::work`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A task was moved; call again.
    Worked,
    /// Nothing is ready. Something will be when a frame is committed, when records arrive, or at this time.
    IdleUntil(Option<i64>),
    /// The runtime is closed.
    Closed,
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const NOTIFIED: u8 = 3;

type BoxedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    available: Condvar,
    now_ms: AtomicI64,
    closed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Job>>,
    timers: BTreeMap<(i64, u64), Waker>,
    next_timer: u64,
    jobs: Vec<Weak<Job>>,
    /// Chooses the next job, where a simulation wants other orders than turn by turn.
    seed: Option<u64>,
}

struct Job {
    state: AtomicU8,
    future: Mutex<Option<BoxedFuture>>,
    shared: Weak<Shared>,
}

impl Executor {
    pub(crate) fn new(seed: Option<u64>, now_ms: i64) -> Executor {
        Executor {
            shared: Arc::new(Shared {
                queue: Mutex::new(Queue {
                    seed,
                    ..Queue::default()
                }),
                available: Condvar::new(),
                now_ms: AtomicI64::new(now_ms),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// The time of the newest call of [`Executor::work`].
    pub(crate) fn now_ms(&self) -> i64 {
        self.shared.now_ms.load(Ordering::Acquire)
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let job = Arc::new(Job {
            state: AtomicU8::new(QUEUED),
            future: Mutex::new(Some(Box::pin(future))),
            shared: Arc::downgrade(&self.shared),
        });
        {
            let mut queue = self.shared.queue.lock();
            queue.jobs.retain(|job| job.strong_count() > 0);
            queue.jobs.push(Arc::downgrade(&job));
        }
        self.shared.push(job);
    }

    pub(crate) fn work(&self, now_ms: i64) -> Next {
        self.shared.now_ms.fetch_max(now_ms, Ordering::AcqRel);
        if self.shared.closed.load(Ordering::Acquire) {
            return Next::Closed;
        }
        let job = {
            let mut queue = self.shared.queue.lock();
            let mut due = Vec::new();
            while let Some(timer) = queue.timers.first_entry()
                && timer.key().0 <= now_ms
            {
                due.push(timer.remove());
            }
            drop(queue);
            // Waking locks the queue itself.
            due.into_iter().for_each(Waker::wake);
            queue = self.shared.queue.lock();
            match queue.pop() {
                Some(job) => job,
                None => {
                    return Next::IdleUntil(
                        queue.timers.first_key_value().map(|((at_ms, _), _)| *at_ms),
                    );
                }
            }
        };
        job.run(&self.shared);
        Next::Worked
    }

    pub(crate) fn park(&self, timeout: Duration) {
        let mut queue = self.shared.queue.lock();
        if queue.ready.is_empty() && !self.shared.closed.load(Ordering::Acquire) {
            self.shared.available.wait_for(&mut queue, timeout);
        }
    }

    /// Resolves at that time.
    pub(crate) fn sleep_until(&self, at_ms: i64) -> Sleep {
        Sleep {
            shared: self.shared.clone(),
            at_ms,
            timer: None,
        }
    }

    /// Drops all jobs; one that is being polled is dropped when the poll returns.
    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        let (jobs, ready, timers) = {
            let mut queue = self.shared.queue.lock();
            (
                std::mem::take(&mut queue.jobs),
                std::mem::take(&mut queue.ready),
                std::mem::take(&mut queue.timers),
            )
        };
        self.shared.available.notify_all();
        drop((ready, timers));
        for job in jobs.iter().filter_map(Weak::upgrade) {
            // Whoever polls it now drops it himself.
            if let Some(mut future) = job.future.try_lock() {
                *future = None;
            }
        }
    }
}

impl Shared {
    fn push(&self, job: Arc<Job>) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.queue.lock().ready.push_back(job);
        self.available.notify_one();
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Arc<Job>> {
        if let Some(seed) = &mut self.seed
            && self.ready.len() > 1
        {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            let chosen = (*seed % self.ready.len() as u64) as usize;
            self.ready.swap(0, chosen);
        }
        self.ready.pop_front()
    }
}

impl Job {
    fn run(self: Arc<Self>, shared: &Shared) {
        self.state.store(RUNNING, Ordering::Release);
        let waker = Waker::from(self.clone());
        let mut future = self.future.lock();
        let Some(running) = future.as_mut() else {
            return;
        };
        let done = running
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        if done || shared.closed.load(Ordering::Acquire) {
            *future = None;
            return;
        }
        drop(future);
        if self
            .state
            .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            self.state.store(QUEUED, Ordering::Release);
            shared.push(self.clone());
        }
        // Closed in this very moment: the close could not take the future, because it was locked here.
        if shared.closed.load(Ordering::Acquire) {
            *self.future.lock() = None;
        }
    }
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        loop {
            let (from, to) = match self.state.load(Ordering::Acquire) {
                IDLE => (IDLE, QUEUED),
                RUNNING => (RUNNING, NOTIFIED),
                _ => return,
            };
            if self
                .state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                if to == QUEUED
                    && let Some(shared) = self.shared.upgrade()
                {
                    shared.push(self);
                }
                return;
            }
        }
    }
}

/// Resolves at a time.
pub(crate) struct Sleep {
    shared: Arc<Shared>,
    at_ms: i64,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.now_ms.load(Ordering::Acquire) >= self.at_ms {
            return Poll::Ready(());
        }
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        let timer = *self.timer.get_or_insert_with(|| {
            queue.next_timer += 1;
            queue.next_timer
        });
        queue
            .timers
            .insert((self.at_ms, timer), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.shared.queue.lock().timers.remove(&(self.at_ms, timer));
        }
    }
}

/// Lets others have a turn.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn jobs_take_turns_and_sleep_until_their_time() {
        let executor = Executor::new(None, 0);
        let said = Arc::new(Mutex::new(Vec::new()));
        for name in ["a", "b"] {
            let (said, inner) = (said.clone(), executor.clone());
            executor.spawn(async move {
                said.lock().push(format!("{name}1"));
                yield_now().await;
                said.lock().push(format!("{name}2"));
                inner.sleep_until(10).await;
                said.lock().push(format!("{name}3"));
            });
        }
        while executor.work(0) == Next::Worked {}
        assert_eq!(*said.lock(), ["a1", "b1", "a2", "b2"]);
        assert_eq!(executor.work(5), Next::IdleUntil(Some(10)));
        while executor.work(10) == Next::Worked {}
        assert_eq!(said.lock().len(), 6);
        assert_eq!(executor.work(11), Next::IdleUntil(None));
    }

    #[test]
    fn closing_drops_what_waits() {
        let executor = Executor::new(None, 0);
        let held = Arc::new(());
        let (inner, inside) = (executor.clone(), held.clone());
        executor.spawn(async move {
            let _inside = inside;
            inner.sleep_until(10).await;
        });
        assert_eq!(executor.work(0), Next::Worked);
        executor.close();
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(executor.work(20), Next::Closed);
    }
}
