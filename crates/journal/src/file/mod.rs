//! The journal in files: the commit path.

mod header;
mod recovery;
mod replay;
mod scan;
mod stock;
pub mod verify;

pub use replay::Replay;

use crate::error::At;
use crate::header::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, span_bytes};
use crate::{
    Disk, DiskFile, Group, JournalError, Known, Lsn, Medium, SealedGroup, Space, mutation,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stock::{MAX_STEP_BYTES, OpenFile, QUIET_STEP_BYTES, Stock};

/// The smallest journal file: a header and a few groups.
const MIN_FILE_BYTES: u64 = 8 * BLOCK_BYTES as u64;
/// The largest: lengths in it are 32 bits.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// What is written of a new file for each byte of the active one, while one is lacking: it is there when half of the active
/// one is used.
const PACE: u64 = 2;
/// Less of it is not written at a time: each step has a sync of its own.
const MIN_STEP_BYTES: u64 = 64 << 10;
/// The next files are given their headers when this part of the active one is used, so that they are ready in time.
const PREPARE_AT_PERCENT: u64 = 50;

/// Settings of a journal in files.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Size of one file, 64 MiB unless told otherwise; between 32 KiB and 2 GiB. A group, with its header, fits into one.
    pub file_bytes: u64,
    /// Files that are kept, written through, for the next use; what is recycled beyond them is removed. At least 2, one
    /// of which is the reserve for recovery.
    pub max_spare_files: usize,
    /// Randomness from outside, different for every opening: the journal's id when it is made, and the marks that tell
    /// one use of a file from the next. The default asks the operating system.
    pub entropy: u128,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            file_bytes: 64 << 20,
            max_spare_files: 16,
            entropy: SmallRng::from_os_rng().random(),
        }
    }
}

/// The journal in files of one directory.
///
/// One file is written at a time, the next lies ready, and older ones wait for a checkpoint to pass them. What is
/// submitted is written with one write for each group and one fdatasync for all of them.
pub struct FileMedium {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    max_payload_bytes: usize,
    journal_id: u128,
    active: OpenFile,
    /// Ready to follow it, in order.
    next: VecDeque<OpenFile>,
    older: VecDeque<Older>,
    stock: Stock,
    submitted: Vec<SealedGroup>,
    submitted_lsn: Lsn,
    /// Everything up to here is synced.
    durable_lsn: Lsn,
    /// What the last synced header says is durable; behind `durable_lsn` by the last commit.
    recorded_lsn: Lsn,
    /// Checksum of the last header written.
    before: u32,
    /// Bytes written since work on the next files was last done: it keeps pace with them.
    owed_bytes: u64,
    poison: Option<JournalError>,
}

/// A file that waits for a checkpoint.
struct Older {
    number: u64,
    last_lsn: Lsn,
}

