//! The broker settings there are, under Kafka's names: one table of what is known, what each defaults to and what it is for.

use std::collections::BTreeMap;

use mainstem_broker::configs::{self, ConfigKey, Kind, Source, Support};
use mainstem_broker::{TOPIC_DEFAULTS, TopicDefaults};

/// A broker setting, with every value that there is for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its values and where each comes from; the first holds, the last is the default.
    pub values: Vec<(String, Source)>,
    /// Whether it can be changed while the broker runs.
    pub is_dynamic: bool,
    /// What it does, and what Mainstem does about it, for people.
    pub doc: String,
}

/// What Kafka counts in 16, 32 and 64 bits: its tools are told so.
const SHORT: i64 = i16::MAX as i64;
const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;

/// Milliseconds in 64 bits; in Kafka most are an INT.
const LONG_MILLIS: Kind = Kind::Millis { min: 0, max: LONG };
const MILLIS: Kind = Kind::Millis { min: 0, max: INT };
const COUNT: Kind = Kind::Number { min: 0, max: INT };
const AT_LEAST_ONE: Kind = Kind::Number { min: 1, max: INT };
const BYTES: Kind = Kind::Bytes { min: 0, max: INT };

const ONE_COPY: &str = "there is one copy of a partition on a node";
const IN_THE_STORE: &str =
    "what Kafka keeps in the topic lies in the store here, and so many partitions are shown of it";

/// The settings that are no topic defaults, in the order of names.
pub(crate) const OWN: &[ConfigKey] = &[
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
        "broker.id",
        COUNT,
        "1",
        "This node's number by its older name: it is that of node.id.",
    ),
    own(
        "connections.max.idle.ms",
        LONG_MILLIS,
        "600000",
        "How long a Kafka client's connection may be silent, or take nothing of an answer.",
    ),
    fixed(
        "default.replication.factor",
        AT_LEAST_ONE,
        "1",
        "How many copies a topic's partitions have that is created without a number.",
        ONE_COPY,
    ),
    fixed(
        "delete.topic.enable",
        Kind::Flag,
        "true",
        "Whether topics can be deleted.",
        "topics can be deleted always",
    ),
    own(
        "fetch.max.bytes",
        BYTES,
        "57671680",
        "The most that one fetch returns, beyond one whole batch; never more than 16 MiB.",
    ),
    fixed(
        "group.consumer.assignors",
        Kind::Words(&["uniform", "range"]),
        "uniform,range",
        "The assignors of the consumer protocol; the first one is the default.",
        "these are the assignors there are, and members name the one they want",
    ),
    own(
        "group.consumer.heartbeat.interval.ms",
        Kind::Millis { min: 1, max: INT },
        "5000",
        "How often a member of the consumer protocol is asked to be heard.",
    ),
    own(
        "group.consumer.max.heartbeat.interval.ms",
        Kind::Millis { min: 1, max: INT },
        "15000",
        "The most that consumer.heartbeat.interval.ms of a group may be.",
    ),
    own(
        "group.consumer.max.session.timeout.ms",
        Kind::Millis { min: 1, max: INT },
        "60000",
        "The longest that consumer.session.timeout.ms of a group may be.",
    ),
    own(
        "group.consumer.max.size",
        AT_LEAST_ONE,
        "2147483647",
        "The most members a group of the consumer protocol may have.",
    ),
    fixed(
        "group.consumer.migration.policy",
        Kind::Word(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        "disabled",
        "Whether a group changes its protocol while it has members.",
        "a group changes its protocol when it has no members",
    ),
    own(
        "group.consumer.min.heartbeat.interval.ms",
        Kind::Millis { min: 1, max: INT },
        "5000",
        "The least that consumer.heartbeat.interval.ms of a group may be.",
    ),
    own(
        "group.consumer.min.session.timeout.ms",
        Kind::Millis { min: 1, max: INT },
        "45000",
        "The shortest that consumer.session.timeout.ms of a group may be.",
    ),
    own(
        "group.consumer.session.timeout.ms",
        Kind::Millis { min: 1, max: INT },
        "45000",
        "A member of the consumer protocol that is silent for so long is removed.",
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
        "listeners",
        Kind::Text,
        "",
        "Where Kafka clients are listened to; `--listen-kafka` says it.",
    ),
    own(
        "log.cleaner.backoff.ms",
        LONG_MILLIS,
        "15000",
        "How long compaction sleeps between two looks for work.",
    ),
    own(
        "log.dirs",
        Kind::Text,
        "",
        "The data directory; `--data-dir` says it.",
    ),
    own(
        "log.retention.check.interval.ms",
        LONG_MILLIS,
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
        AT_LEAST_ONE,
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
    fixed(
        "offsets.topic.num.partitions",
        AT_LEAST_ONE,
        "50",
        "How many partitions `__consumer_offsets` has.",
        IN_THE_STORE,
    ),
    fixed(
        "offsets.topic.replication.factor",
        Kind::Number { min: 1, max: SHORT },
        "1",
        "How many copies the partitions of `__consumer_offsets` have.",
        ONE_COPY,
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
    fixed(
        "transaction.state.log.min.isr",
        AT_LEAST_ONE,
        "1",
        "How many copies must have what is written to `__transaction_state`.",
        ONE_COPY,
    ),
    fixed(
        "transaction.state.log.num.partitions",
        AT_LEAST_ONE,
        "50",
        "How many partitions `__transaction_state` has.",
        IN_THE_STORE,
    ),
    fixed(
        "transaction.state.log.replication.factor",
        Kind::Number { min: 1, max: SHORT },
        "1",
        "How many copies the partitions of `__transaction_state` have.",
        ONE_COPY,
    ),
    own(
        "transactional.id.expiration.ms",
        MILLIS,
        "604800000",
        "How long a transactional id is remembered that has no transaction.",
    ),
];

const fn own(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        kind,
        default,
        doc,
        support: Support::Acted,
    }
}

/// One that tools read, and that has no other value.
const fn fixed(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
    why: &'static str,
) -> ConfigKey {
    ConfigKey {
        support: Support::DefaultOnly(why),
        ..own(name, kind, default, doc)
    }
}

/// The names of all broker settings.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let topic_defaults = TOPIC_DEFAULTS.iter().map(|(name, _)| *name);
    topic_defaults.chain(OWN.iter().map(|own| own.name))
}

