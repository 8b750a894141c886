//! Looking a data directory through offline: the checkpoint's records, the journal after it, and the log's files. What
//! recovery would refuse is named, and what stands behind it is looked at all the same.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::verify as journal;
use mainstem_journal::{Disk, Group, JournalError, Known, Lsn, View};
use mainstem_log::{Costs, LogCheck, LogFinding, LogOp, LogOptions, LogVerified, PartitionId};
use mainstem_store::{Family, StoreOp, StoreSnapshot};

use crate::EngineError;
use crate::open::{Recorded, one_journal, read_checkpoint};

/// The store of the directory, as far as it can be read.
pub enum StoreView<'a> {
    /// There is none yet.
    New,
    /// It is there, and cannot be read.
    Lost,
    /// It can be read, in part at least.
    Read(&'a dyn StoreSnapshot),
}

/// What [`verify`] comes upon.
pub enum Seen<'a> {
    /// Something worth telling.
    Finding(Finding),
    /// A partition that is there after the last frame, with its start and its end.
    Partition(PartitionId, i64, i64),
    /// A change of the catalogue in a frame that the store does not have yet.
    CatalogChange(&'a StoreOp),
    /// How far the check is.
    Progress {
        /// What is being read.
        part: Part,
        /// Bytes read.
        read_bytes: u64,
        /// Bytes to read.
        total_bytes: u64,
    },
}

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The journal.
    Journal,
    /// Segments and their indexes.
    Segments,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub position: Option<u64>,
    /// The frame it is about.
    pub lsn: Option<Lsn>,
    /// What was found there.
    pub what: String,
    /// The partition it is about.
    pub partition: Option<PartitionId>,
    /// What it costs.
    pub costs: Cost,
}

/// What a [`Finding`] costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// What it costs the log's readers.
    Log(Costs),
    /// Frames cannot be read, so that recovery does not go beyond them.
    Frames {
        /// The first.
        from: Lsn,
        /// The last, where the journal goes on behind it; less than the first where no frame is lost.
        to: Option<Lsn>,
        /// Both views have them on disk: they are needed for nothing but the chain.
        passed: bool,
        /// Offsets that they held, as far as later frames tell: from the first up to, not including, the second.
        offsets: Vec<(PartitionId, i64, i64)>,
    },
    /// All of the partition.
    Partition,
    /// Recovery does not begin.
    Everything,
    /// It could not be looked at.
    NotChecked,
}

/// What was looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The LSN of the checkpoint; recovery begins after it.
    pub checkpoint: Lsn,
    /// The position of the store.
    pub store_applied: Lsn,
    /// The journal.
    pub journal: journal::Verified,
    /// The log.
    pub log: LogVerified,
    /// Findings that were only counted.
    pub unnamed: u64,
}

/// Findings about the journal that are named; more are only counted.
const MAX_JOURNAL_FINDINGS: usize = 1000;

