//! Committing and deleting offsets.

use mainstem_journal::mutation;
use mainstem_log::PartitionId;
use mainstem_store::StoreOp;

use super::coordinator::GroupKey;
use super::offsets::CommittedOffset;
use super::types::{GroupCommit, GroupState, OffsetCommit};
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::coordinator::{Answer, answered};
use crate::produce::no_partition;
use crate::{BrokerError, Caller, keys, names};

impl Broker {
    /// Commits offsets, all in one frame, and answers when it is durable and applied. The outcomes are in the order of
    /// the offsets; those that are refused do not hold up the others. Fails as a whole where the member may not commit.
    pub async fn commit_offsets(
        &self,
        caller: &Caller,
        commit: GroupCommit,
        now_ms: i64,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let group = &commit.member.group;
        access::check(caller, Access::ReadGroup { group })?;
        names::check_group(group, true)?;
        let key = GroupKey::new(caller, group);
        let mut ops = Vec::with_capacity(commit.offsets.len());
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
                let key = keys::group_offset(&caller.tenant, group, partition);
                ops.push(StoreOp::put(keys::OFFSETS, key, committed.encode()));
            }));
        }
        let groups = &self.inner.groups;
        let answer = groups.with(Some(now_ms), |state| -> Result<Option<Answer<()>>, _> {
            let member = &commit.member;
            if state.slot(&key).is_none() && member.generation >= 0 {
                // A member of a group that is gone: it is not to begin another.
                if commit.knows_epochs {
                    return Err(not_found(group));
                }
                return Err(BrokerError::IllegalGeneration {
                    group: group.clone(),
                    got: member.generation,
                    current: -1,
                });
            }
            state.event(&key, now_ms, |members, _| {
                members.check_commit(&commit, now_ms)
            })?;
            Ok((!ops.is_empty()).then(|| state.commit(&key, ops, now_ms)))
        })?;
        if let Some(answer) = answer
            && !mutation::active(mutation::COMMIT_ANSWERED_BEFORE_DURABLE)
        {
            answered(answer).await?;
        }
        Ok(outcomes)
    }

    pub(crate) fn check_offset(
        &self,
        caller: &Caller,
        commit: &OffsetCommit,
    ) -> Result<PartitionId, BrokerError> {
        let topic = &commit.topic;
        let topic = self.topic_for(caller, Access::Read { topic }, topic)?;
        let partition = topic.partition_id(commit.partition);
        let partition = partition.ok_or_else(|| no_partition(&topic, commit.partition))?;
        if commit.offset < 0 {
            return Err(BrokerError::InvalidCommitOffset {
                topic: commit.topic.clone(),
                partition: commit.partition,
                offset: commit.offset,
            });
        }
        let (bytes, limit_bytes) = (
            commit.metadata.len(),
            self.inner.groups.settings.offset_metadata_max_bytes,
        );
        match bytes <= limit_bytes {
            true => Ok(partition),
            false => Err(BrokerError::OffsetMetadataTooLarge { bytes, limit_bytes }),
        }
    }

    /// Deletes a group's offsets of these partitions, all in one frame; the outcomes are in their order. A partition
    /// of a topic that the group's members read is refused; a group with members that are no Kafka consumers
    /// refuses as a whole.
    pub async fn delete_offsets(
        &self,
        caller: &Caller,
        group: &str,
        partitions: &[(String, u32)],
        now_ms: i64,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        access::check(caller, Access::DeleteGroup { group })?;
        names::check_group(group, true)?;
        let key = GroupKey::new(caller, group);
        let found: Vec<Result<PartitionId, BrokerError>> = partitions
            .iter()
            .map(|(topic, index)| {
                let topic = self.topic_for(caller, Access::Read { topic }, topic)?;
                let partition = topic.partition_id(*index);
                partition.ok_or_else(|| no_partition(&topic, *index))
            })
            .collect();
        let groups = &self.inner.groups;
        let (outcomes, answer) = groups.with(Some(now_ms), |state| {
            let Some(slot) = state.slot(&key) else {
                return Err(not_found(group));
            };
            let members = &slot.members;
            if members.state() != GroupState::Empty && !members.is_of_consumers() {
                return Err(BrokerError::GroupNotEmpty {
                    group: group.to_owned(),
                });
            }
            let mut ops = Vec::new();
            let mut outcomes = Vec::with_capacity(found.len());
            for (partition, (topic, _)) in found.into_iter().zip(partitions) {
                outcomes.push(partition.and_then(|partition| {
                    if members.reads(topic) {
                        return Err(BrokerError::GroupSubscribed {
                            group: group.to_owned(),
                            topic: topic.clone(),
                        });
                    }
                    let key = keys::group_offset(&caller.tenant, group, partition);
                    ops.push(StoreOp::delete(keys::OFFSETS, key));
                    Ok(())
                }));
            }
            let answer = (!ops.is_empty()).then(|| state.commit(&key, ops, now_ms));
            Ok((outcomes, answer))
        })?;
        if let Some(answer) = answer {
            answered(answer).await?;
        }
        Ok(outcomes)
    }
}

pub(super) fn not_found(group: &str) -> BrokerError {
    BrokerError::GroupNotFound {
        group: group.chars().take(250).collect(),
    }
}
