//! The journal's worker: takes the open group, makes it durable, applies it to the log, answers.
//!
//! Applying to the log is memory only, so it is done here; what touches the store goes on to the
//! store's worker in the same order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::collections::VecDeque;

use bytes::Bytes;
use mainstem_journal::{Group, Lsn, Medium, View};
use mainstem_log::LogOp;

use crate::EngineError;
use crate::apply::store_sections;
use crate::mutated;
use crate::shared::{Answer, ApplyItem, OpenGroup, Shared, StoreGroup};
use crate::snapshot::Snapshot;
use crate::ticket::Promise;
use crate::worker::{Progress, Steps};

/// After so much journal it is looked up what is left of the disk: what is admitted until then must find room anyway.
const BYTES_BETWEEN_LOOKS: usize = 4 << 20;

pub(crate) struct Commit<M: Medium> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) medium: M,
    /// How far the background worker lets journal files be recycled.
    pub(crate) recycle_to: Arc<AtomicU64>,
    recycled_to: u64,
    marked: bool,
    in_flight: VecDeque<InFlight>,
    /// Written since it was last looked up how much space is left.
    bytes_since_look: usize,
}

/// What waits for a group that the medium has.
struct InFlight {
    answers: Vec<Answer>,
    barriers: Vec<Promise<Snapshot>>,
    referenced: Vec<Bytes>,
    append_bytes: u64,
    store_bytes: u64,
}

impl<M: Medium> Commit<M> {
    pub(crate) fn new(shared: Arc<Shared>, medium: M, recycle_to: Arc<AtomicU64>) -> Commit<M> {
        Commit {
            shared,
            medium,
            recycle_to,
            recycled_to: 0,
            marked: true,
            in_flight: VecDeque::new(),
            bytes_since_look: 0,
        }
    }

    fn try_step(&mut self) -> Result<Progress, EngineError> {
        let recycle_to = self.recycle_to.load(Ordering::Acquire);
        if recycle_to > self.recycled_to {
            self.medium.recycle(Lsn(recycle_to))?;
            self.recycled_to = recycle_to;
        }
        let open = self.shared.take_open_group();
        if open.is_empty() {
            return if self.in_flight.is_empty() {
                self.quiet()
            } else {
                self.drive()
            };
        }
        // Room for more: admission may be waiting for it.
        self.shared.signals.admission.notify();
        let OpenGroup {
            mut builder,
            answers,
            referenced,
            append_bytes,
            store_bytes,
            barriers,
            ..
        } = open;
        if builder.is_empty() {
            // They have seen every frame under way, and wait for the last of them.
            if let Some(last) = self.in_flight.back_mut() {
                last.answers.extend(answers);
                last.barriers.extend(barriers);
                return self.drive();
            }
            let answers = self.after_store(answers);
            self.finish(answers, barriers);
            return Ok(Progress::Worked);
        }
        let group = builder.seal();
        let disk_bytes = group.disk_bytes();
        self.shared
            .positions
            .journal_bytes
            .fetch_add(disk_bytes as u64, Ordering::AcqRel);
        let referenced_bytes: usize = referenced.iter().map(Bytes::len).sum();
        self.shared
            .positions
            .referenced_bytes
            .fetch_add(referenced_bytes as u64, Ordering::AcqRel);
        self.shared.positions.groups.fetch_add(1, Ordering::AcqRel);
        self.bytes_since_look += disk_bytes;
        if self.bytes_since_look >= BYTES_BETWEEN_LOOKS {
            self.bytes_since_look = 0;
            self.shared.look_up_free_space();
        }
        self.in_flight.push_back(InFlight {
            answers,
            barriers,
            referenced,
            append_bytes,
            store_bytes,
        });
        let referenced = self.in_flight.back().map(|last| &*last.referenced);
        let shown_early = mutated::show_early(&self.shared, &group, referenced)?;
        self.medium.submit(group)?;
        self.marked = false;
        if shown_early {
            return Ok(Progress::Worked);
        }
        self.drive()
    }

    /// Lets the medium do a piece of work. A slow one may have several groups under way when this returns: what is
    /// durable by then is applied, and the others come with a later call.
    fn drive(&mut self) -> Result<Progress, EngineError> {
        for group in self.medium.drive()? {
            self.apply(group)?;
        }
        Ok(Progress::Worked)
    }

