//! What a query has to say beside its rows, and what it counted while it ran.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thing to tell whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A stable name for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// How often it happened.
    pub count: u64,
}

/// What a query has to say beside its rows. Filled while the rows are read, so complete once their stream has ended.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    malformed: Mutex<BTreeMap<String, u64>>,
    batches_read: AtomicU64,
    bytes_read: AtomicU64,
    records_walked: AtomicU64,
    values_decoded: AtomicU64,
}

/// What a query read so far. Pruning and projection show in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Record batches whose header was read.
    pub batches_read: u64,
    /// Bytes that came from the log.
    pub bytes_read: u64,
    /// Records that were looked at one by one.
    pub records_walked: u64,
    /// Values that went through the JSON decoder.
    pub values_decoded: u64,
}

impl Notices {
    /// Everything noticed so far.
    pub fn list(&self) -> Vec<Notice> {
        self.shared
            .malformed
            .lock()
            .iter()
            .map(|(table, count)| Notice {
                code: "malformed_values",
                message: format!(
                    "{count} values of {table} are not JSON of the table's columns; their columns are NULL (_value has the bytes)"
                ),
                count: *count,
            })
            .collect()
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.shared.malformed.lock().is_empty()
    }

    /// What was read so far.
    pub fn counts(&self) -> ScanCounts {
        ScanCounts {
            batches_read: self.shared.batches_read.load(Ordering::Relaxed),
            bytes_read: self.shared.bytes_read.load(Ordering::Relaxed),
            records_walked: self.shared.records_walked.load(Ordering::Relaxed),
            values_decoded: self.shared.values_decoded.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn malformed(&self, table: &str, count: u64) {
        if count > 0 {
            *self
                .shared
                .malformed
                .lock()
                .entry(table.to_owned())
                .or_default() += count;
        }
    }

    pub(crate) fn count(&self, delta: ScanCounts) {
        self.shared
            .batches_read
            .fetch_add(delta.batches_read, Ordering::Relaxed);
        self.shared
            .bytes_read
            .fetch_add(delta.bytes_read, Ordering::Relaxed);
        self.shared
            .records_walked
            .fetch_add(delta.records_walked, Ordering::Relaxed);
        self.shared
            .values_decoded
            .fetch_add(delta.values_decoded, Ordering::Relaxed);
    }
}
