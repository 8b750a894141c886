//! A hundred consumers of several groups that join, leave, die, come back and commit, on a node that crashes in any way at
//! any moment. A seed decides everything.
//!
//! What must hold: in one generation a partition has one owner at most, generations with an assignment never go back, a commit that was
//! acknowledged is never lost or taken back and is there whole, and once nothing happens any more every group settles.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use bytes::Bytes;
use common::TestBroker;
use common::model::{self, Call, counts, first_poll};
use mainstem_broker::{
    Broker, BrokerError, Caller, GroupCommit, GroupMember, GroupState, JoinGroup, Joined,
    LeavingMember, NewTopic, OffsetCommit, Protocol, SyncGroup, Synced,
};
use mainstem_engine::testing::poll_once;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const GROUPS: [&str; 4] = ["a", "b", "c", "d"];
const CONSUMERS: usize = 100;
const PARTITIONS: u32 = 40;
const TOPIC: &str = "read";
const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 30_000;

/// What a consumer is doing.
enum Doing {
    Nothing,
    Joining(Call<Joined>),
    Syncing(Joined, Call<Synced>),
    Reading {
        generation: i32,
        partitions: Vec<u32>,
        /// Offsets under way, all with this number.
        commit: Option<Commit>,
        heartbeat_ms: i64,
    },
    /// Its process is gone; it comes back, or not.
    Dead,
}

/// A commit under way: its number, the partitions it is for, the call.
type Commit = (i64, Vec<u32>, Call<Vec<Result<(), BrokerError>>>);

struct Consumer {
    group: &'static str,
    instance_id: Option<String>,
    member_id: String,
    doing: Doing,
}

