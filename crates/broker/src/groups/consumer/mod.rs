//! The members of one group that speak Kafka's newer protocol (KIP-848), in which the broker assigns, as a state machine.
//!
//! There is one request, a heartbeat, and no moment at which all members stop. Whenever members, subscriptions or topics
//! change, the group's **epoch** grows and an [`assignor`] makes a **target** for it: who is to have which partition in
//! the end. Each member goes there on its own, step by step with its heartbeats ([`reconcile`]): it gives up what is no
//! longer its own, says that it has, and gets the rest as others have given it up. So at no time two members may have a
//! partition.
//!
//! ```text
//!   heartbeat ─► join, update, leave ─► epoch ─► target ─► reconcile ─► record ─► answer, when that is durable
//! ```
//!
//! Pure, like [`classic`](super::classic): time, topics and randomness are arguments, answers and frames come back as
//! [`Effect`](super::effects::Effect)s, [`Consumer::deadline_ms`] says when [`Consumer::tick`] wants to be called next.
//! The rules are those of Kafka 4.1's group coordinator.

pub(crate) mod assignor;
mod heartbeat;
mod keep;
mod member;
mod pattern;
mod reconcile;
pub(crate) mod record;
mod restore;
mod target;
#[cfg(test)]
mod tests;
pub(crate) mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstem_log::PartitionId;

use assignor::Partitions;
use keep::Waiting;
use member::Member;
use types::{AssignedTopic, ConsumerGroupDescription, ConsumerMemberDescription};

use super::effects::Effect;
use super::settings::GroupSettings;
use super::subscription::CONSUMER;
use super::topics::{TopicSize, TopicView};
use super::types::{GroupCommit, GroupListing, GroupMember, GroupState, GroupType};
use crate::BrokerError;

/// When something happens, and what the group is to know of the world at that moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) now_ms: i64,
    pub(crate) topics: &'a TopicView,
    pub(crate) timing: Timing,
    /// For the id of a new member that has none.
    pub(crate) random: u128,
}

/// How often members of a group are heard, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// A member that is silent for so long is removed.
    pub(crate) session_timeout_ms: i64,
    /// How often it is asked to be heard.
    pub(crate) heartbeat_interval_ms: i64,
}

/// One group's members, what they have and what they are to have.
#[derive(Debug)]
pub(crate) struct Consumer {
    name: Arc<str>,
    settings: GroupSettings,
    /// Grows with every change of members, subscriptions or topics.
    epoch: i32,
    /// Since when it has members, or has none.
    since_ms: i64,
    /// The epoch that the target was made for.
    target_epoch: i32,
    target: BTreeMap<Arc<str>, Partitions>,
    members: BTreeMap<Arc<str>, Member>,
    /// Static names and the ids that hold them.
    statics: BTreeMap<String, Arc<str>>,
    /// Who may have a partition at this moment: it is assigned to it, or was and must be given up.
    holders: BTreeMap<PartitionId, Arc<str>>,
    /// The topics that are read and there, as of the newest look at them.
    topics: BTreeMap<Arc<str>, TopicSize>,
    /// The topics that match each member's pattern, as of then.
    patterns: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Which picture of the topics that was; `None` after a restart.
    seen_version: Option<u64>,
    /// Something has changed since the last record.
    changed: bool,
    /// A record is on its way.
    under_way: bool,
    /// Answers that wait for the record on its way.
    answers: Vec<Waiting>,
    /// Answers that wait for the next one.
    next_answers: Vec<Waiting>,
}

