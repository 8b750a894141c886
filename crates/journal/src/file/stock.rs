//! Files that lie ready: written through once, then used again and again.
//!
//! Overwriting blocks that are already initialised syncs faster than growing a file, so a file is filled with zeros
//! once and then passes through three names:
//!
//! ```text
//! new.tmp --zeros, sync--> N.spare --header, sync, rename, directory sync--> M.journal --checkpoint passed--> M.spare
//! ```
//!
//! What a spare holds means nothing: its groups bear the incarnation of an earlier use. A spare is written on only
//! after its name as a spare is durable, so that no file that a crash gives its old name back has lost its header.

use super::header::{FileHeader, Start};
use crate::error::At;
use crate::{Disk, DiskFile, JournalError, Lsn, OpenMode};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most of a new file that is written, and synced, in one step.
pub(super) const MAX_STEP_BYTES: u64 = 1 << 20;
/// A step in a quiet moment: a record that comes meanwhile waits for it.
pub(super) const QUIET_STEP_BYTES: u64 = 256 << 10;
/// Spares that are left alone while the journal runs: recovery needs a file even on a full disk.
const RESERVED_FILES: usize = 1;

/// A file that groups can be written to.
pub(super) struct OpenFile {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) incarnation: u64,
    pub(super) len_bytes: u64,
    /// Where the next group goes.
    pub(super) position: u64,
}

/// A spare being made.
struct Making {
    file: Arc<dyn DiskFile>,
    len_bytes: u64,
    written_bytes: u64,
}

/// The spares, and the one that is being made.
pub(super) struct Stock {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    max_spares: usize,
    entropy: u128,
    next_number: u64,
    spares: Vec<PathBuf>,
    /// The name of some spare may not be durable yet.
    names_unsynced: bool,
    making: Option<Making>,
    /// There was no space for another file when last tried.
    pub(super) stalled: bool,
}

pub(super) fn journal_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.journal"))
}

pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.spare"))
}

