//! Admission: the one place where checks are made, offsets and LSNs are given, and frames come to
//! be. One worker, so that journal order is offset order and no partition needs a lock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mainstem_journal::{Lsn, View, mutation};
use mainstem_log::{Layout, LogOp, PartitionId, Placement};
use mainstem_record::{Batch, BatchHeader};
use mainstem_store::{Family, StoreOp};

mod by_reference;
mod gather;

pub(crate) use self::gather::Company;
use crate::EngineError;
use crate::ahead::Synced;
use crate::budget::Permit;
use crate::error::AppendError;
use crate::overlay::{Overlay, Unchanged};
use crate::producers::{Producers, Verdict};
use crate::shards::Shards;
use crate::shared::{Answer, OpenGroup, Pending, Shared};
use crate::submission::{Append, Appended, Check, Committed, Submission};
use crate::transactions::{Transaction, TransactionEnd};
use crate::waiting::Waiting;
use crate::worker::{Progress, Steps};

/// The leader epoch written into batches: one node leads everything.
const LEADER_EPOCH: i32 = 0;

/// Lining up takes about as long as copying so much.
const LINING_UP_BYTES: usize = 1 << 10;

/// What admission knows of a partition: ahead of every view.
pub(crate) struct AdmittedPartition {
    pub(crate) shard: u16,
    pub(crate) start: i64,
    pub(crate) next_offset: i64,
    /// Where the batch of that offset goes.
    pub(crate) layout: Layout,
    /// The producers that have an open transaction here.
    pub(crate) open: BTreeSet<i64>,
    /// How much of it waits.
    pub(crate) company: Company,
}

/// What became of a batch.
struct Accepted {
    appended: Appended,
    /// Its shard and its place; none if it has been appended before.
    place: Option<(u16, Placement)>,
}

#[derive(Clone, Copy)]
struct FenceState {
    epoch: u64,
    /// A submission of this epoch was refused: nothing after it may pass.
    broken: bool,
}

pub(crate) struct Admission {
    shared: Arc<Shared>,
    next_lsn: Lsn,
    partitions: HashMap<PartitionId, AdmittedPartition>,
    producers: Producers,
    overlay: Overlay,
    shards: Arc<Shards>,
    fences: HashMap<Bytes, FenceState>,
    taken: VecDeque<Pending>,
    /// Batches may go to their segments first: the medium has references.
    refers: bool,
    waiting: Waiting,
    synced: VecDeque<Synced>,
    /// How often it was counted what waits.
    look: u64,
}

impl Admission {
    pub(crate) fn new(
        shared: Arc<Shared>,
        next_lsn: Lsn,
        partitions: HashMap<PartitionId, AdmittedPartition>,
        producers: Producers,
        shards: Arc<Shards>,
        overlay_floor: Lsn,
        refers: bool,
    ) -> Admission {
        Admission {
            shared,
            next_lsn,
            partitions,
            producers,
            overlay: Overlay::new(overlay_floor),
            shards,
            fences: HashMap::new(),
            taken: VecDeque::new(),
            refers,
            waiting: Waiting::default(),
            synced: VecDeque::new(),
            look: 0,
        }
    }

