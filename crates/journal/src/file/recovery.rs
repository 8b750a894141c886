//! Opening a journal: nothing is handed out before all of it is durable.
//!
//! A process that died leaves bytes that are readable but not synced, and after a failed sync even a later one proves
//! nothing. So what is not known to be durable is written again, into a new file, and the files that were found are never
//! written on: the new file's header says where each of them ends. The new file gets its name when all of it is synced;
//! until then it is a spare like any other, and recovery that dies begins again.

use super::header::{FileEnd, FileHeader, ReadHeader, Start, VERSION, first_position};
use super::replay::{GroupReader, Replay, Stretch};
use super::scan::{Found, Judge, Refuse, Scan, first_group, scan};
use super::stock::{OpenFile, Stock, journal_path, number_of};
use super::{FileMedium, JournalOptions, Older, max_payload_bytes};
use crate::error::At;
use crate::header::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader};
use crate::{Disk, JournalError, Known, Lsn, OpenMode, mutation};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a journal, sorted out.
pub(super) struct Listing {
    /// The journal itself, in order, from the first file that holds a frame above the checkpoint.
    pub(super) chain: Vec<Found>,
    /// Files before it, which the checkpoint has passed.
    passed: Vec<u64>,
    /// Files that an earlier recovery left out, and those that are needed until the first group of the chain is durable.
    left_out: Vec<u64>,
    spares: Vec<u64>,
    /// Files that were never finished.
    unfinished: Vec<PathBuf>,
    /// Names that the journal does not give.
    pub(super) strange: Vec<PathBuf>,
    next_number: u64,
    pub(super) journal_id: Option<u128>,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: JournalOptions,
    known: Known,
) -> Result<(FileMedium, Replay), JournalError> {
    disk.create_dir_all(dir).at("creating", dir)?;
    // A name that is seen may not be durable yet; what is built on it now must not outlive it.
    disk.sync_dir(dir).at("syncing", dir)?;
    let (listing, scan) = look_through(&*disk, dir, Some(known), &mut Refuse)?;
    // Only now: nothing is touched in a directory that is refused.
    for path in &listing.unfinished {
        tracing::debug!(case = "unfinished journal file removed", path = %path.display());
        disk.remove_file(path).at("removing", path)?;
    }

    let journal_id = listing
        .journal_id
        .or(known.journal_id)
        .unwrap_or(options.entropy);
    let mut stock = Stock::new(
        disk.clone(),
        dir,
        &options,
        &listing.spares,
        listing.next_number,
    );
    for number in &listing.passed {
        tracing::debug!(case = "journal file recycled at the start", number);
        stock.take_back(*number)?;
    }
    stock.sync_names()?;
    let rebuilt = rebuild(&*disk, dir, &mut stock, journal_id, &listing.chain, &scan)?;

    let mut older = VecDeque::new();
    let mut stretches = Vec::new();
    let mut unneeded = listing.left_out;
    for (found, kept) in listing.chain.into_iter().zip(&scan.kept) {
        if kept.end == 0 {
            unneeded.push(found.number);
            continue;
        }
        older.push_back(Older {
            number: found.number,
            last_lsn: kept.last_lsn,
        });
        if let (Some(from), Some(header)) = (kept.replay_from, found.header) {
            let (path, file, incarnation) = (found.path, found.file, header.incarnation);
            stretches.push(Stretch {
                path,
                file,
                incarnation,
                from,
                to: kept.end,
            });
        }
    }
    let Rebuilt {
        active,
        before,
        first_position,
    } = rebuilt;
    if mutation::active(mutation::RECOVERY_WRITES_ON_IN_OLD_FILE) {
        older.retain(|older: &Older| older.number != active.number);
    }
    stretches.push(Stretch {
        path: active.path.clone(),
        file: active.file.clone(),
        incarnation: active.incarnation,
        from: first_position,
        to: active.position,
    });
    for number in unneeded {
        tracing::debug!(case = "journal file without a known group left out", number);
        stock.take_back(number)?;
    }
    stock.sync_names()?;

    let last_lsn = scan.last_lsn;
    if scan.unknown.iter().any(|group| group.header.frames > 0) {
        tracing::debug!(case = "groups made durable again", kept = %scan.kept_lsn, %last_lsn);
    }
    tracing::info!(%last_lsn, checkpoint = %known.checkpoint, rewritten = scan.unknown.len(), "journal opened");
    let medium = FileMedium {
        disk,
        dir: dir.to_owned(),
        max_payload_bytes: max_payload_bytes(options.file_bytes),
        journal_id,
        active,
        next: VecDeque::new(),
        older,
        stock,
        submitted: Vec::new(),
        submitted_lsn: last_lsn,
        durable_lsn: last_lsn,
        recorded_lsn: last_lsn,
        before,
        owed_bytes: 0,
        poison: None,
    };
    Ok((medium, Replay::new(stretches, known.checkpoint, last_lsn)))
}

