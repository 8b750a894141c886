//! Commits of offsets that several make at the same time: each reads, and raises by one what it has read.

use mainstem_broker::BrokerError;
use mainstem_engine::{Check, EngineError, Submission};
use mainstem_store::{Family, StoreOp};
use rand::Rng;

use crate::coverage::met;
use crate::rules::{number, register};
use crate::world::{After, Client};

/// A commit lost against another.
pub const CONFLICT: &str = "commits refused because another came first";

/// Commits until the run ends.
pub async fn run(mut client: Client) {
    while !client.is_stopping() {
        let name = client.rng.random_range(0..3);
        let key = register(name);
        client.operation();
        if let Err(error) = raise(&client, name, key).await
            && client.after(&error) == After::Over
        {
            return;
        }
        client.clock.sleep(client.rng.random_range(0..60)).await;
    }
}

async fn raise(client: &Client, name: u32, key: bytes::Bytes) -> Result<(), BrokerError> {
    let mut refused_at = None;
    for _ in 0..8 {
        let (as_of, store) = client.broker.engine().read_at()?;
        if let Some(before) = refused_at {
            assert!(
                as_of > before,
                "refused for what was written after {before}, which the store does not show"
            );
        }
        let value = number(store.get(Family::Offsets, &key)?.as_ref()) + 1;
        drop(store);
        let submission = Submission {
            store_ops: vec![StoreOp::put(
                Family::Offsets,
                key.clone(),
                value.to_string(),
            )],
            checks: vec![Check::Unchanged {
                family: Family::Offsets,
                key: key.clone(),
                as_of,
            }],
            ..Submission::default()
        };
        match client.submit(submission).await {
            Ok(_) => {
                let mut world = client.world.borrow_mut();
                let known = world.registers.entry(name).or_default();
                *known = (*known).max(value);
                drop(world);
                let shown = client.broker.engine().store().get(Family::Offsets, &key)?;
                assert!(
                    number(shown.as_ref()) >= value,
                    "what was acknowledged is not shown"
                );
                return Ok(());
            }
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => {
                met(CONFLICT);
                refused_at = Some(as_of);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
