//! Waiting for data: a future on standard wakers, which any executor can poll.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::partition::Partition;

/// Resolves when the partition's high watermark (or its last stable offset) lies above an offset, or the partition goes
/// away. Dropping it ends
/// the waiting and leaves nothing behind.
pub struct Waiter {
    /// None: there is nothing to wait for.
    partition: Option<Arc<Partition>>,
    offset: i64,
    /// Whether it waits for the last stable offset.
    stable: bool,
    parked: Option<u64>,
}

/// The wakers of one partition.
#[derive(Default)]
pub(crate) struct Parked {
    waiting: Vec<Waiting>,
    last_id: u64,
}

struct Waiting {
    id: u64,
    offset: i64,
    stable: bool,
    waker: Waker,
}

impl Parked {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Parks, or replaces the waker of `parked`. Returns its number.
    fn park(&mut self, parked: Option<u64>, offset: i64, stable: bool, waker: &Waker) -> u64 {
        if let Some(id) = parked
            && let Some(old) = self.waiting.iter_mut().find(|other| other.id == id)
        {
            old.waker.clone_from(waker);
            return id;
        }
        self.last_id += 1;
        self.waiting.push(Waiting {
            id: self.last_id,
            offset,
            stable,
            waker: waker.clone(),
        });
        self.last_id
    }

    /// Takes out those who wait for an offset below `end`. They are woken after the lock is given back.
    pub(crate) fn due(&mut self, end: i64, last_stable: i64, woken: &mut Vec<Waker>) {
        let is_due = |one: &mut Waiting| one.offset < if one.stable { last_stable } else { end };
        let due = self.waiting.extract_if(.., is_due);
        woken.extend(due.map(|one| one.waker));
    }
}

impl Waiter {
    pub(crate) fn new(partition: Option<Arc<Partition>>, offset: i64, stable: bool) -> Self {
        Self {
            partition,
            offset,
            stable,
            parked: None,
        }
    }
}

impl Future for Waiter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waiter = &mut *self;
        let Some(partition) = &waiter.partition else {
            return Poll::Ready(());
        };
        let mut state = partition.state.lock();
        let bounds = state.bounds();
        let end = if waiter.stable {
            bounds.last_stable
        } else {
            bounds.high_watermark
        };
        if state.removed || end > waiter.offset {
            return Poll::Ready(());
        }
        waiter.parked = Some(state.parked.park(
            waiter.parked,
            waiter.offset,
            waiter.stable,
            context.waker(),
        ));
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let (Some(partition), Some(id)) = (&self.partition, self.parked) {
            partition
                .state
                .lock()
                .parked
                .waiting
                .retain(|other| other.id != id);
        }
    }
}