impl Consumer {
    /// A group without members. Epochs go on after `epoch`.
    pub(crate) fn new(
        name: Arc<str>,
        settings: GroupSettings,
        epoch: i32,
        now_ms: i64,
    ) -> Consumer {
        Consumer {
            name,
            settings,
            epoch,
            since_ms: now_ms,
            target_epoch: epoch,
            target: BTreeMap::new(),
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            holders: BTreeMap::new(),
            topics: BTreeMap::new(),
            patterns: BTreeMap::new(),
            seen_version: None,
            changed: false,
            under_way: false,
            answers: Vec::new(),
            next_answers: Vec::new(),
        }
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(crate) fn since_ms(&self) -> i64 {
        self.since_ms
    }

    pub(crate) fn state(&self) -> GroupState {
        let has_reached = |member: &Member| member.has_reached(self.target_epoch);
        match self.members.is_empty() {
            true => GroupState::Empty,
            false if self.epoch > self.target_epoch => GroupState::Assigning,
            false if self.members.values().all(has_reached) => GroupState::Stable,
            false => GroupState::Reconciling,
        }
    }

    /// Whether it has no members, and nobody waits for anything.
    pub(crate) fn is_vacant(&self) -> bool {
        let nobody_waits = self.answers.is_empty() && self.next_answers.is_empty();
        self.members.is_empty() && !self.under_way && nobody_waits
    }

    /// Whether its members read the topic.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        let names = |member: &Member| member.names.contains(topic);
        self.topics.contains_key(topic) || self.members.values().any(names)
    }

    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group: self.name.to_string(),
            protocol_type: CONSUMER.to_owned(),
            state: self.state(),
            group_type: GroupType::Consumer,
        }
    }

    /// The group with its members; topics that are gone are left out of what they have.
    pub(crate) fn describe(&self, topics: &TopicView) -> ConsumerGroupDescription {
        let member = |(id, member): (&Arc<str>, &Member)| ConsumerMemberDescription {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.names.iter().cloned().collect(),
            pattern: member.pattern.clone(),
            assignment: by_topic(&member.assigned, topics),
            target: self
                .target
                .get(id)
                .map(|target| by_topic(target, topics))
                .unwrap_or_default(),
        };
        ConsumerGroupDescription {
            group: self.name.to_string(),
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: self.assignor().name(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Whether offsets may be committed: by a member that knows its epoch, or, where there are no members, by anybody who
    /// does not claim to be one.
    pub(crate) fn check_commit(&self, commit: &GroupCommit) -> Result<(), BrokerError> {
        let member = &commit.member;
        if member.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        if !commit.knows_epochs && self.members.contains_key(member.member_id.as_str()) {
            return Err(BrokerError::EpochsRequired {
                group: self.name.to_string(),
            });
        }
        self.check_member(&member.member_id, member.generation)
    }

    /// Whether offsets may be committed with a transaction: by a member that knows its epoch, or by anybody who does not
    /// claim to be one. There an old epoch is an old generation, which is what producers know.
    pub(crate) fn check_transaction_commit(&self, member: &GroupMember) -> Result<(), BrokerError> {
        if member.generation < 0 && (member.is_nobody() || self.members.is_empty()) {
            return Ok(());
        }
        let checked = self.check_member(&member.member_id, member.generation);
        checked.map_err(|error| match error {
            BrokerError::StaleEpoch {
                group,
                got,
                current,
            } => BrokerError::IllegalGeneration {
                group,
                got,
                current,
            },
            other => other,
        })
    }

    /// Whether it is a member, and this is its epoch.
    pub(crate) fn check_member(&self, id: &str, epoch: i32) -> Result<(), BrokerError> {
        let member = self
            .members
            .get(id)
            .ok_or_else(|| self.unknown_member(id))?;
        match epoch == member.epoch {
            true => Ok(()),
            false => Err(BrokerError::StaleEpoch {
                group: self.name.to_string(),
                got: epoch,
                current: member.epoch,
            }),
        }
    }

    /// When [`Consumer::tick`] has something to do, unless something happens before.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        self.members.values().map(Member::deadline_ms).min()
    }

    /// Time has passed: members that are silent, or do not give up what they must, are removed.
    pub(crate) fn tick(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let late: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, member)| member.deadline_ms() <= now_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            tracing::info!(group = %self.name, member = %id, "member removed: it was not heard of in time, or did not give its partitions up in time");
            self.remove(&id, now_ms);
        }
        self.keep(effects);
    }

    /// An administrator removes a static member by its name.
    pub(crate) fn remove_static(
        &mut self,
        instance_id: &str,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), BrokerError> {
        let id = self.statics.get(instance_id).cloned();
        let id = id.ok_or_else(|| self.unknown_member(instance_id))?;
        self.remove(&id, now_ms);
        self.keep(effects);
        Ok(())
    }

    /// A member is gone, and what it had is free.
    fn remove(&mut self, id: &str, now_ms: i64) {
        self.release(id);
        let Some(member) = self.members.remove(id) else {
            return;
        };
        self.target.remove(id);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        self.bump();
        if self.members.is_empty() {
            self.since_ms = now_ms;
            self.topics.clear();
            self.patterns.clear();
        }
    }

    pub(crate) fn unknown_member(&self, member: &str) -> BrokerError {
        BrokerError::UnknownMember {
            group: self.name.to_string(),
            member: member.chars().take(250).collect(),
        }
    }
}

fn by_topic(partitions: &Partitions, topics: &TopicView) -> Vec<AssignedTopic> {
    let mut found: Vec<AssignedTopic> = Vec::new();
    for partition in partitions {
        match found.last_mut() {
            Some(last) if last.id == partition.topic => last.partitions.push(partition.index),
            _ => {
                if let Some(name) = topics.name_of(partition.topic) {
                    found.push(AssignedTopic {
                        id: partition.topic,
                        name: name.clone(),
                        partitions: vec![partition.index],
                    });
                }
            }
        }
    }
    found
}
