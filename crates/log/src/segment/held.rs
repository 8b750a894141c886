//! Files that are held open because stretches of them are on their way to clients: a client takes as long as it likes, so
//! how many there are is bounded.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use mainstem_journal::DiskFile;

use super::{Segment, SegmentShelf};
use crate::LogError;

/// How many files of a log are held, and may be.
pub(crate) struct HeldFiles {
    limit: usize,
    count: Arc<AtomicUsize>,
}

impl HeldFiles {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            count: Arc::default(),
        }
    }

    fn take(&self) -> Option<Place> {
        let one_more = |count| (count < self.limit).then_some(count + 1);
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()?;
        Some(Place {
            count: self.count.clone(),
        })
    }
}

/// One of the files that may be held.
struct Place {
    count: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An open file, until the last stretch of it is gone. The segment itself is not held: its file can be removed meanwhile, and
/// is still read through this.
pub(super) struct HeldFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) segment: Weak<Segment>,
    _place: Place,
}

impl Segment {
    /// Holds the file, all who do together once. None where too many are held, or the disk has no handle of the operating
    /// system.
    pub(super) fn hold(
        self: &Arc<Self>,
        shelf: &SegmentShelf,
    ) -> Result<Option<Arc<HeldFile>>, LogError> {
        let held = self.state.lock().held.upgrade();
        if held.is_some() {
            return Ok(held);
        }
        let file = self.open(shelf)?;
        if file.os_file().is_none() {
            return Ok(None);
        }
        let Some(place) = shelf.held_files.take() else {
            return Ok(None);
        };
        let held = Arc::new(HeldFile {
            file,
            path: self.path.clone(),
            segment: Arc::downgrade(self),
            _place: place,
        });
        self.state.lock().held = Arc::downgrade(&held);
        Ok(Some(held))
    }
}
