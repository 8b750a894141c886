//! Transactions: records on any number of partitions, and offsets of groups, that are seen together or not at all
//! (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! A **transactional id** is the name of a producer over its lives. Its state ([`record`]) lies in the store, in the id's
//! shard, and is kept in memory by one coordinator. What a transaction has appended to a partition is read off the batches
//! themselves: the log keeps each partition's open transactions and its aborted ones.
//!
//! A transaction's **end is one frame**: a marker on each of its partitions, the offsets it commits, and the id's state.
//! Nothing has to be finished after a restart, because nothing can be half done.

mod calls;
mod settings;
mod types;

pub use settings::TransactionSettings;
pub use types::{
    ActiveProducer, Isolation, StableOffset, TransactionCommit, TransactionDescription,
    TransactionFilter, TransactionListing, TransactionState, TransactionalProducer,
};
