//! Appends at an expected offset, as event sourcing does it: two writers who get in each other's way.

use mainstem_broker::BrokerError;
use mainstem_engine::{Append, AppendError, Check, EngineError, Submission};
use rand::Rng;

use super::{SOURCED, batch};
use crate::coverage::met;
use crate::views::record_hash;
use crate::world::{After, Client};

/// An append came too late.
pub const TOO_LATE: &str = "appends refused because the offset was taken";

/// Appends until the run ends.
pub async fn run(mut client: Client) {
    let id = client.world.borrow().partition(SOURCED, 0);
    let bounds = client.broker.partition_bounds(&client.caller, SOURCED, 0);
    let mut expected = match bounds {
        Ok(bounds) => bounds.high_watermark,
        Err(error) => panic!("{id}: {error}"),
    };
    while !client.is_stopping() {
        client.operation();
        let values = [expected.to_string()];
        let submission = Submission {
            appends: vec![Append {
                partition: id,
                batch: batch(&mut client.rng, None, &values, client.clock.now_ms()),
            }],
            checks: vec![Check::NextOffset {
                partition: id,
                offset: expected,
            }],
            all_or_nothing: true,
            ..Submission::default()
        };
        match client.submit(submission).await {
            Ok(_) => {
                let record = record_hash(None, Some(values[0].as_bytes()));
                client.world.borrow_mut().see(id, expected, record);
                expected += 1;
            }
            Err(EngineError::Append {
                error: AppendError::NextOffset { actual, .. },
                ..
            }) => {
                met(TOO_LATE);
                // What this refusal has seen must be there.
                client.world.borrow_mut().see_end(id, actual);
                expected = actual;
            }
            Err(error) => {
                if client.after(&BrokerError::from(error)) == After::Over {
                    return;
                }
            }
        }
        client.clock.sleep(client.rng.random_range(0..80)).await;
    }
}
