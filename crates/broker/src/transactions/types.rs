//! What is asked of transactions, and what they answer.

use std::fmt;
use std::sync::Arc;

use crate::{GroupCommit, ProducerIdentity, Topic};

/// Which records a reader wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Everything that is durable, up to the high watermark.
    #[default]
    ReadUncommitted,
    /// Nothing of a transaction that is open: up to the last stable offset. What was aborted lies between; it is named in
    /// [`Fetched::aborted`](crate::Fetched::aborted), and left out by the reader.
    ReadCommitted,
}

/// A producer that speaks for a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionalProducer {
    /// The transactional id.
    pub id: String,
    /// What [`Broker::init_transactional`](crate::Broker::init_transactional), or the end of the transaction before, has
    /// answered.
    pub identity: ProducerIdentity,
}

/// Offsets to be committed when the transaction is.
#[derive(Clone, Debug)]
pub struct TransactionCommit {
    /// Whose transaction.
    pub producer: TransactionalProducer,
    /// Whether the group becomes part of the transaction by this (KIP-890; TxnOffsetCommit from version 5). Otherwise
    /// it must have been added.
    pub adds_group: bool,
    /// The group's member, as far as the client names one (KIP-447), and its offsets.
    pub commit: GroupCommit,
}

/// Where a transactional id stands. `Display` gives Kafka's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionState {
    /// No transaction since the producer began.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// The frame that commits is under way.
    PrepareCommit,
    /// The frame that aborts is under way.
    PrepareAbort,
    /// The last transaction was committed.
    CompleteCommit,
    /// The last transaction was aborted.
    CompleteAbort,
}

impl TransactionState {
    /// Every state.
    pub const ALL: [TransactionState; 6] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
    ];

    /// Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
        }
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which transactional ids are asked for; an empty filter asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// Those in one of these states, where any are named.
    pub states: Vec<TransactionState>,
    /// Those of these producers, where any are named.
    pub producer_ids: Vec<i64>,
    /// Those whose transaction has been open for longer than this, in milliseconds (KIP-994).
    pub longer_than_ms: Option<i64>,
}

/// A transactional id in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionListing {
    /// The transactional id.
    pub id: String,
    /// The producer id that it has now.
    pub producer_id: i64,
    /// Where it stands.
    pub state: TransactionState,
}

/// A transactional id with its transaction.
#[derive(Clone, Debug)]
pub struct TransactionDescription {
    /// The transactional id.
    pub id: String,
    /// The producer that speaks for it.
    pub producer: ProducerIdentity,
    /// Where it stands.
    pub state: TransactionState,
    /// How long a transaction may stay open, in milliseconds.
    pub timeout_ms: i64,
    /// When the open transaction began, in milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// The open transaction's partitions, by topic. Topics that are gone are left out.
    pub partitions: Vec<(Arc<Topic>, Vec<u32>)>,
    /// Groups whose offsets it commits.
    pub groups: Vec<String>,
}

/// A producer that is known on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Who it is.
    pub producer: ProducerIdentity,
    /// The sequence of its last record; none where the last thing from it is a marker.
    pub last_sequence: Option<i32>,
    /// When it was last heard of, in milliseconds since 1970, as far as time was told.
    pub last_seen_ms: Option<i64>,
    /// The first offset of its open transaction.
    pub transaction_start: Option<i64>,
}
