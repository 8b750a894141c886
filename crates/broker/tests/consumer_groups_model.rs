//! Members of groups of the consumer protocol that join, leave, die, hang, lose answers and are slow to give partitions
//! up, while topics come, grow and go and the node crashes in any way at any moment. A seed decides everything.
//!
//! What must hold: no two members have a partition at once, as long as the broker may not take one of them for gone;
//! epochs never go back; once nothing happens any more every partition has an owner, evenly, and a restart disturbs nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use common::TestBroker;
use common::model::{self, Call, World as _, counts, first_poll};
use mainstem_broker::{
    BrokerError, ConsumerBeat, ConsumerHeartbeat, GroupState, JOIN_EPOCH, LEAVE_EPOCH, NewTopic,
    PartitionId, STATIC_LEAVE_EPOCH, TopicChange,
};
use mainstem_engine::testing::poll_once;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// By names, by a pattern, and with the other assignor.
const GROUPS: [&str; 3] = ["names", "pattern", "range"];
const CONSUMERS: usize = 30;
const TOPICS: [&str; 4] = ["t0", "t1", "t2", "t3"];
const SESSION_MS: i64 = 45_000;
const HEARTBEAT_MS: i64 = 5_000;
const REBALANCE_MS: i64 = 30_000;

type Partitions = BTreeSet<PartitionId>;

/// A heartbeat under way.
struct Sent {
    call: Call<ConsumerBeat>,
    at_ms: i64,
    /// What it said it has, if it did.
    owned: Option<Partitions>,
    /// For the first one of a new id: the newest epoch that anybody had been told by then.
    newest_epoch: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Process {
    /// It runs, and wants to be a member.
    Runs,
    /// It is gone, or has left; it may come back.
    Gone,
}

struct Consumer {
    group: &'static str,
    instance_id: Option<String>,
    process: Process,
    id: String,
    is_new: bool,
    epoch: i32,
    /// What it reads.
    owned: Partitions,
    /// What the broker knows that it has: of the last report that was answered.
    reported: Option<Partitions>,
    /// What it is to have.
    told: Option<Partitions>,
    /// Until then it is busy with what it must give up.
    busy_until_ms: i64,
    /// An answer may have been lost: it says everything.
    says_all: bool,
    next_beat_ms: i64,
    sent: Option<Sent>,
    heard_ms: i64,
    /// When the first heartbeat was sent whose answer it does not know.
    unsure_since_ms: Option<i64>,
    revoke_by_ms: i64,
}

impl Consumer {
    /// Whether the broker must take it for a member that may have what it has.
    fn is_sure(&self, now_ms: i64) -> bool {
        let unsure_ms = self
            .unsure_since_ms
            .map_or(i64::MAX, |at_ms| at_ms + REBALANCE_MS);
        let until_ms = (self.heard_ms + SESSION_MS)
            .min(unsure_ms)
            .min(self.revoke_by_ms);
        self.process == Process::Runs && now_ms < until_ms
    }

    /// It knows that it is no member any more, and begins anew.
    fn loses_everything(&mut self) {
        self.epoch = JOIN_EPOCH;
        self.owned.clear();
        self.reported = None;
        self.told = None;
        self.sent = None;
        self.revoke_by_ms = i64::MAX;
        self.unsure_since_ms = None;
        self.says_all = true;
    }
}

#[derive(Default, PartialEq, Debug, Clone, Copy)]
struct Counts {
    joins: u64,
    moves: u64,
    deaths: u64,
    hangs: u64,
    leaves: u64,
    absences: u64,
    lost: u64,
    removed: u64,
    unreleased: u64,
    zombies: u64,
    topics: u64,
    crashes: u64,
}

struct World {
    test: TestBroker,
    rng: SmallRng,
    now_ms: i64,
    consumers: Vec<Consumer>,
    /// Who reads a partition, as far as anybody knows.
    owners: BTreeMap<(&'static str, PartitionId), usize>,
    /// The newest epoch that anybody was told.
    epochs: BTreeMap<&'static str, i32>,
    counts: Counts,
    calm: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut test = TestBroker::open(rng.random());
        test.run(|broker, caller| async move {
            let topic = NewTopic::named(TOPICS[0]).partitions(7);
            broker.create_topic(&caller, topic, 0).await
        })
        .unwrap();
        let consumer = |index: usize| Consumer {
            group: GROUPS[index % GROUPS.len()],
            instance_id: index.is_multiple_of(4).then(|| format!("static-{index}")),
            process: Process::Gone,
            id: String::new(),
            is_new: true,
            epoch: JOIN_EPOCH,
            owned: Partitions::new(),
            reported: None,
            told: None,
            busy_until_ms: 0,
            says_all: true,
            next_beat_ms: 0,
            sent: None,
            heard_ms: i64::MIN / 2,
            unsure_since_ms: None,
            revoke_by_ms: i64::MAX,
        };
        World {
            test,
            rng,
            now_ms: 0,
            consumers: (0..CONSUMERS).map(consumer).collect(),
            owners: BTreeMap::new(),
            epochs: BTreeMap::new(),
            counts: Counts::default(),
            calm: false,
        }
    }

