//! What can go wrong in the journal.

use crate::Lsn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the journal refuses. It can be cloned, because a poisoned medium answers every later call with the same cause.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk failed. What was being written is of unknown outcome.
    #[error("{action} {path} failed: {source}", path = path.display())]
    Io {
        /// What was being done, as in "writing".
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Bytes that were known to be durable are not what was written.
    #[error(
        "the journal is damaged at LSN {lsn}: {what}, file {file}, position {position}. This record was durable and \
         cannot be skipped: restore the file or the data directory from a copy",
        file = file.display()
    )]
    Damaged {
        /// The file that holds, or should hold, the damaged group.
        file: PathBuf,
        /// The position of the group in the file, in bytes.
        position: u64,
        /// The first LSN that cannot be read.
        lsn: Lsn,
        /// What is wrong with it.
        what: String,
    },
    /// A checkpoint or a view is further than the journal reaches: part of the journal is missing.
    #[error(
        "the {view} is at LSN {at}, but the journal in {dir} ends at LSN {end}: a part of the journal is missing. Restore \
         the data directory as a whole from a copy",
        dir = dir.display()
    )]
    ViewAhead {
        /// Which position is ahead.
        view: &'static str,
        /// That position.
        at: Lsn,
        /// The last LSN of the journal.
        end: Lsn,
        /// The journal's directory.
        dir: PathBuf,
    },
    /// Written by a later version of Mainstem.
    #[error(
        "{file} has journal format version {version}, this program reads up to version {supported}: use a newer \
         mainstem to open this data directory",
        file = file.display()
    )]
    NewerVersion {
        /// The file in question.
        file: PathBuf,
        /// Its format version.
        version: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// Files of two journals lie in one directory.
    #[error(
        "{file} belongs to another journal ({found:032x}, not {expected:032x}): remove the file that was copied here",
        file = file.display()
    )]
    ForeignFile {
        /// The file in question.
        file: PathBuf,
        /// The journal it belongs to.
        found: u128,
        /// The journal of this directory.
        expected: u128,
    },
    /// The state beside the journal was built from another one.
    #[error(
        "the store belongs to journal {expected:032x}, but the journal here is {found:032x}: one of the two was copied here \
         alone. Put back the one that belongs to the other; nothing was changed"
    )]
    ForeignViews {
        /// The journal of this directory.
        found: u128,
        /// The journal that the state was built from.
        expected: u128,
    },
    /// There is no room for another journal file.
    #[error("no room for a journal file of {needed_bytes} bytes in {dir}, {free_bytes} bytes are free: free some space and start again", dir = dir.display())]
    Full {
        /// The journal's directory.
        dir: PathBuf,
        /// Size of the file that was needed.
        needed_bytes: u64,
        /// What the file system has left.
        free_bytes: u64,
    },
    /// A group is larger than a journal file can hold.
    #[error("a group of {bytes} bytes is larger than the journal's limit of {limit_bytes} bytes")]
    GroupTooLarge {
        /// Payload of the group.
        bytes: u64,
        /// The largest payload, see [`crate::Medium::max_payload_bytes`].
        limit_bytes: u64,
    },
    /// Groups were submitted out of order: an error in the caller.
    #[error("a group that begins at LSN {got} was submitted where LSN {expected} is next")]
    OutOfOrder {
        /// The LSN that is next.
        expected: Lsn,
        /// The first LSN of the group.
        got: Lsn,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process{holder}: stop it, or choose another data directory", path = path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as " (process 17)", or nothing.
        holder: String,
    },
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
        JournalError::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Whether the reason is that the disk is full, so that the journal can be opened again when there is space.
    pub fn is_full(&self) -> bool {
        match self {
            JournalError::Full { .. } => true,
            JournalError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// Gives an I/O error its place: `file.sync_data().at("syncing", path)?`.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, JournalError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, JournalError> {
        self.map_err(|source| JournalError::io(action, path, source))
    }
}
