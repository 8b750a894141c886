//! What can go wrong in a store, and what to do about it.

use std::path::PathBuf;

/// An error of the store. Cloneable, because one failed write is the answer to many waiters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store's own engine failed: a read, write, flush or compaction.
    #[error(
        "the store at {dir} failed to {what}: {message}; check the disk, then restart to recover from the journal"
    )]
    Backend {
        /// What was being done.
        what: &'static str,
        /// Where the store lies.
        dir: PathBuf,
        /// The engine's own words.
        message: String,
    },
    /// There was no space left to write.
    #[error(
        "the store at {dir} found no space left to {what}: free space on that disk; opening the directory again recovers from the journal"
    )]
    NoSpace {
        /// What was being done.
        what: &'static str,
        /// Where the store lies.
        dir: PathBuf,
    },
    /// Another process has the directory open.
    #[error(
        "the store at {dir} is in use by another process: stop that one, or choose another data directory"
    )]
    InUse {
        /// Where the store lies.
        dir: PathBuf,
    },
    /// The directory was written by a newer release.
    #[error(
        "the store at {dir} has format {found}, this program knows up to {known}: use a newer release"
    )]
    NewerVersion {
        /// Where the store lies.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program reads.
        known: u32,
    },
    /// What is on disk contradicts itself.
    #[error("the store at {dir} is damaged: {what}; restore the data directory from a backup")]
    Damaged {
        /// Where the store lies.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
    /// Store operations in a frame that cannot be read.
    #[error("a store operation at byte {position} of its section cannot be read: {what}")]
    Malformed {
        /// Byte position in the section.
        position: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A write would move the applied position backwards or into another journal.
    #[error(
        "a write at journal {journal_id:032x}, LSN {lsn} does not follow the applied position {applied}"
    )]
    OutOfOrder {
        /// The write's journal.
        journal_id: u128,
        /// The write's LSN.
        lsn: u64,
        /// The position the store stands at.
        applied: String,
    },
    /// The store was closed (or, in a simulation, crashed) under this handle.
    #[error("the store was closed; open it again")]
    Closed,
}
