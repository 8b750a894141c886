//! Finding the sound end of a journal, and telling a torn tail from damage.
//!
//! Groups are followed from the first file that is needed, each naming the checksum of the one before. Where that ends,
//! the search goes on block by block, to the end of the file and through later ones, for headers of those incarnations:
//! each says what was durable when it was written. If that reaches to or past the group that is missing, or if the
//! checkpoint or a view does, what is missing was durable, and this is damage. Otherwise it is a torn tail.

use super::header::{FileEnd, FileHeader, Start};
use super::replay::GroupReader;
use crate::error::At;
use crate::header::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader};
use crate::{DiskFile, JournalError, Known, Lsn, mutation};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// How much is read at once where every block is looked at.
const CHUNK_BYTES: usize = 1 << 20;

/// A journal file as it was found.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len_bytes: u64,
    /// `None`: damaged.
    pub(super) header: Option<FileHeader>,
    /// Where it ends, if a later file's header says so.
    pub(super) end: Option<FileEnd>,
}

/// A group that is sound but not known to be durable.
pub(super) struct Unknown {
    pub(super) file: usize,
    pub(super) position: u64,
    pub(super) header: GroupHeader,
}

/// What a scan found out.
pub(super) struct Scan {
    /// The LSN of the last sound group.
    pub(super) last_lsn: Lsn,
    /// Where the part of each file ends that holds known durable groups; by index of the file.
    pub(super) kept: Vec<Kept>,
    /// Checksum of the last group that is kept.
    pub(super) before: u32,
    /// The last LSN that is kept where it is.
    pub(super) kept_lsn: Lsn,
    /// The groups after it, to be made durable, and empty ones.
    pub(super) unknown: VecDeque<Unknown>,
}

/// The part of a file that holds groups which are known durable.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    /// The first group that holds a frame above the checkpoint, or `end`.
    pub(super) replay_from: Option<u64>,
    /// After the last group with frames; 0 if there is none.
    pub(super) end: u64,
    /// The last LSN in it.
    pub(super) last_lsn: Lsn,
}

struct Scanner<'a> {
    files: &'a [Found],
    known: Known,
    durable: Lsn,
    reader: GroupReader,
    /// LSN and chain checksum of what comes next, once known.
    expected: Option<Lsn>,
    before: Option<u32>,
    scan: Scan,
}

