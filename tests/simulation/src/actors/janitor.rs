//! What looks after the node from time to time: retention, compaction, deletion of records, the time.

use mainstem_broker::BrokerError;
use rand::Rng;

use super::EVENTS;
use crate::coverage::met;
use crate::note;
use crate::world::{After, Client};

/// Records expired.
pub const EXPIRED: &str = "starts moved by retention";
/// Records were deleted.
pub const DELETED: &str = "starts moved by deleting records";
/// A pass of compaction was asked for.
pub const COMPACTED: &str = "compactions asked for";

/// Looks after the node until the run ends.
pub async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.clock.sleep(client.rng.random_range(5..80)).await;
        client.operation();
        let now_ms = client.clock.now_ms();
        let outcome = match client.rng.random_range(0..100) {
            0..25 => retention(&client, now_ms).await,
            25..60 => compaction(&client, now_ms),
            60..90 => delete(&mut client).await,
            _ => {
                client.broker.engine().tell_time(now_ms);
                Ok(())
            }
        };
        if let Err(error) = outcome
            && client.after(&error) == After::Over
        {
            return;
        }
    }
}

async fn retention(client: &Client, now_ms: i64) -> Result<(), BrokerError> {
    let round = client.broker.retention_round(now_ms).await?;
    (0..round.moved).for_each(|_| met(EXPIRED));
    Ok(())
}

fn compaction(client: &Client, now_ms: i64) -> Result<(), BrokerError> {
    let round = client.broker.compaction_round(now_ms)?;
    (0..round.requested).for_each(|_| met(COMPACTED));
    Ok(())
}

async fn delete(client: &mut Client) -> Result<(), BrokerError> {
    let partition = client.rng.random_range(0..3);
    let id = client.world.borrow().partition(EVENTS, partition);
    let bounds = client
        .broker
        .partition_bounds(&client.caller, EVENTS, partition)?;
    let (start, end) = (bounds.log_start, bounds.high_watermark);
    let offset = start + ((end - start) as f64 * client.rng.random_range(0.0..0.6)) as i64;
    {
        let world = client.world.borrow();
        let mut deleted = world.rules.deleted.borrow_mut();
        let asked = deleted.entry(id).or_default();
        *asked = (*asked).max(offset);
    }
    note!(
        client.world.borrow().trace,
        "    deletes {id} below {offset}"
    );
    let answer = client
        .broker
        .delete_records(&client.caller, EVENTS, &[(partition, Some(offset))])
        .await?;
    assert!(
        answer.iter().all(|bounds| bounds.log_start >= offset),
        "{answer:?}"
    );
    client.world.borrow_mut().see_start(id, offset);
    if offset > start {
        met(DELETED);
    }
    Ok(())
}
