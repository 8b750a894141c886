//! The store's worker: applies durable groups to the store in LSN order, whole frames in one batch
//! with the position they bring it to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use mainstem_journal::{Group, Lsn, View};
use mainstem_store::{Applied, StoreOp};

use crate::EngineError;
use crate::shared::{Answer, ApplyItem, Shared, StoreGroup};
use crate::snapshot::Snapshot;
use crate::worker::{Progress, Steps};

/// Groups applied in one batch at most: more would only delay the answers.
pub(crate) const RUN_BYTES: usize = 4 << 20;

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
            ApplyItem::Group(group) => self.groups(group),
            ApplyItem::Answers(answers) => {
                answers.into_iter().for_each(Answer::give);
                Ok(())
            }
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

    fn groups(&mut self, first: StoreGroup) -> Result<(), EngineError> {
        let mut bytes = first.ops.len();
        let mut run = vec![first];
        while bytes < RUN_BYTES {
            let next = {
                let mut queue = self.shared.apply_queue.lock();
                match queue.front() {
                    Some(ApplyItem::Group(_)) => queue.pop_front(),
                    _ => None,
                }
            };
            let Some(ApplyItem::Group(next)) = next else {
                break;
            };
            bytes += next.ops.len();
            run.push(next);
        }
        let outcome = self.write(&run);
        for group in run {
            self.shared.budget.store_applied(group.store_bytes);
            for answer in group.answers {
                match &outcome {
                    Ok(()) => answer.give(),
                    Err(error) => answer.fail(&error.poison(error.is_full())),
                }
            }
        }
        outcome
    }

    fn write(&self, run: &[StoreGroup]) -> Result<(), EngineError> {
        let mut ops = Vec::new();
        let mut last_lsn = Lsn(0);
        for group in run {
            for op in StoreOp::decode_all(&group.ops) {
                ops.push(op?);
            }
            last_lsn = group.last_lsn;
        }
        self.shared.store.write(&ops, self.position(last_lsn.0))?;
        self.shared
            .positions
            .store_applied
            .store(last_lsn.0, Ordering::Release);
        Ok(())
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

/// What the frames of a group do to the store. A copy: the group's own memory goes with its records, however
/// long the store takes.
pub(crate) fn store_sections(group: &Group) -> Bytes {
    let mut ops = BytesMut::new();
    for frame in group.frames() {
        for section in frame.sections() {
            if matches!(section.view, View::Store) {
                ops.extend_from_slice(&section.body);
            }
        }
    }
    ops.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{node_dir, small_options};
    use crate::{Append, Engine, Opened, Submission};
    use mainstem_journal::MemoryDisk;
    use mainstem_log::{LogOp, PartitionId, TopicId};
    use mainstem_record::{BatchBuilder, Compression};
    use mainstem_store::{Family, MemoryStore};

    /// An engine whose store's worker never moves.
    fn stalled() -> Opened {
        let (disk, store) = (Arc::new(MemoryDisk::new(1)), Arc::new(MemoryStore::new(1)));
        Engine::open(disk, &node_dir(), store, small_options(), &mut |_| {}).unwrap()
    }

    fn submit(opened: &mut Opened, submission: Submission) {
        let (bytes, store_bytes) = (submission.size_bytes(), submission.store_bytes());
        let permit = opened.engine.reserve_with_store(bytes, store_bytes);
        let ticket = opened.engine.submit(submission, permit.wait().unwrap());
        for index in [0, 1] {
            opened.workers[index].step();
        }
        drop(ticket);
    }

    #[test]
    fn what_waits_for_the_store_keeps_no_records() {
        let mut opened = stalled();
        let partition = PartitionId {
            topic: TopicId(7),
            index: 0,
        };
        let create = Submission {
            log_ops: vec![(1, LogOp::CreatePartition { partition })],
            ..Submission::default()
        };
        submit(&mut opened, create);
        let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
        batch.append(1, None, Some(&[7; 100_000]), &[]).unwrap();
        let both = Submission {
            appends: vec![Append {
                partition,
                batch: batch.build().unwrap(),
            }],
            store_ops: vec![StoreOp::put(
                Family::State,
                &b"\x00\x01key"[..],
                &b"value"[..],
            )],
            all_or_nothing: true,
            ..Submission::default()
        };
        submit(&mut opened, both);
        let shared = &opened.engine.shared;
        assert!(shared.log.tail_bytes() > 100_000);
        let queue = shared.apply_queue.lock();
        let Some(ApplyItem::Group(group)) = queue.front() else {
            unreachable!("the group waits for the store")
        };
        assert!(group.ops.len() < 100 && group.ops.is_unique());
    }
}
