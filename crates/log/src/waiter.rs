//! Waiting for data: a future on standard wakers, which any executor can poll.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::partition::Partition;

/// Resolves when the partition's high watermark lies above an offset, or the partition goes away. Dropping it ends
/// the waiting and leaves nothing behind.
pub struct Waiter {
    /// None: there is nothing to wait for.
    partition: Option<Arc<Partition>>,
    offset: i64,
    parked: Option<u64>,
}

/// The wakers of one partition.
#[derive(Default)]
pub(crate) struct Parked {
    waiting: Vec<(u64, i64, Waker)>,
    last_id: u64,
}

impl Parked {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Parks, or replaces the waker of `parked`. Returns its number.
    fn park(&mut self, parked: Option<u64>, offset: i64, waker: &Waker) -> u64 {
        if let Some(id) = parked
            && let Some((_, _, old)) = self.waiting.iter_mut().find(|(other, _, _)| *other == id)
        {
            old.clone_from(waker);
            return id;
        }
        self.last_id += 1;
        self.waiting.push((self.last_id, offset, waker.clone()));
        self.last_id
    }

    /// Takes out those who wait for an offset below `end`. They are woken after the lock is given back.
    pub(crate) fn due(&mut self, end: i64, woken: &mut Vec<Waker>) {
        let due = self.waiting.extract_if(.., |(_, offset, _)| *offset < end);
        woken.extend(due.map(|(_, _, waker)| waker));
    }
}

impl Waiter {
    pub(crate) fn new(partition: Option<Arc<Partition>>, offset: i64) -> Self {
        Self {
            partition,
            offset,
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
        if state.removed || state.end > waiter.offset {
            return Poll::Ready(());
        }
        waiter.parked = Some(
            state
                .parked
                .park(waiter.parked, waiter.offset, context.waker()),
        );
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
                .retain(|(other, _, _)| *other != id);
        }
    }
}
