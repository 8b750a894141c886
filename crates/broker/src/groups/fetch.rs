//! What a group has committed: read from the store, which shows what is durable and nothing else.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use mainstem_engine::EngineError;
use mainstem_log::TopicId;
use mainstem_store::{SHARDS, StoreSnapshot};

use super::offsets::CommittedOffset;
use super::types::{GroupOffset, OffsetsOfTopic};
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::{BrokerError, Caller, Topic, keys, names};

impl Broker {
    /// What the group has committed in these partitions of a topic, in their order; `None` where it has not.
    pub fn fetch_offsets(
        &self,
        caller: &Caller,
        group: &str,
        topic: &str,
        partitions: &[u32],
    ) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        names::check_group(group, true)?;
        let topic = self.topic_for(caller, Access::Describe { topic }, topic)?;
        let keys: Vec<_> = partitions
            .iter()
            .map(|index| {
                let topic = topic.id;
                let index = *index;
                let partition = mainstem_log::PartitionId { topic, index };
                keys::group_offset(&caller.tenant, group, partition)
            })
            .collect();
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let values = self.engine().store().get_many(keys::OFFSETS, &keys)?;
        values
            .iter()
            .map(|value| value.as_deref().map(CommittedOffset::decode).transpose())
            .collect()
    }

    /// Everything the group has committed, by topic and partition.
    pub fn fetch_all_offsets(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<Vec<OffsetsOfTopic>, BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        names::check_group(group, true)?;
        let mut found: BTreeMap<TopicId, Vec<(u32, CommittedOffset)>> = BTreeMap::new();
        scan(
            self.engine().store().as_ref(),
            &keys::group_offsets(&caller.tenant, group),
            |key, committed| {
                let partition = key.partition;
                found
                    .entry(partition.topic)
                    .or_default()
                    .push((partition.index, committed));
            },
        )?;
        let topics: Vec<Arc<Topic>> = self.list_topics(caller)?;
        let of_topic = |topic: Arc<Topic>| {
            let partitions = found.remove(&topic.id)?;
            Some(OffsetsOfTopic { topic, partitions })
        };
        Ok(topics.into_iter().filter_map(of_topic).collect())
    }

    /// Everything that the tenant's groups have committed in topics that there are, as a view of the store has it.
    pub fn group_offsets(
        &self,
        caller: &Caller,
        store: &dyn StoreSnapshot,
    ) -> Result<Vec<GroupOffset>, BrokerError> {
        access::check(caller, Access::DescribeGroup { group: "*" })?;
        let topics: BTreeMap<TopicId, Arc<Topic>> = self
            .list_topics(caller)?
            .into_iter()
            .map(|topic| (topic.id, topic))
            .collect();
        let mut found = Vec::new();
        for shard in 0..SHARDS {
            scan(
                store,
                &keys::group_offsets_in_shard(shard),
                |key, committed| {
                    if key.tenant == &*caller.tenant
                        && let Some(topic) = topics.get(&key.partition.topic)
                    {
                        found.push(GroupOffset {
                            group: key.group.to_owned(),
                            topic: topic.clone(),
                            partition: key.partition.index,
                            committed,
                        });
                    }
                },
            )?;
        }
        Ok(found)
    }
}

/// Visits the committed offsets whose keys begin with `prefix`.
pub(super) fn scan(
    store: &(impl StoreSnapshot + ?Sized),
    prefix: &[u8],
    mut visit: impl FnMut(keys::GroupOffsetKey<'_>, CommittedOffset),
) -> Result<(), BrokerError> {
    let mut failure = None;
    store
        .scan_prefix(keys::OFFSETS, prefix, &mut |key, value| {
            let Some(key) = keys::parse_group_offset(key) else {
                failure = Some(BrokerError::DamagedCatalog {
                    what: "a group's offset".into(),
                    why: format!("{key:02x?} is no key of one"),
                });
                return ControlFlow::Break(());
            };
            match CommittedOffset::decode(value) {
                Ok(committed) => {
                    visit(key, committed);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(EngineError::from)?;
    failure.map_or(Ok(()), Err)
}
