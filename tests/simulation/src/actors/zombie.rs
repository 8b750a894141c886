//! Producers that go on under an epoch that has been replaced.

use mainstem_broker::{BrokerError, ProduceBatch};
use rand::Rng;

use super::{PRODUCED, PRODUCERS, batch};
use crate::coverage::met;
use crate::views::record_hash;
use crate::world::{After, Client, Pending};

/// A zombie was refused.
pub const FENCED: &str = "zombie producers fenced";

/// Sends now and then what no longer counts.
pub async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.clock.sleep(client.rng.random_range(20..300)).await;
        let me = client.rng.random_range(0..PRODUCERS);
        let Some((id, epoch, pending)) = choose(&mut client, me) else {
            continue;
        };
        client.operation();
        let producer = Some((id, epoch, pending.sequence));
        let sent = ProduceBatch {
            topic: pending.topic.into(),
            partition: pending.partition,
            batch: batch(
                &mut client.rng,
                producer,
                &pending.values,
                pending.timestamp_ms,
            ),
        };
        let call = client
            .broker
            .produce(&client.caller, vec![sent], client.clock.now_ms());
        let outcome = call.await.and_then(|mut outcomes| outcomes.remove(0));
        let mut world = client.world.borrow_mut();
        let is_there = matches!(outcome, Ok(_) | Err(BrokerError::DuplicateSequence { .. }));
        if let Some(zombie) = &mut world.producers[me].zombie
            && is_there
            && (zombie.identity.id, zombie.identity.epoch) == (id, epoch)
        {
            let sent = (pending.topic, pending.partition, pending.sequence);
            zombie
                .pending
                .retain(|one| (one.topic, one.partition, one.sequence) != sent);
        }
        match outcome {
            // Where the new epoch has not been heard of yet, the old one holds.
            Ok(produced) => {
                let partition = world.partition(pending.topic, pending.partition);
                for (offset, value) in (produced.base_offset..).zip(&pending.values) {
                    world.see(partition, offset, record_hash(None, Some(value.as_bytes())));
                }
            }
            Err(BrokerError::ProducerFenced { .. }) => met(FENCED),
            Err(BrokerError::OutOfOrderSequence { .. } | BrokerError::DuplicateSequence { .. }) => {
            }
            Err(error) => {
                if world.after(&error) == After::Over {
                    return;
                }
            }
        }
    }
}

/// What the zombie of a producer sends next: something it had not heard of, or something new.
fn choose(client: &mut Client, me: usize) -> Option<(i64, i16, Pending)> {
    let (rng, now_ms) = (&mut client.rng, client.clock.now_ms());
    let mut world = client.world.borrow_mut();
    let zombie = world.producers[me].zombie.as_mut()?;
    let identity = zombie.identity;
    let known = zombie.pending.len();
    let (topic, partition) = match known > 0 && rng.random_bool(0.5) {
        true => {
            let one = &zombie.pending[rng.random_range(0..known)];
            (one.topic, one.partition)
        }
        false => {
            let (topic, partitions) = PRODUCED[rng.random_range(0..PRODUCED.len())];
            (topic, rng.random_range(0..partitions))
        }
    };
    // It is late, and not lost: what it has not heard of goes first, as with any client.
    let mut pending = zombie.pending.iter();
    if let Some(first) = pending.find(|one| (one.topic, one.partition) == (topic, partition)) {
        return Some((identity.id, identity.epoch, first.clone()));
    }
    let sequence = zombie.next_sequence.entry((topic, partition)).or_default();
    let pending = Pending {
        number: 0,
        topic,
        partition,
        sequence: *sequence,
        values: vec![format!("zombie:{me}:{}:{sequence}", identity.epoch)],
        timestamp_ms: now_ms,
    };
    *sequence += 1;
    zombie.pending.push_back(pending.clone());
    Some((identity.id, identity.epoch, pending))
}