    fn topics_change(&mut self) {
        self.counts.topics += 1;
        let name = TOPICS[self.rng.random_range(0..TOPICS.len())];
        let partitions = self.rng.random_range(1..6);
        let deletes = name != TOPICS[0] && self.rng.random_ratio(1, 4);
        self.test.run(|broker, caller| async move {
            match broker.topic(&caller, name) {
                Err(_) => {
                    let topic = NewTopic::named(name).partitions(partitions);
                    broker.create_topic(&caller, topic, 0).await.unwrap();
                }
                Ok(_) if deletes => broker.delete_topic(&caller, name).await.unwrap(),
                Ok(topic) if topic.partitions < 20 => {
                    let change = TopicChange {
                        partitions: Some(topic.partitions + partitions),
                        ..TopicChange::default()
                    };
                    let altered = broker.alter_topic(&caller, name, change);
                    altered.await.unwrap();
                }
                Ok(_) => {}
            }
        });
    }

    fn acts(&mut self, index: usize) {
        if !self.calm && self.something_befalls(index) {
            return;
        }
        let calm = self.calm;
        let returns = calm || self.rng.random_ratio(1, 60);
        let id = format!("{:032x}", self.rng.random::<u128>());
        let consumer = &mut self.consumers[index];
        if consumer.process == Process::Gone {
            if returns {
                consumer.loses_everything();
                consumer.process = Process::Runs;
                consumer.id = id;
                consumer.is_new = true;
                consumer.next_beat_ms = self.now_ms;
            }
            return;
        }
        if let Some(sent) = &mut consumer.sent {
            if let Poll::Ready(answer) = poll_once(sent.call.as_mut()) {
                self.hears(index, answer);
            }
            return;
        }
        self.applies(index);
        let consumer = &self.consumers[index];
        let has_news =
            consumer.epoch != JOIN_EPOCH && consumer.reported.as_ref() != Some(&consumer.owned);
        if self.now_ms >= consumer.next_beat_ms || has_news {
            self.beats(index);
        }
    }

    fn something_befalls(&mut self, index: usize) -> bool {
        let chance = self.rng.random_range(0..4_000);
        let consumer = &mut self.consumers[index];
        if consumer.process == Process::Gone {
            return false;
        }
        match chance {
            0..=9 => {
                self.counts.deaths += 1;
                self.gives_up_all(index);
                self.consumers[index].process = Process::Gone;
            }
            10..=15 => {
                self.counts.hangs += 1;
                self.loses_answer(index);
                self.consumers[index].next_beat_ms = self.now_ms + 2 * SESSION_MS;
            }
            16..=40 if consumer.epoch > 0 && consumer.sent.is_none() => {
                let is_absence = consumer.instance_id.is_some();
                let epoch = match is_absence {
                    true => STATIC_LEAVE_EPOCH,
                    false => LEAVE_EPOCH,
                };
                let request = ConsumerHeartbeat {
                    group: consumer.group.into(),
                    member_id: consumer.id.clone(),
                    member_epoch: epoch,
                    instance_id: consumer.instance_id.clone(),
                    ..ConsumerHeartbeat::default()
                };
                self.counts.leaves += u64::from(!is_absence);
                self.counts.absences += u64::from(is_absence);
                // It gives up before it says so, and does not wait for the answer.
                self.gives_up_all(index);
                self.consumers[index].process = Process::Gone;
                drop(self.call(request));
            }
            // An answer is lost.
            41..=240 if consumer.sent.is_some() => self.loses_answer(index),
            _ => return false,
        }
        true
    }

    fn loses_answer(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        if let Some(sent) = consumer.sent.take() {
            self.counts.lost += 1;
            consumer.says_all = true;
            consumer.unsure_since_ms.get_or_insert(sent.at_ms);
            consumer.next_beat_ms = self.now_ms;
        }
    }

