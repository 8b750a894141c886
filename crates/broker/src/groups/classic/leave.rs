//! Leaving, and being removed.

use super::{Classic, Phase};
use crate::BrokerError;
use crate::groups::effects::Effect;
use crate::groups::types::LeavingMember;

impl Classic {
    /// A member leaves, or an administrator removes a static one by its name.
    pub(crate) fn leave(
        &mut self,
        leaving: &LeavingMember,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), BrokerError> {
        let instance_id = leaving.instance_id.as_deref();
        let member_id = match (leaving.member_id.as_str(), instance_id) {
            ("", None) => return Err(self.unknown_member("")),
            ("", Some(instance_id)) => self
                .statics
                .get(instance_id)
                .cloned()
                .ok_or_else(|| self.unknown_member(instance_id))?,
            (member_id, _) => member_id.to_owned(),
        };
        if self.pending.remove(&member_id).is_some() {
            self.finish_joining_if_complete(now_ms, effects);
            return Ok(());
        }
        self.check_member(&member_id, instance_id)?;
        self.remove(&member_id, now_ms, effects);
        Ok(())
    }

    /// Removes a member and goes on without it.
    pub(super) fn remove(&mut self, member_id: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        self.drop_member(member_id, effects);
        match self.state {
            Phase::Empty => {}
            Phase::PreparingRebalance => self.finish_joining_if_complete(now_ms, effects),
            Phase::CompletingRebalance | Phase::Stable => {
                self.rebalance(now_ms, effects);
                self.finish_joining_if_complete(now_ms, effects);
            }
        }
    }

    /// Takes a member out and answers whatever it waits for.
    pub(super) fn drop_member(&mut self, member_id: &str, effects: &mut Vec<Effect>) {
        let Some(member) = self.members.remove(member_id) else {
            return;
        };
        let gone = || self.unknown_member(member_id);
        if let Some(wait) = member.join_wait {
            effects.push(Effect::Joined(wait, Err(gone())));
        }
        if let Some(wait) = member.sync_wait {
            effects.push(Effect::Synced(wait, Err(gone())));
        }
        self.unsynced.remove(member_id);
        if let Some(instance_id) = &member.instance_id
            && self.statics.get(instance_id).map(String::as_str) == Some(member_id)
        {
            self.statics.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self
                .members
                .iter()
                .min_by_key(|(_, member)| member.place)
                .map(|(id, _)| id.clone());
        }
    }
}
