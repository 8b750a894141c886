//! A disk in memory that can lose and tear what was not synced, and can be told to fail.

mod inode;
mod ops;

use super::{Disk, DiskFile, OpenMode};
use crate::mutation;
use inode::Inode;
pub use ops::{Op, OpCounts};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk in memory, deterministic and faulty on demand. Clones are the same disk.
///
/// - [`MemoryDisk::crash_process`]: what was written stays readable, synced or not, and what was not synced can still be
///   lost later.
/// - [`MemoryDisk::crash_power`]: of what was not synced, each sector, length, name is kept or lost as the seed
///   decides.
/// - [`MemoryDisk::inject`]: the n-th operation of a kind fails; a write may leave a part, and a failed sync leaves bytes
///   that no later sync makes durable, as Linux does it.
/// - [`MemoryDisk::halt_after`]: dies in the middle, at the n-th operation.
///
/// Handles opened before a crash fail afterwards.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since their directory was last synced, in order.
    unsynced: Vec<Change>,
    dirs: BTreeSet<PathBuf>,
    /// Those of them whose parent was not synced since they were made.
    unsynced_dirs: BTreeSet<PathBuf>,
    next_inode: u64,
    /// Handles of an earlier generation are dead.
    generation: u64,
    capacity_bytes: u64,
    injections: Vec<Injection>,
    ops_until_halt: Option<u64>,
    counts: OpCounts,
    rng: SmallRng,
}

/// What a loss of power took of what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerLoss {
    /// Sectors that hold again what they held when last synced.
    pub sectors: u64,
    /// Files of which some sectors that were not synced are lost, and others are not.
    pub torn_files: u64,
    /// Of these, files of which a sector is lost that lies before one that is not.
    pub reordered_files: u64,
    /// Files that are as long again as when last synced.
    pub lengths: u64,
    /// Creations, renames and removals of files that did not happen.
    pub names: u64,
    /// Directories that are not there any more.
    pub directories: u64,
}

enum Change {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    fn path(&self) -> &Path {
        let (Change::Create(path, _) | Change::Rename(_, path) | Change::Remove(path)) = self;
        path
    }
}

struct Injection {
    op: Op,
    after: u64,
    count: u64,
    error: io::ErrorKind,
}

impl State {
    /// Counts an operation, and lets it fail if it is to. `part` is given to a write that dies on its way.
    fn begin(&mut self, op: Op) -> io::Result<()> {
        *self.counts.counts.entry(op).or_default() += 1;
        if let Some(left) = &mut self.ops_until_halt {
            if *left == 0 {
                return Err(io::Error::other(
                    "the disk has been halted until the next crash",
                ));
            }
            *left -= 1;
        }
        let hit = self
            .injections
            .iter_mut()
            .find(|injection| injection.op == op && injection.count > 0);
        if let Some(injection) = hit {
            if injection.after > 0 {
                injection.after -= 1;
            } else {
                injection.count -= 1;
                return Err(io::Error::new(injection.error, "injected error"));
            }
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let used = self
            .files
            .iter()
            .filter(|(id, inode)| named.contains(id) || Arc::strong_count(&inode.handles) > 1);
        used.map(|(_, inode)| inode.bytes.len() as u64).sum()
    }

    fn check_room(&self, grows_by: u64) -> io::Result<()> {
        if self.capacity_bytes == u64::MAX || grows_by == 0 {
            return Ok(());
        }
        if grows_by > self.capacity_bytes.saturating_sub(self.used_bytes()) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on the memory disk",
            ));
        }
        Ok(())
    }

    fn parent_must_exist(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() || self.dirs.contains(parent) => Ok(()),
            Some(parent) => Err(not_found(parent)),
            None => Err(not_found(path)),
        }
    }

    /// Removes the files that no name and no handle leads to any more, and that no loss of power can bring back.
    fn sweep(&mut self) {
        let unsynced = self.unsynced.iter().filter_map(|change| match change {
            Change::Create(_, inode) => Some(inode),
            Change::Rename(..) | Change::Remove(_) => None,
        });
        let named: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .chain(unsynced)
            .copied()
            .collect();
        self.files
            .retain(|id, inode| named.contains(id) || Arc::strong_count(&inode.handles) > 1);
    }

    /// Whether a sync of `dir` covers this name: it lies in it, or in a directory below that was removed.
    fn covers(&self, dir: &Path, name: &Path) -> bool {
        name.parent().is_some_and(|parent| {
            parent == dir || (parent.starts_with(dir) && !self.dirs.contains(parent))
        })
    }

    fn end_generation(&mut self) {
        self.generation += 1;
        self.injections.clear();
        self.ops_until_halt = None;
        for inode in self.files.values_mut() {
            inode.handles = Arc::default();
        }
        self.sweep();
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} is not on the memory disk", path.display()),
    )
}

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::new(0)
    }
}

