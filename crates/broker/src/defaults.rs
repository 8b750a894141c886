//! Settings of the broker that topics without one of their own take, in layers: what was given when the process started, and
//! above it what was set while it ran, for the whole cluster or for this node (KIP-226). What is set is kept in the catalogue.
//!
//! They go by Kafka's names for brokers (`log.retention.ms`), of which each stands for one of topics (`retention.ms`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_engine::{Check, EngineError, Submission};
use mainstem_store::{StoreOp, StoreSnapshot};
use serde::{Deserialize, Serialize};

use crate::access::{self, Access};
use crate::broker::Broker;
use crate::catalog::{Change, Changed};
use crate::configs::{self, Source};
use crate::topics::MAX_TRIES;
use crate::{BrokerError, Caller, keys};

const STORED_VERSION: u32 = 1;

/// Kafka's broker settings that are defaults for topics, and the topic setting each stands for, in the order of names. They
/// can be changed while the process runs.
pub const TOPIC_DEFAULTS: [(&str, &str); 26] = [
    ("compression.gzip.level", "compression.gzip.level"),
    ("compression.lz4.level", "compression.lz4.level"),
    ("compression.type", "compression.type"),
    ("compression.zstd.level", "compression.zstd.level"),
    ("log.cleaner.delete.retention.ms", "delete.retention.ms"),
    ("log.cleaner.max.compaction.lag.ms", "max.compaction.lag.ms"),
    (
        "log.cleaner.min.cleanable.ratio",
        "min.cleanable.dirty.ratio",
    ),
    ("log.cleaner.min.compaction.lag.ms", "min.compaction.lag.ms"),
    ("log.cleanup.policy", "cleanup.policy"),
    ("log.flush.interval.messages", "flush.messages"),
    ("log.flush.interval.ms", "flush.ms"),
    ("log.index.interval.bytes", "index.interval.bytes"),
    ("log.index.size.max.bytes", "segment.index.bytes"),
    (
        "log.message.timestamp.after.max.ms",
        "message.timestamp.after.max.ms",
    ),
    (
        "log.message.timestamp.before.max.ms",
        "message.timestamp.before.max.ms",
    ),
    ("log.message.timestamp.type", "message.timestamp.type"),
    ("log.preallocate", "preallocate"),
    ("log.retention.bytes", "retention.bytes"),
    ("log.retention.ms", "retention.ms"),
    ("log.roll.jitter.ms", "segment.jitter.ms"),
    ("log.roll.ms", "segment.ms"),
    ("log.segment.bytes", "segment.bytes"),
    ("log.segment.delete.delay.ms", "file.delete.delay.ms"),
    ("message.max.bytes", "max.message.bytes"),
    ("min.insync.replicas", "min.insync.replicas"),
    (
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
    ),
];

/// What settings of the broker are set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BrokerScope {
    /// Every node of the cluster.
    Cluster,
    /// This node: it comes before what is set for all.
    Node,
}

/// What was set for one of them, by the broker's names.
type Layer = BTreeMap<String, String>;
/// What is to be set, and with `None` what is to be taken back.
type Changes = BTreeMap<String, Option<String>>;

fn change(layer: &mut Layer, changes: &Changes) {
    for (name, value) in changes {
        match value {
            Some(value) => layer.insert(name.clone(), value.clone()),
            None => layer.remove(name),
        };
    }
}

/// The layers, of which the first that has a value holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicDefaults {
    node: Layer,
    cluster: Layer,
    /// By the topics' names.
    given: BTreeMap<String, String>,
    /// What holds, by the topics' names.
    pub(crate) holding: BTreeMap<String, String>,
}

impl TopicDefaults {
    /// Those that were given when the process started, by the topics' names.
    pub(crate) fn given(given: BTreeMap<String, String>) -> TopicDefaults {
        TopicDefaults {
            holding: given.clone(),
            given,
            ..TopicDefaults::default()
        }
    }

