//! Looks at log and store at one and the same moment, under load, and compares all of it with the journal's history.

use mainstem_broker::BrokerError;
use rand::Rng;

use crate::coverage::met;
use crate::world::{After, Client};

/// Log and store were compared at one moment, under load.
pub const SNAPSHOT: &str = "snapshots compared under load";

/// Looks until the run ends.
pub async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.clock.sleep(client.rng.random_range(20..200)).await;
        client.operation();
        if let Err(error) = snapshot(&mut client).await
            && client.after(&error) == After::Over
        {
            return;
        }
    }
}

async fn snapshot(client: &mut Client) -> Result<(), BrokerError> {
    let snapshot = client.broker.engine().snapshot().await?;
    // It goes on standing while others move.
    client.clock.sleep(client.rng.random_range(0..200)).await;
    let max_bytes = client.rng.random_range(0..8_000);
    client
        .world
        .borrow_mut()
        .compare_snapshot(&snapshot, max_bytes)?;
    met(SNAPSHOT);
    Ok(())
}
