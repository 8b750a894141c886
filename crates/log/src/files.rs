//! Where files stand, what they are called, and the bounded set of open ones.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;

use crate::{LogError, PartitionId, TopicId};

/// `<topics>/<topic id>/<partition>`.
pub(crate) fn partition_dir(topics_dir: &Path, partition: PartitionId) -> PathBuf {
    topics_dir
        .join(partition.topic.to_string())
        .join(partition.index.to_string())
}

/// What a segment's files are called. No two segments of a partition ever have the same name: one that compaction
/// writes has a higher generation than all that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Its first offset.
    pub base_offset: i64,
    /// 0 as written first.
    pub generation: u32,
}

impl SegmentName {
    /// The file of its batches: `<base offset, 20 digits>[.<generation>].log`.
    pub(crate) fn log(self) -> String {
        self.with("log")
    }

    /// The file of its index.
    pub(crate) fn index(self) -> String {
        self.with("index")
    }

    fn with(self, extension: &str) -> String {
        match self.generation {
            0 => format!("{:020}.{extension}", self.base_offset),
            generation => format!("{:020}.{generation}.{extension}", self.base_offset),
        }
    }

    /// The segment whose file this is, if it is a name that this crate gives.
    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.split('.');
        let base_offset = parts.next()?.parse().ok()?;
        let second = parts.next()?;
        let generation = match parts.next() {
            Some(_) => second.parse().ok()?,
            None => 0,
        };
        let name = Self {
            base_offset,
            generation,
        };
        (file_name == name.log() || file_name == name.index()).then_some(name)
    }
}

/// The topic whose directory is called `name`.
pub(crate) fn parse_topic_dir(name: &str) -> Option<TopicId> {
    TopicId::parse(name)
}

/// The partition number whose directory is called `name`.
pub(crate) fn parse_partition_dir(name: &str) -> Option<u32> {
    let index: u32 = name.parse().ok()?;
    (index.to_string() == name).then_some(index)
}

/// Open segment files, least recently used ones closed first.
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By the segment's number in this process. Order never matters here.
    files: HashMap<u64, OpenFile>,
    uses: u64,
}

struct OpenFile {
    file: Arc<dyn DiskFile>,
    is_writable: bool,
    last_use: u64,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, limit: usize) -> Self {
        Self {
            disk,
            limit: limit.max(1),
            open: Mutex::default(),
        }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The open file of segment `id`, for reading at least; opens it, and closes another, if need be.
    pub(crate) fn get(
        &self,
        id: u64,
        path: &Path,
        mode: OpenMode,
    ) -> Result<Arc<dyn DiskFile>, LogError> {
        {
            let mut open = self.open.lock();
            let open = &mut *open;
            if let Some(found) = open.files.get_mut(&id)
                && (found.is_writable || mode == OpenMode::Read)
            {
                open.uses += 1;
                found.last_use = open.uses;
                return Ok(found.file.clone());
            }
        }
        let file = self
            .disk
            .open(path, mode)
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => LogError::damaged(path, 0, "the file is missing"),
                _ => LogError::io("open", path)(source),
            })?;
        let mut open = self.open.lock();
        let open = &mut *open;
        if open.files.len() >= self.limit
            && let Some(oldest) = open
                .files
                .iter()
                .min_by_key(|(_, open)| open.last_use)
                .map(|(id, _)| *id)
        {
            // Whoever is using it holds it open by its own count.
            open.files.remove(&oldest);
        }
        open.uses += 1;
        let opened = OpenFile {
            file: file.clone(),
            is_writable: mode != OpenMode::Read,
            last_use: open.uses,
        };
        open.files.insert(id, opened);
        Ok(file)
    }

    /// Closes the file of a segment that goes away.
    pub(crate) fn close(&self, id: u64) {
        self.open.lock().files.remove(&id);
    }
}
