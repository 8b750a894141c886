//! Reading: from the tail where it can, else from segments, piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use mainstem_record::{Batch, BatchHeader};

use crate::log::{Log, Shared};
use crate::partition::{Partition, State};
use crate::segment::Segment;
use crate::tail::{Stands, TailBatch};
use crate::transactions::delivered;
use crate::{AbortedTransaction, Bounds, LogError, PartitionId};

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Whole batches, one or more in each, in offset order without gaps. The first may begin before the offset asked
    /// for.
    pub batches: Vec<Bytes>,
    /// Where reading goes on.
    pub next_offset: i64,
    /// First offset that is not readable yet.
    pub high_watermark: i64,
    /// First offset that can be read.
    pub start: i64,
}

/// What a read of stable records found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stable {
    /// The read, up to the last stable offset; aborted records and markers are in it.
    pub read: Read,
    /// First offset of an open transaction, or the high watermark.
    pub last_stable: i64,
    /// Which transactions in it were aborted.
    pub aborted: Vec<AbortedTransaction>,
    /// Whether there may be markers in it.
    any: bool,
}

impl Stable {
    /// Without what is not delivered: markers, and records of aborted transactions. Where nothing is left, the next
    /// offset has passed it all the same.
    pub fn delivered(self, partition: PartitionId) -> Result<Read, LogError> {
        if !self.any {
            return Ok(self.read);
        }
        let offset = self.read.next_offset;
        let batches =
            delivered(self.read.batches, &self.aborted).map_err(|source| LogError::Batch {
                partition,
                offset,
                source,
            })?;
        Ok(Read {
            batches,
            ..self.read
        })
    }
}

/// Batches taken from the tail under one hold of the lock.
const TAIL_RUN: usize = 256;
/// What a search for a timestamp reads at once.
const SEARCH_BYTES: usize = 256 << 10;

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    /// As of which snapshot; now without one.
    pub(crate) snapshot: Option<u64>,
    /// Batches that begin below it.
    pub(crate) limit: i64,
    pub(crate) room: Room,
    /// The first batch comes though there is no room for it.
    pub(crate) at_least_one: bool,
}

/// What there is still room for.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// Bytes altogether.
    pub(crate) bytes: usize,
    /// Those of them that lie in memory.
    pub(crate) memory_bytes: usize,
}

impl Room {
    pub(crate) fn in_memory(self) -> usize {
        self.bytes.min(self.memory_bytes)
    }

    fn take(&mut self, bytes: usize, memory_bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.memory_bytes = self.memory_bytes.saturating_sub(memory_bytes);
    }
}

/// What was found in a segment.
pub(crate) struct FoundInSegment<P> {
    pub(crate) piece: P,
    pub(crate) bytes: usize,
    /// Those of them that lie in memory now.
    pub(crate) memory_bytes: usize,
    pub(crate) next_offset: i64,
}

impl<P: From<Bytes>> FoundInSegment<P> {
    /// Not even one batch fits.
    pub(crate) fn nothing(next_offset: i64) -> Self {
        Self {
            piece: Bytes::new().into(),
            bytes: 0,
            memory_bytes: 0,
            next_offset,
        }
    }
}

/// Where a read has come to.
pub(crate) struct Collected<P> {
    pub(crate) pieces: Vec<P>,
    pub(crate) next_offset: i64,
    /// It goes on in a segment, which was not to be read.
    pub(crate) left_segment: bool,
}

/// Where the next piece of a read comes from.
enum Source {
    /// Batches were taken from the tail: their bytes, the offset after them, and whether the next one does not fit.
    Tail {
        bytes: usize,
        next_offset: i64,
        full: bool,
    },
    Segment(Arc<Segment>),
    /// Neither holds the offset any more.
    Gone,
}

impl Log {
    /// Reads whole batches from the one that holds `offset` on: as many as fit into `max_bytes` and begin below `upto`
    /// (or the high watermark), but at least one if there is one. At the end of the partition there are none.
    pub fn read(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
        upto: Option<i64>,
    ) -> Result<Read, LogError> {
        let found = self.shared.find(partition)?;
        let bounds = found.state.lock().bounds();
        let result = self
            .shared
            .read_within(&found, bounds, None, offset, max_bytes, upto);
        self.explain(&found, offset, result)
    }