    /// The same with what a view of the store has.
    pub(crate) fn read(
        &self,
        store: &(impl StoreSnapshot + ?Sized),
        node_id: u32,
    ) -> Result<TopicDefaults, BrokerError> {
        let layer = |scope| read_layer(store, scope, node_id);
        let (cluster, node) = (layer(BrokerScope::Cluster)?, layer(BrokerScope::Node)?);
        Ok(TopicDefaults::layered(node, cluster, self.given.clone()))
    }

    fn layered(node: Layer, cluster: Layer, given: BTreeMap<String, String>) -> TopicDefaults {
        let mut holding = given.clone();
        for layer in [&cluster, &node] {
            for (name, value) in layer {
                if let Some(topic) = topic_name(name) {
                    holding.insert(topic.to_owned(), value.clone());
                }
            }
        }
        TopicDefaults {
            node,
            cluster,
            given,
            holding,
        }
    }

    /// The same after this change.
    fn changed(&self, scope: BrokerScope, changes: &Changes) -> TopicDefaults {
        let (mut node, mut cluster) = (self.node.clone(), self.cluster.clone());
        match scope {
            BrokerScope::Cluster => change(&mut cluster, changes),
            BrokerScope::Node => change(&mut node, changes),
        }
        TopicDefaults::layered(node, cluster, self.given.clone())
    }

    /// What was set for one of the scopes, by the broker's names.
    pub fn set(&self, scope: BrokerScope) -> &BTreeMap<String, String> {
        match scope {
            BrokerScope::Cluster => &self.cluster,
            BrokerScope::Node => &self.node,
        }
    }

    /// Every value that a topic setting has here, with the broker's name for it: the first one holds.
    pub fn values(&self, topic: &str) -> Vec<(&'static str, &str, Source)> {
        let Some(name) = broker_name(topic) else {
            return Vec::new();
        };
        let layers = [
            (self.node.get(name), Source::DynamicNode),
            (self.cluster.get(name), Source::DynamicCluster),
            (self.given.get(topic), Source::Broker),
        ];
        layers
            .into_iter()
            .filter_map(|(value, source)| Some((name, value?.as_str(), source)))
            .collect()
    }
}

/// The topic setting that a broker setting stands for.
fn topic_name(name: &str) -> Option<&'static str> {
    let found = TOPIC_DEFAULTS.iter().find(|(broker, _)| *broker == name);
    found.map(|(_, topic)| *topic)
}

/// The broker setting that stands for a topic's.
pub fn broker_name(topic: &str) -> Option<&'static str> {
    let found = TOPIC_DEFAULTS.iter().find(|(_, name)| *name == topic);
    found.map(|(broker, _)| *broker)
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    configs: Layer,
}

/// The value in the store: JSON, because it is small, rare, and read by people in trouble.
fn encode(configs: &Layer) -> Result<Bytes, BrokerError> {
    let stored = Stored {
        version: STORED_VERSION,
        configs: configs.clone(),
    };
    serde_json::to_vec(&stored)
        .map(Bytes::from)
        .map_err(|error| damaged(error.to_string()))
}

fn decode(value: &[u8]) -> Result<Layer, BrokerError> {
    let stored: Stored =
        serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    match stored.version {
        STORED_VERSION => Ok(stored.configs),
        _ => Err(damaged(
            "it has another version; use a newer release".into(),
        )),
    }
}

/// Reads an entry of the catalogue, for whoever looks a data directory through offline.
pub fn check_entry(value: &[u8]) -> Result<(), BrokerError> {
    decode(value).map(|_| ())
}

fn damaged(why: String) -> BrokerError {
    BrokerError::DamagedCatalog {
        what: "the settings of the broker".into(),
        why,
    }
}

fn read_layer(
    store: &(impl StoreSnapshot + ?Sized),
    scope: BrokerScope,
    node_id: u32,
) -> Result<Layer, BrokerError> {
    match store.get(keys::FAMILY, &key(scope, node_id))? {
        Some(value) => decode(&value),
        None => Ok(Layer::new()),
    }
}

fn key(scope: BrokerScope, node_id: u32) -> Bytes {
    keys::broker_configs(match scope {
        BrokerScope::Cluster => None,
        BrokerScope::Node => Some(node_id),
    })
}

