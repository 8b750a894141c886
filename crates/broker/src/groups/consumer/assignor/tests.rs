#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
//! What each assignor promises, for whatever members and topics.

use proptest::prelude::*;

use super::*;

fn partition(topic: u128, index: u32) -> PartitionId {
    let topic = TopicId(topic);
    PartitionId { topic, index }
}

fn sizes(sizes: &[u32]) -> BTreeMap<TopicId, u32> {
    (0..).map(TopicId).zip(sizes.iter().copied()).collect()
}

fn reader(topics: impl IntoIterator<Item = u128>) -> Subscriber {
    Subscriber {
        topics: topics.into_iter().map(TopicId).collect(),
        ..Subscriber::default()
    }
}

/// Everything that anybody reads is somebody's, once, and of somebody who reads it.
fn check(members: &[Subscriber], topics: &BTreeMap<TopicId, u32>, assigned: &[Partitions]) {
    assert_eq!(members.len(), assigned.len());
    let mut seen = Partitions::new();
    for (member, partitions) in members.iter().zip(assigned) {
        for partition in partitions {
            assert!(member.topics.contains(&partition.topic));
            assert!(seen.insert(*partition), "{partition:?} is given twice");
        }
    }
    let is_read = |topic: &TopicId| members.iter().any(|member| member.topics.contains(topic));
    let read = topics.iter().filter(|(topic, _)| is_read(topic));
    let count: u32 = read.map(|(_, partitions)| partitions).sum();
    assert_eq!(seen.len(), count as usize);
}

/// Members with any subscriptions, who had any of the partitions, some of them at the same time.
fn any_members(alike: bool) -> impl Strategy<Value = (Vec<Subscriber>, BTreeMap<TopicId, u32>)> {
    let topics = prop::collection::vec(0..12_u32, 1..5);
    topics.prop_flat_map(move |topics| {
        let count = topics.len();
        let topics = sizes(&topics);
        let subscription =
            prop::collection::btree_set(0..count as u128, usize::from(alike)..=count);
        let before = prop::collection::btree_set((0..count as u128, 0..14_u32), 0..20);
        let member = (subscription, before);
        let members = prop::collection::vec(member, 1..8).prop_map(move |members| {
            let all = members[0].0.clone();
            let subscriber = |(read, before): (BTreeSet<u128>, BTreeSet<(u128, u32)>)| Subscriber {
                before: before
                    .into_iter()
                    .map(|(topic, index)| partition(topic, index))
                    .collect(),
                ..reader(if alike { all.clone() } else { read })
            };
            members.into_iter().map(subscriber).collect::<Vec<_>>()
        });
        (members, Just(topics))
    })
}

/// What each member may keep: what is there, read, and not another's before it.
fn kept(members: &[Subscriber], topics: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
    let mut taken = Partitions::new();
    let keeps = |member: &Subscriber| {
        let before = member.before.iter().copied();
        before
            .filter(|one| {
                member.topics.contains(&one.topic)
                    && topics.get(&one.topic).is_some_and(|size| one.index < *size)
                    && taken.insert(*one)
            })
            .collect()
    };
    members.iter().map(keeps).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn uniform_shares_evenly_and_moves_no_more_than_it_must((members, topics) in any_members(true)) {
        let assigned = Assignor::Uniform.assign(&members, &topics);
        check(&members, &topics, &assigned);
        let count = assigned.iter().map(BTreeSet::len).sum::<usize>();
        let (least, more) = (count / members.len(), count % members.len());
        for partitions in &assigned {
            prop_assert!((least..=least + usize::from(more > 0)).contains(&partitions.len()));
        }
        let kept = kept(&members, &topics);
        let stayed: usize = kept
            .iter()
            .zip(&assigned)
            .map(|(before, after)| before.intersection(after).count())
            .sum();
        // No assignment that is as even could leave more where it is.
        let mut loads: Vec<usize> = kept.iter().map(BTreeSet::len).collect();
        loads.sort_unstable_by(|one, other| other.cmp(one));
        let most = loads.iter().enumerate().map(|(place, load)| {
            (*load).min(least + usize::from(place < more))
        });
        prop_assert_eq!(stayed, most.sum::<usize>());
        // And once it is even, nothing moves.
        let again: Vec<Subscriber> = members
            .iter()
            .zip(&assigned)
            .map(|(member, before)| Subscriber { before: before.clone(), ..member.clone() })
            .collect();
        prop_assert_eq!(Assignor::Uniform.assign(&again, &topics), assigned);
    }

    #[test]
    fn uniform_is_as_even_as_subscriptions_allow((members, topics) in any_members(false)) {
        let assigned = Assignor::Uniform.assign(&members, &topics);
        check(&members, &topics, &assigned);
        for from in &assigned {
            for (to, reader) in assigned.iter().zip(&members) {
                let could_move = from.iter().any(|one| reader.topics.contains(&one.topic));
                prop_assert!(!could_move || from.len() < to.len() + 2, "{} and {}", from.len(), to.len());
            }
        }
    }

    #[test]
    fn range_gives_runs_of_neighbours((members, topics) in any_members(false)) {
        let assigned = Assignor::Range.assign(&members, &topics);
        check(&members, &topics, &assigned);
        for topic in topics.keys() {
            let mut next = 0;
            let mut readers = 0;
            let mut longest_first = u32::MAX;
            for (member, partitions) in members.iter().zip(&assigned) {
                let run: Vec<u32> = partitions
                    .iter()
                    .filter(|one| one.topic == *topic)
                    .map(|one| one.index)
                    .collect();
                let until = next + run.len() as u32;
                prop_assert_eq!(&run, &(next..until).collect::<Vec<_>>());
                next = until;
                if member.topics.contains(topic) {
                    prop_assert!(run.len() as u32 <= longest_first);
                    longest_first = run.len() as u32;
                    readers += 1;
                }
            }
            prop_assert!(readers == 0 || next == topics[topic]);
        }
    }
}

#[test]
fn range_puts_static_members_first_by_name() {
    let named = |name: &str| Subscriber {
        instance_id: Some(name.into()),
        ..reader([0])
    };
    let members = [reader([0]), named("b"), named("a")];
    let assigned = Assignor::Range.assign(&members, &sizes(&[4]));
    let expected = [vec![3], vec![2], vec![0, 1]];
    for (partitions, expected) in assigned.iter().zip(expected) {
        let indexes: Vec<u32> = partitions.iter().map(|one| one.index).collect();
        assert_eq!(indexes, expected);
    }
}

#[test]
fn a_large_group_is_shared_out_in_no_time() {
    // A thousand members, ten thousand partitions, half of which somebody has far too many of.
    let topics = sizes(&[100; 100]);
    let mut members = vec![reader(0..100); 1_000];
    members[7].before = (0..50)
        .flat_map(|topic| (0..100).map(move |index| partition(topic, index)))
        .collect();
    let assigned = Assignor::Uniform.assign(&members, &topics);
    check(&members, &topics, &assigned);
    assert!(assigned.iter().all(|partitions| partitions.len() == 10));
}

#[test]
fn nobody_and_nothing_are_no_trouble() {
    for assignor in ASSIGNORS {
        assert!(assignor.assign(&[], &sizes(&[3])).is_empty());
        let nothing = assignor.assign(&[reader([]), reader([])], &sizes(&[3]));
        assert!(nothing.iter().all(BTreeSet::is_empty));
        assert_eq!(Assignor::find(assignor.name()), Some(assignor));
    }
    assert_eq!(Assignor::find("Uniform"), None);
}