/// Every broker setting in the order of names: those that are defaults of topics, and the others as they were given.
pub fn broker_configs(
    given: &BTreeMap<String, String>,
    defaults: &TopicDefaults,
) -> Vec<BrokerConfig> {
    let of_topics = TOPIC_DEFAULTS.iter().filter_map(|(name, topic)| {
        let key = configs::find(topic).ok()?;
        let values = defaults.values(topic).into_iter();
        let values = values.map(|(_, value, source)| (value.to_owned(), source));
        Some(BrokerConfig {
            name,
            kind: key.kind,
            values: values.chain([default(key.default)]).collect(),
            is_dynamic: true,
            doc: key.description(),
        })
    });
    let own = OWN.iter().map(|own| {
        let name = match own.name {
            "broker.id" => "node.id",
            name => name,
        };
        // As it was read.
        let value = given.get(name).and_then(|value| own.parse(value).ok());
        let value = value.map(|value| (value, Source::Broker));
        BrokerConfig {
            name: own.name,
            kind: own.kind,
            values: value.into_iter().chain([default(own.default)]).collect(),
            is_dynamic: false,
            doc: own.description(),
        }
    });
    let mut all: Vec<BrokerConfig> = of_topics.chain(own).collect();
    all.sort_by_key(|config| config.name);
    all
}

fn default(value: &str) -> (String, Source) {
    (value.to_owned(), Source::Default)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_there_once_with_what_was_given() {
        let given = BTreeMap::from([("num.partitions".to_owned(), "6".to_owned())]);
        let all = broker_configs(&given, &TopicDefaults::default());
        assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(all.len(), names().count());
        let find = |name: &str| all.iter().find(|config| config.name == name).unwrap();
        let partitions = find("num.partitions");
        let value = |value: &str, source| (value.to_owned(), source);
        assert_eq!(
            partitions.values,
            [value("6", Source::Broker), value("1", Source::Default)]
        );
        let retention = find("log.retention.ms");
        assert_eq!(retention.values, [value("604800000", Source::Default)]);
        assert!(retention.is_dynamic && !partitions.is_dynamic);
    }

    #[test]
    fn a_node_has_one_number() {
        let given = BTreeMap::from([("node.id".to_owned(), " 07".to_owned())]);
        let all = broker_configs(&given, &TopicDefaults::default());
        for name in ["node.id", "broker.id"] {
            let config = all.iter().find(|config| config.name == name).unwrap();
            assert_eq!(config.values[0], ("7".to_owned(), Source::Broker));
        }
    }

    #[test]
    fn what_has_no_other_value_shows_one_that_it_takes() {
        for key in OWN {
            if let Support::DefaultOnly(_) = key.support {
                assert_eq!(key.parse(key.default).unwrap(), key.default);
            }
        }
    }
}
