//! What is known to have been promised, and whether it still holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use mainstem_broker::Topic;
use mainstem_engine::Snapshot;
use mainstem_log::{LogError, PartitionId, Read};
use mainstem_record::{Batch, Record};
use mainstem_runtime::keys::{StateKey, offset_key};
use mainstem_store::Family;

use super::handler::{ALERTS, DEAD_LETTERS, INPUT, NAME, OUTPUT, TABLE};
use super::node::{Live, caller};
use crate::recount::{Expected, Pair, Recount};
use crate::{Failure, Tally, ensure};

const TOPICS: [&str; 4] = [INPUT, OUTPUT, ALERTS, DEAD_LETTERS];

/// Everything that somebody outside has been told or shown.
pub(super) struct Ledger {
    /// By partition and offset of the input.
    acknowledged: BTreeMap<(u32, i64), Pair>,
    /// What readers have seen: the record at each offset, from 0 on.
    seen: BTreeMap<(&'static str, u32), Vec<Pair>>,
    /// The recount of each input partition, as far as a snapshot has shown it.
    recounts: Vec<Recount>,
    alerts_expected: BTreeSet<Pair>,
    alerts_found: BTreeSet<Pair>,
    alerts_read: BTreeMap<u32, i64>,
}

impl Ledger {
    pub(super) fn new(partitions: u32) -> Ledger {
        Ledger {
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            recounts: vec![Recount::default(); partitions as usize],
            alerts_expected: BTreeSet::new(),
            alerts_found: BTreeSet::new(),
            alerts_read: BTreeMap::new(),
        }
    }

    /// How many events the handler has passed, as the newest snapshot showed it, and how many it could not handle.
    pub(super) fn handled(&self) -> (u64, u64) {
        let sum = |part: fn(&Recount) -> i64| self.recounts.iter().map(part).sum::<i64>() as u64;
        (sum(|one| one.offset), sum(|one| one.dead_letters))
    }

    /// A producer was told that these records stand from `base` on.
    pub(super) fn acknowledge(
        &mut self,
        partition: u32,
        base: i64,
        records: Vec<Pair>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        for (offset, record) in (base..).zip(records) {
            tally.acknowledged += 1;
            let before = self.acknowledged.insert((partition, offset), record);
            ensure!(
                before.is_none(),
                "partition {partition}: offset {offset} was acknowledged for two records"
            );
        }
        Ok(())
    }

    /// Reads all there is, as every reader may: what was seen before must still be there.
    pub(super) fn read_all(&mut self, live: &Live) -> Result<(), Failure> {
        for name in TOPICS {
            let topic = topic(live, name)?;
            for index in 0..topic.partitions {
                let id = PartitionId::new(topic.id, index);
                let log = live.engine.log();
                let end = log
                    .bounds(id)
                    .map_err(|error| Failure::new(format!("{name}/{index}: {error}")))?
                    .high_watermark;
                let now = read(|from| log.read(id, from, 64 << 10, None), 0, end)
                    .map_err(|failure| Failure::new(format!("{name}/{index}: {failure}")))?;
                let now: Vec<Pair> = now.iter().map(pair).collect();
                let before = self.seen.entry((name, index)).or_default();
                ensure!(
                    now.len() >= before.len(),
                    "{name}/{index}: a reader saw {} records, now there are {}",
                    before.len(),
                    now.len()
                );
                if let Some(offset) =
                    (0..before.len()).find(|offset| now[*offset] != before[*offset])
                {
                    return Err(Failure::new(format!(
                        "{name}/{index}: offset {offset} names another record than before"
                    )));
                }
                *before = now;
            }
        }
        Ok(())
    }

    /// Each acknowledged record is there, no record twice, each producer's in order.
    pub(super) fn check_input(&self, tally: &mut Tally) -> Result<(), Failure> {
        let none = Vec::new();
        let input = |partition: u32| self.seen.get(&(INPUT, partition)).unwrap_or(&none);
        let mut lost = None;
        for ((partition, offset), record) in &self.acknowledged {
            if input(*partition).get(*offset as usize) != Some(record) {
                tally.lost += 1;
                lost = lost.or(Some((*partition, *offset)));
            }
        }
        let mut values = HashSet::new();
        let mut doubled = None;
        for partition in 0..self.recounts.len() as u32 {
            let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
            for (_, value) in input(partition) {
                if !values.insert(value) {
                    tally.doubled += 1;
                    doubled = doubled.or(Some((partition, value.clone())));
                    continue;
                }
                let mut parts = value.split(':').skip(1);
                let (producer, number) = (
                    parts.next().unwrap_or_default(),
                    parts.next().unwrap_or_default(),
                );
                let number: u64 = number
                    .parse()
                    .map_err(|_| Failure::new(format!("a value that nobody sent: {value}")))?;
                let last = newest.insert(producer, number).unwrap_or(0);
                ensure!(
                    number > last,
                    "partition {partition}: producer {producer}: {number} stands behind {last}"
                );
            }
        }
        if let Some((partition, offset)) = lost {
            return Err(Failure::new(format!(
                "partition {partition}, offset {offset}: an acknowledged record is lost"
            )));
        }
        if let Some((partition, value)) = doubled {
            return Err(Failure::new(format!(
                "partition {partition}: `{value}` is there twice"
            )));
        }
        Ok(())
    }

