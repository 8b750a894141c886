//! The state of one partition: bounds, tail, segments, and what the worker still has to do for it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::{Lsn, mutation};
use parking_lot::Mutex;

use crate::files::partition_dir;
use crate::layout::Layout;
use crate::op::ReplaceSegments;
use crate::recorded::{PartitionRecord, PartitionState, SegmentRecord};
use crate::segment::{Segment, SegmentShelf};
use crate::tail::Tail;
use crate::transactions::{RecordedTransactions, Transactions};
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
    /// Where the next batch goes, after all that is applied.
    pub(crate) layout: Layout,
    /// Oldest first, without gaps. The first `retired` of them lie below the recorded start, and wait until no
    /// snapshot needs them and a checkpoint has forgotten them.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) retired: usize,
    /// Replaced by compaction: kept until no snapshot needs them and a checkpoint has forgotten them.
    pub(crate) replaced: Vec<Arc<Segment>>,
    pub(crate) parked: Parked,
    /// What is open and what was aborted, as of the end.
    pub(crate) transactions: Transactions,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Create,
    SetStart(i64),
    Replace(ReplaceSegments),
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

    /// A partition as of a checkpoint at the LSN `recorded_at`. Files are not touched.
    #[allow(clippy::too_many_arguments)] // One for each thing that is recorded.
    pub(crate) fn recorded(
        shelf: &SegmentShelf,
        topics_dir: &Path,
        id: PartitionId,
        start: i64,
        end: i64,
        records: &[SegmentRecord],
        transactions: RecordedTransactions,
        recorded_at: Lsn,
    ) -> Result<Arc<Self>, LogError> {
        let dir = partition_dir(topics_dir, id);
        let mut state = State::new(Lsn::ZERO, start, end);
        state.transactions = Transactions::recorded(transactions);
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
                .push_back(Segment::recorded(shelf, &dir, record, next, recorded_at));
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
                transactions: state.transactions.as_of(state.recorded_end),
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
            layout: Layout::default(),
            segments: VecDeque::new(),
            retired: 0,
            replaced: Vec::new(),
            parked: Parked::default(),
            transactions: Transactions::default(),
            created,
            pending: VecDeque::new(),
            recorded_start: start,
            recorded_end: end,
            listed: Listed::default(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        // What is left of a transaction whose beginning was deleted is as open as it was.
        let last_stable = match mutation::active(mutation::LAST_STABLE_IS_HIGH_WATERMARK) {
            true => self.end,
            false => self.transactions.last_stable(self.end).max(self.start),
        };
        Bounds {
            start: self.start,
            high_watermark: self.end,
            last_stable,
        }
    }

    /// Puts segments in the place of others. Some of these, or all, may be gone already, below the start; what comes in
    /// their place then goes the same way. `retired` is what those that go are marked with.
    pub(crate) fn replace(
        &mut self,
        shelf: &SegmentShelf,
        dir: &Path,
        replace: &ReplaceSegments,
        retired: (Lsn, u64),
    ) {
        let Some(first) = replace.replaced.first() else {
            return;
        };
        let at = self
            .segments
            .partition_point(|segment| segment.base_offset() < first.base_offset);
        let goes = |segment: &&Arc<Segment>| replace.replaced.contains(&segment.name());
        let count = self.segments.range(at..).take_while(goes).count();
        let mut gone: Vec<Arc<Segment>> = self.segments.drain(at..at + count).collect();
        let were_retired = self.retired.saturating_sub(at).min(count);
        self.retired -= were_retired;
        let end = gone.last().map(|segment| segment.end().offset);
        for (index, record) in replace.with.iter().enumerate() {
            let same = gone
                .iter()
                .position(|segment| segment.name() == record.name());
            let segment = match same {
                Some(same) => {
                    let segment = gone.remove(same);
                    segment.set_cleaned(record.cleaned);
                    segment
                }
                None => {
                    let next = replace.with.get(index + 1).map(|next| next.base_offset);
                    let next = next.or(end).unwrap_or(record.base_offset);
                    Segment::recorded(shelf, dir, record, next, retired.0)
                }
            };
            if end.is_some() {
                self.segments.insert(at + index, segment);
            } else {
                gone.push(segment);
            }
        }
        // Those that lay below the start still do, or are now part of one that does not.
        for segment in &gone {
            segment.retired.get_or_init(|| retired);
        }
        self.replaced.append(&mut gone);
    }

    /// The segment that takes the next batch, if there is one.
    pub(crate) fn active(&self) -> Option<&Arc<Segment>> {
        self.segments
            .range(self.retired..)
            .next_back()
            .filter(|segment| !segment.is_sealed())
    }

    /// The segment that holds `offset`, if one does; retired ones included, for snapshots. A snapshot that is older than
    /// a compaction sees what that has replaced: the newest record of a key may be one that the snapshot does not have.
    pub(crate) fn segment_of(&self, offset: i64, snapshot: Option<u64>) -> Option<&Arc<Segment>> {
        if let Some(number) = snapshot {
            let next_of = |segment: &Segment| segment.retired.get().map_or(0, |(_, next)| *next);
            let holds = |segment: &&Arc<Segment>| {
                (segment.base_offset()..segment.end().offset).contains(&offset)
                    && next_of(segment) > number
            };
            let replaced = self.replaced.iter().filter(holds);
            if let Some(segment) =
                replaced.min_by_key(|segment| (next_of(segment), segment.name().generation))
            {
                return Some(segment);
            }
        }
        let at = self
            .segments
            .partition_point(|segment| segment.base_offset() <= offset)
            .checked_sub(1)?;
        self.segments
            .get(at)
            .filter(|segment| offset < segment.end().offset)
    }
}
