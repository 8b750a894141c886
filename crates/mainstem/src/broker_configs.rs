//! The broker settings there are, under Kafka's names: one table of what is known, what each defaults to and what it is for.

use std::collections::BTreeMap;

use mainstem_broker::configs::{self, Kind};

/// A broker setting with the value that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value that holds.
    pub value: String,
    /// Whether it was given, or is the default.
    pub is_given: bool,
    /// The value where none is given.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// Kafka's broker settings that are defaults for topics, and the topic setting each stands for.
pub(crate) const TOPIC_DEFAULTS: [(&str, &str); 16] = [
    ("compression.type", "compression.type"),
    ("log.cleaner.delete.retention.ms", "delete.retention.ms"),
    (
        "log.cleaner.min.cleanable.ratio",
        "min.cleanable.dirty.ratio",
    ),
    ("log.cleaner.min.compaction.lag.ms", "min.compaction.lag.ms"),
    ("log.cleanup.policy", "cleanup.policy"),
    ("log.flush.interval.messages", "flush.messages"),
    ("log.flush.interval.ms", "flush.ms"),
    ("log.index.interval.bytes", "index.interval.bytes"),
    ("log.message.timestamp.type", "message.timestamp.type"),
    ("log.retention.bytes", "retention.bytes"),
    ("log.retention.ms", "retention.ms"),
    ("log.roll.ms", "segment.ms"),
    ("log.segment.bytes", "segment.bytes"),
    ("message.max.bytes", "max.message.bytes"),
    ("min.insync.replicas", "min.insync.replicas"),
    (
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
    ),
];

/// A setting that is no topic default.
pub(crate) struct Own {
    pub(crate) name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
}

const MILLIS: Kind = Kind::Millis { min: 0 };
const COUNT: Kind = Kind::Count { min: 0 };
const BYTES: Kind = Kind::Bytes {
    min: 0,
    max: i32::MAX as i64,
};

/// The settings that are no topic defaults, in the order of names.
pub(crate) const OWN: &[Own] = &[
    own(
        "advertised.listeners",
        Kind::Text,
        "",
        "The host and port that Kafka clients are told to connect to, as PLAINTEXT://host:port; the address they came to where it is empty.",
    ),
    own(
        "auto.create.topics.enable",
        Kind::Flag,
        "true",
        "Whether asking for a topic's metadata creates it.",
    ),
    own(
        "connections.max.idle.ms",
        MILLIS,
        "600000",
        "How long a Kafka client's connection may be silent.",
    ),
    own(
        "fetch.max.bytes",
        BYTES,
        "57671680",
        "The most that one fetch returns, beyond one whole batch.",
    ),
    own(
        "group.initial.rebalance.delay.ms",
        MILLIS,
        "3000",
        "How long the first members of an empty group wait for more.",
    ),
    own(
        "group.max.session.timeout.ms",
        MILLIS,
        "1800000",
        "The longest session timeout a member may ask for.",
    ),
    own(
        "group.max.size",
        COUNT,
        "2147483647",
        "The most members a group may have.",
    ),
    own(
        "group.min.session.timeout.ms",
        MILLIS,
        "6000",
        "The shortest session timeout a member may ask for.",
    ),
    own(
        "log.cleaner.backoff.ms",
        MILLIS,
        "15000",
        "How long compaction sleeps between two looks for work.",
    ),
    own(
        "log.retention.check.interval.ms",
        MILLIS,
        "300000",
        "How often retention looks for what is to go.",
    ),
    own(
        "log.retention.hours",
        COUNT,
        "168",
        "retention.ms in hours; the finer unit wins.",
    ),
    own(
        "log.retention.minutes",
        COUNT,
        "",
        "retention.ms in minutes; the finer unit wins.",
    ),
    own("node.id", COUNT, "1", "This node's number."),
    own(
        "num.partitions",
        COUNT,
        "1",
        "Partitions of a topic that is created without a number.",
    ),
    own(
        "offset.metadata.max.bytes",
        BYTES,
        "4096",
        "The longest metadata a committed offset may carry.",
    ),
    own(
        "offsets.retention.minutes",
        COUNT,
        "10080",
        "How long committed offsets stay once their group is empty.",
    ),
    own(
        "producer.id.expiration.ms",
        MILLIS,
        "86400000",
        "How long a silent idempotent producer is remembered.",
    ),
    own(
        "socket.request.max.bytes",
        BYTES,
        "104857600",
        "The largest request of a Kafka client.",
    ),
    own(
        "transaction.max.timeout.ms",
        MILLIS,
        "900000",
        "The longest a transaction may stay open, and the longest timeout a producer may ask for.",
    ),
    own(
        "transactional.id.expiration.ms",
        MILLIS,
        "604800000",
        "How long a transactional id is remembered that has no transaction.",
    ),
];

const fn own(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Own {
    Own {
        name,
        kind,
        default,
        doc,
    }
}

/// The names of all broker settings.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let topic_defaults = TOPIC_DEFAULTS.iter().map(|(name, _)| *name);
    topic_defaults.chain(OWN.iter().map(|own| own.name))
}

/// Every broker setting with the value that holds where these were given, in the order of names.
pub fn broker_configs(given: &BTreeMap<String, String>) -> Vec<BrokerConfig> {
    let of_topics = TOPIC_DEFAULTS.iter().filter_map(|(name, topic)| {
        let key = configs::find(topic).ok()?;
        Some((*name, key.kind, key.default, key.doc))
    });
    let own = OWN
        .iter()
        .map(|own| (own.name, own.kind, own.default, own.doc));
    let mut all: Vec<BrokerConfig> = of_topics
        .chain(own)
        .map(|(name, kind, default, doc)| BrokerConfig {
            name,
            kind,
            value: given.get(name).cloned().unwrap_or_else(|| default.into()),
            is_given: given.contains_key(name),
            default,
            doc,
        })
        .collect();
    all.sort_by_key(|config| config.name);
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_default_is_a_setting_of_topics() {
        for (_, topic) in TOPIC_DEFAULTS {
            assert!(configs::find(topic).is_ok(), "{topic}");
        }
    }

    #[test]
    fn each_setting_is_there_once_with_what_was_given() {
        let given = BTreeMap::from([("num.partitions".to_owned(), "6".to_owned())]);
        let all = broker_configs(&given);
        assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(all.len(), names().count());
        let find = |name: &str| all.iter().find(|config| config.name == name).unwrap();
        let partitions = find("num.partitions");
        assert_eq!(
            (partitions.value.as_str(), partitions.is_given),
            ("6", true)
        );
        let retention = find("log.retention.ms");
        assert_eq!(
            (retention.value.as_str(), retention.is_given),
            ("604800000", false)
        );
    }
}
