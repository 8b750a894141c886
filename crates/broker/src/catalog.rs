//! The catalogue: the topics of all tenants, and what those without settings of their own take, in memory, as the store has
//! them.
//!
//! The store is the truth. Whatever changes a topic commits a frame and then has the entry read again from the store,
//! under the lock: so the memory always moves towards the newest durable state, whoever of several changers comes
//! first, and never shows a frame before it is durable. A caller that stops waiting leaves its [`Change`] behind, and
//! the next one that looks into the catalogue finishes it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use mainstem_engine::{Committed, Engine, EngineError, Ticket};
use mainstem_log::{SegmentLimits, TopicId};
use mainstem_schema::TopicSchema;
use mainstem_store::StoreSnapshot;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::defaults::TopicDefaults;
use crate::keys::{self, Kind};
use crate::topic::Topic;
use crate::{BrokerError, TopicLimits, names};

const STORED_VERSION: u32 = 1;

type Topics = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Topic>>>;

pub(crate) struct Catalog {
    /// The broker's own topic settings, below a topic's.
    defaults: RwLock<Arc<TopicDefaults>>,
    node_id: u32,
    topics: RwLock<Topics>,
    /// The same topics by their ids, which are unique over all tenants.
    ids: RwLock<BTreeMap<TopicId, Arc<Topic>>>,
    abandoned: Mutex<Vec<Abandoned>>,
    has_abandoned: AtomicBool,
    /// How often anything in it has changed.
    version: AtomicU64,
}

/// A change that nobody waits for any more.
struct Abandoned {
    changed: Changed,
    /// None once it is decided, and the store could not be read for it.
    ticket: Option<Ticket<Committed>>,
}

impl Abandoned {
    fn is_decided(&self) -> bool {
        self.ticket.as_ref().is_none_or(Ticket::is_ready)
    }
}

/// What a frame changes.
#[derive(Clone, Debug)]
pub(crate) enum Changed {
    /// A topic.
    Topic(Entry),
    /// What topics without settings of their own take.
    Defaults,
}

/// A name in the catalogue.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) tenant: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Entry {
    pub(crate) fn new(tenant: &Arc<str>, name: &str) -> Entry {
        Entry {
            tenant: tenant.clone(),
            name: name.into(),
        }
    }

    pub(crate) fn key(&self) -> Bytes {
        keys::catalog_key(&self.tenant, Kind::Topic, &self.name)
    }
}

