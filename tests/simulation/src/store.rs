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

/// A handle for one life.
pub struct SimStore {
    inner: Arc<MemoryStore>,
    control: Arc<Control>,
    dead: AtomicBool,
    /// Writes and flushes that still go well.
    good: AtomicU64,
    is_full: AtomicBool,
}

impl SimStore {
    /// A handle for a new life.
    pub fn new(inner: Arc<MemoryStore>, control: Arc<Control>) -> SimStore {
        SimStore {
            inner,
            control,
            dead: AtomicBool::new(false),
            good: AtomicU64::new(u64::MAX),
            is_full: AtomicBool::new(false),
        }
    }

    /// The process is dead from now on.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Fails for good after so many writes and flushes, for want of space or for another reason.
    pub fn fail_after(&self, calls: u64, is_full: bool) {
        self.is_full.store(is_full, Ordering::Release);
        self.good.store(calls, Ordering::Release);
    }

    fn begin(&self) -> Result<(), StoreError> {
        if self.dead.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        match self.good.load(Ordering::Acquire) {
            u64::MAX => {}
            0 => {
                met(FAILED);
                self.control.fired_elsewhere();
                let (what, dir) = ("write", "/node/store".into());
                let message = "injected error".into();
                self.inner.fail(if self.is_full.load(Ordering::Acquire) {
                    StoreError::NoSpace { what, dir }
                } else {
                    StoreError::Backend { what, dir, message }
                });
            }
            good => self.good.store(good - 1, Ordering::Release),
        }
        Ok(())
    }
}

impl Store for SimStore {
    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError> {
        self.begin()?;
        self.inner.write(ops, applied)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.begin()?;
        self.inner.flush()
    }

    fn snapshot(&self) -> Result<Arc<dyn StoreSnapshot>, StoreError> {
        self.inner.snapshot()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}

impl StoreSnapshot for SimStore {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.inner.applied()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.inner.scan(family, from, to, visit)
    }
}
