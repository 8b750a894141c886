//! The disk under the simulation's control: the one in memory, with faults at any call, slow calls, and an eye on what
//! is written to the journal.
//!
//! Each life of the node has a handle of its own. Once the process is dead, whatever of it still runs gets errors, and
//! changes nothing any more.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mainstem_journal::disk::Op;
use mainstem_journal::{Disk, DiskFile, MemoryDisk, OpenMode};
use mainstem_log::AppendReference;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::coverage::met;
use crate::history::History;
use crate::trace::Trace;
use crate::{fiber, note};

/// What a file is for, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A file of the journal, or one on its way there.
    Journal,
    /// A segment's records.
    Segment,
    /// A segment's index.
    Index,
    /// Anything else: directories, the ballast.
    Other,
}

impl Class {
    /// The class of a path.
    pub fn of(path: &Path) -> Class {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("journal" | "spare" | "tmp") => Class::Journal,
            Some("log") => Class::Segment,
            Some("index") => Class::Index,
            _ => Class::Other,
        }
    }
}

/// A fault that waits for its moment.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The kind of call; any where none is named.
    pub op: Option<Op>,
    /// The kind of file; any where none is named.
    pub class: Option<Class>,
    /// So many such calls still go well.
    pub after: u64,
    /// What then happens.
    pub what: What,
}

/// What a fault does.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// One call fails.
    Fail(io::ErrorKind),
    /// Nothing works any more until the next crash: death at a chosen point.
    Halt,
}

/// What the disk and the scheduler share about one run.
pub struct Control {
    /// What happened.
    pub trace: Arc<Trace>,
    /// What was written to the journal.
    pub history: Arc<Mutex<History>>,
    state: Mutex<State>,
}

struct State {
    rng: SmallRng,
    faults: Vec<Fault>,
    /// Faults of this life that have happened.
    fired: u32,
    /// How many of a hundred calls of a fiber are slow.
    slow_percent: u32,
    calls: u64,
    halted: bool,
    /// Recovery is building the file that the journal goes on in: it has a header, but not its name.
    half_built: bool,
}

impl Control {
    /// For one run.
    pub fn new(seed: u64, trace: Arc<Trace>) -> Arc<Control> {
        Arc::new(Control {
            trace,
            history: Arc::default(),
            state: Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                faults: Vec::new(),
                fired: 0,
                slow_percent: 0,
                calls: 0,
                halted: false,
                half_built: false,
            }),
        })
    }

    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        note!(self.trace, "planned {fault:?}");
        self.state.lock().faults.push(fault);
    }

    /// A life begins: nothing is planned, nothing has happened.
    pub fn begin_life(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.fired = 0;
        state.halted = false;
    }

    /// Drops what is planned and has not happened.
    pub fn disarm(&self) {
        self.state.lock().faults.clear();
    }

    /// A fault has happened that this module knows nothing of.
    pub fn fired_elsewhere(&self) {
        self.state.lock().fired += 1;
    }

    /// Whether a fault of this life has happened.
    pub fn has_fired(&self) -> bool {
        self.state.lock().fired > 0
    }

    /// Whether a crash has left behind a file that recovery was building, since this was last asked.
    pub fn take_half_built(&self) -> bool {
        std::mem::take(&mut self.state.lock().half_built)
    }

    /// Whether nothing works any more until the next crash.
    pub fn is_halted(&self) -> bool {
        self.state.lock().halted
    }

    /// How many of a hundred writes and syncs of a fiber stand still for a while.
    pub fn set_slow_percent(&self, percent: u32) {
        self.state.lock().slow_percent = percent;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// The fault that falls on this call, if one does.
    fn fault(&self, op: Op, class: Class) -> Option<What> {
        let mut state = self.state.lock();
        state.calls += 1;
        let hit = state.faults.iter_mut().position(|fault| {
            let fits = fault.op.is_none_or(|wanted| wanted == op)
                && fault.class.is_none_or(|wanted| wanted == class);
            if !fits {
                return false;
            }
            let due = fault.after == 0;
            fault.after = fault.after.saturating_sub(1);
            due
        })?;
        let fault = state.faults.remove(hit);
        state.fired += 1;
        state.halted |= matches!(fault.what, What::Halt);
        Some(fault.what)
    }

    fn is_slow(&self) -> bool {
        let mut state = self.state.lock();
        state.slow_percent > 0 && {
            let percent = state.slow_percent;
            state.rng.random_range(0..100) < percent
        }
    }
}

/// The disk as one life of the node sees it.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<MemoryDisk>,
    control: Arc<Control>,
    dead: Arc<AtomicBool>,
}

struct SimFile {
    inner: Arc<dyn DiskFile>,
    disk: SimDisk,
    path: Arc<Path>,
    class: Class,
}

impl SimDisk {
    /// A handle for a new life.
    pub fn new(inner: Arc<MemoryDisk>, control: Arc<Control>) -> SimDisk {
        SimDisk {
            inner,
            control,
            dead: Arc::default(),
        }
    }