    /// As [`read`](Self::read), up to the last stable offset, with the transactions in it that were aborted.
    pub fn read_stable(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
        upto: Option<i64>,
    ) -> Result<Stable, LogError> {
        let found = self.shared.find(partition)?;
        let bounds = found.state.lock().bounds();
        let upto = upto.map_or(bounds.last_stable, |upto| upto.min(bounds.last_stable));
        let result = self
            .shared
            .read_within(&found, bounds, None, offset, max_bytes, Some(upto));
        let read = self.explain(&found, offset, result)?;
        let state = found.state.lock();
        // Records can go away under a reader, and what is known of them with them.
        if offset < state.start && !state.removed {
            return Err(out_of_range(partition, offset, state.bounds()));
        }
        Ok(state.stable(read, offset, bounds.last_stable))
    }

    /// The records of committed transactions and those of none, up to the last stable offset: what is delivered to readers
    /// inside the house. What is not is passed over: there may be no batches and a later next offset.
    pub fn read_committed(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
        upto: Option<i64>,
    ) -> Result<Read, LogError> {
        self.read_stable(partition, offset, max_bytes, upto)?
            .delivered(partition)
    }

    /// The first offset whose record's timestamp is at least `timestamp_ms`, with that timestamp; none if all are
    /// earlier. Timestamps need not be in order.
    pub fn offset_for_timestamp(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<(i64, i64)>, LogError> {
        let found = self.shared.find(partition)?;
        let bounds = found.state.lock().bounds();
        let result = self
            .shared
            .offset_for_timestamp(&found, bounds, None, timestamp_ms);
        self.explain(&found, bounds.start, result)
    }

    /// Records can go away under a reader: then the answer is what it would be now.
    pub(crate) fn explain<T>(
        &self,
        partition: &Partition,
        offset: i64,
        result: Result<T, LogError>,
    ) -> Result<T, LogError> {
        if result.is_err() {
            let state = partition.state.lock();
            if state.removed {
                return Err(LogError::UnknownPartition {
                    partition: partition.id,
                });
            }
            if offset < state.start {
                return Err(out_of_range(partition.id, offset, state.bounds()));
            }
        }
        result
    }
}

pub(crate) fn out_of_range(partition: PartitionId, offset: i64, bounds: Bounds) -> LogError {
    LogError::OffsetOutOfRange {
        partition,
        offset,
        start: bounds.start,
        end: bounds.high_watermark,
    }
}

impl Shared {
    pub(crate) fn read_within(
        &self,
        partition: &Partition,
        bounds: Bounds,
        snapshot: Option<u64>,
        offset: i64,
        max_bytes: usize,
        upto: Option<i64>,
    ) -> Result<Read, LogError> {
        let wanted = Wanted {
            offset,
            snapshot,
            limit: upto.map_or(bounds.high_watermark, |upto| {
                upto.min(bounds.high_watermark)
            }),
            room: Room {
                bytes: max_bytes,
                memory_bytes: max_bytes,
            },
            at_least_one: true,
        };
        let read = |segment: &Arc<Segment>, next, room: Room, at_least_one| {
            let read = segment.read(&self.shelf, next, room.bytes, wanted.limit, at_least_one)?;
            let bytes = read.bytes.len();
            Ok(Some(FoundInSegment {
                piece: read.bytes,
                bytes,
                memory_bytes: bytes,
                next_offset: read.next_offset,
            }))
        };
        let collected = self.collect(partition, bounds, &wanted, read)?;
        Ok(Read {
            batches: collected.pieces,
            next_offset: collected.next_offset,
            high_watermark: bounds.high_watermark,
            start: bounds.start,
        })
    }

