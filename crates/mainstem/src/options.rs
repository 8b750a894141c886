//! What can be set, and how the memory limit is shared out.

use crate::Error;
use crate::broker_configs::{self, OWN};
use mainstem_broker::{
    BrokerSettings, GroupSettings, TOPIC_DEFAULTS, TransactionSettings, configs,
};
use mainstem_engine::EngineOptions;
use mainstem_log::LogOptions;
use std::collections::BTreeMap;

/// Settings of the platform. `Options::default()` is meant to be right for one machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// `memory.limit`: bytes that all parts together keep to. 1 GiB by default, 256 MiB at least.
    pub memory_limit_bytes: u64,
    /// Broker settings under Kafka's names (`log.retention.ms`, `num.partitions`, `message.max.bytes`, …); a topic's
    /// own settings come first.
    pub broker: BTreeMap<String, String>,
    /// Threads that move handler tasks; 0 takes one per core.
    pub task_workers: usize,
    /// Threads that run SQL; 0 takes one per core.
    pub sql_threads: usize,
    /// Bytes of journal after which a checkpoint is taken: about what a restart reads at most.
    pub checkpoint_bytes: u64,
    /// Milliseconds after which another is taken, however little was written.
    pub checkpoint_interval_ms: u64,
    /// Milliseconds without work after which another is taken.
    pub checkpoint_idle_ms: u64,
    /// Free bytes on the disk below which writes are refused until there is space again.
    pub min_free_bytes: u64,
    /// Files that topics and the store keep open, at most; fewer where the process may not open so many. Connections and
    /// the journal's few are beside them.
    pub max_open_files: u64,
}

/// The least that `max_open_files` may be.
const LEAST_OPEN_FILES: u64 = 64;
/// The least that `memory.limit` may be.
const LEAST_MEMORY_BYTES: u64 = 256 << 20;

impl Default for Options {
    fn default() -> Options {
        let engine = EngineOptions::default();
        Options {
            memory_limit_bytes: 1 << 30,
            broker: BTreeMap::new(),
            task_workers: 0,
            sql_threads: 0,
            checkpoint_bytes: engine.checkpoint_bytes,
            checkpoint_interval_ms: engine.checkpoint_interval_ms,
            checkpoint_idle_ms: engine.checkpoint_idle_ms,
            min_free_bytes: engine.min_free_bytes,
            max_open_files: 7_000,
        }
    }
}

/// How `memory.limit` is shared out: the one place where it is decided.
///
/// | part | share | of 1 GiB |
/// |---|---|---|
/// | records: queued, being committed, or in the log's tail | 6/16 | 384 MiB |
/// | store backlog: admitted for the store and not yet applied | 1/16 | 64 MiB |
/// | store: RocksDB's write buffers and block cache | 2/16 | 128 MiB |
/// | SQL: sorts, joins, groupings and scans | 2/16 | 128 MiB |
/// | handlers: instances and their overlays | 2/16 | 128 MiB |
/// | gateways: requests being parsed, answers being sent | 1/16 | 64 MiB |
/// | the rest: code, stacks, the allocator's slack; 1/64 of all for what compressed batches become larger by | 2/16 | 128 MiB |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySplit {
    /// Records: queued, being committed, or in the log's tail. Writers wait beyond it.
    pub records_bytes: u64,
    /// Changes for the store that are admitted and not yet applied. Only those who write there wait.
    pub store_backlog_bytes: u64,
    /// RocksDB's write buffers and block cache together.
    pub store_bytes: u64,
    /// What all queries together may hold.
    pub sql_bytes: u64,
    /// Instances and overlays of handlers.
    pub handlers_bytes: u64,
    /// Requests being parsed and answers being sent.
    pub gateways_bytes: u64,
}

impl MemorySplit {
    /// Shares a limit out.
    pub fn of(limit_bytes: u64) -> MemorySplit {
        let sixteenth = limit_bytes / 16;
        MemorySplit {
            records_bytes: 6 * sixteenth,
            store_backlog_bytes: sixteenth,
            store_bytes: 2 * sixteenth,
            sql_bytes: 2 * sixteenth,
            handlers_bytes: 2 * sixteenth,
            gateways_bytes: sixteenth,
        }
    }
}

