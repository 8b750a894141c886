//! What compaction keeps of one batch.

use bytes::Bytes;
use mainstem_record::{
    Batch, DEFAULT_DECOMPRESSED_LIMIT_BYTES, Marker, RecordError, RecordView, Retained,
};

use super::keys::NewestOffsets;
use crate::transactions::AbortedSpans;

/// Up to where keys are known, and what time it is.
pub(crate) struct Rules<'a> {
    pub(crate) newest: &'a NewestOffsets,
    pub(crate) aborted: &'a AbortedSpans,
    /// Records from this offset on are kept: their keys have not been looked at.
    pub(crate) known_before: i64,
    pub(crate) now_ms: i64,
    /// For how long a tombstone stays after compaction has first seen it.
    pub(crate) delete_retention_ms: i64,
}

impl Rules<'_> {
    /// A record is kept if it is the newest of its key. A tombstone is, too, until its time is over: whoever reads
    /// slowly must still learn that the key is gone. A record without a key is the newest of nothing.
    ///
    /// Nothing stays of an aborted transaction but its marker: the list of aborted transactions still names it, and to
    /// a Kafka client it goes on up to there. The marker of a commit tells no reader anything.
    pub(crate) fn apply(&self, bytes: &Bytes) -> Result<Retained, RecordError> {
        let batch = Batch::trusted(bytes.clone())?;
        if batch.base_offset() >= self.known_before {
            return Ok(Retained::All);
        }
        if batch.header().is_control() {
            return Ok(match Marker::read(bytes) {
                Some(Marker::Commit) => Retained::Nothing,
                _ => Retained::All,
            });
        }
        if batch.record_count() == 0 || self.aborted.hold(batch.header()) {
            return Ok(Retained::Nothing);
        }
        let horizon_ms = batch.header().delete_horizon_ms();
        let deletes_stay = horizon_ms.is_none_or(|horizon_ms| self.now_ms < horizon_ms);
        let keep = |view: &RecordView<'_>| {
            let superseded = |key| {
                self.newest
                    .newest(key)
                    .is_some_and(|newest| newest > view.offset)
            };
            view.key.is_some_and(|key| !superseded(key)) && (view.value.is_some() || deletes_stay)
        };
        let limit_bytes = DEFAULT_DECOMPRESSED_LIMIT_BYTES;
        let mut tombstones = false;
        let retained = batch.retain(limit_bytes, None, |view| {
            let keep = keep(view);
            tombstones |= keep && view.value.is_none();
            keep
        })?;
        if !tombstones || horizon_ms.is_some() {
            return Ok(retained);
        }
        // From this first look at it on, the time of the tombstone runs.
        let horizon_ms = self.now_ms.saturating_add(self.delete_retention_ms);
        batch.retain(limit_bytes, Some(horizon_ms), keep)
    }
}
