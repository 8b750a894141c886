//! Creating, changing and deleting topics: each is one frame, guarded by a check on the topic's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_engine::{Check, EngineError, Submission};
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_store::{StoreOp, key::shard_of_number};

use crate::access::{self, Access};
use crate::broker::Broker;
use crate::catalog::{Change, Changed, Entry, encode};
use crate::defaults::TopicDefaults;
use crate::topic::{NewTopic, Topic, TopicChange, TopicDescription};
use crate::{BrokerError, Caller, TopicLimits, configs, keys, names};

/// The most partitions a topic may have: one frame creates them all.
const MAX_PARTITIONS: u32 = 10_000;

/// How often a change is tried anew when others change the same name at the same time.
pub(crate) const MAX_TRIES: u32 = 64;

/// What a change of an entry amounts to, once the entry was read.
enum Plan {
    /// Nothing: it is so already.
    Done(Arc<Topic>),
    /// These operations.
    Frame {
        log_ops: Vec<(u16, LogOp)>,
        store_op: StoreOp,
    },
}

impl Broker {
    /// Creates a topic with all its partitions.
    pub async fn create_topic(
        &self,
        caller: &Caller,
        new: NewTopic,
        now_ms: i64,
    ) -> Result<Arc<Topic>, BrokerError> {
        let (partitions, configs) = self.check_new(caller, &new)?;
        let entry = Entry::new(&caller.tenant, &new.name);
        let id = TopicId((self.inner.random.lock())());
        let topic = Topic {
            id,
            name: entry.name.clone(),
            tenant: entry.tenant.clone(),
            partitions,
            shards: (0..partitions).map(shard_of_partition).collect(),
            limits: TopicLimits::of(&configs, &self.defaults()?.holding),
            configs,
            schema: new.schema,
            created_ms: now_ms,
            sticky: Arc::default(),
            traffic: Arc::default(),
        };
        let value = encode(&topic)?;
        let created = self
            .change(&entry, |found| match found {
                Some(_) => Err(BrokerError::TopicExists {
                    topic: entry.name.to_string(),
                }),
                None => {
                    self.check_collisions(caller, &entry.name)?;
                    Ok(Plan::Frame {
                        log_ops: create_ops(&topic, 0),
                        store_op: StoreOp::put(keys::FAMILY, entry.key(), value.clone()),
                    })
                }
            })
            .await?;
        tracing::info!(tenant = %caller.tenant, principal = %caller.principal, topic = %entry.name, %id, partitions, "topic created");
        // Deleted again by somebody else in this very moment: it was created all the same.
        Ok(created.unwrap_or_else(|| Arc::new(topic)))
    }

    /// Whether the topic could be created, without creating it; how many partitions it would have.
    pub fn validate_topic(&self, caller: &Caller, new: &NewTopic) -> Result<u32, BrokerError> {
        let (partitions, _) = self.check_new(caller, new)?;
        if self.topic(caller, &new.name).is_ok() {
            return Err(BrokerError::TopicExists {
                topic: new.name.clone(),
            });
        }
        self.check_collisions(caller, &new.name)?;
        Ok(partitions)
    }

    /// How many partitions it would have, and its settings as they are kept.
    fn check_new(
        &self,
        caller: &Caller,
        new: &NewTopic,
    ) -> Result<(u32, BTreeMap<String, String>), BrokerError> {
        access::check(caller, Access::Create { topic: &new.name })?;
        names::check_topic(&new.name)?;
        names::check_not_internal(&new.name)?;
        let configs = configs::parse_all(&new.configs)?;
        configs::check_together(&configs, &self.defaults()?.holding)?;
        let partitions = new.partitions.unwrap_or(self.inner.num_partitions);
        check_partitions(&new.name, partitions)?;
        Ok((partitions, configs))
    }

    /// Refuses a new name that is another's but for '.' and '_', as Kafka does: what is measured of topics goes by names in
    /// which these are one. Of two that are created in the same moment neither sees the other; nothing but that depends on it.
    fn check_collisions(&self, caller: &Caller, name: &str) -> Result<(), BrokerError> {
        let catalog = &self.inner.catalog;
        let existing = catalog.colliding(&self.inner.engine, &caller.tenant, name)?;
        let unified = name.replace('.', "_");
        let mut internal = names::INTERNAL_TOPICS.into_iter();
        let internal = internal.find(|internal| *internal == unified);
        match existing.or_else(|| internal.map(str::to_owned)) {
            None => Ok(()),
            Some(existing) => Err(BrokerError::TopicCollides {
                topic: name.to_owned(),
                existing,
            }),
        }
    }

