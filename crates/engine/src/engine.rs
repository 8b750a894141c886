//! The handle that everything above the engine holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstem_journal::Lsn;
use mainstem_log::Log;
use mainstem_store::{Store, StoreSnapshot};

use crate::EngineError;
use crate::budget::Permit;
use crate::shared::{Pending, Queued, Shared};
use crate::snapshot::Snapshot;
use crate::submission::{Committed, Submission};
use crate::ticket::{Ticket, ticket};

/// The only door to journal, log and store. Cheap to clone; its [`crate::Worker`]s move it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// Where the engine stands.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// The journal's identity, made with the data directory.
    pub journal_id: u128,
    /// The newest frame given an LSN.
    pub admitted_lsn: Lsn,
    /// The newest frame on disk.
    pub durable_lsn: Lsn,
    /// The newest frame that the store shows. Frames that do not touch the store do not move it.
    pub store_applied_lsn: Lsn,
    /// Recovery would begin after this frame.
    pub checkpoint_lsn: Lsn,
    /// Groups synced since the engine was opened.
    pub groups: u64,
    /// Bytes written to the journal since the engine was opened.
    pub journal_bytes: u64,
    /// Bytes of records held in memory.
    pub memory_used_bytes: u64,
    /// The limit of that, at which writers wait.
    pub memory_limit_bytes: u64,
    /// Bytes free on the data directory's disk.
    pub disk_free_bytes: u64,
    /// Why writes have stopped, if they have: [`EngineError::Poisoned`].
    pub poisoned: Option<EngineError>,
}

impl Engine {
    /// Asks for room for a submission of `bytes`, in the order of asking. This is the back-pressure:
    /// the ticket resolves when there is room.
    pub fn reserve(&self, bytes: usize) -> Ticket<Permit> {
        self.reserve_with_store(bytes, 0)
    }

    /// Like [`Engine::reserve`], for a submission of which `store_bytes` go to the store: it also
    /// waits for a store that is behind, which plain appends do not.
    pub fn reserve_with_store(&self, bytes: usize, store_bytes: usize) -> Ticket<Permit> {
        match self.refusal(bytes) {
            Some(error) => Ticket::ready(Err(error)),
            None => self.shared.budget.reserve(bytes, store_bytes),
        }
    }

    /// What one submission takes at most ([`Submission::size_bytes`]).
    pub fn max_frame_bytes(&self) -> usize {
        self.shared.options.max_frame_bytes
    }

    /// Why nothing of that size can be written at all.
    fn refusal(&self, bytes: usize) -> Option<EngineError> {
        let limit_bytes = self.shared.options.max_frame_bytes;
        // Beyond what memory may hold it would wait for ever, and everybody behind it.
        let too_large =
            (bytes > limit_bytes).then_some(EngineError::TooLarge { bytes, limit_bytes });
        self.shared.poison().or(too_large)
    }

    /// Hands a submission over. The ticket resolves once its frame is durable and every view it
    /// touches shows it, or it is refused; a refusal too waits for everything it has seen.
    /// Submissions are admitted in the order of the calls, so a caller may have several under way.
    pub fn submit(&self, submission: Submission, permit: Permit) -> Ticket<Committed> {
        if let Some(error) = self.shared.poison() {
            return Ticket::ready(Err(error));
        }
        let (promise, ticket) = ticket();
        self.shared.enqueue(Pending {
            submission,
            permit,
            promise,
        });
        ticket
    }

    /// Reserves what a submission takes and hands it over as soon as there is room: like [`Engine::reserve_with_store`]
    /// and [`Engine::submit`], but submissions that touch no store are admitted in the order of these calls also where
    /// they have to wait, whenever their callers come to run. A ticket that is dropped before there is room withdraws
    /// its submission.
    pub fn submit_in_turn(&self, submission: Submission) -> Ticket<Committed> {
        let (bytes, store_bytes) = (submission.size_bytes(), submission.store_bytes());
        if let Some(error) = self.refusal(bytes) {
            return Ticket::ready(Err(error));
        }
        let (promise, ticket) = ticket();
        let queued = Queued {
            shared: Arc::downgrade(&self.shared),
            submission,
            promise,
        };
        self.shared
            .budget
            .line_up(bytes, store_bytes, Box::new(queued));
        ticket
    }

