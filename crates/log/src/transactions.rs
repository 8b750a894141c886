//! What the batches of a partition say of transactions: which are open, and which were aborted. Derived from headers and
//! markers in the order of the journal, and from nothing else.
//!
//! ```text
//!   offset   10        20        30        40        50
//!            [A      ] [B ]  [A ]   abort A   [B ]       A: aborted (first 10, marker 40); B: open since 20
//!                      ^ last stable offset
//! ```
//!
//! A checkpoint records what stands here as of an earlier offset, up to which everything is flushed. For that the
//! transactions that have ended since are kept until a flush has passed their markers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstem_record::{BatchHeader, Marker};

/// A transaction without an end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The epoch of its first batch.
    pub producer_epoch: i16,
    /// The offset of its first record.
    pub first_offset: i64,
}

/// A transaction whose records are not to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: i64,
    /// The offset of its abort marker.
    pub marker_offset: i64,
    /// The last stable offset after that marker: no later entry begins below it.
    pub last_stable: i64,
}

/// A partition's transactions as of its recorded end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedTransactions {
    /// Whether a transactional batch was ever appended.
    pub any: bool,
    /// Those that are open, by their first offsets.
    pub open: Vec<OpenTransaction>,
    /// Those that were aborted, by their markers.
    pub aborted: Vec<AbortedTransaction>,
}

/// A partition's transactions as of its end.
#[derive(Default)]
pub(crate) struct Transactions {
    any: bool,
    open: BTreeMap<i64, OpenTransaction>,
    /// The same, by first offset and producer.
    begun: BTreeSet<(i64, i64)>,
    aborted: VecDeque<AbortedTransaction>,
    /// Those that ended, with their markers' offsets, until a flush has passed them.
    ended: VecDeque<(OpenTransaction, i64)>,
}

impl Transactions {
    pub(crate) fn recorded(recorded: RecordedTransactions) -> Transactions {
        let RecordedTransactions { any, open, aborted } = recorded;
        let begun = open.iter().map(|one| (one.first_offset, one.producer_id));
        Transactions {
            any,
            begun: begun.collect(),
            open: open.into_iter().map(|one| (one.producer_id, one)).collect(),
            aborted: aborted.into(),
            ended: VecDeque::new(),
        }
    }

    /// A batch was appended.
    pub(crate) fn observe(&mut self, header: &BatchHeader, batch: &Bytes) {
        if !header.is_transactional() {
            return;
        }
        self.any = true;
        let producer_id = header.producer_id;
        if !header.is_control() {
            let begun = &mut self.begun;
            self.open.entry(producer_id).or_insert_with(|| {
                begun.insert((header.base_offset, producer_id));
                OpenTransaction {
                    producer_id,
                    producer_epoch: header.producer_epoch,
                    first_offset: header.base_offset,
                }
            });
            return;
        }
        let Some(marker) = Marker::read(batch) else {
            return;
        };
        // A marker for a partition to which nothing came ends nothing.
        let Some(ended) = self.open.remove(&producer_id) else {
            return;
        };
        self.begun.remove(&(ended.first_offset, producer_id));
        self.ended.push_back((ended, header.base_offset));
        if marker == Marker::Abort {
            self.aborted.push_back(AbortedTransaction {
                producer_id,
                first_offset: ended.first_offset,
                marker_offset: header.base_offset,
                last_stable: self.last_stable(header.next_offset()),
            });
        }
    }

    /// Whether a transactional batch was ever appended.
    pub(crate) fn any(&self) -> bool {
        self.any
    }

