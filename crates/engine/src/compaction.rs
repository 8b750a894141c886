//! Compaction in the background: one partition at a time, a bounded piece in each step, so that neither flushes nor
//! checkpoints wait for it. What it replaces goes through the queue as a frame like any other.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};

use mainstem_log::{Compaction, CompactionPolicy, CompactionStep, LogError, LogOp, PartitionId};

use crate::budget::Permit;
use crate::shared::Shared;
use crate::submission::{Committed, Submission};
use crate::ticket::Ticket;
use crate::worker::Signal;
use crate::{Engine, EngineError};

/// A partition to be compacted.
#[derive(Clone, Copy, Debug)]
pub struct CompactionRequest {
    /// Which.
    pub partition: PartitionId,
    /// The shard it belongs to.
    pub shard: u16,
    /// How.
    pub policy: CompactionPolicy,
}

/// Partitions that may wait at once: more are asked for again by the next round.
const MAX_WAITING: usize = 1_000;

impl Engine {
    /// Asks for a pass of compaction over a partition, in the background. Says whether it was taken: not where the
    /// partition waits already, or too many do.
    pub fn compact(&self, request: CompactionRequest) -> bool {
        let mut waiting = self.shared.compactions.lock();
        let known = waiting.iter().any(|one| one.partition == request.partition);
        if known || waiting.len() >= MAX_WAITING {
            return false;
        }
        waiting.push_back(request);
        drop(waiting);
        self.shared.signals.background.notify();
        true
    }
}

/// What the background worker keeps of compaction.
pub(crate) struct Compactor {
    shared: Arc<Shared>,
    running: Option<Running>,
    /// Rings the worker when something that is waited for has come.
    waker: Waker,
}

struct Running {
    pass: Compaction,
    shard: u16,
    waiting: Waiting,
}

enum Waiting {
    Nothing,
    /// For room in memory.
    Room(Box<Submission>, Ticket<Permit>),
    /// For the frame.
    Frame(Ticket<Committed>),
}

struct Bell(Arc<Signal>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

impl Compactor {
    pub(crate) fn new(shared: Arc<Shared>) -> Compactor {
        let bell = Bell(shared.signals.background.clone());
        Compactor {
            shared,
            running: None,
            waker: Waker::from(Arc::new(bell)),
        }
    }

    /// Does a piece of work; false where there is none, or it waits.
    pub(crate) fn step(&mut self) -> bool {
        let Some(mut running) = self.running.take() else {
            return self.begin();
        };
        match std::mem::replace(&mut running.waiting, Waiting::Nothing) {
            Waiting::Nothing if self.is_short_of_space() => {
                tracing::warn!(case = "compaction leaves space to writers", partition = %running.pass.partition());
                running.pass.discard();
                return true;
            }
            Waiting::Nothing => match running.pass.step() {
                Ok(CompactionStep::Worked) => {}
                Ok(CompactionStep::Replace(replace)) => {
                    let submission = Submission {
                        log_ops: vec![(running.shard, LogOp::ReplaceSegments(replace))],
                        all_or_nothing: true,
                        ..Submission::default()
                    };
                    let room = self.shared.budget.reserve(submission.size_bytes(), 0);
                    running.waiting = Waiting::Room(Box::new(submission), room);
                }
                Ok(CompactionStep::Done) => {
                    let done = running.pass.compacted();
                    tracing::info!(case = "compacted", partition = %running.pass.partition(), bytes_before = done.bytes_before,
                        bytes_after = done.bytes_after);
                    return true;
                }
                Err(error) => {
                    give_up(running, &error);
                    return true;
                }
            },
            Waiting::Room(submission, mut room) => match self.poll(&mut room) {
                Poll::Pending => {
                    running.waiting = Waiting::Room(submission, room);
                    self.running = Some(running);
                    return false;
                }
                Poll::Ready(Ok(permit)) => {
                    let engine = Engine {
                        shared: self.shared.clone(),
                    };
                    running.waiting = Waiting::Frame(engine.submit(*submission, permit));
                }
                // Closing: nothing was handed over.
                Poll::Ready(Err(_)) => {
                    running.pass.discard();
                    return true;
                }
            },
            Waiting::Frame(mut frame) => match self.poll(&mut frame) {
                Poll::Pending => {
                    running.waiting = Waiting::Frame(frame);
                    self.running = Some(running);
                    return false;
                }
                Poll::Ready(Ok(_)) => running.pass.committed(),
                // The partition is gone.
                Poll::Ready(Err(EngineError::Append { .. })) => {
                    running.pass.discard();
                    return true;
                }
                // Whether a frame names the files nobody knows now: recovery does.
                Poll::Ready(Err(_)) => return true,
            },
        }
        self.running = Some(running);
        true
    }

    /// Old files go only after the new ones are there: on a full disk that helps nobody.
    fn is_short_of_space(&self) -> bool {
        let at = &self.shared.positions;
        at.free_bytes.load(Ordering::Acquire) < at.needed_bytes.load(Ordering::Acquire)
    }

    fn begin(&mut self) -> bool {
        let Some(request) = self.shared.compactions.lock().pop_front() else {
            return false;
        };
        match self
            .shared
            .log
            .compaction(request.partition, request.policy)
        {
            Ok(Some(pass)) => {
                self.running = Some(Running {
                    pass,
                    shard: request.shard,
                    waiting: Waiting::Nothing,
                });
            }
            Ok(None) | Err(LogError::UnknownPartition { .. }) => {}
            Err(error) => {
                tracing::warn!(partition = %request.partition, %error, "compaction could not begin")
            }
        }
        true
    }

    fn poll<T>(&self, ticket: &mut Ticket<T>) -> Poll<Result<T, EngineError>> {
        Pin::new(ticket).poll(&mut Context::from_waker(&self.waker))
    }
}

/// Nothing is lost: what was written so far is named by no frame.
fn give_up(mut running: Running, error: &LogError) {
    tracing::warn!(case = "compaction ended early", partition = %running.pass.partition(), %error, "the next round tries again");
    running.pass.discard();
}