impl Options {
    /// How this memory limit is shared out.
    pub fn memory(&self) -> MemorySplit {
        MemorySplit::of(self.memory_limit_bytes)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.memory_limit_bytes < LEAST_MEMORY_BYTES {
            let why = format!(
                "{} bytes are too few; give at least 256MiB",
                self.memory_limit_bytes
            );
            return Err(Error::Setting {
                name: "memory.limit".into(),
                why,
            });
        }
        if self.max_open_files < LEAST_OPEN_FILES {
            return Err(Error::Setting {
                name: "max_open_files".into(),
                why: format!(
                    "{} are too few; give at least {LEAST_OPEN_FILES}",
                    self.max_open_files
                ),
            });
        }
        Ok(())
    }

    pub(crate) fn engine(&self) -> EngineOptions {
        let memory = self.memory();
        let log = LogOptions {
            // Of what is left for the rest; where it is too little for all keys, there are several passes.
            compaction_memory_bytes: usize::try_from(self.memory_limit_bytes / 32)
                .unwrap_or(usize::MAX),
            ..LogOptions::default()
        };
        EngineOptions {
            log,
            memory_bytes: memory.records_bytes,
            store_backlog_bytes: memory.store_backlog_bytes,
            // Large enough that many partitions each have something worth a write of its own.
            flush_bytes: memory.records_bytes / 4,
            checkpoint_bytes: self.checkpoint_bytes,
            checkpoint_interval_ms: self.checkpoint_interval_ms,
            checkpoint_idle_ms: self.checkpoint_idle_ms,
            min_free_bytes: self.min_free_bytes,
            ..EngineOptions::default()
        }
    }

    /// Milliseconds between two rounds of retention.
    pub(crate) fn retention_interval_ms(&self) -> Result<u64, Error> {
        let name = "log.retention.check.interval.ms";
        Ok(self.number(name)?.unwrap_or(300_000).max(1))
    }

    /// Milliseconds between two looks for what to compact.
    pub(crate) fn compaction_interval_ms(&self) -> Result<u64, Error> {
        Ok(self
            .number("log.cleaner.backoff.ms")?
            .unwrap_or(15_000)
            .max(1))
    }

