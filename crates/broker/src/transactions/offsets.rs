//! Offsets of groups that are committed with a transaction, and who waits for them.

use std::collections::{BTreeMap, BTreeSet};

use mainstem_log::PartitionId;

use super::types::TransactionCommit;
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::groups::GroupKey;
use crate::{BrokerError, Caller, CommittedOffset, GroupMember, names};

impl Broker {
    /// Keeps offsets to be committed with the transaction; durable when this returns. Until the end they are no group's
    /// offsets, but [`Broker::unstable_offsets`] says that they are coming. The outcomes are in the order of the
    /// offsets. Fails as a whole where the member may not commit.
    pub async fn commit_transaction_offsets(
        &self,
        caller: &Caller,
        commit: TransactionCommit,
        now_ms: i64,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let TransactionCommit {
            producer,
            adds_group,
            commit,
        } = commit;
        let member = &commit.member;
        let group = &member.group;
        access::check(caller, Access::ReadGroup { group })?;
        names::check_group(group, true)?;
        let mut offsets = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(commit.offsets.len());
        for one in &commit.offsets {
            let checked = self.check_offset(caller, one);
            outcomes.push(checked.map(|partition| {
                let committed = CommittedOffset {
                    offset: one.offset,
                    leader_epoch: one.leader_epoch,
                    metadata: one.metadata.clone(),
                    committed_ms: now_ms,
                };
                offsets.insert(partition, committed);
            }));
        }
        let key = GroupKey::new(caller, group);
        let identity = producer.identity;
        self.change_id(caller, &producer.id, now_ms, |machine, _| {
            // Each time that it is asked: while something else of the id was under way the group may have moved on, and
            // whoever reads now has seen that nothing is to come.
            self.check_transaction_member(&key, member, now_ms)?;
            machine.add_offsets(identity, group, adds_group, &offsets, now_ms)
        })
        .await?;
        Ok(outcomes)
    }

    fn check_transaction_member(
        &self,
        key: &GroupKey,
        member: &GroupMember,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        self.inner.groups.with(Some(now_ms), |state| {
            if state.slot(key).is_none() {
                return match member.generation {
                    // A member of a group that is gone: it is not to begin another.
                    0.. => Err(BrokerError::IllegalGeneration {
                        group: member.group.clone(),
                        got: member.generation,
                        current: -1,
                    }),
                    _ => Ok(()),
                };
            }
            state.event(key, now_ms, |members, _| {
                members.check_transaction_commit(member, now_ms)
            })
        })
    }

    /// Every partition for which an open transaction holds an offset of this group, as topic and partition: what
    /// [`Broker::fetch_offsets`] says of these may change, and a reader that must not begin before them waits (KIP-447;
    /// OffsetFetch with `require_stable`). Ask this first: what ends in between is then among the offsets.
    pub fn unstable_offsets(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<Vec<(String, u32)>, BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        names::check_group(group, true)?;
        let unstable = self.unstable(caller, group);
        if unstable.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for topic in self.list_topics(caller)? {
            let of_topic = unstable.iter().filter(|one| one.topic == topic.id);
            found.extend(of_topic.map(|one| (topic.name.to_string(), one.index)));
        }
        Ok(found)
    }

    fn unstable(&self, caller: &Caller, group: &str) -> BTreeSet<PartitionId> {
        self.inner.transactions.with(None, |state| {
            let ids = state.of_tenant(caller);
            ids.flat_map(|(_, machine)| machine.unstable(group))
                .collect()
        })
    }
}
