//! All groups in memory, behind the one lock of their [`Coordinator`].
//!
//! An event goes to the group's state machine; its effects are done under the lock: answers are collected (and given
//! after it), frames are submitted, so that frames of a group are in the order of its events. A frame that is done rings
//! a [`Signal`]; [`Groups::advance`] then tells the machine, as it tells those whose time has come.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_engine::{Engine, Promise, Signal, Submission, ticket};
use mainstem_store::StoreOp;

use super::classic::Classic;
use super::configs::{self, GroupConfigs};
use super::consumer::Timing;
use super::consumer::types::ConsumerBeat;
use super::effects::{Effect, Storing, WaitId};
use super::members::Members;
use super::record::Record;
use super::settings::GroupSettings;
use super::topics::TopicViews;
use super::types::{Joined, Synced};
use crate::coordinator::{Answer, Coordinator, Machines, Pending};
use crate::keys::{self, Kind};
use crate::{BrokerError, Caller};

/// A group's tenant and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) tenant: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl GroupKey {
    pub(crate) fn new(caller: &Caller, name: &str) -> GroupKey {
        GroupKey {
            tenant: caller.tenant.clone(),
            name: name.into(),
        }
    }

    fn record_key(&self) -> Bytes {
        keys::group(&self.tenant, &self.name)
    }
}

/// All groups of all tenants.
pub(crate) struct Groups {
    pub(crate) settings: GroupSettings,
    pub(super) views: TopicViews,
    coordinator: Coordinator<State>,
}

/// What the lock guards.
pub(crate) struct State {
    engine: Engine,
    settings: GroupSettings,
    groups: BTreeMap<GroupKey, Slot>,
    /// What was set for single groups: durable, and with what is under way.
    configs: BTreeMap<GroupKey, Configured>,
    waiting: BTreeMap<WaitId, Waiting>,
    pending: Pending<GroupKey, Frame>,
}

/// One group in memory.
pub(crate) struct Slot {
    pub(crate) members: Members,
    /// Its record lies in the store, or is on its way there.
    pub(crate) stored: bool,
    /// How many commits there have been: changes whenever one is begun.
    pub(crate) commits: u64,
    /// The keys of commits that the store does not show yet.
    pub(crate) in_flight: BTreeMap<u64, Vec<Bytes>>,
    /// Frames under way that remove it.
    removals: u32,
}

/// Offsets that a frame of others commits.
pub(crate) struct Adopted {
    key: GroupKey,
    frame: u64,
    has_record: bool,
}

/// The settings of one group.
#[derive(Default)]
struct Configured {
    durable: GroupConfigs,
    newest: GroupConfigs,
    under_way: u32,
}

/// What belongs to a frame under way.
pub(crate) struct Frame {
    key: GroupKey,
    then: Then,
    /// There is no record of the group unless this one comes to be.
    is_first: bool,
}

/// What happens when a frame is done.
pub(crate) enum Then {
    /// The machine goes on.
    Stored(Storing),
    /// Whoever waits is answered.
    Answer(WaitId),
    /// The group is forgotten, unless it has come back, and whoever waits is answered.
    Removed(WaitId),
    /// These settings hold, and whoever waits is answered.
    Configured(WaitId, GroupConfigs),
}

enum Waiting {
    Join(Promise<Result<Joined, BrokerError>>),
    Sync(Promise<Result<Synced, BrokerError>>),
    Beat(Promise<Result<ConsumerBeat, BrokerError>>),
    Frame(Promise<Result<(), BrokerError>>),
}

