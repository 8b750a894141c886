//! Producers that retry, readers, topics that come and go, on a node that crashes in any way at any moment; afterwards
//! everything that was acknowledged or seen is there, once and in order. A seed decides every interleaving.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use common::model::{self, counts};
use common::{TestBroker, read_from, sequenced};
use mainstem_broker::{
    Broker, BrokerError, Caller, FetchRequest, Isolation, NewTopic, ProduceBatch, ProducerIdentity,
};
use mainstem_engine::testing::{Crash, Driver, TestNode};
use mainstem_journal::disk::Op;
use mainstem_log::TopicId;
use mainstem_record::Batch;
use mainstem_store::StoreError;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const TOPICS: [&str; 2] = ["first", "second"];
const PARTITIONS: u32 = 3;
const KEYED: &str = "keyed";
const PRODUCERS: usize = 4;
const CHURNED: [&str; 2] = ["come", "go"];

type Partition = (&'static str, u32);

/// What producers and readers know, beyond any crash: what real clients would.
#[derive(Default)]
struct World {
    producers: Vec<Producer>,
    /// What somebody was told or has read of each partition: offset to value.
    seen: BTreeMap<Partition, BTreeMap<i64, String>>,
    churned: BTreeMap<&'static str, Churned>,
    /// Where each partition begins, as somebody was told or has seen, and where it was asked to begin at most.
    starts: BTreeMap<Partition, i64>,
    cuts: BTreeMap<Partition, i64>,
    deleted: u64,
    /// The compacted topic: the newest offset of each key that was acknowledged or seen, and its value.
    newest: BTreeMap<String, (i64, String)>,
    /// Looks at it that found records gone.
    compacted: u64,
    acknowledged: u64,
    duplicates: u64,
    failures: u64,
    /// The run comes to its end.
    stopped: bool,
    /// The disk or the store fails at some moment of this life: calls may end in errors from then on.
    broken: bool,
    /// The power goes in this moment: somebody has just seen what would be lost if it were told too early.
    power_goes: bool,
}

#[derive(Default)]
struct Producer {
    identity: Option<ProducerIdentity>,
    next_sequence: BTreeMap<Partition, i32>,
    /// Sent and not yet acknowledged: sent again, unchanged, until it is.
    pending: Vec<(Partition, i32, Vec<String>)>,
    sent: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Debug)]
enum Churned {
    #[default]
    Gone,
    There(TopicId),
    /// A crash came before the answer.
    Unknown(Option<TopicId>),
}

type SharedWorld = Rc<RefCell<World>>;

fn see(world: &mut World, partition: Partition, offset: i64, value: String) {
    let known = world
        .seen
        .entry(partition)
        .or_default()
        .entry(offset)
        .or_insert_with(|| value.clone());
    assert_eq!(
        *known, value,
        "{partition:?} at {offset} named another record before"
    );
}

/// The outcome of a call; none where something broke, which this life then does not get over.
fn unless_broken<T>(world: &SharedWorld, outcome: Result<T, BrokerError>) -> Option<T> {
    let failed = |error: BrokerError| {
        let mut world = world.borrow_mut();
        assert!(world.broken, "{error}");
        world.failures += 1;
    };
    outcome.map_err(failed).ok()
}

