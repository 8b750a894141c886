//! How long things took, for metrics: histograms of a fixed size that any thread adds to without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds. What took longer than the last is in a bucket of its own.
pub const LATENCY_BOUNDS_S: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// One histogram.
#[derive(Debug, Default)]
pub struct Latency {
    /// One for each bound, and one for what lies beyond.
    counts: [AtomicU64; LATENCY_BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS_S.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many there are by upper bound in seconds, each only in the smallest that holds it; the last bound is infinite.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = LATENCY_BOUNDS_S.into_iter().chain([f64::INFINITY]);
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        bounds.zip(counts).collect()
    }

    /// All of them together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// What the platform and its gateways time.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Calls that produce, from the gateway's first look at their batches to the answer: those that were answered with
    /// offsets or refusals, each call once. Gateways add to it.
    pub produce: Latency,
    /// Syncs of the journal's files.
    pub journal_sync: Latency,
    /// Syncs of segment files, which nobody waits for.
    pub segment_sync: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_in_the_smallest_bucket_that_holds_it() {
        let latency = Latency::default();
        for us in [0, 100, 101, 5_000_000, 5_000_001] {
            latency.add(Duration::from_micros(us));
        }
        let buckets = latency.buckets();
        let filled: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            filled,
            [&(0.0001, 2), &(0.00025, 1), &(5.0, 1), &(f64::INFINITY, 1)]
        );
        assert_eq!(latency.sum_seconds(), 10.000_202);
    }
}