    /// Collects what is wanted from tail and segments. `read` reads on in a segment from an offset; what it finds is empty
    /// if nothing fits, and none if it is not to read there.
    pub(crate) fn collect<P: From<Bytes>>(
        &self,
        partition: &Partition,
        bounds: Bounds,
        wanted: &Wanted,
        mut read: impl FnMut(
            &Arc<Segment>,
            i64,
            Room,
            bool,
        ) -> Result<Option<FoundInSegment<P>>, LogError>,
    ) -> Result<Collected<P>, LogError> {
        let Wanted {
            offset,
            mut room,
            at_least_one,
            ..
        } = *wanted;
        if offset < bounds.start || offset > bounds.high_watermark {
            return Err(out_of_range(partition.id, offset, bounds));
        }
        let limit = wanted.limit.min(bounds.high_watermark);
        let half_bytes = room.bytes / 2;
        let mut pieces = Vec::new();
        let (mut next, mut left_segment) = (offset, false);
        while next < limit && (pieces.is_empty() || room.bytes > 0) {
            let is_first = pieces.is_empty() && at_least_one;
            // Bound first, so that the lock is given back before anything is read.
            let source = {
                let state = partition.state.lock();
                let fits = room.in_memory();
                state.source(next, wanted.snapshot, limit, fits, is_first, &mut pieces)
            };
            match source {
                Source::Tail {
                    bytes,
                    next_offset,
                    full,
                } => {
                    next = next_offset;
                    room.take(bytes, bytes);
                    if full {
                        break;
                    }
                }
                Source::Segment(segment) => {
                    let found = match read(&segment, next, room, is_first) {
                        // What was found before is right. The next read begins here, and is told.
                        Err(_) if !pieces.is_empty() => break,
                        found => found?,
                    };
                    let Some(found) = found else {
                        left_segment = true;
                        break;
                    };
                    if found.bytes == 0 {
                        break;
                    }
                    room.take(found.bytes, found.memory_bytes);
                    next = found.next_offset;
                    pieces.push(found.piece);
                    // What is left is not worth another read of the disk. A slice was not read.
                    if found.memory_bytes > 0
                        && room.bytes <= half_bytes
                        && room.bytes > 0
                        && self.in_segment(partition, next)
                    {
                        break;
                    }
                }
                // The records went away while this was reading them: what was read before is still right.
                Source::Gone if !pieces.is_empty() => break,
                Source::Gone => {
                    return Err(out_of_range(
                        partition.id,
                        next,
                        partition.state.lock().bounds(),
                    ));
                }
            }
        }
        Ok(Collected {
            pieces,
            next_offset: next,
            left_segment,
        })
    }

    fn in_segment(&self, partition: &Partition, offset: i64) -> bool {
        partition
            .state
            .lock()
            .tail
            .first_offset()
            .is_none_or(|first| offset < first)
    }

    pub(crate) fn offset_for_timestamp(
        &self,
        partition: &Partition,
        bounds: Bounds,
        snapshot: Option<u64>,
        timestamp_ms: i64,
    ) -> Result<Option<(i64, i64)>, LogError> {
        let Bounds {
            start,
            high_watermark: end,
            ..
        } = bounds;
        let mut next = start;
        while next < end {
            let search = partition
                .state
                .lock()
                .search_tail(next, snapshot, timestamp_ms);
            let segment = match search {
                Search::Passed(offset) => {
                    next = offset;
                    continue;
                }
                Search::Batch(batch) => {
                    if let Some(found) =
                        search_batch(partition.id, &batch, next, end, timestamp_ms)?
                    {
                        return Ok(Some(found));
                    }
                    next = next_offset(partition.id, next, &batch)?;
                    continue;
                }
                Search::Segment(segment) => segment,
                Search::Gone => {
                    return Err(out_of_range(
                        partition.id,
                        next,
                        partition.state.lock().bounds(),
                    ));
                }
            };
            // The segment may grow meanwhile; what it has now is enough, the rest is looked at next.
            let known = segment.end();
            if known.max_timestamp_ms < timestamp_ms {
                next = known.offset;
                continue;
            }
            next = next.max(segment.seek_timestamp(&self.shelf, timestamp_ms)?);
            while next < known.offset.min(end) {
                let mut read = segment.read(&self.shelf, next, SEARCH_BYTES, known.offset, true)?;
                while !read.bytes.is_empty() {
                    let header = header(partition.id, next, &read.bytes)?;
                    let batch = read
                        .bytes
                        .split_to(header.size_bytes().min(read.bytes.len()));
                    if header.max_timestamp_ms >= timestamp_ms
                        && let Some(found) =
                            search_batch(partition.id, &batch, next, end, timestamp_ms)?
                    {
                        return Ok(Some(found));
                    }
                    next = header.next_offset();
                }
            }
        }
        Ok(None)
    }
}

/// One step of a search by timestamp.
enum Search {
    /// Nothing below this offset can be it.
    Passed(i64),
    /// This batch may hold it.
    Batch(Bytes),
    Segment(Arc<Segment>),
    Gone,
}

impl State {
    /// What of a read up to the last stable offset was aborted.
    pub(crate) fn stable(&self, read: Read, offset: i64, last_stable: i64) -> Stable {
        let aborted = match read.batches.is_empty() {
            true => Vec::new(),
            false => self.transactions.aborted(offset, read.next_offset),
        };
        Stable {
            read,
            last_stable,
            aborted,
            any: self.transactions.any(),
        }
    }

