//! What members of the classic protocol call: join, sync, heartbeat, leave; and what moves all groups.

use std::sync::Arc;

use mainstem_engine::Signal;

use super::coordinator::GroupKey;
use super::types::{GroupMember, JoinGroup, Joined, LeavingMember, SyncGroup, Synced};
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::coordinator::answered;
use crate::{BrokerError, Caller, names};

impl Broker {
    /// Joins a group, made if it is not there. Answered once the next generation is made: after the time that the
    /// group's members have for it at the latest. Who stops waiting stays a member until its session ends, and may
    /// ask again.
    pub async fn join_group(
        &self,
        caller: &Caller,
        request: JoinGroup,
        now_ms: i64,
    ) -> Result<Joined, BrokerError> {
        self.check_reader(caller, &request.group)?;
        let key = GroupKey::new(caller, &request.group);
        let random = (self.inner.random.lock())();
        let groups = &self.inner.groups;
        let answer = groups.with(Some(now_ms), |state| {
            let (wait, answer) = state.wait_to_join();
            state.event(&key, now_ms, |members, effects| {
                members.join(&request, wait, random, now_ms, groups.settings, effects);
            });
            answer
        });
        answered(answer).await
    }

    /// Asks for the member's assignment; the leader brings everybody's. Answered once that is durable.
    pub async fn sync_group(
        &self,
        caller: &Caller,
        request: SyncGroup,
        now_ms: i64,
    ) -> Result<Synced, BrokerError> {
        self.check_reader(caller, &request.member.group)?;
        let key = GroupKey::new(caller, &request.member.group);
        let groups = &self.inner.groups;
        let answer = groups.with(Some(now_ms), |state| {
            let (wait, answer) = state.wait_to_sync();
            state.event(&key, now_ms, |members, effects| {
                members.sync(&request, wait, now_ms, effects);
            });
            answer
        });
        answered(answer).await
    }

    /// Says that a member is there. [`BrokerError::RebalanceInProgress`] tells it to join again.
    pub fn heartbeat(
        &self,
        caller: &Caller,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        self.check_reader(caller, &member.group)?;
        let key = GroupKey::new(caller, &member.group);
        let groups = &self.inner.groups;
        groups.with(Some(now_ms), |state| {
            state.event(&key, now_ms, |members, _| {
                members.classic_heartbeat(member, now_ms)
            })
        })
    }

    /// Members leave a group, or are removed from it by an administrator; the outcomes in their order.
    pub fn leave_group(
        &self,
        caller: &Caller,
        group: &str,
        leaving: &[LeavingMember],
        now_ms: i64,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        self.check_reader(caller, group)?;
        let key = GroupKey::new(caller, group);
        let groups = &self.inner.groups;
        Ok(groups.with(Some(now_ms), |state| {
            state.event(&key, now_ms, |members, effects| {
                leaving
                    .iter()
                    .map(|one| members.leave(one, now_ms, effects))
                    .collect()
            })
        }))
    }

    /// Moves all groups and transactions on: answers whoever waits for a frame that is durable by now, removes silent members, ends
    /// rebalances and transactions whose time is up. Returns when it wants to be called again at the latest, in milliseconds since 1970;
    /// earlier when [`Broker::coordinators_signal`] rings. Nothing else moves them: one thread does this all the time.
    pub fn move_coordinators(&self, now_ms: i64) -> Option<i64> {
        // Transactions first: what they bring into groups is then done.
        let transactions = self.inner.transactions.advance(&self.inner.groups, now_ms);
        let groups = self.inner.groups.advance(now_ms);
        transactions.into_iter().chain(groups).min()
    }

    /// Rings when [`Broker::move_coordinators`] is to be called.
    pub fn coordinators_signal(&self) -> &Arc<Signal> {
        self.inner.groups.signal()
    }

    pub(super) fn check_reader(&self, caller: &Caller, group: &str) -> Result<(), BrokerError> {
        access::check(caller, Access::ReadGroup { group })?;
        names::check_group(group, false)
    }
}
