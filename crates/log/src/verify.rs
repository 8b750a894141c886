//! Checking the log's files offline: what the checkpoint recorded, what the journal adds to it, and what really stands
//! in the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::{Disk, Lsn, OpenMode};
use mainstem_record::BatchHeader;

use crate::files::{OpenFiles, SegmentName};
use crate::layout::Layout;
use crate::partition::Partition;
use crate::referenced::Referenced;
use crate::remove::{KnownFiles, Stray, for_each_stray};
use crate::segment::{HeldFiles, IndexFound, Segment, SegmentShelf};
use crate::{
    LogError, LogOp, LogOptions, PartitionId, PartitionRecord, PartitionState, ReplaceSegments,
};

/// Something that a check of the log has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFinding {
    /// The file or directory.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub position: Option<u64>,
    /// What was found there.
    pub what: String,
    /// The partition that it belongs to, if it belongs to one.
    pub partition: Option<PartitionId>,
    /// What it costs.
    pub costs: Costs,
}

/// What a [`LogFinding`] costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Costs {
    /// The offsets from the first up to, not including, the second cannot be read.
    Offsets(i64, i64),
    /// Nothing: a damaged index is built again from its segment. Whether that has been done.
    DamagedIndex {
        /// The check has built it again.
        rebuilt: bool,
    },
    /// Nothing: an index that is not there yet, or reaches too far, is built when it is first needed.
    NoIndex {
        /// The check has built it.
        rebuilt: bool,
    },
    /// Nothing, for this reason: damage in what nobody reads any more.
    Unneeded(&'static str),
    /// Nothing, for this reason: no damage.
    Harmless(&'static str),
}

/// What there is to check, and how far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogVerified {
    /// Partitions that there are.
    pub partitions: u64,
    /// Segments read.
    pub segments: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes read, or to be read.
    pub bytes: u64,
    /// Findings of one file that were only counted, because there were too many.
    pub unnamed: u64,
}

/// The log as records and frames say it must be, without a tail and without reading a segment: made from the records of
/// a checkpoint, moved by the frames after it, and then compared with the files.
pub struct LogCheck {
    topics_dir: PathBuf,
    shelf: SegmentShelf,
    partitions: BTreeMap<PartitionId, Expected>,
    /// Partitions of which nothing can be said.
    unreadable: BTreeSet<PartitionId>,
    /// Frames are missing: what follows may not fit.
    gap: bool,
    lost: Vec<(PartitionId, i64, i64)>,
}

/// Ranges of offsets that [`LogCheck`] remembers as lost.
const MAX_LOST: usize = 1000;

/// A partition, as it must be.
#[derive(Default)]
struct Expected {
    dir: PathBuf,
    start: i64,
    end: i64,
    /// Deleted by a frame.
    removed: bool,
    /// As recorded, and as frames have added.
    segments: Vec<Arc<Segment>>,
    replaced: BTreeSet<SegmentName>,
    layout: Layout,
    /// What frames refer to, in order.
    referenced: Vec<Referenced>,
}

impl LogCheck {
    /// Begins with the records of a checkpoint at the LSN `recorded_at`. Also says which of them make no sense by
    /// themselves: recovery would refuse them.
    pub fn new(
        disk: Arc<dyn Disk>,
        topics_dir: &Path,
        options: &LogOptions,
        records: Vec<PartitionRecord>,
        recorded_at: Lsn,
    ) -> (LogCheck, Vec<(PartitionId, LogError)>) {
        let shelf = SegmentShelf::new(
            OpenFiles::new(disk, options.max_open_files),
            HeldFiles::new(options.max_sent_files),
            options.index_cache_bytes,
            options.index_interval_bytes,
        );
        let (mut partitions, mut errors) = (BTreeMap::new(), Vec::new());
        for PartitionRecord {
            partition: id,
            state,
        } in records
        {
            let PartitionState::Live {
                start,
                end,
                segments,
                transactions,
            } = state
            else {
                continue;
            };
            let partition = Partition::recorded(
                &shelf,
                topics_dir,
                id,
                start,
                end,
                &segments,
                transactions,
                recorded_at,
            );
            match partition {
                Ok(partition) => {
                    let state = partition.state.lock();
                    let segments = state.segments.iter().cloned().collect();
                    // When its first record was written plays no part in following frames.
                    let active = state.active();
                    let layout = active.map_or_else(Layout::default, |active| {
                        Layout::after(active.base_offset(), active.end().position, None)
                    });
                    drop(state);
                    let expected = Expected {
                        dir: partition.dir.clone(),
                        start,
                        end,
                        segments,
                        layout,
                        ..Expected::default()
                    };
                    partitions.insert(id, expected);
                }
                Err(error) => errors.push((id, error)),
            }
        }
        let check = LogCheck {
            topics_dir: topics_dir.to_path_buf(),
            shelf,
            partitions,
            unreadable: errors.iter().map(|(id, _)| *id).collect(),
            gap: false,
            lost: Vec::new(),
        };
        (check, errors)
    }

