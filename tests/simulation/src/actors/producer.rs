//! An idempotent producer: several calls under way, retries over new connections, now and then a new epoch.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use mainstem_broker::{BrokerError, ProduceBatch, Produced};
use rand::Rng;

use super::{PRODUCED, batch, filler};
use crate::clock::Clock;
use crate::coverage::met;
use crate::note;
use crate::views::record_hash;
use crate::world::{After, Client, Pending, Zombie};

/// A retry was answered as one.
pub const DUPLICATE: &str = "duplicates answered";
/// A batch behind one that was refused.
pub const OUT_OF_ORDER: &str = "batches behind a refused one refused";

/// Writes were refused for want of space, and taken again in the same life.
pub const SHORTAGE_ENDED: &str = "space shortage refused and ended";

/// Calls that may be under way at a time.
const CALLS: usize = 3;
/// With so many batches without an answer it waits: a retry is known by the last five batches on a partition.
const BATCHES: usize = 3;

type Outcome = Result<Vec<Result<Produced, BrokerError>>, BrokerError>;

/// A call under way, and the numbers of its batches.
struct Call {
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    batches: Vec<u64>,
}

/// Produces until the node is of no use, or the run ends and all is acknowledged.
pub async fn run(mut client: Client, me: usize) {
    if !identify(&client, me).await {
        return;
    }
    let mut calls: Vec<Call> = Vec::new();
    // What an earlier connection had not heard of goes first.
    let mut resend = true;
    loop {
        let waiting = client.world.borrow().producers[me].pending.len();
        if waiting == 0 && client.is_stopping() {
            client.world.borrow_mut().finished += 1;
            return;
        }
        if resend && calls.is_empty() {
            resend = false;
            let pending: Vec<Pending> = client.world.borrow().producers[me]
                .pending
                .iter()
                .cloned()
                .collect();
            if !pending.is_empty() {
                calls.push(send(&mut client, me, &pending));
            }
        } else if !resend && calls.len() < CALLS && !client.is_stopping() && waiting < BATCHES {
            if calls.is_empty() && client.rng.random_bool(0.02) {
                raise_epoch(&client, me);
            }
            let new = new_batches(&mut client, me);
            calls.push(send(&mut client, me, &new));
        }
        // Now and then it loses patience, and sends everything again over a new connection.
        let patience = if client.rng.random_bool(0.06) {
            client.rng.random_range(0..30)
        } else {
            60_000
        };
        let think = client.rng.random_range(0..40);
        match next(
            &client.clock,
            &mut calls,
            if resend {
                patience
            } else {
                patience.min(think)
            },
        )
        .await
        {
            Some((batches, outcome)) => match settle(&mut client, me, &batches, outcome) {
                Some(again) => resend |= again,
                None => return,
            },
            None if patience <= think => {
                note!(
                    client.world.borrow().trace,
                    "    producer {me} loses patience with {} calls",
                    calls.len()
                );
                calls.clear();
                resend = true;
            }
            None => {}
        }
        if resend && calls.is_empty() {
            client.clock.sleep(client.rng.random_range(0..50)).await;
        }
    }
}

async fn identify(client: &Client, me: usize) -> bool {
    if client.world.borrow().producers[me].identity.is_some() {
        return true;
    }
    loop {
        client.operation();
        match client.broker.init_producer(&client.caller).await {
            Ok(identity) => {
                let mut world = client.world.borrow_mut();
                let mut others = world.producers.iter().filter_map(|one| one.identity);
                assert!(
                    others.all(|one| one.id != identity.id),
                    "a producer id was given twice"
                );
                drop(others);
                world.producers[me].identity = Some(identity);
                return true;
            }
            Err(error) => {
                if client.after(&error) == After::Over {
                    return false;
                }
                client.clock.sleep(50).await;
            }
        }
    }
}

/// Waits for an answer, at most so long.
async fn next(clock: &Clock, calls: &mut Vec<Call>, ms: i64) -> Option<(Vec<u64>, Outcome)> {
    let mut sleep = clock.sleep(ms);
    std::future::poll_fn(|context| {
        for index in 0..calls.len() {
            if let Poll::Ready(outcome) = calls[index].future.as_mut().poll(context) {
                let call = calls.remove(index);
                return Poll::Ready(Some((call.batches, outcome)));
            }
        }
        Pin::new(&mut sleep).poll(context).map(|()| None)
    })
    .await
}

