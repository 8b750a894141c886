//! Joining: who may, under which id, and whether that disturbs the others.

use uuid::Uuid;

use super::member::Member;
use super::{Classic, NEW_MEMBER_JOIN_TIMEOUT_MS, Phase};
use crate::BrokerError;
use crate::groups::effects::{Effect, Storing, WaitId};
use crate::groups::record::Record;
use crate::groups::types::{JoinGroup, Joined};

/// Ids given out and not used yet, at most: what a client that only ever asks for ids can make the server remember.
const MAX_PENDING: usize = 10_000;

impl Classic {
    /// A member joins. `wait` is answered now or once the generation is made; `random` becomes part of the id of a new
    /// member.
    pub(crate) fn join(
        &mut self,
        request: &JoinGroup,
        wait: WaitId,
        random: u128,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(answer) = self.try_join(request, wait, random, now_ms, effects) {
            effects.push(Effect::Joined(wait, answer));
        }
        self.finish_joining_if_complete(now_ms, effects);
    }

    /// The answer, unless it comes later.
    fn try_join(
        &mut self,
        request: &JoinGroup,
        wait: WaitId,
        random: u128,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Joined, BrokerError>> {
        let (min_ms, max_ms) = (
            self.settings.min_session_timeout_ms,
            self.settings.max_session_timeout_ms,
        );
        if !(min_ms..=max_ms).contains(&request.session_timeout_ms) {
            return Some(Err(BrokerError::InvalidSessionTimeout {
                got_ms: request.session_timeout_ms,
                min_ms,
                max_ms,
            }));
        }
        if !self.has_room_for(&request.member_id) {
            self.pending.remove(&request.member_id);
            self.drop_member(&request.member_id, effects);
            return Some(Err(BrokerError::GroupFull {
                group: self.name.to_string(),
                setting: "group.max.size",
                limit: self.settings.max_size,
            }));
        }
        if let Err(error) = self.check_protocols(request) {
            return Some(Err(error));
        }
        if request.member_id.is_empty() {
            return self.join_as_new(request, wait, random, now_ms, effects);
        }
        if self.pending.remove(&request.member_id).is_some() {
            self.add(request, request.member_id.clone(), wait, now_ms, effects);
            return None;
        }
        match self.check_member(&request.member_id, request.instance_id.as_deref()) {
            Ok(()) => self.join_again(request, wait, now_ms, effects),
            Err(error) => Some(Err(error)),
        }
    }

    fn has_room_for(&self, member_id: &str) -> bool {
        let most = self.settings.max_size;
        if member_id.is_empty() && self.pending.len() >= MAX_PENDING {
            return false;
        }
        let known = self.members.get(member_id);
        match self.state {
            Phase::Empty => most > 0,
            Phase::PreparingRebalance => {
                known.is_some_and(|member| member.join_wait.is_some())
                    || self.waiting_to_join() < most
            }
            Phase::CompletingRebalance | Phase::Stable => {
                known.is_some() || self.members.len() < most
            }
        }
    }

    fn check_protocols(&self, request: &JoinGroup) -> Result<(), BrokerError> {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return Err(self.inconsistent("it names no protocol type or no protocol"));
        }
        if self.state == Phase::Empty {
            return Ok(());
        }
        if self
            .protocol_type
            .as_ref()
            .is_some_and(|held| *held != request.protocol_type)
        {
            return Err(self.inconsistent("the others have another protocol type"));
        }
        match request
            .protocols
            .iter()
            .any(|protocol| self.is_spoken_by_all(&protocol.name))
        {
            true => Ok(()),
            false => Err(self.inconsistent("it speaks no protocol that all others speak")),
        }
    }

