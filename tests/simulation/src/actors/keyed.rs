//! Records with keys, values and tombstones, for topics that are compacted. Nothing is sent twice: where the answer is
//! lost, they may be there or not.

use bytes::Bytes;
use mainstem_broker::NewRecord;
use rand::Rng;

use super::{COMPACTED, filler};
use crate::views::record_hash;
use crate::world::{After, Client};

/// Keys that are written again and again, and those that are written now and then and deleted for good.
const KEYS: [u32; 2] = [6, 30];

/// Writes until the run ends.
pub async fn run(mut client: Client) {
    let mut number = client.clock.now_ms();
    while !client.is_stopping() {
        let (topic, _) = COMPACTED[client.rng.random_range(0..COMPACTED.len())];
        let mut records = Vec::new();
        for _ in 0..client.rng.random_range(1..5) {
            number += 1;
            let rng = &mut client.rng;
            let rare = usize::from(rng.random_bool(0.3));
            let key = format!("k{rare}-{}", rng.random_range(0..KEYS[rare]));
            let deletes = rng.random_bool([0.15, 0.5][rare]);
            let value = (!deletes).then(|| format!("{number}:{}", filler(rng)));
            let lag_ms = rng.random_range(0..500);
            records.push(NewRecord {
                key: Some(Bytes::from(key)),
                value: value.map(Bytes::from),
                timestamp_ms: rng
                    .random_bool(0.3)
                    .then_some(client.clock.now_ms() - lag_ms),
                ..NewRecord::default()
            });
        }
        client.operation();
        let now_ms = client.clock.now_ms();
        let call = client
            .broker
            .produce_records(&client.caller, topic, records.clone(), now_ms);
        match call.await {
            Ok(places) => {
                let mut world = client.world.borrow_mut();
                for (record, (partition, offset)) in records.iter().zip(places) {
                    let id = world.partition(topic, partition);
                    world.see(
                        id,
                        offset,
                        record_hash(record.key.as_deref(), record.value.as_deref()),
                    );
                }
            }
            Err(error) => {
                if client.after(&error) == After::Over {
                    return;
                }
            }
        }
        client.clock.sleep(client.rng.random_range(0..80)).await;
    }
}
