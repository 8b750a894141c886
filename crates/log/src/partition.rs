//! The state of one partition: bounds, tail, segments, and what the worker still has to do for it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::Lsn;
use parking_lot::Mutex;

use crate::files::partition_dir;
use crate::recorded::{PartitionRecord, PartitionState, SegmentRecord};
use crate::segment::{Segment, SegmentShelf};
use crate::tail::Tail;
use crate::waiter::Parked;
use crate::{Bounds, LogError, PartitionId};

/// A partition. Its lock is held for moments only: never over I/O, never over more than a bounded run of batches.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) dir: PathBuf,
    pub(crate) state: Mutex<State>,
}

pub(crate) struct State {
    /// First offset that can be read.
    pub(crate) start: i64,
    /// First offset that cannot be read yet: the high watermark, since only what is durable is applied.
    pub(crate) end: i64,
    /// Its removal has been applied.
    pub(crate) removed: bool,
    pub(crate) tail: Tail,
    /// Oldest first, without gaps. The first `retired` of them lie below the recorded start, and wait until no
    /// snapshot needs them and a checkpoint has forgotten them.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) retired: usize,
    pub(crate) parked: Parked,
    /// The frame that created it.
    pub(crate) created: Lsn,
    /// Control operations that no flush has passed yet, in LSN order.
    pub(crate) pending: VecDeque<(Lsn, Control)>,
    /// Start and end as of the last flush: what a checkpoint would record.
    pub(crate) recorded_start: i64,
    pub(crate) recorded_end: i64,
    pub(crate) listed: Listed,
}

/// What changes a partition other than an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Create,
    SetStart(i64),
    Remove,
}

/// Which work lists the partition stands in, so that it stands in each only once.
#[derive(Default)]
pub(crate) struct Listed {
    /// Has something that no flush has passed.
    pub(crate) dirty: bool,
    /// Has waiters that this group gave data to.
    pub(crate) woken: bool,
    /// Its bounds have changed since the last snapshot.
    pub(crate) touched: bool,
    /// Its tail holds batches that can be evicted.
    pub(crate) evictable: bool,
}

impl Partition {
    /// A partition created by the frame `created`.
    pub(crate) fn new(topics_dir: &Path, id: PartitionId, created: Lsn) -> Arc<Self> {
        let mut state = State::new(created, 0, 0);
        state.pending.push_back((created, Control::Create));
        Arc::new(Self {
            id,
            dir: partition_dir(topics_dir, id),
            state: Mutex::new(state),
        })
    }

    /// A partition as of a checkpoint. Files are not touched.
    pub(crate) fn recorded(
        shelf: &SegmentShelf,
        topics_dir: &Path,
        id: PartitionId,
        start: i64,
        end: i64,
        records: &[SegmentRecord],
    ) -> Result<Arc<Self>, LogError> {
        let dir = partition_dir(topics_dir, id);
        let mut state = State::new(Lsn::ZERO, start, end);
        let mut due = records.first().map_or(end, |first| first.base_offset);
        for (index, record) in records.iter().enumerate() {
            let next = records.get(index + 1).map_or(end, |next| next.base_offset);
            let in_order =
                record.base_offset == due && next > record.base_offset && record.end_position > 0;
            if !in_order || (index + 1 < records.len() && !record.sealed) {
                return Err(malformed("its segments do not follow one another"));
            }
            state
                .segments
                .push_back(Segment::recorded(shelf, &dir, record, next));
            due = next;
        }
        let first = records.first().map_or(end, |first| first.base_offset);
        if start < first || start > end || first < 0 {
            return Err(malformed("its start lies outside of its segments"));
        }
        Ok(Arc::new(Self {
            id,
            dir,
            state: Mutex::new(state),
        }))
    }

    /// What a checkpoint at the LSN of the last flush records.
    pub(crate) fn record(&self) -> PartitionRecord {
        let state = self.state.lock();
        let removed = state.removed && state.pending.is_empty();
        let state = if removed {
            PartitionState::Removed
        } else {
            PartitionState::Live {
                start: state.recorded_start,
                end: state.recorded_end,
                segments: state
                    .segments
                    .range(state.retired..)
                    .map(|segment| segment.record())
                    .collect(),
            }
        };
        PartitionRecord {
            partition: self.id,
            state,
        }
    }
}

fn malformed(why: &'static str) -> LogError {
    LogError::Malformed {
        what: "a partition's record in the checkpoint",
        position: 0,
        why,
    }
}

impl State {
    fn new(created: Lsn, start: i64, end: i64) -> Self {
        Self {
            start,
            end,
            removed: false,
            tail: Tail::default(),
            segments: VecDeque::new(),
            retired: 0,
            parked: Parked::default(),
            created,
            pending: VecDeque::new(),
            recorded_start: start,
            recorded_end: end,
            listed: Listed::default(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        // Without open transactions everything durable is stable.
        Bounds {
            start: self.start,
            high_watermark: self.end,
            last_stable: self.end,
        }
    }

    /// The segment that takes the next batch, if there is one.
    pub(crate) fn active(&self) -> Option<&Arc<Segment>> {
        self.segments
            .range(self.retired..)
            .next_back()
            .filter(|segment| !segment.is_sealed())
    }

    /// The segment that holds `offset`, if one does; retired ones included, for snapshots.
    pub(crate) fn segment_of(&self, offset: i64) -> Option<&Arc<Segment>> {
        let at = self
            .segments
            .partition_point(|segment| segment.base_offset() <= offset)
            .checked_sub(1)?;
        self.segments
            .get(at)
            .filter(|segment| offset < segment.end().offset)
    }
}