/// Reads the journal of a directory to its end, and decides what of it stands. Changes nothing. Where nothing is known
/// from elsewhere, the journal is taken to begin with what is there.
pub(super) fn look_through(
    disk: &dyn Disk,
    dir: &Path,
    known: Option<Known>,
    judge: &mut dyn Judge,
) -> Result<(Listing, Scan), JournalError> {
    let (listing, known) = sort_out(disk, dir, known, judge)?;
    let scan = scan(&listing.chain, known, judge)?;
    let at = known.checkpoint.max(known.views);
    if listing.chain.is_empty() && at > Lsn::ZERO {
        judge.wrong(JournalError::ViewAhead {
            view: "checkpoint",
            at,
            end: Lsn::ZERO,
            dir: dir.to_owned(),
        })?;
    }
    Ok((listing, scan))
}

/// Reads the directory and the header of every file, and decides which files are the journal.
fn sort_out(
    disk: &dyn Disk,
    dir: &Path,
    known: Option<Known>,
    judge: &mut dyn Judge,
) -> Result<(Listing, Known), JournalError> {
    let (mut found, mut spares, mut next_number) = (Vec::new(), Vec::new(), 1);
    let (mut unfinished, mut strange) = (Vec::new(), Vec::new());
    for name in disk.list(dir).at("listing", dir)? {
        if name.ends_with(".tmp") {
            unfinished.push(dir.join(&name));
        } else if let Some(number) = number_of(&name, "spare") {
            spares.push(number);
            next_number = next_number.max(number + 1);
        } else if let Some(number) = number_of(&name, "journal") {
            match look_at(disk, dir, number) {
                Ok(file) => found.push(file),
                Err(error) => judge.wrong(error)?,
            }
            next_number = next_number.max(number + 1);
        } else {
            strange.push(dir.join(&name));
        }
    }
    let known = match known {
        Some(known) => known,
        None => begins_with(&found),
    };
    let journal_id = one_id(&mut found, known, judge)?;

    let begun = |found: &Found| match &found.header {
        Some(FileHeader {
            start: Start::Recovered { ends, .. },
            ..
        }) => Some(ends.clone()),
        _ => None,
    };
    let newest = found.iter().rposition(|found| begun(found).is_some());
    let mut left_out = Vec::new();
    if let Some(newest) = newest {
        let ends = begun(&found[newest]).unwrap_or_default();
        let number = found[newest].number;
        for file in found.iter_mut().filter(|file| file.number < number) {
            file.end = ends.iter().find(|end| end.number == file.number).copied();
        }
        for (index, end) in ends.iter().enumerate() {
            let is_there = found.iter().any(|file| {
                file.number == end.number
                    && file
                        .header
                        .as_ref()
                        .is_none_or(|header| header.incarnation == end.incarnation)
            });
            if !is_there && end.last_lsn > known.checkpoint {
                let before = ends[..index].last().map(|before| before.last_lsn);
                judge.wrong(JournalError::Damaged {
                    file: journal_path(dir, end.number),
                    position: 0,
                    lsn: known.checkpoint.max(before.unwrap_or_default()).next(),
                    what: "the file is missing".to_owned(),
                })?;
                let next = found.iter_mut().find(|file| file.number > end.number);
                next.into_iter().for_each(|file| file.after_missing = true);
            }
        }
        let (chain, out): (Vec<Found>, Vec<Found>) = found
            .into_iter()
            .partition(|file| file.number >= number || file.end.is_some());
        left_out = out.into_iter().map(|file| file.number).collect();
        found = chain;
    }
    let (first, is_durable) = first_needed(&mut found, known, judge)?;
    let before = found.drain(..first).map(|file| file.number).collect();
    let passed = if is_durable {
        before
    } else {
        left_out.extend::<Vec<u64>>(before);
        Vec::new()
    };
    let listing = Listing {
        chain: found,
        passed,
        left_out,
        spares,
        unfinished,
        strange,
        next_number,
        journal_id,
    };
    Ok((listing, known))
}

