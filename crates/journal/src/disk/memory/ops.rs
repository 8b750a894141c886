//! What a disk is asked to do, to count it and to let it fail.

use std::collections::BTreeMap;

/// The kinds of operations, to count them and to let them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`Disk::open`](crate::Disk::open) of an existing file.
    Open,
    /// [`Disk::open`](crate::Disk::open) with [`OpenMode::Create`](crate::OpenMode::Create), or with [`OpenMode::WriteOrCreate`](crate::OpenMode::WriteOrCreate) of what is not there.
    Create,
    /// [`DiskFile::read_at`](crate::DiskFile::read_at).
    Read,
    /// [`DiskFile::write_all_at`](crate::DiskFile::write_all_at).
    Write,
    /// [`DiskFile::sync_data`](crate::DiskFile::sync_data).
    Sync,
    /// [`DiskFile::set_len`](crate::DiskFile::set_len).
    SetLen,
    /// [`DiskFile::allocate`](crate::DiskFile::allocate).
    Allocate,
    /// [`Disk::rename`](crate::Disk::rename).
    Rename,
    /// [`Disk::remove_file`](crate::Disk::remove_file) and [`Disk::remove_dir_all`](crate::Disk::remove_dir_all).
    Remove,
    /// [`Disk::create_dir_all`](crate::Disk::create_dir_all) and [`Disk::create_dir`](crate::Disk::create_dir).
    CreateDir,
    /// [`Disk::list`](crate::Disk::list).
    List,
    /// [`Disk::sync_dir`](crate::Disk::sync_dir).
    SyncDir,
    /// [`DiskFile::len`](crate::DiskFile::len).
    Len,
    /// [`Disk::free_bytes`](crate::Disk::free_bytes).
    FreeBytes,
}

/// How many operations there were of each kind, and bytes read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    pub(super) counts: BTreeMap<Op, u64>,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

impl OpCounts {
    /// Operations of one kind.
    pub fn of(&self, op: Op) -> u64 {
        self.counts.get(&op).copied().unwrap_or(0)
    }

    /// All operations.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}
