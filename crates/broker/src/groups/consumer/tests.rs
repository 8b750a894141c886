#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
//! Each rule of the consumer protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_log::{PartitionId, TopicId};

use super::assignor::Partitions;
use super::types::{ConsumerBeat, ConsumerHeartbeat, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH};
use super::{Consumer, Moment, Timing};
use crate::BrokerError;
use crate::groups::effects::{Effect, Storing, WaitId};
use crate::groups::record::Record;
use crate::groups::settings::GroupSettings;
use crate::groups::topics::{TopicSize, TopicView};
use crate::groups::types::{GroupCommit, GroupMember, GroupState};

const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 60_000;
const TIMING: Timing = Timing {
    session_timeout_ms: SESSION_MS,
    heartbeat_interval_ms: 1_000,
};

type Answer = Result<ConsumerBeat, BrokerError>;

/// A group, its time and its topics, and whoever waits.
struct Bench {
    group: Consumer,
    topics: TopicView,
    now_ms: i64,
    next: WaitId,
    answers: BTreeMap<WaitId, Answer>,
    /// Records on their way.
    stores: Vec<Record>,
}

fn topic(id: u128) -> TopicId {
    TopicId(id)
}

fn partitions(id: u128, indexes: &[u32]) -> Vec<PartitionId> {
    let topic = topic(id);
    let partition = |index: &u32| PartitionId {
        topic,
        index: *index,
    };
    indexes.iter().map(partition).collect()
}

/// A member that joins, and reads topic `a`.
fn joins(id: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: "g".into(),
        member_id: id.into(),
        member_epoch: JOIN_EPOCH,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: Some(REBALANCE_MS),
        topics: Some(vec!["a".into()]),
        owned: Some(Vec::new()),
        ..ConsumerHeartbeat::default()
    }
}

/// A heartbeat that says nothing but that the member is there.
fn beats(id: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: "g".into(),
        member_id: id.into(),
        member_epoch: epoch,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        ..ConsumerHeartbeat::default()
    }
}

fn has(id: &str, epoch: i32, owned: Vec<PartitionId>) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        owned: Some(owned),
        ..beats(id, epoch)
    }
}

fn fixed(id: &str, instance_id: &str, epoch: i32) -> ConsumerHeartbeat {
    let request = match epoch {
        JOIN_EPOCH => joins(id),
        _ => beats(id, epoch),
    };
    ConsumerHeartbeat {
        instance_id: Some(instance_id.into()),
        ..request
    }
}

fn code(answer: Answer) -> &'static str {
    answer.expect_err("refused").code()
}

impl Bench {
    /// With topic `a` of 4 partitions.
    fn new() -> Bench {
        Bench::with(GroupSettings::default())
    }

    fn with(settings: GroupSettings) -> Bench {
        let mut bench = Bench {
            group: Consumer::new("g".into(), settings, 0, 0),
            topics: TopicView::default(),
            now_ms: 0,
            next: 0,
            answers: BTreeMap::new(),
            stores: Vec::new(),
        };
        bench.topics_are(&[("a", 1, 4)]);
        bench
    }

