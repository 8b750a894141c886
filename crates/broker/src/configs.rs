//! The topic settings, by Kafka's names: one table with type, default, meaning, and what is done about each.

use std::collections::BTreeMap;

use mainstem_log::SegmentLimits;
use mainstem_record::{Codec, Compression};

use crate::defaults::{TopicDefaults, broker_name};
pub use crate::kinds::Kind;
use crate::{BrokerError, names};

/// Values of settings, by name.
type Configs = BTreeMap<String, String>;

/// What is done about a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It takes effect.
    Acted,
    /// Accepted and shown, because tools for Kafka set it; it changes nothing here, for this reason.
    Idle(&'static str),
    /// Only the default is accepted, because any other value would break a promise or ask for what is not there.
    DefaultOnly(&'static str),
}

/// One topic setting.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value where none is given.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What is done about it.
    pub support: Support,
}

impl ConfigKey {
    /// What it does, and what Mainstem does about it, for people.
    pub fn description(&self) -> String {
        match self.support {
            Support::Acted => self.doc.to_owned(),
            Support::Idle(why) => format!("{} It changes nothing here: {why}.", self.doc),
            Support::DefaultOnly(why) => {
                format!("{} Only the default is accepted: {why}.", self.doc)
            }
        }
    }
}

/// A setting of one topic, as it is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set for this node while it ran.
    DynamicNode,
    /// Set for all nodes while they ran.
    DynamicCluster,
    /// Given when the broker started.
    Broker,
    /// The default of the table.
    Default,
}

/// A setting with the value that holds for a topic.
#[derive(Clone, Debug)]
pub struct ConfigValue {
    /// The setting.
    pub key: &'static ConfigKey,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
    /// Every value that there is for it, the one that holds first.
    pub synonyms: Vec<Synonym>,
}

/// A value that a setting has somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The setting's name there.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// Where.
    pub source: Source,
}

/// The settings that are acted on, in the form they are used in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Records older than this are removed, whole segments at a time; `None` keeps them.
    pub retention_ms: Option<i64>,
    /// A partition larger than this loses its oldest segments; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// When segments are sealed; a size that is not set is the data directory's.
    pub segments: SegmentLimits,
    /// Whether retention applies: not where records are only compacted.
    pub deletes: bool,
    /// How the topic is compacted, if it is: then every record has a key.
    pub compaction: Option<CompactionLimits>,
    /// The largest batch accepted.
    pub max_message_bytes: usize,
    /// What batches are compressed with, whatever their producers did; `None` keeps them as they come.
    pub codec: Option<Codec>,
    /// Which times records may have, where they have their producer's.
    pub times: TimeLimits,
    /// Whether the log gives records its own time, instead of their producer's.
    pub append_time: bool,
}

/// How far records' times may be from the server's (KIP-937).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// How far behind; `i64::MAX` is without limit.
    pub before_max_ms: i64,
    /// How far ahead; `i64::MAX` is without limit.
    pub after_max_ms: i64,
}

/// How a topic is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionLimits {
    /// The share of what could be compacted that is not yet, above which it is, in millionths.
    pub min_dirty_millionths: u64,
    /// Segments with a record younger than this are left alone.
    pub min_lag_ms: i64,
    /// With a record older than this that is not compacted yet, the partition is, whatever its share; `i64::MAX` is without limit.
    pub max_lag_ms: i64,
    /// How long a tombstone stays after compaction has first seen it.
    pub delete_retention_ms: i64,
}

/// A segment has two files and an entry in every checkpoint: smaller ones cost more than they hold.
const LEAST_SEGMENT_BYTES: u64 = 1 << 20;
/// What a batch may ask for in memory, whatever `max.message.bytes` says. A frame has room for less still.
const MOST_BATCH_BYTES: usize = 64 << 20;
/// The largest value of what is an INT for Kafka.
const INT: i64 = i32::MAX as i64;
/// Two settings that must fit each other.
const MIN_LAG: &str = "min.compaction.lag.ms";
const MAX_LAG: &str = "max.compaction.lag.ms";