    /// The tenant's topics, by name.
    pub fn list_topics(&self, caller: &Caller) -> Result<Vec<Arc<Topic>>, BrokerError> {
        access::check(caller, Access::Describe { topic: "*" })?;
        self.inner.catalog.list(&self.inner.engine, &caller.tenant)
    }

    /// The topics of all tenants, by tenant and name: for what looks after the whole data directory.
    pub fn all_topics(&self) -> Result<Vec<Arc<Topic>>, BrokerError> {
        self.inner.catalog.all(&self.inner.engine)
    }

    /// A topic by its name.
    pub fn topic(&self, caller: &Caller, name: &str) -> Result<Arc<Topic>, BrokerError> {
        self.topic_for(caller, Access::Describe { topic: name }, name)
    }

    /// A topic by its id, which a topic of the same name that was created later does not have.
    pub fn topic_by_id(&self, caller: &Caller, id: TopicId) -> Result<Arc<Topic>, BrokerError> {
        access::check(caller, Access::Describe { topic: "*" })?;
        self.inner
            .catalog
            .find_id(&self.inner.engine, &caller.tenant, id)
    }

    /// A topic with what its partitions hold and every setting that holds for it.
    pub fn describe_topic(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<TopicDescription, BrokerError> {
        let topic = self.topic(caller, name)?;
        let bounds = topic
            .partition_ids()
            .map(|partition| self.bounds_of(&topic, partition))
            .collect::<Result<Vec<_>, _>>()?;
        let configs = configs::effective(&topic.configs, &*self.defaults()?);
        Ok(TopicDescription {
            topic,
            bounds,
            configs,
        })
    }

    /// Changes settings, schema and number of partitions of a topic, all together or not at all.
    pub async fn alter_topic(
        &self,
        caller: &Caller,
        name: &str,
        change: TopicChange,
    ) -> Result<Arc<Topic>, BrokerError> {
        self.validate_change(caller, name, &change)?;
        let entry = Entry::new(&caller.tenant, name);
        let defaults = self.defaults()?;
        let altered = self
            .change(&entry, |found| {
                let before = found.ok_or_else(|| not_found(name))?;
                let after = apply(&before, &change, &defaults.holding)?;
                if after.configs == before.configs
                    && after.schema == before.schema
                    && after.partitions == before.partitions
                {
                    return Ok(Plan::Done(Arc::new(before)));
                }
                let log_ops = create_ops(&after, before.partitions);
                Ok(Plan::Frame {
                    log_ops,
                    store_op: StoreOp::put(keys::FAMILY, entry.key(), encode(&after)?),
                })
            })
            .await?;
        tracing::info!(tenant = %caller.tenant, principal = %caller.principal, topic = name, ?change, "topic altered");
        altered.ok_or_else(|| not_found(name))
    }

    /// Whether the topic could be changed so, without changing it.
    pub fn validate_change(
        &self,
        caller: &Caller,
        name: &str,
        change: &TopicChange,
    ) -> Result<(), BrokerError> {
        let before = self.topic_for(caller, Access::Alter { topic: name }, name)?;
        apply(&before, change, &self.defaults()?.holding).map(|_| ())
    }

    /// Deletes a topic with all its partitions and records.
    pub async fn delete_topic(&self, caller: &Caller, name: &str) -> Result<(), BrokerError> {
        self.topic_for(caller, Access::Delete { topic: name }, name)?;
        let entry = Entry::new(&caller.tenant, name);
        self.change(&entry, |found| {
            let topic = found.ok_or_else(|| not_found(name))?;
            let remove = |(partition, shard): (PartitionId, &u16)| {
                (*shard, LogOp::RemovePartition { partition })
            };
            Ok(Plan::Frame {
                log_ops: topic
                    .partition_ids()
                    .zip(&topic.shards)
                    .map(remove)
                    .collect(),
                store_op: StoreOp::delete(keys::FAMILY, entry.key()),
            })
        })
        .await?;
        tracing::info!(tenant = %caller.tenant, principal = %caller.principal, topic = name, "topic deleted");
        Ok(())
    }

    fn defaults(&self) -> Result<Arc<TopicDefaults>, BrokerError> {
        self.inner.catalog.defaults(&self.inner.engine)
    }

    /// A topic, after the access check.
    pub(crate) fn topic_for(
        &self,
        caller: &Caller,
        access: Access<'_>,
        name: &str,
    ) -> Result<Arc<Topic>, BrokerError> {
        access::check(caller, access)?;
        if matches!(access, Access::Write { .. }) {
            names::check_not_internal(name)?;
        }
        self.inner
            .catalog
            .find(&self.inner.engine, &caller.tenant, name)
    }

    /// Reads the entry, lets `plan` decide, and commits that if the entry is still the one that was read; if not,
    /// begins again. Returns the entry as the catalogue has it afterwards.
    async fn change(
        &self,
        entry: &Entry,
        plan: impl Fn(Option<Topic>) -> Result<Plan, BrokerError>,
    ) -> Result<Option<Arc<Topic>>, BrokerError> {
        let engine = &self.inner.engine;
        let catalog = &self.inner.catalog;
        let changed = &Changed::Topic(entry.clone());
        for _ in 0..MAX_TRIES {
            let (as_of, store) = engine.read_at()?;
            let (log_ops, store_op) = match plan(catalog.read(&*store, entry)?)? {
                Plan::Done(topic) => return Ok(Some(topic)),
                Plan::Frame { log_ops, store_op } => (log_ops, store_op),
            };
            drop(store);
            let submission = Submission {
                log_ops,
                store_ops: vec![store_op],
                checks: vec![Check::Unchanged {
                    family: keys::FAMILY,
                    key: entry.key(),
                    as_of,
                }],
                all_or_nothing: true,
                ..Submission::default()
            };
            let permit = self.reserve(&submission).await?;
            let ticket = Some(engine.submit(submission, permit));
            match (Change {
                catalog,
                engine,
                changed,
                ticket,
            })
            .finish()
            .await?
            {
                Ok(topic) => return Ok(topic),
                Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BrokerError::Contended {
            what: format!("topic '{}'", entry.name),
        })
    }
}

/// The same partition number has the same shard in every topic, so that topics read together move together.
fn shard_of_partition(index: u32) -> u16 {
    shard_of_number(u64::from(index))
}

fn create_ops(topic: &Topic, from: u32) -> Vec<(u16, LogOp)> {
    let create =
        |(partition, shard): (PartitionId, &u16)| (*shard, LogOp::CreatePartition { partition });
    topic
        .partition_ids()
        .zip(&topic.shards)
        .skip(from as usize)
        .map(create)
        .collect()
}

fn apply(
    before: &Topic,
    change: &TopicChange,
    defaults: &BTreeMap<String, String>,
) -> Result<Topic, BrokerError> {
    let mut after = before.clone();
    for (config, value) in &change.set {
        let key = configs::find(config)?;
        match value {
            Some(value) => after.configs.insert(config.clone(), key.parse(value)?),
            None => after.configs.remove(config),
        };
    }
    if !change.set.is_empty() {
        configs::check_together(&after.configs, defaults)?;
    }
    if let Some(schema) = &change.schema {
        after.schema = schema.clone();
    }
    if let Some(partitions) = change.partitions {
        check_partitions(&before.name, partitions)?;
        if partitions < before.partitions {
            let why = format!(
                "it has {} already, and partitions are never taken away",
                before.partitions
            );
            return Err(BrokerError::InvalidPartitions {
                topic: before.name.to_string(),
                partitions,
                why,
            });
        }
        after.partitions = partitions;
        after
            .shards
            .extend((before.partitions..partitions).map(shard_of_partition));
    }
    after.limits = TopicLimits::of(&after.configs, defaults);
    Ok(after)
}

fn check_partitions(topic: &str, partitions: u32) -> Result<(), BrokerError> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let why = format!("it takes 1 to {MAX_PARTITIONS}");
    Err(BrokerError::InvalidPartitions {
        topic: topic.into(),
        partitions,
        why,
    })
}

pub(crate) fn not_found(topic: &str) -> BrokerError {
    BrokerError::TopicNotFound {
        topic: topic.into(),
        near: Vec::new(),
    }
}
