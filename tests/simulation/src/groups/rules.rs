//! What each frame must keep to that is about groups.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstem_broker::{CommittedOffset, keys};
use mainstem_log::PartitionId;
use mainstem_store::Family;

use super::record::Kept;
use super::{Commit, Fate, Kind, NAMES, TENANT, number_of};
use crate::history::Frame;
use crate::views::Views;

/// What a frame does to one group.
#[derive(Default)]
struct Change {
    offsets: BTreeMap<PartitionId, CommittedOffset>,
    deleted: BTreeSet<PartitionId>,
    /// The inner `None` removes the group.
    record: Option<Option<Kept>>,
}

/// Judges a frame by the views before it and by what was ever asked for.
pub fn judge(commits: &[Commit], views: &Views, lsn: u64, frame: &Frame) {
    let mut changes: BTreeMap<usize, Change> = BTreeMap::new();
    let group_of = |name: &str| NAMES.iter().position(|known| *known == name);
    for op in &frame.store_ops {
        if op.family == Family::Offsets
            && let Some(key) = keys::parse_group_offset(&op.key)
            && let Some(group) = group_of(key.group)
        {
            let change = changes.entry(group).or_default();
            match &op.value {
                Some(value) => {
                    let committed = CommittedOffset::decode(value).expect("an offset of a group");
                    change.offsets.insert(key.partition, committed);
                }
                None => drop(change.deleted.insert(key.partition)),
            }
        } else if op.family == Family::Catalog
            && let Some((_, kind, name)) = keys::parse_catalog_key(&op.key)
            && kind == keys::Kind::Group as u8
            && let Some(group) = group_of(name)
        {
            let record = op.value.as_ref().map(|value| Kept::read(value));
            changes.entry(group).or_default().record = Some(record);
        }
    }
    for (group, change) in changes {
        let judge = Judge {
            commits,
            views,
            lsn,
            group,
        };
        judge.offsets(&change.offsets);
        judge.deletions(&change);
        judge.record(&change);
    }
}

/// The record of a group as the views have it.
pub fn record(views: &Views, group: usize) -> Option<Kept> {
    let key = keys::group(TENANT, NAMES[group]);
    let value = views.store.get(&(Family::Catalog, key))?;
    Some(Kept::read(value))
}

/// What a group has committed in a partition, as the views have it.
pub fn committed(views: &Views, group: usize, partition: PartitionId) -> Option<CommittedOffset> {
    let key: Bytes = keys::group_offset(TENANT, NAMES[group], partition);
    let value = views.store.get(&(Family::Offsets, key))?;
    Some(CommittedOffset::decode(value).expect("an offset of a group"))
}

struct Judge<'a> {
    commits: &'a [Commit],
    views: &'a Views,
    lsn: u64,
    group: usize,
}

impl Judge<'_> {
    fn place(&self) -> String {
        format!("frame {}, group {}", self.lsn, NAMES[self.group])
    }

    /// A commit is one frame, as it was sent: all of its partitions, after those that were sent before it, and by
    /// somebody who is a member and knows its generation or epoch.
    fn offsets(&self, offsets: &BTreeMap<PartitionId, CommittedOffset>) {
        let Some(newest) = offsets.values().map(number_of).max() else {
            return;
        };
        let commit = &self.commits[newest - 1];
        let place = self.place();
        assert_eq!(commit.group, self.group, "{place}: {commit:?}");
        for (partition, committed) in offsets {
            let number = number_of(committed);
            let one = &self.commits[number - 1];
            let same = match commit.kind {
                Kind::Plain => number == newest,
                // Sent once more with the same transaction.
                Kind::InTransaction(_) => one.kind == commit.kind,
                Kind::Deletion { .. } => false,
            };
            let as_sent = one.offsets.get(partition).map(|(_, to)| *to) == Some(committed.offset);
            assert!(
                same && as_sent && one.fate != Fate::Refused,
                "{place}: {partition} of commit {newest} is {committed:?}; {one:?}"
            );
            let before = self::committed(self.views, self.group, *partition);
            match commit.kind {
                Kind::Plain => assert!(
                    before.as_ref().map_or(0, number_of) < number,
                    "{place}: commit {number} comes behind {before:?}, which was sent later"
                ),
                // Each record counts in one transaction: it begins where the one before has ended.
                _ => assert_eq!(
                    before.map_or(0, |before| before.offset),
                    one.offsets[partition].0,
                    "{place}: {one:?} does not begin where the group stood in {partition}"
                ),
            }
        }
        let sent: Vec<_> = commit.offsets.keys().collect();
        assert_eq!(
            offsets.keys().collect::<Vec<_>>(),
            sent,
            "{place}: a part of commit {newest}"
        );
        if commit.kind == Kind::Plain {
            let kept = self::record(self.views, self.group);
            let member = kept
                .as_ref()
                .and_then(|kept| kept.members.get(&commit.member));
            assert_eq!(
                member.map(|member| member.epoch),
                Some(commit.epoch),
                "{place}: {commit:?} by somebody who is not a member, or was one: {kept:?}"
            );
        }
    }

    fn deletions(&self, change: &Change) {
        let asked = |partition: &PartitionId| {
            self.commits.iter().any(|one| {
                one.group == self.group
                    && matches!(one.kind, Kind::Deletion { .. })
                    && one.fate != Fate::Refused
                    && one.offsets.contains_key(partition)
            })
        };
        for partition in &change.deleted {
            assert!(
                asked(partition),
                "{}: nobody has asked to delete {partition}",
                self.place()
            );
        }
    }

    /// Epochs never go back, and nobody holds what another does.
    fn record(&self, change: &Change) {
        let Some(record) = &change.record else {
            return;
        };
        let place = self.place();
        let before = self::record(self.views, self.group);
        let Some(record) = record else {
            let asked = self.commits.iter().any(|one| {
                one.group == self.group
                    && matches!(one.kind, Kind::Deletion { whole: true })
                    && one.fate != Fate::Refused
            });
            let is_empty = before.is_none_or(|before| before.members.is_empty());
            assert!(
                asked && is_empty && change.offsets.is_empty(),
                "{place}: a group is removed"
            );
            return;
        };
        let mut holders = BTreeMap::new();
        for (id, member) in &record.members {
            for partition in &member.holds {
                let other = holders.insert(*partition, id);
                assert_eq!(
                    other, None,
                    "{place}: {partition} is {id}'s, too: {record:?}"
                );
            }
        }
        let Some(before) = before else {
            return;
        };
        assert!(
            record.epoch >= before.epoch,
            "{place}: epoch {} after {}",
            record.epoch,
            before.epoch
        );
        for (id, member) in &record.members {
            let Some(was) = before.members.get(id) else {
                continue;
            };
            // Below 0 it is away for a while.
            assert!(
                member.epoch >= was.epoch || member.epoch < 0 || was.epoch < 0,
                "{place}: {id} has epoch {} after {}",
                member.epoch,
                was.epoch
            );
        }
        // Of the classic protocol a generation's assignment is made once.
        if !record.is_consumer && !before.is_consumer && record.epoch == before.epoch {
            let is_new = |(partition, id): (&PartitionId, &&String)| {
                let member = &record.members[*id];
                !before.members.iter().any(|(was, one)| {
                    let same = was == *id || (one.name.is_some() && one.name == member.name);
                    same && one.holds.contains(partition)
                })
            };
            assert!(
                before.members.is_empty() || !holders.iter().any(is_new),
                "{place}: generation {} is assigned anew: {before:?}, {record:?}",
                record.epoch
            );
        }
    }
}