const SYNCED: &str =
    "every answer waits for the sync of its frame; there is nothing to flush less or more often";
const ONE_COPY: &str = "there is one copy of a partition on a node";
const ONE_LEVEL: &str = "lz4 compresses at one level here";
const NO_TIERS: &str = "there is no second tier of storage yet";
const OWN_INDEX: &str = "the index is kept in memory and rebuilt by itself";

/// Every topic setting there is, in the order of names.
pub const TABLE: &[ConfigKey] = &[
    key(
        "cleanup.policy",
        Kind::Words(&["compact", "delete"]),
        "delete",
        "What happens to old records: they are deleted, or only the last record of each key is kept, or both.",
        Support::Acted,
    ),
    key(
        "compression.gzip.level",
        Kind::NumberOr {
            default: -1,
            min: 1,
            max: 9,
        },
        "-1",
        "How hard gzip compresses where compression.type is gzip; -1 is its default.",
        Support::Acted,
    ),
    key(
        "compression.lz4.level",
        Kind::Number { min: 1, max: 17 },
        "9",
        "How hard lz4 compresses where compression.type is lz4.",
        Support::Idle(ONE_LEVEL),
    ),
    key(
        "compression.type",
        Kind::Word(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
        "How batches are compressed at rest; 'producer' keeps what the producer chose.",
        Support::Acted,
    ),
    key(
        "compression.zstd.level",
        Kind::Number {
            min: -131_072,
            max: 22,
        },
        "3",
        "How hard zstd compresses where compression.type is zstd.",
        Support::Acted,
    ),
    key(
        "delete.retention.ms",
        millis(0),
        "86400000",
        "How long a compacted topic keeps a tombstone after compaction has first seen it.",
        Support::Acted,
    ),
    key(
        "file.delete.delay.ms",
        millis(0),
        "60000",
        "How long a removed segment's file stays.",
        Support::Idle("files go with the next checkpoint"),
    ),
    key(
        "flush.messages",
        Kind::Number {
            min: 1,
            max: i64::MAX,
        },
        "9223372036854775807",
        "After how many records a partition is synced.",
        Support::Idle(SYNCED),
    ),
    key(
        "flush.ms",
        millis(0),
        "9223372036854775807",
        "After how long a partition is synced.",
        Support::Idle(SYNCED),
    ),
    key(
        "follower.replication.throttled.replicas",
        Kind::Replicas,
        "",
        "Replicas whose fetching is slowed down.",
        Support::Idle(ONE_COPY),
    ),
    key(
        "index.interval.bytes",
        Kind::Bytes { min: 0, max: INT },
        "4096",
        "The distance of entries in the index.",
        Support::Idle(OWN_INDEX),
    ),
    key(
        "leader.replication.throttled.replicas",
        Kind::Replicas,
        "",
        "Replicas whose sending is slowed down.",
        Support::Idle(ONE_COPY),
    ),
    key(
        "local.retention.bytes",
        Kind::Bytes {
            min: -2,
            max: i64::MAX,
        },
        "-2",
        "The part of retention.bytes that stays on local disk; -2 is all of it.",
        Support::DefaultOnly(NO_TIERS),
    ),
    key(
        "local.retention.ms",
        millis(-2),
        "-2",
        "The part of retention.ms that stays on local disk; -2 is all of it.",
        Support::DefaultOnly(NO_TIERS),
    ),
    key(
        MAX_LAG,
        millis(1),
        "9223372036854775807",
        "How long a record of a compacted topic may stay uncompacted: then compaction begins, however little is dirty.",
        Support::Acted,
    ),
    key(
        "max.message.bytes",
        Kind::Bytes { min: 0, max: INT },
        "1048588",
        "The largest batch of records accepted, as it is sent; all of a request together has 16 MiB at most, whatever this says.",
        Support::Acted,
    ),
    key(
        "message.downconversion.enable",
        Kind::Flag,
        "true",
        "Whether batches are rewritten for old consumers.",
        Support::Idle("there is one batch format"),
    ),
    key(
        "message.timestamp.after.max.ms",
        millis(0),
        "3600000",
        "How far a record's time may lie ahead of the server's.",
        Support::Acted,
    ),
    key(
        "message.timestamp.before.max.ms",
        millis(0),
        "9223372036854775807",
        "How far a record's time may lie behind the server's.",
        Support::Acted,
    ),
    key(
        "message.timestamp.type",
        Kind::Word(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose clock gives a record its time: the producer's or the server's.",
        Support::Acted,
    ),
    key(
        "min.cleanable.dirty.ratio",
        Kind::Share,
        "0.5",
        "The share of a partition's sealed segments that is not compacted yet above which compaction begins.",
        Support::Acted,
    ),
    key(
        MIN_LAG,
        millis(0),
        "0",
        "How long a record of a compacted topic stays uncompacted at least.",
        Support::Acted,
    ),
    key(
        "min.insync.replicas",
        Kind::Number { min: 1, max: INT },
        "1",
        "How many copies must have a batch before it is acknowledged.",
        Support::DefaultOnly(ONE_COPY),
    ),
    key(
        "preallocate",
        Kind::Flag,
        "false",
        "Whether segment files are allocated at once.",
        Support::Idle("space is kept ready for the whole data directory"),
    ),
    key(
        "remote.log.copy.disable",
        Kind::Flag,
        "false",
        "Whether nothing more moves to remote storage.",
        Support::DefaultOnly(NO_TIERS),
    ),
    key(
        "remote.log.delete.on.disable",
        Kind::Flag,
        "false",
        "Whether what is in remote storage goes when it is disabled.",
        Support::DefaultOnly(NO_TIERS),
    ),
    key(
        "remote.storage.enable",
        Kind::Flag,
        "false",
        "Whether old segments move to remote storage.",
        Support::DefaultOnly(NO_TIERS),
    ),
    key(
        "retention.bytes",
        Kind::Bytes {
            min: -1,
            max: i64::MAX,
        },
        "-1",
        "How large a partition may become before its oldest segments are removed; -1 is without limit.",
        Support::Acted,
    ),
    key(
        "retention.ms",
        millis(-1),
        "604800000",
        "How old records may become before their segments are removed; -1 is without limit.",
        Support::Acted,
    ),
    key(
        "segment.bytes",
        Kind::Bytes { min: 14, max: INT },
        "134217728",
        "How large a segment becomes before the next one is begun, 1 MiB at least; retention removes whole segments.",
        Support::Acted,
    ),
    key(
        "segment.index.bytes",
        Kind::Bytes { min: 4, max: INT },
        "10485760",
        "How large a segment's index becomes.",
        Support::Idle(OWN_INDEX),
    ),
    key(
        "segment.jitter.ms",
        millis(0),
        "0",
        "How much segment.ms varies.",
        Support::Idle("segments are closed when they are written, which spreads them already"),
    ),
    key(
        "segment.ms",
        millis(1),
        "604800000",
        "How much later than a segment's first batch a batch may be and still go into it.",
        Support::Acted,
    ),
    key(
        "unclean.leader.election.enable",
        Kind::Flag,
        "false",
        "Whether a copy that misses acknowledged records may lead.",
        Support::DefaultOnly("it would lose acknowledged records"),
    ),
];

/// Milliseconds from so many on, which are a LONG for Kafka.
const fn millis(min: i64) -> Kind {
    Kind::Millis { min, max: i64::MAX }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
    support: Support,
) -> ConfigKey {
    ConfigKey {
        name,
        kind,
        default,
        doc,
        support,
    }
}

/// The setting of that name.
pub fn find(name: &str) -> Result<&'static ConfigKey, BrokerError> {
    TABLE
        .iter()
        .find(|key| key.name == name)
        .ok_or_else(|| BrokerError::UnknownConfig {
            name: name.chars().take(100).collect(),
            near: names::near(name, TABLE.iter().map(|key| key.name)),
        })
}

impl ConfigKey {
    /// A value that somebody wants to set, as it is kept.
    pub fn parse(&self, value: &str) -> Result<String, BrokerError> {
        let parsed = self
            .kind
            .parse(value)
            .map_err(|why| BrokerError::InvalidConfig {
                name: self.name.into(),
                value: value.chars().take(100).collect(),
                why,
            })?;
        match self.support {
            Support::DefaultOnly(reason) if parsed != self.default => {
                Err(BrokerError::RefusedConfig {
                    name: self.name.into(),
                    value: parsed,
                    reason,
                })
            }
            _ => Ok(parsed),
        }
    }
}

/// The settings that somebody wants a topic to have, as they are kept.
pub(crate) fn parse_all(configs: &Configs) -> Result<Configs, BrokerError> {
    let parse = |(name, value): (&String, &String)| Ok((name.clone(), find(name)?.parse(value)?));
    configs.iter().map(parse).collect()
}

/// Refuses settings that each are good and together are not.
pub(crate) fn check_together(topic: &Configs, broker: &Configs) -> Result<(), BrokerError> {
    let [min_ms, max_ms] = [MIN_LAG, MAX_LAG].map(|name| number(name, topic, broker));
    if min_ms <= max_ms {
        return Ok(());
    }
    Err(BrokerError::InvalidConfig {
        name: MIN_LAG.into(),
        value: min_ms.to_string(),
        why: format!("it is above {MAX_LAG}, which is {max_ms}"),
    })
}

/// The number that holds.
fn number(name: &str, topic: &Configs, broker: &Configs) -> i64 {
    let default = || {
        find(name)
            .ok()
            .and_then(|key| key.default.parse().ok())
            .unwrap_or(-1)
    };
    let set = topic.get(name).or_else(|| broker.get(name));
    set.and_then(|value| value.parse().ok())
        .unwrap_or_else(default)
}

/// Every setting with the value that holds: the topic's, else the broker's, else the table's.
pub fn effective(topic: &Configs, defaults: &TopicDefaults) -> Vec<ConfigValue> {
    let value = |key: &'static ConfigKey| {
        let own = topic
            .get(key.name)
            .map(|value| (key.name, value.as_str(), Source::Topic));
        let default = broker_name(key.name).unwrap_or(key.name);
        let default = (default, key.default, Source::Default);
        let synonyms: Vec<Synonym> = own
            .into_iter()
            .chain(defaults.values(key.name))
            .chain([default])
            .map(|(name, value, source)| Synonym {
                name,
                value: value.to_owned(),
                source,
            })
            .collect();
        let (value, source) = synonyms.first().map_or_else(
            || (key.default.to_owned(), Source::Default),
            |first| (first.value.clone(), first.source),
        );
        ConfigValue {
            key,
            value,
            source,
            synonyms,
        }
    };
    TABLE.iter().map(value).collect()
}

