//! Transactional producers of both kinds, their zombies, their timeouts, and consumers' offsets that go with them, on a node
//! that crashes in any way at any moment. A seed decides everything.
//!
//! What must hold: who reads committed sees of each transaction all records in their order or none, and those of a commit
//! that was answered; a group's offset is that of the last committed transaction, or of a later one whose answer was lost,
//! never one without the other; nothing of a transaction that a producer was told is aborted, or was fenced off, is ever
//! seen; and once nothing happens any more, nothing stays open.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use common::model::{self, Call, counts, first_poll};
use common::{TestBroker, records_of, values};
use mainstem_broker::{
    Broker, BrokerError, Caller, FetchRequest, GroupCommit, GroupMember, Isolation, NewTopic,
    OffsetCommit, PlacedBatch, ProducerIdentity, TransactionCommit, TransactionFilter,
    TransactionState, TransactionalProducer,
};
use mainstem_engine::testing::{poll_once, small_options};
use mainstem_record::{Batch, BatchBuilder, Compression};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const IDS: usize = 6;
const PARTITIONS: u32 = 4;
const TOPIC: &str = "written";
const INPUT: &str = "read";
const TIMEOUT_MS: i64 = 5_000;

/// A transaction, by its number: which producer began it, and what was put into it.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    id: usize,
    /// By partition: values whose batches were answered, and those whose answer is not known.
    written: BTreeMap<u32, Vec<String>>,
    unknown: BTreeMap<u32, Vec<String>>,
    /// Whether an offset goes with it: then it is this number.
    offset: bool,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its end was not asked for; so it is aborted at last.
    Open,
    /// Its commit was asked for and not answered.
    Unknown,
    Committed,
    Aborted,
}

/// What a producer waits for.
enum Doing {
    Nothing,
    Init(Call<ProducerIdentity>),
    Adding(u32, Call<Vec<Result<(), BrokerError>>>),
    Writing(
        u32,
        String,
        Call<Vec<Result<mainstem_broker::Produced, BrokerError>>>,
    ),
    Offsets(Call<Vec<Result<(), BrokerError>>>),
    Ending(bool, Call<ProducerIdentity>),
}

struct Producer {
    id: usize,
    /// Whether it speaks the protocol with an epoch a transaction (KIP-890).
    implicit: bool,
    identity: Option<ProducerIdentity>,
    /// The number of its open transaction.
    transaction: Option<u64>,
    added: BTreeSet<u32>,
    sequences: BTreeMap<u32, i32>,
    doing: Doing,
}

#[derive(Default, PartialEq, Debug, Clone, Copy)]
struct Counts {
    commits: u64,
    aborts: u64,
    fenced: u64,
    timeouts: u64,
    offsets: u64,
    crashes: u64,
    /// Commits under way at a crash: of those, the ones that were there afterwards, and the ones that were not.
    crashed_commits: u64,
    unstable: u64,
    open_at_crash: u64,
    restarted_open: u64,
}

#[derive(PartialEq, Debug)]
struct Told {
    sent: BTreeMap<u64, Sent>,
    counts: Counts,
}

struct World {
    test: TestBroker,
    rng: SmallRng,
    now_ms: i64,
    producers: Vec<Producer>,
    /// Processes that were replaced and go on.
    zombies: Vec<Producer>,
    told: Told,
    next_number: u64,
    next_value: u64,
    calm: bool,
}

impl Producer {
    fn new(id: usize) -> Producer {
        Producer {
            id,
            implicit: id.is_multiple_of(2),
            identity: None,
            transaction: None,
            added: BTreeSet::new(),
            sequences: BTreeMap::new(),
            doing: Doing::Nothing,
        }
    }

    fn name(&self) -> String {
        format!("producer-{}", self.id)
    }

    fn speaks(&self) -> TransactionalProducer {
        TransactionalProducer {
            id: self.name(),
            identity: self.identity.unwrap(),
        }
    }

    /// Its transaction is over, for it.
    fn forget(&mut self) {
        self.transaction = None;
        self.added.clear();
    }
}

fn batch(producer: ProducerIdentity, sequence: i32, value: &str) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder
        .producer(producer.id, producer.epoch, sequence)
        .transactional();
    builder
        .append(1, None, Some(value.as_bytes()), &[])
        .unwrap();
    builder.build().unwrap()
}

