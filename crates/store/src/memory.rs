//! The store in memory, for tests: it loses what was not flushed, and flushes on its own at any batch, as RocksDB does.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::{Applied, Family, Store, StoreError, StoreOp, StoreSnapshot, StoreStats, Visit};

/// Of this many batches about one is followed by a flush that nobody asked for.
const OWN_FLUSH_EVERY: u64 = 8;

/// A store in memory, which is at the same time the "disk" that a crash leaves behind: [`MemoryStore::crash`] takes it
/// back to its last flush, and whoever restarts goes on with it. Snapshots of before answer [`StoreError::Closed`]
/// from then on, like anything of a dead process.
///
/// Every key keeps the versions that the newest state, the last flush and live snapshots can see, so snapshots cost
/// nothing to take and the crash is exact.
#[derive(Clone)]
pub struct MemoryStore {
    disk: Arc<RwLock<Disk>>,
}

/// A view of a [`MemoryStore`] at one position.
struct MemorySnapshot {
    disk: Arc<RwLock<Disk>>,
    generation: u64,
    batch: u64,
}

type Versions = Vec<(u64, Option<Bytes>)>;

struct Disk {
    /// The versions of each key by the number of the batch that wrote them, oldest first.
    keys: BTreeMap<(Family, Bytes), Versions>,
    /// Position after each batch that somebody can still see.
    positions: Vec<(u64, Applied)>,
    /// The number of the newest batch.
    newest: u64,
    /// The newest batch that a crash leaves.
    flushed: u64,
    /// How many snapshots see each batch.
    pinned: BTreeMap<u64, usize>,
    generation: u64,
    random: u64,
    own_flushes: bool,
    failure: Option<StoreError>,
}

impl MemoryStore {
    /// An empty store whose own flushes follow from the seed.
    pub fn new(seed: u64) -> MemoryStore {
        let disk = Disk {
            keys: BTreeMap::new(),
            positions: Vec::new(),
            newest: 0,
            flushed: 0,
            pinned: BTreeMap::new(),
            generation: 0,
            random: seed,
            own_flushes: true,
            failure: None,
        };
        MemoryStore {
            disk: Arc::new(RwLock::new(disk)),
        }
    }

    /// An empty store that flushes only when asked to.
    pub fn without_own_flushes() -> MemoryStore {
        let store = MemoryStore::new(0);
        store.disk.write().own_flushes = false;
        store
    }

    /// Loses everything that was not flushed, and kills the snapshots taken so far. The store is then what a restart
    /// finds.
    pub fn crash(&self) {
        let disk = &mut *self.disk.write();
        let flushed = disk.flushed;
        disk.keys.retain(|_, versions| {
            versions.retain(|(batch, _)| *batch <= flushed);
            !versions.is_empty()
        });
        disk.positions.retain(|(batch, _)| *batch <= flushed);
        disk.newest = flushed;
        disk.pinned.clear();
        disk.generation += 1;
        disk.failure = None;
    }

    /// Makes every write and flush fail with this error from now on, until a crash, as after an error in the background.
    pub fn fail(&self, error: StoreError) {
        self.disk.write().failure = Some(error);
    }
}

