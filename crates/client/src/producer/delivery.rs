//! What became of a record: a future for each record, one shared outcome for each batch.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::ClientError;

/// Where a record stands: durable and readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition's index.
    pub partition: u32,
    /// Its offset there. -1 in the one case that the server knows the record to be stored and no longer where: a retry
    /// so late that more than five batches have followed.
    pub offset: i64,
}

/// The outcome of a batch, for all of its records.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The base offset, or why not.
    result: Option<Result<i64, ClientError>>,
    waiting: Vec<Waker>,
}

impl Outcome {
    /// Settles it; the first settlement counts.
    pub(crate) fn settle(&self, result: Result<i64, ClientError>) {
        let waiting = {
            let mut state = self.state.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(result);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Resolves when its record is durable, or has failed. The record is sent whether or not this is awaited.
#[derive(Debug)]
#[must_use = "a record that failed says so here; `flush` tells it too"]
pub struct Delivery {
    outcome: Arc<Outcome>,
    partition: u32,
    /// The record's position in its batch.
    index: i64,
    /// Where its waker stands in the outcome.
    slot: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(outcome: Arc<Outcome>, partition: u32, index: i64) -> Delivery {
        Delivery {
            outcome,
            partition,
            index,
            slot: None,
        }
    }

    /// The partition that the record goes to.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The result, where it is known.
    pub fn result(&self) -> Option<Result<Delivered, ClientError>> {
        self.outcome
            .state
            .lock()
            .result
            .clone()
            .map(|result| self.delivered(result))
    }

    fn delivered(&self, result: Result<i64, ClientError>) -> Result<Delivered, ClientError> {
        let base = result?;
        let offset = if base < 0 { -1 } else { base + self.index };
        Ok(Delivered {
            partition: self.partition,
            offset,
        })
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.outcome.state.lock();
        if let Some(result) = state.result.clone() {
            drop(state);
            return Poll::Ready(this.delivered(result));
        }
        match this.slot.and_then(|slot| state.waiting.get_mut(slot)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                this.slot = Some(state.waiting.len());
                state.waiting.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}