    fn topics_are(&mut self, topics: &[(&str, u128, u32)]) {
        let size = |(name, id, partitions): &(&str, u128, u32)| {
            let size = TopicSize {
                id: topic(*id),
                partitions: *partitions,
            };
            (Arc::from(*name), size)
        };
        let version = self.topics.version + 1;
        self.topics = TopicView::new(version, topics.iter().map(size));
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Beat(wait, answer) => {
                    assert!(self.answers.insert(wait, answer).is_none());
                }
                Effect::Store(record, Storing::Group) => self.stores.push(record),
                other => panic!("{other:?} is of the classic protocol"),
            }
        }
        self.check();
    }

    /// A heartbeat, as far as it is answered before anything is durable.
    fn send(&mut self, request: &ConsumerHeartbeat) -> WaitId {
        self.next += 1;
        let moment = Moment {
            now_ms: self.now_ms,
            topics: &self.topics,
            timing: TIMING,
            random: u128::from(self.next),
        };
        let mut effects = Vec::new();
        self.group
            .heartbeat(request, &moment, self.next, &mut effects);
        self.perform(effects);
        self.next
    }

    /// The record on its way is durable, or not.
    fn stored(&mut self, outcome: Result<(), BrokerError>) {
        self.stores.pop().expect("a record");
        let mut effects = Vec::new();
        self.group.stored(outcome, &mut effects);
        self.perform(effects);
    }

    /// A heartbeat, answered.
    fn beat(&mut self, request: &ConsumerHeartbeat) -> Answer {
        let wait = self.send(request);
        while !self.stores.is_empty() {
            self.stored(Ok(()));
        }
        self.answers.remove(&wait).expect("an answer")
    }

    /// A heartbeat that is answered with this epoch and assignment.
    #[track_caller]
    fn gets(
        &mut self,
        request: &ConsumerHeartbeat,
        epoch: i32,
        assignment: Option<Vec<PartitionId>>,
    ) {
        let answer = self.beat(request).unwrap();
        assert_eq!(
            (answer.member_epoch, answer.assignment),
            (epoch, assignment)
        );
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let mut effects = Vec::new();
        self.group.tick(self.now_ms, &mut effects);
        self.perform(effects);
        while !self.stores.is_empty() {
            self.stored(Ok(()));
        }
    }

    fn restart(&mut self) {
        let record = self.group.record().encode();
        let Record::Consumer(record) = Record::decode("g", &record).unwrap() else {
            panic!("it is of the consumer protocol");
        };
        let settings = GroupSettings::default();
        self.group = Consumer::restore("g".into(), settings, *record);
        self.group.resume(self.now_ms, TIMING);
        self.check();
    }

    /// Nobody may have what another may have, and the index says so.
    fn check(&self) {
        let mut held = BTreeMap::new();
        for (id, member) in &self.group.members {
            for partition in member.assigned.union(&member.revoking) {
                let before = held.insert(*partition, id.clone());
                assert_eq!(before, None, "{partition:?} is held twice");
            }
        }
        assert_eq!(held, self.group.holders);
    }

    fn state(&self) -> GroupState {
        self.group.state()
    }

    /// `m` with all four partitions, at epoch 1.
    fn with_one_member() -> Bench {
        let mut bench = Bench::new();
        bench.gets(&joins("m"), 1, Some(partitions(1, &[0, 1, 2, 3])));
        let owned = partitions(1, &[0, 1, 2, 3]);
        bench.gets(&has("m", 1, owned), 1, None);
        assert_eq!(bench.state(), GroupState::Stable);
        bench
    }

    /// `m` and `n` with two partitions each, at epoch 2.
    fn with_two_members() -> Bench {
        let mut bench = Bench::with_one_member();
        bench.gets(&joins("n"), 2, Some(vec![]));
        bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
        bench.gets(&has("m", 1, partitions(1, &[0, 1])), 2, None);
        bench.gets(&beats("n", 2), 2, Some(partitions(1, &[2, 3])));
        assert_eq!(bench.state(), GroupState::Stable);
        bench
    }
}

