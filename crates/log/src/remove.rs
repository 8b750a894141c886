//! What goes away: retention's decision, and files that nothing needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstem_journal::{Disk, Lsn};

use crate::files::{SegmentName, parse_partition_dir, parse_topic_dir, partition_dir};
use crate::log::{Log, Shared};
use crate::partition::{Control, Partition};
use crate::segment::Segment;
use crate::{LogError, PartitionId};

/// What was removed from the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Segments, indexes and directories.
    pub entries: u64,
    /// Bytes of segments; of strays it is not known.
    pub bytes: u64,
    /// So much was there to remove that some of it was left for the next call.
    pub more: bool,
}

/// Files and directories that one call removes: flushes wait for it.
const REMOVED_AT_ONCE: u64 = 64;

impl Removed {
    /// Whether this call has done enough.
    fn is_full(&mut self) -> bool {
        self.more |= self.entries >= REMOVED_AT_ONCE;
        self.more
    }
}

impl Log {
    /// What a partition takes on disk, or will once it is flushed.
    pub fn size_bytes(&self, partition: PartitionId) -> Result<u64, LogError> {
        let partition = self.shared.find(partition)?;
        let state = partition.state.lock();
        let segments = state.segments.range(state.retired..);
        // Whole segments below the start are on their way out.
        let live = segments
            .map(|segment| segment.end())
            .filter(|end| end.offset > state.start);
        Ok(live.map(|end| end.position).sum::<u64>() + state.tail.unflushed_bytes())
    }

    /// Decides what retention drops: the new log start, if there is one to be submitted as
    /// [`SetStart`](crate::LogOp::SetStart). Whole segments go, oldest first: those whose newest record is older than
    /// `retention_ms`, and those without which the partition still has `retention_bytes`. The first that is to stay keeps
    /// all that follow it, whatever their times. Where no record of a segment has a time, it is as old as the first look
    /// at it in this process.
    pub fn expired(
        &self,
        partition: PartitionId,
        now_ms: i64,
        retention_ms: Option<i64>,
        retention_bytes: Option<u64>,
    ) -> Result<Option<i64>, LogError> {
        let mut excess = match retention_bytes {
            Some(limit) => self.size_bytes(partition)?.saturating_sub(limit),
            None => 0,
        };
        let oldest_ms =
            retention_ms.map_or(i64::MIN, |retention_ms| now_ms.saturating_sub(retention_ms));
        let partition = self.shared.find(partition)?;
        let state = partition.state.lock();
        let mut new_start = None;
        for segment in state.segments.range(state.retired..) {
            let end = segment.end();
            if end.offset <= state.start {
                continue;
            }
            let newest_ms = match end.max_timestamp_ms {
                ..0 => *segment.noticed_ms.get_or_init(|| now_ms),
                timestamp_ms => timestamp_ms,
            };
            let too_old = newest_ms < oldest_ms;
            let too_many = end.position <= excess;
            if !too_old && !too_many {
                break;
            }
            excess = excess.saturating_sub(end.position);
            new_start = Some(end.offset);
        }
        Ok(new_start)
    }

    /// Removes the files of dropped segments and removed partitions whose going was flushed at or below `checkpoint`,
    /// once the checkpoint at that LSN is durable. What a snapshot or a running read still needs stays until the
    /// next call, and so does what is more than a bounded piece of work.
    pub fn remove_files(&self, checkpoint: Lsn) -> Result<Removed, LogError> {
        let mut worker = self.shared.worker.lock();
        self.shared
            .checkpoint
            .fetch_max(checkpoint.0, Ordering::AcqRel);
        let mut removed = Removed::default();
        let mut result = Ok(());
        worker.retiring.retain(|_, partition| {
            if result.is_ok() {
                result = self
                    .shared
                    .remove_retired(partition, checkpoint, &mut removed);
            }
            let state = partition.state.lock();
            state.retired > 0 || !state.replaced.is_empty()
        });
        result?;
        self.shared.remove_departed(checkpoint, &mut removed)?;
        Ok(removed)
    }

    /// Removes what no record names: leftovers of a crash. Called once, after replay has ended, by the worker. Names
    /// that this crate does not give are left alone.
    pub fn remove_strays(&self) -> Result<Removed, LogError> {
        let _worker = self.shared.worker.lock();
        self.shared.remove_strays()
    }
}