impl MemoryDisk {
    /// An empty disk without limit. `seed` decides what a failing write leaves behind.
    pub fn new(seed: u64) -> MemoryDisk {
        MemoryDisk {
            state: Arc::new(Mutex::new(State {
                files: BTreeMap::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                unsynced: Vec::new(),
                dirs: BTreeSet::from([PathBuf::from("/"), PathBuf::from(".")]),
                unsynced_dirs: BTreeSet::new(),
                next_inode: 1,
                generation: 0,
                capacity_bytes: u64::MAX,
                injections: Vec::new(),
                ops_until_halt: None,
                counts: OpCounts::default(),
                rng: SmallRng::seed_from_u64(seed),
            })),
        }
    }

    /// The process dies: handles are dead, bytes stay readable whether synced or not. Faults that were asked for are over.
    pub fn crash_process(&self) {
        self.state.lock().end_generation();
    }

    /// Power is lost: handles are dead, and of what was not synced `seed` decides what is kept. Names are kept up to
    /// some change, or each by itself. Faults that were asked for are over. Says what is lost.
    pub fn crash_power(&self, seed: u64) -> PowerLoss {
        let mut lost = PowerLoss::default();
        let mut state = self.state.lock();
        let mut rng = SmallRng::seed_from_u64(seed);
        let changes = std::mem::take(&mut state.unsynced);
        let in_order = rng.random_bool(0.5);
        let prefix = if in_order {
            rng.random_range(0..=changes.len())
        } else {
            0
        };
        let mut names = std::mem::take(&mut state.durable_names);
        for (index, change) in changes.into_iter().enumerate() {
            let keep = if in_order {
                index < prefix
            } else {
                rng.random_bool(0.5)
            };
            if !keep {
                lost.names += 1;
                continue;
            }
            match change {
                Change::Create(path, inode) => {
                    names.insert(path, inode);
                }
                Change::Rename(from, to) => {
                    if let Some(inode) = names.remove(&from) {
                        names.insert(to, inode);
                    }
                }
                Change::Remove(path) => {
                    names.remove(&path);
                }
            }
        }
        // A directory that is lost takes with it what is in it, however well that was synced.
        for dir in std::mem::take(&mut state.unsynced_dirs) {
            if rng.random_bool(0.5) {
                lost.directories += 1;
                state.dirs.retain(|other| !other.starts_with(&dir));
                names.retain(|name, _| !name.starts_with(&dir));
            }
        }
        for dir in names.keys().flat_map(|name| name.ancestors().skip(1)) {
            if !dir.as_os_str().is_empty() {
                state.dirs.insert(dir.to_owned());
            }
        }
        state.names = names.clone();
        state.durable_names = names;
        state.end_generation();
        for inode in state.files.values_mut() {
            inode.lose_power(&mut rng, &mut lost);
        }
        lost
    }