    /// The record of this partition cannot be read: nothing can be said of its files.
    pub fn leave_out(&mut self, partition: PartitionId) {
        self.unreadable.insert(partition);
    }

    /// Frames are missing here, or records were: from now on only what contradicts itself is refused.
    pub fn skip(&mut self) {
        self.gap = true;
    }

    /// Takes one operation of a frame after the checkpoint, and says whether [`Log::apply`](crate::Log::apply) would.
    pub fn apply(&mut self, lsn: Lsn, op: LogOp) -> Result<(), LogError> {
        let id = op.partition();
        if matches!(op, LogOp::CreatePartition { .. }) {
            let dir = crate::files::partition_dir(&self.topics_dir, id);
            let new = Expected {
                dir,
                ..Expected::default()
            };
            return match self.partitions.insert(id, new) {
                Some(_) if !self.gap => Err(LogError::PartitionExists { partition: id }),
                _ => Ok(()),
            };
        }
        let gap = self.gap || self.unreadable.contains(&id);
        let Some(partition) = self.partitions.get_mut(&id).filter(|found| !found.removed) else {
            let missing = LogError::UnknownPartition { partition: id };
            return if gap { Ok(()) } else { Err(missing) };
        };
        match op {
            LogOp::Append {
                batch,
                begins_segment,
                ..
            } => {
                let header = partition.append(id, lsn, &batch, gap, &mut self.lost)?;
                partition.layout.follow(&header, begins_segment);
            }
            LogOp::AppendReference(reference) => {
                let header = partition.append(id, lsn, &reference.header, gap, &mut self.lost)?;
                let begins_segment = reference.segment_base_offset == header.base_offset;
                let due = partition.layout.follow(&header, begins_segment);
                let given = (reference.segment_base_offset, reference.position);
                if given != (due.segment_base_offset, due.position) && !gap {
                    return Err(LogError::Misplaced {
                        partition: id,
                        lsn,
                        segment_base_offset: reference.segment_base_offset,
                        position: reference.position,
                    });
                }
                partition
                    .referenced
                    .push(Referenced::new(&reference, &header));
            }
            LogOp::RemovePartition { .. } => partition.removed = true,
            LogOp::SetStart { offset, .. } => {
                if offset > partition.end && !gap {
                    return Err(LogError::NotDense {
                        partition: id,
                        lsn,
                        expected: partition.end,
                        got: offset,
                    });
                }
                partition.start = partition.start.max(offset);
            }
            LogOp::ReplaceSegments(replace) => partition.replace(&self.shelf, &replace, lsn),
            LogOp::CreatePartition { .. } => {}
        }
        Ok(())
    }

    /// Offsets that the frames missing so far held, as far as later frames tell; each is told once.
    pub fn take_lost(&mut self) -> Vec<(PartitionId, i64, i64)> {
        std::mem::take(&mut self.lost)
    }

