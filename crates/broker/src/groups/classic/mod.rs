//! The members of one group: Kafka's classic protocol, in which the clients assign, as a state machine.
//!
//! ```text
//!             join                 all have joined, or time is up            leader's sync, durable
//!   Empty ──────────► Preparing ────────────────────────────► Completing ──────────────────► Stable
//!     ▲                 │   ▲                                     │                             │
//!     └── nobody left ──┘   └──────── join, leave, expiry ────────┴─────────────────────────────┘
//! ```
//!
//! Pure: time is an argument of every event; who waits is a number; answers and frames come back as [`Effect`](super::effects::Effect)s;
//! [`Classic::deadline_ms`] says when [`Classic::tick`] wants to be called next. The rules are those of Kafka's group
//! coordinator (KIP-62 timeouts, KIP-134 initial delay, KIP-345 static members, KIP-394 member ids, KIP-559 protocol
//! checks, KIP-814 skipped assignment), so that clients meet what they know.

mod commit;
mod join;
mod leave;
mod member;
mod rebalance;
mod restore;
mod sync;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use member::Member;
use rebalance::JoinPhase;

use super::settings::GroupSettings;
use super::subscription::{self, CONSUMER};
use super::types::{
    GroupDescription, GroupListing, GroupState, GroupType, Joined, JoinedMember, MemberDescription,
};
use crate::BrokerError;

/// How long a new member's join may wait: its session timeout does not run yet, since it knows no id to send
/// heartbeats with, and a client that has gone away meanwhile must not stay for ever.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

/// Where a classic group stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl From<Phase> for GroupState {
    fn from(phase: Phase) -> GroupState {
        match phase {
            Phase::Empty => GroupState::Empty,
            Phase::PreparingRebalance => GroupState::PreparingRebalance,
            Phase::CompletingRebalance => GroupState::CompletingRebalance,
            Phase::Stable => GroupState::Stable,
        }
    }
}

/// One group's members and generation.
#[derive(Debug)]
pub(crate) struct Classic {
    name: Arc<str>,
    settings: GroupSettings,
    state: Phase,
    /// Since when it is in this state.
    since_ms: i64,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Static names and the ids that hold them.
    statics: BTreeMap<String, String>,
    /// Ids given out to new members that have not joined with them yet, and until when they may.
    pending: BTreeMap<String, i64>,
    /// Members of this generation that have not asked for their assignment yet.
    unsynced: BTreeSet<String>,
    /// While preparing: how long it waits for members.
    joining: Option<JoinPhase>,
    /// After that: until when all members must have asked for their assignment.
    sync_deadline_ms: Option<i64>,
    /// Assignments that are being made durable.
    assigning: Option<BTreeMap<String, bytes::Bytes>>,
    /// Topics that the members read, as of this generation; `None` where they do not say so in a known form.
    topics: Option<BTreeSet<String>>,
    next_place: u64,
}

impl Classic {
    /// A group that nobody has joined.
    pub(crate) fn new(name: Arc<str>, settings: GroupSettings, now_ms: i64) -> Classic {
        Classic {
            name,
            settings,
            state: Phase::Empty,
            since_ms: now_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            joining: None,
            sync_deadline_ms: None,
            assigning: None,
            topics: Some(BTreeSet::new()),
            next_place: 0,
        }
    }

    /// A group without members, which had some of another protocol: its generations go on after `generation`.
    pub(crate) fn after(
        name: Arc<str>,
        settings: GroupSettings,
        generation: i32,
        now_ms: i64,
    ) -> Classic {
        let mut group = Classic::new(name, settings, now_ms);
        group.generation = generation;
        group
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn state(&self) -> GroupState {
        self.state.into()
    }

    pub(crate) fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Whether it has neither members nor ids given out to new ones.
    pub(crate) fn is_vacant(&self) -> bool {
        self.state == Phase::Empty && self.pending.is_empty()
    }

    /// Whether anybody has ever joined it.
    pub(crate) fn had_members(&self) -> bool {
        self.protocol_type.is_some()
    }

    /// Whether its members read the topic, as far as is known.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        self.state != Phase::Empty
            && self
                .topics
                .as_ref()
                .is_none_or(|topics| topics.contains(topic))
    }

    /// Whether its members are Kafka consumers.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group: self.name.to_string(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state(),
            group_type: GroupType::Classic,
        }
    }

    pub(crate) fn describe(&self) -> GroupDescription {
        let stable = self.state == Phase::Stable;
        let protocol = self.protocol.as_deref().filter(|_| stable);
        let describe = |(id, member): (&String, &Member)| MemberDescription {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol
                .map(|protocol| member.metadata(protocol))
                .unwrap_or_default(),
            assignment: protocol
                .map(|_| member.assignment.clone())
                .unwrap_or_default(),
        };
        GroupDescription {
            group: self.name.to_string(),
            state: self.state(),
            group_type: GroupType::Classic,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            generation: self.generation,
            members: self.members.iter().map(describe).collect(),
        }
    }

    fn move_to(&mut self, state: Phase, now_ms: i64) {
        self.state = state;
        self.since_ms = now_ms;
    }

    /// Whether `member_id` is a member, and the one that holds `instance_id` where that is given.
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), BrokerError> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(self.unknown_member(instance_id)),
                Some(holder) if holder != member_id => return Err(self.fenced(instance_id)),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(self.unknown_member(member_id)),
        }
    }

    fn check_generation(&self, generation: i32) -> Result<(), BrokerError> {
        match generation == self.generation {
            true => Ok(()),
            false => Err(BrokerError::IllegalGeneration {
                group: self.name.to_string(),
                got: generation,
                current: self.generation,
            }),
        }
    }

    fn unknown_member(&self, member: &str) -> BrokerError {
        BrokerError::UnknownMember {
            group: self.name.to_string(),
            member: member.chars().take(250).collect(),
        }
    }

    fn fenced(&self, instance_id: &str) -> BrokerError {
        BrokerError::FencedInstance {
            group: self.name.to_string(),
            instance_id: instance_id.chars().take(250).collect(),
        }
    }

    fn rebalancing(&self) -> BrokerError {
        BrokerError::RebalanceInProgress {
            group: self.name.to_string(),
        }
    }

    fn inconsistent(&self, why: &'static str) -> BrokerError {
        BrokerError::InconsistentProtocol {
            group: self.name.to_string(),
            why,
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// What a member is told of the generation that holds.
    fn joined(&self, member_id: &str) -> Joined {
        let members = match self.is_leader(member_id) {
            true => self.joined_members(),
            false => Vec::new(),
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            members,
            skip_assignment: false,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members
            .iter()
            .map(|(id, member)| JoinedMember {
                member_id: id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }

    /// The protocol that all members speak and most of them like best; of those liked equally, the first by name.
    fn chosen_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let spoken = member
                .protocols
                .iter()
                .find(|protocol| self.is_spoken_by_all(&protocol.name));
            if let Some(liked) = spoken {
                *votes.entry(&liked.name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(name, _)| name.to_owned())
    }

    fn is_spoken_by_all(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.speaks(protocol))
    }

    /// Reads anew which topics the members read.
    fn find_topics(&mut self) {
        let mut topics = BTreeSet::new();
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let readable = self.members.is_empty()
            || (self.is_of_consumers()
                && self.members.values().all(|member| {
                    subscription::add_topics(&member.metadata(protocol), &mut topics).is_some()
                }));
        self.topics = readable.then_some(topics);
    }
}
