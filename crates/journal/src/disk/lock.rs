//! One process at a time on a data directory.

use crate::JournalError;
use crate::error::At;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Holds a data directory for this process: a lock on a file in it, given up when this is dropped or the process
/// ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock on the file `path` (made if it is not there), or says who has it.
    pub fn acquire(path: &Path) -> Result<DirectoryLock, JournalError> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .at("opening", path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(errno) if errno == rustix::io::Errno::WOULDBLOCK => {
                let mut text = String::new();
                // Only to name the holder; the lock itself does not depend on it.
                let holder = match file.read_to_string(&mut text) {
                    Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
                    _ => String::new(),
                };
                return Err(JournalError::InUse {
                    path: path.to_owned(),
                    holder,
                });
            }
            Err(errno) => return Err(JournalError::io("locking", path, io::Error::from(errno))),
        }
        file.set_len(0).at("writing", path)?;
        file.rewind().at("writing", path)?;
        writeln!(file, "{}", std::process::id()).at("writing", path)?;
        Ok(DirectoryLock { _file: file })
    }
}
