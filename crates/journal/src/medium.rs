//! The second seam: where groups are kept and made durable.

use crate::{Group, JournalError, Lsn, SealedGroup};

/// What is known to be durable before a journal is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Everything up to this LSN is on disk in both views: replay begins after it.
    pub checkpoint: Lsn,
    /// The journal that these positions are of, if anybody has noted it.
    pub journal_id: Option<u128>,
    /// The furthest position that a view itself names. Only durable frames are ever applied to a view, so everything up
    /// to it is durable.
    pub views: Lsn,
}

/// Room for frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes of groups that can be written without taking new space from the file system, the reserve for recovery left
    /// alone. A group takes its payload plus a header, rounded up to 4 KiB, and does not span files.
    pub writable_bytes: u64,
    /// Bytes that the file system has left besides.
    pub free_bytes: u64,
    /// Bytes that one more journal file takes.
    pub file_bytes: u64,
}

/// Where groups are kept and made durable: files, later objects.
///
/// # Contract
///
/// ```text
///            recycle(up_to)              drive() returned      submit()ted
///                  |                           |                   |
///   ... gone ......|== kept for replay ========|-- in flight ------|
///                                         durable_lsn
/// ```
///
/// - Groups are submitted in order, their LSNs dense, and come back from [`Medium::drive`] in that order, each once,
///   when they are durable and not before.
/// - [`Medium::submit`] never waits and does no I/O. [`Medium::drive`] may block on I/O: one thread calls it, or a
///   scheduler.
/// - After an error of a write or a sync the medium is poisoned: each later call that could fail does so with the same
///   error, no write is tried again, and what had been submitted is of unknown outcome until the medium has been
///   opened anew through recovery.
///
/// [`crate::conformance::medium`] checks an implementation against this.
pub trait Medium: Send {
    /// Hands over a group to be made durable. Fails for a group that is too large or out of order, and on a poisoned
    /// medium.
    fn submit(&mut self, group: SealedGroup) -> Result<(), JournalError>;

    /// Makes durable what has been submitted and returns it, in order. With nothing submitted it does one bounded step of
    /// the work that waits for a quiet moment, see [`Medium::has_background_work`], and returns nothing.
    fn drive(&mut self) -> Result<Vec<Group>, JournalError>;

    /// Whether [`Medium::drive`] has something to do although nothing has been submitted.
    fn has_background_work(&self) -> bool;

    /// The last LSN that is durable.
    fn durable_lsn(&self) -> Lsn;

    /// Records the last group as durable, by an empty group: until a later header is on disk, damage in the newest
    /// groups cannot be told from a torn write. Called after a few idle milliseconds and on a clean stop; nothing happens
    /// if it is already on record or if groups are in flight.
    fn mark_idle(&mut self) -> Result<(), JournalError>;

    /// Gives back what holds only frames at or below `up_to`, which a checkpoint on disk has passed.
    fn recycle(&mut self, up_to: Lsn) -> Result<(), JournalError>;

    /// The largest payload of a group, in bytes.
    fn max_payload_bytes(&self) -> usize;

    /// The room that is left.
    fn space(&self) -> Result<Space, JournalError>;

    /// Whether a frame may name bytes that lie, synced, in a segment file of this machine.
    fn supports_references(&self) -> bool;

    /// The journal's id, made once with its directory.
    fn journal_id(&self) -> u128;
}
