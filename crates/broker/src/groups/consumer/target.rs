//! Which topics the members read, and who is to have which partition in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstem_log::TopicId;

use super::Consumer;
use super::assignor::{ASSIGNORS, Assignor, Subscriber};
use super::member::Member;
use super::pattern::Pattern;
use crate::groups::topics::{TopicSize, TopicView};

impl Consumer {
    /// The next epoch: what the target was made for has changed.
    pub(super) fn bump(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.changed = true;
    }

    /// Makes the target anew if subscriptions, topics or members have changed.
    pub(super) fn retarget(&mut self, subscription: bool, topics: &TopicView) {
        if subscription && self.epoch == self.target_epoch {
            self.bump();
        }
        if self.epoch == self.target_epoch && self.seen_version == Some(topics.version) {
            return;
        }
        self.resolve(topics);
        let read = self.read_topics(topics);
        if read != self.topics {
            self.topics = read;
            if self.epoch == self.target_epoch {
                self.bump();
            }
        }
        if self.epoch != self.target_epoch {
            self.assign();
        }
    }

    /// Finds the topics of each pattern, where topics or patterns are new. Patterns that nobody has any more are
    /// forgotten, and none is kept compiled: that would take more memory than it saves time.
    fn resolve(&mut self, topics: &TopicView) {
        if self.seen_version != Some(topics.version) {
            self.seen_version = Some(topics.version);
            self.patterns.clear();
        }
        let wanted: BTreeSet<&String> = self
            .members
            .values()
            .filter_map(|member| member.pattern.as_ref())
            .collect();
        self.patterns.retain(|text, _| wanted.contains(text));
        for text in wanted {
            if self.patterns.contains_key(text) {
                continue;
            }
            let names = match Pattern::new(text) {
                Ok(pattern) => {
                    let names = topics.names();
                    names
                        .filter(|name| pattern.matches(name))
                        .cloned()
                        .collect()
                }
                // It was checked when it came: only a record of another release can hold it.
                Err(error) => {
                    tracing::warn!(group = %self.name, %error, "a member's pattern matches nothing");
                    BTreeSet::new()
                }
            };
            self.patterns.insert(text.clone(), names);
        }
    }

    /// The topics that a member reads and that there are.
    fn topics_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a str> {
        let matching = member
            .pattern
            .as_ref()
            .and_then(|pattern| self.patterns.get(pattern))
            .into_iter()
            .flat_map(|names| names.iter().map(|name| &**name));
        member.names.iter().map(String::as_str).chain(matching)
    }

    /// All topics that are read and there.
    fn read_topics(&self, topics: &TopicView) -> BTreeMap<Arc<str>, TopicSize> {
        self.members
            .values()
            .flat_map(|member| self.topics_of(member))
            .filter_map(|name| topics.find(name))
            .map(|(name, size)| (name.clone(), size))
            .collect()
    }

    /// Makes the target for this epoch.
    fn assign(&mut self) {
        let subscriber = |(id, member): (&Arc<str>, &Member)| Subscriber {
            instance_id: member.instance_id.clone(),
            topics: self
                .topics_of(member)
                .filter_map(|name| self.topics.get(name))
                .map(|size| size.id)
                .collect(),
            before: self.target.get(id).cloned().unwrap_or_default(),
        };
        let subscribers: Vec<Subscriber> = self.members.iter().map(subscriber).collect();
        let sizes: BTreeMap<TopicId, u32> = self
            .topics
            .values()
            .map(|size| (size.id, size.partitions))
            .collect();
        let assigned = self.assignor().assign(&subscribers, &sizes);
        self.target = self.members.keys().cloned().zip(assigned).collect();
        self.target_epoch = self.epoch;
        self.changed = true;
    }

    /// The assignor that most members like best; of those liked equally, and where nobody says, the first there is.
    pub(super) fn assignor(&self) -> Assignor {
        let votes = |assignor: Assignor| {
            let members = self.members.values();
            members
                .filter(|member| member.assignor == Some(assignor))
                .count()
        };
        ASSIGNORS
            .into_iter()
            .rev()
            .max_by_key(|assignor| votes(*assignor))
            .unwrap_or(Assignor::Uniform)
    }
}