impl Shared {
    fn remove_retired(
        &self,
        partition: &Partition,
        checkpoint: Lsn,
        removed: &mut Removed,
    ) -> Result<(), LogError> {
        while !removed.is_full() {
            let segment = {
                let mut state = partition.state.lock();
                let due = |segment: &Arc<Segment>| self.is_free(segment, checkpoint);
                let replaced = state.replaced.iter().position(due);
                if let Some(at) = replaced {
                    Some(state.replaced.remove(at))
                } else if state.retired > 0 && state.segments.front().is_some_and(due) {
                    state.retired -= 1;
                    let gone = state.segments.pop_front();
                    let below = gone.as_ref().map_or(0, |gone| gone.end().offset);
                    state.transactions.prune(below);
                    gone
                } else {
                    None
                }
            };
            let Some(segment) = segment else {
                return Ok(());
            };
            self.remove_segment(partition, &segment, removed)?;
        }
        Ok(())
    }

    fn remove_segment(
        &self,
        partition: &Partition,
        segment: &Segment,
        removed: &mut Removed,
    ) -> Result<(), LogError> {
        removed.bytes += segment.end().position;
        segment.close(&self.shelf);
        removed.entries += self.remove_file(&partition.dir, &segment.name().log())?;
        removed.entries += self.remove_file(&partition.dir, &segment.name().index())?;
        Ok(())
    }

    /// Forgotten by the checkpoint, needed by no snapshot, and used by no reader: with the partition's lock held, the
    /// only way to it is the partition's own list.
    fn is_free(&self, segment: &Arc<Segment>, checkpoint: Lsn) -> bool {
        let unneeded = segment
            .retired
            .get()
            .is_some_and(|(flushed, next_snapshot)| {
                *flushed <= checkpoint && !self.pins.lock().older_than(*next_snapshot)
            });
        unneeded && Arc::strong_count(segment) == 1
    }

    fn remove_departed(&self, checkpoint: Lsn, removed: &mut Removed) -> Result<(), LogError> {
        let due: Vec<Arc<Partition>> = {
            let (departed, pins) = (self.departed.lock(), self.pins.lock());
            let due = departed.values().filter(|departed| {
                departed
                    .flushed
                    .is_some_and(|(flushed, next)| flushed <= checkpoint && !pins.older_than(next))
            });
            due.map(|departed| departed.partition.clone()).collect()
        };
        for partition in due {
            {
                let mut state = partition.state.lock();
                let mut all = state.segments.iter().chain(&state.replaced);
                if all.any(|segment| Arc::strong_count(segment) > 1) {
                    continue;
                }
                state.retired = 0;
                state.tail.clear();
            }
            loop {
                if removed.is_full() {
                    return Ok(());
                }
                let next = {
                    let mut state = partition.state.lock();
                    let replaced = state.replaced.pop();
                    replaced.or_else(|| state.segments.pop_front())
                };
                match next {
                    Some(segment) => self.remove_segment(&partition, &segment, removed)?,
                    None => break,
                }
            }
            removed.entries += self.remove_dir(&partition.dir)?;
            let of_topic = |index| PartitionId {
                index,
                ..partition.id
            };
            let last_of_topic = {
                let mut departed = self.departed.lock();
                departed.remove(&partition.id);
                let mut others = departed.range(of_topic(0)..=of_topic(u32::MAX));
                others.next().is_none()
            };
            // Looked at once, and not once for each of thousands of partitions.
            if let Some(topic_dir) = partition.dir.parent().filter(|_| last_of_topic) {
                self.remove_if_empty(topic_dir, removed)?;
            }
        }
        Ok(())
    }

    fn remove_strays(&self) -> Result<Removed, LogError> {
        let mut removed = Removed::default();
        let disk = self.shelf.files.disk();
        for_each_stray(
            &**disk,
            &self.topics_dir,
            &self.known_files(),
            &mut |stray| {
                removed.entries += match stray {
                    Stray::Directory(dir) => {
                        tracing::debug!(case = "directory of no partition removed", dir = %dir.display());
                        self.remove_dir(&dir)?
                    }
                    Stray::File(dir, name) => {
                        tracing::debug!(case = "file that no record names removed", dir = %dir.display(), name);
                        self.remove_file(&dir, &name)?
                    }
                    Stray::Strange(_) => 0,
                };
                Ok(())
            },
        )?;
        Ok(removed)
    }

