//! One transactional id: who its producer is, and what its transaction has, as a state machine.
//!
//! ```text
//!            add, produce, offsets              end, timeout, or the next producer: one frame
//!   Empty ────────────────────────► Ongoing ──────────────────────────────────────► Committed, Aborted
//!     ▲                                ▲                                                  │
//!     └───────── the next producer ────┼──────────────────────────────────────────────────┤
//!                                      └──────────── add, produce, offsets ───────────────┘
//! ```
//!
//! Pure: time is an argument, and what is to be written comes back as a [`Change`], of which there is one at a time. The
//! rules are those of Kafka's transaction coordinator (KIP-98, KIP-360, KIP-890), with one difference: an end is one frame,
//! so that there is no state between its decision and its completion to come back to.

use std::collections::{BTreeMap, BTreeSet};

use mainstem_engine::{MARKER_BYTES, Marker, Transaction};
use mainstem_log::PartitionId;

use super::record::{GroupOffsets, Status, TransactionRecord};
use super::types::TransactionState;
use crate::names::shorten;
use crate::{BrokerError, CommittedOffset, ProducerIdentity};

/// From this epoch on a producer gets a new id; one is left above it, to fence the last.
const LAST_EPOCH: i16 = i16::MAX - 1;
/// How long a change that failed waits before time tries it again.
const RETRY_MS: i64 = 1_000;

/// One transactional id.
pub(crate) struct Machine {
    id: String,
    /// What the store has; none until the first producer's frame is done.
    record: Option<TransactionRecord>,
    open: Option<Open>,
    /// What is under way.
    pending: Option<Change>,
    /// Time does not try again before.
    retry_ms: i64,
    /// What the end of its transaction may take in the journal.
    max_end_bytes: usize,
    /// What the offsets take of that, which the record has.
    offset_bytes: usize,
}

/// An open transaction.
struct Open {
    transaction: Transaction,
    /// None where a restart has found it in the log alone, until the time is told.
    started_ms: Option<i64>,
    /// Partitions that batches were submitted for.
    touched: BTreeSet<PartitionId>,
}

/// Something to be written: one frame.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The record from then on; none: the id is forgotten.
    pub(crate) record: Option<TransactionRecord>,
    /// The transaction that ends with it.
    pub(crate) end: Option<End>,
}

/// How a transaction ends.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) transaction: Transaction,
    pub(crate) marker: Marker,
    pub(crate) marker_epoch: i16,
    pub(crate) partitions: Vec<PartitionId>,
    /// What is committed with it.
    pub(crate) offsets: GroupOffsets,
}

/// What a call comes to.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Something is under way: to be asked again when that is done.
    Busy,
    /// To be asked again with a producer id that nobody has had.
    NeedsId,
    /// It is so already.
    Answer(ProducerIdentity),
    /// It is so once this is written.
    Write(Box<Change>, ProducerIdentity),
}

/// Whose turn comes after an epoch: the same id with the next one, or a new id.
enum Next {
    Epoch(ProducerIdentity),
    NeedsId,
}

impl Machine {
    /// An id that nobody has had.
    pub(crate) fn new(id: &str) -> Machine {
        Machine {
            id: id.to_owned(),
            record: None,
            open: None,
            pending: None,
            retry_ms: i64::MIN,
            max_end_bytes: usize::MAX,
            offset_bytes: 0,
        }
    }

    /// With a limit to what the end of a transaction may take in the journal. What would go beyond is refused when it is to
    /// become part of the transaction: an end that cannot be written would leave it open for ever.
    pub(crate) fn limited(self, max_end_bytes: usize) -> Machine {
        Machine {
            max_end_bytes,
            ..self
        }
    }

    /// An id as a restart finds it.
    pub(crate) fn restore(id: &str, record: TransactionRecord) -> Machine {
        let mut machine = Machine::new(id);
        if record.status == Status::Ongoing {
            machine.open = Some(Open::new(record.producer, Some(record.started_ms)));
        }
        machine.offset_bytes = offset_bytes(&record.groups);
        machine.record = Some(record);
        machine
    }

    /// The log has an open transaction of this producer here.
    pub(crate) fn found_open(&mut self, partition: PartitionId) {
        if let Some(record) = &self.record {
            let open = self
                .open
                .get_or_insert_with(|| Open::new(record.producer, None));
            open.touched.insert(partition);
        }
    }