impl FileMedium {
    /// Opens the journal in `dir`, or makes one: recovers what is there, as far as it is sound, and makes durable all
    /// of it before it returns. [`Replay`] then hands out the groups above the checkpoint.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: JournalOptions,
        known: Known,
    ) -> Result<(FileMedium, Replay), JournalError> {
        let file_bytes = options
            .file_bytes
            .clamp(MIN_FILE_BYTES, MAX_FILE_BYTES)
            .next_multiple_of(BLOCK_BYTES as u64);
        recovery::open(
            disk,
            dir,
            JournalOptions {
                file_bytes,
                ..options
            },
            known,
        )
    }

    /// Runs `act` unless the medium is poisoned, and poisons it if `act` fails.
    fn guarded<R>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<R, JournalError>,
    ) -> Result<R, JournalError> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone());
        }
        act(self).inspect_err(|error| {
            tracing::error!(%error, "the journal is poisoned");
            self.poison = Some(error.clone());
        })
    }

    fn commit(&mut self) -> Result<Vec<Group>, JournalError> {
        let mut groups = std::mem::take(&mut self.submitted);
        let mut written: Vec<(PathBuf, Arc<dyn DiskFile>)> = Vec::with_capacity(1);
        let durable = self.durable_lsn;
        let mut last_written = durable;
        let syncs_late = mutation::active(mutation::APPLY_BEFORE_SYNC);
        if syncs_late {
            sync(&*self.active.file, &self.active.path)?;
        }
        for group in &mut groups {
            let header = GroupHeader {
                incarnation: 0,
                position: 0,
                first_lsn: group.first_lsn,
                durable,
                payload_bytes: group.payload_bytes as u32,
                frames: group.frames,
                before: 0,
                payload_crc: group.payload_crc,
            };
            self.write_group(header, group.buffer.as_mut(), last_written)?;
            last_written = group.last_lsn();
            if written
                .last()
                .is_none_or(|(path, _)| *path != self.active.path)
            {
                written.push((self.active.path.clone(), self.active.file.clone()));
            }
        }
        for (path, file) in written.iter().filter(|_| !syncs_late) {
            sync(&**file, path)?;
        }
        self.durable_lsn = last_written;
        self.recorded_lsn = durable;
        Ok(groups.into_iter().map(SealedGroup::into_durable).collect())
    }

    /// Completes the header at the front of `bytes`, whole blocks, and writes them where they belong.
    fn write_group(
        &mut self,
        mut header: GroupHeader,
        bytes: &mut [u8],
        last_written: Lsn,
    ) -> Result<(), JournalError> {
        let span = bytes.len() as u64;
        debug_assert_eq!(span, header.span_bytes());
        if self.active.position + span > self.active.len_bytes {
            self.rotate(last_written)?;
        }
        header.incarnation = self.active.incarnation;
        header.position = self.active.position;
        header.before = self.before;
        let mut head = [0; GROUP_HEADER_BYTES];
        self.before = header.write(&mut head);
        bytes[..GROUP_HEADER_BYTES].copy_from_slice(&head);
        self.active
            .file
            .write_all_at(bytes, self.active.position)
            .at("writing", &self.active.path)?;
        self.active.position += span;
        self.owed_bytes += span;
        Ok(())
    }

    fn rotate(&mut self, last_lsn: Lsn) -> Result<(), JournalError> {
        if self.next.is_empty() {
            self.next =
                self.stock
                    .prepare(self.journal_id, self.durable_lsn, self.active.number)?;
        }
        let Some(next) = self.next.pop_front() else {
            unreachable!("at least one file is prepared, or an error says why")
        };
        let full = std::mem::replace(&mut self.active, next);
        tracing::debug!(case = "journal file full", number = full.number);
        self.older.push_back(Older {
            number: full.number,
            last_lsn,
        });
        Ok(())
    }

    /// One bounded step of the work on files to come. Returns whether there was one to do.
    fn work_ahead(&mut self) -> Result<bool, JournalError> {
        if self.next.is_empty() && self.stock.available() > 0 {
            self.next =
                self.stock
                    .prepare(self.journal_id, self.durable_lsn, self.active.number)?;
        } else if self.lacks_files() {
            self.stock.make_some(QUIET_STEP_BYTES)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn lacks_files(&self) -> bool {
        self.stock.lacks(usize::from(self.next.is_empty())) && !self.stock.stalled
    }

    /// The part of the work ahead that cannot wait for a quiet moment: done before a commit, not after it, so that
    /// answers do not wait for it, and in proportion to what was written.
    fn keep_pace(&mut self) -> Result<(), JournalError> {
        let used_percent = self.active.position * 100 / self.active.len_bytes;
        if self.next.is_empty() && self.stock.available() > 0 && used_percent >= PREPARE_AT_PERCENT
        {
            self.work_ahead()?;
        }
        // Little by little where little is written: a lone record does not wait for a large step.
        while self.lacks_files() && self.owed_bytes * PACE >= MIN_STEP_BYTES {
            let step_bytes = (self.owed_bytes * PACE).min(MAX_STEP_BYTES);
            self.owed_bytes -= step_bytes / PACE;
            self.stock.make_some(step_bytes)?;
        }
        if !self.lacks_files() {
            self.owed_bytes = 0;
        }
        Ok(())
    }
}

impl Medium for FileMedium {
    fn submit(&mut self, group: SealedGroup) -> Result<(), JournalError> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone());
        }
        if group.payload_bytes > self.max_payload_bytes {
            let (bytes, limit_bytes) = (group.payload_bytes as u64, self.max_payload_bytes as u64);
            return Err(JournalError::GroupTooLarge { bytes, limit_bytes });
        }
        if group.first_lsn != self.submitted_lsn.next() {
            return Err(JournalError::OutOfOrder {
                expected: self.submitted_lsn.next(),
                got: group.first_lsn,
            });
        }
        self.submitted_lsn = group.last_lsn();
        self.submitted.push(group);
        Ok(())
    }

    fn drive(&mut self) -> Result<Vec<Group>, JournalError> {
        self.guarded(|medium| {
            if medium.submitted.is_empty() {
                medium.owed_bytes = 0;
                medium.work_ahead()?;
                return Ok(Vec::new());
            }
            medium.keep_pace()?;
            medium.commit()
        })
    }

    fn has_background_work(&self) -> bool {
        let can_prepare = self.next.is_empty() && self.stock.available() > 0;
        self.poison.is_none() && (can_prepare || self.lacks_files())
    }

    fn durable_lsn(&self) -> Lsn {
        self.durable_lsn
    }

    fn mark_idle(&mut self) -> Result<(), JournalError> {
        self.guarded(|medium| {
            if medium.recorded_lsn == medium.durable_lsn || !medium.submitted.is_empty() {
                return Ok(());
            }
            let durable = medium.durable_lsn;
            let empty = GroupHeader {
                incarnation: 0,
                position: 0,
                first_lsn: durable.next(),
                durable,
                payload_bytes: 0,
                frames: 0,
                before: 0,
                payload_crc: crc32c::crc32c(&[]),
            };
            medium.write_group(empty, &mut [0; BLOCK_BYTES], durable)?;
            sync(&*medium.active.file, &medium.active.path)?;
            medium.recorded_lsn = durable;
            Ok(())
        })
    }

    fn recycle(&mut self, up_to: Lsn) -> Result<(), JournalError> {
        self.guarded(|medium| {
            assert!(
                up_to <= medium.durable_lsn,
                "a checkpoint at {up_to} is ahead of the journal"
            );
            // The active file holds, synced, a group or the header of recovery: the journal's end stays on record.
            while medium
                .older
                .front()
                .is_some_and(|older| older.last_lsn <= up_to)
            {
                if let Some(older) = medium.older.pop_front() {
                    medium.stock.take_back(older.number)?;
                }
            }
            medium.stock.sync_names()
        })
    }

    fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    fn space(&self) -> Result<Space, JournalError> {
        let file_bytes = self.max_payload_bytes as u64 + (GROUP_HEADER_BYTES + BLOCK_BYTES) as u64;
        let next: u64 = self
            .next
            .iter()
            .map(|next| next.len_bytes - next.position)
            .sum();
        let spares = self.stock.available() as u64 * (file_bytes - BLOCK_BYTES as u64);
        Ok(Space {
            writable_bytes: self.active.len_bytes - self.active.position + next + spares,
            free_bytes: self
                .disk
                .free_bytes(&self.dir)
                .at("asking for the free space of", &self.dir)?,
            file_bytes,
        })
    }

    fn supports_references(&self) -> bool {
        true
    }

    fn journal_id(&self) -> u128 {
        self.journal_id
    }
}

/// The largest payload that fits into a file of that size behind a header of one block.
fn max_payload_bytes(file_bytes: u64) -> usize {
    let room = file_bytes as usize - BLOCK_BYTES - GROUP_HEADER_BYTES;
    debug_assert_eq!(span_bytes(room) + BLOCK_BYTES as u64, file_bytes);
    room
}

fn sync(file: &dyn DiskFile, path: &Path) -> Result<(), JournalError> {
    if mutation::active(mutation::NO_JOURNAL_SYNC) {
        return Ok(());
    }
    file.sync_data().at("syncing", path)
}