/// What everybody has been told, beyond any crash.
#[derive(Default, PartialEq, Debug)]
struct Told {
    /// The newest generation of a group in which anybody was assigned anything.
    generations: BTreeMap<&'static str, i32>,
    /// Who owns a partition in a generation.
    owners: BTreeMap<(&'static str, i32, u32), String>,
    /// The newest number acknowledged for each partition, and every number that was ever sent with its partitions.
    acknowledged: BTreeMap<(&'static str, u32), i64>,
    sent: BTreeMap<i64, (&'static str, Vec<u32>)>,
    /// Numbers of commits that were refused.
    refused: BTreeSet<i64>,
    counts: Counts,
}

#[derive(Default, PartialEq, Debug, Clone, Copy)]
struct Counts {
    generations: u64,
    commits: u64,
    refused_commits: u64,
    deaths: u64,
    returns: u64,
    leaves: u64,
    fenced: u64,
    forgotten: u64,
    crashes: u64,
    undisturbed: u64,
}

struct World {
    test: TestBroker,
    rng: SmallRng,
    now_ms: i64,
    consumers: Vec<Consumer>,
    told: Told,
    next_number: i64,
    /// Processes that were taken for dead and go on under what they knew, for a last commit.
    zombies: Vec<(&'static str, GroupMember, Vec<u32>)>,
    /// Nobody comes, goes or dies any more.
    calm: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut test = TestBroker::open(rng.random());
        let topic = NewTopic::named(TOPIC).partitions(PARTITIONS);
        test.run(|broker, caller| async move { broker.create_topic(&caller, topic, 0).await })
            .unwrap();
        let consumer = |index: usize| Consumer {
            group: GROUPS[index % GROUPS.len()],
            instance_id: index.is_multiple_of(5).then(|| format!("static-{index}")),
            member_id: String::new(),
            doing: Doing::Nothing,
        };
        World {
            test,
            rng,
            now_ms: 0,
            consumers: (0..CONSUMERS).map(consumer).collect(),
            told: Told::default(),
            next_number: 1,
            zombies: Vec::new(),
            calm: false,
        }
    }

    fn handles(&self) -> (Broker, Caller, i64) {
        (
            self.test.broker.clone(),
            self.test.caller.clone(),
            self.now_ms,
        )
    }

    fn consumer_acts(&mut self, index: usize) {
        if !self.calm && self.something_befalls(index) {
            return;
        }
        let doing = std::mem::replace(&mut self.consumers[index].doing, Doing::Nothing);
        let next = match doing {
            Doing::Nothing => self.joins(index),
            Doing::Dead if self.calm || self.rng.random_ratio(1, 50) => {
                // Another process, which knows nothing of the one before.
                self.told.counts.returns += 1;
                self.consumers[index].member_id.clear();
                self.joins(index)
            }
            Doing::Dead => Doing::Dead,
            Doing::Joining(mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Joining(call),
                Poll::Ready(outcome) => self.has_joined(index, outcome),
            },
            Doing::Syncing(joined, mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Syncing(joined, call),
                Poll::Ready(outcome) => self.has_synced(index, joined, outcome),
            },
            reading @ Doing::Reading { .. } => self.reads(index, reading),
        };
        self.consumers[index].doing = next;
    }

    /// Whether the consumer dies, leaves, or another takes its static name.
    fn something_befalls(&mut self, index: usize) -> bool {
        match self.rng.random_range(0..6_000) {
            0..=2 => {
                self.may_go_on(index);
                self.consumers[index].doing = Doing::Dead;
                self.told.counts.deaths += 1;
            }
            3..=5 => {
                let consumer = &mut self.consumers[index];
                if !matches!(consumer.doing, Doing::Reading { .. }) {
                    return false;
                }
                let leaving = LeavingMember {
                    member_id: std::mem::take(&mut consumer.member_id),
                    instance_id: consumer.instance_id.clone(),
                };
                consumer.doing = Doing::Dead;
                let group = consumer.group;
                let (broker, caller, now_ms) = self.handles();
                let left = broker.leave_group(&caller, group, &[leaving], now_ms);
                self.told.counts.leaves += u64::from(left.unwrap()[0].is_ok());
            }
            6..=40 if self.consumers[index].instance_id.is_some() => {
                self.may_go_on(index);
                // The process is started again at once, under the same static name and without its id.
                self.consumers[index].member_id.clear();
                self.consumers[index].doing = Doing::Nothing;
                self.told.counts.returns += 1;
            }
            _ => return false,
        }
        true
    }

    /// A process that reads is taken for dead, and is not.
    fn may_go_on(&mut self, index: usize) {
        let consumer = &self.consumers[index];
        if let Doing::Reading {
            generation,
            partitions,
            ..
        } = &consumer.doing
            && !partitions.is_empty()
        {
            let member = GroupMember {
                group: consumer.group.into(),
                member_id: consumer.member_id.clone(),
                instance_id: consumer.instance_id.clone(),
                generation: *generation,
            };
            self.zombies
                .push((consumer.group, member, partitions.clone()));
        }
    }

    /// One of them commits: that counts as long as it is a member, and never afterwards. It does not wait for an answer.
    fn zombie_commits(&mut self) {
        if self.zombies.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.zombies.len());
        let (group, member, partitions) = self.zombies.swap_remove(index);
        let number = self.next_number;
        self.next_number += 1;
        let offsets = partitions.iter().map(|partition| OffsetCommit {
            topic: TOPIC.into(),
            partition: *partition,
            offset: number,
            ..OffsetCommit::default()
        });
        let request = GroupCommit {
            member,
            knows_epochs: true,
            offsets: offsets.collect(),
        };
        self.told.sent.insert(number, (group, partitions));
        let (broker, caller, now_ms) = self.handles();
        let mut call: Call<_> =
            Box::pin(async move { broker.commit_offsets(&caller, request, now_ms).await });
        if let Poll::Ready(Err(error)) = poll_once(call.as_mut()) {
            let code = error.code();
            self.told.counts.fenced += u64::from(code == "fenced_instance");
            let expected = ["fenced_instance", "unknown_member", "illegal_generation"];
            let overtaken = code == "rebalance_in_progress";
            assert!(expected.contains(&code) || overtaken, "{error}");
            self.told.refused.insert(number);
            self.told.counts.refused_commits += 1;
        }
    }

    fn joins(&mut self, index: usize) -> Doing {
        let consumer = &self.consumers[index];
        let request = JoinGroup {
            group: consumer.group.into(),
            member_id: consumer.member_id.clone(),
            instance_id: consumer.instance_id.clone(),
            client_id: format!("consumer-{index}"),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: Bytes::from_static(b"\0\x01\0\0\0\x01\0\x04read\xff\xff\xff\xff"),
            }],
            requires_member_id: true,
            skips_assignment: index.is_multiple_of(2),
        };
        let (broker, caller, now_ms) = self.handles();
        Doing::Joining(Box::pin(async move {
            broker.join_group(&caller, request, now_ms).await
        }))
    }