#[test]
fn a_partition_moves_when_its_owner_has_said_that_it_gave_it_up() {
    let mut bench = Bench::with_one_member();
    bench.gets(&joins("n"), 2, Some(vec![]));
    assert_eq!(bench.state(), GroupState::Reconciling);
    // The first is to give up two; until it says that it has, it keeps its epoch, and the other gets nothing.
    bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
    bench.gets(&beats("n", 2), 2, None);
    // It is told again and again.
    let kept = Some(partitions(1, &[0, 1]));
    bench.gets(&beats("m", 1), 1, kept.clone());
    bench.gets(&has("m", 1, partitions(1, &[0, 1, 2])), 1, kept);
    bench.gets(&beats("n", 2), 2, None);
    // Now it has.
    bench.gets(&has("m", 1, partitions(1, &[0, 1])), 2, None);
    bench.gets(&beats("n", 2), 2, Some(partitions(1, &[2, 3])));
    bench.gets(&beats("n", 2), 2, None);
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn who_does_not_give_up_in_time_is_removed() {
    let mut bench = Bench::with_one_member();
    bench.gets(&joins("n"), 2, Some(vec![]));
    for _ in 0..REBALANCE_MS / 5_000 {
        // It is there all the time, and so is the other.
        let _ = bench.beat(&beats("m", 1)).unwrap();
        bench.gets(&beats("n", 2), 2, None);
        bench.pass(5_000);
    }
    assert_eq!(code(bench.beat(&beats("m", 1))), "unknown_member");
    bench.gets(&beats("n", 2), 3, Some(partitions(1, &[0, 1, 2, 3])));
}

#[test]
fn who_is_silent_is_removed_and_who_is_heard_is_not() {
    let mut bench = Bench::with_two_members();
    bench.pass(SESSION_MS - 1);
    bench.gets(&beats("n", 2), 2, None);
    assert_eq!(bench.group.deadline_ms(), Some(SESSION_MS));
    bench.pass(1);
    assert_eq!(bench.state(), GroupState::Assigning);
    bench.gets(&beats("n", 2), 3, Some(partitions(1, &[0, 1, 2, 3])));
    assert_eq!(code(bench.beat(&beats("m", 2))), "unknown_member");
    bench.pass(SESSION_MS);
    assert_eq!(bench.state(), GroupState::Empty);
    assert!(bench.group.is_vacant());
    assert_eq!(bench.group.since_ms(), bench.now_ms);
}

#[test]
fn who_leaves_frees_its_partitions_at_once() {
    let mut bench = Bench::with_two_members();
    bench.gets(&beats("m", LEAVE_EPOCH), LEAVE_EPOCH, None);
    bench.gets(&beats("n", 2), 3, Some(partitions(1, &[0, 1, 2, 3])));
    assert_eq!(code(bench.beat(&beats("m", LEAVE_EPOCH))), "unknown_member");
    // Epochs go on when all have left.
    bench.gets(&beats("n", LEAVE_EPOCH), LEAVE_EPOCH, None);
    bench.gets(&joins("o"), 5, Some(partitions(1, &[0, 1, 2, 3])));
}

#[test]
fn a_static_member_leaves_for_a_while_and_gets_back_what_it_had() {
    let mut bench = Bench::with_one_member();
    bench.gets(&fixed("s1", "s", JOIN_EPOCH), 2, Some(vec![]));
    bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
    bench.gets(&has("m", 1, partitions(1, &[0, 1])), 2, None);
    bench.gets(&fixed("s1", "s", 2), 2, Some(partitions(1, &[2, 3])));
    // While it is there, nobody else can be it.
    let other = fixed("s2", "s", JOIN_EPOCH);
    assert_eq!(code(bench.beat(&other)), "unreleased_instance");
    assert_eq!(code(bench.beat(&fixed("s2", "s", 2))), "fenced_instance");
    assert_eq!(code(bench.beat(&fixed("m", "t", 2))), "unknown_member");
    let leaves = fixed("s1", "s", STATIC_LEAVE_EPOCH);
    bench.gets(&leaves, STATIC_LEAVE_EPOCH, None);
    assert_eq!(code(bench.beat(&fixed("s1", "s", 2))), "fenced_epoch");
    // What it had is kept for it, and nobody is disturbed.
    bench.gets(&beats("m", 2), 2, None);
    bench.gets(&other, 2, Some(partitions(1, &[2, 3])));
    bench.gets(&beats("m", 2), 2, None);
    assert_eq!(bench.state(), GroupState::Stable);
    assert_eq!(code(bench.beat(&fixed("s1", "s", 2))), "fenced_instance");
    // Under its own id it comes back as well.
    bench.gets(
        &fixed("s2", "s", STATIC_LEAVE_EPOCH),
        STATIC_LEAVE_EPOCH,
        None,
    );
    bench.gets(&other, 2, Some(partitions(1, &[2, 3])));
    // Not for ever.
    bench.gets(
        &fixed("s2", "s", STATIC_LEAVE_EPOCH),
        STATIC_LEAVE_EPOCH,
        None,
    );
    bench.pass(SESSION_MS - 1);
    bench.gets(&beats("m", 2), 2, None);
    bench.pass(1);
    bench.gets(&beats("m", 2), 3, Some(partitions(1, &[0, 1, 2, 3])));
}

#[test]
fn an_administrator_removes_a_static_member_by_its_name() {
    let mut bench = Bench::new();
    bench.gets(
        &fixed("s1", "s", JOIN_EPOCH),
        1,
        Some(partitions(1, &[0, 1, 2, 3])),
    );
    let mut effects = Vec::new();
    let removed = bench.group.remove_static("s", 0, &mut effects);
    assert_eq!((removed.is_ok(), effects.len()), (true, 1));
    assert_eq!(bench.state(), GroupState::Empty);
    assert!(bench.group.remove_static("s", 0, &mut effects).is_err());
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut bench = Bench::with_one_member();
    bench.gets(&joins("n"), 2, Some(vec![]));
    // The answer to the join is lost.
    bench.gets(&joins("n"), 2, Some(vec![]));
    bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
    bench.gets(&has("m", 1, partitions(1, &[0, 1])), 2, None);
    // That one was lost: it says all it knows again, and hears all again.
    let again = ConsumerHeartbeat {
        member_epoch: 1,
        owned: Some(partitions(1, &[0, 1])),
        ..joins("m")
    };
    bench.gets(&again, 2, Some(partitions(1, &[0, 1])));
    // Whoever has more than its own cannot have missed just an answer, nor who is ahead.
    let more = has("m", 1, partitions(1, &[0, 1, 2]));
    assert_eq!(code(bench.beat(&more)), "fenced_epoch");
    assert_eq!(code(bench.beat(&beats("m", 1))), "fenced_epoch");
    assert_eq!(code(bench.beat(&beats("m", 3))), "fenced_epoch");
    assert_eq!(code(bench.beat(&joins("m"))), "fenced_epoch");
    bench.gets(&beats("m", 2), 2, None);
}

#[test]
fn topics_that_come_grow_and_go_are_seen_by_the_next_heartbeat() {
    let mut bench = Bench::with_one_member();
    let all = partitions(1, &[0, 1, 2, 3]);
    bench.topics_are(&[("a", 1, 4), ("b", 2, 1)]);
    bench.gets(&beats("m", 1), 1, None);
    bench.topics_are(&[("a", 1, 5), ("b", 2, 1)]);
    bench.gets(&beats("m", 1), 2, Some(partitions(1, &[0, 1, 2, 3, 4])));
    // One that is created again under its name is another.
    bench.topics_are(&[("a", 3, 1)]);
    bench.gets(&beats("m", 2), 2, Some(vec![]));
    bench.gets(&has("m", 2, vec![]), 3, Some(partitions(3, &[0])));
    bench.topics_are(&[]);
    bench.gets(&has("m", 3, partitions(3, &[0])), 3, Some(vec![]));
    bench.topics_are(&[("a", 1, 4)]);
    bench.gets(&has("m", 3, vec![]), 5, Some(all));
}

#[test]
fn patterns_are_resolved_by_the_broker() {
    let mut bench = Bench::new();
    bench.topics_are(&[("a1", 1, 1), ("b", 2, 1)]);
    let by_pattern = |pattern: &str| ConsumerHeartbeat {
        topics: None,
        pattern: Some(pattern.into()),
        ..joins("m")
    };
    assert_eq!(code(bench.beat(&by_pattern("a["))), "invalid_pattern");
    assert!(bench.group.is_vacant());
    bench.gets(&by_pattern("a."), 1, Some(partitions(1, &[0])));
    assert!(bench.group.reads("a1") && !bench.group.reads("b"));
    bench.topics_are(&[("a1", 1, 1), ("a2", 3, 1), ("a22", 4, 1), ("b", 2, 1)]);
    let both = [partitions(1, &[0]), partitions(3, &[0])].concat();
    bench.gets(&beats("m", 1), 2, Some(both.clone()));
    // Names and a pattern are read together; an empty pattern is none.
    let also = ConsumerHeartbeat {
        topics: Some(vec!["b".into()]),
        ..beats("m", 2)
    };
    let three = [
        partitions(1, &[0]),
        partitions(2, &[0]),
        partitions(3, &[0]),
    ]
    .concat();
    bench.gets(&also, 3, Some(three));
    let invalid = ConsumerHeartbeat {
        pattern: Some("(".into()),
        ..beats("m", 3)
    };
    assert_eq!(code(bench.beat(&invalid)), "invalid_pattern");
    let without = ConsumerHeartbeat {
        pattern: Some(String::new()),
        ..has("m", 3, both)
    };
    bench.gets(&without, 3, Some(partitions(2, &[0])));
    bench.gets(&has("m", 3, partitions(2, &[0])), 4, None);
}

#[test]
fn another_subscription_takes_away_and_gives() {
    let mut bench = Bench::with_two_members();
    bench.topics_are(&[("a", 1, 4), ("b", 2, 2)]);
    let other = ConsumerHeartbeat {
        topics: Some(vec!["b".into()]),
        ..beats("n", 2)
    };
    bench.gets(&other, 2, Some(vec![]));
    bench.gets(&beats("m", 2), 3, None);
    bench.gets(&has("n", 2, vec![]), 3, Some(partitions(2, &[0, 1])));
    bench.gets(&beats("m", 3), 3, Some(partitions(1, &[0, 1, 2, 3])));
    // The same again changes nothing.
    bench.gets(
        &ConsumerHeartbeat {
            member_epoch: 3,
            ..other
        },
        3,
        None,
    );
}

#[test]
fn most_members_choose_the_assignor() {
    let mut bench = Bench::with_two_members();
    let likes = |id: &str, epoch: i32, assignor: &str| ConsumerHeartbeat {
        assignor: Some(assignor.into()),
        ..beats(id, epoch)
    };
    assert_eq!(bench.group.describe(&bench.topics).assignor, "uniform");
    bench.gets(&likes("n", 2, "range"), 3, None);
    assert_eq!(bench.group.describe(&bench.topics).assignor, "range");
    bench.gets(&likes("m", 2, "uniform"), 4, None);
    assert_eq!(bench.group.describe(&bench.topics).assignor, "uniform");
}

#[test]
fn a_group_has_no_more_members_than_it_may() {
    let mut bench = Bench::with(GroupSettings {
        consumer_max_size: 1,
        ..GroupSettings::default()
    });
    bench.gets(&joins("m"), 1, Some(partitions(1, &[0, 1, 2, 3])));
    assert_eq!(code(bench.beat(&joins("n"))), "group_full");
    bench.gets(&joins("m"), 1, Some(partitions(1, &[0, 1, 2, 3])));
}

#[test]
fn the_broker_makes_an_id_for_who_has_none() {
    let mut bench = Bench::new();
    let one = bench.beat(&joins("")).unwrap();
    let other = bench.beat(&joins("")).unwrap();
    assert!(!one.member_id.is_empty());
    assert_ne!(one.member_id, other.member_id);
}

#[test]
fn nobody_hears_what_is_not_durable_and_who_comes_meanwhile_waits_for_the_next_record() {
    let mut bench = Bench::new();
    let first = bench.send(&joins("m"));
    assert_eq!((bench.answers.len(), bench.stores.len()), (0, 1));
    // Two more come meanwhile, and one asks for nothing: one more record for all.
    let second = bench.send(&joins("n"));
    let third = bench.send(&joins("o"));
    let nothing = bench.send(&beats("none", 1));
    assert_eq!((bench.answers.len(), bench.stores.len()), (0, 1));
    bench.stored(Ok(()));
    assert!(bench.answers.remove(&first).unwrap().is_ok());
    assert_eq!((bench.answers.len(), bench.stores.len()), (0, 1));
    // Who has seen nothing new waits for what is on its way.
    let later = bench.send(&beats("none", 1));
    bench.stored(Ok(()));
    assert!(bench.answers.remove(&second).unwrap().is_ok());
    assert!(bench.answers.remove(&third).unwrap().is_ok());
    assert_eq!(
        code(bench.answers.remove(&nothing).unwrap()),
        "unknown_member"
    );
    assert_eq!(
        code(bench.answers.remove(&later).unwrap()),
        "unknown_member"
    );
    assert!(bench.stores.is_empty());
}

#[test]
fn where_the_record_fails_nobody_hears_and_the_next_one_says_all() {
    let mut bench = Bench::with_one_member();
    let joins_then = bench.send(&joins("n"));
    let beats_then = bench.send(&beats("m", 1));
    bench.stored(Err(BrokerError::Closed));
    for wait in [joins_then, beats_then] {
        assert_eq!(code(bench.answers.remove(&wait).unwrap()), "closed");
    }
    assert!(bench.stores.is_empty(), "it does not try again by itself");
    // It is told anew what it may have, though that was decided before.
    bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
    bench.gets(&joins("n"), 2, Some(vec![]));
}

#[test]
fn offsets_are_committed_by_members_that_know_their_epoch() {
    let mut bench = Bench::with_two_members();
    let commit = |id: &str, epoch: i32, knows_epochs: bool| GroupCommit {
        member: GroupMember {
            group: "g".into(),
            member_id: id.into(),
            instance_id: None,
            generation: epoch,
        },
        knows_epochs,
        offsets: Vec::new(),
    };
    let check = |bench: &Bench, commit: &GroupCommit| {
        bench
            .group
            .check_commit(commit)
            .map_err(|error| error.code())
    };
    assert_eq!(check(&bench, &commit("m", 2, true)), Ok(()));
    assert_eq!(check(&bench, &commit("m", 1, true)), Err("stale_epoch"));
    assert_eq!(check(&bench, &commit("m", 3, true)), Err("stale_epoch"));
    assert_eq!(check(&bench, &commit("x", 2, true)), Err("unknown_member"));
    assert_eq!(check(&bench, &commit("", -1, true)), Err("unknown_member"));
    assert_eq!(
        check(&bench, &commit("m", 2, false)),
        Err("epochs_required")
    );
    for id in ["m", "n"] {
        bench.gets(&beats(id, LEAVE_EPOCH), LEAVE_EPOCH, None);
    }
    assert_eq!(check(&bench, &commit("", -1, false)), Ok(()));
    assert_eq!(check(&bench, &commit("m", 2, true)), Err("unknown_member"));
}

#[test]
fn a_restart_disturbs_nobody() {
    let mut bench = Bench::with_two_members();
    let before = bench.group.describe(&bench.topics);
    bench.now_ms = 1_000_000;
    bench.restart();
    assert_eq!(bench.group.describe(&bench.topics), before);
    for id in ["m", "n"] {
        let wait = bench.send(&beats(id, 2));
        assert_eq!(
            bench.answers.remove(&wait).unwrap().unwrap().member_epoch,
            2
        );
        assert!(bench.stores.is_empty(), "nothing has changed");
    }
    // Sessions have begun anew.
    bench.pass(SESSION_MS - 1);
    assert_eq!(bench.state(), GroupState::Stable);
    bench.pass(1);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_restart_in_the_middle_goes_on_from_there() {
    let mut bench = Bench::with_one_member();
    bench.gets(&joins("n"), 2, Some(vec![]));
    bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
    bench.now_ms = 1_000_000;
    bench.restart();
    // What must be given up is not forgotten, nor is the time for it.
    bench.gets(&beats("n", 2), 2, None);
    bench.gets(&beats("m", 1), 1, Some(partitions(1, &[0, 1])));
    for _ in 0..REBALANCE_MS / 5_000 {
        let _ = bench.beat(&beats("m", 1)).unwrap();
        bench.gets(&beats("n", 2), 2, None);
        bench.pass(5_000);
    }
    bench.gets(&beats("n", 2), 3, Some(partitions(1, &[0, 1, 2, 3])));
}

#[test]
fn an_administrator_sees_who_has_what_and_will_have_what() {
    let mut bench = Bench::with_one_member();
    bench.gets(&joins("n"), 2, Some(vec![]));
    let described = bench.group.describe(&bench.topics);
    assert_eq!((described.epoch, described.assignment_epoch), (2, 2));
    let of = |topics: &[super::AssignedTopic]| -> Partitions {
        let of_topic = |topic: &super::AssignedTopic| partitions(topic.id.0, &topic.partitions);
        topics.iter().flat_map(of_topic).collect()
    };
    let [m, n] = &described.members[..] else {
        panic!("two members");
    };
    assert_eq!((m.member_id.as_str(), m.epoch), ("m", 1));
    assert_eq!((of(&m.assignment).len(), of(&m.target).len()), (4, 2));
    assert_eq!((of(&n.assignment).len(), of(&n.target).len()), (0, 2));
    assert_eq!(&*m.assignment[0].name, "a");
    assert_eq!(bench.group.listing().group_type.as_str(), "consumer");
}
