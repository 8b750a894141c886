//! What the instances of all handlers together may hold, and the line of those who wait for it.
//!
//! An instance takes what it grows by. Where there is no room its step is undone, nobody is blamed, and its task waits in
//! line for what it asked for; while somebody waits, every other task gives its instance back after each step, and an
//! idle one at once. So all get their turn, and whoever is first in line gets it in bounded time.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

/// Shared by all handlers.
#[derive(Debug)]
pub(crate) struct MemoryPool {
    limit_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: u64,
    line: VecDeque<(u64, Waker)>,
    idle: BTreeMap<u64, Waker>,
    next_id: u64,
}

impl MemoryPool {
    pub(crate) fn new(limit_bytes: u64) -> Arc<MemoryPool> {
        Arc::new(MemoryPool {
            limit_bytes,
            state: Mutex::default(),
        })
    }

    /// Waits in line for so many bytes; more than there can be is all there can be.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Reserve {
        Reserve {
            pool: self.clone(),
            bytes: bytes.min(self.limit_bytes),
            id: None,
        }
    }

    /// Whether somebody waits.
    pub(crate) fn is_short(&self) -> bool {
        !self.state.lock().line.is_empty()
    }

    pub(crate) fn listener(self: &Arc<Self>) -> Listener {
        let mut state = self.state.lock();
        state.next_id += 1;
        let (pool, id) = (self.clone(), state.next_id);
        Listener { pool, id }
    }
}

/// Wakes after the lock is given back: whoever is woken may need it.
fn unlock_and_wake_first(state: MutexGuard<'_, State>) {
    let first = state.line.front().map(|(_, waker)| waker.clone());
    drop(state);
    if let Some(first) = first {
        first.wake();
    }
}

/// What one instance holds. Given back when it is dropped.
#[derive(Debug)]
pub struct InstanceMemory {
    pool: Arc<MemoryPool>,
    bytes: u64,
}

impl InstanceMemory {
    /// For an instance that stands alone.
    pub fn unlimited() -> InstanceMemory {
        InstanceMemory {
            pool: MemoryPool::new(u64::MAX),
            bytes: 0,
        }
    }

    /// The most that there is for anybody.
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.pool.limit_bytes
    }

    /// Takes what is missing to so many bytes, if there is room.
    pub(crate) fn grow(&mut self, to_bytes: u64) -> bool {
        let more = to_bytes.saturating_sub(self.bytes);
        let mut state = self.pool.state.lock();
        let used_bytes = state.used_bytes.saturating_add(more);
        if more > 0 && used_bytes > self.pool.limit_bytes {
            return false;
        }
        state.used_bytes = used_bytes;
        self.bytes += more;
        true
    }

    /// What to ask for after growing to so many bytes was refused: enough that asking does not happen page by page.
    pub(crate) fn wanted(&self, to_bytes: u64) -> u64 {
        to_bytes
            .max(self.bytes.saturating_mul(2))
            .min(self.pool.limit_bytes)
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.used_bytes = state.used_bytes.saturating_sub(self.bytes);
        unlock_and_wake_first(state);
    }
}

/// A place in the line.
pub(crate) struct Reserve {
    pool: Arc<MemoryPool>,
    bytes: u64,
    id: Option<u64>,
}

impl Future for Reserve {
    type Output = InstanceMemory;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<InstanceMemory> {
        let pool = self.pool.clone();
        let mut state = pool.state.lock();
        let first = state.line.front().map(|(id, _)| *id) == self.id;
        let fits = state.used_bytes.saturating_add(self.bytes) <= pool.limit_bytes;
        if first && fits {
            if self.id.take().is_some() {
                state.line.pop_front();
            }
            state.used_bytes += self.bytes;
            unlock_and_wake_first(state);
            let bytes = self.bytes;
            return Poll::Ready(InstanceMemory { pool, bytes });
        }
        match self.id {
            Some(own) => {
                let place = state.line.iter_mut().find(|(id, _)| *id == own);
                if let Some((_, waker)) = place {
                    waker.clone_from(context.waker());
                }
            }
            None => {
                state.next_id += 1;
                self.id = Some(state.next_id);
                let own = state.next_id;
                state.line.push_back((own, context.waker().clone()));
                let idle = std::mem::take(&mut state.idle);
                drop(state);
                idle.into_values().for_each(Waker::wake);
            }
        }
        Poll::Pending
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(own) = self.id {
            let mut state = self.pool.state.lock();
            state.line.retain(|(id, _)| *id != own);
            unlock_and_wake_first(state);
        }
    }
}

/// A task that holds an instance and has nothing to do: it is woken when somebody waits for memory.
pub(crate) struct Listener {
    pool: Arc<MemoryPool>,
    id: u64,
}

impl Listener {
    /// Whether the memory is wanted; if not, the waker is woken when it is.
    pub(crate) fn is_wanted(&self, waker: &Waker) -> bool {
        let mut state = self.pool.state.lock();
        if !state.line.is_empty() {
            return true;
        }
        state.idle.insert(self.id, waker.clone());
        false
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.pool.state.lock().idle.remove(&self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use mainstem_engine::testing::poll_once;

    fn ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match poll_once(Pin::new(future)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn whoever_waits_gets_it_in_turn_and_nobody_passes_the_line() {
        let pool = MemoryPool::new(100);
        let mut first = ready(&mut pool.reserve(0)).unwrap();
        assert!(first.grow(60));
        let (mut second, mut third) = (pool.reserve(50), pool.reserve(10));
        assert!(ready(&mut second).is_none());
        assert!(pool.is_short());
        assert!(ready(&mut third).is_none(), "there is room, and a line");
        assert!(!first.grow(101));
        assert_eq!(first.wanted(61), 100);
        drop(first);
        assert!(ready(&mut third).is_none());
        let second = ready(&mut second).unwrap();
        let third = ready(&mut third).unwrap();
        assert!(!pool.is_short());
        drop((second, third));
        assert_eq!(pool.state.lock().used_bytes, 0);
    }

    #[test]
    fn whoever_leaves_the_line_holds_up_nobody() {
        let pool = MemoryPool::new(100);
        let held = ready(&mut pool.reserve(1_000)).unwrap();
        let (mut gone, mut waits) = (pool.reserve(1), pool.reserve(1));
        assert!(ready(&mut gone).is_none() && ready(&mut waits).is_none());
        drop((gone, held));
        assert!(ready(&mut waits).is_some());
    }

    #[test]
    fn an_idle_task_hears_that_its_memory_is_wanted() {
        let pool = MemoryPool::new(100);
        let listener = pool.listener();
        assert!(!listener.is_wanted(Waker::noop()));
        let held = ready(&mut pool.reserve(100)).unwrap();
        let mut waits = pool.reserve(1);
        assert!(ready(&mut waits).is_none());
        assert!(pool.state.lock().idle.is_empty(), "it was woken");
        assert!(listener.is_wanted(Waker::noop()));
        drop((held, listener));
        assert!(ready(&mut waits).is_some());
    }
}