    fn has_joined(&mut self, index: usize, outcome: Result<Joined, BrokerError>) -> Doing {
        let joined = match outcome {
            Ok(joined) => joined,
            Err(error) => return self.begins_again(index, error),
        };
        let consumer = &mut self.consumers[index];
        consumer.member_id.clone_from(&joined.member_id);
        // The leader deals the partitions out, one by one.
        let mut assignments: Vec<(String, Vec<u8>)> = Vec::new();
        if joined.leader == joined.member_id && !joined.skip_assignment {
            assignments.extend(
                joined
                    .members
                    .iter()
                    .map(|one| (one.member_id.clone(), vec![])),
            );
            for partition in 0..PARTITIONS {
                let owner = partition as usize % assignments.len();
                assignments[owner].1.push(partition as u8);
            }
        }
        let request = SyncGroup {
            member: GroupMember {
                group: consumer.group.into(),
                member_id: joined.member_id.clone(),
                instance_id: consumer.instance_id.clone(),
                generation: joined.generation,
            },
            protocol_type: Some(joined.protocol_type.clone()),
            protocol: Some(joined.protocol.clone()),
            assignments: assignments
                .into_iter()
                .map(|(id, partitions)| (id, Bytes::from(partitions)))
                .collect(),
        };
        let (broker, caller, now_ms) = self.handles();
        let call = Box::pin(async move { broker.sync_group(&caller, request, now_ms).await });
        Doing::Syncing(joined, call)
    }

    fn has_synced(
        &mut self,
        index: usize,
        joined: Joined,
        outcome: Result<Synced, BrokerError>,
    ) -> Doing {
        let synced = match outcome {
            Ok(synced) => synced,
            Err(error) => return self.begins_again(index, error),
        };
        let consumer = &self.consumers[index];
        let partitions: Vec<u32> = synced
            .assignment
            .iter()
            .map(|one| u32::from(*one))
            .collect();
        // A generation that nobody was assigned anything in may be made again after a crash; this one is durable.
        let newest = self.told.generations.entry(consumer.group).or_default();
        assert!(
            joined.generation >= *newest,
            "group {}: generation {} after {newest}",
            consumer.group,
            joined.generation
        );
        self.told.counts.generations += u64::from(joined.generation > *newest);
        *newest = joined.generation;
        // A static member is the same one under every id.
        let name = consumer.instance_id.as_ref().unwrap_or(&joined.member_id);
        for partition in &partitions {
            let owned = (consumer.group, joined.generation, *partition);
            let owner = self
                .told
                .owners
                .entry(owned)
                .or_insert_with(|| name.clone());
            assert_eq!(owner, name, "{owned:?} has two owners");
        }
        Doing::Reading {
            generation: joined.generation,
            partitions,
            commit: None,
            heartbeat_ms: self.now_ms,
        }
    }