    fn join_as_new(
        &mut self,
        request: &JoinGroup,
        wait: WaitId,
        random: u128,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Joined, BrokerError>> {
        let begins = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let member_id = format!("{begins}-{}", Uuid::from_u128(random));
        let holder = request
            .instance_id
            .as_ref()
            .and_then(|instance_id| self.statics.get(instance_id).cloned());
        if let Some(old) = holder {
            return self.replace_static(request, old, member_id, wait, now_ms, effects);
        }
        if request.instance_id.is_none() && request.requires_member_id {
            let until_ms = now_ms.saturating_add(request.session_timeout_ms);
            self.pending.insert(member_id.clone(), until_ms);
            return Some(Err(BrokerError::MemberIdRequired { member_id }));
        }
        self.add(request, member_id, wait, now_ms, effects);
        None
    }

    fn add(
        &mut self,
        request: &JoinGroup,
        member_id: String,
        wait: WaitId,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let mut member = Member::new(request, self.next_place);
        self.next_place += 1;
        member.join_wait = Some(wait);
        member.expires_ms = now_ms.saturating_add(NEW_MEMBER_JOIN_TIMEOUT_MS);
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(instance_id) = &request.instance_id {
            self.statics.insert(instance_id.clone(), member_id.clone());
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        self.members.insert(member_id, member);
        self.somebody_new_has_joined();
        self.rebalance(now_ms, effects);
    }

    /// A member that is known joins again.
    fn join_again(
        &mut self,
        request: &JoinGroup,
        wait: WaitId,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Joined, BrokerError>> {
        let member_id = &request.member_id;
        let says_the_same = self
            .members
            .get(member_id)
            .is_some_and(|member| member.protocols == request.protocols);
        let knows_already = match self.state {
            Phase::Empty | Phase::PreparingRebalance => false,
            // It may have missed the answer to its join.
            Phase::CompletingRebalance => says_the_same,
            // A leader joins again because it has seen that something must be assigned anew.
            Phase::Stable => says_the_same && !self.is_leader(member_id),
        };
        if knows_already {
            self.heard(member_id, now_ms);
            return Some(Ok(self.joined(member_id)));
        }
        self.wait_to_join(request, member_id, wait, now_ms, effects);
        self.rebalance(now_ms, effects);
        None
    }

    /// A known member waits for the next generation. A join of it that waits already is answered: its client has
    /// sent another.
    fn wait_to_join(
        &mut self,
        request: &JoinGroup,
        member_id: &str,
        wait: WaitId,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let rebalancing = self.rebalancing();
        if let Some(member) = self.members.get_mut(member_id) {
            member.update(request);
            member.heard(now_ms);
            if let Some(before) = member.join_wait.replace(wait) {
                effects.push(Effect::Joined(before, Err(rebalancing)));
            }
        }
    }

    /// A static member comes back without its id: it takes its place over under a new one, and whoever held it is
    /// fenced. A stable group is not disturbed, unless the chosen protocol would be another.
    fn replace_static(
        &mut self,
        request: &JoinGroup,
        old_member_id: String,
        member_id: String,
        wait: WaitId,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Joined, BrokerError>> {
        let old_leader = self.leader.clone();
        let instance_id = request.instance_id.clone().unwrap_or_default();
        self.rename(&instance_id, &old_member_id, &member_id, effects);
        if let Some(member) = self.members.get_mut(&member_id) {
            member.update(request);
            member.heard(now_ms);
        }
        match self.state {
            Phase::Stable if self.chosen_protocol() == self.protocol => {
                self.find_topics();
                let mut joined = self.joined(&member_id);
                match request.skips_assignment {
                    true => joined.skip_assignment = self.is_leader(&member_id),
                    // It is not to know that it leads: it would assign anew.
                    false => {
                        joined.leader = old_leader.unwrap_or_default();
                        joined.members.clear();
                    }
                }
                let storing = Storing::Replaced {
                    wait,
                    joined,
                    instance_id,
                    old_member_id,
                };
                let record = Record::Classic(Box::new(self.record()));
                effects.push(Effect::Store(record, storing));
            }
            _ => {
                // The leader may have assigned to the old id already: that would not fit any more.
                self.wait_to_join(request, &member_id, wait, now_ms, effects);
                self.rebalance(now_ms, effects);
            }
        }
        None
    }

    /// A static member gets another id; whoever waits under the old one is told.
    pub(super) fn rename(
        &mut self,
        instance_id: &str,
        old: &str,
        new: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(old) else {
            return;
        };
        if let Some(wait) = member.join_wait.take() {
            effects.push(Effect::Joined(wait, Err(self.fenced(instance_id))));
        }
        if let Some(wait) = member.sync_wait.take() {
            effects.push(Effect::Synced(wait, Err(self.fenced(instance_id))));
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(new.to_owned());
        }
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
        self.statics.insert(instance_id.to_owned(), new.to_owned());
        self.members.insert(new.to_owned(), member);
    }

    /// The frame that keeps a static member's new id is durable, or has failed.
    pub(super) fn replaced(
        &mut self,
        storing: (WaitId, Joined, String, String),
        outcome: Result<(), BrokerError>,
        effects: &mut Vec<Effect>,
    ) {
        let (wait, joined, instance_id, old_member_id) = storing;
        let holds = self.state == Phase::Stable && self.generation == joined.generation;
        let answer = match outcome {
            Ok(()) if holds => Ok(joined),
            // The group has moved on meanwhile: it is to join again.
            Ok(()) => Err(self.rebalancing()),
            Err(error) => {
                if self.statics.get(&instance_id) == Some(&joined.member_id) {
                    self.rename(&instance_id, &joined.member_id, &old_member_id, effects);
                }
                Err(error)
            }
        };
        effects.push(Effect::Joined(wait, answer));
    }

    pub(super) fn heard(&mut self, member_id: &str, now_ms: i64) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
        }
    }

    pub(super) fn waiting_to_join(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.join_wait.is_some())
            .count()
    }
}