impl Disk {
    fn check(&self, generation: u64) -> Result<(), StoreError> {
        if self.generation == generation {
            Ok(())
        } else {
            Err(StoreError::Closed)
        }
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn applied(&self, at: u64) -> Option<Applied> {
        visible(&self.positions, at).copied()
    }

    fn get(&self, family: Family, key: &[u8], at: u64) -> Option<Bytes> {
        let versions = self.keys.get(&(family, Bytes::copy_from_slice(key)))?;
        visible(versions, at)?.clone()
    }

    fn scan(&self, family: Family, from: &[u8], to: Option<&[u8]>, at: u64, visit: Visit<'_>) {
        if to.is_some_and(|to| to <= from) {
            return;
        }
        let from = Bound::Included((family, Bytes::copy_from_slice(from)));
        let to = to.map_or(Bound::Unbounded, |to| {
            Bound::Excluded((family, Bytes::copy_from_slice(to)))
        });
        for ((found, key), versions) in self.keys.range((from, to)) {
            if *found != family {
                return;
            }
            if let Some(Some(value)) = visible(versions, at)
                && visit(key, value) == ControlFlow::Break(())
            {
                return;
            }
        }
    }

    /// xorshift64*: enough to decide when to flush.
    fn random(&mut self) -> u64 {
        self.random |= 1;
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn flush(&mut self) {
        self.flushed = self.newest;
        let seen = self.seen();
        prune(&mut self.positions, &seen);
        self.keys.retain(|_, versions| {
            prune(versions, &seen);
            !matches!(versions.as_slice(), [(_, None)])
        });
    }

    /// The batches at which somebody looks, ascending.
    fn seen(&self) -> Vec<u64> {
        let mut seen: Vec<u64> = self
            .pinned
            .keys()
            .copied()
            .chain([self.flushed, self.newest])
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

/// The version that a view at batch `at` sees.
fn visible<T>(versions: &[(u64, T)], at: u64) -> Option<&T> {
    versions
        .iter()
        .rev()
        .find(|(batch, _)| *batch <= at)
        .map(|(_, version)| version)
}

/// Keeps the versions that a view at one of the batches in `seen` sees.
fn prune<T>(versions: &mut Vec<(u64, T)>, seen: &[u64]) {
    let mut next = versions
        .iter()
        .map(|(batch, _)| *batch)
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter();
    versions.retain(|(batch, _)| {
        let hidden_from = next.next().unwrap_or(u64::MAX);
        seen.iter().any(|at| (*batch..hidden_from).contains(at))
    });
}

impl Store for MemoryStore {
    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError> {
        let disk = &mut *self.disk.write();
        disk.check_writable()?;
        check_order(disk.applied(disk.newest), applied)?;
        disk.newest += 1;
        let batch = disk.newest;
        let seen = disk.seen();
        disk.positions.push((batch, applied));
        prune(&mut disk.positions, &seen);
        for op in ops {
            let versions = disk.keys.entry((op.family, op.key.clone())).or_default();
            versions.retain(|(written, _)| *written != batch);
            // Copied, as every store does: a slice would keep the whole frame alive.
            versions.push((batch, op.value.as_deref().map(Bytes::copy_from_slice)));
            prune(versions, &seen);
        }
        if disk.own_flushes && disk.random().is_multiple_of(OWN_FLUSH_EVERY) {
            disk.flush();
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut disk = self.disk.write();
        disk.check_writable()?;
        disk.flush();
        Ok(())
    }

    fn snapshot(&self) -> Result<Arc<dyn StoreSnapshot>, StoreError> {
        let mut disk = self.disk.write();
        let (batch, generation) = (disk.newest, disk.generation);
        *disk.pinned.entry(batch).or_default() += 1;
        Ok(Arc::new(MemorySnapshot {
            disk: self.disk.clone(),
            generation,
            batch,
        }))
    }

    fn check(&self) -> Result<(), StoreError> {
        self.disk.read().check_writable()
    }

    fn stats(&self) -> StoreStats {
        let disk = self.disk.read();
        let mut stats = StoreStats::default();
        for ((_, key), versions) in &disk.keys {
            for (batch, value) in versions {
                let bytes = (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
                stats.memory_bytes += bytes;
                if *batch > disk.flushed {
                    stats.unflushed_bytes += bytes;
                } else {
                    stats.disk_bytes += bytes;
                }
            }
        }
        stats.background_errors = u64::from(disk.failure.is_some());
        stats
    }
}

/// What [`Store::write`] promises about positions.
pub(crate) fn check_order(before: Option<Applied>, next: Applied) -> Result<(), StoreError> {
    match before {
        Some(before) if before.journal_id != next.journal_id || before.lsn > next.lsn => {
            Err(StoreError::OutOfOrder {
                journal_id: next.journal_id,
                lsn: next.lsn,
                applied: before.to_string(),
            })
        }
        _ => Ok(()),
    }
}

impl StoreSnapshot for MemoryStore {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        let disk = self.disk.read();
        Ok(disk.applied(disk.newest))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let disk = self.disk.read();
        Ok(disk.get(family, key, disk.newest))
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let disk = self.disk.read();
        Ok(keys
            .iter()
            .map(|key| disk.get(family, key, disk.newest))
            .collect())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        // Through a snapshot, so that `visit` may use the store.
        self.snapshot()?.scan(family, from, to, visit)
    }
}

impl StoreSnapshot for MemorySnapshot {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        let disk = self.disk.read();
        disk.check(self.generation)?;
        Ok(disk.applied(self.batch))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let disk = self.disk.read();
        disk.check(self.generation)?;
        Ok(disk.get(family, key, self.batch))
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let disk = self.disk.read();
        disk.check(self.generation)?;
        Ok(keys
            .iter()
            .map(|key| disk.get(family, key, self.batch))
            .collect())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut found = Vec::new();
        {
            let disk = self.disk.read();
            disk.check(self.generation)?;
            disk.scan(family, from, to, self.batch, &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            });
        }
        for (key, value) in found {
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut disk = self.disk.write();
        if disk.generation != self.generation {
            return;
        }
        if let Some(count) = disk.pinned.get_mut(&self.batch) {
            *count -= 1;
            if *count == 0 {
                disk.pinned.remove(&self.batch);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn at(lsn: u64) -> Applied {
        Applied { journal_id: 1, lsn }
    }

    #[test]
    fn only_versions_that_somebody_can_see_are_kept() {
        let store = MemoryStore::without_own_flushes();
        let put = |lsn: u64| {
            store
                .write(
                    &[StoreOp::put(Family::State, "k", lsn.to_string())],
                    at(lsn),
                )
                .unwrap()
        };
        let versions = || store.disk.read().keys.values().map(Vec::len).sum::<usize>();
        (1..=10).for_each(put);
        assert_eq!(versions(), 1, "nothing was flushed, nobody looks");
        store.flush().unwrap();
        let snapshot = store.snapshot().unwrap();
        (11..=20).for_each(put);
        assert_eq!(
            versions(),
            2,
            "the flushed one, which the snapshot shares, and the newest"
        );
        drop(snapshot);
        store.flush().unwrap();
        assert_eq!(versions(), 1);
        store
            .write(&[StoreOp::delete(Family::State, "k")], at(21))
            .unwrap();
        store.flush().unwrap();
        assert_eq!(
            store.stats().memory_bytes,
            0,
            "a deletion that everybody sees is no version"
        );
    }

    #[test]
    fn a_seed_flushes_at_the_same_batches_again() {
        let survivors = |seed| -> Vec<u64> {
            let store = MemoryStore::new(seed);
            (0..40)
                .map(|round| {
                    let next = store
                        .applied()
                        .unwrap()
                        .map_or(1, |applied| applied.lsn + 1);
                    for lsn in next..next + round % 7 {
                        store.write(&[], at(lsn)).unwrap();
                    }
                    store.crash();
                    store.applied().unwrap().map_or(0, |applied| applied.lsn)
                })
                .collect()
        };
        assert_eq!(survivors(7), survivors(7));
        assert_ne!(survivors(7), survivors(8));
    }
}