fn new_batches(client: &mut Client, me: usize) -> Vec<Pending> {
    let mut new = Vec::new();
    let now_ms = client.clock.now_ms();
    let rng = &mut client.rng;
    let mut world = client.world.borrow_mut();
    let producer = &mut world.producers[me];
    for _ in 0..rng.random_range(1..3) {
        let (topic, partitions) = PRODUCED[rng.random_range(0..PRODUCED.len())];
        let partition = rng.random_range(0..partitions);
        let mut values = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            producer.sent += 1;
            values.push(format!("{me}:{}:{}", producer.sent, filler(rng)));
        }
        let sequence = producer
            .next_sequence
            .entry((topic, partition))
            .or_default();
        let pending = Pending {
            number: producer.sent,
            topic,
            partition,
            sequence: *sequence,
            timestamp_ms: now_ms - rng.random_range(0..200),
            values,
        };
        *sequence += pending.values.len() as i32;
        producer.pending.push_back(pending.clone());
        new.push(pending);
    }
    new
}

fn send(client: &mut Client, me: usize, pending: &[Pending]) -> Call {
    client.operation();
    let identity = client.world.borrow().producers[me].identity;
    let identity = identity.expect("it was given one");
    let mut batches = Vec::new();
    for one in pending {
        let producer = Some((identity.id, identity.epoch, one.sequence));
        batches.push(ProduceBatch {
            topic: one.topic.into(),
            partition: one.partition,
            batch: batch(&mut client.rng, producer, &one.values, one.timestamp_ms),
        });
    }
    let numbers: Vec<u64> = pending.iter().map(|one| one.number).collect();
    note!(
        client.world.borrow().trace,
        "    producer {me} sends {numbers:?}"
    );
    let (broker, caller, now_ms) = (
        client.broker.clone(),
        client.caller.clone(),
        client.clock.now_ms(),
    );
    Call {
        future: Box::pin(async move { broker.produce(&caller, batches, now_ms).await }),
        batches: numbers,
    }
}

/// Takes an answer in. Says whether something is to be sent again; none where the node is of no use.
fn settle(client: &mut Client, me: usize, numbers: &[u64], outcome: Outcome) -> Option<bool> {
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        Err(error) => return (client.after(&error) == After::Retry).then_some(true),
    };
    assert_eq!(numbers.len(), outcomes.len());
    let mut again = false;
    for (number, outcome) in numbers.iter().zip(outcomes) {
        let mut world = client.world.borrow_mut();
        let pending = &mut world.producers[me].pending;
        let at = pending.iter().position(|one| one.number == *number);
        match outcome {
            Ok(produced) => {
                let Some(one) = at.and_then(|at| pending.remove(at)) else {
                    continue;
                };
                note!(
                    world.trace,
                    "    producer {me}: {number} stands at {}",
                    produced.base_offset
                );
                let count = produced.last_offset - produced.base_offset + 1;
                assert_eq!(
                    count,
                    one.values.len() as i64,
                    "an answer is for the whole batch"
                );
                let partition = world.partition(one.topic, one.partition);
                for (offset, value) in (produced.base_offset..).zip(&one.values) {
                    world.see(partition, offset, record_hash(None, Some(value.as_bytes())));
                }
                world.see_start(partition, produced.log_start);
                if std::mem::take(&mut world.refused_full) {
                    met(SHORTAGE_ENDED);
                }
                if produced.duplicate {
                    met(DUPLICATE);
                    world.power_goes |= !world.stopping && client.rng.random_bool(0.05);
                }
            }
            Err(BrokerError::OutOfOrderSequence { .. }) => {
                met(OUT_OF_ORDER);
                again = true;
            }
            Err(error) => {
                if world.after(&error) == After::Over {
                    return None;
                }
                again = true;
            }
        }
    }
    Some(again)
}

/// Begins anew with a higher epoch, as a producer does that was restarted: what it had not heard of is for its zombie.
fn raise_epoch(client: &Client, me: usize) {
    let mut world = client.world.borrow_mut();
    let producer = &mut world.producers[me];
    let Some(identity) = &mut producer.identity else {
        return;
    };
    producer.zombie = Some(Zombie {
        identity: *identity,
        next_sequence: std::mem::take(&mut producer.next_sequence),
        pending: std::mem::take(&mut producer.pending),
    });
    identity.epoch += 1;
}
