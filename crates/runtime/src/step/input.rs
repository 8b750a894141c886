//! One partition that a task reads, and the events that its batches hold.

use std::sync::Arc;

use bytes::Bytes;
use mainstem_log::{PartitionId, Waiter};
use mainstem_record::Batch;

use crate::Event;
use crate::task::Ended;

/// One partition that the task reads.
pub(crate) struct Input {
    pub(crate) topic: Arc<str>,
    pub(super) id: PartitionId,
    pub(super) offset_key: Bytes,
    /// The offset of the next event to commit, as of the last step made.
    pub(crate) next: i64,
    /// The offset to fetch next.
    pub(super) fetch: i64,
    pub(super) waiter: Option<Waiter>,
}

impl Input {
    pub(crate) fn new(topic: Arc<str>, id: PartitionId, offset_key: Bytes, offset: i64) -> Input {
        Input {
            topic,
            id,
            offset_key,
            next: offset,
            fetch: offset,
            waiter: None,
        }
    }

    /// Makes events of batches until they have so many bytes, which they may go beyond by one batch; answers how many they
    /// have. What was read is bounded as it lies in the log; what compressed batches become is bounded here, and the next
    /// fetch begins with the first batch that is left.
    pub(super) fn decode(
        &mut self,
        pieces: Vec<Bytes>,
        max_bytes: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, Ended> {
        let mut bytes = 0;
        for mut piece in pieces {
            while bytes < max_bytes
                && let Some(batch) = Batch::split_first_trusted(&mut piece)
                    .map_err(|error| unreadable(self, &error))?
            {
                if batch.next_offset() <= self.fetch {
                    continue;
                }
                let from = std::mem::replace(&mut self.fetch, batch.next_offset());
                if batch.header().is_control() {
                    continue;
                }
                events.reserve(usize::try_from(batch.record_count()).unwrap_or(0));
                for record in batch.records().map_err(|error| unreadable(self, &error))? {
                    let record = record.map_err(|error| unreadable(self, &error))?;
                    if record.offset < from {
                        continue;
                    }
                    let event = Event {
                        topic: self.topic.clone(),
                        partition: self.id.index,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    };
                    bytes += event.size_bytes();
                    events.push(event);
                }
            }
        }
        Ok(bytes)
    }
}

fn unreadable(input: &Input, error: &dyn std::fmt::Display) -> Ended {
    Ended::Failed(format!(
        "topic `{}`, partition {}, near offset {}: a batch cannot be read: {error}",
        input.topic, input.id.index, input.fetch
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use mainstem_log::TopicId;
    use mainstem_record::{BatchBuilder, Compression, assign};

    #[test]
    fn what_batches_decompress_to_is_bounded_and_nothing_is_left_out() {
        let mut piece = Vec::new();
        for offset in 0..5 {
            let mut builder = BatchBuilder::new(Compression::Zstd, 4 << 20);
            let value = vec![b'x'; 1 << 20];
            builder.append(1, None, Some(&value), &[]).unwrap();
            let mut batch = builder.build().unwrap().bytes().to_vec();
            assign(&mut batch, offset, 0);
            piece.extend_from_slice(&batch);
        }
        let piece = Bytes::from(piece);
        assert!(piece.len() < 10_000);
        let id = PartitionId::new(TopicId(1), 0);
        let mut input = Input::new("t".into(), id, Bytes::new(), 0);
        let mut offsets = Vec::new();
        for expected in [2, 2, 1, 0] {
            let mut events = Vec::new();
            let max_bytes = (1 << 20) + 100;
            assert!(
                input
                    .decode(vec![piece.clone()], max_bytes, &mut events)
                    .is_ok()
            );
            assert_eq!(events.len(), expected);
            offsets.extend(events.iter().map(|event| event.offset));
        }
        assert_eq!(offsets, [0, 1, 2, 3, 4]);
    }
}
