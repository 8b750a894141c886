//! Log and store as the journal's history says they must be, built with nothing of the product but its encodings, and
//! compared with what the product shows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use mainstem_engine::EngineError;
use mainstem_log::{Bounds, Log, LogError, LogOp, LogSnapshot, PartitionId, Read, TopicId};
use mainstem_record::{Batch, BatchHeader, Marker};
use mainstem_store::{Family, StoreError, StoreOp, StoreSnapshot};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::coverage::met;
use crate::history::{Frame, History};
use crate::rules::Rules;

/// Compaction has left nothing of a key.
pub const KEY_GONE: &str = "keys that were deleted, and of which nothing is left";

/// One record, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rec {
    /// Of key and value.
    pub hash: u64,
    /// Of the key; 0 without one.
    pub key: u64,
    /// Whether it has no value.
    pub tombstone: bool,
    /// Its time, in milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its transaction is open, of this producer.
    Open(i64),
    /// It is delivered.
    Delivered,
    /// It is not: it is a marker, or its transaction was aborted.
    Hidden,
}

/// What a number can take in a record.
const LONGEST_VARINT: usize = 10;

/// A partition as of some LSN. What was ever appended to it stays known, also below its start.
#[derive(Default)]
pub struct Part {
    /// It was removed.
    pub removed: bool,
    /// First offset that can be read.
    pub start: i64,
    /// Every record, by offset.
    pub records: Vec<Rec>,
    /// What a reader of committed records is shown of each record.
    pub fates: Vec<Fate>,
    /// Open transactions, by producer: their first offsets.
    open: BTreeMap<i64, i64>,
    /// Every batch: its first offset and its bytes.
    batches: Vec<(i64, Bytes)>,
    /// Compaction has been over what lies below.
    compacted_below: i64,
}

impl Part {
    /// The offset after the last record.
    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// How much there can be at most from an offset on: what was appended, and what compaction has added to it. Beside a
    /// tombstone, times are counted from when it may go (KIP-534), and such a distance can take more bytes.
    pub fn most_bytes(&self, from: i64) -> u64 {
        let first = self.batches.partition_point(|(base, _)| *base < from);
        let batches = self.batches.get(first..).unwrap_or_default();
        let nexts = batches.iter().skip(1).map(|(base, _)| *base);
        let sized = batches.iter().zip(nexts.chain([self.end()]));
        let most = sized.map(|((base, bytes), next)| {
            let records = &self.records[*base as usize..next as usize];
            let counted_anew =
                *base < self.compacted_below && records.iter().any(|record| record.tombstone);
            let grown = if counted_anew {
                records.len() * LONGEST_VARINT
            } else {
                0
            };
            (bytes.len() + grown) as u64
        });
        most.sum()
    }

    /// The first offset of an open transaction, or the end.
    fn last_stable(&self) -> i64 {
        let first = self.open.values().copied().min();
        first.unwrap_or(self.end()).max(self.start)
    }

    /// A transaction has ended here.
    fn ended(&mut self, producer: i64, marker: Marker) {
        let fate = match marker {
            Marker::Commit => Fate::Delivered,
            Marker::Abort => Fate::Hidden,
        };
        if let Some(first) = self.open.remove(&producer) {
            let since = self.fates.iter_mut().skip(first as usize);
            since
                .filter(|one| **one == Fate::Open(producer))
                .for_each(|one| *one = fate);
        }
    }
}

