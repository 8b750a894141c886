//! Frames under way on behalf of a state machine: which of them are done, and the bell that says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use mainstem_engine::{Committed, Signal, Ticket};
use parking_lot::Mutex;

/// Numbers of frames that are done, and the bell for it.
pub(crate) struct FramesDone {
    frames: Mutex<Vec<u64>>,
    signal: Arc<Signal>,
}

struct FrameDone {
    done: Arc<FramesDone>,
    frame: u64,
}

impl Wake for FrameDone {
    fn wake(self: Arc<Self>) {
        self.done.frames.lock().push(self.frame);
        self.done.signal.notify();
    }
}

impl FramesDone {
    pub(crate) fn new(signal: Arc<Signal>) -> Arc<FramesDone> {
        Arc::new(FramesDone {
            frames: Mutex::default(),
            signal,
        })
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// Those that are done since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.frames.lock())
    }

    /// Has the bell rung when this frame is done; it may be already.
    pub(crate) fn watch(
        self: &Arc<Self>,
        frame: u64,
        mut ticket: Ticket<Committed>,
    ) -> Ticket<Committed> {
        let waker = Waker::from(Arc::new(FrameDone {
            done: self.clone(),
            frame,
        }));
        if let Poll::Ready(outcome) = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)) {
            ticket = Ticket::ready(outcome);
            waker.wake();
        }
        ticket
    }
}
