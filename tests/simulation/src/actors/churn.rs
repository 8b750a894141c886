//! A topic that is created, written to, widened and deleted, over and over.

use mainstem_broker::{BrokerError, NewRecord, NewTopic, TopicChange};
use mainstem_log::PartitionId;
use rand::Rng;

use super::filler;
use crate::note;
use crate::views::record_hash;
use crate::world::{After, Churned, Client};

/// Changes the topic `name` until the run ends.
pub async fn run(mut client: Client, name: &'static str) {
    let mut now = look_up(&client, name);
    while !client.is_stopping() {
        client.operation();
        let outcome = match now {
            Churned::There(..) => match client.rng.random_range(0..100) {
                0..25 => delete(&client, name, now).await,
                25..35 => widen(&client, name, now).await,
                _ => write(&mut client, name, now).await,
            },
            _ => create(&mut client, name).await,
        };
        match outcome {
            Ok(next) => {
                note!(client.world.borrow().trace, "    {name}: {next:?}");
                client.world.borrow_mut().churned.insert(name, next);
                now = next;
            }
            Err(error) => {
                if client.after(&error) == After::Over {
                    return;
                }
                if matches!(error, BrokerError::Engine(_)) {
                    // It may have been done, and not be read again.
                    now = look_up(&client, name);
                } else {
                    // A refusal: nothing was done.
                    client.world.borrow_mut().churned.insert(name, now);
                }
            }
        }
        client.clock.sleep(client.rng.random_range(0..150)).await;
    }
}

/// What the last life left undecided is looked up; what was acknowledged must be as it was.
fn look_up(client: &Client, name: &'static str) -> Churned {
    let found = client.broker.topic(&client.caller, name).ok();
    let found = found.map(|topic| (topic.id, topic.partitions));
    let mut world = client.world.borrow_mut();
    let known = world.churned.get(name).copied().unwrap_or_default();
    let right = match (known, found) {
        (Churned::Gone, found) => found.is_none(),
        (Churned::There(id, partitions), found) => {
            found.is_some_and(|(now, has)| now == id && has >= partitions)
        }
        (Churned::Unknown(Some(id)), Some((now, _))) => now == id,
        (Churned::Unknown(_), _) => true,
    };
    assert!(right, "topic {name} was {known:?}, now it is {found:?}");
    let now = found.map_or(Churned::Gone, |(id, partitions)| {
        Churned::There(id, partitions)
    });
    world.churned.insert(name, now);
    now
}

fn unknown(client: &Client, name: &'static str, topic: Option<mainstem_log::TopicId>) {
    client
        .world
        .borrow_mut()
        .churned
        .insert(name, Churned::Unknown(topic));
}

async fn create(client: &mut Client, name: &'static str) -> Result<Churned, BrokerError> {
    unknown(client, name, None);
    let new = NewTopic::named(name).partitions(client.rng.random_range(1..5));
    let topic = client
        .broker
        .create_topic(&client.caller, new, client.clock.now_ms())
        .await?;
    let shown = client.broker.topic(&client.caller, name)?;
    assert_eq!(shown.id, topic.id, "what was created is shown");
    for partition in 0..topic.partitions {
        let bounds = client
            .broker
            .partition_bounds(&client.caller, name, partition)?;
        assert_eq!(bounds.high_watermark, 0, "a new topic is empty");
        client
            .world
            .borrow_mut()
            .see_end(PartitionId::new(topic.id, partition), 0);
    }
    Ok(Churned::There(topic.id, topic.partitions))
}

async fn delete(client: &Client, name: &'static str, now: Churned) -> Result<Churned, BrokerError> {
    let Churned::There(id, _) = now else {
        return Ok(now);
    };
    unknown(client, name, Some(id));
    client.broker.delete_topic(&client.caller, name).await?;
    let shown = client.broker.topic(&client.caller, name);
    assert!(
        matches!(shown, Err(BrokerError::TopicNotFound { .. })),
        "a deleted topic is shown: {shown:?}"
    );
    Ok(Churned::Gone)
}

async fn widen(client: &Client, name: &'static str, now: Churned) -> Result<Churned, BrokerError> {
    let Churned::There(id, partitions) = now else {
        return Ok(now);
    };
    let change = TopicChange {
        partitions: Some(partitions + 1),
        ..TopicChange::default()
    };
    let wider = client
        .broker
        .alter_topic(&client.caller, name, change)
        .await?;
    assert_eq!((wider.id, wider.partitions), (id, partitions + 1));
    client
        .world
        .borrow_mut()
        .see_end(PartitionId::new(id, partitions), 0);
    Ok(Churned::There(id, partitions + 1))
}

async fn write(
    client: &mut Client,
    name: &'static str,
    now: Churned,
) -> Result<Churned, BrokerError> {
    let Churned::There(id, _) = now else {
        return Ok(now);
    };
    let value = format!("{name}:{}", filler(&mut client.rng));
    let records = vec![
        NewRecord {
            value: Some(value.clone().into()),
            ..NewRecord::default()
        };
        client.rng.random_range(1..4)
    ];
    let now_ms = client.clock.now_ms();
    let places = client
        .broker
        .produce_records(&client.caller, name, records, now_ms)
        .await?;
    let mut world = client.world.borrow_mut();
    for (partition, offset) in places {
        world.see(
            PartitionId::new(id, partition),
            offset,
            record_hash(None, Some(value.as_bytes())),
        );
    }
    drop(world);
    Ok(now)
}