    /// A call has failed as it may: the consumer joins again, as clients do.
    fn begins_again(&mut self, index: usize, error: BrokerError) -> Doing {
        let consumer = &mut self.consumers[index];
        match error {
            BrokerError::MemberIdRequired { member_id } => consumer.member_id = member_id,
            BrokerError::UnknownMember { .. } => {
                self.told.counts.forgotten += 1;
                consumer.member_id.clear();
            }
            BrokerError::FencedInstance { .. } => {
                self.told.counts.fenced += 1;
                consumer.member_id.clear();
            }
            BrokerError::RebalanceInProgress { .. } | BrokerError::IllegalGeneration { .. } => {}
            error => panic!("consumer {index}: {error}"),
        }
        self.joins(index)
    }

    fn reads(&mut self, index: usize, doing: Doing) -> Doing {
        let Doing::Reading {
            generation,
            partitions,
            mut commit,
            mut heartbeat_ms,
        } = doing
        else {
            return doing;
        };
        let consumer = &self.consumers[index];
        let group = consumer.group;
        let member = GroupMember {
            group: group.into(),
            member_id: consumer.member_id.clone(),
            instance_id: consumer.instance_id.clone(),
            generation,
        };
        let (broker, caller, now_ms) = self.handles();
        if let Some((number, committed, mut call)) = commit.take() {
            match poll_once(call.as_mut()) {
                Poll::Pending => commit = Some((number, committed, call)),
                Poll::Ready(Ok(outcomes)) => {
                    assert!(outcomes.iter().all(Result::is_ok));
                    self.told.counts.commits += 1;
                    for partition in committed {
                        let newest = self.told.acknowledged.entry((group, partition));
                        let newest = newest.or_default();
                        *newest = number.max(*newest);
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.told.counts.refused_commits += 1;
                    return self.begins_again(index, error);
                }
            }
        } else if !partitions.is_empty() && self.rng.random_ratio(1, 4) {
            let number = self.next_number;
            self.next_number += 1;
            self.told.sent.insert(number, (group, partitions.clone()));
            let offsets = partitions.iter().map(|partition| OffsetCommit {
                topic: TOPIC.into(),
                partition: *partition,
                offset: number,
                ..OffsetCommit::default()
            });
            let request = GroupCommit {
                member: member.clone(),
                knows_epochs: true,
                offsets: offsets.collect(),
            };
            let (broker, caller) = (broker.clone(), caller.clone());
            let call =
                Box::pin(async move { broker.commit_offsets(&caller, request, now_ms).await });
            commit = Some((number, partitions.clone(), first_poll(call)));
        }
        if now_ms >= heartbeat_ms {
            heartbeat_ms = now_ms + SESSION_MS / 10;
            if let Err(error) = broker.heartbeat(&caller, &member, now_ms) {
                return self.begins_again(index, error);
            }
        }
        Doing::Reading {
            generation,
            partitions,
            commit,
            heartbeat_ms,
        }
    }

    /// What the store says of offsets, against what was acknowledged and sent.
    fn check_offsets(&self) {
        let partitions: Vec<u32> = (0..PARTITIONS).collect();
        for group in GROUPS {
            let (broker, caller) = (&self.test.broker, &self.test.caller);
            let found = broker.fetch_offsets(caller, group, TOPIC, &partitions);
            let found: Vec<i64> = found
                .unwrap()
                .into_iter()
                .map(|one| one.map_or(0, |one| one.offset))
                .collect();
            for (partition, offset) in (0..).zip(&found) {
                let acknowledged = self.told.acknowledged.get(&(group, partition));
                assert!(
                    *offset >= acknowledged.copied().unwrap_or(0),
                    "{group}/{partition}: {offset} after {acknowledged:?} was acknowledged"
                );
                if *offset > 0 {
                    let (sender, with) = &self.told.sent[offset];
                    assert_eq!(*sender, group);
                    assert!(!self.told.refused.contains(offset), "{offset} was refused");
                    // All of a commit, or something newer.
                    for other in with {
                        assert!(found[*other as usize] >= *offset, "commit {offset} is torn");
                    }
                }
            }
        }
    }

    fn describe(&self, group: &str) -> Option<mainstem_broker::GroupDescription> {
        let described = self.test.broker.describe_group(&self.test.caller, group);
        described.ok()
    }

    /// Nothing happens any more: everybody settles, and soon.
    fn settles(&mut self) {
        self.calm = true;
        let until_ms = self.now_ms + 3 * (SESSION_MS + REBALANCE_MS);
        while self.now_ms < until_ms {
            for index in 0..self.consumers.len() {
                self.consumer_acts(index);
            }
            self.test.node.driver.settle();
            self.test.broker.move_coordinators(self.now_ms);
            self.now_ms += 100;
        }
        for group in GROUPS {
            let described = self.describe(group).unwrap();
            assert_eq!(described.state, GroupState::Stable, "group {group}");
            assert_eq!(described.members.len(), CONSUMERS / GROUPS.len());
            let mut owned: Vec<u32> = Vec::new();
            for consumer in self.consumers.iter().filter(|one| one.group == group) {
                let Doing::Reading {
                    generation,
                    partitions,
                    ..
                } = &consumer.doing
                else {
                    panic!("a consumer of {group} does not read");
                };
                assert_eq!(*generation, described.generation);
                owned.extend(partitions);
            }
            owned.sort_unstable();
            assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>(), "group {group}");
        }
        self.check_offsets();
    }
}