/// Lets others move.
async fn pause(turns: u32) {
    for _ in 0..turns {
        let mut first = true;
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::take(&mut first) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

async fn produce(broker: Broker, caller: Caller, world: SharedWorld, me: usize, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    if world.borrow().producers[me].identity.is_none() {
        let Some(identity) = unless_broken(&world, broker.init_producer(&caller).await) else {
            return;
        };
        let taken = world
            .borrow()
            .producers
            .iter()
            .filter_map(|producer| producer.identity)
            .any(|one| one.id == identity.id);
        assert!(!taken, "a producer id was given twice");
        world.borrow_mut().producers[me].identity = Some(identity);
    }
    loop {
        let batches = {
            let mut world = world.borrow_mut();
            let stopped = world.stopped;
            let producer = &mut world.producers[me];
            if producer.pending.is_empty() {
                if stopped {
                    return;
                }
                let mut partitions = BTreeSet::new();
                for _ in 0..rng.random_range(1..4) {
                    partitions.insert((
                        TOPICS[rng.random_range(0..2)],
                        rng.random_range(0..PARTITIONS),
                    ));
                }
                for partition in partitions {
                    let values: Vec<String> = (0..rng.random_range(1..5))
                        .map(|_| {
                            producer.sent += 1;
                            format!(
                                "{me}:{}:{}",
                                producer.sent,
                                "x".repeat(rng.random_range(0..300))
                            )
                        })
                        .collect();
                    let sequence = producer.next_sequence.entry(partition).or_default();
                    producer.pending.push((partition, *sequence, values));
                    *sequence += producer.pending.last().unwrap().2.len() as i32;
                }
            }
            let identity = producer.identity.unwrap();
            let build = |((topic, partition), sequence, values): &(Partition, i32, Vec<String>)| {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                ProduceBatch {
                    topic: (*topic).into(),
                    partition: *partition,
                    batch: sequenced(identity, *sequence, &values),
                }
            };
            producer.pending.iter().map(build).collect::<Vec<_>>()
        };
        let mut call = Box::pin(broker.produce(&caller, batches, 0));
        // Now and then the producer loses patience and sends again while the first attempt is still under way.
        let patience = if rng.random_bool(0.1) {
            rng.random_range(0..20)
        } else {
            u32::MAX
        };
        let mut turns = 0;
        let outcome = std::future::poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if turns >= patience => Poll::Ready(None),
            Poll::Pending => {
                turns += 1;
                if patience < u32::MAX {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        })
        .await;
        drop(call);
        let Some(outcome) = outcome else { continue };
        let Some(outcomes) = unless_broken(&world, outcome) else {
            return;
        };
        let mut world = world.borrow_mut();
        let pending = std::mem::take(&mut world.producers[me].pending);
        assert_eq!(pending.len(), outcomes.len());
        for ((partition, _, values), outcome) in pending.into_iter().zip(outcomes) {
            let produced = outcome.unwrap();
            assert_eq!(
                produced.last_offset - produced.base_offset + 1,
                values.len() as i64
            );
            world.duplicates += u64::from(produced.duplicate);
            world.power_goes |= produced.duplicate && rng.random_bool(0.05);
            world.acknowledged += values.len() as u64;
            for (offset, value) in (produced.base_offset..).zip(values) {
                see(&mut world, partition, offset, value);
            }
        }
    }
}

async fn read(broker: Broker, caller: Caller, world: SharedWorld, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut offsets = BTreeMap::new();
    while !world.borrow().stopped {
        let partition = (
            TOPICS[rng.random_range(0..2)],
            rng.random_range(0..PARTITIONS),
        );
        let offset_of: &mut i64 = offsets.entry(partition).or_insert(0);
        let request = FetchRequest {
            topic: partition.0.into(),
            partition: partition.1,
            offset: *offset_of,
            max_bytes: rng.random_range(0..2_000),
            isolation: Isolation::ReadUncommitted,
        };
        let fetched = match broker.fetch(&caller, &request) {
            Err(BrokerError::OffsetOutOfRange {
                offset, start, end, ..
            }) => {
                // Deleted under the reader, which is told where to go on.
                assert!(offset < start && start <= end);
                assert!(start <= world.borrow().cuts[&partition]);
                begins(&mut world.borrow_mut(), partition, start);
                *offset_of = start;
                continue;
            }
            outcome => outcome,
        };
        let Some(fetched) = unless_broken(&world, fetched) else {
            return;
        };
        for record in common::records_of(&fetched.batches) {
            assert!(record.offset < fetched.high_watermark);
            if record.offset >= *offset_of {
                assert_eq!(record.offset, *offset_of);
                *offset_of += 1;
                see(
                    &mut world.borrow_mut(),
                    partition,
                    record.offset,
                    String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
                );
            }
        }
        if fetched.batches.is_empty() && rng.random_bool(0.5) && !world.borrow().stopped {
            // Producers stay busy until the end, but one partition may see nothing more: others keep this reader going.
            let topic = broker.topic(&caller, partition.0).unwrap();
            let isolation = Isolation::ReadUncommitted;
            let waiter = broker
                .wait_for_data(&caller, &topic, partition.1, *offset_of, isolation)
                .unwrap();
            let mut waiter = Box::pin(waiter);
            let mut turns = 0;
            std::future::poll_fn(|context| {
                turns += 1;
                context.waker().wake_by_ref();
                if turns > 50 {
                    Poll::Ready(())
                } else {
                    waiter.as_mut().poll(context)
                }
            })
            .await;
        }
        pause(rng.random_range(0..4)).await;
    }
}

/// A partition's start never goes back.
fn begins(world: &mut World, partition: Partition, start: i64) {
    let known = world.starts.entry(partition).or_default();
    assert!(
        *known <= start,
        "{partition:?}: {known} was the start, and now {start} is"
    );
    *known = start;
}

/// Sends records with a few keys to a compacted topic, and has it compacted.
async fn send_keyed(broker: Broker, caller: Caller, world: SharedWorld, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while !world.borrow().stopped {
        let records: Vec<_> = (0..rng.random_range(1..6))
            .map(|_| {
                let value = format!("{:x}{}", rng.random::<u64>(), "x".repeat(2_000));
                (format!("key-{}", rng.random_range(0..10)), value)
            })
            .collect();
        let sent = records
            .iter()
            .map(|(key, value)| common::record(Some(key), value))
            .collect();
        let places = broker.produce_records(&caller, KEYED, sent, 0).await;
        let Some(places) = unless_broken(&world, places) else {
            return;
        };
        for ((key, value), (_, offset)) in records.into_iter().zip(places) {
            newer(&mut world.borrow_mut(), key, offset, value);
        }
        if rng.random_bool(0.2) {
            broker.compaction_round(0).unwrap();
        }
        pause(rng.random_range(0..20)).await;
    }
}

fn newer(world: &mut World, key: String, offset: i64, value: String) {
    let known = world.newest.entry(key).or_insert((offset, value.clone()));
    if offset > known.0 {
        *known = (offset, value);
    }
}

/// Of each key the newest record is there that anybody knows of.
fn check_keyed(test: &TestBroker, world: &mut World) {
    let mut found: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for partition in 0..2 {
        let (mut offset, mut records) = (0, 0);
        loop {
            let request = FetchRequest {
                topic: KEYED.into(),
                partition,
                offset,
                max_bytes: 50_000,
                isolation: Isolation::ReadUncommitted,
            };
            let fetched = test.broker.fetch(&test.caller, &request).unwrap();
            if fetched.batches.is_empty() {
                assert_eq!(offset, fetched.high_watermark);
                world.compacted += u64::from(records < fetched.high_watermark);
                break;
            }
            for mut piece in fetched.batches {
                while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                    assert_eq!(batch.base_offset(), offset, "batches have no gaps");
                    offset = batch.next_offset();
                    for record in batch.records().unwrap().map(Result::unwrap) {
                        let text = |bytes: Option<Bytes>| {
                            String::from_utf8(bytes.unwrap().to_vec()).unwrap()
                        };
                        found.insert(text(record.key), (record.offset, text(record.value)));
                        records += 1;
                    }
                }
            }
        }
    }
    for (key, known) in &world.newest {
        let found = found.get(key);
        assert!(
            found.is_some_and(|found| found.0 > known.0 || found == known),
            "the newest record of {key} was at {}",
            known.0
        );
    }
    for (key, (offset, value)) in found {
        newer(world, key, offset, value);
    }
}

/// Deletes records from the front of partitions, one call for several of them.
async fn delete(broker: Broker, caller: Caller, world: SharedWorld, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while !world.borrow().stopped {
        let topic = TOPICS[rng.random_range(0..2)];
        let mut before = Vec::new();
        for partition in 0..PARTITIONS {
            let bounds = broker.partition_bounds(&caller, topic, partition).unwrap();
            if rng.random_bool(0.5) {
                continue;
            }
            let offset = rng.random_range(bounds.log_start..=bounds.high_watermark);
            let all = rng.random_bool(0.1);
            let most = if all { i64::MAX } else { offset };
            let mut world = world.borrow_mut();
            let cut = world.cuts.entry((topic, partition)).or_default();
            *cut = most.max(*cut);
            before.push((partition, (!all).then_some(offset)));
        }
        let outcome = broker.delete_records(&caller, topic, &before).await;
        let Some(bounds) = unless_broken(&world, outcome) else {
            return;
        };
        for ((partition, before), bounds) in before.into_iter().zip(bounds) {
            let mut world = world.borrow_mut();
            assert_eq!(bounds.partition, partition);
            assert!(before.is_none_or(|before| bounds.log_start >= before));
            begins(&mut world, (topic, partition), bounds.log_start);
            world.deleted += 1;
        }
        pause(rng.random_range(0..200)).await;
    }
}

async fn churn(broker: Broker, caller: Caller, world: SharedWorld, name: &'static str, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    // What the crash left undecided is looked up; what was acknowledged must be as it was.
    let found = broker.topic(&caller, name).ok().map(|topic| topic.id);
    let known = world
        .borrow()
        .churned
        .get(name)
        .copied()
        .unwrap_or_default();
    match known {
        Churned::Gone => assert_eq!(found, None, "{name} was deleted"),
        Churned::There(id) => assert_eq!(found, Some(id), "{name} was created"),
        Churned::Unknown(Some(id)) => assert!(
            found.is_none() || found == Some(id),
            "only the same or none"
        ),
        Churned::Unknown(None) => {}
    }
    let mut now = found;
    while !world.borrow().stopped {
        let knows = |churned| world.borrow_mut().churned.insert(name, churned);
        match now {
            None => {
                knows(Churned::Unknown(None));
                let new = NewTopic::named(name).partitions(rng.random_range(1..6));
                let created = broker.create_topic(&caller, new, 0).await;
                let Some(topic) = unless_broken(&world, created) else {
                    return;
                };
                assert_eq!(broker.topic(&caller, name).unwrap().id, topic.id);
                for partition in 0..topic.partitions {
                    assert_eq!(
                        broker
                            .partition_bounds(&caller, name, partition)
                            .unwrap()
                            .high_watermark,
                        0,
                        "it starts empty"
                    );
                }
                knows(Churned::There(topic.id));
                now = Some(topic.id);
            }
            Some(id) if rng.random_bool(0.5) => {
                knows(Churned::Unknown(Some(id)));
                let deleted = broker.delete_topic(&caller, name).await;
                let Some(()) = unless_broken(&world, deleted) else {
                    return;
                };
                assert_eq!(
                    broker.topic(&caller, name).unwrap_err().code(),
                    "topic_not_found"
                );
                knows(Churned::Gone);
                now = None;
            }
            Some(_) => {
                let sent = vec![common::record(None, name), common::record(Some("k"), name)];
                let places = broker.produce_records(&caller, name, sent, 0).await;
                let Some(places) = unless_broken(&world, places) else {
                    return;
                };
                for (partition, offset) in places {
                    let found = read_from(&broker, &caller, name, partition, offset, 500);
                    assert_eq!(found[0].value.as_deref(), Some(name.as_bytes()));
                }
            }
        }
        pause(rng.random_range(0..30)).await;
    }
}

/// One task and whether it wants to be polled.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Moves tasks and engine by turns. Ends when the turns are over, or all tasks are done. A task is polled only when it
/// was woken, so a wake that is forgotten is found: nothing moves any more.
fn schedule(
    tasks: &mut Vec<Task>,
    driver: &mut Driver,
    rng: &mut SmallRng,
    world: &SharedWorld,
    turns: u32,
) {
    let mut idle = 0;
    for _ in 0..turns {
        if tasks.is_empty() || world.borrow().power_goes {
            return;
        }
        let worked = if rng.random_bool(0.5) {
            driver.step()
        } else {
            let index = rng.random_range(0..tasks.len());
            let task = &mut tasks[index];
            if task.woken.0.swap(false, Ordering::AcqRel) {
                let waker = Waker::from(task.woken.clone());
                if task
                    .future
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {
                    tasks.swap_remove(index);
                }
                true
            } else {
                false
            }
        };
        if rng.random_ratio(1, 200) {
            driver.tick();
        }
        idle = if worked { 0 } else { idle + 1 };
        assert!(
            idle < 5_000,
            "nothing moves, and {} tasks wait",
            tasks.len()
        );
    }
}

fn tasks(test: &TestBroker, world: &SharedWorld, rng: &mut SmallRng) -> Vec<Task> {
    let mut futures: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    let with = || (test.broker.clone(), test.caller.clone(), world.clone());
    for me in 0..PRODUCERS {
        let (broker, caller, world) = with();
        futures.push(Box::pin(produce(broker, caller, world, me, rng.random())));
    }
    for _ in 0..2 {
        let (broker, caller, world) = with();
        futures.push(Box::pin(read(broker, caller, world, rng.random())));
    }
    let (broker, caller, shared) = with();
    futures.push(Box::pin(delete(broker, caller, shared, rng.random())));
    let (broker, caller, shared) = with();
    futures.push(Box::pin(send_keyed(broker, caller, shared, rng.random())));
    for name in CHURNED {
        let (broker, caller, world) = with();
        futures.push(Box::pin(churn(broker, caller, world, name, rng.random())));
    }
    futures
        .into_iter()
        .map(|future| Task {
            future,
            woken: Arc::new(Woken(AtomicBool::new(true))),
        })
        .collect()
}

/// Has the disk or the store fail after a while.
fn break_something(node: &TestNode, rng: &mut SmallRng) {
    let after = rng.random_range(0..400);
    match rng.random_range(0..4) {
        0 => node.disk.halt_after(after),
        1 => node.disk.inject(Op::Sync, after / 4, 1, ErrorKind::Other),
        2 => node.disk.inject(
            Op::Write,
            after / 2,
            rng.random_range(1..5),
            ErrorKind::StorageFull,
        ),
        _ => node.store.fail(StoreError::Closed),
    }
}

/// What a run amounts to.
#[derive(PartialEq, Debug)]
struct Outcome {
    seen: BTreeMap<Partition, BTreeMap<i64, String>>,
    acknowledged: u64,
    duplicates: u64,
    failures: u64,
    deleted: u64,
    compacted: u64,
}

/// Runs a seed and returns everything that was seen.
fn run(seed: u64, lives: u32, turns: u32) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut test = TestBroker::open(rng.random());
    let world: SharedWorld = Rc::default();
    world.borrow_mut().producers = (0..PRODUCERS).map(|_| Producer::default()).collect();
    for topic in TOPICS {
        let new = NewTopic::named(topic).partitions(PARTITIONS);
        test.run(|broker, caller| async move { broker.create_topic(&caller, new, 0).await })
            .unwrap();
    }
    let keyed = NewTopic::named(KEYED)
        .partitions(2)
        .config("cleanup.policy", "compact")
        .config("min.cleanable.dirty.ratio", "0.1");
    test.run(|broker, caller| async move { broker.create_topic(&caller, keyed, 0).await })
        .unwrap();
    for life in 1..=lives {
        let mut tasks = tasks(&test, &world, &mut rng);
        let broken = life < lives && rng.random_bool(0.4);
        world.borrow_mut().broken = broken;
        if broken {
            break_something(&test.node, &mut rng);
        }
        // Some lives are so short that what recovery has just shown is all there is to lose.
        let turns = if rng.random_bool(0.2) {
            0
        } else {
            rng.random_range(turns / 4..turns)
        };
        schedule(&mut tasks, &mut test.node.driver, &mut rng, &world, turns);
        if life == lives {
            world.borrow_mut().stopped = true;
            while !tasks.is_empty() {
                world.borrow_mut().power_goes = false;
                schedule(
                    &mut tasks,
                    &mut test.node.driver,
                    &mut rng,
                    &world,
                    u32::MAX,
                );
            }
        }
        drop(tasks);
        let power_goes = std::mem::take(&mut world.borrow_mut().power_goes);
        test = match rng.random_range(0..5) {
            _ if power_goes => test.crash(Crash::Power),
            0 if broken => test.crash(Crash::Process),
            0 => test.restart(),
            1 | 2 => test.crash(Crash::Process),
            _ => test.crash(Crash::Power),
        };
        check(&test, &mut world.borrow_mut());
    }
    let world = world.borrow();
    Outcome {
        seen: world.seen.clone(),
        acknowledged: world.acknowledged,
        duplicates: world.duplicates,
        failures: world.failures,
        deleted: world.deleted,
        compacted: world.compacted,
    }
}

