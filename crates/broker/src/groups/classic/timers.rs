//! What happens by itself: silent members go, and nobody is waited for for ever.

use super::{Classic, Phase};
use crate::BrokerError;
use crate::groups::effects::Effect;
use crate::groups::types::GroupMember;

impl Classic {
    /// A member says that it is there; it is told where the group rebalances.
    pub(crate) fn heartbeat(
        &mut self,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        self.check_member(&member.member_id, member.instance_id.as_deref())?;
        self.check_generation(member.generation)?;
        match self.state {
            Phase::Empty => Err(self.unknown_member(&member.member_id)),
            Phase::PreparingRebalance => {
                self.heard(&member.member_id, now_ms);
                Err(self.rebalancing())
            }
            Phase::CompletingRebalance | Phase::Stable => {
                self.heard(&member.member_id, now_ms);
                Ok(())
            }
        }
    }

    /// When [`Classic::tick`] has something to do, unless something happens before.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        let members = self.members.values().filter_map(|one| one.expires_ms());
        let pending = self.pending.values().copied();
        let joining = self.joining.map(|phase| phase.until_ms());
        members
            .chain(pending)
            .chain(joining)
            .chain(self.sync_deadline_ms)
            .min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let before = self.pending.len();
        self.pending.retain(|_, until_ms| *until_ms > now_ms);
        if self.pending.len() < before {
            self.finish_joining_if_complete(now_ms, effects);
        }
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.expires_ms().is_some_and(|at_ms| at_ms <= now_ms))
            .map(|(id, _)| id.clone())
            .collect();
        for id in silent {
            tracing::info!(group = %self.name, member = %id, "member removed: nothing was heard of it in time");
            self.remove(&id, now_ms, effects);
        }
        if self.joining.is_some_and(|phase| phase.until_ms() <= now_ms) {
            self.joining_is_up(now_ms, effects);
        }
        if self.sync_deadline_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.sync_is_up(now_ms, effects);
        }
    }

    /// Whoever has not asked for its assignment in time is removed.
    fn sync_is_up(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        self.sync_deadline_ms = None;
        let missing = std::mem::take(&mut self.unsynced);
        if missing.is_empty() {
            return;
        }
        for id in &missing {
            tracing::info!(group = %self.name, member = %id, "member removed: it did not ask for its assignment in time");
            self.drop_member(id, effects);
        }
        self.rebalance(now_ms, effects);
        self.finish_joining_if_complete(now_ms, effects);
    }
}
