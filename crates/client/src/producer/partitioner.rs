//! Which partition a record goes to.

use mainstem_record::partition_for_key;

/// Bytes after which records without a key go on to another partition.
const STICKY_BYTES: usize = 64 << 10;

/// Records with a key go where Kafka's Java client sends them; records without one stay with a partition for a while, so
/// that batches fill, and then go on to the next.
#[derive(Debug)]
pub(crate) struct Partitioner {
    sticky: u32,
    filled_bytes: usize,
}

impl Partitioner {
    /// Begins with some partition: another one for each producer.
    pub(crate) fn new(first: u32) -> Partitioner {
        Partitioner {
            sticky: first,
            filled_bytes: 0,
        }
    }

    /// The partition of a record of this size among `partitions`, which is not 0.
    pub(crate) fn partition(
        &mut self,
        key: Option<&[u8]>,
        record_bytes: usize,
        partitions: u32,
    ) -> u32 {
        if let Some(key) = key {
            return partition_for_key(key, partitions);
        }
        if self.filled_bytes >= STICKY_BYTES {
            self.sticky = self.sticky.wrapping_add(1);
            self.filled_bytes = 0;
        }
        self.filled_bytes += record_bytes;
        self.sticky % partitions.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_decides() {
        let mut partitioner = Partitioner::new(3);
        let first = partitioner.partition(Some(b"foobar"), 10, 1_000);
        assert_eq!(first, (-790_332_482i32 & 0x7fff_ffff) as u32 % 1_000);
        assert_eq!(
            partitioner.partition(Some(b"foobar"), 1 << 20, 1_000),
            first
        );
    }

    #[test]
    fn without_a_key_every_partition_gets_its_share_in_runs() {
        let mut partitioner = Partitioner::new(u32::MAX - 1);
        let mut counts = [0u32; 4];
        let mut moves = 0;
        let mut last = None;
        for _ in 0..4_096 {
            let partition = partitioner.partition(None, 1_024, 4);
            counts[partition as usize] += 1;
            moves += u32::from(last != Some(partition));
            last = Some(partition);
        }
        assert!(
            counts.iter().all(|count| (960..=1_088).contains(count)),
            "{counts:?}"
        );
        assert!(moves <= 65, "{moves}");
    }
}
