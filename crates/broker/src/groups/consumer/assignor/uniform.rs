//! Everybody has as much as anybody else, as far as subscriptions allow, and as little as possible moves.
//!
//! Whoever has a partition keeps it; what nobody has goes to the reader that has least; then partitions go, one by one,
//! from those who have most to a reader that has at least two fewer, until there is none. Where all read the same topics
//! nobody ends with more than one more than anybody else, and no fewer moves would do: each goes from who has too much to
//! who has too little. Members that read the same topics are one class, so that a step looks at classes, not at members.

use std::collections::{BTreeMap, BTreeSet};

use mainstem_log::{PartitionId, TopicId};

use super::{Partitions, Subscriber};

struct Sharing<'a> {
    members: &'a [Subscriber],
    assigned: Vec<Partitions>,
    /// The class of each member.
    class_of: Vec<usize>,
    /// Of each class its members, who has least first.
    classes: Vec<BTreeSet<(usize, usize)>>,
    /// The classes that read a topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
}

pub(super) fn assign(members: &[Subscriber], topics: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
    let mut sharing = Sharing::new(members);
    let mut free = all(topics);
    sharing.keep(&mut free);
    for partition in free {
        if let Some((_, to)) = sharing.least_loaded(partition.topic) {
            sharing.give(to, partition);
        }
    }
    sharing.level();
    sharing.assigned
}

fn all(topics: &BTreeMap<TopicId, u32>) -> Partitions {
    let partitions = |(topic, count): (&TopicId, &u32)| {
        let topic = *topic;
        (0..*count).map(move |index| PartitionId { topic, index })
    };
    topics.iter().flat_map(partitions).collect()
}

impl<'a> Sharing<'a> {
    fn new(members: &'a [Subscriber]) -> Sharing<'a> {
        let mut known: BTreeMap<&BTreeSet<TopicId>, usize> = BTreeMap::new();
        let mut sharing = Sharing {
            members,
            assigned: vec![Partitions::new(); members.len()],
            class_of: Vec::with_capacity(members.len()),
            classes: Vec::new(),
            readers: BTreeMap::new(),
        };
        for (at, member) in members.iter().enumerate() {
            let class = *known.entry(&member.topics).or_insert(sharing.classes.len());
            if class == sharing.classes.len() {
                sharing.classes.push(BTreeSet::new());
                for topic in &member.topics {
                    sharing.readers.entry(*topic).or_default().push(class);
                }
            }
            sharing.class_of.push(class);
            if let Some(class) = sharing.classes.get_mut(class) {
                class.insert((0, at));
            }
        }
        sharing
    }

    /// Everybody keeps what is still there and still read, and no other has kept before.
    fn keep(&mut self, free: &mut Partitions) {
        let members = self.members;
        for (at, member) in members.iter().enumerate() {
            for partition in &member.before {
                if member.topics.contains(&partition.topic) && free.remove(partition) {
                    self.give(at, *partition);
                }
            }
        }
    }

    fn load(&self, at: usize) -> usize {
        self.assigned.get(at).map_or(0, BTreeSet::len)
    }

    /// The topic's reader that has least.
    fn least_loaded(&self, topic: TopicId) -> Option<(usize, usize)> {
        let classes = self.readers.get(&topic)?.iter();
        classes
            .filter_map(|class| self.classes.get(*class)?.first().copied())
            .min()
    }

    fn give(&mut self, to: usize, partition: PartitionId) {
        self.change(to, |assigned| {
            assigned.insert(partition);
        });
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Partitions)) {
        let before = self.load(at);
        if let Some(assigned) = self.assigned.get_mut(at) {
            change(assigned);
        }
        let after = self.load(at);
        let class = self.class_of.get(at).copied();
        if let Some(class) = class.and_then(|class| self.classes.get_mut(class)) {
            class.remove(&(before, at));
            class.insert((after, at));
        }
    }

    /// Moves partitions from who has most to who has least. Each move makes the sum of the squares of what members have
    /// smaller, so it ends.
    fn level(&mut self) {
        let mut loads: BTreeSet<(usize, usize)> = self.classes.iter().flatten().copied().collect();
        let mut next = loads.last().copied();
        while let Some((load, from)) = next {
            let least = loads.first().map_or(0, |(load, _)| *load);
            let Some((partition, to)) = self.best_move(from, least) else {
                next = loads.range(..(load, from)).next_back().copied();
                continue;
            };
            let to_load = self.load(to);
            self.change(from, |assigned| {
                assigned.remove(&partition);
            });
            self.give(to, partition);
            loads.remove(&(load, from));
            loads.remove(&(to_load, to));
            loads.insert((load - 1, from));
            loads.insert((to_load + 1, to));
            // It may have made room for who has more.
            next = loads.last().copied();
        }
    }

    /// Which of a member's partitions would best go, and where: to the reader that has least, two fewer at least. Nobody has
    /// fewer than `least`.
    fn best_move(&self, from: usize, least: usize) -> Option<(PartitionId, usize)> {
        let assigned = self.assigned.get(from)?;
        let enough = assigned.len().checked_sub(2)?;
        let mut best: Option<(usize, usize, PartitionId)> = None;
        let mut rest = assigned.iter().next_back().copied();
        while let Some(last) = rest {
            if let Some((load, to)) = self.least_loaded(last.topic)
                && load <= enough
                && best.is_none_or(|(found, ..)| load < found)
            {
                best = Some((load, to, last));
                if load == least {
                    break;
                }
            }
            let first = PartitionId {
                topic: last.topic,
                index: 0,
            };
            rest = assigned.range(..first).next_back().copied();
        }
        best.map(|(_, to, partition)| (partition, to))
    }
}
