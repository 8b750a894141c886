//! The key-value store: what frames say about everything that is not a record.
//!
//! **Promises.** A [`Store::write`] is atomic across families and carries the applied position (journal id and LSN)
//! in the same batch, so that the position found after a crash names exactly the writes found with it. Nothing is
//! durable before a flush; a flush may also happen by itself at any batch, and always covers whole batches of all
//! families. A [`StoreSnapshot`] sees one position for as long as it is held. Errors that an implementation meets in
//! the background surface in the next write or flush, and in [`Store::check`].
//!
//! **Refuses.** A directory of a newer format, one that is in use, and one whose position does not fit its content.
//! It keeps no write-ahead log: the journal is the log, and replay from the applied position brings back what a
//! crash took.
//!
//! **Where to start.** [`Store`] and [`StoreSnapshot`] are the contract; [`RocksStore`] is the one on disk,
//! [`MemoryStore`] the one that simulations crash;
//! [`StoreReader`] looks a store through offline. [`conformance`] is the suite that both pass. [`StoreOp`] is what
//! frames carry; [`key`] builds the keys, which all start with their shard.

pub mod conformance;
mod error;
mod family;
pub mod key;
mod memory;
mod op;
mod rocks;
mod store;
mod verify;

pub use error::StoreError;
pub use family::Family;
pub use key::{CATALOG_SHARD, KeyBuilder, KeyReader, SHARDS, prefix_end, shard_key, shard_of};
pub use memory::MemoryStore;
pub use op::{StoreOp, StoreOps, encode_delete, encode_put};
pub use rocks::{RocksStore, StoreOptions};
pub use store::{Applied, Store, StoreSnapshot, StoreStats, Visit};
pub use verify::{Holds, StoreFinding, StoreReader, StoreVerified};
