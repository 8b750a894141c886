//! The members of a group, whichever protocol they speak. A group without members takes the one of whoever joins next.

use std::sync::Arc;

use super::classic::Classic;
use super::consumer::types::{ConsumerHeartbeat, JOIN_EPOCH};
use super::consumer::{Consumer, Moment, Timing};
use super::effects::{Effect, Storing, WaitId};
use super::record::Record;
use super::settings::GroupSettings;
use super::types::{
    GroupCommit, GroupListing, GroupMember, GroupState, GroupType, JoinGroup, LeavingMember,
    SyncGroup,
};
use crate::BrokerError;

/// The state machine of a group.
#[derive(Debug)]
pub(crate) enum Members {
    Classic(Classic),
    Consumer(Consumer),
}

/// Calls what both have.
macro_rules! either {
    ($members:expr, $one:ident => $call:expr) => {
        match $members {
            Members::Classic($one) => $call,
            Members::Consumer($one) => $call,
        }
    };
}

impl Members {
    pub(crate) fn restore(name: Arc<str>, settings: GroupSettings, record: Record) -> Members {
        match record {
            Record::Classic(record) => Members::Classic(Classic::restore(name, settings, *record)),
            Record::Consumer(record) => {
                Members::Consumer(Consumer::restore(name, settings, *record))
            }
        }
    }

    /// What is to be kept of the group with the first of its offsets, whatever it is about at that moment.
    pub(crate) fn record(&self) -> Record {
        match self {
            Members::Classic(group) => Record::Classic(Box::new(group.record_between())),
            Members::Consumer(group) => Record::Consumer(Box::new(group.record())),
        }
    }

    pub(crate) fn resume(&mut self, now_ms: i64, timing: Timing) {
        match self {
            Members::Classic(group) => group.resume(now_ms),
            Members::Consumer(group) => group.resume(now_ms, timing),
        }
    }

    pub(crate) fn state(&self) -> GroupState {
        either!(self, group => group.state())
    }

    pub(crate) fn since_ms(&self) -> i64 {
        either!(self, group => group.since_ms())
    }

    /// Whether it has no members, and nobody is about to be one.
    pub(crate) fn is_vacant(&self) -> bool {
        either!(self, group => group.is_vacant())
    }

    /// Whether anybody has ever joined it.
    pub(crate) fn had_members(&self) -> bool {
        match self {
            Members::Classic(group) => group.had_members(),
            Members::Consumer(_) => true,
        }
    }

    /// Whether its members read the topic, as far as is known.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        either!(self, group => group.reads(topic))
    }

    /// Whether its members are Kafka consumers.
    pub(crate) fn is_of_consumers(&self) -> bool {
        match self {
            Members::Classic(group) => group.is_of_consumers(),
            Members::Consumer(_) => true,
        }
    }

    pub(crate) fn listing(&self) -> GroupListing {
        either!(self, group => group.listing())
    }

    /// When [`Members::tick`] has something to do, unless something happens before.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        either!(self, group => group.deadline_ms())
    }

    pub(crate) fn tick(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        either!(self, group => group.tick(now_ms, effects));
    }

    /// What was to be stored is durable, or has failed.
    pub(crate) fn stored(
        &mut self,
        storing: Storing,
        outcome: Result<(), BrokerError>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        match (self, storing) {
            (Members::Consumer(group), Storing::Group) => group.stored(outcome, effects),
            (Members::Classic(group), storing) => group.stored(storing, outcome, now_ms, effects),
            // The member came back, left with all others, and the group has changed its protocol.
            (Members::Consumer(group), Storing::Replaced { wait, joined, .. }) => {
                let answer = Err(group.unknown_member(&joined.member_id));
                effects.push(Effect::Joined(wait, answer));
            }
            (Members::Consumer(_), Storing::Assignment { .. } | Storing::Empty) => {}
        }
    }

    pub(crate) fn join(
        &mut self,
        request: &JoinGroup,
        wait: WaitId,
        random: u128,
        now_ms: i64,
        settings: GroupSettings,
        effects: &mut Vec<Effect>,
    ) {
        let group = match self {
            Members::Classic(group) => {
                return group.join(request, wait, random, now_ms, effects);
            }
            Members::Consumer(group) => group,
        };
        let name = request.group.clone();
        if group.state() != GroupState::Empty {
            let why = "its members speak the consumer protocol (group.protocol=consumer)";
            let refused = BrokerError::InconsistentProtocol { group: name, why };
            return effects.push(Effect::Joined(wait, Err(refused)));
        }
        if !group.is_vacant() {
            // Those who have left are not answered yet: it is to ask again.
            let refused = BrokerError::RebalanceInProgress { group: name };
            return effects.push(Effect::Joined(wait, Err(refused)));
        }
        let mut other = Classic::after(name.into(), settings, group.epoch(), now_ms);
        other.join(request, wait, random, now_ms, effects);
        if !other.is_vacant() {
            *self = Members::Classic(other);
        }
    }

    pub(crate) fn sync(
        &mut self,
        request: &SyncGroup,
        wait: WaitId,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        match self {
            Members::Classic(group) => group.sync(request, wait, now_ms, effects),
            Members::Consumer(group) => {
                let refused = group.unknown_member(&request.member.member_id);
                effects.push(Effect::Synced(wait, Err(refused)));
            }
        }
    }

    pub(crate) fn classic_heartbeat(
        &mut self,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        match self {
            Members::Classic(group) => group.heartbeat(member, now_ms),
            Members::Consumer(group) => Err(group.unknown_member(&member.member_id)),
        }
    }

    /// A member leaves; of the consumer protocol only one that an administrator removes by its static name.
    pub(crate) fn leave(
        &mut self,
        leaving: &LeavingMember,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), BrokerError> {
        match (self, &leaving.instance_id) {
            (Members::Classic(group), _) => group.leave(leaving, now_ms, effects),
            (Members::Consumer(group), Some(name)) if leaving.member_id.is_empty() => {
                group.remove_static(name, now_ms, effects)
            }
            (Members::Consumer(group), _) => Err(group.unknown_member(&leaving.member_id)),
        }
    }

    pub(crate) fn consumer_heartbeat(
        &mut self,
        request: &ConsumerHeartbeat,
        moment: &Moment<'_>,
        wait: WaitId,
        settings: GroupSettings,
        effects: &mut Vec<Effect>,
    ) {
        let group = match self {
            Members::Consumer(group) => {
                return group.heartbeat(request, moment, wait, effects);
            }
            Members::Classic(group) => group,
        };
        let name = request.group.clone();
        if group.state() != GroupState::Empty || request.member_epoch != JOIN_EPOCH {
            let refused = BrokerError::OtherProtocol {
                group: name,
                protocol: GroupType::Classic,
            };
            return effects.push(Effect::Beat(wait, Err(refused)));
        }
        let mut other = Consumer::new(name.into(), settings, group.generation(), moment.now_ms);
        other.heartbeat(request, moment, wait, effects);
        if !other.is_vacant() {
            *self = Members::Consumer(other);
        }
    }

    pub(crate) fn check_commit(
        &mut self,
        commit: &GroupCommit,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        match self {
            Members::Classic(group) => group.check_commit(&commit.member, now_ms),
            Members::Consumer(group) => group.check_commit(commit),
        }
    }

    pub(crate) fn check_transaction_commit(
        &mut self,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        match self {
            Members::Classic(group) => group.check_transaction_commit(member, now_ms),
            Members::Consumer(group) => group.check_transaction_commit(member),
        }
    }
}
