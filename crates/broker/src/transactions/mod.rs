//! Transactions: records on any number of partitions, and offsets of groups, that are seen together or not at all
//! (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! A **transactional id** is the name of a producer over its lives. Its state ([`record`]) lies in the store, in the id's
//! shard, and is kept in memory by one [`coordinator`], with a state machine an id ([`machine`]). What a transaction has
//! appended to a partition is read off the batches themselves: the log keeps each partition's open transactions and its
//! aborted ones, and after a restart the coordinator asks it.
//!
//! A transaction's **end is one frame**: a marker on each of its partitions, the offsets it commits, and the id's state.
//! Nothing has to be finished after a restart, because nothing can be half done.

mod admin;
mod calls;
mod coordinator;
mod machine;
#[cfg(test)]
mod machine_tests;
mod offsets;
mod produce;
pub(crate) mod record;
mod settings;
mod types;

pub(crate) use coordinator::Transactions;
pub use settings::TransactionSettings;
pub use types::{
    ActiveProducer, Isolation, TransactionCommit, TransactionDescription, TransactionFilter,
    TransactionListing, TransactionState, TransactionalProducer,
};
