//! Everything the broker refuses or fails at, with a code that scripts can rely on.

use mainstem_engine::{AppendError, EngineError};
use mainstem_log::LogError;
use mainstem_record::RecordError;
use mainstem_store::StoreError;

use crate::groups::{ASSIGNORS, GroupType};
use crate::names::one_of;

/// An error of the broker. The message says what was wrong and where; [`BrokerError::hint`] says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// No such topic in the caller's tenant.
    #[error("there is no topic '{topic}'")]
    TopicNotFound {
        /// The name asked for.
        topic: String,
        /// Existing names like it.
        near: Vec<String>,
    },
    /// No topic of that id in the caller's tenant: it was deleted, or created again under its name.
    #[error("there is no topic with the id {id}")]
    TopicIdNotFound {
        /// The id asked for.
        id: String,
    },
    /// The name is taken.
    #[error("topic '{topic}' exists already")]
    TopicExists {
        /// The name.
        topic: String,
    },
    /// The name is another topic's but for '.' and '_'. In Kafka's words, which tools look for.
    #[error("Topic '{topic}' collides with existing topic: {existing}")]
    TopicCollides {
        /// The name.
        topic: String,
        /// The name that is taken.
        existing: String,
    },
    /// Not a topic name.
    #[error("'{topic}' is no topic name: {why}")]
    InvalidTopicName {
        /// The name, shortened.
        topic: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Not a tenant name.
    #[error("'{tenant}' is no tenant name: {why}")]
    InvalidTenant {
        /// The name, shortened.
        tenant: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A number of partitions that cannot be.
    #[error("topic '{topic}' cannot have {partitions} partitions: {why}")]
    InvalidPartitions {
        /// The topic.
        topic: String,
        /// The number asked for.
        partitions: u32,
        /// Why not.
        why: String,
    },
    /// The topic has fewer partitions.
    #[error("topic '{topic}' has no partition {partition}: it has {partitions}, numbered from 0")]
    PartitionNotFound {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The offset is outside of what is retained.
    #[error(
        "offset {offset} of {topic}/{partition} does not exist: the partition holds {start} up to {end} (exclusive)"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: i64,
        /// The first offset that exists.
        start: i64,
        /// The offset the next record gets.
        end: i64,
    },
    /// No such setting.
    #[error("there is no topic setting '{name}'")]
    UnknownConfig {
        /// The name asked for.
        name: String,
        /// Existing names like it.
        near: Vec<String>,
    },
    /// A setting of the broker that holds from its start to its end.
    #[error("the setting '{name}' of the broker cannot be changed while it runs")]
    NotDynamic {
        /// The setting.
        name: String,
    },
    /// Not a value of that setting.
    #[error("'{value}' is no value of {name}: {why}")]
    InvalidConfig {
        /// The setting.
        name: String,
        /// The value given.
        value: String,
        /// What it should be.
        why: String,
    },
    /// A value that would break a promise, or ask for what is not there.
    #[error("{name}={value} is refused: {reason}")]
    RefusedConfig {
        /// The setting.
        name: String,
        /// The value given.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// A batch or record above the topic's limit.
    #[error("{what} of {bytes} bytes is above {topic}'s max.message.bytes of {limit_bytes}")]
    RecordTooLarge {
        /// The topic.
        topic: String,
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The topic's limit.
        limit_bytes: usize,
    },
    /// The compressed batches of one request are too large.
    #[error("the request's batches have more than {limit_bytes} bytes when decompressed")]
    TooMuchDecompressed {
        /// What they may have.
        limit_bytes: usize,
    },
    /// A batch or record that is not well-formed, or that producers may not send.
    #[error("the batch is refused: {why}")]
    InvalidBatch {
        /// What is wrong with it.
        why: String,
    },
    /// Times of records are further from the server's than the topic allows.
    #[error(
        "topic '{topic}' takes times from {earliest_ms} to {latest_ms}, as message.timestamp.before.max.ms and message.timestamp.after.max.ms say; record {} of the batch has {}",
        records.first().map_or(0, |(index, _)| *index),
        records.first().map_or(0, |(_, time_ms)| *time_ms)
    )]
    InvalidTimestamp {
        /// The topic.
        topic: String,
        /// The earliest time that is taken now.
        earliest_ms: i64,
        /// The latest.
        latest_ms: i64,
        /// The first records of the batch with another, by their position from 0, and their times.
        records: Vec<(i32, i64)>,
    },
    /// Records without a key for a topic that keeps the last record of each key.
    #[error(
        "topic '{topic}' is compacted by key, and record {} of the batch has none",
        records.first().map_or(0, |index| *index)
    )]
    KeyRequired {
        /// The topic.
        topic: String,
        /// The first records of the batch without one, by their position from 0.
        records: Vec<i32>,
    },
    /// Records of a topic that is only compacted cannot be deleted from the front.
    #[error("the records of topic '{topic}' are not deleted: its cleanup.policy is 'compact'")]
    NotDeleted {
        /// The topic.
        topic: String,
    },
    /// A batch is missing between the producer's last one and this one.
    #[error(
        "producer {producer_id}: sequence {got} does not follow on {topic}/{partition}: {expected} was expected"
    )]
    OutOfOrderSequence {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The producer.
        producer_id: i64,
        /// The sequence that would follow.
        expected: i32,
        /// The batch's first sequence.
        got: i32,
    },
    /// A retry of a batch that is older than what is remembered.
    #[error(
        "producer {producer_id}: sequence {got} on {topic}/{partition} was appended before, and its offsets are forgotten"
    )]
    DuplicateSequence {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The producer.
        producer_id: i64,
        /// The batch's first sequence.
        got: i32,
    },
    /// A newer producer has taken over the id.
    #[error("producer {producer_id}: epoch {got} was replaced by epoch {current}")]
    ProducerFenced {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        got: i16,
        /// The epoch that holds now.
        current: i16,
    },
    /// A batch that is not transactional, of a producer that has an open transaction on the partition.
    #[error(
        "producer {producer_id} has an open transaction on {topic}/{partition}, and the batch is not part of it"
    )]
    OutsideTransaction {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The producer.
        producer_id: i64,
    },
    /// A name that is Kafka's for what lies in the store here.
    #[error("'{topic}' is an internal topic: what Kafka keeps in it lies in the store here")]
    InternalTopic {
        /// The name.
        topic: String,
    },
    /// A transaction with more in it than one frame can end.
    #[error("transactional id '{id}': the transaction would have more than its end can hold")]
    TransactionTooLarge {
        /// The transactional id, shortened.
        id: String,
    },
    /// Not a group's name.
    #[error("'{group}' is no group name: {why}")]
    InvalidGroup {
        /// The name, shortened.
        group: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// There is no such group in the caller's tenant.
    #[error("there is no group '{group}'")]
    GroupNotFound {
        /// The name asked for.
        group: String,
    },
    /// The group has members.
    #[error("group '{group}' has members")]
    GroupNotEmpty {
        /// The group.
        group: String,
    },
    /// The group has as many members as it may have.
    #[error("group '{group}' has {limit} members, and {setting} allows no more")]
    GroupFull {
        /// The group.
        group: String,
        /// Which setting says so.
        setting: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// The group's members read the topic.
    #[error("the members of group '{group}' are subscribed to topic '{topic}'")]
    GroupSubscribed {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The member is not, or no longer, in the group.
    #[error("group '{group}' has no member '{member}'")]
    UnknownMember {
        /// The group.
        group: String,
        /// The member's id, or its static name.
        member: String,
    },
    /// The group has moved on to another generation.
    #[error("generation {got} of group '{group}' is not the one that holds, which is {current}")]
    IllegalGeneration {
        /// The group.
        group: String,
        /// The generation that was named.
        got: i32,
        /// The one that holds.
        current: i32,
    },
    /// The group is making its next generation.
    #[error("group '{group}' is rebalancing")]
    RebalanceInProgress {
        /// The group.
        group: String,
    },
    /// The member does not speak what the group's other members speak.
    #[error("the member does not fit group '{group}': {why}")]
    InconsistentProtocol {
        /// The group.
        group: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A session timeout outside of what is allowed.
    #[error("a session timeout of {got_ms} ms is not between {min_ms} and {max_ms} ms")]
    InvalidSessionTimeout {
        /// What was asked for.
        got_ms: i64,
        /// `group.min.session.timeout.ms`.
        min_ms: i64,
        /// `group.max.session.timeout.ms`.
        max_ms: i64,
    },
    /// The new member has been given an id, and is to join with it (KIP-394).
    #[error("join again with the member id '{member_id}'")]
    MemberIdRequired {
        /// The id.
        member_id: String,
    },
    /// Another member has taken the static name over.
    #[error("static member '{instance_id}' of group '{group}' is another member now")]
    FencedInstance {
        /// The group.
        group: String,
        /// The static name.
        instance_id: String,
    },
    /// The static name is held by a member that has not left (KIP-848).
    #[error("static member '{instance_id}' of group '{group}' is there already")]
    UnreleasedInstance {
        /// The group.
        group: String,
        /// The static name.
        instance_id: String,
    },
    /// A heartbeat with an epoch that is not the member's.
    #[error("epoch {got} is not that of the member of group '{group}', which is {current}")]
    FencedEpoch {
        /// The group.
        group: String,
        /// The epoch that was named.
        got: i32,
        /// The one that holds.
        current: i32,
    },
    /// Offsets are committed or read with an epoch that is not, or no longer, the member's.
    #[error(
        "epoch {got} of the member of group '{group}' does not hold any more, or not yet: {current} does"
    )]
    StaleEpoch {
        /// The group.
        group: String,
        /// The epoch that was named.
        got: i32,
        /// The one that holds.
        current: i32,
    },
    /// A member of the consumer protocol commits with a request that knows nothing of epochs.
    #[error(
        "the members of group '{group}' commit with their epoch, by OffsetCommit version 9 or above"
    )]
    EpochsRequired {
        /// The group.
        group: String,
    },
    /// The group's members speak the other protocol.
    #[error("group '{group}' speaks the {protocol} protocol")]
    OtherProtocol {
        /// The group.
        group: String,
        /// The one its members speak.
        protocol: GroupType,
    },
    /// No such assignor.
    #[error("there is no assignor '{assignor}'")]
    UnsupportedAssignor {
        /// The name asked for, shortened.
        assignor: String,
    },
    /// Not a pattern of topic names.
    #[error("'{pattern}' is no pattern of topic names: {why}")]
    InvalidPattern {
        /// The pattern, shortened.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A heartbeat that contradicts itself.
    #[error("the heartbeat is refused: {why}")]
    InvalidHeartbeat {
        /// What is wrong with it.
        why: &'static str,
    },
    /// More metadata than an offset may carry.
    #[error("metadata of {bytes} bytes is above offset.metadata.max.bytes of {limit_bytes}")]
    OffsetMetadataTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Not an offset.
    #[error("offset {offset} of {topic}/{partition} cannot be committed: offsets begin at 0")]
    InvalidCommitOffset {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What was to be committed.
        offset: i64,
    },
    /// Not a transactional id.
    #[error("'{id}' is no transactional id: {why}")]
    InvalidTransactionalId {
        /// The id, shortened.
        id: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// No such transactional id in the caller's tenant.
    #[error("there is no transactional id '{id}'")]
    TransactionalIdNotFound {
        /// The id, shortened.
        id: String,
    },
    /// A timeout that a transaction may not have.
    #[error(
        "a transaction timeout of {got_ms} ms is not between 1 and {max_ms} ms, which transaction.max.timeout.ms allows"
    )]
    InvalidTransactionTimeout {
        /// What was asked for.
        got_ms: i64,
        /// `transaction.max.timeout.ms`.
        max_ms: i64,
    },
    /// The producer id is not the one that the transactional id has, or there is no such transactional id.
    #[error("producer {producer_id} does not belong to transactional id '{id}'")]
    InvalidProducerMapping {
        /// The transactional id, shortened.
        id: String,
        /// The producer that was named.
        producer_id: i64,
    },
    /// What was asked cannot be done in the state that the transactional id is in.
    #[error("transactional id '{id}': {why}")]
    InvalidTransactionState {
        /// The transactional id, shortened.
        id: String,
        /// Why not.
        why: &'static str,
    },
    /// The transactional id is busy with something before.
    #[error("transactional id '{id}' is still busy with the call before")]
    ConcurrentTransactions {
        /// The transactional id, shortened.
        id: String,
    },
    /// A partition or a group that the open transaction does not have: abort, and begin anew.
    #[error("{what} is not part of the transaction of '{id}'")]
    NotInTransaction {
        /// The transactional id, shortened.
        id: String,
        /// The partition or group.
        what: String,
    },
    /// Others of the same request were refused, so this was not tried.
    #[error("not attempted, because another part of the request was refused")]
    NotAttempted,
    /// Others changed the same thing at the same time, again and again.
    #[error("{what} is being changed by others at the same time")]
    Contended {
        /// What.
        what: String,
    },
    /// The disk is nearly full.
    #[error(
        "the server's disk is nearly full: {} MiB are free, {} MiB are needed to take records",
        free_bytes >> 20, needed_bytes.div_ceil(1 << 20)
    )]
    DiskFull {
        /// What is free.
        free_bytes: u64,
        /// What must be free for writes.
        needed_bytes: u64,
    },
    /// More in one request than a frame can hold.
    #[error("the request of {bytes} bytes is above the limit of {limit_bytes} bytes")]
    RequestTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A write or sync has failed; reads go on.
    #[error(
        "writes have stopped after a failure ({why}); the outcome of what was under way is unknown"
    )]
    WritesStopped {
        /// The first failure.
        why: String,
    },
    /// The engine is closing.
    #[error("the server is shutting down")]
    Closed,
    /// What the catalogue holds cannot be read.
    #[error("the catalogue entry of {what} cannot be read: {why}")]
    DamagedCatalog {
        /// Whose entry.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Any other failure of the engine.
    #[error("{0}")]
    Engine(EngineError),
}