    /// The first offset of the oldest open transaction, or the end.
    pub(crate) fn last_stable(&self, end: i64) -> i64 {
        self.begun.first().map_or(end, |(first, _)| *first)
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = OpenTransaction> {
        self.open.values().copied()
    }

    /// Aborted transactions with records from `from` on and below `upto`, by their markers.
    pub(crate) fn aborted(&self, from: i64, upto: i64) -> Vec<AbortedTransaction> {
        let at = self.aborted.partition_point(|one| one.marker_offset < from);
        let mut found = Vec::new();
        for one in self.aborted.range(at..) {
            if one.first_offset < upto {
                found.push(*one);
            }
            if one.last_stable >= upto {
                break;
            }
        }
        found
    }

    /// As of an earlier end, at or above the last that [`flushed`](Self::flushed) was told.
    pub(crate) fn as_of(&self, end: i64) -> RecordedTransactions {
        let ended = self.ended.iter().filter(|(_, marker)| *marker >= end);
        let open = self.open.values().chain(ended.map(|(ended, _)| ended));
        let mut open: Vec<_> = open.filter(|one| one.first_offset < end).copied().collect();
        open.sort_unstable_by_key(|one| one.first_offset);
        let aborted = self.aborted.iter().filter(|one| one.marker_offset < end);
        RecordedTransactions {
            any: self.any,
            open,
            aborted: aborted.copied().collect(),
        }
    }

    /// Everything below `end` is flushed.
    pub(crate) fn flushed(&mut self, end: i64) {
        while self
            .ended
            .pop_front_if(|(_, marker)| *marker < end)
            .is_some()
        {}
    }

    /// Nothing below `start` can be read any more, by anybody.
    pub(crate) fn prune(&mut self, start: i64) {
        while self
            .aborted
            .pop_front_if(|one| one.marker_offset < start)
            .is_some()
        {}
    }
}

/// Where each producer's aborted transactions lie: from their first records to their markers.
pub(crate) struct AbortedSpans(BTreeMap<i64, Vec<(i64, i64)>>);

impl AbortedSpans {
    /// `aborted` is in the order of the markers, so that those of one producer follow one another.
    pub(crate) fn new(aborted: &[AbortedTransaction]) -> AbortedSpans {
        let mut spans: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        for one in aborted {
            let spans = spans.entry(one.producer_id).or_default();
            spans.push((one.first_offset, one.marker_offset));
        }
        AbortedSpans(spans)
    }