impl TopicLimits {
    /// The limits that hold for a topic with these settings. Values were checked when they were set; one that a later
    /// release no longer understands falls back to its default.
    pub fn of(topic: &Configs, broker: &Configs) -> TopicLimits {
        let number = |name: &str| number(name, topic, broker);
        // Where nobody has set it, the data directory's own size holds.
        let own = |name: &str| topic.get(name).or_else(|| broker.get(name));
        let policies = own("cleanup.policy").map_or("delete", String::as_str);
        let has = |policy| policies.split(',').any(|one| one.trim() == policy);
        let ratio = own("min.cleanable.dirty.ratio").and_then(|ratio| ratio.parse().ok());
        let ratio: f64 = ratio.unwrap_or(0.5);
        let max_lag_ms = number(MAX_LAG);
        // What is not sealed is not compacted.
        let most_segment_ms = if has("compact") { max_lag_ms } else { i64::MAX };
        TopicLimits {
            segments: SegmentLimits {
                // Older tools set a few bytes, to see segments roll.
                segment_bytes: own("segment.bytes")
                    .and_then(|bytes| bytes.parse().ok())
                    .map(|bytes: u64| bytes.max(LEAST_SEGMENT_BYTES)),
                segment_ms: Some(number("segment.ms").min(most_segment_ms)),
            },
            deletes: !has("compact") || has("delete"),
            compaction: has("compact").then(|| CompactionLimits {
                min_dirty_millionths: (ratio * 1e6) as u64,
                min_lag_ms: number(MIN_LAG),
                max_lag_ms,
                delete_retention_ms: number("delete.retention.ms"),
            }),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            max_message_bytes: usize::try_from(number("max.message.bytes"))
                .map_or(MOST_BATCH_BYTES, |bytes| bytes.min(MOST_BATCH_BYTES)),
            codec: compression(own("compression.type")).map(|compression| Codec {
                compression,
                level: level(compression, number),
            }),
            times: TimeLimits {
                before_max_ms: number("message.timestamp.before.max.ms"),
                after_max_ms: number("message.timestamp.after.max.ms"),
            },
            append_time: own("message.timestamp.type").is_some_and(|own| own == "LogAppendTime"),
        }
    }
}

