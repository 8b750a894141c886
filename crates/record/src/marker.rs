//! The end of a transaction in a partition: a batch with one control record (KIP-98).
//!
//! Key: version i16 (0), type i16 (0 abort, 1 commit). Value: version i16 (0), coordinator epoch i32.

use bytes::Bytes;

use crate::header::{CONTROL_BIT, TRANSACTIONAL_BIT};
use crate::{Batch, BatchBuilder, Compression, RecordError};

/// How a transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Its records are not to be delivered.
    Abort,
    /// Its records are.
    Commit,
}

/// More than a marker takes.
const MAX_BYTES: usize = 256;
/// One node coordinates everything, since the data directory began.
const COORDINATOR_EPOCH: i32 = 0;

impl Marker {
    /// The batch that ends the transaction of this producer.
    pub fn batch(
        self,
        producer_id: i64,
        producer_epoch: i16,
        timestamp_ms: i64,
    ) -> Result<Batch, RecordError> {
        let kind: i16 = match self {
            Marker::Abort => 0,
            Marker::Commit => 1,
        };
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&COORDINATOR_EPOCH.to_be_bytes());
        let mut builder = BatchBuilder::new(Compression::None, MAX_BYTES);
        builder.producer(producer_id, producer_epoch, -1);
        builder.attributes(TRANSACTIONAL_BIT | CONTROL_BIT);
        builder.append(timestamp_ms, Some(&key), Some(&value), &[])?;
        builder.build()
    }

    /// Reads the marker in a batch that our own journal or segment vouch for; none where it is no control batch, or one
    /// of another kind.
    pub fn read(batch: &Bytes) -> Option<Marker> {
        let batch = Batch::trusted(batch.clone()).ok()?;
        if !batch.header().is_control() {
            return None;
        }
        let payload = batch.payload().ok()?;
        let key = payload.views().next()?.ok()?.key?;
        match (key.get(..2)?, key.get(2..4)?) {
            ([0, 0], [0, 0]) => Some(Marker::Abort),
            ([0, 0], [0, 1]) => Some(Marker::Commit),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_written() {
        for marker in [Marker::Abort, Marker::Commit] {
            let batch = marker.batch(7, 3, 1_000).unwrap();
            let parsed = Batch::parse(batch.bytes().clone()).unwrap();
            let header = parsed.header();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
            assert_eq!((header.base_sequence, header.record_count), (-1, 1));
            assert_eq!(header.max_timestamp_ms, 1_000);
            assert_eq!(Marker::read(batch.bytes()), Some(marker));
        }
    }

    #[test]
    fn the_bytes_are_those_of_kafka() {
        let batch = Marker::Commit.batch(1, 0, 0).unwrap();
        assert_eq!(
            batch.bytes()[61..],
            // Length, attributes, two deltas, key, value, no headers.
            *b"\x20\0\0\0\x08\0\0\0\x01\x0c\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn other_batches_are_no_markers() {
        let mut builder = BatchBuilder::new(Compression::None, 1_000);
        builder.append(1, Some(b"\0\0\0\x01"), None, &[]).unwrap();
        assert_eq!(Marker::read(builder.build().unwrap().bytes()), None);
        assert_eq!(Marker::read(&Bytes::from_static(b"short")), None);
    }
}