impl model::World for World {
    fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    fn turn(&mut self) {
        match self.rng.random_range(0..10) {
            0..=3 => {
                self.test.node.driver.step();
            }
            4 => {
                self.test.broker.move_coordinators(self.now_ms);
            }
            5 if self.rng.random_bool(0.3) => self.now_ms += self.rng.random_range(0..100),
            _ => {
                let index = self.rng.random_range(0..self.consumers.len());
                self.consumer_acts(index);
            }
        }
        if self.rng.random_ratio(1, 200) {
            self.test.node.driver.tick();
        }
        if self.rng.random_ratio(1, 2_000) {
            self.zombie_commits();
        }
    }

    fn crash(mut self) -> Self {
        let before: Vec<_> = GROUPS.iter().map(|group| self.describe(group)).collect();
        for consumer in &mut self.consumers {
            match &mut consumer.doing {
                Doing::Joining(_) | Doing::Syncing(..) => consumer.doing = Doing::Nothing,
                Doing::Reading { commit, .. } => *commit = None,
                Doing::Nothing | Doing::Dead => {}
            }
        }
        self.told.counts.crashes += 1;
        self.test = self.test.crash_somehow(&mut self.rng);
        self.check_offsets();
        for (group, before) in GROUPS.iter().zip(before) {
            let after = self.describe(group);
            let (Some(before), Some(after)) = (before, after) else {
                continue;
            };
            // A stable group is found as it was.
            if before.state == GroupState::Stable && after.generation == before.generation {
                assert_eq!(after.state, GroupState::Stable);
                self.told.counts.undisturbed += 1;
            }
        }
        self
    }

    fn check(&mut self) {
        self.check_offsets();
    }
}

fn run(seed: u64, lives: u32, turns: u32) -> Told {
    let mut world = model::live(World::new(seed), lives, turns);
    world.settles();
    world.told
}

#[test]
fn partitions_have_one_owner_and_commits_stay_through_rebalances_and_crashes() {
    model::run_seeds(
        12,
        |seed| run(seed, 4, 60_000).counts,
        counts![Counts:
            generations,
            commits,
            refused_commits,
            deaths,
            returns,
            leaves,
            forgotten,
            fenced,
            crashes,
            undisturbed,
        ],
    );
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(4711, 3, 10_000), run(4711, 3, 10_000));
}
