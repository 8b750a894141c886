//! All transactional ids in memory, their timers, and their frames under way, behind one lock that is never held over I/O.
//!
//! Batches of transactions are submitted under the lock, too: a transaction's partitions are known before its end is
//! submitted. What overtakes on the way from there to admission, admission itself refuses (see
//! [`mainstem_engine::Transaction`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mainstem_engine::{
    Committed, Engine, Promise, Signal, Submission, Ticket, TransactionEnd, ticket,
};
use mainstem_log::PartitionId;
use mainstem_store::StoreOp;
use parking_lot::Mutex;

use super::machine::{Change, Decision, End, Machine};
use super::record::TransactionRecord;
use super::settings::TransactionSettings;
use crate::frames::FramesDone;
use crate::groups::{Adopted, Answer, GroupKey, Groups};
use crate::keys::{self, Kind};
use crate::{BrokerError, Caller, ProducerIdentity};

/// A tenant and a transactional id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdKey {
    pub(crate) tenant: Arc<str>,
    pub(crate) id: Arc<str>,
}

impl IdKey {
    pub(crate) fn new(caller: &Caller, id: &str) -> IdKey {
        IdKey {
            tenant: caller.tenant.clone(),
            id: id.into(),
        }
    }
}

/// All transactional ids of all tenants.
pub(crate) struct Transactions {
    pub(crate) settings: TransactionSettings,
    state: Mutex<State>,
    done: Arc<FramesDone>,
}

/// What the lock guards.
pub(crate) struct State {
    engine: Engine,
    done: Arc<FramesDone>,
    settings: TransactionSettings,
    ids: BTreeMap<IdKey, Slot>,
    /// When which id wants to be told the time: one entry an id at most, never later than its machine's deadline.
    timers: BTreeSet<(i64, IdKey)>,
    frames: BTreeMap<u64, Frame>,
    next_frame: u64,
    /// Whether the transactions that a restart has found were told the time.
    resumed: bool,
    /// To be answered once the lock is free: a waker may run anything.
    answers: Vec<Box<dyn FnOnce() + Send>>,
}

/// One transactional id in memory.
struct Slot {
    machine: Machine,
    /// They ask again when its frame is done.
    waiting: Vec<Promise<Result<(), BrokerError>>>,
    timer_ms: Option<i64>,
}

/// A frame under way.
struct Frame {
    key: IdKey,
    ticket: Ticket<Committed>,
    /// Who waits, and what it is answered if all goes well.
    promise: Option<Promise<Result<ProducerIdentity, BrokerError>>>,
    answer: ProducerIdentity,
    /// Offsets that it brings into groups.
    adopted: Vec<Adopted>,
}

/// What becomes of a call.
pub(crate) enum Asked {
    /// Something is under way: to be asked again.
    Busy(Answer<()>),
    /// To be asked again with a new producer id.
    NeedsId,
    Answer(ProducerIdentity),
    Frame(Answer<ProducerIdentity>),
}