    fn source<P: From<Bytes>>(
        &self,
        next: i64,
        snapshot: Option<u64>,
        limit: i64,
        max_bytes: usize,
        at_least_one: bool,
        pieces: &mut Vec<P>,
    ) -> Source {
        if self.is_not_in_memory(next) {
            return self
                .segment_of(next, snapshot)
                .map_or(Source::Gone, |segment| Source::Segment(segment.clone()));
        }
        let (mut bytes, mut next_offset) = (0, next);
        for batch in self
            .tail
            .starting_with(next)
            .take(TAIL_RUN)
            .take_while(|batch| batch.base_offset < limit && is_in_memory(batch))
        {
            let is_due = at_least_one && bytes == 0;
            if !is_due && bytes + batch.bytes.len() > max_bytes {
                return Source::Tail {
                    bytes,
                    next_offset,
                    full: true,
                };
            }
            bytes += batch.bytes.len();
            pieces.push(batch.bytes.clone().into());
            next_offset = batch.last_offset + 1;
        }
        // A tail that was cut short under a reader, as removal does it, has nothing at `next`.
        if next_offset == next {
            Source::Gone
        } else {
            Source::Tail {
                bytes,
                next_offset,
                full: false,
            }
        }
    }

    fn is_not_in_memory(&self, offset: i64) -> bool {
        let below = self.tail.first_offset().is_none_or(|first| offset < first);
        let mut rest = self.tail.starting_with(offset);
        below || rest.next().is_some_and(|batch| !is_in_memory(batch))
    }

    fn search_tail(&self, next: i64, snapshot: Option<u64>, timestamp_ms: i64) -> Search {
        if self.is_not_in_memory(next) {
            return self
                .segment_of(next, snapshot)
                .map_or(Search::Gone, |segment| Search::Segment(segment.clone()));
        }
        let mut passed = next;
        let in_memory = self.tail.starting_with(next).take(TAIL_RUN);
        for batch in in_memory.take_while(|batch| is_in_memory(batch)) {
            if batch.max_timestamp_ms >= timestamp_ms {
                return Search::Batch(batch.bytes.clone());
            }
            passed = batch.last_offset + 1;
        }
        if passed == next {
            Search::Gone
        } else {
            Search::Passed(passed)
        }
    }
}

fn is_in_memory(batch: &TailBatch) -> bool {
    batch.stands != Stands::OnlyInSegment
}

fn header(partition: PartitionId, offset: i64, bytes: &[u8]) -> Result<BatchHeader, LogError> {
    BatchHeader::read(bytes).map_err(|source| LogError::Batch {
        partition,
        offset,
        source,
    })
}

fn next_offset(partition: PartitionId, offset: i64, batch: &[u8]) -> Result<i64, LogError> {
    Ok(header(partition, offset, batch)?.next_offset())
}

/// The first record of a batch, at or above `from` and below `end`, that is not earlier than `timestamp_ms`.
fn search_batch(
    partition: PartitionId,
    batch: &Bytes,
    from: i64,
    end: i64,
    timestamp_ms: i64,
) -> Result<Option<(i64, i64)>, LogError> {
    let bad = |source| LogError::Batch {
        partition,
        offset: from,
        source,
    };
    let payload = Batch::trusted(batch.clone())
        .and_then(|batch| batch.payload())
        .map_err(bad)?;
    for view in payload.views() {
        let view = view.map_err(bad)?;
        if view.offset >= from && view.offset < end && view.timestamp_ms >= timestamp_ms {
            return Ok(Some((view.offset, view.timestamp_ms)));
        }
    }
    Ok(None)
}
