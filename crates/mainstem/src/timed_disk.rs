//! A disk that notes how long syncs take, and is otherwise the disk below it.

use crate::latency::Latencies;
use mainstem_journal::{Disk, DiskFile, DiskWork, OpenMode};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Notes the syncs of files in the journal's and the topics' folders of a data directory.
pub(crate) struct TimedDisk<D> {
    disk: D,
    journal: PathBuf,
    topics: PathBuf,
    latencies: Arc<Latencies>,
}

impl<D: Disk> TimedDisk<D> {
    pub(crate) fn new(disk: D, data: &Path, latencies: Arc<Latencies>) -> TimedDisk<D> {
        let (journal, topics) = (data.join("journal"), data.join("topics"));
        TimedDisk {
            disk,
            journal,
            topics,
            latencies,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Journal,
    Segment,
}

struct TimedFile {
    file: Arc<dyn DiskFile>,
    kind: Kind,
    latencies: Arc<Latencies>,
}

// Every method is passed on, those with a default too: the disk below has quicker ways for several files at once.
impl<D: Disk> Disk for TimedDisk<D> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        let kind = if path.starts_with(&self.journal) {
            Kind::Journal
        } else if path.starts_with(&self.topics) {
            Kind::Segment
        } else {
            return Ok(file);
        };
        let latencies = Arc::clone(&self.latencies);
        Ok(Arc::new(TimedFile {
            file,
            kind,
            latencies,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn at_once(&self, work: Vec<DiskWork<'_>>) {
        self.disk.at_once(work);
    }

    fn sync_files(&self, files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
        self.disk.sync_files(files)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

impl DiskFile for TimedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(buf, position)
    }

    fn write_parts_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_parts_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        let begun = Instant::now();
        let result = self.file.sync_data();
        match self.kind {
            Kind::Journal => self.latencies.journal_sync.add(begun.elapsed()),
            Kind::Segment => self.latencies.segment_sync.add(begun.elapsed()),
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn is_empty(&self) -> io::Result<bool> {
        self.file.is_empty()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn will_read(&self, position: u64, bytes: u64) {
        self.file.will_read(position, bytes);
    }

    fn os_file(&self) -> Option<BorrowedFd<'_>> {
        self.file.os_file()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::latency::Latency;
    use mainstem_journal::RealDisk;

    fn count(latency: &Latency) -> u64 {
        latency.buckets().iter().map(|(_, count)| count).sum()
    }

    #[test]
    fn syncs_are_counted_where_they_belong_also_those_of_many_files_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let latencies = Arc::new(Latencies::default());
        let disk = TimedDisk::new(RealDisk, dir.path(), Arc::clone(&latencies));
        let open = |path: &str| {
            let path = dir.path().join(path);
            disk.create_dir_all(path.parent().unwrap()).unwrap();
            disk.open(&path, OpenMode::Create).unwrap()
        };
        open("journal/a").sync_data().unwrap();
        open("meta").sync_data().unwrap();
        let segments: Vec<_> = (0..20)
            .map(|index| open(&format!("topics/t/{index}")))
            .collect();
        disk.sync_files(&segments).unwrap();
        assert_eq!(
            segments[0].os_file().is_some(),
            cfg!(target_os = "linux"),
            "a file is still one that the system can send"
        );
        assert_eq!(
            (
                count(&latencies.journal_sync),
                count(&latencies.segment_sync)
            ),
            (1, 20)
        );
    }
}