    /// Lets `count` operations of the kind `op` fail with `error`, after `after` more of them have been done.
    pub fn inject(&self, op: Op, after: u64, count: u64, error: io::ErrorKind) {
        self.state.lock().injections.push(Injection {
            op,
            after,
            count,
            error,
        });
    }

    /// Lets every operation after the next `ops` fail, until the next crash: death at a chosen point. A write that it
    /// falls on may leave a part.
    pub fn halt_after(&self, ops: u64) {
        self.state.lock().ops_until_halt = Some(ops);
    }

    /// Limits what the disk holds; less than it already does means that nothing more can be written.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// What all files take.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Whether a file or directory of that name exists.
    pub fn exists(&self, path: &Path) -> bool {
        let state = self.state.lock();
        state.names.contains_key(path) || state.dirs.contains(path)
    }

    /// Operations so far.
    pub fn counts(&self) -> OpCounts {
        self.state.lock().counts.clone()
    }

    /// Reads what a file holds, past whatever keeps handles from reading: for whoever judges, not for who is judged.
    pub fn peek(&self, path: &Path, position: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let inode = *state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(state.inode(inode)?.read(buf, position))
    }

    /// Damages the disk: changes bits of the byte at `position` of a file, as if they had been written and synced so.
    pub fn flip_bits(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = *state.names.get(path).ok_or_else(|| not_found(path))?;
        let byte = state
            .files
            .get_mut(&inode)
            .and_then(|inode| inode.bytes.get_mut(position as usize));
        *byte.ok_or_else(|| not_found(path))? ^= mask;
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let creates = match mode {
            OpenMode::Create => true,
            OpenMode::WriteOrCreate => !state.names.contains_key(path),
            OpenMode::Read | OpenMode::Write => false,
        };
        state.begin(if creates { Op::Create } else { Op::Open })?;
        let inode = match (state.names.get(path).copied(), mode) {
            (Some(inode), OpenMode::Create) => {
                if let Some(inode) = state.files.get_mut(&inode) {
                    inode.set_len(0);
                }
                inode
            }
            (Some(inode), _) => inode,
            (None, OpenMode::Create | OpenMode::WriteOrCreate) => {
                state.parent_must_exist(path)?;
                if state.dirs.contains(path) {
                    return Err(io::Error::new(
                        io::ErrorKind::IsADirectory,
                        path.display().to_string(),
                    ));
                }
                let inode = state.next_inode;
                state.next_inode += 1;
                state.files.insert(inode, Inode::default());
                state.names.insert(path.to_owned(), inode);
                state.unsynced.push(Change::Create(path.to_owned(), inode));
                inode
            }
            (None, _) => return Err(not_found(path)),
        };
        let writable = mode != OpenMode::Read;
        let generation = state.generation;
        let handle = state.inode(inode)?.handles.clone();
        Ok(Arc::new(MemoryFile {
            state: self.state.clone(),
            inode,
            generation,
            writable,
            _handle: handle,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Op::Rename)?;
        if from.parent() != to.parent() {
            return Err(io::Error::new(
                io::ErrorKind::CrossesDevices,
                "both names are in one directory",
            ));
        }
        let inode = state.names.remove(from).ok_or_else(|| not_found(from))?;
        state.names.insert(to.to_owned(), inode);
        state
            .unsynced
            .push(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Op::Remove)?;
        state.names.remove(path).ok_or_else(|| not_found(path))?;
        state.unsynced.push(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Op::Remove)?;
        if !state.dirs.contains(path) {
            return Err(not_found(path));
        }
        state.dirs.retain(|dir| !dir.starts_with(path));
        state.unsynced_dirs.retain(|dir| !dir.starts_with(path));
        let gone: Vec<PathBuf> = state
            .names
            .keys()
            .filter(|name| name.starts_with(path))
            .cloned()
            .collect();
        for name in gone {
            state.names.remove(&name);
            state.unsynced.push(Change::Remove(name));
        }
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Op::CreateDir)?;
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            if state.names.contains_key(dir) {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    dir.display().to_string(),
                ));
            }
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.begin(Op::CreateDir)?;
        state.parent_must_exist(path)?;
        if state.names.contains_key(path) {
            let kind = io::ErrorKind::AlreadyExists;
            return Err(io::Error::new(kind, path.display().to_string()));
        }
        let made = state.dirs.insert(path.to_owned());
        if made {
            state.unsynced_dirs.insert(path.to_owned());
        }
        Ok(made)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.begin(Op::List)?;
        if !state.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let inside = state
            .names
            .keys()
            .chain(&state.dirs)
            .filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = inside
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if mutation::active(mutation::NO_DIRECTORY_SYNC) {
            return Ok(());
        }
        let mut state = self.state.lock();
        state.begin(Op::SyncDir)?;
        if !state.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        state
            .unsynced_dirs
            .retain(|made| made.parent() != Some(dir));
        let changes = std::mem::take(&mut state.unsynced);
        state.unsynced = changes
            .into_iter()
            .filter(|change| !state.covers(dir, change.path()))
            .collect();
        let durable = std::mem::take(&mut state.durable_names);
        let mut durable: BTreeMap<PathBuf, u64> = durable
            .into_iter()
            .filter(|(path, _)| !state.covers(dir, path))
            .collect();
        let now = state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        durable.extend(now.map(|(path, inode)| (path.clone(), *inode)));
        state.durable_names = durable;
        state.sweep();
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin(Op::FreeBytes)?;
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

struct MemoryFile {
    state: Arc<Mutex<State>>,
    inode: u64,
    generation: u64,
    writable: bool,
    _handle: Arc<()>,
}

impl MemoryFile {
    fn with<R>(
        &self,
        op: Op,
        act: impl FnOnce(&mut State, io::Result<()>, u64) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut state = self.state.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("this handle was opened before a crash"));
        }
        if !self.writable && !matches!(op, Op::Read | Op::Len) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "opened for reading",
            ));
        }
        let begun = state.begin(op);
        act(&mut state, begun, self.inode)
    }
}