    /// Every partition that is there after the last frame, with its start and its end.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, i64, i64)> + '_ {
        let live = self.partitions.iter().filter(|(_, found)| !found.removed);
        live.map(|(id, found)| (*id, found.start, found.end))
    }

    /// What reading all segments comes to.
    pub fn size(&self) -> LogVerified {
        let mut size = LogVerified::default();
        for partition in self.partitions.values() {
            size.partitions += u64::from(!partition.removed);
            size.segments += partition.segments.len() as u64;
            size.bytes += partition
                .segments
                .iter()
                .map(|segment| segment.end().position)
                .sum::<u64>();
            let referenced = partition.referenced.iter();
            size.bytes += referenced.map(|one| one.size_bytes as u64).sum::<u64>();
        }
        size
    }

    /// Reads every segment and every index, and looks for files that belong to nobody. With `rebuild`, indexes that are
    /// missing or damaged are built again where their segment is sound; nothing else is changed. `progress` hears of all
    /// that has been read so far.
    pub fn verify(
        &self,
        rebuild: bool,
        progress: &mut dyn FnMut(LogVerified),
        tell: &mut dyn FnMut(LogFinding),
    ) -> LogVerified {
        let mut done = LogVerified::default();
        for (id, partition) in &self.partitions {
            done.partitions += u64::from(!partition.removed);
            for segment in &partition.segments {
                let before = done;
                let verified = segment.verify(&self.shelf, &mut |position| {
                    progress(LogVerified {
                        bytes: before.bytes + position,
                        ..before
                    });
                });
                let mut about = About {
                    id: *id,
                    partition,
                    segment,
                    tell,
                };
                done.segments += 1;
                done.bytes += segment.end().position;
                match verified {
                    Ok(verified) => {
                        done.batches += verified.batches;
                        done.unnamed += verified.unnamed;
                        about.found(&self.shelf, verified, rebuild);
                    }
                    Err(error) => about.cannot_be_opened(&error),
                }
                segment.close(&self.shelf);
            }
            partition.verify_referenced(*id, &self.shelf, &mut done, tell);
        }
        self.look_for_strays(tell);
        done
    }

    fn look_for_strays(&self, tell: &mut dyn FnMut(LogFinding)) {
        let names = |partition: &Expected| {
            let segments = partition.segments.iter().map(|segment| segment.name());
            let referenced = partition.referenced.iter().map(Referenced::segment);
            Some(segments.chain(referenced).collect())
        };
        let known: KnownFiles = self
            .partitions
            .iter()
            .map(|(id, partition)| (*id, names(partition)))
            .collect();
        let leftover = "no checkpoint names it: the next start writes it anew or removes it";
        let mut note = |file: PathBuf, what: &str, why| {
            tell(LogFinding {
                file,
                position: None,
                what: what.to_owned(),
                partition: None,
                costs: Costs::Harmless(why),
            });
        };
        let unreadable: BTreeSet<PathBuf> = self
            .unreadable
            .iter()
            .map(|id| crate::files::partition_dir(&self.topics_dir, *id))
            .collect();
        let disk = &**self.shelf.files.disk();
        let looked = for_each_stray(disk, &self.topics_dir, &known, &mut |stray| {
            match stray {
                Stray::File(dir, name) => note(dir.join(name), "it belongs to nobody", leftover),
                Stray::Directory(dir) if unreadable.contains(&dir) => {}
                Stray::Directory(dir) => note(dir, "it belongs to nobody", leftover),
                Stray::Strange(path) => note(
                    path,
                    "it is no name that mainstem gives",
                    "it is never read, and left alone",
                ),
            }
            Ok(())
        });
        if let Err(error) = looked {
            tell(LogFinding {
                file: self.topics_dir.clone(),
                position: None,
                what: error.to_string(),
                partition: None,
                costs: Costs::Unneeded("only files that belong to nobody were looked for"),
            });
        }
    }
}

impl Expected {
    /// The header of the next batch, if it is that. What is missing before it is noted where a gap is known of.
    fn append(
        &mut self,
        id: PartitionId,
        lsn: Lsn,
        batch: &[u8],
        gap: bool,
        lost: &mut Vec<(PartitionId, i64, i64)>,
    ) -> Result<BatchHeader, LogError> {
        let offset = self.end;
        let bad = |source| LogError::Batch {
            partition: id,
            offset,
            source,
        };
        let header = BatchHeader::read(batch).map_err(bad)?;
        let is_next = header.base_offset == offset && header.last_offset_delta >= 0;
        self.end = header.next_offset();
        if gap && header.base_offset > offset && lost.len() < MAX_LOST {
            lost.push((id, offset, header.base_offset));
        }
        if !is_next && !gap {
            return Err(LogError::NotDense {
                partition: id,
                lsn,
                expected: offset,
                got: header.base_offset,
            });
        }
        Ok(header)
    }

    /// Reads every batch that frames after the checkpoint refer to, where it stands.
    fn verify_referenced(
        &self,
        id: PartitionId,
        shelf: &SegmentShelf,
        done: &mut LogVerified,
        tell: &mut dyn FnMut(LogFinding),
    ) {
        let damage = |file: &Path, position, what, from, to| LogFinding {
            file: file.to_path_buf(),
            position,
            what,
            partition: Some(id),
            costs: if self.removed {
                Costs::Unneeded("its topic has been deleted")
            } else if to <= self.start {
                Costs::Unneeded("it lies below the partition's first offset")
            } else {
                Costs::Offsets(from, to)
            },
        };
        for run in self.referenced.chunk_by(|a, b| a.segment() == b.segment()) {
            let Some((first, last)) = run.first().zip(run.last()) else {
                continue;
            };
            let path = self.dir.join(first.segment().log());
            let file = match shelf.files.disk().open(&path, OpenMode::Read) {
                Ok(file) => file,
                Err(error) => {
                    let what = format!("it cannot be opened: {error}");
                    tell(damage(&path, None, what, first.from, last.to));
                    continue;
                }
            };
            for one in run {
                done.batches += 1;
                done.bytes += one.size_bytes as u64;
                if let Err(what) = one.verify(&*file) {
                    tell(damage(&path, Some(one.position), what, one.from, one.to));
                }
            }
        }
    }

