//! Offsets that nobody needs any more: of groups that have long been empty, of topics that their group no longer
//! reads, of topics that are gone; and the groups of which nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstem_engine::{Check, EngineError, Lsn, Submission};
use mainstem_log::{PartitionId, TopicId};
use mainstem_store::{SHARDS, StoreOp};

use super::coordinator::{GroupKey, Slot};
use super::fetch::scan;
use super::types::GroupState;
use crate::broker::Broker;
use crate::coordinator::answered;
use crate::{BrokerError, keys};

/// Offsets that go in one frame, at most.
const OFFSETS_A_FRAME: usize = 1_000;

/// What a round of expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupExpiryRound {
    /// Offsets that were removed.
    pub offsets: usize,
    /// Groups that were removed.
    pub groups: usize,
}

/// What a scan has found of one group.
type Found = Vec<(PartitionId, i64)>;

impl Broker {
    /// Removes what `offsets.retention.minutes` no longer keeps, and offsets of topics that are gone. Whoever has the
    /// timer calls this now and then.
    pub async fn group_expiry_round(&self, now_ms: i64) -> Result<GroupExpiryRound, BrokerError> {
        let mut round = GroupExpiryRound::default();
        // Before the scan: a group with a commit since then has another count.
        let known: BTreeMap<GroupKey, u64> = self.inner.groups.with(Some(now_ms), |state| {
            let idle = |slot: &&Slot| slot.members.is_vacant() && slot.in_flight.is_empty();
            let groups = state.groups().iter();
            groups
                .filter(|(_, slot)| idle(slot))
                .map(|(key, slot)| (key.clone(), slot.commits))
                .collect()
        });
        let mut with_offsets = BTreeSet::new();
        for shard in 0..SHARDS {
            let (as_of, store) = self.engine().read_at()?;
            let mut found: BTreeMap<GroupKey, Found> = BTreeMap::new();
            let prefix = keys::group_offsets_in_shard(shard);
            scan(&*store, &prefix, |key, committed| {
                let group = GroupKey {
                    tenant: key.tenant.into(),
                    name: key.group.into(),
                };
                let partitions = found.entry(group).or_default();
                partitions.push((key.partition, committed.committed_ms));
            })?;
            drop(store);
            if found.is_empty() {
                continue;
            }
            // After the scan: a topic whose offsets it has seen is in the catalogue, or was deleted.
            let topics: BTreeMap<TopicId, Arc<str>> = self
                .all_topics()?
                .into_iter()
                .map(|topic| (topic.id, topic.name.clone()))
                .collect();
            for (group, partitions) in found {
                let expired = self.expired(&group, &partitions, &topics, now_ms);
                let mut left = partitions.len();
                for chunk in expired.chunks(OFFSETS_A_FRAME) {
                    let removed = self.remove_offsets(&group, chunk, as_of).await?;
                    left -= removed;
                    round.offsets += removed;
                }
                if left > 0 {
                    with_offsets.insert(group);
                }
            }
        }
        for (group, commits) in known {
            if !with_offsets.contains(&group) && self.remove_group(&group, commits).await? {
                round.groups += 1;
            }
        }
        Ok(round)
    }

    /// Which of a group's offsets are to go.
    fn expired(
        &self,
        group: &GroupKey,
        partitions: &Found,
        topics: &BTreeMap<TopicId, Arc<str>>,
        now_ms: i64,
    ) -> Vec<PartitionId> {
        let retention_ms = self.inner.groups.settings.offsets_retention_ms;
        let is_old = |since_ms: i64| since_ms.saturating_add(retention_ms) <= now_ms;
        self.inner.groups.with(None, |state| {
            let members = state.slot(group).map(|slot| &slot.members);
            let goes = |(partition, committed_ms): &&(PartitionId, i64)| {
                let Some(topic) = topics.get(&partition.topic) else {
                    return true;
                };
                match members {
                    None => is_old(*committed_ms),
                    Some(members) if members.state() == GroupState::Empty => {
                        let empty_since_ms = match members.had_members() {
                            true => members.since_ms(),
                            false => i64::MIN,
                        };
                        is_old(empty_since_ms.max(*committed_ms))
                    }
                    Some(members) => !members.reads(topic) && is_old(*committed_ms),
                }
            };
            let expired = partitions.iter().filter(goes);
            expired.map(|(partition, _)| *partition).collect()
        })
    }

    /// Removes offsets unless they were committed anew since they were read; says how many are gone.
    async fn remove_offsets(
        &self,
        group: &GroupKey,
        partitions: &[PartitionId],
        as_of: Lsn,
    ) -> Result<usize, BrokerError> {
        let keys: Vec<_> = partitions
            .iter()
            .map(|partition| keys::group_offset(&group.tenant, &group.name, *partition))
            .collect();
        let unchanged = |key: &bytes::Bytes| Check::Unchanged {
            family: keys::OFFSETS,
            key: key.clone(),
            as_of,
        };
        let submission = Submission {
            checks: keys.iter().map(unchanged).collect(),
            store_ops: keys
                .into_iter()
                .map(|key| StoreOp::delete(keys::OFFSETS, key))
                .collect(),
            all_or_nothing: true,
            ..Submission::default()
        };
        match self.engine().submit_in_turn(submission).await {
            Ok(_) => Ok(partitions.len()),
            // The next round decides anew.
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a group that has neither members nor offsets, unless that has changed.
    async fn remove_group(&self, group: &GroupKey, commits: u64) -> Result<bool, BrokerError> {
        let groups = &self.inner.groups;
        let answer = groups.with(None, |state| {
            let slot = state.slot(group)?;
            let same =
                slot.commits == commits && slot.members.is_vacant() && slot.in_flight.is_empty();
            same.then(|| state.remove(group, Vec::new()))
        });
        match answer {
            Some(answer) => answered(answer).await.map(|()| true),
            None => Ok(false),
        }
    }
}
