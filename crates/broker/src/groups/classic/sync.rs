//! Asking for one's assignment: the leader brings everybody's, and nobody hears it before it is durable.

use std::collections::BTreeMap;

use super::Classic;
use crate::BrokerError;
use crate::groups::effects::{Effect, Storing, WaitId};
use crate::groups::types::{GroupMember, GroupState, SyncGroup, Synced};

impl Classic {
    /// A member asks for its assignment. `wait` is answered now, or once the leader's assignment is durable.
    pub(crate) fn sync(
        &mut self,
        request: &SyncGroup,
        wait: WaitId,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let answer = match self.check_sync(request) {
            Err(error) => Err(error),
            Ok(()) => match self.state {
                GroupState::Empty => Err(self.unknown_member(&request.member.member_id)),
                GroupState::PreparingRebalance => Err(self.rebalancing()),
                GroupState::CompletingRebalance => {
                    return self.wait_for_assignment(request, wait, effects);
                }
                GroupState::Stable => {
                    let member_id = &request.member.member_id;
                    self.unsynced.remove(member_id);
                    self.heard(member_id, now_ms);
                    Ok(self.synced(member_id))
                }
            },
        };
        effects.push(Effect::Synced(wait, answer));
    }

    fn check_sync(&self, request: &SyncGroup) -> Result<(), BrokerError> {
        let GroupMember {
            member_id,
            instance_id,
            generation,
            ..
        } = &request.member;
        self.check_member(member_id, instance_id.as_deref())?;
        self.check_generation(*generation)?;
        let differs = |given: &Option<String>, held: &Option<String>| {
            given.is_some() && held.is_some() && given != held
        };
        if differs(&request.protocol_type, &self.protocol_type) {
            return Err(self.inconsistent("the group has another protocol type"));
        }
        if differs(&request.protocol, &self.protocol) {
            return Err(self.inconsistent("the group has chosen another protocol"));
        }
        Ok(())
    }

    fn wait_for_assignment(
        &mut self,
        request: &SyncGroup,
        wait: WaitId,
        effects: &mut Vec<Effect>,
    ) {
        let member_id = &request.member.member_id;
        let rebalancing = self.rebalancing();
        self.unsynced.remove(member_id);
        if let Some(member) = self.members.get_mut(member_id)
            && let Some(before) = member.sync_wait.replace(wait)
        {
            // Its client has sent another.
            effects.push(Effect::Synced(before, Err(rebalancing)));
        }
        if self.is_leader(member_id) && self.assigning.is_none() {
            let given: BTreeMap<_, _> = request.assignments.iter().cloned().collect();
            // Who was given nothing has nothing; who is not a member gets nothing.
            let assigned: BTreeMap<_, _> = self
                .members
                .keys()
                .map(|id| (id.clone(), given.get(id).cloned().unwrap_or_default()))
                .collect();
            let mut record = self.record();
            for member in &mut record.members {
                member.assignment = assigned.get(&member.member_id).cloned().unwrap_or_default();
            }
            self.assigning = Some(assigned);
            let storing = Storing::Assignment {
                generation: self.generation,
            };
            effects.push(Effect::Store(Box::new(record), storing));
        }
    }

    /// What was to be stored is durable, or has failed.
    pub(crate) fn stored(
        &mut self,
        storing: Storing,
        outcome: Result<(), BrokerError>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        match storing {
            Storing::Assignment { generation } => {
                self.assigned(generation, outcome, now_ms, effects);
            }
            Storing::Replaced {
                wait,
                joined,
                instance_id,
                old_member_id,
            } => {
                let replaced = (wait, joined, instance_id, old_member_id);
                self.replaced(replaced, outcome, effects);
            }
            Storing::Empty => {}
        }
    }

    fn assigned(
        &mut self,
        generation: i32,
        outcome: Result<(), BrokerError>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            // Another rebalance has begun meanwhile: nobody hears of this assignment.
            return;
        }
        let Some(assigned) = self.assigning.take() else {
            return;
        };
        if let Err(error) = outcome {
            for member in self.members.values_mut() {
                if let Some(wait) = member.end_sync_wait(now_ms) {
                    effects.push(Effect::Synced(wait, Err(error.clone())));
                }
            }
            self.rebalance(now_ms, effects);
            return;
        }
        for (id, assignment) in assigned {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.move_to(GroupState::Stable, now_ms);
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            if let Some(wait) = member.end_sync_wait(now_ms) {
                answers.push((wait, id.clone()));
            }
        }
        for (wait, id) in answers {
            effects.push(Effect::Synced(wait, Ok(self.synced(&id))));
        }
    }

    fn synced(&self, member_id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self
                .members
                .get(member_id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }
}
