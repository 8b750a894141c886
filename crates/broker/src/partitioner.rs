//! Where records without a key go: they stay on one partition until it has had a batch's worth, then move on.
//! Fewer and larger batches than a turn for every record, and evenly spread all the same.

use std::sync::atomic::{AtomicU64, Ordering};

/// After this many bytes the next partition has its turn (Kafka's `batch.size`).
const STAY_BYTES: u64 = 16 * 1024;

/// The bytes that records without a key have brought to a topic so far.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    bytes: AtomicU64,
}

impl Sticky {
    /// The partition for the next record without a key.
    pub(crate) fn partition(&self, record_bytes: usize, partitions: u32) -> u32 {
        let before = self
            .bytes
            .fetch_add(record_bytes as u64 + 1, Ordering::Relaxed);
        ((before / STAY_BYTES) % u64::from(partitions.max(1))) as u32
    }

    /// The end of a call: small calls take turns too, or a slow producer would only ever fill one partition.
    pub(crate) fn move_on(&self) {
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                (bytes % STAY_BYTES != 0).then(|| (bytes / STAY_BYTES + 1) * STAY_BYTES)
            });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_for_a_batch_and_then_moves_on() {
        let sticky = Sticky::default();
        let partitions: Vec<u32> = (0..64).map(|_| sticky.partition(1023, 4)).collect();
        assert_eq!(partitions, (0..64).map(|n| n / 16).collect::<Vec<u32>>());
    }

    #[test]
    fn small_calls_take_turns() {
        let sticky = Sticky::default();
        let turns: Vec<u32> = (0..6)
            .map(|_| {
                let partition = sticky.partition(10, 3);
                sticky.move_on();
                partition
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        sticky.move_on();
        assert_eq!(sticky.partition(10, 3), 0, "nothing sent, nothing moved");
    }
}
