//! Of each topic, each of its readers gets a run of neighbouring partitions; the first ones get one more where it does
//! not come out even. Static members come first, by name, so that runs stay where they are over restarts.

use std::collections::BTreeMap;

use mainstem_log::{PartitionId, TopicId};

use super::{Partitions, Subscriber};

pub(super) fn assign(members: &[Subscriber], topics: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    let name = |at: &usize| members.get(*at).and_then(|one| one.instance_id.as_ref());
    order.sort_by_key(|at| (name(at).is_none(), name(at), *at));
    let mut assigned = vec![Partitions::new(); members.len()];
    for (topic, partitions) in topics {
        let reads = |at: &&usize| {
            members
                .get(**at)
                .is_some_and(|one| one.topics.contains(topic))
        };
        let readers: Vec<usize> = order.iter().filter(reads).copied().collect();
        let Ok(count @ 1..) = u32::try_from(readers.len()) else {
            continue;
        };
        let (each, more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (place, at) in (0..count).zip(readers) {
            let until = next + each + u32::from(place < more);
            if let Some(assigned) = assigned.get_mut(at) {
                let topic = *topic;
                assigned.extend((next..until).map(|index| PartitionId { topic, index }));
            }
            next = until;
        }
    }
    assigned
}
