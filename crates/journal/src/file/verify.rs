//! Looking a journal through without opening it: what recovery would say, and everything behind that.

use super::recovery::look_through;
use super::scan::Judge;
use crate::header::BLOCK_BYTES;
use crate::{Disk, Group, JournalError, Known, Lsn};
use std::path::{Path, PathBuf};

/// What [`verify`] comes upon, in the order of the journal.
#[derive(Debug)]
pub enum Seen<'a> {
    /// Recovery would refuse the journal for this.
    Damage(JournalError),
    /// The first LSN that can be read after the damage named before.
    Resumed(Lsn),
    /// The remains of a write that was never known durable: recovery cuts it.
    Torn {
        /// The file.
        file: &'a Path,
        /// Where in it, in bytes.
        position: u64,
        /// The first LSN that the write held.
        lsn: Lsn,
    },
    /// Something that recovery pays no attention to.
    Ignored {
        /// The file.
        file: &'a Path,
        /// What it is.
        what: &'static str,
    },
    /// A sound group of the journal. Recovery replays it, unless damage comes before.
    Group {
        /// The file.
        file: &'a Path,
        /// Where in it, in bytes.
        position: u64,
        /// Its frames.
        group: &'a Group,
    },
    /// How much has been read.
    Progress {
        /// Bytes of journal files read.
        read_bytes: u64,
        /// Bytes there are to read.
        total_bytes: u64,
    },
}

/// What a journal was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The journal's id, if a header could be read.
    pub journal_id: Option<u128>,
    /// The last LSN that can be read.
    pub last_lsn: Lsn,
    /// Files that were read. Those that a checkpoint has passed are not: nothing reads them again.
    pub files: u64,
    /// Sound groups in them.
    pub groups: u64,
    /// Bytes of these groups.
    pub bytes: u64,
}

/// Reads the journal in `dir` as recovery would, changes nothing, and goes on behind what recovery would refuse. `known`
/// is what the views say; where they cannot be read, nothing is known, and what is missing at the front is not missed.
///
/// Fails only where the directory cannot be listed.
pub fn verify(
    disk: &dyn Disk,
    dir: &Path,
    known: Option<Known>,
    see: &mut dyn FnMut(Seen<'_>),
) -> Result<Verified, JournalError> {
    let mut tell = Tell {
        see,
        verified: Verified::default(),
        read_to: Vec::new(),
        total_bytes: total_bytes(disk, dir),
    };
    let (listing, scan) = look_through(disk, dir, known, &mut tell)?;
    let mut verified = tell.verified;
    verified.journal_id = listing.journal_id;
    verified.last_lsn = scan.last_lsn;
    verified.files = listing.chain.len() as u64;
    for found in &listing.chain {
        if !found.len_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            let what =
                "it does not end with a whole block: what stands behind the last is not read";
            let file = &found.path;
            (tell.see)(Seen::Ignored { file, what });
        }
    }
    for file in &listing.strange {
        let what = "it is no file of the journal, and left alone";
        (tell.see)(Seen::Ignored { file, what });
    }
    Ok(verified)
}

/// Only to say how far a check is.
fn total_bytes(disk: &dyn Disk, dir: &Path) -> u64 {
    let names = disk.list(dir).unwrap_or_default();
    let journal = names.iter().filter(|name| name.ends_with(".journal"));
    let length = |name: &String| {
        let file = disk.open(&dir.join(name), crate::OpenMode::Read).ok()?;
        file.len().ok()
    };
    journal.filter_map(length).sum()
}

/// The judge of a check.
struct Tell<'a> {
    see: &'a mut dyn FnMut(Seen<'_>),
    verified: Verified,
    /// How far each file has been read.
    read_to: Vec<(PathBuf, u64)>,
    total_bytes: u64,
}

impl Judge for Tell<'_> {
    fn wrong(&mut self, error: JournalError) -> Result<(), JournalError> {
        (self.see)(Seen::Damage(error));
        Ok(())
    }

    fn resumed(&mut self, lsn: Lsn) {
        (self.see)(Seen::Resumed(lsn));
    }

    fn torn(&mut self, file: &Path, position: u64, lsn: Lsn) {
        (self.see)(Seen::Torn {
            file,
            position,
            lsn,
        });
    }

    fn group(&mut self, file: &Path, position: u64, group: Group) {
        let span_bytes = group.buffer_bytes() as u64;
        self.verified.groups += 1;
        self.verified.bytes += span_bytes;
        match self.read_to.last_mut().filter(|(path, _)| path == file) {
            Some((_, read_to)) => *read_to = position + span_bytes,
            None => self.read_to.push((file.to_owned(), position + span_bytes)),
        }
        let read_bytes = self.read_to.iter().map(|(_, read_to)| read_to).sum();
        let total_bytes = self.total_bytes;
        (self.see)(Seen::Progress {
            read_bytes,
            total_bytes,
        });
        let group = &group;
        (self.see)(Seen::Group {
            file,
            position,
            group,
        });
    }
}