/// What is known where nothing is: the journal began with the first LSN that is left of it.
fn begins_with(found: &[Found]) -> Known {
    let first_lsn = |file: &Found| {
        let header = file.header.as_ref()?;
        match &header.start {
            Start::Recovered { first_lsn, .. } => Some(*first_lsn),
            // What cannot be read is named when it is its turn.
            Start::Continues { .. } => Some(first_group(file, header).ok()??.first_lsn),
        }
    };
    let first = found.iter().filter_map(first_lsn).min();
    Known {
        checkpoint: Lsn(first.map_or(0, |first| first.0.saturating_sub(1))),
        ..Known::default()
    }
}

fn look_at(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Found, JournalError> {
    let path = journal_path(dir, number);
    let file = disk.open(&path, OpenMode::Read).at("opening", &path)?;
    let len_bytes = file.len().at("reading the length of", &path)?;
    let mut bytes = vec![0; BLOCK_BYTES];
    let header = loop {
        let read = file.read_at(&mut bytes, 0).at("reading", &path)?;
        match FileHeader::read(&bytes[..read]) {
            ReadHeader::Valid(header) if header.number == number => break Some(header),
            ReadHeader::Longer(length) if length > bytes.len() && length as u64 <= len_bytes => {
                bytes.resize(length, 0);
            }
            ReadHeader::Newer(version) => {
                return Err(JournalError::NewerVersion {
                    file: path,
                    version,
                    supported: VERSION,
                });
            }
            _ => break None,
        }
    };
    Ok(Found {
        number,
        path,
        file,
        len_bytes,
        header,
        end: None,
        after_missing: false,
    })
}

/// The id of the journal that these files are, which is the one that is known, if one is. Files of another are taken
/// out.
fn one_id(
    found: &mut Vec<Found>,
    known: Known,
    judge: &mut dyn Judge,
) -> Result<Option<u128>, JournalError> {
    let mut id = None;
    let mut foreign = Vec::new();
    for file in found.iter() {
        let Some(header) = &file.header else { continue };
        let expected = *id.get_or_insert(header.journal_id);
        if header.journal_id != expected {
            foreign.push(file.number);
            judge.wrong(JournalError::ForeignFile {
                file: file.path.clone(),
                found: header.journal_id,
                expected,
            })?;
        }
    }
    found.retain(|file| !foreign.contains(&file.number));
    if let (Some(found), Some(expected)) = (id, known.journal_id)
        && found != expected
    {
        judge.wrong(JournalError::ForeignViews { found, expected })?;
    }
    Ok(id)
}

/// The last file that begins at or below the first frame above the checkpoint, and whether its beginning is known to be
/// durable. If that frame is the first of a file, its group may be torn, and the chain then ends in the file before.
fn first_needed(
    chain: &mut [Found],
    known: Known,
    judge: &mut dyn Judge,
) -> Result<(usize, bool), JournalError> {
    let wanted = known.checkpoint.next();
    let reader = GroupReader::new();
    let mut earliest = None;
    for (index, found) in chain.iter().enumerate().rev() {
        let Some(header) = &found.header else {
            continue;
        };
        let (first_lsn, is_durable) = match &header.start {
            Start::Recovered { first_lsn, .. } => (*first_lsn, true),
            Start::Continues { .. } => match first_group(found, header) {
                Ok(Some(group)) => (group.first_lsn, group.first_lsn < wanted),
                Ok(None) => continue,
                Err(error) => {
                    judge.wrong(error)?;
                    continue;
                }
            },
        };
        if first_lsn <= wanted {
            if is_durable {
                return Ok((index, true));
            }
            match begins_whole(&reader, found, header) {
                Ok(true) => return Ok((index, false)),
                Ok(false) => {}
                Err(error) => judge.wrong(error)?,
            }
        }
        earliest = (first_lsn > wanted).then_some(index);
    }
    if let Some(found) = chain.first_mut()
        && earliest == Some(0)
        && !found.after_missing
    {
        found.after_missing = true;
        judge.wrong(JournalError::Damaged {
            file: found.path.clone(),
            position: 0,
            lsn: wanted,
            what: "the files before this one are missing".to_owned(),
        })?;
    }
    Ok((0, true))
}

fn begins_whole(
    reader: &GroupReader,
    found: &Found,
    header: &FileHeader,
) -> Result<bool, JournalError> {
    let (incarnation, position) = (header.incarnation, header.first_position());
    let limit = found.end.map_or(found.len_bytes, |end| end.position);
    let group = reader.read(&*found.file, &found.path, incarnation, position, limit)?;
    Ok(group.is_some())
}

struct Rebuilt {
    active: OpenFile,
    before: u32,
    first_position: u64,
}

/// Builds the file that the journal goes on in: a header with the end of every older file that stays, then the frames that
/// are not known durable; synced, renamed, directory synced.
fn rebuild(
    disk: &dyn Disk,
    dir: &Path,
    stock: &mut Stock,
    journal_id: u128,
    chain: &[Found],
    scan: &Scan,
) -> Result<Rebuilt, JournalError> {
    if mutation::active(mutation::RECOVERY_WRITES_ON_IN_OLD_FILE)
        && let Some(rebuilt) = write_on(disk, chain, scan)?
    {
        return Ok(rebuilt);
    }
    let half_built = mutation::active(mutation::HALF_BUILT_FILE_TRUSTED);
    let ends: Vec<FileEnd> = chain
        .iter()
        .zip(&scan.kept)
        .filter(|(_, kept)| kept.end > 0)
        .filter_map(|(found, kept)| {
            let incarnation = found.header.as_ref()?.incarnation;
            Some(FileEnd {
                number: found.number,
                incarnation,
                position: kept.end,
                last_lsn: kept.last_lsn,
            })
        })
        .collect();
    let rewritten = || scan.unknown.iter().filter(|group| group.header.frames > 0);
    let first_position = first_position(ends.len());
    let needed_bytes = first_position
        + rewritten()
            .map(|group| group.header.span_bytes())
            .sum::<u64>();

    let mut active = stock.begin_recovery(needed_bytes)?;
    let header = FileHeader {
        journal_id,
        number: active.number,
        incarnation: active.incarnation,
        durable: if half_built {
            scan.kept_lsn
        } else {
            scan.last_lsn
        },
        len_bytes: active.len_bytes,
        start: Start::Recovered {
            first_lsn: scan.kept_lsn.next(),
            before: scan.before,
            ends,
        },
    };
    active
        .file
        .write_all_at(&header.write(), 0)
        .at("writing", &active.path)?;
    active.position = first_position;
    let path = journal_path(dir, active.number);
    if half_built {
        crate::durable_rename(disk, &active.path, &path)?;
    }
    let reader = GroupReader::new();
    let mut before = scan.before;
    for group in rewritten() {
        let source = &chain[group.file];
        let incarnation = source
            .header
            .as_ref()
            .map_or(0, |header| header.incarnation);
        let read = reader.read(
            &*source.file,
            &source.path,
            incarnation,
            group.position,
            source.len_bytes,
        )?;
        let Some((found, _, payload)) = read else {
            return Err(JournalError::Damaged {
                file: source.path.clone(),
                position: group.position,
                lsn: group.header.first_lsn,
                what: "a group that was sound a moment ago cannot be read".to_owned(),
            });
        };
        let rewritten = GroupHeader {
            incarnation: active.incarnation,
            position: active.position,
            durable: scan.kept_lsn,
            before,
            ..found
        };
        let mut head = [0; GROUP_HEADER_BYTES];
        before = rewritten.write(&mut head);
        let mut bytes = Vec::with_capacity(rewritten.span_bytes() as usize);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&payload);
        bytes.resize(rewritten.span_bytes() as usize, 0);
        active
            .file
            .write_all_at(&bytes, active.position)
            .at("writing", &active.path)?;
        active.position += bytes.len() as u64;
    }

    if mutation::active(mutation::PUBLISH_WITHOUT_SYNC_ON_RECOVERY) {
        disk.rename(&active.path, &path)
            .at("renaming", &active.path)?;
    } else {
        active.file.sync_data().at("syncing", &active.path)?;
        if !half_built {
            crate::durable_rename(disk, &active.path, &path)?;
        }
    }
    active.path = path;
    Ok(Rebuilt {
        active,
        before,
        first_position,
    })
}

/// Goes on in the last file that was found: only the mutation that shows why recovery builds a new one does this.
fn write_on(
    disk: &dyn Disk,
    chain: &[Found],
    scan: &Scan,
) -> Result<Option<Rebuilt>, JournalError> {
    let mut files = chain.iter().zip(&scan.kept);
    let Some((found, kept)) = files.rfind(|(_, kept)| kept.end > 0) else {
        return Ok(None);
    };
    let path = found.path.clone();
    let file = disk.open(&path, OpenMode::Write).at("opening", &path)?;
    file.sync_data().at("syncing", &path)?;
    let incarnation = found.header.as_ref().map_or(0, |header| header.incarnation);
    Ok(Some(Rebuilt {
        active: OpenFile {
            number: found.number,
            path,
            file,
            incarnation,
            len_bytes: found.len_bytes,
            position: kept.end,
        },
        before: scan.before,
        first_position: kept.end,
    }))
}
