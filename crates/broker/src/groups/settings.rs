//! The settings of groups, by Kafka's names and with its defaults.

/// What groups keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long the first members of an empty group wait for more (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: i64,
    /// The shortest session timeout a member may ask for (`group.min.session.timeout.ms`).
    pub min_session_timeout_ms: i64,
    /// The longest session timeout a member may ask for (`group.max.session.timeout.ms`).
    pub max_session_timeout_ms: i64,
    /// The most members a group may have (`group.max.size`).
    pub max_size: usize,
    /// A member of the consumer protocol that is silent for so long is removed (`group.consumer.session.timeout.ms`).
    pub consumer_session_timeout_ms: i64,
    /// The shortest that a group's own may be (`group.consumer.min.session.timeout.ms`).
    pub consumer_min_session_timeout_ms: i64,
    /// The longest (`group.consumer.max.session.timeout.ms`).
    pub consumer_max_session_timeout_ms: i64,
    /// How often a member of the consumer protocol is asked to be heard (`group.consumer.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval_ms: i64,
    /// The least that a group's own may be (`group.consumer.min.heartbeat.interval.ms`).
    pub consumer_min_heartbeat_interval_ms: i64,
    /// The most (`group.consumer.max.heartbeat.interval.ms`).
    pub consumer_max_heartbeat_interval_ms: i64,
    /// The most members a group of the consumer protocol may have (`group.consumer.max.size`).
    pub consumer_max_size: usize,
    /// How long a committed offset stays once its group is empty (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// The longest metadata an offset may carry (`offset.metadata.max.bytes`).
    pub offset_metadata_max_bytes: usize,
}

impl Default for GroupSettings {
    fn default() -> Self {
        GroupSettings {
            initial_rebalance_delay_ms: 3_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            max_size: i32::MAX as usize,
            consumer_session_timeout_ms: 45_000,
            consumer_min_session_timeout_ms: 45_000,
            consumer_max_session_timeout_ms: 60_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_min_heartbeat_interval_ms: 5_000,
            consumer_max_heartbeat_interval_ms: 15_000,
            consumer_max_size: i32::MAX as usize,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offset_metadata_max_bytes: 4_096,
        }
    }
}