/// The number in a file name like `000000000000002a.journal`.
pub(super) fn number_of(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Stock {
    /// The stock of a directory, with the spares whose numbers these are. Their names are durable.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &super::JournalOptions,
        spares: &[u64],
        next_number: u64,
    ) -> Stock {
        Stock {
            disk,
            dir: dir.to_owned(),
            file_bytes: options.file_bytes,
            max_spares: options.max_spare_files.max(RESERVED_FILES + 1),
            entropy: options.entropy,
            next_number,
            spares: spares
                .iter()
                .map(|number| spare_path(dir, *number))
                .collect(),
            names_unsynced: false,
            making: None,
            stalled: false,
        }
    }

    /// Spares that may be used while the journal runs.
    pub(super) fn available(&self) -> usize {
        self.spares.len().saturating_sub(RESERVED_FILES)
    }

    /// Whether more spares are wanted so that `more` can be used.
    pub(super) fn lacks(&self, more: usize) -> bool {
        self.spares.len() < RESERVED_FILES + more
    }

    /// Does one step of up to `step_bytes` towards another spare. Without space nothing is made, and that is not an error.
    pub(super) fn make_some(&mut self, step_bytes: u64) -> Result<(), JournalError> {
        let path = self.dir.join("new.tmp");
        if self.making.is_none() {
            let file = self
                .disk
                .open(&path, OpenMode::Create)
                .at("creating", &path)?;
            match file.allocate(self.file_bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.stalled = true;
                    return self.disk.remove_file(&path).at("removing", &path);
                }
                Err(error) => return Err(JournalError::io("allocating", &path, error)),
            }
            self.making = Some(Making {
                file,
                len_bytes: self.file_bytes,
                written_bytes: 0,
            });
        }
        let Some(making) = &mut self.making else {
            return Ok(());
        };
        let left = making.len_bytes - making.written_bytes;
        let step = left.min(step_bytes).min(MAX_STEP_BYTES);
        making
            .file
            .write_all_at(&ZEROS[..step as usize], making.written_bytes)
            .at("writing", &path)?;
        making.file.sync_data().at("syncing", &path)?;
        making.written_bytes += step;
        if making.written_bytes == making.len_bytes {
            self.making = None;
            let number = self.take_number();
            let spare = spare_path(&self.dir, number);
            self.disk.rename(&path, &spare).at("renaming", &path)?;
            self.names_unsynced = true;
            self.spares.push(spare);
        }
        Ok(())
    }

    /// Turns a file that nothing needs any more into a spare, or removes it where there are enough.
    pub(super) fn take_back(&mut self, number: u64) -> Result<(), JournalError> {
        let path = journal_path(&self.dir, number);
        self.stalled = false;
        if self.spares.len() >= self.max_spares {
            return self.disk.remove_file(&path).at("removing", &path);
        }
        let spare = spare_path(&self.dir, number);
        self.disk.rename(&path, &spare).at("renaming", &path)?;
        tracing::debug!(case = "journal file recycled", number);
        self.names_unsynced = true;
        self.spares.push(spare);
        Ok(())
    }

    /// Makes the names of all spares durable.
    pub(super) fn sync_names(&mut self) -> Result<(), JournalError> {
        if self.names_unsynced {
            self.disk.sync_dir(&self.dir).at("syncing", &self.dir)?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    /// A file to write to, without a header and still under the name of a spare; the reserve, too, if `reserve` says so. A
    /// new one is made if there is none.
    fn take_spare(
        &mut self,
        reserve: bool,
        min_bytes: u64,
    ) -> Result<(PathBuf, Arc<dyn DiskFile>, u64), JournalError> {
        let want_bytes = self.file_bytes.max(min_bytes);
        loop {
            self.sync_names()?;
            if (!reserve && self.available() == 0) || self.spares.is_empty() {
                self.make_now()?;
            }
            // A new file taken where none is left over becomes this one, not the reserve: the journal goes on.
            let path = self.spares.swap_remove(0);
            self.sync_names()?;
            let file = self
                .disk
                .open(&path, OpenMode::Write)
                .at("opening", &path)?;
            let len_bytes = file.len().at("reading the length of", &path)?;
            if len_bytes < self.file_bytes {
                // Made when journal files were smaller.
                drop(file);
                self.disk.remove_file(&path).at("removing", &path)?;
                continue;
            }
            if len_bytes < want_bytes {
                file.allocate(want_bytes)
                    .map_err(|error| self.full_or(error, &path, want_bytes - len_bytes))?;
                let mut position = len_bytes;
                while position < want_bytes {
                    let step = (want_bytes - position).min(MAX_STEP_BYTES);
                    file.write_all_at(&ZEROS[..step as usize], position)
                        .at("writing", &path)?;
                    position += step;
                }
            } else if len_bytes > want_bytes {
                file.set_len(want_bytes).at("cutting", &path)?;
            }
            return Ok((path, file, want_bytes));
        }
    }

    fn make_now(&mut self) -> Result<(), JournalError> {
        let had = self.spares.len();
        self.stalled = false;
        while self.spares.len() == had {
            self.make_some(MAX_STEP_BYTES)?;
            if self.stalled {
                return Err(self.full(self.file_bytes));
            }
        }
        Ok(())
    }

    fn full(&self, needed_bytes: u64) -> JournalError {
        let free_bytes = self.disk.free_bytes(&self.dir).unwrap_or(0);
        JournalError::Full {
            dir: self.dir.clone(),
            needed_bytes,
            free_bytes,
        }
    }

    fn full_or(&self, error: io::Error, path: &Path, needed_bytes: u64) -> JournalError {
        match error.kind() {
            io::ErrorKind::StorageFull => self.full(needed_bytes),
            _ => JournalError::io("allocating", path, error),
        }
    }

    /// The next files of a running journal, which writes to file `after` now, ready for groups: their headers and names are durable. All spares that may be
    /// used, at least one: syncing the directory can take long when others write to the same file system, so it is
    /// done once for all of them.
    pub(super) fn prepare(
        &mut self,
        journal_id: u128,
        durable: Lsn,
        after: u64,
    ) -> Result<VecDeque<OpenFile>, JournalError> {
        let mut prepared = VecDeque::new();
        for _ in 0..self.available().max(1) {
            let (spare, file, len_bytes) = self.take_spare(false, 0)?;
            let number = self.take_number();
            let incarnation = self.incarnation(number);
            let header = FileHeader {
                journal_id,
                number,
                incarnation,
                durable,
                len_bytes,
                start: Start::Continues { after },
            };
            file.write_all_at(&header.write(), 0)
                .at("writing", &spare)?;
            file.sync_data().at("syncing", &spare)?;
            let path = journal_path(&self.dir, number);
            self.disk.rename(&spare, &path).at("renaming", &spare)?;
            let position = header.first_position();
            prepared.push_back(OpenFile {
                number,
                path,
                file,
                incarnation,
                len_bytes,
                position,
            });
        }
        self.names_unsynced = true;
        self.sync_names()?;
        Ok(prepared)
    }

    /// The file that recovery builds: of at least that size, still under the name of a spare, nothing written.
    pub(super) fn begin_recovery(&mut self, min_bytes: u64) -> Result<OpenFile, JournalError> {
        let (path, file, len_bytes) = self.take_spare(true, min_bytes)?;
        let number = self.take_number();
        Ok(OpenFile {
            number,
            path,
            file,
            incarnation: self.incarnation(number),
            len_bytes,
            position: 0,
        })
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// A name for one use of one file: never the same again, as entropy differs from opening to opening and the number
    /// within one.
    fn incarnation(&self, number: u64) -> u64 {
        let mut x = (self.entropy as u64) ^ ((self.entropy >> 64) as u64).rotate_left(32);
        x = x.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

static ZEROS: [u8; MAX_STEP_BYTES as usize] = [0; MAX_STEP_BYTES as usize];
