//! Who moves groups and transactions, as a thread does in the server: time, and frames that are done.

use rand::Rng;

use crate::world::Client;

/// Moves them until nobody needs it any more.
pub async fn run(mut client: Client) {
    loop {
        {
            let world = client.world.borrow();
            let stopped = client.broker.engine().status().poisoned.is_some();
            if stopped || (world.stopping && world.is_quiet() && world.groups.are_done()) {
                return;
            }
        }
        client.broker.move_coordinators(client.clock.now_ms());
        client.clock.sleep(client.rng.random_range(1..15)).await;
    }
}