    /// Offsets, state and outputs at one LSN agree with the recount of the input up to those offsets.
    pub(super) fn check_snapshot(
        &mut self,
        live: &Live,
        snapshot: &Snapshot,
    ) -> Result<(), Failure> {
        ensure!(
            snapshot.log.lsn == snapshot.lsn,
            "a snapshot's log is of {:?}, not of {:?}",
            snapshot.log.lsn,
            snapshot.lsn
        );
        let input = topic(live, INPUT)?;
        let (output, dead_letters) = (topic(live, OUTPUT)?, topic(live, DEAD_LETTERS)?);
        let status = live.runtime.status(&caller(), NAME).map_err(failed)?;
        let prefixes = live
            .runtime
            .state_prefixes(&caller(), NAME)
            .map_err(failed)?;
        for (partition, prefix) in prefixes {
            let shard = u16::from_be_bytes([prefix[0], prefix[1]]);
            let key = offset_key(shard, status.id, partition, input.id.0);
            let kept = snapshot.store.get(Family::Offsets, &key).map_err(failed)?;
            let kept = kept.ok_or_else(|| {
                Failure::new(format!("partition {partition}: its offset is gone"))
            })?;
            let offset = i64::from_be_bytes(kept.as_ref().try_into().map_err(failed)?);
            let before = self.recounts[partition as usize].clone();
            ensure!(
                offset >= before.offset,
                "partition {partition}: the handler stood at {}, now at {offset}",
                before.offset
            );
            let events = read_at(
                snapshot,
                PartitionId::new(input.id, partition),
                before.offset,
                offset,
            )?;
            let events: Vec<Pair> = events.iter().map(pair).collect();
            let recount = &mut self.recounts[partition as usize];
            let expected = recount.advance(partition, &events);
            let (recount, lsn) = (recount.clone(), snapshot.lsn);
            let at = format!("partition {partition}, offset {offset}, {lsn:?}");
            check_outputs(
                snapshot, &output, partition, &before, &recount, &expected, &at,
            )?;
            check_dead_letters(
                snapshot,
                &dead_letters,
                partition,
                &before,
                &recount,
                &expected,
                &at,
            )?;
            let mut state = BTreeMap::new();
            let end = mainstem_store::prefix_end(&prefix);
            let scanned =
                snapshot
                    .store
                    .scan(Family::State, &prefix, end.as_deref(), &mut |key, value| {
                        if let (Some(key), Ok(count)) = (StateKey::decode(key), value.try_into())
                            && key.table == TABLE
                        {
                            state.insert(
                                String::from_utf8_lossy(key.key).into_owned(),
                                u64::from_be_bytes(count),
                            );
                        }
                        ControlFlow::Continue(())
                    });
            scanned.map_err(failed)?;
            ensure!(
                state == recount.counts,
                "{at}: the state is {state:?}, the recount {:?}",
                recount.counts
            );
            self.alerts_expected.extend(expected.alerts);
        }
        self.check_alerts(live, snapshot)
    }

    fn check_alerts(&mut self, live: &Live, snapshot: &Snapshot) -> Result<(), Failure> {
        let alerts = topic(live, ALERTS)?;
        for index in 0..alerts.partitions {
            let id = PartitionId::new(alerts.id, index);
            let read_before = self.alerts_read.entry(index).or_default();
            let end = snapshot.log.bounds(id).map_err(failed)?.high_watermark;
            for record in read_at(snapshot, id, *read_before, end)? {
                let alert = pair(&record);
                ensure!(
                    !self.alerts_found.contains(&alert),
                    "the alert {alert:?} is there twice"
                );
                self.alerts_found.insert(alert);
            }
            *read_before = end;
        }
        let wrong = self
            .alerts_expected
            .symmetric_difference(&self.alerts_found)
            .next();
        match wrong {
            None => Ok(()),
            Some(alert) => {
                let how = if self.alerts_found.contains(alert) {
                    "too many"
                } else {
                    "missing"
                };
                Err(Failure::new(format!(
                    "{:?}: the alert {alert:?} is {how}",
                    snapshot.lsn
                )))
            }
        }
    }

