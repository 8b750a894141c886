//! All transactional ids in memory, behind the one lock of their [`Coordinator`].
//!
//! Batches of transactions are submitted under the lock, too: a transaction's partitions are known before its end is
//! submitted. What overtakes on the way from there to admission, admission itself refuses (see
//! [`mainstem_engine::Transaction`]).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use mainstem_engine::{Engine, EngineError, Promise, Signal, Submission, TransactionEnd, ticket};
use mainstem_log::PartitionId;
use mainstem_store::StoreOp;

use super::machine::{Change, Decision, End, Machine};
use super::record::TransactionRecord;
use super::settings::TransactionSettings;
use crate::coordinator::{Answer, Coordinator, Machines, Pending};
use crate::groups::{Adopted, GroupKey, Groups};
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
    coordinator: Coordinator<State>,
}

/// What the lock guards.
pub(crate) struct State {
    engine: Engine,
    settings: TransactionSettings,
    ids: BTreeMap<IdKey, Slot>,
    pending: Pending<IdKey, Frame>,
}

/// One transactional id in memory.
struct Slot {
    machine: Machine,
    /// They ask again when its frame is done.
    waiting: Vec<Promise<Result<(), BrokerError>>>,
}

/// What belongs to a frame under way.
pub(crate) struct Frame {
    key: IdKey,
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
        let coordinator = Coordinator::new(signal, |pending| State {
            engine: engine.clone(),
            settings,
            ids,
            pending,
        });
        Ok(Transactions {
            settings,
            coordinator,
        })
    }

    /// Looks at the ids, or changes them at a moment in time.
    pub(crate) fn with<R>(&self, now_ms: Option<i64>, act: impl FnOnce(&mut State) -> R) -> R {
        self.coordinator.with(now_ms, act)
    }

    /// Tells the machines of frames that are done and of time that has passed; returns when it wants to be called
    /// again at the latest.
    pub(crate) fn advance(&self, groups: &Groups, now_ms: i64) -> Option<i64> {
        self.coordinator.advance(
            now_ms,
            |state, _, frame, outcome| state.finish(groups, frame, outcome, now_ms),
            |state, key| state.tick(groups, key, now_ms),
        )
    }
}

impl Slot {
    fn new(machine: Machine) -> Slot {
        Slot {
            machine,
            waiting: Vec::new(),
        }
    }
}

impl Machines for State {
    type Key = IdKey;
    type Frame = Frame;

    fn pending(&mut self) -> &mut Pending<IdKey, Frame> {
        &mut self.pending
    }

    /// Time begins for what only the log knew when it is first told.
    fn resume(&mut self, now_ms: i64) {
        let keys: Vec<IdKey> = self.ids.keys().cloned().collect();
        for key in keys {
            if let Some(slot) = self.ids.get_mut(&key) {
                slot.machine.resume(now_ms);
            }
            self.set_timer(&key);
        }
    }
}

impl State {
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
            promise,
            answer,
            adopted,
        };
        let frame = self.pending.take_id();
        self.pending.watch(frame, ticket, under_way);
    }

    /// Time has passed.
    fn tick(&mut self, groups: &Groups, key: &IdKey, now_ms: i64) {
        let expiration_ms = self.settings.id_expiration_ms;
        let slot = self.ids.get_mut(key);
        if let Some(change) = slot.and_then(|slot| slot.machine.tick(now_ms, expiration_ms)) {
            tracing::debug!(case = "transaction or its id expired", id = %key.id);
            let nobody = ProducerIdentity { id: -1, epoch: -1 };
            self.submit(groups, key, change, nobody, None, now_ms);
        }
        self.set_timer(key);
    }

    /// A frame is done.
    fn finish(
        &mut self,
        groups: &Groups,
        frame: Frame,
        outcome: Result<(), EngineError>,
        now_ms: i64,
    ) {
        let Frame {
            key,
            promise,
            answer,
            adopted,
        } = frame;
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
            let outcome = outcome.map(|()| answer).map_err(BrokerError::from);
            self.pending.answer(promise, outcome);
        }
        let Some(slot) = self.ids.get_mut(&key) else {
            return;
        };
        slot.machine.done(is_done, now_ms);
        for promise in slot.waiting.drain(..) {
            self.pending.answer(promise, Ok(()));
        }
        if slot.machine.is_nothing() {
            self.ids.remove(&key);
            self.pending.forget_timer(&key);
            return;
        }
        self.set_timer(&key);
    }

    pub(crate) fn set_timer(&mut self, key: &IdKey) {
        let expiration_ms = self.settings.id_expiration_ms;
        let slot = self.ids.get(key);
        let deadline_ms = slot.and_then(|slot| slot.machine.deadline_ms(expiration_ms));
        self.pending.set_timer(key, deadline_ms);
    }
}
