//! What clients have written to a topic and read from it, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the process started, or since the topic was created if that was later. Each is right by itself; the four
/// are not of one moment.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    produced_records: AtomicU64,
    produced_bytes: AtomicU64,
    fetched_records: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// What clients have written to a topic and read from it. Handlers and queries are not clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicTraffic {
    /// Records acknowledged; a retry that was recognised counts once.
    pub produced_records: u64,
    /// Bytes of their batches, as they came.
    pub produced_bytes: u64,
    /// Records handed out, once for each reader: offsets asked for, also where compaction has taken the record away.
    pub fetched_records: u64,
    /// Bytes of the batches handed out.
    pub fetched_bytes: u64,
}

impl Traffic {
    pub(crate) fn produced(&self, records: u64, bytes: u64) {
        self.produced_records.fetch_add(records, Ordering::Relaxed);
        self.produced_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn fetched(&self, records: u64, bytes: u64) {
        self.fetched_records.fetch_add(records, Ordering::Relaxed);
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> TopicTraffic {
        TopicTraffic {
            produced_records: self.produced_records.load(Ordering::Relaxed),
            produced_bytes: self.produced_bytes.load(Ordering::Relaxed),
            fetched_records: self.fetched_records.load(Ordering::Relaxed),
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
        }
    }
}