    /// The handler has passed everything there is.
    pub(super) fn is_caught_up(&self) -> bool {
        let end = |partition| self.seen.get(&(INPUT, partition)).map_or(0, Vec::len) as i64;
        (0..)
            .zip(&self.recounts)
            .all(|(partition, recount)| recount.offset == end(partition))
    }
}

fn check_outputs(
    snapshot: &Snapshot,
    topic: &Topic,
    partition: u32,
    before: &Recount,
    recount: &Recount,
    expected: &Expected,
    at: &str,
) -> Result<(), Failure> {
    let id = PartitionId::new(topic.id, partition);
    let end = snapshot.log.bounds(id).map_err(failed)?.high_watermark;
    ensure!(
        end == recount.outputs,
        "{at}: {end} outputs, the recount says {}",
        recount.outputs
    );
    let found: Vec<Pair> = read_at(snapshot, id, before.outputs, end)?
        .iter()
        .map(pair)
        .collect();
    ensure!(
        found == expected.outputs,
        "{at}: the outputs differ from the recount"
    );
    Ok(())
}

fn check_dead_letters(
    snapshot: &Snapshot,
    topic: &Topic,
    partition: u32,
    before: &Recount,
    recount: &Recount,
    expected: &Expected,
    at: &str,
) -> Result<(), Failure> {
    let id = PartitionId::new(topic.id, partition);
    let end = snapshot.log.bounds(id).map_err(failed)?.high_watermark;
    ensure!(
        end == recount.dead_letters,
        "{at}: {end} dead letters, the recount says {}",
        recount.dead_letters
    );
    let found = read_at(snapshot, id, before.dead_letters, end)?;
    for (record, (offset, event)) in found.iter().zip(&expected.dead_letters) {
        let header = |name: &str| {
            let found = record
                .headers
                .iter()
                .find(|(found, _)| found.as_ref() == name.as_bytes());
            found
                .and_then(|(_, value)| String::from_utf8(value.clone()?.to_vec()).ok())
                .unwrap_or_default()
        };
        ensure!(
            pair(record) == *event,
            "{at}: a dead letter is not the record that failed"
        );
        let place = (
            header("mainstem-topic"),
            header("mainstem-partition"),
            header("mainstem-offset"),
        );
        let right = (INPUT.to_owned(), partition.to_string(), offset.to_string());
        ensure!(
            place == right,
            "{at}: a dead letter names {place:?} instead of {right:?}"
        );
    }
    Ok(())
}

pub(super) fn topic(live: &Live, name: &str) -> Result<std::sync::Arc<Topic>, Failure> {
    live.broker
        .topic(&caller(), name)
        .map_err(|error| Failure::new(format!("topic {name}: {error}")))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}

fn pair(record: &Record) -> Pair {
    let text = |bytes: &Option<bytes::Bytes>| {
        String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
    };
    (text(&record.key), text(&record.value))
}

fn read_at(
    snapshot: &Snapshot,
    id: PartitionId,
    from: i64,
    to: i64,
) -> Result<Vec<Record>, Failure> {
    read(
        |offset| snapshot.log.read(id, offset, 64 << 10, None),
        from,
        to,
    )
}

/// The records from `from` to before `to`; their offsets must be dense.
fn read(
    fetch: impl Fn(i64) -> Result<Read, LogError>,
    from: i64,
    to: i64,
) -> Result<Vec<Record>, Failure> {
    let mut records: Vec<Record> = Vec::new();
    let mut next = from;
    while next < to {
        let read = fetch(next).map_err(failed)?;
        ensure!(
            !read.batches.is_empty(),
            "offset {next} cannot be read, though {to} is the end"
        );
        for mut piece in read.batches {
            while let Some(batch) = Batch::split_first(&mut piece).map_err(failed)? {
                for record in batch.records().map_err(failed)? {
                    let record = record.map_err(failed)?;
                    if record.offset < next || record.offset >= to {
                        continue;
                    }
                    ensure!(
                        record.offset == next,
                        "offset {} follows {}",
                        record.offset,
                        next - 1
                    );
                    next += 1;
                    records.push(record);
                }
            }
        }
    }
    Ok(records)
}