fn is_fenced(error: &BrokerError) -> bool {
    matches!(
        error.code(),
        "producer_fenced" | "invalid_producer_mapping" | "invalid_transaction_state"
    )
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut options = small_options();
        if rng.random() {
            // Batches go to their segments first.
            options.reference_bytes = 1;
        }
        let mut test = TestBroker::open_with(rng.random(), options);
        for name in [TOPIC, INPUT] {
            let topic = NewTopic::named(name).partitions(PARTITIONS);
            test.run(|broker, caller| async move { broker.create_topic(&caller, topic, 0).await })
                .unwrap();
        }
        World {
            test,
            rng,
            now_ms: 1,
            producers: (0..IDS).map(Producer::new).collect(),
            zombies: Vec::new(),
            told: Told {
                sent: BTreeMap::new(),
                counts: Counts::default(),
            },
            next_number: 1,
            next_value: 1,
            calm: false,
        }
    }

    fn handles(&self) -> (Broker, Caller, i64) {
        let (broker, caller) = (self.test.broker.clone(), self.test.caller.clone());
        (broker, caller, self.now_ms)
    }

    fn acts(&mut self, producer: &mut Producer) {
        let doing = std::mem::replace(&mut producer.doing, Doing::Nothing);
        producer.doing = match doing {
            Doing::Nothing => self.begins(producer),
            Doing::Init(mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Init(call),
                Poll::Ready(identity) => {
                    producer.identity = Some(identity.unwrap());
                    producer.sequences.clear();
                    producer.forget();
                    Doing::Nothing
                }
            },
            Doing::Adding(partition, mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Adding(partition, call),
                Poll::Ready(Ok(outcomes)) => {
                    assert!(outcomes.iter().all(Result::is_ok));
                    producer.added.insert(partition);
                    Doing::Nothing
                }
                Poll::Ready(Err(error)) => self.refused(producer, &error),
            },
            Doing::Writing(partition, value, mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Writing(partition, value, call),
                Poll::Ready(outcome) => {
                    let outcome = outcome.map(|mut outcomes| outcomes.pop().unwrap());
                    match outcome.and_then(|outcome| outcome) {
                        Ok(_) => {
                            let number = producer.transaction.unwrap();
                            let sent = self.told.sent.get_mut(&number).unwrap();
                            sent.unknown.remove(&partition);
                            sent.written.entry(partition).or_default().push(value);
                            *producer.sequences.entry(partition).or_default() += 1;
                            Doing::Nothing
                        }
                        Err(error) => {
                            // It is known not to be there.
                            let number = producer.transaction.unwrap();
                            let sent = self.told.sent.get_mut(&number).unwrap();
                            sent.unknown.remove(&partition);
                            self.refused(producer, &error)
                        }
                    }
                }
            },
            Doing::Offsets(mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Offsets(call),
                Poll::Ready(Ok(outcomes)) => {
                    assert!(outcomes.iter().all(Result::is_ok));
                    let number = producer.transaction.unwrap();
                    self.told.sent.get_mut(&number).unwrap().offset = true;
                    self.told.counts.offsets += 1;
                    Doing::Nothing
                }
                Poll::Ready(Err(error)) => self.refused(producer, &error),
            },
            Doing::Ending(commit, mut call) => match poll_once(call.as_mut()) {
                Poll::Pending => Doing::Ending(commit, call),
                Poll::Ready(Ok(next)) => {
                    let number = producer.transaction.unwrap();
                    let sent = self.told.sent.get_mut(&number).unwrap();
                    if commit {
                        sent.fate = Fate::Committed;
                        self.told.counts.commits += 1;
                    } else {
                        sent.fate = Fate::Aborted;
                        self.told.counts.aborts += 1;
                    }
                    if producer.identity != Some(next) {
                        producer.sequences.clear();
                    }
                    producer.identity = Some(next);
                    producer.forget();
                    Doing::Nothing
                }
                Poll::Ready(Err(error)) => self.refused(producer, &error),
            },
        };
    }

    /// A producer that is told it is not the one any more: its transaction is aborted, it asks for its next life.
    fn refused(&mut self, producer: &mut Producer, error: &BrokerError) -> Doing {
        assert!(is_fenced(error), "{}: {error}", producer.name());
        self.told.counts.fenced += 1;
        if let Some(number) = producer.transaction.take() {
            let sent = self.told.sent.get_mut(&number).unwrap();
            // A refused commit did not happen.
            sent.fate = Fate::Aborted;
        }
        producer.identity = None;
        producer.forget();
        Doing::Nothing
    }

    fn begins(&mut self, producer: &mut Producer) -> Doing {
        let (broker, caller, now_ms) = self.handles();
        let name = producer.name();
        let Some(identity) = producer.identity else {
            return Doing::Init(first_poll(Box::pin(async move {
                let init = broker.init_transactional(&caller, &name, TIMEOUT_MS, None, now_ms);
                init.await
            })));
        };
        if self.calm && producer.transaction.is_none() {
            return Doing::Nothing;
        }
        let speaks = producer.speaks();
        let number = match producer.transaction {
            Some(number) => number,
            None => {
                let number = self.next_number;
                self.next_number += 1;
                producer.transaction = Some(number);
                let sent = Sent {
                    id: producer.id,
                    written: BTreeMap::new(),
                    unknown: BTreeMap::new(),
                    offset: false,
                    fate: Fate::Open,
                };
                self.told.sent.insert(number, sent);
                number
            }
        };
        let implicit = producer.implicit;
        let sent = self.told.sent.get_mut(&number).unwrap();
        let is_empty = sent.written.is_empty() && !sent.offset;
        let partition = self.rng.random_range(0..PARTITIONS);
        match self.rng.random_range(0..10) {
            0..=1 if !is_empty => {
                let commit = self.rng.random_bool(0.7);
                if commit {
                    sent.fate = Fate::Unknown;
                }
                Doing::Ending(
                    commit,
                    first_poll(Box::pin(async move {
                        let end =
                            broker.end_transaction(&caller, &speaks, commit, implicit, now_ms);
                        end.await
                    })),
                )
            }
            2 if !sent.offset => Doing::Offsets(first_poll(Box::pin(async move {
                let group = format!("group-{name}");
                if !implicit {
                    broker.add_offsets(&caller, &speaks, &group, now_ms).await?;
                }
                let commit = TransactionCommit {
                    producer: speaks,
                    adds_group: implicit,
                    commit: GroupCommit {
                        knows_epochs: true,
                        member: GroupMember {
                            group,
                            generation: -1,
                            ..GroupMember::default()
                        },
                        offsets: vec![OffsetCommit {
                            topic: INPUT.into(),
                            offset: number as i64,
                            ..OffsetCommit::default()
                        }],
                    },
                };
                broker
                    .commit_transaction_offsets(&caller, commit, now_ms)
                    .await
            }))),
            _ if !implicit && !producer.added.contains(&partition) => {
                let partitions = vec![(TOPIC.to_owned(), partition)];
                Doing::Adding(
                    partition,
                    first_poll(Box::pin(async move {
                        let add = broker.add_partitions(&caller, &speaks, &partitions, now_ms);
                        add.await
                    })),
                )
            }
            _ => {
                let value = format!("{number}:{}", self.next_value);
                self.next_value += 1;
                sent.unknown.insert(partition, vec![value.clone()]);
                let sequence = producer.sequences.get(&partition).copied().unwrap_or(0);
                let placed = PlacedBatch {
                    topic: broker.topic(&caller, TOPIC).unwrap(),
                    partition,
                    batch: batch(identity, sequence, &value),
                };
                let call = Box::pin(async move {
                    let batches = vec![placed];
                    broker
                        .produce_in_transaction(&caller, &name, implicit, batches, now_ms)
                        .await
                });
                Doing::Writing(partition, value, first_poll(call))
            }
        }
    }

    /// What a reader of committed records sees of each transaction, in order, by partition; and everybody's last offset.
    fn check_transactions(&mut self, all_over: bool) {
        let mut seen: BTreeMap<u64, BTreeMap<u32, Vec<String>>> = BTreeMap::new();
        // The log shows a frame a moment before the store does.
        self.test.node.driver.settle();
        // Where nothing is open, all that is committed can be seen.
        let mut settled = [false; PARTITIONS as usize];
        for partition in 0..PARTITIONS {
            let request = |offset, isolation| FetchRequest {
                topic: TOPIC.into(),
                partition,
                offset,
                max_bytes: 2_000,
                isolation,
            };
            let (broker, caller) = (&self.test.broker, &self.test.caller);
            let mut offset = 0;
            loop {
                let topic = broker.topic(caller, TOPIC).unwrap();
                let delivered = broker
                    .fetch_delivered(caller, &topic, partition, offset, 2_000)
                    .unwrap();
                let fetched = broker
                    .fetch(caller, &request(offset, Isolation::ReadCommitted))
                    .unwrap();
                // Who filters by the list, as Kafka's clients do, sees the same.
                assert_eq!(delivered.next_offset, fetched.next_offset);
                let by_list = filtered(&fetched);
                let values = values(&records_of(&delivered.batches));
                assert_eq!(values, by_list);
                for value in values {
                    let number: u64 = value.split(':').next().unwrap().parse().unwrap();
                    let of = seen.entry(number).or_default();
                    of.entry(partition).or_default().push(value);
                }
                if fetched.next_offset == offset {
                    assert_eq!(offset, fetched.last_stable);
                    settled[partition as usize] = fetched.last_stable == fetched.high_watermark;
                    break;
                }
                offset = fetched.next_offset;
            }
        }
        let mut offsets = BTreeMap::new();
        for id in 0..IDS {
            let group = format!("group-producer-{id}");
            let (broker, caller) = (&self.test.broker, &self.test.caller);
            let found = broker.fetch_offsets(caller, &group, INPUT, &[0]).unwrap();
            offsets.insert(id, found[0].as_ref().map_or(0, |one| one.offset as u64));
            let unstable = broker.unstable_offsets(caller, &group).unwrap();
            if !unstable.is_empty() {
                assert_eq!(unstable, [(INPUT.to_owned(), 0)]);
                assert!(!all_over);
                self.told.counts.unstable += 1;
            }
        }
        let stable = settled.iter().all(|settled| *settled);
        for (number, sent) in &self.told.sent {
            let of = seen.remove(number);
            let is_there = of.is_some();
            let of = of.unwrap_or_default();
            match sent.fate {
                Fate::Committed => assert_whole(*number, sent, &of, &settled),
                Fate::Unknown if is_there => assert_whole(*number, sent, &of, &settled),
                Fate::Unknown => {}
                Fate::Open | Fate::Aborted => assert!(!is_there, "{number}: {sent:?}"),
            }
            if sent.offset {
                let offset = offsets[&sent.id];
                match sent.fate {
                    Fate::Committed => assert!(offset >= *number, "{number}'s offset is lost"),
                    Fate::Unknown if is_there && !sent.written.is_empty() => {
                        assert!(offset >= *number, "{number} has lost its offset");
                    }
                    _ => {}
                }
                if offset == *number {
                    assert!(
                        matches!(sent.fate, Fate::Committed | Fate::Unknown),
                        "{sent:?}"
                    );
                    // Offsets and records together: where the last stable offset has come past it.
                    assert!(
                        is_there || sent.written.is_empty() || !stable,
                        "{number} is torn"
                    );
                }
            }
        }
        assert!(seen.is_empty(), "of nobody: {seen:?}");
        assert!(!all_over || stable, "something is open for ever");
    }

    /// Nothing new begins: everything ends, at last by its timeout.
    fn settles(&mut self) {
        self.calm = true;
        self.zombies.clear();
        for _ in 0..200 {
            // Every third one has died, and what it has open is for the time to end.
            for index in (0..IDS).filter(|index| !index.is_multiple_of(3)) {
                let next = Producer::new(index);
                let mut producer = std::mem::replace(&mut self.producers[index], next);
                self.acts(&mut producer);
                self.producers[index] = producer;
            }
            self.test.node.driver.settle();
            self.test.broker.move_coordinators(self.now_ms);
        }
        let (broker, caller, _) = self.handles();
        let ongoing = TransactionFilter {
            states: vec![TransactionState::Ongoing],
            ..TransactionFilter::default()
        };
        let open = broker
            .list_transactions(&caller, &ongoing, self.now_ms)
            .unwrap();
        self.told.counts.timeouts += open.len() as u64;
        for _ in 0..20 {
            self.now_ms += TIMEOUT_MS;
            self.test.broker.move_coordinators(self.now_ms);
            self.test.node.driver.settle();
        }
        let open = broker
            .list_transactions(&caller, &ongoing, self.now_ms)
            .unwrap();
        assert_eq!(open, [], "they have timed out");
        for sent in self.told.sent.values_mut() {
            if sent.fate == Fate::Open {
                sent.fate = Fate::Aborted;
            }
        }
        self.check_transactions(true);
    }
}

