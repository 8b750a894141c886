//! The bytes of a file, and what of them is not sure to be on disk.

use super::PowerLoss;
use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;

/// What a disk writes as one: each is there after a loss of power, or is not.
const SECTOR_BYTES: usize = 512;

#[derive(Default)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    durable_len: u64,
    /// Sectors that are not sure to be on disk, with what is there if they are not.
    dirty: BTreeMap<u64, Dirty>,
    /// Shared with the open handles: a file without a name lives as long as they do.
    pub(super) handles: Arc<()>,
}

struct Dirty {
    /// `None`: zeros, the file did not reach that far.
    before: Option<Box<[u8; SECTOR_BYTES]>>,
    /// A sync of this sector has failed: the next one passes it over.
    given_up: bool,
}

impl Inode {
    fn sector(&self, sector: u64) -> Option<Box<[u8; SECTOR_BYTES]>> {
        let start = sector as usize * SECTOR_BYTES;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let mut before = Box::new([0; SECTOR_BYTES]);
        let n = rest.len().min(SECTOR_BYTES);
        before[..n].copy_from_slice(&rest[..n]);
        Some(before)
    }

    /// Remembers what the sectors from `start` to `end` hold, before they change.
    fn touch(&mut self, start: u64, end: u64) {
        for sector in start / SECTOR_BYTES as u64..end.div_ceil(SECTOR_BYTES as u64) {
            if let Some(dirty) = self.dirty.get_mut(&sector) {
                dirty.given_up = false;
            } else {
                let before = self.sector(sector);
                self.dirty.insert(
                    sector,
                    Dirty {
                        before,
                        given_up: false,
                    },
                );
            }
        }
    }

    /// How much of `buf` it could fill.
    pub(super) fn read(&self, buf: &mut [u8], position: u64) -> usize {
        let rest = self.bytes.get(position as usize..).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    }

    pub(super) fn write(&mut self, buf: &[u8], position: u64) {
        let end = position as usize + buf.len();
        self.touch(position, end as u64);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[position as usize..end].copy_from_slice(buf);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let old = self.bytes.len() as u64;
        if len < old {
            self.touch(len, old);
        }
        self.bytes.resize(len as usize, 0);
    }

    pub(super) fn sync(&mut self) {
        self.dirty.retain(|_, dirty| dirty.given_up);
        self.durable_len = self.bytes.len() as u64;
    }

    /// A sync has failed: no later one makes durable what it was for.
    pub(super) fn give_up(&mut self) {
        self.dirty
            .values_mut()
            .for_each(|dirty| dirty.given_up = true);
    }

    pub(super) fn lose_power(&mut self, rng: &mut SmallRng, lost: &mut PowerLoss) {
        // One crash in four keeps nothing, one in four almost everything: both hide other faults than a coin each time.
        let keep = [0.0, 0.5, 0.5, 0.95][rng.random_range(0..4)];
        let len = self.bytes.len() as u64;
        if len != self.durable_len && !rng.random_bool(keep) {
            let dirty = std::mem::take(&mut self.dirty);
            self.bytes.resize(self.durable_len as usize, 0);
            self.dirty = dirty;
            lost.lengths += 1;
        }
        let (mut lost_before, mut kept_any, mut kept_behind_lost) = (0, false, false);
        for (sector, dirty) in std::mem::take(&mut self.dirty) {
            let start = sector as usize * SECTOR_BYTES;
            if rng.random_bool(keep) || start >= self.bytes.len() {
                kept_any |= start < self.bytes.len();
                kept_behind_lost |= start < self.bytes.len() && lost_before > 0;
                continue;
            }
            lost_before += 1;
            let end = self.bytes.len().min(start + SECTOR_BYTES);
            match dirty.before {
                Some(before) => self.bytes[start..end].copy_from_slice(&before[..end - start]),
                None => self.bytes[start..end].fill(0),
            }
        }
        self.durable_len = self.bytes.len() as u64;
        lost.sectors += lost_before;
        lost.torn_files += u64::from(kept_any && lost_before > 0);
        lost.reordered_files += u64::from(kept_behind_lost);
    }
}