    /// The time is told for the first time after a restart.
    pub(crate) fn resume(&mut self, now_ms: i64) {
        if let Some(open) = &mut self.open {
            open.started_ms.get_or_insert(now_ms);
        }
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_nothing(&self) -> bool {
        self.record.is_none() && self.pending.is_none()
    }

    pub(crate) fn record(&self) -> Option<&TransactionRecord> {
        self.record.as_ref()
    }

    pub(crate) fn state(&self) -> TransactionState {
        if let Some(end) = self.pending.as_ref().and_then(|change| change.end.as_ref()) {
            return match end.marker {
                Marker::Commit => TransactionState::PrepareCommit,
                Marker::Abort => TransactionState::PrepareAbort,
            };
        }
        match (&self.open, self.record.as_ref().map(|record| record.status)) {
            (Some(_), _) => TransactionState::Ongoing,
            (None, Some(Status::Committed)) => TransactionState::CompleteCommit,
            (None, Some(Status::Aborted)) => TransactionState::CompleteAbort,
            (None, _) => TransactionState::Empty,
        }
    }

    pub(crate) fn started_ms(&self) -> Option<i64> {
        self.open.as_ref()?.started_ms
    }

    /// The open transaction's partitions.
    pub(crate) fn partitions(&self) -> BTreeSet<PartitionId> {
        let (Some(open), Some(record)) = (&self.open, &self.record) else {
            return BTreeSet::new();
        };
        open.touched.union(&record.partitions).copied().collect()
    }

    /// The groups that the open transaction commits offsets of.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        let record = self.record.as_ref().filter(|_| self.open.is_some());
        record
            .into_iter()
            .flat_map(|record| record.groups.keys().map(String::as_str))
    }

    /// The partitions for which an open transaction has, or is about to have, an offset of the group.
    pub(crate) fn unstable(&self, group: &str) -> impl Iterator<Item = PartitionId> {
        let record = self.record.as_ref().filter(|_| self.open.is_some());
        let pending = self
            .pending
            .as_ref()
            .and_then(|change| change.record.as_ref());
        let of_group = [record, pending].into_iter().flatten();
        let of_group = of_group.filter_map(move |record| record.groups.get(group));
        of_group.flat_map(|offsets| offsets.keys().copied())
    }

    /// The next producer of this id.
    pub(crate) fn init(
        &self,
        timeout_ms: i64,
        expected: Option<ProducerIdentity>,
        new_id: Option<i64>,
        now_ms: i64,
    ) -> Result<Decision, BrokerError> {
        if self.pending.is_some() {
            return Ok(Decision::Busy);
        }
        let mut before = None;
        let next = match &self.record {
            None => Next::NeedsId,
            Some(record) => {
                if let Some(expected) = expected {
                    // The question before was answered, and the answer was lost.
                    if record.before == Some(expected) && self.open.is_none() {
                        return Ok(Decision::Answer(record.producer));
                    }
                    self.check(expected)?;
                    before = Some(expected);
                }
                next_epoch(record.producer)
            }
        };
        let producer = match (next, new_id) {
            (Next::Epoch(producer), _) => producer,
            (Next::NeedsId, Some(id)) => ProducerIdentity { id, epoch: 0 },
            (Next::NeedsId, None) => return Ok(Decision::NeedsId),
        };
        let record = TransactionRecord {
            producer,
            before,
            timeout_ms,
            status: Status::Empty,
            started_ms: 0,
            written_ms: now_ms,
            partitions: BTreeSet::new(),
            groups: BTreeMap::new(),
        };
        let change = Change {
            record: Some(record),
            end: self.ending(Marker::Abort, true),
        };
        Ok(Decision::Write(Box::new(change), producer))
    }

    /// Makes partitions part of the transaction.
    pub(crate) fn add_partitions(
        &self,
        producer: ProducerIdentity,
        partitions: &[PartitionId],
        now_ms: i64,
    ) -> Result<Decision, BrokerError> {
        let record = self.check(producer)?;
        if self.pending.is_some() {
            return Ok(Decision::Busy);
        }
        let has = |partition: &PartitionId| record.partitions.contains(partition);
        if self.open.is_some() && partitions.iter().all(has) {
            return Ok(Decision::Answer(producer));
        }
        let mut next = self.ongoing(record, now_ms);
        next.partitions.extend(partitions);
        self.check_end(&next)?;
        Ok(write(next))
    }

