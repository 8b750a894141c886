//! What a topic is, and how it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_log::{PartitionId, TopicId};
use mainstem_record::partition_for_key;
use mainstem_schema::TopicSchema;

use crate::configs::{ConfigValue, TopicLimits};
use crate::fetch::PartitionBounds;
use crate::partitioner::Sticky;
use crate::traffic::{TopicTraffic, Traffic};

/// A topic as the catalogue has it. Shared and never changed: an alteration makes a new one.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its identity: a topic deleted and created again under the same name has another.
    pub id: TopicId,
    /// Its name, unique in the tenant.
    pub name: Arc<str>,
    /// The tenant it belongs to.
    pub tenant: Arc<str>,
    /// How many partitions it has, numbered from 0.
    pub partitions: u32,
    /// The shard of each partition, chosen at creation and kept.
    pub shards: Vec<u16>,
    /// The settings that were given, by Kafka's names; the rest are defaults.
    pub configs: BTreeMap<String, String>,
    /// The settings that are acted on, defaults filled in.
    pub limits: TopicLimits,
    /// The columns of its JSON values, if declared.
    pub schema: Option<TopicSchema>,
    /// When it was created.
    pub created_ms: i64,
    /// Where the next records without a key go; carried over alterations.
    pub(crate) sticky: Arc<Sticky>,
    /// What has gone in and out; carried over alterations.
    pub(crate) traffic: Arc<Traffic>,
}

impl Topic {
    /// The log's name for a partition, if the topic has it.
    pub fn partition_id(&self, index: u32) -> Option<PartitionId> {
        (index < self.partitions).then_some(PartitionId {
            topic: self.id,
            index,
        })
    }

    /// The log's names of all partitions, in order.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic = self.id;
        (0..self.partitions).map(move |index| PartitionId { topic, index })
    }

    /// The shard of a partition, if the topic has it.
    pub fn shard(&self, index: u32) -> Option<u16> {
        self.shards.get(index as usize).copied()
    }

    /// What clients have written to it and read from it since the process started.
    pub fn traffic(&self) -> TopicTraffic {
        self.traffic.now()
    }

    /// The partition of records with this key: murmur2, as Kafka's Java client has it.
    pub fn partition_for_key(&self, key: &[u8]) -> u32 {
        partition_for_key(key, self.partitions)
    }
}

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name: up to 249 of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// How many partitions; `None` takes the broker's `num.partitions`.
    pub partitions: Option<u32>,
    /// Settings by Kafka's names; see [`crate::configs::TABLE`].
    pub configs: BTreeMap<String, String>,
    /// The columns of its JSON values.
    pub schema: Option<TopicSchema>,
}

impl NewTopic {
    /// A topic with defaults.
    pub fn named(name: impl Into<String>) -> NewTopic {
        NewTopic {
            name: name.into(),
            ..NewTopic::default()
        }
    }

    /// With this many partitions.
    pub fn partitions(self, partitions: u32) -> NewTopic {
        NewTopic {
            partitions: Some(partitions),
            ..self
        }
    }

    /// With a setting.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> NewTopic {
        self.configs.insert(name.into(), value.into());
        self
    }
}

/// Changes to a topic, made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct TopicChange {
    /// Settings to set, or with `None` to put back to the default.
    pub set: BTreeMap<String, Option<String>>,
    /// A new schema; `Some(None)` takes it away.
    pub schema: Option<Option<TopicSchema>>,
    /// A larger number of partitions.
    pub partitions: Option<u32>,
}

/// Everything about a topic that a person asks for.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    /// The topic.
    pub topic: Arc<Topic>,
    /// What each partition holds, in order.
    pub bounds: Vec<PartitionBounds>,
    /// Every setting with its value and where that comes from.
    pub configs: Vec<ConfigValue>,
}
