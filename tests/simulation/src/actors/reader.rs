//! A reader: follows the end, begins anywhere, falls behind, and remembers all that it has seen.

use std::collections::BTreeMap;

use mainstem_broker::{BrokerError, FetchRequest, Fetched, Isolation};
use mainstem_log::PartitionId;
use mainstem_record::Batch;
use rand::Rng;

use super::{COMPACTED, TOPICS};
use crate::clock::within;
use crate::coverage::met;
use crate::note;
use crate::views::record_hash;
use crate::world::{After, Client};

/// A reader asked for what had been deleted, and was told what exists.
pub const OUT_OF_RANGE: &str = "readers in a deleted range told what exists";

/// Reads until the run ends.
pub async fn run(mut client: Client) {
    let mut places: BTreeMap<(&str, u32), i64> = BTreeMap::new();
    while !client.is_stopping() {
        let (topic, partitions) = TOPICS[client.rng.random_range(0..TOPICS.len())];
        let partition = client.rng.random_range(0..partitions);
        let id = client.world.borrow().partition(topic, partition);
        let place = places.entry((topic, partition)).or_insert(0);
        client.operation();
        if client.rng.random_bool(0.1) {
            let bounds = client
                .broker
                .partition_bounds(&client.caller, topic, partition);
            let bounds = bounds.unwrap_or_else(|error| panic!("{id}: {error}"));
            *place = client
                .rng
                .random_range(bounds.log_start..=bounds.high_watermark);
        }
        let request = FetchRequest {
            topic: topic.into(),
            partition,
            offset: *place,
            max_bytes: [0, 100, 1_000, 20_000][client.rng.random_range(0..4)],
            isolation: Isolation::ReadUncommitted,
        };
        match client.broker.fetch(&client.caller, &request) {
            Ok(fetched) => {
                let is_dense = COMPACTED.iter().all(|(name, _)| *name != topic);
                let next = take_in(&client, id, *place, &fetched, is_dense);
                note!(
                    client.world.borrow().trace,
                    "    reads {id} from {place} to {next} of {}",
                    fetched.high_watermark
                );
                *place = next;
                if fetched.batches.is_empty() && client.rng.random_bool(0.5) {
                    let (broker, caller) = (&client.broker, &client.caller);
                    let data = broker.topic(caller, topic).and_then(|topic| {
                        let isolation = Isolation::ReadUncommitted;
                        broker.wait_for_data(caller, &topic, partition, next, isolation)
                    });
                    let data = data.unwrap_or_else(|error| panic!("{id}: {error}"));
                    let patience = client.rng.random_range(1..400);
                    within(&client.clock, patience, data).await;
                    continue;
                }
            }
            Err(BrokerError::OffsetOutOfRange {
                offset, start, end, ..
            }) => {
                assert!(
                    offset < start && start <= end,
                    "{id}: {offset} is out of {start} to {end}"
                );
                met(OUT_OF_RANGE);
                let mut world = client.world.borrow_mut();
                world.see_start(id, start);
                world.see_end(id, end);
                *place = start;
            }
            Err(error) => {
                if client.after(&error) == After::Over {
                    return;
                }
            }
        }
        client.clock.sleep(client.rng.random_range(0..60)).await;
    }
}

/// Looks at what was read; returns the next offset.
fn take_in(client: &Client, id: PartitionId, from: i64, fetched: &Fetched, is_dense: bool) -> i64 {
    let mut world = client.world.borrow_mut();
    world.see_start(id, fetched.log_start);
    world.see_end(id, fetched.high_watermark);
    assert!(fetched.last_stable <= fetched.high_watermark && fetched.log_start <= from);
    let mut next = from;
    for piece in &fetched.batches {
        let mut rest = piece.clone();
        while let Some(batch) =
            Batch::split_first(&mut rest).unwrap_or_else(|error| panic!("{id}: {error}"))
        {
            let base = batch.base_offset();
            assert!(
                base <= next && (base == next || next == from) && next <= batch.last_offset(),
                "{id}: asked for {next}, got a batch from {base} to {}",
                batch.last_offset()
            );
            let payload = batch
                .payload()
                .unwrap_or_else(|error| panic!("{id}: {error}"));
            let mut due = base;
            for view in payload.views() {
                let view = view.unwrap_or_else(|error| panic!("{id}: {error}"));
                assert!(
                    view.offset == due || (!is_dense && view.offset > due),
                    "{id}: offsets have a gap at {due}"
                );
                due = view.offset + 1;
                world.see(id, view.offset, record_hash(view.key, view.value));
            }
            next = batch.next_offset();
        }
    }
    assert!(
        next <= fetched.high_watermark,
        "{id}: {next} is beyond the high watermark"
    );
    assert!(
        next > from || from == fetched.high_watermark,
        "{id}: nothing is read at {from}"
    );
    next
}