    /// Makes a group's offsets part of it.
    pub(crate) fn add_group(
        &self,
        producer: ProducerIdentity,
        group: &str,
        now_ms: i64,
    ) -> Result<Decision, BrokerError> {
        let record = self.check(producer)?;
        if self.pending.is_some() {
            return Ok(Decision::Busy);
        }
        if self.open.is_some() && record.groups.contains_key(group) {
            return Ok(Decision::Answer(producer));
        }
        let mut next = self.ongoing(record, now_ms);
        next.groups.entry(group.to_owned()).or_default();
        self.check_end(&next)?;
        Ok(write(next))
    }

    /// Keeps offsets of a group until the end.
    pub(crate) fn add_offsets(
        &self,
        producer: ProducerIdentity,
        group: &str,
        adds_group: bool,
        offsets: &BTreeMap<PartitionId, CommittedOffset>,
        now_ms: i64,
    ) -> Result<Decision, BrokerError> {
        let record = self.check(producer)?;
        if self.pending.is_some() {
            return Ok(Decision::Busy);
        }
        let has_group = self.open.is_some() && record.groups.contains_key(group);
        if !adds_group && !has_group {
            return Err(self.not_in_transaction(format!("group '{group}'")));
        }
        if offsets.is_empty() && has_group {
            return Ok(Decision::Answer(producer));
        }
        let mut next = self.ongoing(record, now_ms);
        let of_group = next.groups.entry(group.to_owned()).or_default();
        of_group.extend(
            offsets
                .iter()
                .map(|(partition, offset)| (*partition, offset.clone())),
        );
        self.check_end(&next)?;
        Ok(write(next))
    }

    /// Ends the transaction. With `bumps` the producer has another epoch afterwards (KIP-890).
    pub(crate) fn end(
        &self,
        producer: ProducerIdentity,
        commit: bool,
        bumps: bool,
        new_id: Option<i64>,
        now_ms: i64,
    ) -> Result<Decision, BrokerError> {
        let ended = match commit {
            true => Status::Committed,
            false => Status::Aborted,
        };
        if let Some(record) = &self.record
            && bumps
            && self.open.is_none()
            && self.pending.is_none()
            && record.before == Some(producer)
            && record.status != Status::Empty
        {
            // The question before was answered, and the answer was lost.
            return match record.status == ended {
                true => Ok(Decision::Answer(record.producer)),
                false => Err(self.invalid("its last transaction has ended the other way")),
            };
        }
        let record = self.check(producer)?;
        if self.pending.is_some() {
            return Ok(Decision::Busy);
        }
        if self.open.is_none() && !bumps {
            return match record.status {
                status if status == ended => Ok(Decision::Answer(producer)),
                Status::Empty => Err(self.invalid("it has no transaction to end")),
                _ => Err(self.invalid("its last transaction has ended the other way")),
            };
        }
        if self.open.is_none() && commit {
            return Err(self.invalid("it has no transaction to commit"));
        }
        let next = match (bumps, new_id) {
            (false, _) => producer,
            (true, new_id) => match (next_epoch(producer), new_id) {
                (Next::Epoch(next), _) => next,
                (Next::NeedsId, Some(id)) => ProducerIdentity { id, epoch: 0 },
                (Next::NeedsId, None) => return Ok(Decision::NeedsId),
            },
        };
        let marker = match commit {
            true => Marker::Commit,
            false => Marker::Abort,
        };
        let change = Change {
            record: Some(TransactionRecord {
                producer: next,
                before: bumps.then_some(producer),
                ..ended_record(record, ended, now_ms)
            }),
            end: self.ending(marker, bumps),
        };
        Ok(Decision::Write(Box::new(change), next))
    }

    /// Whether batches of this producer may be appended now: `false` while something is under way that decides it.
    pub(crate) fn admits(&self, producer: ProducerIdentity) -> Result<bool, BrokerError> {
        self.check(producer)?;
        let decides = |change: &Change| {
            let next = change.record.as_ref().map(|record| record.producer);
            change.end.is_some() || next != Some(producer)
        };
        Ok(!self.pending.as_ref().is_some_and(decides))
    }