/// Both views as of one LSN.
#[derive(Default)]
pub struct Views {
    lsn: u64,
    /// Every partition there ever was.
    pub partitions: BTreeMap<PartitionId, Part>,
    /// The store, without the engine's own records.
    pub store: BTreeMap<(Family, Bytes), Bytes>,
    /// Records of compacted topics that say that a key is gone are there still, where their time is later than this.
    kept_since_ms: BTreeMap<TopicId, i64>,
    /// Epoch and next sequence of each producer on each partition.
    producers: BTreeMap<(PartitionId, i64), (i16, i32)>,
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The hash of a record: of its key, a mark, and its value.
pub fn record_hash(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let seed = key.map_or(1, hash);
    seed.rotate_left(17) ^ value.map_or(3, hash)
}

/// Keys that the engine writes at times of its own choosing.
fn is_the_engines(key: &[u8]) -> bool {
    key.starts_with(&[0xff, 0xff])
}

impl Views {
    /// The LSN that these are of.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Applies the history up to `lsn`, and checks what every frame must keep to.
    pub fn apply_to(&mut self, lsn: u64, history: &History, rules: &Rules) {
        while self.lsn < lsn {
            let next = self.lsn + 1;
            let frame = history.frame(next);
            rules.before(self, next, &frame);
            self.apply(next, &frame);
            self.lsn = next;
        }
        let kept = rules.tombstones_ms.borrow();
        let since_ms = |kept_ms: &i64| rules.now_ms.get() - kept_ms;
        self.kept_since_ms = kept
            .iter()
            .map(|(topic, kept_ms)| (*topic, since_ms(kept_ms)))
            .collect();
    }

    fn apply(&mut self, lsn: u64, frame: &Frame) {
        self.ends_whole(lsn, frame);
        for op in &frame.log_ops {
            self.apply_log(lsn, op);
        }
        for StoreOp { family, key, value } in &frame.store_ops {
            match value {
                Some(value) => self.store.insert((*family, key.clone()), value.clone()),
                None => self.store.remove(&(*family, key.clone())),
            };
        }
    }

    /// The end of a transaction is one frame: a marker wherever it is open, and what its coordinator keeps. And an offset
    /// that goes with it is in no other frame.
    fn ends_whole(&self, lsn: u64, frame: &Frame) {
        let mut ended: BTreeMap<i64, (Marker, Vec<PartitionId>)> = BTreeMap::new();
        for op in &frame.log_ops {
            if let LogOp::Append {
                partition, batch, ..
            } = op
                && let Some(marker) = Marker::read(batch)
            {
                let header = BatchHeader::read(batch).expect("batches of frames are sound");
                let (known, partitions) = ended
                    .entry(header.producer_id)
                    .or_insert_with(|| (marker, Vec::new()));
                assert_eq!(*known, marker, "frame {lsn} ends a transaction both ways");
                partitions.push(*partition);
            }
        }
        let is_kept = frame.store_ops.iter().any(|op| {
            let parsed = mainstem_broker::keys::parse_catalog_key(&op.key);
            let kind = mainstem_broker::keys::Kind::Transaction as u8;
            op.family == Family::Catalog && parsed.is_some_and(|(_, found, _)| found == kind)
        });
        for (producer, (_, partitions)) in &ended {
            assert!(
                is_kept,
                "frame {lsn}: the end of {producer}'s transaction without its record"
            );
            for (id, part) in self.bounds() {
                assert!(
                    !part.open.contains_key(producer) || partitions.contains(&id),
                    "frame {lsn}: {producer}'s transaction ends on {partitions:?}, and not on {id}"
                );
            }
        }
        let of_transactor = |op: &StoreOp| {
            let key = mainstem_broker::keys::parse_group_offset(&op.key);
            op.family == Family::Offsets
                && op.value.is_some()
                && key.is_some_and(|key| {
                    key.group.starts_with("transactor-") || key.group.starts_with("exact-")
                })
        };
        let offsets = frame.store_ops.iter().any(of_transactor);
        assert!(
            !offsets || is_kept,
            "frame {lsn}: an offset without its transaction's end"
        );
    }