    /// Decides one submission: a frame in the open group, or a refusal. Either way the answer waits
    /// in the group, because it has seen the effects of every frame before it. The permit comes
    /// back to be dropped outside the group's lock: that wakes others.
    fn admit(&mut self, pending: Pending, open: &mut OpenGroup) -> Permit {
        let Pending {
            submission,
            mut permit,
            promise,
        } = pending;
        let needs_store = !submission.store_ops.is_empty();
        let fence = fence_of(&submission);
        let outcome = self.decide(submission, open);
        match (&outcome, fence) {
            (Ok(_), _) if needs_store => open.store_bytes += permit.take_store_bytes(),
            (Err(error), Some(fence)) if !matches!(error, EngineError::Fenced { .. }) => {
                self.break_fence(fence);
            }
            _ => {}
        }
        // Who is sent back to read again must find what stood in the way.
        let read_again = matches!(
            outcome,
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. })
        );
        let needs_store = read_again || (needs_store && outcome.is_ok());
        let duplicates = matches!(&outcome, Ok(committed) if committed.appends.iter().flatten().any(|one| one.duplicate));
        let answer = Answer {
            promise,
            outcome,
            needs_store,
        };
        if duplicates && mutation::active(mutation::DUPLICATE_BEFORE_DURABLE) {
            answer.give();
            return permit;
        }
        open.answers.push(answer);
        permit
    }

    fn decide(
        &mut self,
        submission: Submission,
        open: &mut OpenGroup,
    ) -> Result<Committed, EngineError> {
        for (index, check) in submission.checks.iter().enumerate() {
            self.check(index, check)?;
        }
        let marker = match &submission.transaction_end {
            Some(end) if end.transaction.has_ended() => {
                return Err(EngineError::Invalid("the transaction has ended before"));
            }
            Some(end) => Some(end.batch()?),
            None => None,
        };
        let whole = submission.all_or_nothing
            || submission.transaction_end.is_some()
            || !submission.store_ops.is_empty()
            || !submission.log_ops.is_empty();
        if whole {
            for (index, append) in submission.appends.iter().enumerate() {
                self.refuse_early(index, append)?;
            }
        }
        self.check_log_ops(&submission)?;
        // From here on nothing refuses the whole.
        for check in &submission.checks {
            if let Check::TakeFence { owner, epoch } = check {
                self.enter_fence(owner.clone(), *epoch);
            }
        }
        let lsn = self.next_lsn;
        open.builder.begin_frame(lsn);
        let mut appended_bytes = 0u64;
        let mut appends = Vec::with_capacity(submission.appends.len());
        for append in &submission.appends {
            let outcome = self.append(append, submission.transaction.as_ref(), open);
            if matches!(&outcome, Ok(appended) if !appended.duplicate) {
                appended_bytes += append.batch.bytes().len() as u64;
            }
            appends.push(outcome);
        }
        let mut lsn = lsn;
        if let (Some(end), Some(marker)) = (&submission.transaction_end, &marker) {
            appended_bytes += self.end_transaction(end, marker, open);
            if appended_bytes > 0 && mutation::active(mutation::MARKER_OUTSIDE_FRAME) {
                open.builder.end_frame();
                lsn = Lsn(lsn.0 + 1);
                open.builder.begin_frame(lsn);
            }
        }
        for (shard, op) in &submission.log_ops {
            open.builder
                .section(*shard, View::Log, |out| op.encode(out));
            self.remember_log_op(*shard, op);
        }
        self.store_sections(&submission.store_ops, lsn, open);
        let empty =
            appended_bytes == 0 && submission.log_ops.is_empty() && submission.store_ops.is_empty();
        let partition = submission.producers_of;
        let producers = partition.map_or(Vec::new(), |partition| self.producers.of(partition));
        if empty {
            open.builder.rollback_frame();
            return Ok(Committed {
                lsn: Lsn(lsn.0.saturating_sub(1)),
                appends,
                producers,
            });
        }
        open.builder.end_frame();
        open.append_bytes += appended_bytes;
        self.shared.budget.admitted(appended_bytes);
        self.shared
            .positions
            .admitted
            .store(lsn.0, Ordering::Release);
        self.next_lsn = Lsn(lsn.0 + 1);
        Ok(Committed {
            lsn,
            appends,
            producers,
        })
    }

    fn check(&mut self, index: usize, check: &Check) -> Result<(), EngineError> {
        match check {
            Check::Unchanged { family, .. } if !is_remembered(*family) => Err(
                EngineError::Invalid("only keys of the catalogue and of offsets can be checked"),
            ),
            Check::Unchanged { family, key, as_of } => {
                match self.overlay.unchanged(*family, key, *as_of) {
                    Unchanged::Yes => Ok(()),
                    Unchanged::No => Err(EngineError::Conflict { check: index }),
                    Unchanged::Unknown => Err(EngineError::Stale { check: index }),
                }
            }
            Check::Fence { owner, epoch } => {
                let fence = self.enter_fence(owner.clone(), *epoch);
                if *epoch < fence.epoch || fence.broken {
                    return Err(EngineError::Fenced {
                        epoch: *epoch,
                        current: fence.epoch,
                    });
                }
                Ok(())
            }
            Check::TakeFence { owner, epoch } => match self.fences.get(owner) {
                Some(fence) if *epoch <= fence.epoch => Err(EngineError::Fenced {
                    epoch: *epoch,
                    current: fence.epoch,
                }),
                _ => Ok(()),
            },
            Check::NextOffset { partition, offset } => {
                let found = self.partitions.get(partition);
                let error = match found {
                    None => AppendError::UnknownPartition(*partition),
                    Some(found) if found.next_offset == *offset => return Ok(()),
                    Some(found) => AppendError::NextOffset {
                        expected: *offset,
                        actual: found.next_offset,
                    },
                };
                Err(EngineError::Append { index, error })
            }
        }
    }

    /// The fence of `owner`; a first or higher epoch takes it.
    fn enter_fence(&mut self, owner: Bytes, epoch: u64) -> &mut FenceState {
        let new = FenceState {
            epoch,
            broken: false,
        };
        let fence = self.fences.entry(owner).or_insert(new);
        if epoch > fence.epoch {
            *fence = new;
        }
        fence
    }

    /// A submission was refused: nothing that the same epoch has sent after it may pass. A newer one's may.
    fn break_fence(&mut self, (owner, epoch): (Bytes, u64)) {
        let fence = self.enter_fence(owner, epoch);
        fence.broken |= fence.epoch == epoch;
    }

    /// What would refuse this append, before anything of an all-or-nothing submission is done.
    fn refuse_early(&self, index: usize, append: &Append) -> Result<(), EngineError> {
        if append.batch.header().producer_id >= 0 {
            return Err(EngineError::Invalid(
                "an all-or-nothing submission carries no producer sequences",
            ));
        }
        if !self.partitions.contains_key(&append.partition) {
            let error = AppendError::UnknownPartition(append.partition);
            return Err(EngineError::Append { index, error });
        }
        Ok(())
    }

    /// What the log could not apply is refused here: once it is in a durable frame it would stop the engine, and again
    /// at every start.
    fn check_log_ops(&self, submission: &Submission) -> Result<(), EngineError> {
        // Partitions that an operation before has created or removed.
        let mut changed: HashMap<PartitionId, bool> = HashMap::new();
        for (index, (_, op)) in submission.log_ops.iter().enumerate() {
            let partition = op.partition();
            let known = self.partitions.get(&partition);
            let exists = changed.get(&partition).copied().unwrap_or(known.is_some());
            let end = || {
                let appended = submission
                    .appends
                    .iter()
                    .filter(|append| append.partition == partition)
                    .map(|append| i64::from(append.batch.header().last_offset_delta) + 1);
                known.map_or(0, |known| known.next_offset) + appended.sum::<i64>()
            };
            match op {
                LogOp::Append { .. } | LogOp::AppendReference(_) => {
                    return Err(EngineError::Invalid("records are appended as batches"));
                }
                LogOp::CreatePartition { .. }
                    if known.is_some() || changed.contains_key(&partition) =>
                {
                    return Err(EngineError::Invalid("the partition exists"));
                }
                LogOp::CreatePartition { .. } => {
                    changed.insert(partition, true);
                }
                _ if !exists => {
                    let error = AppendError::UnknownPartition(partition);
                    return Err(EngineError::Append { index, error });
                }
                LogOp::RemovePartition { .. } => {
                    changed.insert(partition, false);
                }
                LogOp::SetStart { offset, .. } if *offset > end() => {
                    return Err(EngineError::Invalid("a start beyond the partition's end"));
                }
                LogOp::SetStart { .. } | LogOp::ReplaceSegments(_) => {}
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        append: &Append,
        transaction: Option<&Transaction>,
        open: &mut OpenGroup,
    ) -> Result<Appended, AppendError> {
        let accepted = self.accept(append, transaction, Some(open.number))?;
        if let Some((shard, place)) = accepted.place {
            open.builder.section(shard, View::Log, |out| {
                mainstem_log::encode_append(
                    out,
                    append.partition,
                    append.batch.bytes(),
                    accepted.appended.base_offset,
                    LEADER_EPOCH,
                    place.begins_segment,
                );
            });
        }
        Ok(accepted.appended)
    }

    /// Gives a batch its offset and its place, or finds that it has one already. `group` is the open group, where it goes
    /// there.
    fn accept(
        &mut self,
        append: &Append,
        transaction: Option<&Transaction>,
        group: Option<u64>,
    ) -> Result<Accepted, AppendError> {
        let partition = append.partition;
        let known = self
            .partitions
            .get_mut(&partition)
            .ok_or(AppendError::UnknownPartition(partition))?;
        let header = append.batch.header();
        if header.is_control() {
            return Err(AppendError::ControlBatch);
        }
        match self.producers.judge(partition, header) {
            Verdict::Refuse(error) => return Err(error),
            Verdict::Duplicate {
                base_offset,
                last_offset,
            } => {
                let appended = Appended {
                    base_offset,
                    last_offset,
                    duplicate: true,
                    log_start: known.start,
                };
                return Ok(Accepted {
                    appended,
                    place: None,
                });
            }
            Verdict::Accept => in_transaction(header, transaction)?,
        }
        if header.is_transactional() {
            known.open.insert(header.producer_id);
        } else if known.open.contains(&header.producer_id) {
            return Err(AppendError::OpenTransaction {
                producer_id: header.producer_id,
            });
        }
        let base_offset = known.next_offset;
        let mut header = *header;
        header.base_offset = base_offset;
        let last_offset = header.last_offset();
        let all_deleted = known.start >= base_offset;
        let layout = &mut known.layout;
        let log = &self.shared.log;
        let place = log.place(layout, partition.topic, &header, all_deleted);
        known.next_offset = last_offset + 1;
        if let Some(group) = group {
            known.company.grouped(group, append.batch.bytes().len());
        }
        let (shard, log_start) = (known.shard, known.start);
        self.producers.observe(partition, &header);
        self.shared.admitting.observe(partition, &header);
        let appended = Appended {
            base_offset,
            last_offset,
            duplicate: false,
            log_start,
        };
        Ok(Accepted {
            appended,
            place: Some((shard, place)),
        })
    }

    /// A marker on each partition that is still there. Returns their bytes.
    fn end_transaction(
        &mut self,
        end: &TransactionEnd,
        marker: &Batch,
        open: &mut OpenGroup,
    ) -> u64 {
        let mut bytes = 0;
        for partition in &end.partitions {
            let Some(known) = self.partitions.get_mut(partition) else {
                continue;
            };
            let mut header = *marker.header();
            header.base_offset = known.next_offset;
            let all_deleted = known.start >= header.base_offset;
            let log = &self.shared.log;
            let place = log.place(&mut known.layout, partition.topic, &header, all_deleted);
            known.next_offset = header.next_offset();
            known.open.remove(&header.producer_id);
            self.producers.observe(*partition, &header);
            self.shared.admitting.observe(*partition, &header);
            bytes += marker.size_bytes() as u64;
            open.builder.section(known.shard, View::Log, |out| {
                mainstem_log::encode_append(
                    out,
                    *partition,
                    marker.bytes(),
                    header.base_offset,
                    LEADER_EPOCH,
                    place.begins_segment,
                );
            });
        }
        end.transaction.end();
        bytes
    }

    fn remember_log_op(&mut self, shard: u16, op: &LogOp) {
        match op {
            LogOp::CreatePartition { partition } => {
                self.shards.insert(*partition, shard);
                self.partitions
                    .entry(*partition)
                    .or_insert(AdmittedPartition {
                        shard,
                        start: 0,
                        next_offset: 0,
                        layout: Layout::default(),
                        open: BTreeSet::new(),
                        company: Company::default(),
                    });
            }
            LogOp::RemovePartition { partition } => {
                self.partitions.remove(partition);
                self.producers.remove_partition(*partition);
            }
            LogOp::SetStart { partition, offset } => {
                if let Some(known) = self.partitions.get_mut(partition) {
                    known.start = known.start.max(*offset).min(known.next_offset);
                }
            }
            _ => {}
        }
    }

    /// One section for each run of operations in the same shard.
    fn store_sections(&mut self, ops: &[StoreOp], lsn: Lsn, open: &mut OpenGroup) {
        for run in ops.chunk_by(|a, b| a.shard() == b.shard()) {
            let Some(first) = run.first() else { continue };
            open.builder.section(first.shard(), View::Store, |out| {
                run.iter().for_each(|op| op.encode(out))
            });
        }
        for op in ops.iter().filter(|op| is_remembered(op.family)) {
            self.overlay.written(op.family, &op.key, lsn);
        }
    }

    /// Forgets some of the producers that are silent; says whether there are more to look at.
    fn sweep_producers(&mut self) -> bool {
        self.producers
            .tell_time(self.shared.positions.now_ms.load(Ordering::Acquire));
        // Only the checkpoint's copy is asked for them.
        self.producers.forget_changes();
        self.producers
            .sweep(self.shared.options.producer_expiration_ms)
    }

    /// Ends once the engine is closing and nothing came in the last moment.
    fn end(&self) -> Progress {
        if !self.shared.closing() || !self.waiting.is_empty() {
            return Progress::Idle;
        }
        let queue = self.shared.queue.lock();
        if !queue.is_empty() {
            return Progress::Worked;
        }
        self.shared
            .life
            .admission_ended
            .store(true, Ordering::Release);
        drop(queue);
        self.shared.signals.journal.notify();
        self.shared.signals.ahead.notify();
        Progress::Stopped
    }

    /// What no journal could hold is refused before it is admitted.
    fn shortage(&self, pending: &Pending) -> Option<EngineError> {
        let bytes = pending.submission.size_bytes();
        let limit_bytes = self.shared.options.max_frame_bytes;
        if bytes > limit_bytes {
            return Some(EngineError::TooLarge { bytes, limit_bytes });
        }
        let free_bytes = self.shared.positions.free_bytes.load(Ordering::Acquire);
        let needed_bytes = self.shared.positions.needed_bytes.load(Ordering::Acquire);
        (free_bytes < needed_bytes && takes_space(&pending.submission)).then_some(
            EngineError::DiskFull {
                free_bytes,
                needed_bytes,
            },
        )
    }
}

/// A transactional batch is of the transaction it comes with, and before its end.
fn in_transaction(
    header: &BatchHeader,
    transaction: Option<&Transaction>,
) -> Result<(), AppendError> {
    if !header.is_transactional() {
        return Ok(());
    }
    let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
    match transaction.filter(|transaction| transaction.is_of(header)) {
        None => Err(AppendError::NoTransaction {
            producer_id,
            producer_epoch,
        }),
        Some(transaction) if transaction.has_ended() => Err(AppendError::TransactionEnded {
            producer_id,
            producer_epoch,
        }),
        Some(_) => Ok(()),
    }
}

/// Whether writes to a family are remembered, to judge checks by.
fn is_remembered(family: Family) -> bool {
    matches!(family, Family::Catalog | Family::Offsets)
}

/// The fence that a refusal breaks.
fn fence_of(submission: &Submission) -> Option<(Bytes, u64)> {
    submission.checks.iter().find_map(|check| match check {
        Check::Fence { owner, epoch } => Some((owner.clone(), *epoch)),
        _ => None,
    })
}

/// Records, and what handlers keep. Deleting must stay possible on a full disk: it is the remedy.
fn takes_space(submission: &Submission) -> bool {
    let kept = |op: &StoreOp| op.family == Family::State && op.value.is_some();
    !submission.appends.is_empty() || submission.store_ops.iter().any(kept)
}

impl Steps for Admission {
    fn step(&mut self) -> Progress {
        self.synced.append(&mut self.shared.ahead.lock().synced);
        if let Some(error) = self.shared.poison() {
            self.shared.fail_everything(&error);
            self.taken
                .drain(..)
                .for_each(|pending| pending.promise.resolve(Err(error.clone())));
            self.synced
                .drain(..)
                .for_each(|synced| synced.ahead.promise.resolve(Err(error.clone())));
            self.waiting.fail(&error);
        }
        let looks = self.taken.is_empty() || !self.synced.is_empty();
        if looks {
            self.taken.append(&mut *self.shared.queue.lock());
        }
        let sweeps = self.sweep_producers();
        if self.taken.is_empty() && self.synced.is_empty() {
            return if sweeps { Progress::Worked } else { self.end() };
        }
        let shared = self.shared.clone();
        let mut spent = Vec::new();
        let mut open = shared.open_group.lock();
        let mut budget = shared.options.admission_bytes_per_lock;
        self.refer_to_synced(&mut open, &mut spent);
        if looks {
            self.look_around();
        }
        while open.builder.payload_bytes() < shared.options.group_bytes && budget > 0 {
            let Some(pending) = self.taken.pop_front() else {
                break;
            };
            let goes_ahead = self.goes_ahead(&pending.submission, open.number);
            if self.waiting.must_wait(&pending.submission, goes_ahead) {
                self.waiting.line_up(pending);
                budget = budget.saturating_sub(LINING_UP_BYTES);
                continue;
            }
            budget = budget.saturating_sub(pending.submission.size_bytes());
            match self.shortage(&pending) {
                Some(error) => {
                    if let Some(fence) = fence_of(&pending.submission) {
                        self.break_fence(fence);
                    }
                    for append in &pending.submission.appends {
                        let header = append.batch.header();
                        self.producers.refused(append.partition, header);
                    }
                    open.answers.push(Answer {
                        promise: pending.promise,
                        outcome: Err(error),
                        needs_store: false,
                    });
                    spent.push(pending.permit);
                }
                None if goes_ahead => spent.extend(self.send_ahead(pending, &mut open)),
                None => spent.push(self.admit(pending, &mut open)),
            }
        }
        let full = open.builder.payload_bytes() >= shared.options.group_bytes;
        drop(open);
        drop(spent);
        shared.signals.journal.notify();
        // A full group waits for the journal, which rings when it has taken it.
        if full && !(self.taken.is_empty() && self.synced.is_empty()) {
            Progress::Idle
        } else {
            Progress::Worked
        }
    }
}