/// All of a committed transaction is seen; beyond the last stable offset not yet, and in its order.
fn assert_whole(number: u64, sent: &Sent, of: &BTreeMap<u32, Vec<String>>, settled: &[bool]) {
    for partition in 0..PARTITIONS {
        let seen = of.get(&partition).map_or(&[][..], Vec::as_slice);
        let written = sent.written.get(&partition).map_or(&[][..], Vec::as_slice);
        let is_whole = match settled[partition as usize] {
            true => seen == written,
            false => written.starts_with(seen),
        };
        assert!(
            is_whole,
            "transaction {number} is torn in {partition}: {seen:?}, {sent:?}"
        );
    }
}

/// What a Kafka client delivers: it is told of aborted transactions by their first offsets, and sees the markers.
fn filtered(fetched: &mainstem_broker::Fetched) -> Vec<String> {
    let mut begins = fetched.aborted.clone();
    begins.reverse();
    let mut aborted = BTreeSet::new();
    let mut kept = Vec::new();
    for piece in &fetched.batches {
        let mut rest = piece.clone();
        while let Some(batch) = Batch::split_first(&mut rest).unwrap() {
            let header = batch.header();
            while let Some(one) = begins.pop_if(|one| one.first_offset <= batch.last_offset()) {
                aborted.insert(one.producer_id);
            }
            if header.is_control() {
                if mainstem_record::Marker::read(batch.bytes())
                    == Some(mainstem_record::Marker::Abort)
                {
                    aborted.remove(&header.producer_id);
                }
            } else if !(header.is_transactional() && aborted.contains(&header.producer_id)) {
                kept.extend(values(&records_of(std::slice::from_ref(batch.bytes()))));
            }
        }
    }
    kept
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
            5 if self.rng.random_bool(0.2) => self.now_ms += self.rng.random_range(0..20),
            6 if !self.zombies.is_empty() => {
                let index = self.rng.random_range(0..self.zombies.len());
                let mut zombie = self.zombies.swap_remove(index);
                self.acts(&mut zombie);
                // One that was told is gone; and none lives for ever.
                if zombie.identity.is_some() && self.rng.random_ratio(49, 50) {
                    self.zombies.push(zombie);
                }
            }
            _ => {
                let index = self.rng.random_range(0..IDS);
                let next = Producer::new(index);
                let mut producer = std::mem::replace(&mut self.producers[index], next);
                if !self.calm && self.rng.random_ratio(1, 300) && producer.identity.is_some() {
                    // Another process takes over, and this one does not know.
                    self.zombies.push(producer);
                    return;
                }
                if self.rng.random_ratio(1, 400) {
                    // It sleeps: its transaction may be too old when it wakes up.
                    self.now_ms += TIMEOUT_MS / 4;
                }
                self.acts(&mut producer);
                self.producers[index] = producer;
            }
        }
        if self.rng.random_ratio(1, 200) {
            self.test.node.driver.tick();
        }
    }

    fn crash(mut self) -> Self {
        let producers = self.producers.iter_mut().chain(&mut self.zombies);
        for producer in producers {
            let ending = matches!(producer.doing, Doing::Ending(true, _));
            self.told.counts.crashed_commits += u64::from(ending);
            self.told.counts.open_at_crash += u64::from(producer.transaction.is_some());
            // A call under way is lost; what it was about may have happened, and nobody knows.
            let unknown = !matches!(producer.doing, Doing::Nothing);
            producer.doing = Doing::Nothing;
            if unknown || self.rng.random_bool(0.5) {
                producer.identity = None;
                producer.forget();
            }
        }
        self.zombies.retain(|one| one.identity.is_some());
        self.told.counts.crashes += 1;
        self.test = self.test.crash_somehow(&mut self.rng);
        let open = TransactionFilter {
            states: vec![TransactionState::Ongoing],
            ..TransactionFilter::default()
        };
        let (broker, caller) = (&self.test.broker, &self.test.caller);
        let open = broker
            .list_transactions(caller, &open, self.now_ms)
            .unwrap();
        self.told.counts.restarted_open += open.len() as u64;
        self.check_transactions(false);
        self
    }

    fn check(&mut self) {
        self.check_transactions(false);
    }
}

fn run(seed: u64, lives: u32, turns: u32) -> Told {
    let mut world = model::live(World::new(seed), lives, turns);
    world.settles();
    world.told
}

#[test]
fn transactions_are_seen_whole_or_not_at_all_through_zombies_timeouts_and_crashes() {
    model::run_seeds(
        20,
        |seed| run(seed, 4, 20_000).counts,
        counts![Counts:
            commits,
            aborts,
            fenced,
            timeouts,
            offsets,
            crashes,
            crashed_commits,
            unstable,
            open_at_crash,
            restarted_open,
        ],
    );
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(4711, 3, 5_000), run(4711, 3, 5_000));
}
