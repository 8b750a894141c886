//! The first seam: a disk with files, directories and sync.

mod lock;
mod memory;
mod real;
mod staging;

pub use lock::DirectoryLock;
pub use memory::{MemoryDisk, Op, OpCounts, PowerLoss};
pub use real::RealDisk;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

/// What disks and page caches deal in.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, or an existing one cut to nothing, for reading and writing.
    Create,
    /// A new file, or an existing one as it is, for reading and writing.
    WriteOrCreate,
}

/// A disk, as far as Mainstem needs one.
///
/// # Contract
///
/// - What was written is readable at once, through every handle, also after the process died.
/// - What was written is sure to survive a loss of power only after [`DiskFile::sync_data`] has returned without an
///   error. Until then each sector of 512 bytes may be there or not, in any combination.
/// - A created, renamed or removed name survives only after [`Disk::sync_dir`] of its directory. A file's bytes and its
///   name are two things, and each has its own sync.
/// - [`Disk::rename`] is atomic and replaces what had the new name. Both names are in one directory.
/// - After a sync has failed, a later one that succeeds proves nothing about the bytes of the failed one.
/// - Paths are used as they are given; every directory is made with [`Disk::create_dir_all`] or [`Disk::create_dir`]
///   first. One made with the second is not sure to survive, with all that is in it, before its parent is synced.
///
/// [`crate::conformance::disk`] checks an implementation against this.
pub trait Disk: Send + Sync {
    /// Opens a file. `NotFound` when it must exist and does not.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name in the same directory, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Handles that are open go on working.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory and those above it; nothing happens if it is there. The new directories are synced into
    /// their parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes one directory in one that exists, which need not be synced for it: where many are made, it is synced
    /// once. False, and nothing happens, if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// The names in a directory, files and directories, sorted. `NotFound` where there is no such directory. Nothing else
    /// tells what exists: a disk that cannot say must not be taken to say no.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Does several pieces of work, each of which writes to files of its own: at the same time where the disk is quicker
    /// so, else one after another.
    fn at_once(&self, work: Vec<DiskWork<'_>>) {
        work.into_iter().for_each(|piece| piece());
    }
    /// Makes several files durable, as [`DiskFile::sync_data`] does each, and at the same time where the disk is quicker
    /// so. After an error nothing is known of any of them.
    fn sync_files(&self, files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync_data())
    }
    /// Bytes that can still be written to the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// One of several pieces of work for a disk; what has become of it is kept where it was made.
pub type DiskWork<'a> = Box<dyn FnOnce() + Send + 'a>;

/// An open file. Every call takes its position, so handles are shared without a lock.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `buf`. After an error any part of it may have been written.
    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()>;
    /// Writes all of `parts`, one behind the other, as if they were one.
    fn write_parts_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.write_all_at(&parts.concat(), position)
    }
    /// Makes the file's bytes and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or lets it grow by zeros that take no space.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Lets the file grow to `len` by zeros whose space is really taken; never cuts. `StorageFull` when there is not
    /// enough.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// These bytes are about to be read: a disk that takes its time may begin to fetch them. It is a hint, so it does not
    /// fail, and bytes that are not there do no harm.
    fn will_read(&self, _position: u64, _bytes: u64) {}
    /// The operating system's own handle of the file, where there is one from which it can send the file's bytes to a
    /// socket (`sendfile(2)` of Linux). It is for reading only, at given positions.
    fn os_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