impl Groups {
    /// Reads all groups of all tenants.
    pub(crate) fn load(engine: &Engine, settings: GroupSettings) -> Result<Groups, BrokerError> {
        let mut groups = BTreeMap::new();
        let mut configured = BTreeMap::new();
        let mut failure = None;
        let (from, to) = keys::all_shards();
        engine
            .store()
            .scan(keys::FAMILY, &from, Some(&to), &mut |key, value| {
                let Some((tenant, kind, name)) = keys::parse_catalog_key(key) else {
                    return ControlFlow::Continue(());
                };
                let key = GroupKey {
                    tenant: tenant.into(),
                    name: name.into(),
                };
                let read = if kind == Kind::Group as u8 {
                    Record::decode(name, value).map(|record| {
                        let members = Members::restore(key.name.clone(), settings, record);
                        groups.insert(key, Slot::new(members, true));
                    })
                } else if kind == Kind::GroupConfigs as u8 {
                    configs::decode(name, value).map(|configs| {
                        configured.insert(key, Configured::new(configs));
                    })
                } else {
                    Ok(())
                };
                match read {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
        if let Some(error) = failure {
            return Err(error);
        }
        let coordinator = Coordinator::new(Arc::default(), |pending| State {
            engine: engine.clone(),
            settings,
            groups,
            configs: configured,
            waiting: BTreeMap::new(),
            pending,
        });
        Ok(Groups {
            settings,
            views: TopicViews::default(),
            coordinator,
        })
    }

    /// The bell that rings when [`Groups::advance`] has something to do before the time it was told.
    pub(crate) fn signal(&self) -> &Arc<Signal> {
        self.coordinator.signal()
    }

    /// Looks at the groups, or changes them at a moment in time.
    pub(crate) fn with<R>(&self, now_ms: Option<i64>, act: impl FnOnce(&mut State) -> R) -> R {
        self.coordinator.with(now_ms, act)
    }

    /// Tells the machines of frames that are done and of time that has passed; returns when it wants to be called
    /// again at the latest.
    pub(crate) fn advance(&self, now_ms: i64) -> Option<i64> {
        self.coordinator.advance(
            now_ms,
            |state, id, frame, outcome| {
                state.finish(id, frame, outcome.map_err(BrokerError::from), now_ms);
            },
            |state, key| {
                state.event(key, now_ms, |members, effects| {
                    members.tick(now_ms, effects);
                });
            },
        )
    }
}

impl Configured {
    fn new(configs: GroupConfigs) -> Configured {
        Configured {
            newest: configs.clone(),
            durable: configs,
            under_way: 0,
        }
    }
}

impl Slot {
    fn new(members: Members, stored: bool) -> Slot {
        Slot {
            members,
            stored,
            commits: 0,
            in_flight: BTreeMap::new(),
            removals: 0,
        }
    }

    /// Whether nothing would be lost if it were forgotten.
    fn is_idle(&self) -> bool {
        self.members.is_vacant() && !self.stored && self.removals == 0 && self.in_flight.is_empty()
    }
}

impl Machines for State {
    type Key = GroupKey;
    type Frame = Frame;

    fn pending(&mut self) -> &mut Pending<GroupKey, Frame> {
        &mut self.pending
    }

    /// Sessions begin when the time is first told.
    fn resume(&mut self, now_ms: i64) {
        let keys: Vec<GroupKey> = self.groups.keys().cloned().collect();
        for key in keys {
            let timing = self.timing(&key);
            if let Some(slot) = self.groups.get_mut(&key) {
                slot.members.resume(now_ms, timing);
            }
            self.set_timer(&key);
        }
    }
}

impl State {
    /// How often the members of a group are heard, where they speak the consumer protocol.
    pub(crate) fn timing(&self, key: &GroupKey) -> Timing {
        let configs = self.configs.get(key).map(|configured| &configured.durable);
        configs::timing(&self.settings, configs)
    }

    /// What was set for a group, with what is under way.
    pub(crate) fn configs_of(&self, key: &GroupKey) -> Option<&GroupConfigs> {
        self.configs.get(key).map(|configured| &configured.newest)
    }

    /// Settings of a group: they hold once the frame is durable.
    pub(crate) fn configure(
        &mut self,
        key: &GroupKey,
        configs: GroupConfigs,
        op: StoreOp,
    ) -> Answer<()> {
        let (wait, answer) = self.wait_for_frame();
        let configured = self.configs.entry(key.clone()).or_default();
        configured.newest.clone_from(&configs);
        configured.under_way += 1;
        self.submit(key, vec![op], false, Then::Configured(wait, configs));
        answer
    }

    fn configured(&mut self, key: &GroupKey, configs: GroupConfigs, is_durable: bool) {
        let Some(configured) = self.configs.get_mut(key) else {
            return;
        };
        configured.under_way -= 1;
        if is_durable {
            configured.durable = configs;
        }
        if configured.under_way == 0 {
            configured.newest.clone_from(&configured.durable);
            if configured.durable.is_empty() {
                self.configs.remove(key);
            }
        }
    }

    /// All groups, by tenant and name.
    pub(crate) fn groups(&self) -> &BTreeMap<GroupKey, Slot> {
        &self.groups
    }

    pub(crate) fn slot(&self, key: &GroupKey) -> Option<&Slot> {
        self.groups.get(key)
    }

    /// The group, made if it is not there. Whoever changes its members does so by [`State::event`], which forgets it
    /// again if nothing came of it.
    pub(crate) fn slot_or_new(&mut self, key: &GroupKey, now_ms: i64) -> &mut Slot {
        let settings = self.settings;
        self.groups.entry(key.clone()).or_insert_with(|| {
            let members = Classic::new(key.name.clone(), settings, now_ms);
            Slot::new(Members::Classic(members), false)
        })
    }

    /// Gives an event to the group's machine, and does what it asks for.
    pub(crate) fn event<R>(
        &mut self,
        key: &GroupKey,
        now_ms: i64,
        event: impl FnOnce(&mut Members, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let result = event(&mut self.slot_or_new(key, now_ms).members, &mut effects);
        for effect in effects {
            self.perform(key, effect);
        }
        self.set_timer(key);
        self.forget_if_idle(key);
        result
    }

    fn perform(&mut self, key: &GroupKey, effect: Effect) {
        match effect {
            Effect::Joined(wait, answer) => {
                if let Some(Waiting::Join(promise)) = self.waiting.remove(&wait) {
                    self.pending.answer(promise, answer);
                }
            }
            Effect::Synced(wait, answer) => {
                if let Some(Waiting::Sync(promise)) = self.waiting.remove(&wait) {
                    self.pending.answer(promise, answer);
                }
            }
            Effect::Beat(wait, answer) => {
                if let Some(Waiting::Beat(promise)) = self.waiting.remove(&wait) {
                    self.pending.answer(promise, answer);
                }
            }
            Effect::Store(record, storing) => {
                let op = StoreOp::put(keys::FAMILY, key.record_key(), record.encode());
                let is_first = self
                    .groups
                    .get_mut(key)
                    .is_some_and(|slot| !std::mem::replace(&mut slot.stored, true));
                self.submit(key, vec![op], is_first, Then::Stored(storing));
            }
        }
    }

    fn set_timer(&mut self, key: &GroupKey) {
        let slot = self.groups.get(key);
        let deadline_ms = slot.and_then(|slot| slot.members.deadline_ms());
        self.pending.set_timer(key, deadline_ms);
    }

    pub(crate) fn forget_if_idle(&mut self, key: &GroupKey) {
        if self.groups.get(key).is_some_and(Slot::is_idle) {
            self.groups.remove(key);
            self.pending.forget_timer(key);
        }
    }

    /// Somebody waits for a join.
    pub(crate) fn wait_to_join(&mut self) -> (WaitId, Answer<Joined>) {
        let (promise, ticket) = ticket();
        (self.wait(Waiting::Join(promise)), ticket)
    }

    /// Somebody waits for an assignment.
    pub(crate) fn wait_to_sync(&mut self) -> (WaitId, Answer<Synced>) {
        let (promise, ticket) = ticket();
        (self.wait(Waiting::Sync(promise)), ticket)
    }

    /// Somebody waits for the answer to a heartbeat.
    pub(crate) fn wait_for_beat(&mut self) -> (WaitId, Answer<ConsumerBeat>) {
        let (promise, ticket) = ticket();
        (self.wait(Waiting::Beat(promise)), ticket)
    }

    /// Somebody waits for a frame.
    pub(crate) fn wait_for_frame(&mut self) -> (WaitId, Answer<()>) {
        let (promise, ticket) = ticket();
        (self.wait(Waiting::Frame(promise)), ticket)
    }

    fn wait(&mut self, waiting: Waiting) -> WaitId {
        let id = self.pending.take_id();
        self.waiting.insert(id, waiting);
        id
    }

    /// A commit to a group: one frame, which also keeps the group's record where there is none yet.
    pub(crate) fn commit(
        &mut self,
        key: &GroupKey,
        mut ops: Vec<StoreOp>,
        now_ms: i64,
    ) -> Answer<()> {
        let (wait, answer) = self.wait_for_frame();
        let committed = ops.iter().map(|op| op.key.clone()).collect();
        let slot = self.slot_or_new(key, now_ms);
        slot.commits += 1;
        let is_first = !std::mem::replace(&mut slot.stored, true);
        if is_first {
            let record = slot.members.record().encode();
            ops.push(StoreOp::put(keys::FAMILY, key.record_key(), record));
        }
        let frame = self.submit(key, ops, is_first, Then::Answer(wait));
        if let Some(slot) = self.groups.get_mut(key) {
            slot.in_flight.insert(frame, committed);
        }
        answer
    }

    /// Offsets that the end of a transaction commits: the number under which they are on their way, and what its frame
    /// must hold. To be called where that frame is submitted, and followed by [`State::adopted`].
    pub(crate) fn adopt(
        &mut self,
        key: &GroupKey,
        mut ops: Vec<StoreOp>,
        now_ms: i64,
    ) -> (Adopted, Vec<StoreOp>) {
        let frame = self.pending.take_id();
        let committed = ops.iter().map(|op| op.key.clone()).collect();
        let slot = self.slot_or_new(key, now_ms);
        slot.commits += 1;
        slot.in_flight.insert(frame, committed);
        let has_record = !std::mem::replace(&mut slot.stored, true);
        if has_record {
            let record = slot.members.record().encode();
            ops.push(StoreOp::put(keys::FAMILY, key.record_key(), record));
        }
        let key = key.clone();
        let adopted = Adopted {
            key,
            frame,
            has_record,
        };
        (adopted, ops)
    }

    /// That frame is done, or was refused.
    pub(crate) fn adopted(&mut self, adopted: Adopted, is_done: bool) {
        if let Some(slot) = self.groups.get_mut(&adopted.key) {
            slot.in_flight.remove(&adopted.frame);
            slot.stored &= is_done || !adopted.has_record;
        }
        self.forget_if_idle(&adopted.key);
    }

    /// Removes a group that has no members, with its record and everything of it that `ops` names.
    pub(crate) fn remove(&mut self, key: &GroupKey, mut ops: Vec<StoreOp>) -> Answer<()> {
        let (wait, answer) = self.wait_for_frame();
        ops.push(StoreOp::delete(keys::FAMILY, key.record_key()));
        if let Some(slot) = self.groups.get_mut(key) {
            // A commit that comes now brings the record back.
            slot.stored = false;
            slot.removals += 1;
        }
        self.submit(key, ops, false, Then::Removed(wait));
        answer
    }

    /// Hands a frame over. Frames that touch the store are admitted in the order of these calls.
    pub(crate) fn submit(
        &mut self,
        key: &GroupKey,
        store_ops: Vec<StoreOp>,
        is_first: bool,
        then: Then,
    ) -> u64 {
        let frame = self.pending.take_id();
        let submission = Submission {
            store_ops,
            all_or_nothing: true,
            ..Submission::default()
        };
        let ticket = self.engine.submit_in_turn(submission);
        let under_way = Frame {
            key: key.clone(),
            then,
            is_first,
        };
        self.pending.watch(frame, ticket, under_way);
        frame
    }

    /// A frame is done.
    fn finish(&mut self, id: u64, frame: Frame, outcome: Result<(), BrokerError>, now_ms: i64) {
        let Frame {
            key,
            then,
            is_first,
        } = frame;
        if let Some(slot) = self.groups.get_mut(&key) {
            slot.in_flight.remove(&id);
            slot.stored &= outcome.is_ok() || !is_first;
        }
        match then {
            Then::Stored(storing) => {
                if let Err(error) = &outcome {
                    tracing::warn!(group = %key.name, %error, "a group's record could not be kept");
                }
                self.event(&key, now_ms, |members, effects| {
                    members.stored(storing, outcome, now_ms, effects);
                });
            }
            Then::Answer(wait) => {
                self.answer_frame(wait, outcome);
                self.forget_if_idle(&key);
            }
            Then::Configured(wait, configs) => {
                self.configured(&key, configs, outcome.is_ok());
                self.answer_frame(wait, outcome);
            }
            Then::Removed(wait) => {
                if let Some(slot) = self.groups.get_mut(&key) {
                    slot.removals -= 1;
                    slot.stored |= outcome.is_err();
                }
                self.answer_frame(wait, outcome);
                self.forget_if_idle(&key);
            }
        }
    }

    fn answer_frame(&mut self, wait: WaitId, outcome: Result<(), BrokerError>) {
        if let Some(Waiting::Frame(promise)) = self.waiting.remove(&wait) {
            self.pending.answer(promise, outcome);
        }
    }
}