    /// The transaction, with this partition in it: with `adds` from now on, else if it was added. To be asked only where
    /// the producer is [admitted](Self::admits).
    pub(crate) fn takes(
        &mut self,
        partition: PartitionId,
        adds: bool,
        now_ms: i64,
    ) -> Result<Option<Transaction>, BrokerError> {
        let Some(record) = &self.record else {
            return Ok(None);
        };
        if adds {
            let begin = || Open::new(record.producer, Some(now_ms));
            let open = self.open.get_or_insert_with(begin);
            if !open.touched.contains(&partition) {
                // What is being written counts as if it were. One that was added before counts twice: the safe side.
                let next = self.pending.as_ref().and_then(|one| one.record.as_ref());
                let added = next.map_or(0, |next| next.partitions.len());
                let added = added.max(record.partitions.len());
                let partitions = added + open.touched.len() + 1;
                if end_bytes(partitions, self.offset_bytes) > self.max_end_bytes {
                    return Err(too_large(&self.id));
                }
                open.touched.insert(partition);
            }
        }
        let Some(open) = &self.open else {
            return Ok(None);
        };
        let is_part = record.partitions.contains(&partition) || open.touched.contains(&partition);
        Ok(is_part.then(|| open.transaction.clone()))
    }

    /// Whether the open transaction has the partition.
    pub(crate) fn has(&self, partition: PartitionId) -> bool {
        let told = |record: &TransactionRecord| record.partitions.contains(&partition);
        self.open.as_ref().is_some_and(|open| {
            open.touched.contains(&partition) || self.record.as_ref().is_some_and(told)
        })
    }

    /// When time wants to change something.
    pub(crate) fn deadline_ms(&self, expiration_ms: i64) -> Option<i64> {
        let record = self.record.as_ref().filter(|_| self.pending.is_none())?;
        let due_ms = match &self.open {
            Some(open) => open.started_ms?.saturating_add(record.timeout_ms),
            None => record.written_ms.saturating_add(expiration_ms),
        };
        Some(due_ms.max(self.retry_ms))
    }

    /// What time changes: a transaction that has been open for too long is aborted, and its producer fenced; an id that
    /// nobody has used for long is forgotten.
    pub(crate) fn tick(&self, now_ms: i64, expiration_ms: i64) -> Option<Change> {
        let record = self.record.as_ref()?;
        if self.deadline_ms(expiration_ms)? > now_ms {
            return None;
        }
        if self.open.is_none() {
            return Some(Change {
                record: None,
                end: None,
            });
        }
        Some(Change {
            record: Some(TransactionRecord {
                producer: ProducerIdentity {
                    epoch: record.producer.epoch.saturating_add(1),
                    ..record.producer
                },
                before: None,
                ..ended_record(record, Status::Aborted, now_ms)
            }),
            end: self.ending(Marker::Abort, true),
        })
    }

    /// A change is under way from now on.
    pub(crate) fn begin(&mut self, change: Change) {
        let next = change.record.as_ref();
        let next_bytes = next.map_or(0, |next| offset_bytes(&next.groups));
        self.offset_bytes = self.offset_bytes.max(next_bytes);
        self.pending = Some(change);
    }

    /// It is done, or was refused.
    pub(crate) fn done(&mut self, is_done: bool, now_ms: i64) {
        let Some(Change { record, end }) = self.pending.take() else {
            return;
        };
        if !is_done {
            let kept = self.record.as_ref();
            self.offset_bytes = kept.map_or(0, |kept| offset_bytes(&kept.groups));
            self.retry_ms = now_ms.saturating_add(RETRY_MS);
            return;
        }
        if end.is_some() {
            self.open = None;
        }
        if let Some(record) = record.as_ref().filter(|one| one.status == Status::Ongoing) {
            let open = || Open::new(record.producer, Some(record.started_ms));
            self.open.get_or_insert_with(open);
        }
        self.offset_bytes = record
            .as_ref()
            .map_or(0, |record| offset_bytes(&record.groups));
        self.record = record;
    }

    /// Whether the transaction could still end if this were its record.
    fn check_end(&self, record: &TransactionRecord) -> Result<(), BrokerError> {
        let touched = self.open.iter().flat_map(|open| &open.touched);
        let others = touched.filter(|one| !record.partitions.contains(one));
        let partitions = record.partitions.len() + others.count();
        match end_bytes(partitions, offset_bytes(&record.groups)) <= self.max_end_bytes {
            true => Ok(()),
            false => Err(too_large(&self.id)),
        }
    }