impl State {
    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.files
            .get_mut(&inode)
            .ok_or_else(|| io::Error::other("the file is gone"))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(Op::Read, |state, begun, inode| {
            begun?;
            let n = state.inode(inode)?.read(buf, position);
            state.counts.read_bytes += n as u64;
            Ok(n)
        })
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.with(Op::Write, |state, begun, inode| {
            let old_len = state.inode(inode)?.bytes.len() as u64;
            let room = state.check_room((position + buf.len() as u64).saturating_sub(old_len));
            if let Err(error) = begun.and(room) {
                // A write that fails has written some of it, within the file as it was.
                let most = buf.len().min(old_len.saturating_sub(position) as usize);
                let part = state.rng.random_range(0..=most);
                state.inode(inode)?.write(&buf[..part], position);
                return Err(error);
            }
            state.counts.written_bytes += buf.len() as u64;
            state.inode(inode)?.write(buf, position);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Op::Sync, |state, begun, inode| {
            let inode = state.inode(inode)?;
            match begun {
                Ok(()) => inode.sync(),
                Err(_) => inode.give_up(),
            }
            begun
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Op::Len, |state, begun, inode| {
            begun?;
            Ok(state.inode(inode)?.bytes.len() as u64)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(Op::SetLen, |state, begun, inode| {
            begun?;
            let old = state.inode(inode)?.bytes.len() as u64;
            state.check_room(len.saturating_sub(old))?;
            state.inode(inode)?.set_len(len);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(Op::Allocate, |state, begun, inode| {
            begun?;
            let old = state.inode(inode)?.bytes.len() as u64;
            state.check_room(len.saturating_sub(old))?;
            if len > old {
                state.inode(inode)?.set_len(len);
            }
            Ok(())
        })
    }
}
