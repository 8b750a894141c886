//! A partition's newest batches, in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use mainstem_journal::Lsn;

/// Where else than here a batch of the tail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// In the journal alone: a flush writes it to its segment.
    InJournal,
    /// In its segment, synced; a flush only takes it in.
    InSegment,
    /// There and not here, where it was replayed: `bytes` are its header.
    OnlyInSegment,
}

/// One batch as applied: a slice of its journal group's buffer, or of what was written to its segment.
#[derive(Clone)]
pub(crate) struct TailBatch {
    pub(crate) lsn: Lsn,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) begins_segment: bool,
    pub(crate) stands: Stands,
    pub(crate) bytes: Bytes,
}

impl TailBatch {
    /// Whether it goes into a segment in one piece of work with the one before.
    fn continues(&self, before: &TailBatch) -> bool {
        !self.begins_segment && self.stands == before.stands
    }
}

/// Batches in offset order, which is LSN order. The front ones are already in a segment and wait for eviction.
#[derive(Default)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    flushed: usize,
    unflushed_bytes: u64,
}

/// Room that an emptied tail keeps, in batches: a busy partition does not allocate anew after each eviction.
const KEPT_CAPACITY: usize = 256;

impl Tail {
    pub(crate) fn push(&mut self, batch: TailBatch) {
        self.unflushed_bytes += batch.bytes.len() as u64;
        self.batches.push_back(batch);
    }

    /// First offset in memory.
    pub(crate) fn first_offset(&self) -> Option<i64> {
        Some(self.batches.front()?.base_offset)
    }

    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    pub(crate) fn has_unflushed(&self) -> bool {
        self.flushed < self.batches.len()
    }

    pub(crate) fn has_flushed(&self) -> bool {
        self.flushed > 0
    }

    /// The batches from the one that holds `offset` on; none where it lies beyond the last.
    pub(crate) fn starting_with(&self, offset: i64) -> impl Iterator<Item = &TailBatch> {
        let index = self
            .batches
            .partition_point(|batch| batch.last_offset < offset);
        self.batches.range(index..)
    }

    /// The next batches to flush, of frames up to `upto`: a bounded run for one segment, which all of them stand in
    /// already or none; at least one if there is any.
    pub(crate) fn next_run(
        &self,
        upto: Lsn,
        max_bytes: usize,
        max_batches: usize,
        run: &mut Vec<TailBatch>,
    ) {
        let mut bytes = 0;
        for batch in self
            .batches
            .range(self.flushed..)
            .take(max_batches)
            .take_while(|batch| batch.lsn <= upto)
        {
            bytes += batch.bytes.len();
            if let Some(before) = run.last()
                && (bytes > max_bytes || !batch.continues(before))
            {
                break;
            }
            run.push(batch.clone());
        }
    }

    /// The segments that batches begin which no flush has passed, by their base offsets.
    pub(crate) fn unflushed_segments(&self) -> impl Iterator<Item = i64> {
        self.batches
            .range(self.flushed..)
            .filter(|batch| batch.begins_segment)
            .map(|batch| batch.base_offset)
    }

    /// The first `count` unflushed batches stand in a segment now. Returns their bytes.
    pub(crate) fn mark_flushed(&mut self, count: usize) -> u64 {
        let bytes = self
            .batches
            .range(self.flushed..)
            .take(count)
            .map(|batch| batch.bytes.len() as u64)
            .sum();
        self.flushed += count;
        assert!(
            self.flushed <= self.batches.len(),
            "only batches of the tail can be flushed"
        );
        self.unflushed_bytes -= bytes;
        bytes
    }

    /// Forgets everything. Returns the bytes that were not flushed.
    pub(crate) fn clear(&mut self) -> u64 {
        let unflushed = self.unflushed_bytes;
        *self = Self::default();
        unflushed
    }

    /// Drops flushed batches of frames up to `upto`, at most `max_batches`. True when nothing is left to drop.
    pub(crate) fn evict(&mut self, upto: Lsn, max_batches: usize) -> bool {
        for _ in 0..max_batches {
            let due =
                self.flushed > 0 && self.batches.front().is_some_and(|batch| batch.lsn <= upto);
            if !due {
                if self.batches.capacity() > KEPT_CAPACITY
                    && self.batches.len() * 4 < self.batches.capacity()
                {
                    self.batches
                        .shrink_to(KEPT_CAPACITY.max(self.batches.len() * 2));
                }
                return true;
            }
            self.batches.pop_front();
            self.flushed -= 1;
        }
        false
    }
}
