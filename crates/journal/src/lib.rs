//! The journal: every change of a Mainstem node is one frame here, all or nothing.
//!
//! # What this crate promises
//!
//! - A group that [`Medium::drive`] has returned is on disk: it survives `kill -9` and power loss in any
//!   sequence, and is handed out again, in order, by [`Replay`] until a checkpoint has passed it.
//! - What has been replayed once never vanishes later: recovery first makes durable every frame that is not
//!   known to be, into a file of its own, and only then hands out anything.
//! - Damage at or below the highest LSN known durable is refused, naming file, position and LSN. Bad bytes above
//!   it are a torn tail, and are cut.
//! - After an error of a write or a sync nothing is tried again: the medium is poisoned, and every later call fails
//!   with the same cause.
//!
//! # What it refuses
//!
//! It knows nothing of topics, batches or stores: a frame is a list of [`Section`]s, each bytes for one shard and
//! one [`View`]. It owns no thread, no clock and no randomness: I/O happens inside [`Medium::drive`], on the thread that
//! calls it, and everything random comes in [`JournalOptions::entropy`].
//!
//! # Where to start reading
//!
//! [`GroupBuilder`] (`group.rs`) makes groups, `header.rs` and `file/header.rs` say how they lie on disk, [`Medium`]
//! (`medium.rs`) is the contract of where they are kept, `file/mod.rs` the commit path in files, `file/stock.rs` how
//! files are made ahead and recycled, `file/recovery.rs` what happens when a journal is opened, and
//! `file/verify.rs` how one is looked through without being opened. The other seam,
//! [`Disk`], is in `disk/`.

pub mod conformance;
pub mod disk;
mod durable;
mod error;
mod file;
mod frame;
mod group;
mod header;
pub mod limit;
mod lsn;
mod medium;
pub mod mutation;
mod pool;

/// The checksum of everything that Mainstem writes, for small files beside the journal.
pub use crc32c::crc32c;
pub use disk::{DirectoryLock, Disk, DiskFile, DiskWork, MemoryDisk, OpenMode, RealDisk};
pub use durable::{durable_rename, write_file_durably};
pub use error::JournalError;
pub use file::{FileMedium, JournalOptions, Replay, verify};
pub use frame::{Frame, Frames, Section, Sections, View};
pub use group::{Group, GroupBuilder, SealedGroup};
pub use lsn::Lsn;
pub use medium::{Known, Medium, Space};
pub use pool::{BufferPool, PooledBuffer};
