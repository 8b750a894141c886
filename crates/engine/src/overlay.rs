//! Which keys were written lately, so that admission can judge a check without reading the store.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use mainstem_journal::Lsn;
use mainstem_store::Family;

/// Keys remembered at most; what is older can no longer be judged.
const REMEMBERED_KEYS: usize = 65_536;

pub(crate) struct Overlay {
    last_write: HashMap<(Family, Bytes), Lsn>,
    order: VecDeque<(Lsn, Family, Bytes)>,
    /// Every write after this position is remembered.
    floor: Lsn,
}

pub(crate) enum Unchanged {
    Yes,
    No,
    /// Read before what is remembered.
    Unknown,
}

impl Overlay {
    pub(crate) fn new(floor: Lsn) -> Overlay {
        Overlay {
            last_write: HashMap::new(),
            order: VecDeque::new(),
            floor,
        }
    }

    pub(crate) fn written(&mut self, family: Family, key: &Bytes, lsn: Lsn) {
        self.last_write.insert((family, key.clone()), lsn);
        self.order.push_back((lsn, family, key.clone()));
        while self.order.len() > REMEMBERED_KEYS {
            let Some((lsn, family, key)) = self.order.pop_front() else {
                return;
            };
            self.floor = self.floor.max(lsn);
            let entry = (family, key);
            if self.last_write.get(&entry) == Some(&lsn) {
                self.last_write.remove(&entry);
            }
        }
    }

    pub(crate) fn unchanged(&self, family: Family, key: &Bytes, as_of: Lsn) -> Unchanged {
        if as_of < self.floor {
            return Unchanged::Unknown;
        }
        match self.last_write.get(&(family, key.clone())) {
            Some(lsn) if *lsn > as_of => Unchanged::No,
            _ => Unchanged::Yes,
        }
    }
}