/// The log against what clients know. What is read here is seen too, and must stay from now on.
fn check(test: &TestBroker, world: &mut World) {
    check_keyed(test, world);
    for topic in TOPICS {
        for partition in 0..PARTITIONS {
            let bounds = test.broker.partition_bounds(&test.caller, topic, partition);
            let start = bounds.unwrap().log_start;
            begins(world, (topic, partition), start);
            let most = world.cuts.get(&(topic, partition)).copied().unwrap_or(0);
            assert!(
                start <= most,
                "{topic}/{partition} begins at {start}, beyond {most}"
            );
            let records = test.read_all(topic, partition);
            let values = common::values(&records);
            let unique: BTreeSet<&String> = values.iter().collect();
            assert_eq!(
                unique.len(),
                values.len(),
                "{topic}/{partition} holds a record twice"
            );
            for (offset, value) in world.seen.get(&(topic, partition)).into_iter().flatten() {
                if *offset < start {
                    continue;
                }
                let found = values.get((*offset - start) as usize);
                assert_eq!(
                    found,
                    Some(value),
                    "{topic}/{partition} at {offset}: acknowledged or read before"
                );
            }
            for (offset, value) in (start..).zip(&values) {
                see(world, (topic, partition), offset, value.clone());
            }
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            for value in &values {
                let mut parts = value.split(':');
                let producer = parts.next().unwrap();
                let number: u64 = parts.next().unwrap().parse().unwrap();
                let before = last.insert(producer, number).unwrap_or(0);
                assert!(
                    before < number,
                    "{topic}/{partition}: {producer} sent {number} after {before}"
                );
            }
        }
    }
}

#[test]
fn what_was_acknowledged_or_seen_survives_everything_once_and_in_order() {
    model::run_seeds(
        30,
        |seed| Outcome {
            seen: BTreeMap::new(),
            ..run(seed, 6, 6_000)
        },
        counts![Outcome: acknowledged, duplicates, failures, deleted, compacted],
    );
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(4711, 4, 4_000), run(4711, 4, 4_000));
}