    fn call(&self, request: ConsumerHeartbeat) -> Call<ConsumerBeat> {
        let (broker, caller) = (self.test.broker.clone(), self.test.caller.clone());
        let now_ms = self.now_ms;
        first_poll(Box::pin(async move {
            broker.consumer_heartbeat(&caller, request, now_ms).await
        }))
    }

    fn beats(&mut self, index: usize) {
        let consumer = &self.consumers[index];
        let joins = consumer.epoch == JOIN_EPOCH;
        let says_all = joins || consumer.says_all;
        let has_news = consumer.reported.as_ref() != Some(&consumer.owned);
        let owned = (says_all || has_news).then(|| consumer.owned.clone());
        let (topics, pattern) = match consumer.group {
            "pattern" => (None, Some("t[0-9]+".to_owned())),
            _ => (Some(TOPICS.map(str::to_owned).to_vec()), None),
        };
        let assignor = (consumer.group == "range").then(|| "range".to_owned());
        let request = ConsumerHeartbeat {
            group: consumer.group.into(),
            member_id: consumer.id.clone(),
            member_epoch: consumer.epoch,
            instance_id: consumer.instance_id.clone(),
            rebalance_timeout_ms: says_all.then_some(REBALANCE_MS),
            topics: topics.filter(|_| says_all),
            pattern: pattern.filter(|_| says_all),
            assignor: assignor.filter(|_| says_all),
            owned: owned.as_ref().map(|owned| owned.iter().copied().collect()),
            ..ConsumerHeartbeat::default()
        };
        let call = self.call(request);
        self.counts.joins += u64::from(joins);
        let newest = self.epochs.get(consumer.group).copied().unwrap_or(0);
        let consumer = &mut self.consumers[index];
        consumer.sent = Some(Sent {
            call,
            at_ms: self.now_ms,
            owned,
            newest_epoch: std::mem::take(&mut consumer.is_new).then_some(newest),
        });
    }

    fn hears(&mut self, index: usize, answer: Result<ConsumerBeat, BrokerError>) {
        let consumer = &mut self.consumers[index];
        let sent = consumer.sent.take().unwrap();
        let group = consumer.group;
        let beat = match answer {
            Ok(beat) => beat,
            Err(error) => {
                match &error {
                    BrokerError::UnknownMember { .. }
                    | BrokerError::FencedEpoch { .. }
                    | BrokerError::GroupNotFound { .. } => self.counts.removed += 1,
                    // The process before it is not known to be gone yet.
                    BrokerError::UnreleasedInstance { .. } => self.counts.unreleased += 1,
                    error => panic!("consumer {index}: {error}"),
                }
                self.gives_up_all(index);
                let consumer = &mut self.consumers[index];
                consumer.loses_everything();
                consumer.next_beat_ms = self.now_ms + 1_000;
                return;
            }
        };
        assert_eq!(beat.member_id, consumer.id);
        assert!(
            beat.member_epoch >= consumer.epoch,
            "a member's epoch goes back"
        );
        if let Some(newest) = sent.newest_epoch
            && consumer.instance_id.is_none()
        {
            let epoch = beat.member_epoch;
            assert!(
                epoch > newest,
                "{group}: who is new gets epoch {epoch} after {newest}"
            );
        }
        let newest = self.epochs.entry(group).or_default();
        *newest = beat.member_epoch.max(*newest);
        consumer.epoch = beat.member_epoch;
        consumer.heard_ms = sent.at_ms;
        consumer.next_beat_ms = self.now_ms + HEARTBEAT_MS;
        consumer.says_all = false;
        if sent.owned.is_some() {
            consumer.reported = sent.owned;
            if consumer.told.is_none() {
                // It had nothing left to give up.
                consumer.revoke_by_ms = i64::MAX;
            }
        }
        let begun_ms = consumer.unsure_since_ms.take().unwrap_or(sent.at_ms);
        if let Some(assignment) = beat.assignment {
            consumer.told = Some(assignment.into_iter().collect());
        }
        if let Some(told) = &consumer.told
            && !consumer.owned.is_subset(told)
            && consumer.revoke_by_ms == i64::MAX
        {
            consumer.revoke_by_ms = begun_ms + REBALANCE_MS;
            let slowness_ms = match self.calm || self.rng.random_ratio(19, 20) {
                true => 1_000,
                false => REBALANCE_MS + 20_000,
            };
            consumer.busy_until_ms = self.now_ms + self.rng.random_range(0..slowness_ms);
        }
    }