    /// Whether a batch belongs to one of them.
    pub(crate) fn hold(&self, header: &BatchHeader) -> bool {
        let offset = header.base_offset;
        let ends = |spans: &Vec<(i64, i64)>| {
            let at = spans.partition_point(|(_, marker)| *marker < offset);
            spans.get(at).is_some_and(|(first, _)| *first <= offset)
        };
        header.is_transactional() && self.0.get(&header.producer_id).is_some_and(ends)
    }
}

/// What of a read is delivered to who wants committed records: no markers, and nothing of these transactions.
pub(crate) fn delivered(
    batches: Vec<Bytes>,
    aborted: &[AbortedTransaction],
) -> Result<Vec<Bytes>, mainstem_record::RecordError> {
    let aborted = AbortedSpans::new(aborted);
    let is_left_out = |header: &BatchHeader| header.is_control() || aborted.hold(header);
    let mut kept = Vec::with_capacity(batches.len());
    for piece in batches {
        // Runs of batches that stay, as slices of the piece.
        let (mut from, mut at) = (0, 0);
        while at < piece.len() {
            let header = BatchHeader::read(piece.get(at..).unwrap_or_default())?;
            let next = at.saturating_add(header.size_bytes()).min(piece.len());
            if is_left_out(&header) {
                if from < at {
                    kept.push(piece.slice(from..at));
                }
                from = next;
            }
            at = next;
        }
        match from {
            0 => kept.push(piece),
            from if from < piece.len() => kept.push(piece.slice(from..)),
            _ => {}
        }
    }
    Ok(kept)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mainstem_record::{BatchBuilder, Compression, assign};
    use proptest::prelude::*;

    /// What happens to a partition: a batch of a producer in a transaction, or its end, or a batch of nobody.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Append(i64, usize),
        Marker(i64, Marker),
        Plain,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0..4_i64, 1..4_usize).prop_map(|(id, count)| Event::Append(id, count)),
            2 => (0..4_i64, any::<bool>()).prop_map(|(id, commit)| {
                Event::Marker(id, if commit { Marker::Commit } else { Marker::Abort })
            }),
            1 => Just(Event::Plain),
        ]
    }

    fn batch(event: Event, base_offset: i64) -> Bytes {
        let mut bytes = match event {
            Event::Marker(id, marker) => marker.batch(id, 0, 0).unwrap(),
            Event::Append(_, count) => {
                let mut builder = BatchBuilder::new(Compression::None, 10_000);
                if let Event::Append(id, _) = event {
                    builder.producer(id, 0, 0).transactional();
                }
                for _ in 0..count {
                    builder.append(0, None, Some(b"v"), &[]).unwrap();
                }
                builder.build().unwrap()
            }
            Event::Plain => {
                let mut builder = BatchBuilder::new(Compression::None, 10_000);
                builder.append(0, None, Some(b"p"), &[]).unwrap();
                builder.build().unwrap()
            }
        }
        .bytes()
        .to_vec();
        assign(&mut bytes, base_offset, 0);
        bytes.into()
    }

    /// Batches with the fate of each: `None` while its transaction is open.
    fn fates(events: &[Event]) -> (Vec<Bytes>, Vec<Option<bool>>) {
        let (mut batches, mut fates, mut offset) = (Vec::new(), Vec::new(), 0);
        let mut open: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            let batch = batch(*event, offset);
            offset = BatchHeader::read(&batch).unwrap().next_offset();
            batches.push(batch);
            match event {
                Event::Append(id, _) => {
                    open.entry(*id).or_default().push(index);
                    fates.push(None);
                }
                Event::Marker(id, marker) => {
                    fates.push(Some(false));
                    for index in open.remove(id).unwrap_or_default() {
                        fates[index] = Some(*marker == Marker::Commit);
                    }
                }
                Event::Plain => fates.push(Some(true)),
            }
        }
        (batches, fates)
    }

    fn observed(batches: &[Bytes]) -> Transactions {
        let mut transactions = Transactions::default();
        for batch in batches {
            transactions.observe(&BatchHeader::read(batch).unwrap(), batch);
        }
        transactions
    }

    proptest! {
        #[test]
        fn committed_records_are_delivered_and_no_others(
            events in prop::collection::vec(any_event(), 0..40),
            from in any::<prop::sample::Index>(),
            pieces in 1..5_usize,
        ) {
            let (batches, fates) = fates(&events);
            let transactions = observed(&batches);
            let end = batches.last().map_or(0, |last| BatchHeader::read(last).unwrap().next_offset());
            let last_stable = transactions.last_stable(end);
            // Up to there every fate is known, and not beyond.
            let base = |batch: &Bytes| BatchHeader::read(batch).unwrap().base_offset;
            let first_open = batches.iter().zip(&fates).find(|(_, fate)| fate.is_none());
            prop_assert_eq!(last_stable, first_open.map_or(end, |(batch, _)| base(batch)));
            let stable: Vec<_> = batches.iter().filter(|batch| base(batch) < last_stable).cloned().collect();
            if stable.is_empty() { return Ok(()); }
            let from = from.index(stable.len());
            let read = &stable[from..];
            let upto = stable.last().map_or(0, |last| BatchHeader::read(last).unwrap().next_offset());
            let aborted = transactions.aborted(base(&read[0]), upto);
            let joined: Vec<Bytes> = read.chunks(pieces).map(|run| run.concat().into()).collect();
            let kept = delivered(joined, &aborted).unwrap().concat();
            let expected: Vec<Bytes> = read.iter().zip(&fates[from..])
                .filter(|(_, fate)| **fate == Some(true)).map(|(batch, _)| batch.clone()).collect();
            prop_assert_eq!(kept, expected.concat());
        }

        #[test]
        fn what_is_recorded_as_of_an_end_is_what_was_there(
            events in prop::collection::vec(any_event(), 1..40),
            flushed in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
        ) {
            let (batches, _) = fates(&events);
            let (flushed, at) = (flushed.index(batches.len()), at.index(batches.len()));
            let (flushed, at) = (flushed.min(at), at);
            let end = |count: usize| count.checked_sub(1)
                .map_or(0, |last| BatchHeader::read(&batches[last]).unwrap().next_offset());
            let mut all = observed(&batches);
            all.flushed(end(flushed));
            let then = observed(&batches[..at]);
            let recorded = all.as_of(end(at));
            let expected = RecordedTransactions { any: recorded.any, ..then.as_of(end(at)) };
            prop_assert_eq!(&recorded, &expected);
            // Opened from there and moved on, it is the same again.
            let mut again = Transactions::recorded(recorded);
            for batch in &batches[at..] {
                again.observe(&BatchHeader::read(batch).unwrap(), batch);
            }
            let last = end(batches.len());
            prop_assert_eq!(again.as_of(last), all.as_of(last));
            prop_assert_eq!(again.last_stable(last), all.last_stable(last));
        }
    }

    #[test]
    fn what_lies_before_the_start_is_forgotten() {
        let events = [
            Event::Append(1, 1),
            Event::Marker(1, Marker::Abort),
            Event::Append(1, 1),
            Event::Marker(1, Marker::Abort),
        ];
        let mut transactions = observed(&fates(&events).0);
        assert_eq!(transactions.aborted(0, 10).len(), 2);
        transactions.prune(2);
        let left = transactions.aborted(0, 10);
        assert_eq!((left.len(), left[0].first_offset), (1, 2));
    }
}
