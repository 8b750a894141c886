//! How the engine is set up.

use mainstem_journal::JournalOptions;
use mainstem_log::LogOptions;

/// Sizes and limits. The defaults suit a node of 1 GiB.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Bytes of records in memory at most: queued, being committed, or in the log's tail. Writers wait beyond it.
    pub memory_bytes: u64,
    /// Bytes for the store that may be admitted and not yet applied. Only writers to the store wait for it.
    pub store_backlog_bytes: u64,
    /// The tail is written to segments once this much of it is not.
    pub flush_bytes: u64,
    /// What is written to segments in one go, where nothing presses: with more, a sync of the journal finds a queue at the
    /// disk.
    pub flush_portion_bytes: u64,
    /// A group is closed at this size: what one sync covers where much is waiting.
    pub group_bytes: usize,
    /// One submission may be this large.
    pub max_frame_bytes: usize,
    /// How much admission copies before it lets the journal have the open group.
    pub admission_bytes_per_lock: usize,
    /// A submission of nothing but batches goes to the segments first and then to the journal by reference, where it has so
    /// many bytes or more for each of its partitions, or so many wait there already, with it, for admission and the
    /// journal. `usize::MAX` is never.
    pub reference_bytes: usize,
    /// Batches that are smaller than this, in the mean of what a submission has for a partition, count for that only where
    /// they have enough themselves: a reference takes about a hundred bytes of the journal.
    pub gathered_batch_bytes: usize,
    /// After so long without work, an empty group records the last one.
    pub idle_mark_ms: u64,
    /// A checkpoint is taken after this much journal, with the batches that it refers to: about what a restart reads at
    /// most.
    pub checkpoint_bytes: u64,
    /// And so long after the last one, by the time told with [`crate::Engine::tell_time`], however little was written.
    pub checkpoint_interval_ms: u64,
    /// And after so long without work.
    pub checkpoint_idle_ms: u64,
    /// Idempotent producers that have been silent for longer are forgotten, by the time told with
    /// [`crate::Engine::tell_time`]; what such a one sends again is no longer recognised.
    pub producer_expiration_ms: i64,
    /// With less free space than this on the disk, and what the tail has yet to write there, appends are refused.
    pub min_free_bytes: u64,
    /// Space that is kept back in a file, and given up for a last checkpoint when the disk is full to that point.
    pub ballast_bytes: u64,
    /// The journal's files.
    pub journal: JournalOptions,
    /// The log's segments.
    pub log: LogOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            memory_bytes: 256 << 20,
            store_backlog_bytes: 64 << 20,
            flush_bytes: 32 << 20,
            flush_portion_bytes: 1 << 20,
            group_bytes: 8 << 20,
            max_frame_bytes: 16 << 20,
            admission_bytes_per_lock: 1 << 20,
            reference_bytes: 256 << 10,
            gathered_batch_bytes: 1 << 10,
            idle_mark_ms: 5,
            checkpoint_bytes: 512 << 20,
            checkpoint_interval_ms: 60_000,
            checkpoint_idle_ms: 10_000,
            producer_expiration_ms: 24 * 60 * 60 * 1_000,
            min_free_bytes: 256 << 20,
            ballast_bytes: 64 << 20,
            journal: JournalOptions::default(),
            log: LogOptions::default(),
        }
    }
}