    /// The log as it is now, for reads. Only what is durable is ever in it.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// The store as it is now, for reads.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// The newest frame on disk.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable_lsn()
    }

    /// The store at one moment, with the position to name in [`crate::Check::Unchanged`].
    pub fn read_at(&self) -> Result<(Lsn, Arc<dyn StoreSnapshot>), EngineError> {
        let snapshot = self.shared.store.snapshot()?;
        let as_of = snapshot
            .applied()?
            .map_or(Lsn(0), |applied| Lsn(applied.lsn));
        Ok((as_of, snapshot))
    }

    /// Log and store at one and the same frame: the newest durable one.
    pub fn snapshot(&self) -> Ticket<Snapshot> {
        if let Some(error) = self.shared.poison() {
            return Ticket::ready(Err(error));
        }
        let (promise, ticket) = ticket();
        {
            let mut open = self.shared.open_group.lock();
            if self.shared.life.journal_ended.load(Ordering::Acquire) {
                return Ticket::ready(Err(EngineError::Closed));
            }
            open.barriers.push(promise);
        }
        self.shared.signals.journal.notify();
        ticket
    }

    /// Tells the engine the present, in milliseconds since 1970: now and then, to forget producers that have been silent
    /// for long. It has no clock of its own, and forgets nobody as long as it is not told.
    pub fn tell_time(&self, now_ms: i64) {
        let at = &self.shared.positions;
        if at.now_ms.fetch_max(now_ms, Ordering::AcqRel) < now_ms {
            self.shared.signals.admission.notify();
        }
    }

    /// Where the engine stands.
    pub fn status(&self) -> EngineStatus {
        let at = &self.shared.positions;
        EngineStatus {
            journal_id: self.shared.journal_id,
            admitted_lsn: Lsn(at.admitted.load(Ordering::Acquire)),
            durable_lsn: Lsn(at.durable.load(Ordering::Acquire)),
            store_applied_lsn: Lsn(at.store_applied.load(Ordering::Acquire)),
            checkpoint_lsn: Lsn(at.checkpoint.load(Ordering::Acquire)),
            groups: at.groups.load(Ordering::Acquire),
            journal_bytes: at.journal_bytes.load(Ordering::Acquire),
            memory_used_bytes: self.shared.budget.used_bytes(),
            memory_limit_bytes: self.shared.budget.limit_bytes(),
            disk_free_bytes: at.free_bytes.load(Ordering::Acquire),
            poisoned: self.shared.poison(),
        }
    }

    /// Whether writes have stopped because a disk was full, and every disk of the data directory has room again: to close
    /// this engine, wait until its workers have stopped, and open the directory anew then recovers and takes writes
    /// again. What memory holds beyond the durable frames goes with this one. Asks the disks.
    pub fn has_space_again(&self) -> bool {
        self.shared.poison().is_some_and(|error| error.is_full()) && self.shared.has_room_to_open()
    }

    /// Asks for a clean stop: what is admitted is finished, a checkpoint is taken, then the workers
    /// stop. Whoever drives them waits for that.
    pub fn close(&self) {
        self.shared.life.closing.store(true, Ordering::Release);
        self.shared.budget.close(&EngineError::Closed);
        self.shared.wake_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Append;
    use crate::testing::{TestNode, small_options};
    use mainstem_log::{LogOp, PartitionId, TopicId};
    use mainstem_record::{BatchBuilder, Compression};

    const PARTITION: PartitionId = PartitionId {
        topic: TopicId(7),
        index: 0,
    };

    fn one_record() -> Submission {
        let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
        batch.append(1, None, Some(b"value"), &[]).unwrap();
        Submission {
            appends: vec![Append {
                partition: PARTITION,
                batch: batch.build().unwrap(),
            }],
            ..Submission::default()
        }
    }

    fn node() -> TestNode {
        let mut node = TestNode::open(1).unwrap();
        let create = Submission {
            log_ops: vec![(
                1,
                LogOp::CreatePartition {
                    partition: PARTITION,
                },
            )],
            ..Submission::default()
        };
        let created = node.engine.submit_in_turn(create);
        node.driver.block_on(created).unwrap();
        node
    }

    #[test]
    fn who_waited_for_room_is_admitted_before_who_came_later() {
        let mut node = node();
        let engine = node.engine.clone();
        let all = small_options().max_frame_bytes;
        let full: Vec<_> = std::iter::from_fn(|| {
            let ticket = engine.reserve(all);
            ticket.is_ready().then(|| ticket.wait().unwrap())
        })
        .collect();
        let first = engine.submit_in_turn(one_record());
        let second = engine.submit_in_turn(one_record());
        drop(engine.submit_in_turn(one_record()));
        drop(full);
        // Nobody has looked at the tickets of those who waited.
        let third = engine.submit_in_turn(one_record());
        for (offset, ticket) in [third, second, first].into_iter().rev().enumerate() {
            let committed = node.driver.block_on(ticket).unwrap();
            let appended = committed.appends[0].clone().unwrap();
            assert_eq!(appended.base_offset, offset as i64);
        }
    }

    #[test]
    fn what_no_frame_can_hold_is_refused_and_waits_for_nothing() {
        let node = node();
        let limit_bytes = small_options().max_frame_bytes;
        for bytes in [limit_bytes + 1, usize::MAX] {
            let refused = node.engine.reserve(bytes);
            assert!(refused.is_ready());
            assert!(matches!(refused.wait(), Err(EngineError::TooLarge { .. })));
        }
    }
}
