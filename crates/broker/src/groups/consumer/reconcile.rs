//! One step of a member towards its target.
//!
//! ```text
//!                  must give something up                  has said so
//!    Stable ────────────────────────────────► Revoking ───────────────┐
//!      ▲  ▲                                                           ▼
//!      │  └──────────────── nothing to give up, all free ─────── (next step)
//!      │                                                              │
//!      └────────── all free ────────── Waiting ◄── some with others ──┘
//! ```
//!
//! A member moves to the target's epoch once it has nothing to give up any more; until then it keeps its epoch, so that
//! it can go on committing what it has read. It gets a partition only when nobody else may still have it.

use mainstem_journal::mutation;
use mainstem_log::PartitionId;

use super::Consumer;
use super::assignor::Partitions;
use super::member::{Member, MemberState};

impl Consumer {
    /// Moves a member on as far as that is possible now. `owned` is what it says it has; `None` where it does not say.
    /// Whether anything has changed.
    pub(super) fn reconcile(&mut self, id: &str, owned: Option<&Partitions>, now_ms: i64) -> bool {
        let Some(member) = self.members.get(id) else {
            return false;
        };
        let still_has = |revoking: &Partitions| match owned {
            Some(owned) => !owned.is_disjoint(revoking),
            None => !revoking.is_empty(),
        };
        match member.state {
            MemberState::Stable if member.epoch == self.target_epoch => return false,
            MemberState::Revoking if still_has(&member.revoking) => return false,
            _ => {}
        }
        let target = self.target.get(id).cloned().unwrap_or_default();
        let kept: Partitions = member.assigned.intersection(&target).copied().collect();
        let revoking: Partitions = member.assigned.difference(&target).copied().collect();
        let mut next = Member {
            revoking: Partitions::new(),
            revoke_by_ms: None,
            ..member.clone()
        };
        if still_has(&revoking) {
            next.state = MemberState::Revoking;
            next.revoke_by_ms = Some(now_ms.saturating_add(member.rebalance_timeout_ms));
            next.assigned = kept;
            next.revoking = revoking;
        } else {
            let is_free = |partition: &PartitionId| {
                let holder = self.holders.get(partition);
                holder.is_none_or(|holder| **holder == *id)
                    || mutation::active(mutation::PARTITION_GIVEN_BEFORE_REVOKED)
            };
            let (free, held): (Partitions, Partitions) =
                target.difference(&kept).copied().partition(is_free);
            next.state = match held.is_empty() {
                true => MemberState::Stable,
                false => MemberState::Waiting,
            };
            next.assigned = &kept | &free;
            next.move_to(self.target_epoch);
        }
        if next == *member {
            return false;
        }
        self.replace(id, next);
        true
    }

    /// A member as it is now, in place of what it was; who holds which partition follows.
    pub(super) fn replace(&mut self, id: &str, next: Member) {
        let Some((id, _)) = self.members.get_key_value(id) else {
            return;
        };
        let id = id.clone();
        self.release(&id);
        for partition in next.assigned.iter().chain(&next.revoking) {
            self.holders.insert(*partition, id.clone());
        }
        self.members.insert(id, next);
    }

    /// Nobody holds what this member has held.
    pub(super) fn release(&mut self, id: &str) {
        if let Some(member) = self.members.get(id) {
            for partition in member.assigned.iter().chain(&member.revoking) {
                self.holders.remove(partition);
            }
        }
    }
}