    /// Whether the producer is the one that has the id.
    pub(crate) fn check(
        &self,
        producer: ProducerIdentity,
    ) -> Result<&TransactionRecord, BrokerError> {
        let of_id = |record: &&TransactionRecord| record.producer.id == producer.id;
        let Some(record) = self.record.as_ref().filter(of_id) else {
            return Err(BrokerError::InvalidProducerMapping {
                id: shorten(&self.id),
                producer_id: producer.id,
            });
        };
        match record.producer.epoch == producer.epoch {
            true => Ok(record),
            false => Err(BrokerError::ProducerFenced {
                producer_id: producer.id,
                got: producer.epoch,
                current: record.producer.epoch,
            }),
        }
    }

    pub(crate) fn not_in_transaction(&self, what: String) -> BrokerError {
        BrokerError::NotInTransaction {
            id: shorten(&self.id),
            what,
        }
    }

    fn invalid(&self, why: &'static str) -> BrokerError {
        BrokerError::InvalidTransactionState {
            id: shorten(&self.id),
            why,
        }
    }

    /// The record of a transaction that is open, begun now if it is not.
    fn ongoing(&self, record: &TransactionRecord, now_ms: i64) -> TransactionRecord {
        let mut next = match &self.open {
            Some(_) => record.clone(),
            // What the last one had is not this one's.
            None => ended_record(record, Status::Ongoing, now_ms),
        };
        next.started_ms = self.started_ms().unwrap_or(now_ms);
        next.status = Status::Ongoing;
        next.written_ms = now_ms;
        next
    }

    /// The end of what is open, if anything is.
    fn ending(&self, marker: Marker, fences: bool) -> Option<End> {
        let (open, record) = (self.open.as_ref()?, self.record.as_ref()?);
        let offsets = match marker {
            Marker::Commit => record.groups.clone(),
            Marker::Abort => GroupOffsets::new(),
        };
        let epoch = record.producer.epoch;
        Some(End {
            transaction: open.transaction.clone(),
            marker,
            marker_epoch: epoch.saturating_add(i16::from(fences)),
            partitions: self.partitions().into_iter().collect(),
            offsets,
        })
    }
}

impl Open {
    fn new(producer: ProducerIdentity, started_ms: Option<i64>) -> Open {
        Open {
            transaction: Transaction::new(producer.id, producer.epoch),
            started_ms,
            touched: BTreeSet::new(),
        }
    }
}

/// About what an end takes in the journal.
fn end_bytes(partitions: usize, offset_bytes: usize) -> usize {
    /// The record of the id, which has nothing of a transaction in it then.
    const RECORD_BYTES: usize = 2_048;
    partitions * MARKER_BYTES + offset_bytes + RECORD_BYTES
}

/// What the offsets of groups take of it: each has a key with the names of tenant and group, and a group that nobody knows
/// has a record.
fn offset_bytes(groups: &GroupOffsets) -> usize {
    const OFFSET_BYTES: usize = 320;
    const GROUP_BYTES: usize = 512;
    let of_group = |(group, offsets): (&String, &BTreeMap<PartitionId, CommittedOffset>)| {
        let metadata: usize = offsets.values().map(|one| one.metadata.len()).sum();
        GROUP_BYTES + (OFFSET_BYTES + group.len()) * offsets.len() + metadata
    };
    groups.iter().map(of_group).sum()
}

fn too_large(id: &str) -> BrokerError {
    BrokerError::TransactionTooLarge { id: shorten(id) }
}

fn next_epoch(producer: ProducerIdentity) -> Next {
    match producer.epoch {
        LAST_EPOCH.. => Next::NeedsId,
        epoch => Next::Epoch(ProducerIdentity {
            epoch: epoch + 1,
            ..producer
        }),
    }
}

fn ended_record(record: &TransactionRecord, status: Status, now_ms: i64) -> TransactionRecord {
    TransactionRecord {
        producer: record.producer,
        before: record.before,
        timeout_ms: record.timeout_ms,
        status,
        started_ms: 0,
        written_ms: now_ms,
        partitions: BTreeSet::new(),
        groups: GroupOffsets::new(),
    }
}

fn write(record: TransactionRecord) -> Decision {
    let producer = record.producer;
    let change = Change {
        record: Some(record),
        end: None,
    };
    Decision::Write(Box::new(change), producer)
}
