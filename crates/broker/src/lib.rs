//! Messaging on the engine: topics, producing, fetching, producer identities, transactions, consumer groups, retention.
//!
//! **Promises.** What [`Broker::produce`] has acknowledged is durable, stands once, in order, at the offsets it said;
//! all batches of one call share one frame and so one sync. A retry by an idempotent producer is answered with the
//! first attempt's offsets. Creating, changing and deleting a topic are one frame each: a topic with all its partitions,
//! or no trace of it; and nothing sees a topic before that frame is durable. A group's offsets are answered when they
//! are durable, and a generation's assignment before any member hears it. A transaction's end is one frame:
//! its records and the offsets that go with them are seen together or not at all. Names live in a tenant. Every call carries
//! its [`Caller`], and every call passes one access check.
//!
//! **Refuses.** Records without a key for a compacted topic; to create a topic by accident; settings it does not know, or that would break a promise (each by name,
//! with the reason); batches above `max.message.bytes`. Every refusal is a [`BrokerError`] with a stable
//! [`BrokerError::code`] and, where something can be done, a [`BrokerError::hint`].
//!
//! It is a state machine: no thread, no clock, no runtime. Time and randomness are handed in, waiting is a plain
//! future that the engine's workers resolve.
//!
//! **Where to start.** [`Broker`], then `catalog.rs` for how topics are kept, `produce.rs` and `fetch.rs` for the two
//! paths that records take, `configs.rs` for the table of settings, `groups/` for who reads what, `transactions/` for what is seen together, `keys.rs` for where it all lies in the store.

mod access;
mod broker;
mod catalog;
pub mod configs;
mod coordinator;
mod defaults;
mod delete_records;
mod encoding;
mod error;
mod fetch;
mod fetch_pieces;
mod frames;
mod groups;
pub mod keys;
mod kinds;
mod names;
mod partitioner;
mod produce;
mod producers;
mod retention;
mod topic;
mod topics;
mod traffic;
mod transactions;
mod unpacking;

pub use access::Caller;
pub use broker::{Broker, BrokerSettings, Random};
pub use catalog::read_entry as read_topic_entry;
pub use configs::{CompactionLimits, TimeLimits, TopicLimits};
pub use defaults::{
    BrokerScope, TOPIC_DEFAULTS, TopicDefaults, check_entry as check_broker_configs,
};
pub use error::BrokerError;
pub use fetch::{AbortedTransaction, FetchRequest, Fetched, OffsetSpec, PartitionBounds};
pub use fetch_pieces::FetchedPieces;
pub use groups::{
    AssignedTopic, CommittedOffset, ConsumerBeat, ConsumerGroupDescription, ConsumerHeartbeat,
    ConsumerMemberDescription, GroupCommit, GroupConfig, GroupDescription, GroupExpiryRound,
    GroupListing, GroupMember, GroupOffset, GroupSettings, GroupState, GroupType, JOIN_EPOCH,
    JoinGroup, Joined, JoinedMember, LEAVE_EPOCH, LeavingMember, MemberDescription, OffsetCommit,
    OffsetsOfTopic, Protocol, STATIC_LEAVE_EPOCH, SyncGroup, Synced,
};
pub use mainstem_log::{FileSlice, PartitionId, Piece, PieceLimits, Stopped, TopicId, Waiter};
pub use names::{INTERNAL_TOPICS, check_topic as check_topic_name};
pub use produce::{NewRecord, PlacedBatch, ProduceBatch, Produced};
pub use producers::ProducerIdentity;
pub use retention::{CompactionRound, RetentionRound};
pub use topic::{NewTopic, Topic, TopicChange, TopicDescription};
pub use traffic::TopicTraffic;
pub use transactions::{
    ActiveProducer, Isolation, TransactionCommit, TransactionDescription, TransactionFilter,
    TransactionListing, TransactionSettings, TransactionState, TransactionalProducer,
};
pub use unpacking::Unpacking;