    /// A group is durable: the log shows it, then answers are given.
    fn apply(&mut self, group: Group) -> Result<(), EngineError> {
        let mut waiting = self
            .in_flight
            .pop_front()
            .ok_or(EngineError::Invalid("the medium returned a group twice"))?;
        let last_lsn = group.last_lsn();
        self.shared
            .positions
            .durable
            .store(last_lsn.0, Ordering::Release);
        let referenced = std::mem::take(&mut waiting.referenced);
        let touches_store = match apply_to_log(&self.shared, &group, referenced) {
            Ok(touches_store) => touches_store,
            Err(error) => {
                // They are durable all the same: their outcome is unknown, not nothing.
                self.in_flight.push_front(waiting);
                return Err(error);
            }
        };
        self.shared.log.finish_group(last_lsn);
        self.shared
            .budget
            .applied(waiting.append_bytes, self.shared.log.tail_bytes());
        let InFlight {
            answers,
            barriers,
            store_bytes,
            ..
        } = waiting;
        let answers = if touches_store {
            let (store_answers, answers) = answers.into_iter().partition(needs_store);
            let part = StoreGroup {
                last_lsn,
                ops: store_sections(&group),
                store_bytes,
                answers: store_answers,
            };
            self.queue_for_store(ApplyItem::Group(part));
            answers
        } else {
            self.after_store(answers)
        };
        // Only now: a checkpoint that reads this position finds the store's part in the queue before its own.
        self.shared
            .positions
            .log_applied
            .store(last_lsn.0, Ordering::Release);
        self.finish(answers, barriers);
        Ok(())
    }

    fn queue_for_store(&self, item: ApplyItem) {
        self.shared.apply_queue.lock().push_back(item);
        self.shared.signals.store.notify();
    }

    /// Sends the answers that wait for the store to where it has come so far; returns the others.
    fn after_store(&self, answers: Vec<Answer>) -> Vec<Answer> {
        let (store_answers, answers): (Vec<_>, _) = answers.into_iter().partition(needs_store);
        if !store_answers.is_empty() {
            self.queue_for_store(ApplyItem::Answers(store_answers));
        }
        answers
    }

    fn finish(&mut self, answers: Vec<Answer>, barriers: Vec<Promise<Snapshot>>) {
        for answer in answers {
            answer.give();
        }
        for promise in barriers {
            let log = self.shared.log.snapshot();
            self.queue_for_store(ApplyItem::Barrier { log, promise });
        }
        if self.shared.log.unflushed_bytes() >= self.shared.options.flush_bytes {
            self.shared.signals.background.notify();
        }
    }

    fn quiet(&mut self) -> Result<Progress, EngineError> {
        if self.medium.has_background_work() {
            self.medium.drive()?;
            return Ok(Progress::Worked);
        }
        if self.shared.life.admission_ended.load(Ordering::Acquire) {
            self.medium.mark_idle()?;
            return Ok(self.end());
        }
        Ok(if self.marked {
            Progress::Idle
        } else {
            Progress::IdleFor {
                wait_ms: self.shared.options.idle_mark_ms,
            }
        })
    }

    /// Ends, unless a snapshot was asked for in the last moment.
    fn end(&self) -> Progress {
        let open = self.shared.open_group.lock();
        if !open.is_empty() {
            return Progress::Worked;
        }
        self.shared
            .life
            .journal_ended
            .store(true, Ordering::Release);
        drop(open);
        self.shared.signals.background.notify();
        Progress::Stopped
    }

    fn fail(&mut self, error: &EngineError) {
        for waiting in self.in_flight.drain(..) {
            waiting
                .answers
                .into_iter()
                .for_each(|answer| answer.fail(error));
            waiting
                .barriers
                .into_iter()
                .for_each(|promise| promise.resolve(Err(error.clone())));
        }
    }
}

impl<M: Medium> Steps for Commit<M> {
    fn step(&mut self) -> Progress {
        if let Some(error) = self.shared.poison() {
            self.fail(&error);
            self.shared.fail_everything(&error);
            let ended = self.shared.life.admission_ended.load(Ordering::Acquire);
            return if ended { self.end() } else { Progress::Idle };
        }
        self.try_step().unwrap_or_else(|error| {
            let error = self.shared.set_poison(&error);
            self.fail(&error);
            Progress::Worked
        })
    }

    /// After a few idle milliseconds an empty group records the last one, so that damage in it can
    /// be told from a torn write.
    fn tick(&mut self) {
        if self.marked || self.shared.poison().is_some() {
            return;
        }
        match self.medium.mark_idle() {
            Ok(()) => self.marked = true,
            Err(error) => {
                self.shared.set_poison(&error.into());
            }
        }
    }
}

fn needs_store(answer: &Answer) -> bool {
    answer.needs_store
}

/// Applies a group's log operations; says whether there are store operations too. `referenced` are the batches that
/// its frames refer to.
pub(crate) fn apply_to_log(
    shared: &Shared,
    group: &Group,
    referenced: Vec<Bytes>,
) -> Result<bool, EngineError> {
    let mut referenced = referenced.into_iter();
    let mut touches_store = false;
    for frame in group.frames() {
        for section in frame.sections() {
            match section.view {
                View::Store => touches_store = true,
                View::Log => {
                    for op in LogOp::decode_all(&section.body) {
                        match op? {
                            LogOp::AppendReference(reference) => {
                                let batch = referenced.next().ok_or(EngineError::Invalid(
                                    "a frame refers to a batch that is not at hand",
                                ))?;
                                shared.log.apply_reference(frame.lsn, reference, batch)?;
                            }
                            op => shared.log.apply(frame.lsn, op)?,
                        }
                    }
                }
            }
        }
    }
    Ok(touches_store)
}