    /// The process is dead from now on.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.dead.load(Ordering::Acquire) {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(())
    }

    /// What every call does before it does anything.
    fn begin(&self, op: Op, path: &Path, detail: u64) -> io::Result<()> {
        self.check_alive()?;
        let class = Class::of(path);
        let slow = matches!(
            op,
            Op::Write | Op::Sync | Op::SyncDir | Op::Rename | Op::Allocate
        );
        if slow && class != Class::Index && fiber::is_fiber() && self.control.is_slow() {
            note!(
                self.control.trace,
                "  {op:?} {} stands still",
                path.display()
            );
            met(if matches!(op, Op::Sync | Op::SyncDir) {
                SLOW_SYNC
            } else {
                SLOW_CALL
            });
            fiber::pause();
            self.check_alive()?;
        }
        let fault = self.control.fault(op, class);
        note!(
            self.control.trace,
            "  {op:?} {} {detail}{}",
            path.display(),
            match fault {
                Some(what) => format!(" {what:?}"),
                None => String::new(),
            }
        );
        match fault {
            None => Ok(()),
            Some(What::Halt) => {
                met(HALTED);
                self.inner.halt_after(0);
                Ok(())
            }
            Some(What::Fail(kind)) => {
                met(failed(op, kind));
                // The disk below knows what a failed call leaves behind.
                self.inner.inject(op, 0, 1, kind);
                Ok(())
            }
        }
    }

    /// What a frame refers to that is on its way to the journal.
    fn read_referenced(&self, reference: &AppendReference, bytes: usize) -> Bytes {
        let partition = reference.partition;
        let path = crate::node::dir()
            .join("topics")
            .join(partition.topic.to_string())
            .join(partition.index.to_string())
            .join(format!("{:020}.log", reference.segment_base_offset));
        let mut batch = vec![0; bytes];
        let read = self.inner.peek(&path, reference.position, &mut batch);
        let read = read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            read,
            bytes,
            "{} ends before a batch that a frame refers to",
            path.display()
        );
        batch.into()
    }

    /// After a sync that took its time, and before anybody is told.
    fn linger(&self) -> io::Result<()> {
        if fiber::is_fiber() && self.control.is_slow() {
            fiber::pause();
            self.check_alive()?;
        }
        Ok(())
    }
}

/// Whether these bytes are the header of a journal file that recovery begins.
fn begun_by_recovery(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MSJFILE\0") && bytes.get(20..24) == Some(&[1, 0, 0, 0])
}

/// The process or the power ends in the middle of a disk call.
pub const HALTED: &str = "death in the middle of a disk call";
/// A write or another change that takes its time.
pub const SLOW_CALL: &str = "slow write";
/// A sync that takes its time.
pub const SLOW_SYNC: &str = "slow fsync";

/// What an injected failure counts as.
fn failed(op: Op, kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::StorageFull {
        return "ENOSPC in a write";
    }
    match op {
        Op::Open => "EIO on open",
        Op::Create => "EIO on create",
        Op::Read => "EIO on read",
        Op::Write => "EIO on write",
        Op::Sync => "EIO on fsync",
        Op::SetLen => "EIO on truncate",
        Op::Allocate => "EIO on allocate",
        Op::Rename => "EIO on rename",
        Op::Remove => "EIO on remove",
        Op::CreateDir => "EIO on mkdir",
        Op::List => "EIO on readdir",
        Op::SyncDir => "EIO on fsync of a directory",
        Op::Len => "EIO on stat",
        Op::FreeBytes => "EIO on statfs",
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let creates = mode == OpenMode::Create
            || (mode == OpenMode::WriteOrCreate && !self.inner.exists(path));
        let op = if creates { Op::Create } else { Op::Open };
        self.begin(op, path, 0)?;
        Ok(Arc::new(SimFile {
            inner: self.inner.open(path, mode)?,
            disk: self.clone(),
            path: path.into(),
            class: Class::of(path),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(Op::Rename, to, 0)?;
        self.inner.rename(from, to)?;
        if to
            .extension()
            .is_some_and(|extension| extension == "journal")
        {
            self.control.state.lock().half_built = false;
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.begin(Op::Remove, path, 0)?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin(Op::Remove, path, 0)?;
        self.inner.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin(Op::CreateDir, path, 0)?;
        self.inner.create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.begin(Op::CreateDir, path, 0)?;
        self.inner.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.begin(Op::List, dir, 0)?;
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin(Op::SyncDir, dir, 0)?;
        self.inner.sync_dir(dir)?;
        self.linger()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.begin(Op::FreeBytes, path, 0)?;
        self.inner.free_bytes(path)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.begin(Op::Read, &self.path, position)?;
        self.inner.read_at(buf, position)
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.disk.begin(Op::Write, &self.path, position)?;
        if self.class == Class::Journal {
            let read = |reference: &AppendReference, bytes: usize| {
                self.disk.read_referenced(reference, bytes)
            };
            self.disk.control.history.lock().written(buf, &read);
            if position == 0 && begun_by_recovery(buf) {
                self.disk.control.state.lock().half_built = true;
            }
        }
        self.inner.write_all_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.begin(Op::Sync, &self.path, 0)?;
        self.inner.sync_data()?;
        self.disk.linger()
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.begin(Op::Len, &self.path, 0)?;
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.begin(Op::SetLen, &self.path, len)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.begin(Op::Allocate, &self.path, len)?;
        self.inner.allocate(len)
    }
}