/// What `compression.type` says.
fn compression(value: Option<&String>) -> Option<Compression> {
    match value?.as_str() {
        "producer" => None,
        "uncompressed" => Some(Compression::None),
        name => name.parse().ok(),
    }
}

/// The level that a codec is to have (KIP-390), where it has several.
fn level(compression: Compression, number: impl Fn(&str) -> i64) -> Option<i32> {
    let level = match compression {
        Compression::Gzip => number("compression.gzip.level"),
        Compression::Zstd => number("compression.zstd.level"),
        Compression::None | Compression::Snappy | Compression::Lz4 => return None,
    };
    let is_default = compression == Compression::Gzip && level < 0;
    i32::try_from(level).ok().filter(|_| !is_default)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn code(name: &str, value: &str) -> &'static str {
        find(name)
            .and_then(|key| key.parse(value))
            .map_or_else(|error| error.code(), |_| "ok")
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_values() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for key in TABLE {
            assert_eq!(key.parse(key.default).unwrap(), key.default);
            assert!(key.doc.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn values_are_judged_by_the_table() {
        for (name, value, expected) in [
            ("retention.ms", "1000", "ok"),
            ("retention.ms", "-1", "ok"),
            ("retention.ms", "-2", "invalid_config"),
            ("retention.ms", "1 day", "invalid_config"),
            ("max.message.bytes", "0", "ok"),
            ("max.message.bytes", "-1", "invalid_config"),
            ("max.message.bytes", "2147483647", "ok"),
            ("max.message.bytes", "2147483648", "invalid_config"),
            ("segment.bytes", "2147483647", "ok"),
            ("segment.bytes", "2147483648", "invalid_config"),
            ("cleanup.policy", "compact,,delete", "invalid_config"),
            ("leader.replication.throttled.replicas", "0:1", "ok"),
            ("unclean.leader.election.enable", "False", "ok"),
            ("cleanup.policy", "delete", "ok"),
            ("cleanup.policy", "compact", "ok"),
            ("compression.type", "gzip", "ok"),
            ("compression.type", "none", "invalid_config"),
            ("compression.gzip.level", "-1", "ok"),
            ("compression.gzip.level", "0", "invalid_config"),
            ("compression.zstd.level", "-131072", "ok"),
            ("compression.zstd.level", "23", "invalid_config"),
            ("cleanup.policy", "shred", "invalid_config"),
            ("min.insync.replicas", "2", "refused_config"),
            ("unclean.leader.election.enable", "true", "refused_config"),
            ("unclean.leader.election.enable", "yes", "invalid_config"),
            ("flush.messages", "1", "ok"),
            ("min.cleanable.dirty.ratio", "0.25", "ok"),
            ("min.cleanable.dirty.ratio", "7", "invalid_config"),
            ("segment.ms", "1", "ok"),
            ("retension.ms", "1", "unknown_config"),
        ] {
            assert_eq!(code(name, value), expected, "{name}={value}");
        }
    }

    #[test]
    fn the_least_wait_for_compaction_is_not_above_the_longest() {
        let configs = |configs: &[(&str, &str)]| -> Configs {
            let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
            configs.iter().map(owned).collect()
        };
        let none = Configs::new();
        let fits = configs(&[(MIN_LAG, "5"), (MAX_LAG, "5")]);
        check_together(&fits, &none).unwrap();
        check_together(&none, &none).unwrap();
        for (topic, broker) in [
            (configs(&[(MIN_LAG, "6"), (MAX_LAG, "5")]), none.clone()),
            (configs(&[(MIN_LAG, "6")]), configs(&[(MAX_LAG, "5")])),
            (configs(&[(MAX_LAG, "5")]), configs(&[(MIN_LAG, "6")])),
        ] {
            let error = check_together(&topic, &broker).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
        }
        let segment_ms = |policy: &str, max_lag: &str| {
            let topic = configs(&[("cleanup.policy", policy), (MAX_LAG, max_lag)]);
            TopicLimits::of(&topic, &none).segments.segment_ms
        };
        assert_eq!(segment_ms("compact,delete", "9"), Some(9));
        assert_eq!(segment_ms("delete", "9"), Some(604_800_000));
        assert_eq!(segment_ms("compact", "604800001"), Some(604_800_000));
    }

    #[test]
    fn a_batch_is_bounded_whatever_is_set() {
        let limit = |bytes: &str| {
            let topic = Configs::from([("max.message.bytes".to_owned(), bytes.to_owned())]);
            TopicLimits::of(&topic, &Configs::new()).max_message_bytes
        };
        let limits = ["0", "67108863", "67108865", "2147483647"].map(limit);
        assert_eq!(limits, [0, 67_108_863, 67_108_864, 67_108_864]);
    }

    #[test]
    fn an_unknown_setting_is_answered_with_near_ones() {
        let error = find("retension.ms").unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean 'retention.ms'?");
    }

    #[test]
    fn the_codec_comes_with_its_level() {
        let codec = |configs: &[(&str, &str)]| {
            let configs = configs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()));
            let limits = TopicLimits::of(&configs.collect(), &BTreeMap::new());
            limits.codec.map(|codec| (codec.compression, codec.level))
        };
        assert_eq!(codec(&[]), None);
        assert_eq!(codec(&[("compression.type", "producer")]), None);
        for (name, expected) in [
            ("uncompressed", (Compression::None, None)),
            ("gzip", (Compression::Gzip, None)),
            ("snappy", (Compression::Snappy, None)),
            ("lz4", (Compression::Lz4, None)),
            ("zstd", (Compression::Zstd, Some(3))),
        ] {
            assert_eq!(codec(&[("compression.type", name)]), Some(expected));
        }
        let gzip = [
            ("compression.type", "gzip"),
            ("compression.gzip.level", "9"),
        ];
        assert_eq!(codec(&gzip), Some((Compression::Gzip, Some(9))));
        let zstd = [
            ("compression.type", "zstd"),
            ("compression.zstd.level", "-5"),
        ];
        assert_eq!(codec(&zstd), Some((Compression::Zstd, Some(-5))));
    }

    #[test]
    fn limits_come_from_the_topic_then_the_broker_then_the_table() {
        let topic = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let broker = BTreeMap::from([
            ("retention.ms".to_owned(), "5".to_owned()),
            ("max.message.bytes".to_owned(), "2048".to_owned()),
        ]);
        let limits = TopicLimits::of(&topic, &broker);
        assert_eq!(limits.retention_ms, None);
        assert_eq!(limits.retention_bytes, None);
        assert_eq!(limits.max_message_bytes, 2048);
        let sources: Vec<Source> = effective(&topic, &TopicDefaults::given(broker))
            .into_iter()
            .filter(|value| {
                ["retention.ms", "max.message.bytes", "segment.bytes"].contains(&value.key.name)
            })
            .map(|value| value.source)
            .collect();
        assert_eq!(sources, [Source::Broker, Source::Topic, Source::Default]);
    }
}