    fn apply_log(&mut self, lsn: u64, op: &LogOp) {
        let id = op.partition();
        if let LogOp::CreatePartition { .. } = op {
            let before = self.partitions.insert(id, Part::default());
            assert!(before.is_none(), "frame {lsn} creates partition {id} again");
            return;
        }
        let part = self.partitions.get_mut(&id);
        let part =
            part.unwrap_or_else(|| panic!("frame {lsn} is about {id}, which was never there"));
        assert!(
            !part.removed,
            "frame {lsn} is about {id}, which was removed"
        );
        match op {
            LogOp::Append { batch, .. } => {
                let batch = Batch::parse(batch.clone())
                    .unwrap_or_else(|error| panic!("frame {lsn}, {id}: {error}"));
                append(part, &batch, lsn, id);
                let header = batch.header();
                if header.is_control() {
                    let known = self.producers.entry((id, header.producer_id));
                    let known = known.or_insert((header.producer_epoch, 0));
                    assert!(
                        header.producer_epoch >= known.0,
                        "frame {lsn}, {id}: a marker of an epoch that was replaced"
                    );
                    if header.producer_epoch > known.0 {
                        *known = (header.producer_epoch, 0);
                    }
                } else if header.producer_id >= 0 {
                    let producer = (header.producer_epoch, header.base_sequence);
                    let next = header.base_sequence + header.record_count;
                    let state = (header.producer_epoch, next);
                    let before = self.producers.insert((id, header.producer_id), state);
                    follows(before, producer, lsn, id, header.producer_id);
                }
            }
            LogOp::RemovePartition { .. } => part.removed = true,
            LogOp::SetStart { offset, .. } => {
                assert!(
                    *offset <= part.end(),
                    "frame {lsn}: a start beyond the end of {id}"
                );
                part.start = part.start.max(*offset);
            }
            // Which offsets the replaced files hold only the log knows: none beyond what was appended by now.
            LogOp::ReplaceSegments(_) => part.compacted_below = part.end(),
            LogOp::CreatePartition { .. } | LogOp::AppendReference(_) => {
                panic!("frame {lsn} holds {op:?}")
            }
        }
    }

    /// The bounds that can be read, by partition.
    fn bounds(&self) -> impl Iterator<Item = (PartitionId, &Part)> {
        let live = self.partitions.iter().filter(|(_, part)| !part.removed);
        live.map(|(id, part)| (*id, part))
    }

    /// Compares the log of now, which must stand where these views do.
    /// Fails only where the disk does.
    pub fn compare_log(&self, log: &Log, max_bytes: usize) -> Result<(), LogError> {
        let listed: Vec<PartitionId> = self.bounds().map(|(id, _)| id).collect();
        assert_eq!(
            log.partitions(),
            listed,
            "the partitions at LSN {}",
            self.lsn
        );
        for (id, part) in self.bounds() {
            self.compare_part(id, part, log.bounds(id), max_bytes, |offset, max_bytes| {
                log.read(id, offset, max_bytes, None)
            })?;
            part.compare_committed(id, |offset| log.read_committed(id, offset, 2_000, None))?;
        }
        Ok(())
    }

    /// Looks up a time in every partition that was never compacted: a random record's, or just beside it.
    pub fn compare_times(&self, log: &Log, rng: &mut SmallRng) -> Result<(), LogError> {
        for (id, part) in self.bounds() {
            let Some(records) = part.records.get(part.start as usize..) else {
                continue;
            };
            if records.is_empty() || part.compacted_below > 0 {
                continue;
            }
            let near = records[rng.random_range(0..records.len())].timestamp_ms;
            let wanted_ms = near + rng.random_range(-1..2);
            let at = records
                .iter()
                .position(|record| record.timestamp_ms >= wanted_ms);
            let expected = at.map(|at| (part.start + at as i64, records[at].timestamp_ms));
            let found = log.offset_for_timestamp(id, wanted_ms)?;
            assert_eq!(
                found, expected,
                "{id}: the first record at or after {wanted_ms}"
            );
        }
        Ok(())
    }

    /// Compares a snapshot of this LSN. Fails only where the disk does.
    pub fn compare_snapshot(
        &self,
        log: &LogSnapshot,
        store: &dyn StoreSnapshot,
        max_bytes: usize,
    ) -> Result<(), EngineError> {
        assert_eq!(log.lsn.0, self.lsn);
        let listed: Vec<PartitionId> = self.bounds().map(|(id, _)| id).collect();
        let found: Vec<PartitionId> = log.partitions.keys().copied().collect();
        assert_eq!(
            found, listed,
            "the partitions of a snapshot at LSN {}",
            self.lsn
        );
        for (id, part) in self.bounds() {
            self.compare_part(id, part, log.bounds(id), max_bytes, |offset, max_bytes| {
                log.read(id, offset, max_bytes, None)
            })?;
            part.compare_committed(id, |offset| log.read_committed(id, offset, 2_000, None))?;
        }
        Ok(self.compare_store(store)?)
    }

