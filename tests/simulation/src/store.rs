//! The store as one life of the node sees it: the one in memory, which fails when told to, and takes nothing from a
//! process that is dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use mainstem_store::{
    Applied, Family, MemoryStore, Store, StoreError, StoreOp, StoreSnapshot, StoreStats, Visit,
};

use crate::coverage::met;
use crate::disk::Control;

/// The store fails.
pub const FAILED: &str = "the store fails";
/// It cannot read something, once.
pub const READ_FAILED: &str = "EIO on a read of the store";

/// A handle for one life.
pub struct SimStore {
    inner: Arc<MemoryStore>,
    calls: Arc<Calls>,
}

/// What becomes of the calls of one life.
struct Calls {
    inner: Arc<MemoryStore>,
    control: Arc<Control>,
    dead: AtomicBool,
    /// Writes and flushes that still go well.
    good: AtomicU64,
    is_full: AtomicBool,
    /// Reads that still go well before one does not.
    good_reads: AtomicU64,
}

impl SimStore {
    /// A handle for a new life.
    pub fn new(inner: Arc<MemoryStore>, control: Arc<Control>) -> SimStore {
        let calls = Arc::new(Calls {
            inner: inner.clone(),
            control,
            dead: AtomicBool::new(false),
            good: AtomicU64::new(u64::MAX),
            is_full: AtomicBool::new(false),
            good_reads: AtomicU64::new(u64::MAX),
        });
        SimStore { inner, calls }
    }

    /// The process is dead from now on.
    pub fn kill(&self) {
        self.calls.dead.store(true, Ordering::Release);
    }

    /// Fails for good after so many writes and flushes, for want of space or for another reason.
    pub fn fail_after(&self, calls: u64, is_full: bool) {
        self.calls.is_full.store(is_full, Ordering::Release);
        self.calls.good.store(calls, Ordering::Release);
    }

    /// Fails one read after so many others; never with `u64::MAX`.
    pub fn fail_read_after(&self, reads: u64) {
        self.calls.good_reads.store(reads, Ordering::Release);
    }
}

impl Calls {
    fn check_alive(&self) -> Result<(), StoreError> {
        if self.dead.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(())
    }

    fn begin(&self) -> Result<(), StoreError> {
        self.check_alive()?;
        match self.good.load(Ordering::Acquire) {
            u64::MAX => {}
            0 => {
                met(FAILED);
                self.control.fired_elsewhere();
                self.inner.fail(if self.is_full.load(Ordering::Acquire) {
                    StoreError::NoSpace {
                        what: "write",
                        dir: DIR.into(),
                    }
                } else {
                    injected("write")
                });
            }
            good => self.good.store(good - 1, Ordering::Release),
        }
        Ok(())
    }

    fn begin_read(&self) -> Result<(), StoreError> {
        self.check_alive()?;
        match self.good_reads.load(Ordering::Acquire) {
            u64::MAX => Ok(()),
            0 => {
                met(READ_FAILED);
                self.control.fired_elsewhere();
                self.good_reads.store(u64::MAX, Ordering::Release);
                Err(injected("read"))
            }
            good => {
                self.good_reads.store(good - 1, Ordering::Release);
                Ok(())
            }
        }
    }
}

const DIR: &str = "/node/store";

fn injected(what: &'static str) -> StoreError {
    StoreError::Backend {
        what,
        dir: DIR.into(),
        message: "injected error".into(),
    }
}

/// A view of the store; its reads fail as the store's do.
struct SimSnapshot {
    inner: Arc<dyn StoreSnapshot>,
    calls: Arc<Calls>,
}

impl Store for SimStore {
    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError> {
        self.calls.begin()?;
        self.inner.write(ops, applied)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.calls.begin()?;
        self.inner.flush()
    }

    fn snapshot(&self) -> Result<Arc<dyn StoreSnapshot>, StoreError> {
        Ok(Arc::new(SimSnapshot {
            inner: self.inner.snapshot()?,
            calls: self.calls.clone(),
        }))
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}

impl StoreSnapshot for SimStore {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.calls.begin_read()?;
        self.inner.applied()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.calls.begin_read()?;
        self.inner.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.calls.begin_read()?;
        self.inner.get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.calls.begin_read()?;
        self.inner.scan(family, from, to, visit)
    }
}

impl StoreSnapshot for SimSnapshot {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.calls.begin_read()?;
        self.inner.applied()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.calls.begin_read()?;
        self.inner.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.calls.begin_read()?;
        self.inner.get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.calls.begin_read()?;
        self.inner.scan(family, from, to, visit)
    }
}