/// Checks the journal and the log in the data directory `dir`, whose store is `store`, and changes nothing, except that
/// with `rebuild` indexes that are missing or damaged are built again.
pub fn verify(
    disk: Arc<dyn Disk>,
    dir: &Path,
    store: StoreView<'_>,
    rebuild: bool,
    see: &mut dyn FnMut(Seen<'_>),
) -> Verified {
    let mut verified = Verified::default();
    let mut checkpoint = Checkpoint::default();
    let known = match store {
        StoreView::New => Some(Known::default()),
        StoreView::Lost => None,
        StoreView::Read(store) => checkpoint.read(store, dir, see),
    };
    verified.checkpoint = checkpoint.lsn;
    verified.store_applied = known.map_or(Lsn::ZERO, |known| known.views);

    let recorded = checkpoint.recorded.take();
    let partitions = recorded.map_or_else(Vec::new, |recorded| recorded.partitions);
    let topics_dir = dir.join("topics");
    let options = LogOptions::default();
    let (mut log, errors) = LogCheck::new(
        disk.clone(),
        &topics_dir,
        &options,
        partitions,
        checkpoint.lsn,
    );
    for (partition, error) in errors {
        see(Seen::Finding(Finding {
            file: dir.join("store"),
            position: None,
            lsn: Some(checkpoint.lsn),
            what: error.to_string(),
            partition: Some(partition),
            costs: Cost::Partition,
        }));
    }
    for partition in &checkpoint.unreadable {
        log.leave_out(*partition);
    }
    if known.is_none() {
        log.skip();
    }

    let journal_dir = dir.join("journal");
    let mut replay = Replay {
        dir: &journal_dir,
        checkpoint: checkpoint.lsn,
        store_applied: verified.store_applied,
        log: &mut log,
        findings: Vec::new(),
        unnamed: 0,
        open_from: 0,
        see: &mut *see,
    };
    let views = known.unwrap_or_default();
    let is_new = views.checkpoint.max(views.views) == Lsn::ZERO && known.is_some();
    let missing =
        matches!(disk.list(&journal_dir), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if !(missing && is_new) {
        match journal::verify(&*disk, &journal_dir, known, &mut |seen| replay.take(seen)) {
            Ok(journal) => verified.journal = journal,
            Err(error) => replay.damage(error),
        }
    }
    verified.unnamed = replay.unnamed;
    for finding in std::mem::take(&mut replay.findings) {
        see(Seen::Finding(finding));
    }

    if known.is_none() {
        see(Seen::Finding(Finding {
            file: topics_dir,
            position: None,
            lsn: None,
            what: "the list of segments stands in the store, which cannot be read".to_owned(),
            partition: None,
            costs: Cost::NotChecked,
        }));
        return verified;
    }
    for (partition, start, end) in log.partitions() {
        see(Seen::Partition(partition, start, end));
    }
    verified.log = look_through_log(&log, rebuild, see);
    verified.unnamed += verified.log.unnamed;
    verified
}

fn look_through_log(log: &LogCheck, rebuild: bool, see: &mut dyn FnMut(Seen<'_>)) -> LogVerified {
    let total_bytes = log.size().bytes;
    let see = std::cell::RefCell::new(see);
    log.verify(
        rebuild,
        &mut |so_far| {
            let read_bytes = so_far.bytes;
            (see.borrow_mut())(Seen::Progress {
                part: Part::Segments,
                read_bytes,
                total_bytes,
            });
        },
        &mut |LogFinding {
                  file,
                  position,
                  what,
                  partition,
                  costs,
              }| {
            (see.borrow_mut())(Seen::Finding(Finding {
                file,
                position,
                lsn: None,
                what,
                partition,
                costs: Cost::Log(costs),
            }));
        },
    )
}

/// What the store says of the last checkpoint.
#[derive(Default)]
struct Checkpoint {
    lsn: Lsn,
    recorded: Option<Recorded>,
    unreadable: Vec<PartitionId>,
}

impl Checkpoint {
    /// What is known from it of the journal; nothing if it cannot be read.
    fn read(
        &mut self,
        store: &dyn StoreSnapshot,
        dir: &Path,
        see: &mut dyn FnMut(Seen<'_>),
    ) -> Option<Known> {
        let mut tell = |partition, error: &EngineError, costs| {
            see(Seen::Finding(Finding {
                file: dir.join("store"),
                position: None,
                lsn: None,
                what: error.to_string(),
                partition,
                costs,
            }));
        };
        let recorded = read_checkpoint(store, &mut |partition, error| {
            match partition {
                Some(id) => {
                    self.unreadable.push(id);
                    tell(partition, &error, Cost::Partition);
                }
                None => tell(None, &error, Cost::Everything),
            }
            Ok(())
        });
        let read = recorded.and_then(|recorded| {
            let applied = store.applied()?;
            let journal_id = one_journal(recorded.mark, applied)?;
            Ok((recorded, applied, journal_id))
        });
        match read {
            Ok((recorded, applied, journal_id)) => {
                self.lsn = recorded.mark.map_or(Lsn::ZERO, |mark| mark.lsn);
                self.recorded = Some(recorded);
                Some(Known {
                    checkpoint: self.lsn,
                    journal_id,
                    views: applied.map_or(Lsn::ZERO, |applied| Lsn(applied.lsn)),
                })
            }
            Err(error) => {
                tell(None, &error, Cost::Everything);
                None
            }
        }
    }
}

/// The journal after the checkpoint, applied to what the log must be.
struct Replay<'a, 'b> {
    dir: &'a Path,
    checkpoint: Lsn,
    store_applied: Lsn,
    log: &'a mut LogCheck,
    /// They are told at the end: what was lost shows in what follows.
    findings: Vec<Finding>,
    unnamed: u64,
    /// From here on it is not yet known where reading goes on.
    open_from: usize,
    see: &'a mut (dyn FnMut(Seen<'_>) + 'b),
}

impl Replay<'_, '_> {
    fn take(&mut self, seen: journal::Seen<'_>) {
        match seen {
            journal::Seen::Damage(error) => self.damage(error),
            journal::Seen::Resumed(lsn) => self.resumed(lsn),
            journal::Seen::Torn {
                file,
                position,
                lsn,
            } => self.harmless(
                file,
                Some(position),
                Some(lsn),
                "a write that a crash cut short",
                "it was never acknowledged: the next start leaves it out",
            ),
            journal::Seen::Ignored { file, what } => {
                self.harmless(file, None, None, what, "nothing depends on it");
            }
            journal::Seen::Group {
                file,
                position,
                group,
            } => self.group(file, position, group),
            journal::Seen::Progress {
                read_bytes,
                total_bytes,
            } => (self.see)(Seen::Progress {
                part: Part::Journal,
                read_bytes,
                total_bytes,
            }),
        }
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < MAX_JOURNAL_FINDINGS {
            self.findings.push(finding);
        } else {
            self.unnamed += 1;
        }
    }

    fn harmless(
        &mut self,
        file: &Path,
        position: Option<u64>,
        lsn: Option<Lsn>,
        what: &str,
        why: &'static str,
    ) {
        self.add(Finding {
            file: file.to_owned(),
            position,
            lsn,
            what: what.to_owned(),
            partition: None,
            costs: Cost::Log(Costs::Harmless(why)),
        });
    }

    fn damage(&mut self, error: JournalError) {
        self.log.skip();
        let (file, position, from, what) = match error {
            JournalError::Damaged {
                file,
                position,
                lsn,
                what,
            } => (file, Some(position), Some(lsn), what),
            JournalError::ViewAhead { end, ref dir, .. } => {
                (dir.clone(), None, Some(end.next()), error.to_string())
            }
            JournalError::Io { ref path, .. } => (path.clone(), None, None, error.to_string()),
            JournalError::NewerVersion { ref file, .. }
            | JournalError::ForeignFile { ref file, .. } => {
                (file.clone(), Some(0), None, error.to_string())
            }
            other => (self.dir.to_owned(), None, None, other.to_string()),
        };
        let costs = from.map_or(Cost::Everything, |from| Cost::Frames {
            from,
            to: None,
            passed: false,
            offsets: Vec::new(),
        });
        self.add(Finding {
            file,
            position,
            lsn: from,
            what,
            partition: None,
            costs,
        });
    }

    /// The frames before this one are what the damage since the last time has cost.
    fn resumed(&mut self, lsn: Lsn) {
        let last = Lsn(lsn.0.saturating_sub(1));
        for finding in self.findings.iter_mut().skip(self.open_from) {
            if let Cost::Frames { to, passed, .. } = &mut finding.costs {
                *to = Some(last);
                *passed = last <= self.checkpoint;
            }
        }
        self.open_from = self.findings.len();
    }

    fn group(&mut self, file: &Path, position: u64, group: &Group) {
        for frame in group.frames() {
            for section in frame.sections() {
                let outcome = match section.view {
                    View::Log if frame.lsn > self.checkpoint => {
                        self.log_section(frame.lsn, &section.body)
                    }
                    View::Store if frame.lsn > self.store_applied => {
                        self.store_section(&section.body)
                    }
                    _ => Ok(()),
                };
                if let Err(error) = outcome {
                    // Recovery ends here. What follows need not fit any more.
                    self.log.skip();
                    self.add(Finding {
                        file: file.to_owned(),
                        position: Some(position),
                        lsn: Some(frame.lsn),
                        what: error.to_string(),
                        partition: None,
                        costs: Cost::Frames {
                            from: frame.lsn,
                            to: Some(frame.lsn),
                            passed: false,
                            offsets: Vec::new(),
                        },
                    });
                }
            }
        }
        let lost = self.log.take_lost();
        let mut damage = self.findings.iter_mut().rev();
        let damage = damage.find_map(|finding| match &mut finding.costs {
            Cost::Frames { offsets, .. } => Some(offsets),
            _ => None,
        });
        if let Some(offsets) = damage {
            offsets.extend(lost);
        }
    }

    fn log_section(&mut self, lsn: Lsn, body: &bytes::Bytes) -> Result<(), EngineError> {
        for op in LogOp::decode_all(body) {
            self.log.apply(lsn, op?)?;
        }
        Ok(())
    }

    fn store_section(&mut self, body: &bytes::Bytes) -> Result<(), EngineError> {
        for op in StoreOp::decode_all(body) {
            let op = op?;
            if op.family == Family::Catalog {
                (self.see)(Seen::CatalogChange(&op));
            }
        }
        Ok(())
    }
}