impl BrokerError {
    /// The stable name of this error: what scripts and clients compare.
    pub fn code(&self) -> &'static str {
        match self {
            BrokerError::TopicNotFound { .. } => "topic_not_found",
            BrokerError::TopicIdNotFound { .. } => "topic_id_not_found",
            BrokerError::TopicExists { .. } => "topic_exists",
            BrokerError::TopicCollides { .. } => "topic_collides",
            BrokerError::InvalidTopicName { .. } => "invalid_topic_name",
            BrokerError::InvalidTenant { .. } => "invalid_tenant",
            BrokerError::InvalidPartitions { .. } => "invalid_partitions",
            BrokerError::PartitionNotFound { .. } => "partition_not_found",
            BrokerError::OffsetOutOfRange { .. } => "offset_out_of_range",
            BrokerError::UnknownConfig { .. } => "unknown_config",
            BrokerError::NotDynamic { .. } => "not_dynamic",
            BrokerError::InvalidConfig { .. } => "invalid_config",
            BrokerError::RefusedConfig { .. } => "refused_config",
            BrokerError::RecordTooLarge { .. } => "record_too_large",
            BrokerError::TooMuchDecompressed { .. } => "too_much_decompressed",
            BrokerError::InvalidBatch { .. } => "invalid_batch",
            BrokerError::InvalidTimestamp { .. } => "invalid_timestamp",
            BrokerError::KeyRequired { .. } => "key_required",
            BrokerError::NotDeleted { .. } => "not_deleted",
            BrokerError::OutOfOrderSequence { .. } => "out_of_order_sequence",
            BrokerError::DuplicateSequence { .. } => "duplicate_sequence",
            BrokerError::ProducerFenced { .. } => "producer_fenced",
            BrokerError::OutsideTransaction { .. } => "outside_transaction",
            BrokerError::InternalTopic { .. } => "internal_topic",
            BrokerError::TransactionTooLarge { .. } => "transaction_too_large",
            BrokerError::InvalidGroup { .. } => "invalid_group",
            BrokerError::GroupNotFound { .. } => "group_not_found",
            BrokerError::GroupNotEmpty { .. } => "group_not_empty",
            BrokerError::GroupFull { .. } => "group_full",
            BrokerError::GroupSubscribed { .. } => "group_subscribed",
            BrokerError::UnknownMember { .. } => "unknown_member",
            BrokerError::IllegalGeneration { .. } => "illegal_generation",
            BrokerError::RebalanceInProgress { .. } => "rebalance_in_progress",
            BrokerError::InconsistentProtocol { .. } => "inconsistent_protocol",
            BrokerError::InvalidSessionTimeout { .. } => "invalid_session_timeout",
            BrokerError::MemberIdRequired { .. } => "member_id_required",
            BrokerError::FencedInstance { .. } => "fenced_instance",
            BrokerError::UnreleasedInstance { .. } => "unreleased_instance",
            BrokerError::FencedEpoch { .. } => "fenced_epoch",
            BrokerError::StaleEpoch { .. } => "stale_epoch",
            BrokerError::EpochsRequired { .. } => "epochs_required",
            BrokerError::OtherProtocol { .. } => "other_protocol",
            BrokerError::UnsupportedAssignor { .. } => "unsupported_assignor",
            BrokerError::InvalidPattern { .. } => "invalid_pattern",
            BrokerError::InvalidHeartbeat { .. } => "invalid_heartbeat",
            BrokerError::OffsetMetadataTooLarge { .. } => "offset_metadata_too_large",
            BrokerError::InvalidCommitOffset { .. } => "invalid_commit_offset",
            BrokerError::InvalidTransactionalId { .. } => "invalid_transactional_id",
            BrokerError::TransactionalIdNotFound { .. } => "transactional_id_not_found",
            BrokerError::InvalidTransactionTimeout { .. } => "invalid_transaction_timeout",
            BrokerError::InvalidProducerMapping { .. } => "invalid_producer_mapping",
            BrokerError::InvalidTransactionState { .. } => "invalid_transaction_state",
            BrokerError::ConcurrentTransactions { .. } => "concurrent_transactions",
            BrokerError::NotInTransaction { .. } => "not_in_transaction",
            BrokerError::NotAttempted => "not_attempted",
            BrokerError::Contended { .. } => "contended",
            BrokerError::DiskFull { .. } => "disk_full",
            BrokerError::RequestTooLarge { .. } => "request_too_large",
            BrokerError::WritesStopped { .. } => "writes_stopped",
            BrokerError::Closed => "closed",
            BrokerError::DamagedCatalog { .. } => "damaged_catalog",
            BrokerError::Engine(error) if error.is_damage() => "damaged",
            BrokerError::Engine(_) => "internal",
        }
    }

    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            BrokerError::TopicNotFound { topic, near } if near.is_empty() => {
                format!("create it first: mainstem topic create {topic}")
            }
            BrokerError::TopicNotFound { near, .. } | BrokerError::UnknownConfig { near, .. } if !near.is_empty() => {
                format!("did you mean {}?", one_of(near))
            }
            BrokerError::UnknownConfig { .. } => "'mainstem topic describe' lists every setting".into(),
            BrokerError::NotDynamic { name } => format!("start it anew with: mainstem serve --set {name}=…"),
            BrokerError::RefusedConfig { .. } => "leave the setting out, or give it a value that can be kept".into(),
            BrokerError::TopicIdNotFound { .. } => "look the topic up by its name again".into(),
            BrokerError::InvalidTimestamp { .. } => "check the producer's clock".into(),
            BrokerError::TopicExists { .. } => "choose another name, or delete the topic first".into(),
            BrokerError::PartitionNotFound { .. } => "'mainstem topic describe' shows the partitions".into(),
            BrokerError::OffsetOutOfRange { start, end, .. } => {
                format!("read from {start} (earliest) up to {end} (latest)")
            }
            BrokerError::RecordTooLarge { topic, .. } => {
                format!("send less at once, or raise the limit: mainstem topic alter {topic} --set max.message.bytes=…")
            }
            BrokerError::OutOfOrderSequence { .. } => {
                "batches of one producer go out in order; after an answer of unknown outcome, retry that batch first".into()
            }
            BrokerError::DuplicateSequence { .. } => "the batch is stored; do not send it again".into(),
            BrokerError::KeyRequired { .. } => "give every record a key, or set cleanup.policy=delete".into(),
            BrokerError::NotDeleted { topic } => {
                format!("write tombstones, or: mainstem topic alter {topic} --set cleanup.policy=compact,delete")
            }
            BrokerError::OutsideTransaction { .. } => "end the transaction first, or send the batch as part of it".into(),
            BrokerError::InternalTopic { .. } => {
                "choose another name; the table system.group_offsets has the offsets of groups".into()
            }
            BrokerError::TransactionTooLarge { .. } => "abort it, and write to fewer partitions in one transaction".into(),
            BrokerError::ProducerFenced { .. } => "take a new producer id; another producer uses this one".into(),
            BrokerError::GroupNotEmpty { .. } => "stop its members first".into(),
            BrokerError::GroupSubscribed { .. } => "stop the members that read the topic first".into(),
            BrokerError::UnknownMember { .. } => "join the group anew, without a member id".into(),
            BrokerError::IllegalGeneration { .. } | BrokerError::RebalanceInProgress { .. } => {
                "join the group again".into()
            }
            BrokerError::FencedInstance { .. } => {
                "give each running member a static name of its own (group.instance.id)".into()
            }
            BrokerError::InvalidProducerMapping { .. } | BrokerError::InvalidTransactionState { .. } => {
                "begin anew: ask for the transactional id's next producer (InitProducerId)".into()
            }
            BrokerError::NotInTransaction { .. } => "abort the transaction, and begin it anew".into(),
            BrokerError::NotAttempted => "send it again without what was refused".into(),
            BrokerError::Contended { .. } | BrokerError::ConcurrentTransactions { .. } => "try again".into(),
            BrokerError::UnreleasedInstance { .. } => {
                "give each running member a static name of its own (group.instance.id), or wait until the session of the one before is over"
                    .into()
            }
            BrokerError::FencedEpoch { .. } => "give all partitions up and join the group again".into(),
            BrokerError::StaleEpoch { .. } => "try again once the next heartbeat has told the epoch that holds".into(),
            BrokerError::EpochsRequired { .. } => "use a newer client".into(),
            BrokerError::OtherProtocol { .. } => {
                "a group changes its protocol when it has no members: stop them all first, or use the other protocol".into()
            }
            BrokerError::UnsupportedAssignor { .. } => {
                let names: Vec<_> = ASSIGNORS.iter().map(|assignor| assignor.name()).collect();
                format!("there are {}", names.join(" and "))
            }
            BrokerError::InvalidPattern { .. } => {
                "the syntax is that of RE2: no look-around, no back references; a whole name must match".into()
            }
            BrokerError::DiskFull { .. } => {
                "free space on that disk, shorten retention or delete topics; writes go on by themselves when there is space"
                    .into()
            }
            BrokerError::InvalidBatch { .. } => {
                "nothing of it is stored: build the batch anew from its records and send that, as Kafka's format v2".into()
            }
            BrokerError::Engine(error) if error.is_damage() => {
                "check the server's disk and restore what is named from a backup; all that lies elsewhere can be read".into()
            }
            BrokerError::Engine(_) => "look at the server's log".into(),
            BrokerError::RequestTooLarge { .. } => "send smaller requests".into(),
            BrokerError::TooMuchDecompressed { .. } => "send fewer batches at a time".into(),
            BrokerError::WritesStopped { .. } => {
                "reads go on; where the disk was full, free space and the server goes on by itself; else check the disk and restart \
                 the server. What was acknowledged is kept"
                    .into()
            }
            BrokerError::Closed => "connect again".into(),
            BrokerError::DamagedCatalog { .. } => "restore the data directory from a backup".into(),
            _ => return None,
        };
        Some(hint)
    }

    /// Whether the same request may succeed if it is sent again as it is.
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            BrokerError::Contended { .. }
                | BrokerError::ConcurrentTransactions { .. }
                | BrokerError::RebalanceInProgress { .. }
                | BrokerError::DiskFull { .. }
                | BrokerError::WritesStopped { .. }
                | BrokerError::Closed
        )
    }

    /// What is wrong with single records of a batch that was refused, by their position in it from 0: the first of them.
    pub fn of_records(&self) -> Vec<(i32, String)> {
        match self {
            BrokerError::InvalidTimestamp {
                earliest_ms,
                latest_ms,
                records,
                ..
            } => {
                let why = |(index, time_ms): &(i32, i64)| {
                    let why =
                        format!("its time {time_ms} is not from {earliest_ms} to {latest_ms}");
                    (*index, why)
                };
                records.iter().map(why).collect()
            }
            BrokerError::KeyRequired { records, .. } => {
                let why = |index: &i32| (*index, "it has no key".to_owned());
                records.iter().map(why).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What the engine said about one append of a batch to a partition, in the words of its topic.
    pub(crate) fn append(error: AppendError, topic: &str, partition: u32) -> BrokerError {
        let topic = topic.to_owned();
        match error {
            // The topic was there a moment ago: it was deleted in between.
            AppendError::UnknownPartition(_) => BrokerError::TopicNotFound {
                topic,
                near: Vec::new(),
            },
            AppendError::OutOfOrderSequence {
                producer_id,
                expected,
                got,
            } => BrokerError::OutOfOrderSequence {
                topic,
                partition,
                producer_id,
                expected,
                got,
            },
            AppendError::DuplicateSequence { producer_id, got } => BrokerError::DuplicateSequence {
                topic,
                partition,
                producer_id,
                got,
            },
            AppendError::InvalidProducerEpoch {
                producer_id,
                current,
                got,
            } => BrokerError::ProducerFenced {
                producer_id,
                got,
                current,
            },
            AppendError::OpenTransaction { producer_id } => BrokerError::OutsideTransaction {
                topic,
                partition,
                producer_id,
            },
            other => BrokerError::InvalidBatch {
                why: other.to_string(),
            },
        }
    }
}

impl From<EngineError> for BrokerError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::DiskFull {
                free_bytes,
                needed_bytes,
            } => BrokerError::DiskFull {
                free_bytes,
                needed_bytes,
            },
            EngineError::TooLarge { bytes, limit_bytes } => {
                BrokerError::RequestTooLarge { bytes, limit_bytes }
            }
            EngineError::Poisoned { why, .. } => BrokerError::WritesStopped {
                why: why.to_string(),
            },
            EngineError::Closed => BrokerError::Closed,
            other => BrokerError::Engine(other),
        }
    }
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<LogError> for BrokerError {
    fn from(error: LogError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<RecordError> for BrokerError {
    fn from(error: RecordError) -> Self {
        BrokerError::InvalidBatch {
            why: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which table of the store a start happens to read first decides who meets the damage: all of them name it alike.
    #[test]
    fn damage_of_the_store_is_called_so() {
        let error = BrokerError::from(StoreError::Damaged {
            dir: "store".into(),
            what: "block checksum mismatch".into(),
        });
        assert_eq!(error.code(), "damaged");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("from a backup"), "{hint}");
    }
}
