//! Who is to read which partition: the assignors that the broker knows.
//!
//! Pure: members and topics in, partitions out; the same from the same, whatever the order of anything.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use mainstem_log::{PartitionId, TopicId};

/// Partitions, in order.
pub(crate) type Partitions = BTreeSet<PartitionId>;

/// An assignor, by Kafka's name. The first is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// Every member as many partitions as any other, or one fewer, and as few of them moved as that allows.
    Uniform,
    /// Of each topic a run of neighbouring partitions: topics with the same number of partitions are read in step.
    Range,
}

/// The assignors there are.
pub(crate) const ASSIGNORS: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

/// A member, as an assignor sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriber {
    pub(crate) instance_id: Option<String>,
    /// The topics it reads; each of them is there.
    pub(crate) topics: BTreeSet<TopicId>,
    /// What it was to have before.
    pub(crate) before: Partitions,
}

impl Assignor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Assignor> {
        ASSIGNORS
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// What each member, by its place in `members`, is to have of topics with so many partitions.
    pub(crate) fn assign(
        self,
        members: &[Subscriber],
        topics: &BTreeMap<TopicId, u32>,
    ) -> Vec<Partitions> {
        match self {
            Assignor::Uniform => uniform::assign(members, topics),
            Assignor::Range => range::assign(members, topics),
        }
    }
}