    /// Gives up what it must, then takes what it may.
    fn applies(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        let Some(told) = &consumer.told else {
            return;
        };
        if !consumer.owned.is_subset(told) && self.now_ms < consumer.busy_until_ms {
            return;
        }
        if !consumer.is_sure(self.now_ms) {
            // It cannot know whether that still holds: a real one would be told so by its next heartbeat.
            return;
        }
        let told = consumer.told.take().unwrap();
        let group = consumer.group;
        let given_up: Vec<_> = consumer.owned.difference(&told).copied().collect();
        let taken: Vec<_> = told.difference(&consumer.owned).copied().collect();
        consumer.owned = told;
        for partition in given_up {
            if self.owners.get(&(group, partition)) == Some(&index) {
                self.owners.remove(&(group, partition));
            }
        }
        for partition in taken {
            self.counts.moves += 1;
            if let Some(before) = self.owners.insert((group, partition), index) {
                assert!(
                    !self.consumers[before].is_sure(self.now_ms),
                    "{group}: {partition:?} of {before} is given to {index}"
                );
                self.counts.zombies += 1;
            }
        }
    }

    fn gives_up_all(&mut self, index: usize) {
        self.owners.retain(|_, owner| *owner != index);
        self.consumers[index].loses_everything();
    }

    fn quiet(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            for index in 0..self.consumers.len() {
                self.acts(index);
            }
            self.test.node.driver.settle();
            self.test.broker.move_coordinators(self.now_ms);
            self.now_ms += 100;
        }
    }

    /// Nothing happens any more: everybody settles, and soon.
    fn settles(mut self) -> World {
        self.calm = true;
        self.quiet(4 * (SESSION_MS + REBALANCE_MS));
        let topics = self.test.broker.list_topics(&self.test.caller).unwrap();
        let all: Partitions = topics
            .iter()
            .flat_map(|topic| topic.partition_ids())
            .collect();
        let mut epochs = Vec::new();
        for group in GROUPS {
            let (broker, caller) = (&self.test.broker, &self.test.caller);
            let described = broker.describe_consumer_group(caller, group).unwrap();
            assert_eq!(described.state, GroupState::Stable, "{group}");
            assert_eq!(described.members.len(), CONSUMERS / GROUPS.len());
            let members: Vec<_> = self
                .consumers
                .iter()
                .filter(|one| one.group == group)
                .collect();
            let owned: Partitions = members.iter().flat_map(|one| one.owned.clone()).collect();
            let count: usize = members.iter().map(|one| one.owned.len()).sum();
            assert_eq!(owned, all, "{group}: every partition has an owner");
            assert_eq!(count, all.len(), "{group}: and one only");
            if group != "range" {
                let loads = members.iter().map(|one| one.owned.len());
                let (least, most) = (loads.clone().min().unwrap(), loads.max().unwrap());
                assert!(most - least <= 1, "{group}: {least} and {most}");
            }
            epochs.push(described.epoch);
        }
        // And a restart disturbs nobody.
        let before: Vec<_> = self
            .consumers
            .iter()
            .map(|one| (one.epoch, one.owned.clone()))
            .collect();
        self = self.crash();
        self.quiet(3 * HEARTBEAT_MS);
        let after: Vec<_> = self
            .consumers
            .iter()
            .map(|one| (one.epoch, one.owned.clone()))
            .collect();
        assert_eq!(before, after);
        self
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
            5 => self.now_ms += self.rng.random_range(0..400),
            _ => {
                let index = self.rng.random_range(0..self.consumers.len());
                self.acts(index);
            }
        }
        if self.rng.random_ratio(1, 200) {
            self.test.node.driver.tick();
        }
        if self.rng.random_ratio(1, 2_000) {
            self.topics_change();
        }
    }

    fn crash(mut self) -> Self {
        for index in 0..self.consumers.len() {
            self.loses_answer(index);
        }
        self.counts.crashes += 1;
        self.test = self.test.crash_somehow(&mut self.rng);
        self
    }
}

fn run(seed: u64, lives: u32, turns: u32) -> (Counts, BTreeMap<&'static str, i32>) {
    let world = model::live(World::new(seed), lives, turns).settles();
    (world.counts, world.epochs)
}

#[test]
fn partitions_have_one_owner_through_anything() {
    model::run_seeds(
        12,
        |seed| run(seed, 4, 60_000).0,
        counts![Counts:
            joins, moves, deaths, hangs, leaves, absences, lost, removed, unreleased, zombies,
            topics, crashes,
        ],
    );
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(4711, 3, 10_000), run(4711, 3, 10_000));
}