impl Catalog {
    /// Reads all topics of all tenants.
    pub(crate) fn load(
        engine: &Engine,
        given: BTreeMap<String, String>,
        node_id: u32,
    ) -> Result<Catalog, BrokerError> {
        let defaults = TopicDefaults::given(given).read(&**engine.store(), node_id)?;
        let mut topics = Topics::new();
        let mut ids = BTreeMap::new();
        let mut failure = None;
        engine
            .store()
            .scan_prefix(keys::FAMILY, &keys::whole_catalog(), &mut |key, value| {
                let Some((tenant, kind, name)) = keys::parse_catalog_key(key) else {
                    let what = format!("key {key:02x?}");
                    failure = Some(BrokerError::DamagedCatalog {
                        what,
                        why: "it is no catalogue key".into(),
                    });
                    return ControlFlow::Break(());
                };
                if kind != Kind::Topic as u8 {
                    return ControlFlow::Continue(());
                }
                match decode(
                    &Entry {
                        tenant: tenant.into(),
                        name: name.into(),
                    },
                    value,
                    &defaults.holding,
                ) {
                    Ok(topic) => {
                        engine
                            .log()
                            .set_segment_limits(topic.id, topic.limits.segments);
                        let topic = Arc::new(topic);
                        ids.insert(topic.id, topic.clone());
                        topics
                            .entry(topic.tenant.clone())
                            .or_default()
                            .insert(topic.name.clone(), topic);
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
        match failure {
            Some(error) => Err(error),
            None => Ok(Catalog {
                defaults: RwLock::new(Arc::new(defaults)),
                node_id,
                topics: RwLock::new(topics),
                ids: RwLock::new(ids),
                abandoned: Mutex::new(Vec::new()),
                has_abandoned: AtomicBool::new(false),
                version: AtomicU64::new(0),
            }),
        }
    }

    pub(crate) fn find(
        &self,
        engine: &Engine,
        tenant: &str,
        name: &str,
    ) -> Result<Arc<Topic>, BrokerError> {
        self.finish_abandoned(engine)?;
        let topics = self.topics.read();
        let names = topics.get(tenant);
        names
            .and_then(|names| names.get(name))
            .cloned()
            .ok_or_else(|| BrokerError::TopicNotFound {
                topic: name.chars().take(250).collect(),
                near: names::near(
                    name,
                    names
                        .into_iter()
                        .flat_map(|names| names.keys().map(|name| &**name)),
                ),
            })
    }

    /// A topic of the tenant that has this name but for '.' and '_'.
    pub(crate) fn colliding(
        &self,
        engine: &Engine,
        tenant: &str,
        name: &str,
    ) -> Result<Option<String>, BrokerError> {
        self.finish_abandoned(engine)?;
        let topics = self.topics.read();
        let names = topics.get(tenant);
        Ok(names.and_then(|names| names::colliding(names, name)))
    }

    /// The tenant's topic of that id.
    pub(crate) fn find_id(
        &self,
        engine: &Engine,
        tenant: &str,
        id: TopicId,
    ) -> Result<Arc<Topic>, BrokerError> {
        self.finish_abandoned(engine)?;
        let found = self.ids.read().get(&id).cloned();
        found
            .filter(|topic| *topic.tenant == *tenant)
            .ok_or_else(|| BrokerError::TopicIdNotFound { id: id.to_string() })
    }

    /// The tenant's topics, by name.
    pub(crate) fn list(
        &self,
        engine: &Engine,
        tenant: &str,
    ) -> Result<Vec<Arc<Topic>>, BrokerError> {
        self.finish_abandoned(engine)?;
        Ok(self
            .topics
            .read()
            .get(tenant)
            .into_iter()
            .flat_map(|names| names.values().cloned())
            .collect())
    }

    /// The topics of all tenants, by tenant and name.
    pub(crate) fn all(&self, engine: &Engine) -> Result<Vec<Arc<Topic>>, BrokerError> {
        self.finish_abandoned(engine)?;
        Ok(self
            .topics
            .read()
            .values()
            .flat_map(|names| names.values().cloned())
            .collect())
    }

    /// What topics without settings of their own take.
    pub(crate) fn defaults(&self, engine: &Engine) -> Result<Arc<TopicDefaults>, BrokerError> {
        self.finish_abandoned(engine)?;
        Ok(self.defaults.read().clone())
    }

    /// A number that is another whenever a topic was created, changed or deleted.
    pub(crate) fn version(&self, engine: &Engine) -> Result<u64, BrokerError> {
        self.finish_abandoned(engine)?;
        Ok(self.version.load(Ordering::Acquire))
    }

    /// What a view of the store says about an entry.
    pub(crate) fn read(
        &self,
        store: &dyn StoreSnapshot,
        entry: &Entry,
    ) -> Result<Option<Topic>, BrokerError> {
        match store.get(keys::FAMILY, &entry.key())? {
            Some(value) => decode(entry, &value, &self.defaults.read().holding).map(Some),
            None => Ok(None),
        }
    }

    /// Reads an entry again from the store, which shows durable frames only.
    fn refresh(&self, engine: &Engine, entry: &Entry) -> Result<Option<Arc<Topic>>, BrokerError> {
        let mut topics = self.topics.write();
        let found = self.read(&**engine.store(), entry)?;
        let names = topics.entry(entry.tenant.clone()).or_default();
        let before = names.get(&entry.name).map(|before| before.id);
        let after = found
            .as_ref()
            .map(|topic| (topic.id, topic.limits.segments));
        if let Some(gone) = before.filter(|id| after.is_none_or(|(now, _)| now != *id)) {
            engine
                .log()
                .set_segment_limits(gone, SegmentLimits::default());
        }
        if let Some((id, limits)) = after {
            engine.log().set_segment_limits(id, limits);
        }
        let topic = found.map(|mut topic| {
            if let Some(before) = names
                .get(&topic.name)
                .filter(|before| before.id == topic.id)
            {
                topic.sticky = before.sticky.clone();
                topic.traffic = before.traffic.clone();
            }
            Arc::new(topic)
        });
        let mut ids = self.ids.write();
        if let Some(gone) = before {
            ids.remove(&gone);
        }
        match &topic {
            Some(topic) => {
                ids.insert(topic.id, topic.clone());
                names.insert(topic.name.clone(), topic.clone())
            }
            None => names.remove(&entry.name),
        };
        if names.is_empty() {
            topics.remove(&entry.tenant);
        }
        self.version.fetch_add(1, Ordering::Release);
        Ok(topic)
    }

    /// Reads from the store again what topics take that have no settings of their own, and has them take it.
    fn refresh_defaults(&self, engine: &Engine) -> Result<(), BrokerError> {
        let mut topics = self.topics.write();
        let before = self.defaults.read().clone();
        let defaults = Arc::new(before.read(&**engine.store(), self.node_id)?);
        let mut ids = self.ids.write();
        for topic in topics.values_mut().flat_map(BTreeMap::values_mut) {
            let limits = TopicLimits::of(&topic.configs, &defaults.holding);
            if limits == topic.limits {
                continue;
            }
            engine.log().set_segment_limits(topic.id, limits.segments);
            *topic = Arc::new(Topic {
                limits,
                ..Topic::clone(topic)
            });
            ids.insert(topic.id, topic.clone());
        }
        *self.defaults.write() = defaults;
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn renew(&self, engine: &Engine, changed: &Changed) -> Result<Option<Arc<Topic>>, BrokerError> {
        match changed {
            Changed::Topic(entry) => self.refresh(engine, entry),
            Changed::Defaults => self.refresh_defaults(engine).map(|()| None),
        }
    }

    /// Takes over what callers that stopped waiting have left, as far as it is decided.
    fn finish_abandoned(&self, engine: &Engine) -> Result<(), BrokerError> {
        if !self.has_abandoned.load(Ordering::Acquire) {
            return Ok(());
        }
        // Under the lock, so that nobody else looks before the entries are there. One that cannot be read stays.
        let mut abandoned = self.abandoned.lock();
        let mut outcome = Ok(());
        abandoned.retain_mut(|one| {
            if outcome.is_err() || !one.is_decided() {
                return true;
            }
            one.ticket = None;
            outcome = self.renew(engine, &one.changed).map(|_| ());
            outcome.is_err()
        });
        self.has_abandoned
            .store(!abandoned.is_empty(), Ordering::Release);
        outcome
    }

    fn abandon(&self, changed: Changed, ticket: Option<Ticket<Committed>>) {
        let mut abandoned = self.abandoned.lock();
        abandoned.push(Abandoned { changed, ticket });
        self.has_abandoned.store(true, Ordering::Release);
    }
}

/// A frame that changes the catalogue, under way.
pub(crate) struct Change<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) engine: &'a Engine,
    pub(crate) changed: &'a Changed,
    pub(crate) ticket: Option<Ticket<Committed>>,
}

impl Change<'_> {
    /// Waits until the frame is durable, and has the catalogue show it; where a topic was changed, that is the answer.
    pub(crate) async fn finish(
        mut self,
    ) -> Result<Result<Option<Arc<Topic>>, EngineError>, BrokerError> {
        let Some(ticket) = self.ticket.as_mut() else {
            return Ok(Err(EngineError::Closed));
        };
        let outcome = ticket.await;
        self.ticket = None;
        match outcome {
            Ok(_) => {
                let renewed = self.catalog.renew(self.engine, self.changed);
                if renewed.is_err() {
                    // It is durable all the same: whoever looks next reads it.
                    self.catalog.abandon(self.changed.clone(), None);
                }
                renewed.map(Ok)
            }
            Err(error) => Ok(Err(error)),
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.catalog.abandon(self.changed.clone(), Some(ticket));
        }
    }
}

/// A topic's value in the store: JSON, because it is small, rare, and read by people in trouble.
#[derive(Serialize, Deserialize)]
struct StoredTopic {
    version: u32,
    id: String,
    partitions: u32,
    shards: Vec<u16>,
    configs: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema: Option<TopicSchema>,
    created_ms: i64,
}

#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

pub(crate) fn encode(topic: &Topic) -> Result<Bytes, BrokerError> {
    let stored = StoredTopic {
        version: STORED_VERSION,
        id: topic.id.to_string(),
        partitions: topic.partitions,
        shards: topic.shards.clone(),
        configs: topic.configs.clone(),
        schema: topic.schema.clone(),
        created_ms: topic.created_ms,
    };
    let damaged = |error: serde_json::Error| BrokerError::DamagedCatalog {
        what: format!("topic '{}'", topic.name),
        why: error.to_string(),
    };
    serde_json::to_vec(&stored)
        .map(Bytes::from)
        .map_err(damaged)
}

/// Reads a topic's entry in the catalogue, for whoever looks a data directory through offline: its id and how many
/// partitions it has.
pub fn read_entry(tenant: &str, name: &str, value: &[u8]) -> Result<(TopicId, u32), BrokerError> {
    let entry = Entry::new(&tenant.into(), name);
    let topic = decode(&entry, value, &BTreeMap::new())?;
    Ok((topic.id, topic.partitions))
}

fn decode(
    entry: &Entry,
    value: &[u8],
    defaults: &BTreeMap<String, String>,
) -> Result<Topic, BrokerError> {
    let damaged = |why: String| BrokerError::DamagedCatalog {
        what: format!("topic '{}'", entry.name),
        why,
    };
    let version = serde_json::from_slice::<StoredVersion>(value)
        .map_err(|error| damaged(error.to_string()))?
        .version;
    if version > STORED_VERSION {
        return Err(damaged(format!(
            "it has version {version}, this program knows {STORED_VERSION}; use a newer release"
        )));
    }
    let stored: StoredTopic =
        serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    let id = TopicId::parse(&stored.id)
        .ok_or_else(|| damaged(format!("'{}' is no topic id", stored.id)))?;
    if stored.partitions == 0 || stored.shards.len() != stored.partitions as usize {
        return Err(damaged(format!(
            "{} partitions on {} shards",
            stored.partitions,
            stored.shards.len()
        )));
    }
    Ok(Topic {
        id,
        name: entry.name.clone(),
        tenant: entry.tenant.clone(),
        partitions: stored.partitions,
        shards: stored.shards,
        limits: TopicLimits::of(&stored.configs, defaults),
        configs: stored.configs,
        schema: stored.schema,
        created_ms: stored.created_ms,
        sticky: Arc::default(),
        traffic: Arc::default(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn topic() -> (Entry, Topic) {
        let entry = Entry {
            tenant: "default".into(),
            name: "flights".into(),
        };
        let configs = BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]);
        let topic = Topic {
            id: TopicId(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
            name: entry.name.clone(),
            tenant: entry.tenant.clone(),
            partitions: 2,
            shards: vec![5, 6],
            limits: TopicLimits::of(&configs, &BTreeMap::new()),
            configs,
            schema: None,
            created_ms: 7,
            sticky: Arc::default(),
            traffic: Arc::default(),
        };
        (entry, topic)
    }

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let (entry, topic) = topic();
        let value = encode(&topic).unwrap();
        assert_eq!(
            std::str::from_utf8(&value).unwrap(),
            "{\"version\":1,\"id\":\"12345678-9abc-def0-1234-56789abcdef0\",\"partitions\":2,\"shards\":[5,6],\
             \"configs\":{\"retention.ms\":\"1000\"},\"created_ms\":7}"
        );
        let read = decode(&entry, &value, &BTreeMap::new()).unwrap();
        assert_eq!(
            (read.id, read.partitions, &read.shards),
            (topic.id, 2, &topic.shards)
        );
        assert_eq!(read.limits.retention_ms, Some(1000));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        let (entry, _) = topic();
        for value in [
            "",
            "{}",
            "{\"version\":9}",
            "{\"version\":1,\"id\":\"x\",\"partitions\":0,\"shards\":[],\"configs\":{},\"created_ms\":0}",
        ] {
            let error = decode(&entry, value.as_bytes(), &BTreeMap::new()).unwrap_err();
            assert_eq!(error.code(), "damaged_catalog", "{value}");
            assert!(error.to_string().contains("flights"));
        }
    }
}
