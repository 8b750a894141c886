//! Finding the sound end of a journal, and telling a torn tail from damage.
//!
//! Groups are followed from the first file that is needed, each naming the checksum of the one before. Where that ends,
//! the search goes on block by block, to the end of the file and through later ones, for headers of those incarnations:
//! each says what was durable when it was written. If that reaches to or past the group that is missing, or if the
//! checkpoint or a view does, what is missing was durable, and this is damage. Otherwise it is a torn tail.

//!
//! Recovery refuses at the first damage. A check goes on behind it, with the next sound group that there is: the two are
//! told apart by the [`Judge`] alone, so that a check says what recovery would.

use super::header::{FileEnd, FileHeader, Start, first_position};
use super::replay::GroupReader;
use super::stock::journal_path;
use crate::error::At;
use crate::header::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader};
use crate::{DiskFile, Group, JournalError, Known, Lsn, mutation};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read at once where every block is looked at.
const CHUNK_BYTES: usize = 1 << 20;

/// Who is told what a scan finds, and says whether damage ends it.
pub(super) trait Judge {
    /// Something is wrong: an error ends the scan, otherwise it goes on behind that.
    fn wrong(&mut self, error: JournalError) -> Result<(), JournalError>;
    /// The first LSN that can be read after what was wrong.
    fn resumed(&mut self, _lsn: Lsn) {}
    /// The journal ends here with the remains of a write that was never known durable; `lsn` is the first it would have
    /// held.
    fn torn(&mut self, _file: &Path, _position: u64, _lsn: Lsn) {}
    /// A sound group of the chain, in order, and where it stands.
    fn group(&mut self, _file: &Path, _position: u64, _group: Group) {}
}

/// The judge of recovery.
pub(super) struct Refuse;

impl Judge for Refuse {
    fn wrong(&mut self, error: JournalError) -> Result<(), JournalError> {
        Err(error)
    }

    fn torn(&mut self, file: &Path, position: u64, lsn: Lsn) {
        tracing::info!(case = "torn tail cut", path = %file.display(), position, %lsn);
    }
}

/// Within so much of a file that was written to stands a group's header, even if its first group is torn.
const FIRST_GROUPS_BYTES: u64 = 8 << 20;

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
    /// A file before it is missing, which has been named.
    pub(super) after_missing: bool,
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
    judge: &'a mut dyn Judge,
    /// What should come next is damaged: any later group will do.
    lost: bool,
    /// The damage named last, by index of the file and position.
    named: Option<(usize, u64)>,
}

/// A sound group: its header, the checksum of that, its payload.
type Sound = (GroupHeader, u32, Bytes);