    fn replace(&mut self, shelf: &SegmentShelf, replace: &ReplaceSegments, lsn: Lsn) {
        let goes = |segment: &&Arc<Segment>| replace.replaced.contains(&segment.name());
        let gone = self.segments.iter().filter(goes);
        // What lay below the start may have gone with a checkpoint before: then there is nothing to replace either.
        let Some(end) = gone.map(|segment| segment.end().offset).max() else {
            return;
        };
        self.replaced.extend(replace.replaced.iter().copied());
        for (index, record) in replace.with.iter().enumerate() {
            self.replaced.remove(&record.name());
            if self
                .segments
                .iter()
                .any(|there| there.name() == record.name())
            {
                continue;
            }
            let next = replace.with.get(index + 1);
            let next_offset = next.map_or(end, |next| next.base_offset);
            let segment = Segment::recorded(shelf, &self.dir, record, next_offset, lsn);
            self.segments.push(segment);
        }
    }
}

/// A segment that something is to be said about.
struct About<'a> {
    id: PartitionId,
    partition: &'a Expected,
    segment: &'a Arc<Segment>,
    tell: &'a mut dyn FnMut(LogFinding),
}

impl About<'_> {
    fn say(&mut self, file: &Path, position: Option<u64>, what: String, costs: Costs) {
        (self.tell)(LogFinding {
            file: file.to_path_buf(),
            position,
            what,
            partition: Some(self.id),
            costs,
        });
    }

    /// What it costs that these offsets of the segment cannot be read.
    fn cost_of(&self, from: i64, to: i64) -> Costs {
        if self.partition.removed {
            Costs::Unneeded("its topic has been deleted")
        } else if self.partition.replaced.contains(&self.segment.name()) {
            Costs::Unneeded("compaction has replaced it")
        } else if to <= self.partition.start {
            Costs::Unneeded("it lies below the partition's first offset")
        } else {
            Costs::Offsets(from.max(self.partition.start), to)
        }
    }

    fn cannot_be_opened(&mut self, error: &LogError) {
        let what = match error {
            LogError::Damaged { what, .. } => what.clone(),
            other => other.to_string(),
        };
        let costs = self.cost_of(self.segment.base_offset(), self.segment.end().offset);
        let segment = self.segment;
        self.say(segment.path(), None, what, costs);
    }

    fn found(&mut self, shelf: &SegmentShelf, verified: crate::segment::Verified, rebuild: bool) {
        let segment = self.segment;
        let sound = verified.damage.is_empty();
        for stretch in verified.damage {
            let costs = self.cost_of(stretch.from, stretch.to);
            self.say(segment.path(), Some(stretch.position), stretch.what, costs);
        }
        let end = segment.end().position;
        if verified.length > end {
            let what = format!(
                "{} bytes stand behind its recorded end",
                verified.length - end
            );
            let why = "they are never read; an active segment is written on over them";
            self.say(segment.path(), Some(end), what, Costs::Harmless(why));
        }
        let index = segment.index_path();
        let build = || match rebuild && sound {
            true => segment.rebuild_index(shelf).map(|()| true),
            false => Ok(false),
        };
        let result = match verified.index {
            IndexFound::Good => return,
            // It gets one when it is sealed.
            IndexFound::Missing if !segment.is_sealed() => return,
            IndexFound::Damaged(why) => build().map(|rebuilt| {
                let what = format!("the index is damaged: {why}");
                (what, Costs::DamagedIndex { rebuilt })
            }),
            IndexFound::Missing => build().map(|rebuilt| {
                let what = "there is no index yet".to_owned();
                (what, Costs::NoIndex { rebuilt })
            }),
            IndexFound::Ahead => build().map(|rebuilt| {
                let what = "the index reaches beyond the segment's recorded end".to_owned();
                (what, Costs::NoIndex { rebuilt })
            }),
        };
        let (what, costs) = result.unwrap_or_else(|error| {
            let what = format!("the index could not be built: {error}");
            (what, Costs::DamagedIndex { rebuilt: false })
        });
        self.say(&index, None, what, costs);
    }
}
