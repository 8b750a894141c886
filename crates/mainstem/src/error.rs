//! What can go wrong between a directory and a running platform.

use mainstem_broker::BrokerError;
use mainstem_engine::EngineError;
use mainstem_query::QueryError;
use mainstem_runtime::RuntimeError;
use mainstem_store::StoreError;
use std::path::PathBuf;

/// Why the platform could not be opened or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the directory.
    #[error("the data directory {} is in use by {holder}", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as far as its `LOCK` says.
        holder: String,
    },
    /// The directory was written by a newer version.
    #[error("the data directory {} has format {found}; this build reads up to {supported}", dir.display())]
    NewerVersion {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this build knows.
        supported: u32,
    },
    /// The directory holds something else.
    #[error("{} is not a data directory of Mainstem: {why}", dir.display())]
    NotADataDirectory {
        /// The directory.
        dir: PathBuf,
        /// What speaks against it.
        why: String,
    },
    /// `meta.json` cannot be read.
    #[error("{} is damaged: {why}", file.display())]
    DamagedMeta {
        /// The file.
        file: PathBuf,
        /// What is wrong in it.
        why: String,
    },
    /// A setting that is unknown or out of bounds.
    #[error("setting {name}: {why}")]
    Setting {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the directory could not be made durable.
    #[error(transparent)]
    Journal(#[from] mainstem_journal::JournalError),
    /// From the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// From the broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// From the handlers' runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// From SQL.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Error {
    /// Whether there was no space left on the disk.
    pub fn is_full(&self) -> bool {
        let full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
        match self {
            Error::Io { source, .. } => full(source),
            Error::Journal(error) => error.is_full(),
            Error::Store(error) => matches!(error, StoreError::NoSpace { .. }),
            // Writes that have stopped are another thing to be told, whatever the reason.
            Error::Engine(EngineError::Poisoned { .. }) => false,
            Error::Engine(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether somebody else holds the data directory.
    pub fn is_in_use(&self) -> bool {
        matches!(
            self,
            Error::InUse { .. } | Error::Store(StoreError::InUse { .. })
        )
    }

    /// A stable name for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            error if error.is_full() => "disk_full",
            Error::InUse { .. } => "data_dir_in_use",
            Error::NewerVersion { .. } => "data_dir_newer_version",
            Error::NotADataDirectory { .. } => "not_a_data_dir",
            Error::DamagedMeta { .. } => "data_dir_damaged",
            Error::Setting { .. } => "bad_setting",
            Error::Io { .. } => "io",
            Error::Journal(_) => "journal",
            Error::Store(_) => "store",
            Error::Engine(EngineError::Poisoned { .. }) => "writes_stopped",
            Error::Engine(_) => "engine",
            Error::Broker(error) => error.code(),
            Error::Runtime(_) => "runtime",
            Error::Query(error) => error.code(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        let hint = match self {
            error if error.is_full() => {
                "free space on that disk, then start again: nothing that was acknowledged is lost"
            }
            Error::InUse { .. } => "stop that process, or choose another --data-dir",
            Error::NewerVersion { .. } => {
                "run the version of mainstem that wrote it, or a newer one"
            }
            Error::NotADataDirectory { .. } => "choose an empty or a new folder as --data-dir",
            Error::DamagedMeta { .. } => {
                "restore meta.json from a backup of this directory; nothing else was touched"
            }
            Error::Setting { .. } => {
                "see `mainstem serve --help` for the settings and their bounds"
            }
            Error::Io { .. } => {
                "check that the path exists, that its owner is the one who runs mainstem, and that the disk has space"
            }
            Error::Engine(EngineError::Poisoned { .. }) => {
                "check the disk and its free space, then start again: what was acknowledged is kept"
            }
            Error::Journal(_) | Error::Store(_) | Error::Engine(_) => {
                "check the disk and the file that the message names; `mainstem check` names everything that is damaged"
            }
            Error::Broker(error) => return error.hint().unwrap_or_default(),
            Error::Query(error) => return error.hint(),
            Error::Runtime(_) => "read the message: it names what was refused",
        };
        hint.into()
    }
}