    /// How long an idempotent producer is remembered that is silent.
    pub(crate) fn producer_expiration_ms(&self) -> Result<i64, Error> {
        let name = "producer.id.expiration.ms";
        let day_ms = 24 * 60 * 60 * 1_000;
        let ms = self.number(name)?.unwrap_or(day_ms).max(1);
        Ok(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    pub(crate) fn broker_settings(&self) -> Result<BrokerSettings, Error> {
        let mut settings = BrokerSettings::default();
        if let Some(count) = self.number("num.partitions")? {
            settings.num_partitions = u32::try_from(count).unwrap_or(u32::MAX);
        }
        if let Some(id) = self.number("node.id")? {
            settings.node_id = u32::try_from(id).unwrap_or(u32::MAX);
        }
        if let Some(id) = self.number("broker.id")?
            && id != u64::from(settings.node_id)
        {
            return Err(Error::Setting {
                name: "broker.id".into(),
                why: format!("it is node.id, which is {}", settings.node_id),
            });
        }
        settings.groups = self.group_settings()?;
        settings.transactions = self.transaction_settings()?;
        // The finer unit wins, as it does in Kafka.
        for (name, unit_ms) in [
            ("log.retention.hours", 3_600_000),
            ("log.retention.minutes", 60_000),
        ] {
            if let Some(count) = self.number(name)? {
                settings.topic_defaults.insert(
                    "retention.ms".into(),
                    count.saturating_mul(unit_ms).to_string(),
                );
            }
        }
        for (name, value) in &self.broker {
            if let Some((_, topic_name)) = TOPIC_DEFAULTS
                .iter()
                .find(|(broker_name, _)| name == broker_name)
            {
                settings
                    .topic_defaults
                    .insert((*topic_name).into(), value.clone());
            } else if let Some(own) = OWN.iter().find(|own| own.name == name) {
                own.parse(value)?;
            } else {
                let known: Vec<&str> = broker_configs::names().collect();
                let why = if configs::find(name).is_ok() {
                    "it is a setting of topics: give it to `mainstem topic create --set`"
                        .to_string()
                } else {
                    format!(
                        "there is no such broker setting; there are {}",
                        known.join(", ")
                    )
                };
                return Err(Error::Setting {
                    name: name.clone(),
                    why,
                });
            }
        }
        Ok(settings)
    }

    fn group_settings(&self) -> Result<GroupSettings, Error> {
        let mut groups = GroupSettings::default();
        for (name, setting, unit_ms) in [
            (
                "group.initial.rebalance.delay.ms",
                &mut groups.initial_rebalance_delay_ms,
                1,
            ),
            (
                "group.min.session.timeout.ms",
                &mut groups.min_session_timeout_ms,
                1,
            ),
            (
                "group.max.session.timeout.ms",
                &mut groups.max_session_timeout_ms,
                1,
            ),
            (
                "group.consumer.session.timeout.ms",
                &mut groups.consumer_session_timeout_ms,
                1,
            ),
            (
                "group.consumer.min.session.timeout.ms",
                &mut groups.consumer_min_session_timeout_ms,
                1,
            ),
            (
                "group.consumer.max.session.timeout.ms",
                &mut groups.consumer_max_session_timeout_ms,
                1,
            ),
            (
                "group.consumer.min.heartbeat.interval.ms",
                &mut groups.consumer_min_heartbeat_interval_ms,
                1,
            ),
            (
                "group.consumer.max.heartbeat.interval.ms",
                &mut groups.consumer_max_heartbeat_interval_ms,
                1,
            ),
            (
                "group.consumer.heartbeat.interval.ms",
                &mut groups.consumer_heartbeat_interval_ms,
                1,
            ),
            (
                "offsets.retention.minutes",
                &mut groups.offsets_retention_ms,
                60_000,
            ),
        ] {
            if let Some(count) = self.number(name)? {
                *setting = i64::try_from(count.saturating_mul(unit_ms)).unwrap_or(i64::MAX);
            }
        }
        for (name, setting) in [
            ("group.max.size", &mut groups.max_size),
            ("group.consumer.max.size", &mut groups.consumer_max_size),
            (
                "offset.metadata.max.bytes",
                &mut groups.offset_metadata_max_bytes,
            ),
        ] {
            if let Some(count) = self.number(name)? {
                *setting = usize::try_from(count).unwrap_or(usize::MAX);
            }
        }
        let consumer = [
            (
                "group.consumer.session.timeout.ms",
                groups.consumer_session_timeout_ms,
                groups.consumer_min_session_timeout_ms..=groups.consumer_max_session_timeout_ms,
            ),
            (
                "group.consumer.heartbeat.interval.ms",
                groups.consumer_heartbeat_interval_ms,
                groups.consumer_min_heartbeat_interval_ms
                    ..=groups.consumer_max_heartbeat_interval_ms,
            ),
        ];
        for (name, value, range) in consumer {
            if !range.contains(&value) {
                return Err(Error::Setting {
                    name: name.into(),
                    why: format!(
                        "{value} is not between group.consumer.min.* and group.consumer.max.* of its kind, {} and {}",
                        range.start(),
                        range.end()
                    ),
                });
            }
        }
        if groups.consumer_heartbeat_interval_ms >= groups.consumer_session_timeout_ms {
            return Err(Error::Setting {
                name: "group.consumer.heartbeat.interval.ms".into(),
                why: "it is not below group.consumer.session.timeout.ms".into(),
            });
        }
        Ok(groups)
    }

    fn transaction_settings(&self) -> Result<TransactionSettings, Error> {
        let mut transactions = TransactionSettings::default();
        for (name, setting) in [
            (
                "transaction.max.timeout.ms",
                &mut transactions.max_timeout_ms,
            ),
            (
                "transactional.id.expiration.ms",
                &mut transactions.id_expiration_ms,
            ),
        ] {
            if let Some(count) = self.number(name)? {
                *setting = i64::try_from(count.max(1)).unwrap_or(i64::MAX);
            }
        }
        Ok(transactions)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.broker.get(name) else {
            return Ok(None);
        };
        let why = || Error::Setting {
            name: name.into(),
            why: format!("`{value}` is not a whole number"),
        };
        value.trim().parse().map(Some).map_err(|_| why())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn with(settings: &[(&str, &str)]) -> Result<BrokerSettings, Error> {
        let broker = settings
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Options {
            broker,
            ..Options::default()
        }
        .broker_settings()
    }

    #[test]
    fn kafkas_broker_names_are_defaults_of_topics() {
        let settings = with(&[
            ("num.partitions", "6"),
            ("log.retention.hours", "2"),
            ("message.max.bytes", "2048"),
        ])
        .unwrap();
        assert_eq!(settings.num_partitions, 6);
        assert_eq!(settings.topic_defaults["retention.ms"], "7200000");
        assert_eq!(settings.topic_defaults["max.message.bytes"], "2048");
        let finer = with(&[("log.retention.hours", "2"), ("log.retention.ms", "5")]).unwrap();
        assert_eq!(finer.topic_defaults["retention.ms"], "5");
    }

    #[test]
    fn groups_are_set_by_kafkas_names() {
        let settings = with(&[
            ("group.initial.rebalance.delay.ms", "0"),
            ("group.max.size", "7"),
            ("group.consumer.session.timeout.ms", "8"),
            ("group.consumer.min.session.timeout.ms", "7"),
            ("group.consumer.heartbeat.interval.ms", "6"),
            ("group.consumer.min.heartbeat.interval.ms", "5"),
            ("group.consumer.max.size", "10"),
            ("offsets.retention.minutes", "2"),
        ])
        .unwrap();
        let expected = GroupSettings {
            initial_rebalance_delay_ms: 0,
            max_size: 7,
            consumer_session_timeout_ms: 8,
            consumer_min_session_timeout_ms: 7,
            consumer_heartbeat_interval_ms: 6,
            consumer_min_heartbeat_interval_ms: 5,
            consumer_max_size: 10,
            offsets_retention_ms: 120_000,
            ..GroupSettings::default()
        };
        assert_eq!(settings.groups, expected);
        for (name, value) in [
            ("group.consumer.session.timeout.ms", "44999"),
            ("group.consumer.heartbeat.interval.ms", "15001"),
            ("group.consumer.max.session.timeout.ms", "1"),
        ] {
            let error = with(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains("group.consumer."), "{error}");
        }
    }

    #[test]
    fn unknown_settings_are_named() {
        let error = with(&[("log.retension.ms", "1")]).unwrap_err();
        assert!(
            error.to_string().contains("log.retension.ms")
                && error.to_string().contains("log.retention.ms"),
            "{error}"
        );
        assert!(with(&[("num.partitions", "x")]).is_err());
        let error = with(&[("num.partitions", "0")]).unwrap_err().to_string();
        assert!(error.contains("num.partitions"), "{error}");
        assert!(
            with(&[("retention.ms", "1")])
                .unwrap_err()
                .to_string()
                .contains("topic create")
        );
    }

    #[test]
    fn what_has_one_value_is_taken_with_it_alone() {
        let settings = with(&[
            ("default.replication.factor", " 1 "),
            ("delete.topic.enable", "True"),
            ("group.consumer.assignors", "uniform, range"),
            ("group.consumer.migration.policy", "disabled"),
            ("offsets.topic.num.partitions", "50"),
            ("offsets.topic.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("transaction.state.log.num.partitions", "50"),
            ("transaction.state.log.replication.factor", "1"),
            ("node.id", "7"),
            ("broker.id", "7"),
        ]);
        assert_eq!(settings.unwrap().node_id, 7);
        for (name, value) in [
            ("default.replication.factor", "3"),
            ("delete.topic.enable", "false"),
            ("group.consumer.assignors", "range"),
            ("group.consumer.migration.policy", "bidirectional"),
            ("offsets.topic.num.partitions", "10"),
            ("transaction.state.log.min.isr", "2"),
            ("transaction.state.log.replication.factor", "3"),
            ("broker.id", "2"),
        ] {
            let error = with(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_shares_leave_an_eighth_for_the_rest() {
        let split = MemorySplit::of(1 << 30);
        let shared = split.records_bytes
            + split.store_backlog_bytes
            + split.store_bytes
            + split.sql_bytes
            + split.handlers_bytes
            + split.gateways_bytes;
        assert_eq!(shared, (1 << 30) - (128 << 20));
    }
}