    fn compare_part(
        &self,
        id: PartitionId,
        part: &Part,
        bounds: Result<Bounds, LogError>,
        max_bytes: usize,
        read: impl Fn(i64, usize) -> Result<Read, LogError>,
    ) -> Result<(), LogError> {
        let lsn = self.lsn;
        let bounds = bounds.unwrap_or_else(|error| panic!("{id} at LSN {lsn}: {error}"));
        let wanted = Bounds {
            start: part.start,
            high_watermark: part.end(),
            last_stable: part.last_stable(),
        };
        assert_eq!(bounds, wanted, "{id} at LSN {lsn}");
        let mut next = part.start;
        let mut kept = BTreeMap::new();
        while next < part.end() {
            let found = match read(next, max_bytes) {
                Err(error @ (LogError::Io { .. } | LogError::Damaged { .. })) => return Err(error),
                found => {
                    found.unwrap_or_else(|error| panic!("{id} from {next} at LSN {lsn}: {error}"))
                }
            };
            assert!(
                !found.batches.is_empty(),
                "{id}: nothing is read from {next} at LSN {lsn}"
            );
            for mut bytes in found.batches {
                while let Some(batch) = Batch::split_first(&mut bytes)
                    .unwrap_or_else(|error| panic!("{id} at {next}: {error}"))
                {
                    let covers = batch.base_offset() <= next && next <= batch.last_offset();
                    assert!(
                        covers && (batch.base_offset() == next || next == part.start),
                        "{id}: a batch of offsets {} to {} is read at {next}",
                        batch.base_offset(),
                        batch.last_offset()
                    );
                    part.compare_batch(id, &batch, &mut kept);
                    next = batch.next_offset();
                }
            }
        }
        assert_eq!(next, part.end(), "{id} ends where its high watermark is");
        if part.compacted_below > 0 {
            part.compare_compacted(id, &kept, self.kept_since_ms[&id.topic]);
        }
        Ok(())
    }

    /// Compares the whole store. Fails only where it cannot be read.
    pub fn compare_store(&self, store: &dyn StoreSnapshot) -> Result<(), StoreError> {
        let mut wanted = self.store.iter().peekable();
        for family in Family::ALL {
            store.scan(family, &[], None, &mut |key, value| {
                if !is_the_engines(key) {
                    let next = wanted.next();
                    let same = next.is_some_and(|((in_family, at), holds)| {
                        *in_family == family && **at == *key && **holds == *value
                    });
                    assert!(
                        same,
                        "the store at LSN {} holds {family} {key:02x?} = {value:02x?}, where the journal says {next:02x?}",
                        self.lsn
                    );
                }
                ControlFlow::Continue(())
            })?;
        }
        let missing = wanted.next();
        assert!(
            missing.is_none(),
            "the store at LSN {} lacks {missing:02x?}",
            self.lsn
        );
        Ok(())
    }
}

impl Part {
    /// A reader of committed records sees those of committed transactions, and of none, up to the last stable offset.
    fn compare_committed(
        &self,
        id: PartitionId,
        read: impl Fn(i64) -> Result<Read, LogError>,
    ) -> Result<(), LogError> {
        if self.compacted_below > 0 {
            return Ok(());
        }
        let (mut next, mut seen) = (self.start, Vec::new());
        loop {
            let found = match read(next) {
                Err(error @ (LogError::Io { .. } | LogError::Damaged { .. })) => return Err(error),
                found => found.unwrap_or_else(|error| panic!("{id} from {next}: {error}")),
            };
            for mut bytes in found.batches {
                while let Some(batch) = Batch::split_first_trusted(&mut bytes).expect("it was read")
                {
                    seen.extend(batch.base_offset().max(self.start)..batch.next_offset());
                }
            }
            if found.next_offset == next {
                break;
            }
            next = found.next_offset;
        }
        let last_stable = self.last_stable();
        assert_eq!(next, last_stable, "{id}: where committed records end");
        let expected: Vec<i64> = (self.start..last_stable)
            .filter(|offset| self.fates[*offset as usize] == Fate::Delivered)
            .collect();
        assert_eq!(seen, expected, "{id}: what is committed");
        Ok(())
    }

