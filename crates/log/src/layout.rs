//! Where a partition's batches stand in its segments.
//!
//! A segment's end is decided where offsets are given, before a batch has its frame, and the frame says it: an append is
//! of one of two kinds, and a reference names its segment. So the place of every batch follows from the journal alone,
//! however often it is replayed and whatever the limits are by then, and may be known before the batches in front of
//! it have been written.

use mainstem_record::BatchHeader;

use crate::log::{Log, Shared};
use crate::{LogError, PartitionId, TopicId};

/// Where a partition's next batch goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The segment that takes it, unless it begins one.
    active: Option<Active>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Active {
    base_offset: i64,
    end_position: u64,
    /// Largest timestamp of its first batch, where that is known.
    first_timestamp_ms: Option<i64>,
}

/// The place of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Base offset of the segment.
    pub segment_base_offset: i64,
    /// Where in it, in bytes.
    pub position: u64,
    /// It is the first of that segment.
    pub begins_segment: bool,
}

/// When a segment ends, defaults filled in.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: Option<i64>,
}

impl Layout {
    /// A partition whose last segment takes more batches.
    pub(crate) fn after(
        base_offset: i64,
        end_position: u64,
        first_timestamp_ms: Option<i64>,
    ) -> Self {
        Self {
            active: Some(Active {
                base_offset,
                end_position,
                first_timestamp_ms,
            }),
        }
    }

    /// Whether the batch must begin a segment.
    fn is_full(&self, header: &BatchHeader, limits: Limits) -> bool {
        self.active.is_none_or(|active| {
            let first_ms = active.first_timestamp_ms;
            // Where no time is given there is nothing to go by.
            let late = |segment_ms| {
                first_ms.is_some_and(|first_ms| {
                    first_ms >= 0 && header.max_timestamp_ms.saturating_sub(first_ms) > segment_ms
                })
            };
            active.end_position + header.size_bytes() as u64 > limits.segment_bytes
                || limits.segment_ms.is_some_and(late)
        })
    }

    /// The place of the next batch, whose frame says whether it begins a segment. The first of all does in any case.
    pub(crate) fn follow(&mut self, header: &BatchHeader, begins_segment: bool) -> Placement {
        let continued = self.active.filter(|_| !begins_segment);
        let mut active = continued.unwrap_or(Active {
            base_offset: header.base_offset,
            end_position: 0,
            first_timestamp_ms: None,
        });
        let placement = Placement {
            segment_base_offset: active.base_offset,
            position: active.end_position,
            begins_segment: continued.is_none(),
        };
        active.end_position += header.size_bytes() as u64;
        active
            .first_timestamp_ms
            .get_or_insert(header.max_timestamp_ms);
        self.active = Some(active);
        placement
    }
}

impl Log {
    /// Where the next batch of a partition goes, after all that is applied.
    pub fn layout(&self, partition: PartitionId) -> Result<Layout, LogError> {
        Ok(self.shared.find(partition)?.state.lock().layout)
    }

    /// Decides the place of the next batch by the limits of its topic, and moves the layout on. A segment without a
    /// record above the partition's start (`all_deleted`) takes no more, so that it can go.
    pub fn place(
        &self,
        layout: &mut Layout,
        topic: TopicId,
        header: &BatchHeader,
        all_deleted: bool,
    ) -> Placement {
        let begins = all_deleted || layout.is_full(header, self.shared.limits_of(topic));
        layout.follow(header, begins)
    }
}

impl Shared {
    pub(crate) fn limits_of(&self, topic: TopicId) -> Limits {
        let limits = self.segment_limits.read().get(&topic).copied();
        let limits = limits.unwrap_or_default();
        Limits {
            segment_bytes: limits.segment_bytes.unwrap_or(self.segment_bytes),
            segment_ms: limits.segment_ms,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(base_offset: i64, size_bytes: i32, max_timestamp_ms: i64) -> BatchHeader {
        let bytes = crate::tests::batch(base_offset, &[1]);
        let mut header = BatchHeader::read(&bytes).unwrap();
        header.batch_length += size_bytes - header.size_bytes() as i32;
        header.max_timestamp_ms = max_timestamp_ms;
        header
    }

    fn place(layout: &mut Layout, header: &BatchHeader, limits: Limits) -> Placement {
        let begins = layout.is_full(header, limits);
        layout.follow(header, begins)
    }

    #[test]
    fn a_segment_ends_by_size_or_by_time() {
        let limits = Limits {
            segment_bytes: 1_000,
            segment_ms: Some(50),
        };
        let mut layout = Layout::default();
        let mut at = |base_offset, size_bytes, ms| {
            let header = header(base_offset, size_bytes, ms);
            let place = place(&mut layout, &header, limits);
            (place.segment_base_offset, place.position)
        };
        assert_eq!(at(0, 600, 100), (0, 0), "the first begins one");
        assert_eq!(at(1, 400, 150), (0, 600), "to the last byte");
        assert_eq!(
            at(2, 5_000, 150),
            (2, 0),
            "one batch has room, however large"
        );
        assert_eq!(at(3, 100, 0), (3, 0));
        assert_eq!(at(4, 100, 50), (3, 100));
        assert_eq!(at(5, 100, 51), (5, 0), "more than so long after the first");
        assert_eq!(at(6, 100, -1), (5, 100));
    }

    proptest! {
        #[test]
        fn whoever_follows_comes_to_the_same_places(
            batches in prop::collection::vec((100..2_000_i32, 0..500_i64, 1..3_000_u64), 1..50),
        ) {
            let (mut decided, mut followed) = (Layout::default(), Layout::default());
            for (offset, (size_bytes, ms, segment_bytes)) in batches.into_iter().enumerate() {
                let header = header(offset as i64, size_bytes, ms);
                let limits = Limits { segment_bytes, segment_ms: Some(200) };
                let place = place(&mut decided, &header, limits);
                prop_assert_eq!(followed.follow(&header, place.begins_segment), place);
            }
            prop_assert_eq!(decided, followed);
        }
    }
}
