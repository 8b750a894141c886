//! The frames of a task that are on their way: handed over in order, and noted once they are durable.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mainstem_engine::{Append, Committed, EngineError, Submission, Ticket};
use mainstem_journal::mutation;
use mainstem_store::{Family, StoreOp};

use super::Stepper;
use crate::keys;
use crate::state::StepChanges;
use crate::task::Ended;

/// A frame on its way.
pub(super) struct InFlight {
    ticket: Ticket<Committed>,
    outcome: Option<Result<Committed, EngineError>>,
    changes: StepChanges,
    /// The offset behind it, by input.
    positions: Vec<(usize, i64)>,
    /// Offsets that follow in a frame of their own: only under the mutation that shows that this is found.
    late: Vec<StoreOp>,
    counts: Counts,
}

/// What a frame adds to the counts of its task.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) outputs: u64,
    pub(super) dead_letters: u64,
}

impl Stepper<'_> {
    /// Makes a frame of outputs, changes of the state, and where the inputs stand behind it.
    pub(super) async fn hand_over(
        &mut self,
        appends: Vec<Append>,
        positions: Vec<(usize, i64)>,
        counts: Counts,
    ) -> Result<(), Ended> {
        let (mut store_ops, changes) = self.state.commit();
        let mut offsets = Vec::with_capacity(positions.len());
        for (place, offset) in &positions {
            if let Some(input) = self.inputs.get_mut(*place) {
                input.next = *offset;
                offsets.push(StoreOp::put(
                    Family::Offsets,
                    input.offset_key.clone(),
                    keys::number(*offset as u64),
                ));
            }
        }
        let late = match mutation::active(mutation::STEP_OFFSET_OUTSIDE_FRAME) {
            true => std::mem::take(&mut offsets),
            false => Vec::new(),
        };
        store_ops.append(&mut offsets);
        let submission = Submission {
            appends,
            store_ops,
            checks: vec![self.fence.check()],
            all_or_nothing: true,
            ..Submission::default()
        };
        let engine = self.task.broker.engine();
        let permit = engine
            .reserve_with_store(submission.size_bytes(), submission.store_bytes())
            .await?;
        let ticket = engine.submit(submission, permit);
        self.in_flight.push_back(InFlight {
            ticket,
            outcome: None,
            changes,
            positions,
            late,
            counts,
        });
        Ok(())
    }

    /// Takes note of the frames that are committed.
    pub(super) fn settle_ready(&mut self) -> Result<(), Ended> {
        while self
            .in_flight
            .front()
            .is_some_and(|front| front.outcome.is_some() || front.ticket.is_ready())
        {
            let Some(mut front) = self.in_flight.pop_front() else {
                break;
            };
            let outcome = match front.outcome.take() {
                Some(outcome) => outcome,
                // It is ready: this does not block.
                None => front.ticket.wait(),
            };
            outcome?;
            self.state.forget(front.changes);
            self.submit_late(front.late);
            let mut status = self.task.handle.status.lock();
            status.events += front.counts.events;
            status.outputs += front.counts.outputs;
            status.dead_letters += front.counts.dead_letters;
            status.steps += 1;
            for (place, offset) in front.positions {
                if let Some(input) = status.inputs.get_mut(place) {
                    input.offset = offset;
                }
            }
            drop(status);
            self.task
                .handle
                .rate
                .lock()
                .add(front.counts.events, self.task.executor.now_ms());
        }
        Ok(())
    }

    /// Nothing, but for the mutation.
    fn submit_late(&self, store_ops: Vec<StoreOp>) {
        if store_ops.is_empty() {
            return;
        }
        let engine = self.task.broker.engine();
        let submission = Submission {
            store_ops,
            ..Submission::default()
        };
        let permit = engine.reserve_with_store(submission.size_bytes(), submission.store_bytes());
        if permit.is_ready()
            && let Ok(permit) = permit.wait()
        {
            drop(engine.submit(submission, permit));
        }
    }

    pub(super) async fn settle_one(&mut self) -> Result<(), Ended> {
        std::future::poll_fn(|context| self.poll_front(context)).await;
        self.settle_ready()
    }

    pub(super) async fn settle_all(&mut self) -> Result<(), Ended> {
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    pub(super) fn poll_front(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.in_flight.front_mut() {
            Some(front) if front.outcome.is_none() => {
                match Pin::new(&mut front.ticket).poll(context) {
                    Poll::Ready(outcome) => {
                        front.outcome = Some(outcome);
                        Poll::Ready(())
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
            _ => Poll::Ready(()),
        }
    }
}
