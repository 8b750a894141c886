//! Whether somebody may commit offsets.

use super::{Classic, Phase};
use crate::BrokerError;
use crate::groups::types::GroupMember;

impl Classic {
    /// Whether offsets may be committed: by a member of this generation, or, where there are no members, by anybody
    /// who does not claim to be one.
    pub(crate) fn check_commit(
        &mut self,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        if member.generation < 0 && self.state == Phase::Empty {
            return Ok(());
        }
        self.check_member(&member.member_id, member.instance_id.as_deref())?;
        self.check_generation(member.generation)?;
        if self.state == Phase::CompletingRebalance {
            // It is a member of this generation, but cannot know yet what is its own.
            return Err(self.rebalancing());
        }
        self.heard(&member.member_id, now_ms);
        Ok(())
    }

    /// Whether offsets may be committed with a transaction: by a member of this generation, or by anybody who does not
    /// claim to be one: producers of before KIP-447 name none, and are fenced by their transactional id.
    pub(crate) fn check_transaction_commit(
        &mut self,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        if member.generation < 0 && (member.is_nobody() || self.state == Phase::Empty) {
            return Ok(());
        }
        self.check_member(&member.member_id, member.instance_id.as_deref())?;
        self.check_generation(member.generation)?;
        self.heard(&member.member_id, now_ms);
        Ok(())
    }
}
