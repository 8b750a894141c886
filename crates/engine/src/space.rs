//! Space on disk: when writes are refused, and what is kept back so that the engine itself never runs out of it.
//!
//! Appends are refused while less is free than `min_free_bytes` and what memory still has to write to segments. That
//! is enough as long as the engine alone fills the disk. Where somebody else does, at once and to the last byte, the
//! **ballast** is given up: a file that does nothing but take space, and so leaves room for one more checkpoint. Where
//! even that is gone, segments and checkpoints wait: the journal's files have their space, and hold everything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use mainstem_journal::{Disk, OpenMode};

use crate::shared::Shared;

/// The ballast's name in the data directory.
const BALLAST: &str = "ballast";

impl Shared {
    /// Asks the disk what is free. Cheap, but a call to the system: not for every submission.
    pub(crate) fn look_up_free_space(&self) -> Option<u64> {
        let free_bytes = self.disk.free_bytes(&self.dir).ok()?;
        let needed_bytes = self
            .options
            .min_free_bytes
            .saturating_add(self.log.unflushed_bytes());
        let at = &self.positions;
        at.needed_bytes.store(needed_bytes, Ordering::Release);
        at.free_bytes.store(free_bytes, Ordering::Release);
        Some(free_bytes)
    }

    /// Whether there is room for what opening the directory again writes, and for one more journal file, on every disk
    /// that holds a part of it.
    pub(crate) fn has_room_to_open(&self) -> bool {
        let store_bytes = self.options.ballast_bytes / 4;
        let file_bytes = self.options.journal.file_bytes;
        let wanted_bytes = self.log.unflushed_bytes() + store_bytes + file_bytes;
        let Ok(names) = self.disk.list(&self.dir) else {
            return false;
        };
        let parts = names.iter().map(|name| self.dir.join(name));
        parts.chain([self.dir.clone()]).all(|part| {
            let free_bytes = self.disk.free_bytes(&part);
            free_bytes.is_ok_and(|free_bytes| free_bytes >= wanted_bytes)
        })
    }

    /// Whether there is room for what memory has to write, and for what the store adds to it.
    pub(crate) fn has_room_to_flush(&self) -> bool {
        let store_bytes = self.options.ballast_bytes / 4;
        let wanted_bytes = self.log.unflushed_bytes().saturating_add(store_bytes);
        self.positions.free_bytes.load(Ordering::Acquire) >= wanted_bytes
    }
}

/// A file that takes space until it is needed for something better.
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Ballast {
    /// The ballast of a data directory, as the last process left it; of 0 bytes, there is never any.
    pub(crate) fn find(disk: &dyn Disk, dir: &Path, bytes: u64) -> Ballast {
        let path = dir.join(BALLAST);
        let held = disk
            .open(&path, OpenMode::Read)
            .and_then(|file| file.len())
            .is_ok_and(|len_bytes| len_bytes >= bytes);
        Ballast {
            path,
            bytes,
            held: held && bytes > 0,
        }
    }

    /// Gives it up where less than its size is free, and takes it anew once nobody misses the space. Says whether it
    /// was given up just now.
    pub(crate) fn keep(&mut self, disk: &dyn Disk, free_bytes: u64, needed_bytes: u64) -> bool {
        if self.held && free_bytes < self.bytes {
            match disk.remove_file(&self.path) {
                Ok(()) => {
                    let released_bytes = self.bytes;
                    tracing::warn!(
                        case = "ballast given up",
                        free_bytes,
                        released_bytes,
                        "the disk is nearly full: space kept back is used now"
                    );
                }
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "the ballast cannot be removed")
                }
            }
            self.held = false;
            return true;
        }
        let plenty_bytes = needed_bytes.saturating_add(self.bytes.saturating_mul(2));
        if !self.held && self.bytes > 0 && free_bytes >= plenty_bytes {
            // Without it the engine works as well, until the disk is full: not worth stopping for.
            match self.take(disk) {
                Ok(()) => {
                    tracing::debug!(case = "ballast taken", path = %self.path.display());
                    self.held = true;
                }
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "no space can be kept back for a full disk");
                    let _ = disk.remove_file(&self.path);
                    self.bytes = 0;
                }
            }
        }
        false
    }

    fn take(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.open(&self.path, OpenMode::Create)?
            .allocate(self.bytes)
    }
}

/// Gives up the ballast of a data directory that is about to be opened on a disk with less than `needed_bytes` free:
/// opening writes a little itself. For whoever has the directory locked.
pub fn make_space(disk: &dyn Disk, dir: &Path, needed_bytes: u64) {
    let short = disk
        .free_bytes(dir)
        .is_ok_and(|free_bytes| free_bytes < needed_bytes);
    let path = dir.join(BALLAST);
    if !short {
        return;
    }
    match disk.remove_file(&path) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), "the disk is nearly full: space kept back is used now");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the ballast cannot be removed");
        }
    }
}