impl Transactions {
    /// Reads all transactional ids of all tenants, and finds in the log what is open of each.
    pub(crate) fn load(
        engine: &Engine,
        settings: TransactionSettings,
        signal: Arc<Signal>,
    ) -> Result<Transactions, BrokerError> {
        let mut ids = BTreeMap::new();
        let mut producers = BTreeMap::new();
        let mut failure = None;
        let max_end_bytes = engine.max_frame_bytes();
        let (from, to) = keys::all_shards();
        engine
            .store()
            .scan(keys::FAMILY, &from, Some(&to), &mut |key, value| {
                let Some((tenant, kind, id)) = keys::parse_catalog_key(key) else {
                    return ControlFlow::Continue(());
                };
                if kind != Kind::Transaction as u8 {
                    return ControlFlow::Continue(());
                }
                match TransactionRecord::decode(id, value) {
                    Ok(record) => {
                        let key = IdKey {
                            tenant: tenant.into(),
                            id: id.into(),
                        };
                        producers.insert(record.producer.id, key.clone());
                        let machine = Machine::restore(id, record).limited(max_end_bytes);
                        ids.insert(key, Slot::new(machine));
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
        if let Some(error) = failure {
            return Err(error);
        }
        for (partition, open) in engine.log().open_transactions() {
            let key = producers.get(&open.producer_id);
            match key.and_then(|key| ids.get_mut(key)) {
                Some(slot) => slot.machine.found_open(partition),
                None => {
                    let producer_id = open.producer_id;
                    tracing::error!(%partition, producer_id, "an open transaction belongs to no transactional id");
                }
            }
        }
        let done = FramesDone::new(signal);
        let state = State {
            engine: engine.clone(),
            done: done.clone(),
            settings,
            ids,
            timers: BTreeSet::new(),
            frames: BTreeMap::new(),
            next_frame: 0,
            resumed: false,
            answers: Vec::new(),
        };
        Ok(Transactions {
            settings,
            state: Mutex::new(state),
            done,
        })
    }

    /// Looks at the ids, or changes them at a moment in time.
    pub(crate) fn with<R>(&self, now_ms: Option<i64>, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let first_before = state.first_timer_ms();
        if let Some(now_ms) = now_ms {
            state.resume(now_ms);
        }
        let result = act(&mut state);
        let answers = std::mem::take(&mut state.answers);
        let first = state.first_timer_ms();
        drop(state);
        answers.into_iter().for_each(|give| give());
        if first.is_some_and(|first| first_before.is_none_or(|before| first < before)) {
            self.done.signal().notify();
        }
        result
    }

    /// Tells the machines of frames that are done and of time that has passed; returns when it wants to be called
    /// again at the latest.
    pub(crate) fn advance(&self, groups: &Groups, now_ms: i64) -> Option<i64> {
        let done = self.done.take();
        self.with(Some(now_ms), |state| {
            for frame in done {
                state.finish(groups, frame, now_ms);
            }
            while let Some((at_ms, key)) = state.timers.first().cloned() {
                if at_ms > now_ms {
                    return Some(at_ms);
                }
                state.timers.remove(&(at_ms, key.clone()));
                let expiration_ms = state.settings.id_expiration_ms;
                let change = state.ids.get_mut(&key).and_then(|slot| {
                    slot.timer_ms = None;
                    slot.machine.tick(now_ms, expiration_ms)
                });
                if let Some(change) = change {
                    tracing::debug!(case = "transaction or its id expired", id = %key.id);
                    let nobody = ProducerIdentity { id: -1, epoch: -1 };
                    state.submit(groups, &key, change, nobody, None, now_ms);
                }
                state.set_timer(&key);
            }
            None
        })
    }
}

impl Slot {
    fn new(machine: Machine) -> Slot {
        Slot {
            machine,
            waiting: Vec::new(),
            timer_ms: None,
        }
    }
}

impl State {
    fn first_timer_ms(&self) -> Option<i64> {
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }

    /// After a restart, time begins for what only the log knew when it is first told.
    fn resume(&mut self, now_ms: i64) {
        if std::mem::replace(&mut self.resumed, true) {
            return;
        }
        let keys: Vec<IdKey> = self.ids.keys().cloned().collect();
        for key in keys {
            if let Some(slot) = self.ids.get_mut(&key) {
                slot.machine.resume(now_ms);
            }
            self.set_timer(&key);
        }
    }

    /// The ids of a tenant, by name.
    pub(crate) fn of_tenant(&self, caller: &Caller) -> impl Iterator<Item = (&str, &Machine)> {
        let tenant = caller.tenant.clone();
        self.ids
            .range(IdKey::new(caller, "")..)
            .take_while(move |(key, _)| key.tenant == tenant)
            .map(|(key, slot)| (&*key.id, &slot.machine))
    }

    pub(crate) fn machine(&self, key: &IdKey) -> Option<&Machine> {
        self.ids.get(key).map(|slot| &slot.machine)
    }

    pub(crate) fn machine_mut(&mut self, key: &IdKey) -> Option<&mut Machine> {
        self.ids.get_mut(key).map(|slot| &mut slot.machine)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Asks the id's machine, and does what it decides.
    pub(crate) fn ask(
        &mut self,
        groups: &Groups,
        key: &IdKey,
        now_ms: i64,
        ask: impl FnOnce(&Machine) -> Result<Decision, BrokerError>,
    ) -> Result<Asked, BrokerError> {
        let nobody = Machine::new(&key.id);
        match ask(self.machine(key).unwrap_or(&nobody))? {
            Decision::Busy => Ok(Asked::Busy(self.wait(key))),
            Decision::NeedsId => Ok(Asked::NeedsId),
            Decision::Answer(producer) => Ok(Asked::Answer(producer)),
            Decision::Write(change, producer) => {
                let (promise, answer) = ticket();
                self.submit(groups, key, *change, producer, Some(promise), now_ms);
                Ok(Asked::Frame(answer))
            }
        }
    }

    /// Resolves when what is under way for the id is done.
    pub(crate) fn wait(&mut self, key: &IdKey) -> Answer<()> {
        let (promise, answer) = ticket();
        match self.ids.get_mut(key) {
            Some(slot) => slot.waiting.push(promise),
            None => promise.resolve(Ok(Ok(()))),
        }
        answer
    }

    /// Hands a change over as one frame.
    fn submit(
        &mut self,
        groups: &Groups,
        key: &IdKey,
        change: Change,
        answer: ProducerIdentity,
        promise: Option<Promise<Result<ProducerIdentity, BrokerError>>>,
        now_ms: i64,
    ) {
        let max_end_bytes = self.engine.max_frame_bytes();
        let slot = self
            .ids
            .entry(key.clone())
            .or_insert_with(|| Slot::new(Machine::new(&key.id).limited(max_end_bytes)));
        let record_key = keys::transaction(&key.tenant, &key.id);
        let record = match &change.record {
            Some(record) => StoreOp::put(keys::FAMILY, record_key, record.encode()),
            None => StoreOp::delete(keys::FAMILY, record_key),
        };
        let end = change.end.clone();
        slot.machine.begin(change);
        let mut submission = Submission {
            store_ops: vec![record],
            all_or_nothing: true,
            ..Submission::default()
        };
        self.next_frame += 1;
        let frame = self.next_frame;
        let mut adopted = Vec::new();
        let ticket = match end {
            None => self.engine.submit_in_turn(submission),
            Some(end) => groups.with(Some(now_ms), |groups| {
                let End { offsets, .. } = &end;
                for (group, offsets) in offsets.iter().filter(|(_, offsets)| !offsets.is_empty()) {
                    let put = |(partition, offset): (&PartitionId, &crate::CommittedOffset)| {
                        let key = keys::group_offset(&key.tenant, group, *partition);
                        StoreOp::put(keys::OFFSETS, key, offset.encode())
                    };
                    let group_key = GroupKey {
                        tenant: key.tenant.clone(),
                        name: group.as_str().into(),
                    };
                    let ops = offsets.iter().map(put).collect();
                    let (one, ops) = groups.adopt(&group_key, ops, now_ms);
                    adopted.push(one);
                    submission.store_ops.extend(ops);
                }
                submission.transaction_end = Some(TransactionEnd {
                    transaction: end.transaction,
                    marker: end.marker,
                    marker_epoch: end.marker_epoch,
                    partitions: end.partitions,
                    now_ms,
                });
                // Under the groups' lock: their frames are in the order of their events.
                self.engine.submit_in_turn(submission)
            }),
        };
        let under_way = Frame {
            key: key.clone(),
            ticket: self.done.watch(frame, ticket),
            promise,
            answer,
            adopted,
        };
        self.frames.insert(frame, under_way);
    }

    /// A frame has called.
    fn finish(&mut self, groups: &Groups, frame: u64, now_ms: i64) {
        let Some(under_way) = self.frames.get_mut(&frame) else {
            return;
        };
        let ticket = Pin::new(&mut under_way.ticket);
        let Poll::Ready(outcome) = ticket.poll(&mut Context::from_waker(Waker::noop())) else {
            return;
        };
        let Some(Frame {
            key,
            promise,
            answer,
            adopted,
            ..
        }) = self.frames.remove(&frame)
        else {
            return;
        };
        let is_done = outcome.is_ok();
        if let Err(error) = &outcome {
            tracing::warn!(id = %key.id, %error, "a transactional id could not be changed");
        }
        if !adopted.is_empty() {
            groups.with(Some(now_ms), |groups| {
                for one in adopted {
                    groups.adopted(one, is_done);
                }
            });
        }
        if let Some(promise) = promise {
            let outcome = outcome.map(|_| answer).map_err(BrokerError::from);
            self.answers.push(Box::new(|| promise.resolve(Ok(outcome))));
        }
        let Some(slot) = self.ids.get_mut(&key) else {
            return;
        };
        slot.machine.done(is_done, now_ms);
        for promise in slot.waiting.drain(..) {
            self.answers.push(Box::new(|| promise.resolve(Ok(Ok(())))));
        }
        if slot.machine.is_nothing() {
            if let Some(at_ms) = slot.timer_ms {
                self.timers.remove(&(at_ms, key.clone()));
            }
            self.ids.remove(&key);
            return;
        }
        self.set_timer(&key);
    }

    /// Has the id told the time when it wants to be. An entry that is earlier than need be stays: when it comes up, the
    /// machine finds nothing to do.
    pub(crate) fn set_timer(&mut self, key: &IdKey) {
        let expiration_ms = self.settings.id_expiration_ms;
        let Some(slot) = self.ids.get_mut(key) else {
            return;
        };
        let Some(at_ms) = slot.machine.deadline_ms(expiration_ms) else {
            return;
        };
        if slot.timer_ms.is_some_and(|held| held <= at_ms) {
            return;
        }
        if let Some(held) = slot.timer_ms.replace(at_ms) {
            self.timers.remove(&(held, key.clone()));
        }
        self.timers.insert((at_ms, key.clone()));
    }
}