    /// A batch that is read: as it was appended, or with fewer records where compaction has been.
    fn compare_batch(&self, id: PartitionId, batch: &Batch, kept: &mut BTreeMap<u64, i64>) {
        let base = batch.base_offset();
        let at = self.batches.partition_point(|(known, _)| *known < base);
        let same = self
            .batches
            .get(at)
            .is_some_and(|(_, bytes)| bytes == batch.bytes());
        if !same {
            assert!(
                base < self.compacted_below,
                "{id}: the batch at {base} is not the one that was appended"
            );
        }
        if self.compacted_below == 0 {
            return;
        }
        let payload = batch
            .payload()
            .unwrap_or_else(|error| panic!("{id} at {base}: {error}"));
        for view in payload.views() {
            let view = view.unwrap_or_else(|error| panic!("{id} at {base}: {error}"));
            let found = Rec {
                hash: record_hash(view.key, view.value),
                key: view.key.map_or(0, hash),
                tombstone: view.value.is_none(),
                timestamp_ms: view.timestamp_ms,
            };
            assert_eq!(
                self.records.get(view.offset as usize),
                Some(&found),
                "{id}: offset {} names another record",
                view.offset
            );
            kept.insert(found.key, view.offset);
        }
    }

    /// The newest record of every key is there, or it has long said that the key is gone, and nothing of the key is there.
    fn compare_compacted(&self, id: PartitionId, kept: &BTreeMap<u64, i64>, since_ms: i64) {
        let mut newest = BTreeMap::new();
        for (offset, record) in self.records.iter().enumerate().skip(self.start as usize) {
            newest.insert(record.key, (offset as i64, record));
        }
        for (key, (offset, record)) in newest {
            let found = kept.get(&key).copied();
            let may_be_gone = record.tombstone && record.timestamp_ms <= since_ms;
            assert!(
                found == Some(offset) || (may_be_gone && found.is_none()),
                "{id}: the newest record of a key, {record:?} at {offset}, is gone; {found:?} is left"
            );
            if found.is_none() {
                met(KEY_GONE);
            }
        }
    }
}

fn append(part: &mut Part, batch: &Batch, lsn: u64, id: PartitionId) {
    let base = batch.base_offset();
    assert_eq!(base, part.end(), "frame {lsn} appends to {id} at {base}");
    let payload = batch
        .payload()
        .unwrap_or_else(|error| panic!("frame {lsn}, {id}: {error}"));
    let header = batch.header();
    let producer = header.producer_id;
    let fate = match (header.is_control(), header.is_transactional()) {
        (true, _) => Fate::Hidden,
        (false, true) => Fate::Open(producer),
        (false, false) => Fate::Delivered,
    };
    if let Fate::Open(_) = fate {
        part.open.entry(producer).or_insert(base);
    }
    for view in payload.views() {
        let view = view.unwrap_or_else(|error| panic!("frame {lsn}, {id}: {error}"));
        assert_eq!(
            view.offset,
            part.end(),
            "frame {lsn} gives offsets of {id} densely"
        );
        part.fates.push(fate);
        part.records.push(Rec {
            hash: record_hash(view.key, view.value),
            key: view.key.map_or(0, hash),
            tombstone: view.value.is_none(),
            timestamp_ms: view.timestamp_ms,
        });
    }
    if let Some(marker) = Marker::read(batch.bytes()) {
        part.ended(producer, marker);
    }
    part.batches.push((base, batch.bytes().clone()));
}

/// Each batch of an idempotent producer once and in order, and none of an epoch that has been replaced.
fn follows(
    before: Option<(i16, i32)>,
    (epoch, sequence): (i16, i32),
    lsn: u64,
    id: PartitionId,
    producer: i64,
) {
    let right = match before {
        Some((known, next)) if known == epoch => sequence == next,
        Some((known, _)) => epoch > known && sequence == 0,
        None => sequence == 0,
    };
    assert!(
        right,
        "frame {lsn}, {id}: producer {producer} stands at {before:?} (epoch, next sequence), and appends epoch {epoch}, \
         sequence {sequence}"
    );
}
