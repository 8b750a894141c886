//! The store's worker: applies durable groups to the store in LSN order, whole frames in one batch
//! with the position they bring it to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstem_journal::{Group, Lsn, View};
use mainstem_store::{Applied, StoreOp};

use crate::EngineError;
use crate::shared::{Answer, ApplyItem, Shared};
use crate::snapshot::Snapshot;
use crate::worker::{Progress, Steps};

/// Groups applied in one batch at most: more would only delay the answers.
const RUN_BYTES: usize = 4 << 20;

pub(crate) struct Apply {
    pub(crate) shared: Arc<Shared>,
}

impl Apply {
    fn position(&self, lsn: u64) -> Applied {
        Applied {
            journal_id: self.shared.journal_id,
            lsn,
        }
    }

    /// Applies a run of groups up to the next barrier.
    fn run(&mut self, first: ApplyItem) -> Result<(), EngineError> {
        match first {
            ApplyItem::Group {
                group,
                store_bytes,
                answers,
            } => self.groups(group, store_bytes, answers),
            ApplyItem::Barrier { log, promise } => {
                let outcome = self.shared.store.snapshot().map_err(EngineError::from);
                promise.resolve(outcome.map(|store| Snapshot {
                    lsn: log.lsn,
                    log,
                    store,
                }));
                Ok(())
            }
            ApplyItem::Checkpoint { ops, promise } => {
                let at = self.shared.positions.store_applied.load(Ordering::Acquire);
                let outcome = self
                    .shared
                    .store
                    .write(&ops, self.position(at))
                    .map_err(EngineError::from);
                promise.resolve(outcome.clone());
                self.shared.signals.background.notify();
                outcome
            }
        }
    }

    fn groups(
        &mut self,
        group: Group,
        store_bytes: u64,
        answers: Vec<Answer>,
    ) -> Result<(), EngineError> {
        let mut ops = Vec::new();
        let mut bytes = decode_store_ops(&group, Lsn(0), &mut ops)?;
        let mut last_lsn = group.last_lsn();
        let mut all = vec![(store_bytes, answers)];
        while bytes < RUN_BYTES {
            let next = {
                let mut queue = self.shared.apply_queue.lock();
                match queue.front() {
                    Some(ApplyItem::Group { .. }) => queue.pop_front(),
                    _ => None,
                }
            };
            let Some(ApplyItem::Group {
                group,
                store_bytes,
                answers,
            }) = next
            else {
                break;
            };
            bytes += decode_store_ops(&group, Lsn(0), &mut ops)?;
            last_lsn = group.last_lsn();
            all.push((store_bytes, answers));
        }
        let outcome = self
            .shared
            .store
            .write(&ops, self.position(last_lsn.0))
            .map_err(EngineError::from);
        if outcome.is_ok() {
            self.shared
                .positions
                .store_applied
                .store(last_lsn.0, Ordering::Release);
        }
        for (store_bytes, answers) in all {
            self.shared.budget.store_applied(store_bytes);
            for answer in answers {
                match &outcome {
                    Ok(()) => answer.give(),
                    Err(error) => answer.fail(&EngineError::Poisoned {
                        why: error.to_string().into(),
                    }),
                }
            }
        }
        outcome
    }
}

impl Steps for Apply {
    fn step(&mut self) -> Progress {
        if let Some(error) = self.shared.poison() {
            self.shared.fail_everything(&error);
        }
        let next = self.shared.apply_queue.lock().pop_front();
        match next {
            Some(item) => {
                if let Err(error) = self.run(item) {
                    self.shared.set_poison(&error);
                }
                Progress::Worked
            }
            None if self.shared.life.background_ended.load(Ordering::Acquire) => Progress::Stopped,
            None => Progress::Idle,
        }
    }
}

/// Collects a group's store operations after `above`; returns about how many bytes they hold.
pub(crate) fn decode_store_ops(
    group: &Group,
    above: Lsn,
    ops: &mut Vec<StoreOp>,
) -> Result<usize, EngineError> {
    let mut bytes = 0;
    for frame in group.frames() {
        if frame.lsn <= above {
            continue;
        }
        for section in frame.sections() {
            if matches!(section.view, View::Store) {
                bytes += section.body.len();
                for op in StoreOp::decode_all(&section.body) {
                    ops.push(op?);
                }
            }
        }
    }
    Ok(bytes)
}