/// Scans `files`, the chain of a journal from the first file that is needed on.
pub(super) fn scan(
    files: &[Found],
    known: Known,
    judge: &mut dyn Judge,
) -> Result<Scan, JournalError> {
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
        judge,
        lost: false,
        named: None,
    };
    for index in 0..files.len() {
        if scanner.file(index)?.is_break() {
            break;
        }
    }
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
    /// Follows the groups of a file. Breaks where the journal ends.
    fn file(&mut self, index: usize) -> Result<ControlFlow<()>, JournalError> {
        let found = &self.files[index];
        let Some(header) = &found.header else {
            let error = self.damaged(index, 0, "the header of the file");
            self.lose(index, 0, error)?;
            return Ok(ControlFlow::Continue(()));
        };
        self.lost |= found.after_missing;
        self.enter(index, header)?;
        let limit = found.end.map_or(found.len_bytes, |end| end.position);
        let mut position = header.first_position();
        loop {
            while let Some(group) = self.follow(index, header.incarnation, position, limit)? {
                let span_bytes = group.0.span_bytes();
                self.accept(index, position, group);
                position += span_bytes;
            }
            let mut from = position + BLOCK_BYTES as u64;
            match found.end {
                Some(end)
                    if position == end.position && self.expected == Some(end.last_lsn.next()) =>
                {
                    return Ok(ControlFlow::Continue(()));
                }
                // Lost before this file; what stands here has not been named.
                _ if self.lost && self.named != Some((index, position)) => from = position,
                _ if self.lost => {}
                Some(_) => {
                    let what = "a group before the end that was recorded";
                    let error = self.damaged(index, position, what);
                    self.lose(index, position, error)?;
                }
                None if self.continues_in(index + 1)? => return Ok(ControlFlow::Continue(())),
                None => match self.stop(index, position)? {
                    None => return Ok(ControlFlow::Break(())),
                    Some((file, at, error)) => self.lose(file, at, error)?,
                },
            }
            // Recovery has ended by now.
            let Some(next) = self.next_sound(index, header.incarnation, from, limit)? else {
                if let Some(end) = found.end {
                    self.expected = self.expected.max(Some(end.last_lsn.next()));
                }
                return Ok(ControlFlow::Continue(()));
            };
            position = next;
        }
    }

    /// Names damage, once.
    fn lose(
        &mut self,
        index: usize,
        position: u64,
        error: JournalError,
    ) -> Result<(), JournalError> {
        self.lost = true;
        if self.named.replace((index, position)) == Some((index, position)) {
            return Ok(());
        }
        self.judge.wrong(error)
    }

    /// The chain goes on with this LSN.
    fn find_again(&mut self, lsn: Lsn) {
        if std::mem::take(&mut self.lost) {
            self.judge.resumed(lsn);
        }
    }

    /// The first place from `from` on where a sound group stands.
    fn next_sound(
        &mut self,
        index: usize,
        incarnation: u64,
        mut from: u64,
        limit: u64,
    ) -> Result<Option<u64>, JournalError> {
        let found = &self.files[index];
        loop {
            let mut next = None;
            let searched = headers(found, incarnation, from, limit, &mut |at, header| {
                next = Some((at, header.first_lsn));
                ControlFlow::Break(())
            });
            if let Err((at, error)) = searched {
                self.lose(index, at, error)?;
                from = at + CHUNK_BYTES as u64;
                continue;
            }
            let Some((at, first_lsn)) = next else {
                return Ok(None);
            };
            if self.follow(index, incarnation, at, limit)?.is_some() {
                return Ok(Some(at));
            }
            // Its header is sound, and says what it was.
            if self.expected.is_none_or(|expected| first_lsn >= expected) {
                let error = JournalError::Damaged {
                    file: found.path.clone(),
                    position: at,
                    lsn: first_lsn,
                    what: "the group cannot be read".to_owned(),
                };
                self.lose(index, at, error)?;
            }
            from = at + BLOCK_BYTES as u64;
        }
    }

    /// Checks what the header of a file says about what stands before it.
    fn enter(&mut self, index: usize, header: &FileHeader) -> Result<(), JournalError> {
        let Start::Recovered {
            first_lsn, before, ..
        } = &header.start
        else {
            return Ok(());
        };
        if self.expected.is_some_and(|expected| expected != *first_lsn) && !self.lost {
            let error = self.damaged(index, 0, "groups before this file");
            self.lose(index, 0, error)?;
        }
        self.find_again(*first_lsn);
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
        &mut self,
        index: usize,
        incarnation: u64,
        position: u64,
        limit: u64,
    ) -> Result<Option<Sound>, JournalError> {
        let found = &self.files[index];
        let group = self
            .reader
            .read(&*found.file, &found.path, incarnation, position, limit);
        match group {
            Ok(group) => Ok(group.filter(|(header, _, _)| self.is_next(header))),
            Err(error) => {
                self.lose(index, position, error)?;
                Ok(None)
            }
        }
    }

    /// Whether a group follows the one before, or, where there is none yet, what the checkpoint has passed.
    fn is_next(&self, header: &GroupHeader) -> bool {
        if self.lost {
            return self
                .expected
                .is_none_or(|expected| expected <= header.first_lsn);
        }
        let wanted = self.known.checkpoint.next();
        self.expected
            .map_or(header.first_lsn <= wanted, |expected| {
                expected == header.first_lsn
            })
            && self.before.is_none_or(|before| before == header.before)
    }

    fn accept(&mut self, index: usize, position: u64, (header, checksum, payload): Sound) {
        self.find_again(header.first_lsn);
        let group = Group {
            first_lsn: header.first_lsn,
            frames: header.frames,
            payload,
        };
        let path = &self.files[index].path;
        self.judge.group(path, position, group);
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
    fn continues_in(&mut self, index: usize) -> Result<bool, JournalError> {
        let Some(found) = self.files.get(index) else {
            return Ok(false);
        };
        let Some(header) = &found.header else {
            return Ok(false);
        };
        if !matches!(header.start, Start::Continues { .. }) {
            return Ok(false);
        }
        match first_group(found, header) {
            Ok(first) => Ok(first.is_some_and(|first| self.is_next(&first))),
            Err(error) => {
                let at = header.first_position();
                self.lose(index, at, error)?;
                Ok(false)
            }
        }
    }

    /// The chain ends here: a torn tail, which is nothing, or damage, with the index of its file and its position?
    fn stop(
        &mut self,
        index: usize,
        position: u64,
    ) -> Result<Option<(usize, u64, JournalError)>, JournalError> {
        let from_views = self.known.checkpoint.max(self.known.views);
        for (later, found) in self.files.iter().enumerate().skip(index) {
            let Some(header) = &found.header else {
                // It was synced before the file got its name: no tear, and what follows it may have been durable.
                let error = self.damaged(later, 0, "the header of the file");
                return Ok(Some((later, 0, error)));
            };
            if found.len_bytes < header.len_bytes {
                let at = found.len_bytes;
                let error = JournalError::Damaged {
                    file: found.path.clone(),
                    position: at,
                    lsn: self.next_lsn(),
                    what: format!(
                        "the file ends here, and was {} bytes long",
                        header.len_bytes
                    ),
                };
                return Ok(Some((later, at, error)));
            }
            let from = if later == index {
                position
            } else {
                header.first_position()
            };
            if mutation::active(mutation::BIT_FLIP_CUT_AS_TORN_TAIL) {
                continue;
            }
            match durable_beyond(found, header.incarnation, from, later > index) {
                Ok(Some(durable)) => self.durable = self.durable.max(durable),
                Ok(None) => {
                    if let Some(error) = self.missing_before(later, from) {
                        return Ok(Some((later, 0, error)));
                    }
                }
                Err((_, error)) => self.judge.wrong(error)?,
            }
        }
        self.settle();
        let Some(expected) = self.expected else {
            // Files are recycled only when a later one holds a group that is synced.
            let error = self.damaged(index, position, "the first group that is left");
            return Ok(Some((index, position, error)));
        };
        let culprit = match self.culprit(index, position) {
            Ok(culprit) => culprit,
            Err(error) => {
                self.judge.wrong(error)?;
                None
            }
        };
        if self.durable < expected {
            if let Some((file, at, true)) = culprit {
                self.judge.torn(&self.files[file].path, at, expected);
            }
            return Ok(None);
        }
        let (file, at) = culprit.map_or((index, position), |(file, at, _)| (file, at));
        if self.durable == from_views && culprit.is_none() {
            let (view, at_lsn) = if self.known.checkpoint == from_views {
                ("checkpoint", self.known.checkpoint)
            } else {
                ("state that was built from the journal", self.known.views)
            };
            let dir = self.files[index]
                .path
                .parent()
                .map(PathBuf::from)
                .unwrap_or_default();
            let error = JournalError::ViewAhead {
                view,
                at: at_lsn,
                end: Lsn(expected.0 - 1),
                dir,
            };
            return Ok(Some((file, at, error)));
        }
        Ok(Some((file, at, self.damaged(file, at, "the group"))))
    }

    /// A file that holds no group, from `position` on, was made while another was written to. That one is recycled only
    /// once a later one is written to: where neither is here, it has been taken away.
    fn missing_before(&self, index: usize, position: u64) -> Option<JournalError> {
        let found = &self.files[index];
        let Start::Continues { after } = found.header.as_ref()?.start else {
            return None;
        };
        let is_empty = position == first_position(0);
        let is_there = self.files[..index].iter().any(|file| file.number >= after);
        (is_empty && after != 0 && !is_there).then(|| JournalError::Damaged {
            file: journal_path(found.path.parent().unwrap_or(Path::new("")), after),
            position: 0,
            lsn: self.next_lsn(),
            what: "the file is missing".to_owned(),
        })
    }

    /// Where the bytes lie that were a group once: here, or at the beginning of the next file. And whether they are of
    /// this use of the file for sure.
    fn culprit(
        &self,
        index: usize,
        position: u64,
    ) -> Result<Option<(usize, u64, bool)>, JournalError> {
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
            let (bytes, incarnation) = (&block[..read], header.incarnation);
            if GroupHeader::resembles(bytes, incarnation, position) {
                let sure = GroupHeader::bears(bytes, incarnation);
                return Ok(Some((index, position, sure)));
            }
        }
        Ok(None)
    }

    fn damaged(&self, index: usize, position: u64, what: &str) -> JournalError {
        JournalError::Damaged {
            file: self.files[index].path.clone(),
            position,
            lsn: self.next_lsn(),
            what: format!("{what} cannot be read"),
        }
    }

    /// The LSN that should come next.
    fn next_lsn(&self) -> Lsn {
        self.expected
            .unwrap_or_else(|| self.known.checkpoint.next())
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

/// The highest LSN that any header from `from` to the end of a file says was durable; none if there is no header. A file
/// that lies ready is looked at as far as its first groups would reach: many such files are not read for nothing.
fn durable_beyond(
    found: &Found,
    incarnation: u64,
    from: u64,
    may_lie_ready: bool,
) -> Result<Option<Lsn>, (u64, JournalError)> {
    let mut durable = None::<Lsn>;
    let end = found.len_bytes;
    let first = match may_lie_ready {
        true => end.min(from + FIRST_GROUPS_BYTES),
        false => end,
    };
    for (from, to) in [(from, first), (first, end)] {
        headers(found, incarnation, from, to, &mut |_, header| {
            durable = durable.max(Some(header.durable));
            ControlFlow::Continue(())
        })?;
        if durable.is_none() {
            break;
        }
    }
    Ok(durable)
}

/// Looks at every block of a file between two positions, and visits the group headers that are sound in themselves. An
/// error comes with where the bytes are that cannot be read.
fn headers(
    found: &Found,
    incarnation: u64,
    from: u64,
    limit: u64,
    visit: &mut dyn FnMut(u64, GroupHeader) -> ControlFlow<()>,
) -> Result<(), (u64, JournalError)> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = from;
    while position < limit {
        let wanted = (limit - position).min(CHUNK_BYTES as u64) as usize;
        let read = found
            .file
            .read_at(&mut chunk[..wanted], position)
            .at("reading", &found.path)
            .map_err(|error| (position, error))?;
        for (block, bytes) in chunk[..read].chunks(BLOCK_BYTES).enumerate() {
            let at = position + (block * BLOCK_BYTES) as u64;
            if let Some((header, _)) = GroupHeader::read(bytes, incarnation, at)
                && visit(at, header).is_break()
            {
                return Ok(());
            }
        }
        if read < wanted {
            return Ok(());
        }
        position += read as u64;
    }
    Ok(())
}