/// Scans `files`, the chain of a journal from the first file that is needed on.
pub(super) fn scan(files: &[Found], known: Known) -> Result<Scan, JournalError> {
    let claimed = files
        .iter()
        .filter_map(|found| found.header.as_ref())
        .map(|header| header.durable)
        .max();
    let mut scanner = Scanner {
        files,
        known,
        durable: known
            .checkpoint
            .max(known.views)
            .max(claimed.unwrap_or_default()),
        reader: GroupReader::new(),
        expected: None,
        before: None,
        scan: Scan {
            last_lsn: Lsn::ZERO,
            kept: vec![Kept::default(); files.len()],
            before: 0,
            kept_lsn: Lsn::ZERO,
            unknown: VecDeque::new(),
        },
    };
    scanner.run()?;
    if mutation::active(mutation::RECOVERY_WRITES_ON_IN_OLD_FILE) {
        // Whatever is sound stays where it is.
        scanner.durable = Lsn(u64::MAX);
        scanner.settle();
    }
    if mutation::active(mutation::SEEN_OFFSET_NAMES_ANOTHER_RECORD) {
        scanner.scan.unknown.clear();
        scanner.scan.last_lsn = scanner.scan.kept_lsn;
    }
    Ok(scanner.scan)
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), JournalError> {
        for index in 0..self.files.len() {
            let found = &self.files[index];
            let Some(header) = &found.header else {
                return Err(self.damaged(index, 0, "the header of the file"));
            };
            self.enter(index, header)?;
            let limit = found.end.map_or(found.len_bytes, |end| end.position);
            let mut position = header.first_position();
            while let Some(group) = self.follow(index, header.incarnation, position, limit)? {
                self.accept(index, position, group);
                position += group.0.span_bytes();
            }
            match found.end {
                Some(end)
                    if position == end.position && self.expected == Some(end.last_lsn.next()) => {}
                Some(_) => {
                    return Err(self.damaged(
                        index,
                        position,
                        "a group before the end that was recorded",
                    ));
                }
                None if self.continues_in(index + 1)? => {}
                None => return self.stop(index, position),
            }
        }
        Ok(())
    }

    /// Checks what the header of a file says about what stands before it.
    fn enter(&mut self, index: usize, header: &FileHeader) -> Result<(), JournalError> {
        let Start::Recovered {
            first_lsn, before, ..
        } = &header.start
        else {
            return Ok(());
        };
        if self.expected.is_some_and(|expected| expected != *first_lsn) {
            return Err(self.damaged(index, 0, "groups before this file"));
        }
        self.expected = Some(*first_lsn);
        self.before = Some(*before);
        if self.scan.kept_lsn < Lsn(first_lsn.0.saturating_sub(1)) {
            self.scan.kept_lsn = Lsn(first_lsn.0 - 1);
            self.scan.last_lsn = self.scan.kept_lsn;
            self.scan.before = *before;
        }
        Ok(())
    }

    /// The group at `position` if it is sound and follows the one before.
    fn follow(
        &self,
        index: usize,
        incarnation: u64,
        position: u64,
        limit: u64,
    ) -> Result<Option<(GroupHeader, u32)>, JournalError> {
        let found = &self.files[index];
        let group = self
            .reader
            .read(&*found.file, &found.path, incarnation, position, limit)?;
        Ok(group
            .map(|(header, checksum, _)| (header, checksum))
            .filter(|(header, _)| self.is_next(header)))
    }

    /// Whether a group follows the one before, or, where there is none yet, what the checkpoint has passed.
    fn is_next(&self, header: &GroupHeader) -> bool {
        let wanted = self.known.checkpoint.next();
        self.expected
            .map_or(header.first_lsn <= wanted, |expected| {
                expected == header.first_lsn
            })
            && self.before.is_none_or(|before| before == header.before)
    }

    fn accept(&mut self, index: usize, position: u64, (header, checksum): (GroupHeader, u32)) {
        if self.expected.is_none() {
            // Files before the first that is left were passed by a checkpoint.
            self.scan.kept_lsn = Lsn(header.first_lsn.0.saturating_sub(1));
            self.scan.before = header.before;
        }
        self.durable = self.durable.max(header.durable);
        self.expected = Some(header.last_lsn().next());
        self.before = Some(checksum);
        self.scan.last_lsn = self.scan.last_lsn.max(header.last_lsn());
        self.scan.unknown.push_back(Unknown {
            file: index,
            position,
            header,
        });
        self.settle();
        if self
            .scan
            .unknown
            .iter()
            .all(|group| group.header.frames == 0)
        {
            // An empty group alone in its file still tells how far the journal goes.
            self.scan.kept_lsn = self.scan.last_lsn;
        }
    }

    /// Moves the groups that are known durable by now to what is kept. An empty group goes with the group after it: at
    /// the end it may not be on disk, in the middle it is, and is part of the chain.
    fn settle(&mut self) {
        let durable = self.durable;
        let is_durable =
            |group: &Unknown| group.header.frames > 0 && group.header.last_lsn() <= durable;
        let count = self
            .scan
            .unknown
            .iter()
            .rposition(is_durable)
            .map_or(0, |last| last + 1);
        for Unknown {
            file,
            position,
            header,
        } in self.scan.unknown.drain(..count)
        {
            let kept = &mut self.scan.kept[file];
            let last_lsn = header.last_lsn();
            if header.frames > 0 && last_lsn > self.known.checkpoint {
                kept.replay_from.get_or_insert(position);
            }
            kept.end = position + header.span_bytes();
            kept.last_lsn = last_lsn;
            self.scan.kept_lsn = last_lsn;
            // What was read with a valid checksum is written with the same one.
            self.scan.before = header.write(&mut [0; GROUP_HEADER_BYTES]);
        }
    }

    /// Whether the next file begins with the group that follows.
    fn continues_in(&self, index: usize) -> Result<bool, JournalError> {
        let Some(found) = self.files.get(index) else {
            return Ok(false);
        };
        let Some(header) = &found.header else {
            return Ok(false);
        };
        if header.start != Start::Continues {
            return Ok(false);
        }
        let first = first_group(found, header)?;
        Ok(first.is_some_and(|first| self.is_next(&first)))
    }

    /// The chain ends here: a torn tail, or damage?
    fn stop(&mut self, index: usize, position: u64) -> Result<(), JournalError> {
        let from_views = self.known.checkpoint.max(self.known.views);
        for (later, found) in self.files.iter().enumerate().skip(index) {
            let Some(header) = &found.header else {
                // It was synced before the file got its name: no tear, and what follows it may have been durable.
                return Err(self.damaged(later, 0, "the header of the file"));
            };
            let from = if later == index {
                position
            } else {
                header.first_position()
            };
            if mutation::active(mutation::BIT_FLIP_CUT_AS_TORN_TAIL) {
                continue;
            }
            self.durable = self
                .durable
                .max(durable_beyond(found, header.incarnation, from)?);
        }
        self.settle();
        let Some(expected) = self.expected else {
            // Files are recycled only when a later one holds a group that is synced.
            return Err(self.damaged(index, position, "the first group that is left"));
        };
        if self.durable < expected {
            if let Some((file, at)) = self.culprit(index, position)? {
                let path = self.files[file].path.display();
                tracing::info!(case = "torn tail cut", %path, position = at, lsn = %expected);
            }
            return Ok(());
        }
        let (file, at) = self.culprit(index, position)?.unwrap_or((index, position));
        if self.durable == from_views && self.culprit(index, position)?.is_none() {
            let (view, at) = if self.known.checkpoint == from_views {
                ("checkpoint", self.known.checkpoint)
            } else {
                ("state that was built from the journal", self.known.views)
            };
            let dir = self.files[index]
                .path
                .parent()
                .map(PathBuf::from)
                .unwrap_or_default();
            return Err(JournalError::ViewAhead {
                view,
                at,
                end: Lsn(expected.0 - 1),
                dir,
            });
        }
        Err(self.damaged(file, at, "the group"))
    }

    /// Where the bytes lie that were a group once: here, or at the beginning of the next file.
    fn culprit(&self, index: usize, position: u64) -> Result<Option<(usize, u64)>, JournalError> {
        let here = self.files.get(index).map(|found| (index, found, position));
        let next = self.files.get(index + 1);
        let next = next
            .and_then(|found| Some((index + 1, found, found.header.as_ref()?.first_position())));
        for (index, found, position) in here.into_iter().chain(next) {
            let Some(header) = &found.header else {
                continue;
            };
            let mut block = [0; BLOCK_BYTES];
            let read = found
                .file
                .read_at(&mut block, position)
                .at("reading", &found.path)?;
            if GroupHeader::resembles(&block[..read], header.incarnation, position) {
                return Ok(Some((index, position)));
            }
        }
        Ok(None)
    }

    fn damaged(&self, index: usize, position: u64, what: &str) -> JournalError {
        JournalError::Damaged {
            file: self.files[index].path.clone(),
            position,
            lsn: self
                .expected
                .unwrap_or_else(|| self.known.checkpoint.next()),
            what: format!("{what} cannot be read"),
        }
    }
}

/// The header of the first group of a file, sound in itself.
pub(super) fn first_group(
    found: &Found,
    header: &FileHeader,
) -> Result<Option<GroupHeader>, JournalError> {
    let position = header.first_position();
    let mut block = [0; BLOCK_BYTES];
    let read = found
        .file
        .read_at(&mut block, position)
        .at("reading", &found.path)?;
    Ok(GroupHeader::read(&block[..read], header.incarnation, position).map(|(header, _)| header))
}

/// The highest LSN that any header from `from` to the end of a file says was durable.
fn durable_beyond(found: &Found, incarnation: u64, from: u64) -> Result<Lsn, JournalError> {
    let mut durable = Lsn::ZERO;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = from;
    loop {
        let read = found
            .file
            .read_at(&mut chunk, position)
            .at("reading", &found.path)?;
        for (block, bytes) in chunk[..read].chunks(BLOCK_BYTES).enumerate() {
            if let Some((header, _)) =
                GroupHeader::read(bytes, incarnation, position + (block * BLOCK_BYTES) as u64)
            {
                durable = durable.max(header.durable);
            }
        }
        if read < chunk.len() {
            return Ok(durable);
        }
        position += read as u64;
    }
}