    /// The segments of every partition that exists or still has files to be removed later, those included that a frame
    /// names which no flush has passed.
    fn known_files(&self) -> KnownFiles {
        let mut partitions: Vec<Arc<Partition>> =
            self.partitions.read().values().cloned().collect();
        partitions.extend(
            self.departed
                .lock()
                .values()
                .map(|departed| departed.partition.clone()),
        );
        let names = |partition: &Partition| {
            let state = partition.state.lock();
            // All of it goes once a checkpoint has passed the removal: until then another replay may ask for what
            // earlier frames refer to.
            if state.removed {
                return None;
            }
            let segments = state.segments.iter().chain(&state.replaced);
            let mut names: BTreeSet<_> = segments.map(|segment| segment.name()).collect();
            let begun = state.tail.unflushed_segments();
            names.extend(begun.map(|base_offset| SegmentName {
                base_offset,
                generation: 0,
            }));
            for (_, control) in &state.pending {
                if let Control::Replace(replace) = control {
                    names.extend(replace.with.iter().map(|record| record.name()));
                }
            }
            Some(names)
        };
        partitions
            .iter()
            .map(|partition| (partition.id, names(partition)))
            .collect()
    }

    fn remove_if_empty(&self, dir: &Path, removed: &mut Removed) -> Result<(), LogError> {
        if is_empty(&**self.shelf.files.disk(), dir)? {
            removed.entries += self.remove_dir(dir)?;
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> Result<u64, LogError> {
        gone(self.shelf.files.disk().remove_dir_all(dir)).map_err(LogError::io("remove", dir))
    }

    fn remove_file(&self, dir: &Path, name: &str) -> Result<u64, LogError> {
        let path = dir.join(name);
        gone(self.shelf.files.disk().remove_file(&path)).map_err(LogError::io("remove", &path))
    }
}

/// The segments of every partition that there is; none where all files of its directory are known.
pub(crate) type KnownFiles = BTreeMap<PartitionId, Option<BTreeSet<SegmentName>>>;

/// What stands below the topics' directory and is named by nobody.
pub(crate) enum Stray {
    /// The directory of a partition that is not known, or of a topic without partitions.
    Directory(PathBuf),
    /// A file of a segment that is not known, by its directory and name.
    File(PathBuf, String),
    /// A name that this crate does not give.
    Strange(PathBuf),
}

/// Visits what no record names. The visitor may remove it.
pub(crate) fn for_each_stray(
    disk: &dyn Disk,
    topics_dir: &Path,
    known: &KnownFiles,
    visit: &mut dyn FnMut(Stray) -> Result<(), LogError>,
) -> Result<(), LogError> {
    for topic_name in list(disk, topics_dir)? {
        let topic_dir = topics_dir.join(&topic_name);
        let Some(topic) = parse_topic_dir(&topic_name) else {
            visit(Stray::Strange(topic_dir))?;
            continue;
        };
        for partition_name in list(disk, &topic_dir)? {
            let Some(index) = parse_partition_dir(&partition_name) else {
                visit(Stray::Strange(topic_dir.join(partition_name)))?;
                continue;
            };
            let id = PartitionId { topic, index };
            let dir = partition_dir(topics_dir, id);
            let Some(names) = known.get(&id) else {
                visit(Stray::Directory(dir))?;
                continue;
            };
            for name in list(disk, &dir)? {
                let is_known =
                    |segment| names.as_ref().is_none_or(|names| names.contains(&segment));
                match SegmentName::parse(&name) {
                    Some(segment) if is_known(segment) => {}
                    Some(_) => visit(Stray::File(dir.clone(), name))?,
                    None => visit(Stray::Strange(dir.join(name)))?,
                }
            }
        }
        if is_empty(disk, &topic_dir)? {
            visit(Stray::Directory(topic_dir))?;
        }
    }
    Ok(())
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, LogError> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(LogError::io("list", dir)),
    }
}

/// Whether the directory is there and holds nothing.
fn is_empty(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        names => Ok(names.map_err(LogError::io("list", dir))?.is_empty()),
    }
}

/// What is not there need not be removed: an earlier attempt may have been cut short.
fn gone(result: io::Result<()>) -> io::Result<u64> {
    match result {
        Ok(()) => Ok(1),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
