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