/// The same with values as they are kept.
fn parse(changes: &Changes) -> Result<Changes, BrokerError> {
    let parse = |(name, value): (&String, &Option<String>)| {
        let topic = topic_name(name).ok_or_else(|| BrokerError::NotDynamic {
            name: name.chars().take(100).collect(),
        })?;
        let key = configs::find(topic)?;
        let value = value.as_ref().map(|value| key.parse(value)).transpose()?;
        Ok((name.clone(), value))
    };
    changes.iter().map(parse).collect()
}

impl Broker {
    /// What topics without a setting of their own take, and where each value comes from.
    pub fn topic_defaults(&self, caller: &Caller) -> Result<Arc<TopicDefaults>, BrokerError> {
        access::check(caller, Access::DescribeBroker)?;
        self.inner.catalog.defaults(self.engine())
    }

    /// Sets settings of the broker ([`TOPIC_DEFAULTS`], by the broker's names), or with `None` takes back what was set; all of
    /// them or none, in one frame. From then on they hold for every topic without one of its own. With `only_checks` it
    /// only says whether that could be done.
    pub async fn alter_broker_configs(
        &self,
        caller: &Caller,
        scope: BrokerScope,
        changes: &BTreeMap<String, Option<String>>,
        only_checks: bool,
    ) -> Result<(), BrokerError> {
        access::check(caller, Access::AlterBroker)?;
        let changes = &parse(changes)?;
        let (engine, catalog) = (self.engine(), &self.inner.catalog);
        let defaults = catalog.defaults(engine)?.changed(scope, changes);
        configs::check_together(&BTreeMap::new(), &defaults.holding)?;
        if only_checks {
            return Ok(());
        }
        let node_id = self.inner.node_id;
        for _ in 0..MAX_TRIES {
            let (as_of, store) = engine.read_at()?;
            let before = read_layer(&*store, scope, node_id)?;
            drop(store);
            let mut after = before.clone();
            change(&mut after, changes);
            if after == before {
                return Ok(());
            }
            let at = key(scope, node_id);
            let op = match after.is_empty() {
                true => StoreOp::delete(keys::FAMILY, at.clone()),
                false => StoreOp::put(keys::FAMILY, at.clone(), encode(&after)?),
            };
            let submission = Submission {
                store_ops: vec![op],
                checks: vec![Check::Unchanged {
                    family: keys::FAMILY,
                    key: at,
                    as_of,
                }],
                all_or_nothing: true,
                ..Submission::default()
            };
            let permit = self.reserve(&submission).await?;
            let change = Change {
                catalog,
                engine,
                changed: &Changed::Defaults,
                ticket: Some(engine.submit(submission, permit)),
            };
            match change.finish().await? {
                Ok(_) => {
                    tracing::info!(tenant = %caller.tenant, principal = %caller.principal, ?scope, ?changes, "settings of the broker changed");
                    return Ok(());
                }
                Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BrokerError::Contended {
            what: "the settings of the broker".into(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_one_stands_for_a_setting_of_topics_and_no_two_for_the_same() {
        assert!(TOPIC_DEFAULTS.is_sorted_by(|one, next| one.0 < next.0));
        let topics: std::collections::BTreeSet<_> =
            TOPIC_DEFAULTS.iter().map(|(_, topic)| *topic).collect();
        assert_eq!(topics.len(), TOPIC_DEFAULTS.len());
        for topic in topics {
            assert!(configs::find(topic).is_ok(), "{topic}");
        }
    }

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let layer = Layer::from([("log.retention.ms".to_owned(), "5".to_owned())]);
        let value = encode(&layer).unwrap();
        assert_eq!(
            value.as_ref(),
            br#"{"version":1,"configs":{"log.retention.ms":"5"}}"#
        );
        assert_eq!(decode(&value).unwrap(), layer);
        for damaged in [&b"{}"[..], br#"{"version":2,"configs":{}}"#, &value[1..]] {
            assert_eq!(decode(damaged).unwrap_err().code(), "damaged_catalog");
        }
    }
}
