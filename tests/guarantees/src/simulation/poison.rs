//! One event that cannot be handled, in a batch of 10,000, with crashes while it is being looked for.

use mainstem_broker::{NewTopic, ProduceBatch};
use mainstem_engine::EngineOptions;
use mainstem_engine::testing::small_options;
use mainstem_record::{BatchBuilder, Compression};
use rand::Rng;

use super::check::Ledger;
use super::handler::{self, ALERTS, INPUT, OUTPUT};
use super::node::{Node, Sizes, caller};
use crate::recount::Pair;
use crate::{Failure, Tally, ensure};

const EVENTS: usize = 10_000;

pub(super) fn run(seed: u64) -> Result<Tally, Failure> {
    let defaults = EngineOptions::default();
    let engine = EngineOptions {
        memory_bytes: 64 << 20,
        group_bytes: defaults.group_bytes,
        max_frame_bytes: defaults.max_frame_bytes,
        ..small_options()
    };
    let mut node = Node::new(
        seed,
        Sizes {
            engine,
            step_bytes: 4 << 20,
            step_events: 16 * 1024,
        },
    )?;
    let broker = node.live().broker.clone();
    for name in [INPUT, OUTPUT, ALERTS] {
        let broker = broker.clone();
        let created = async move {
            broker
                .create_topic(&caller(), NewTopic::named(name).partitions(1), 1)
                .await
        };
        node.block_on(created)?
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    let poisoned = node.rng.random_range(0..EVENTS);
    let records: Vec<Pair> = (1..=EVENTS)
        .map(|number| {
            let kind = if number - 1 == poisoned {
                "poison"
            } else {
                "event"
            };
            (format!("k{}", number % 97), format!("{kind}:0:{number}:"))
        })
        .collect();
    let mut builder = BatchBuilder::new(Compression::None, 4 << 20);
    for (key, value) in &records {
        builder
            .append(1, Some(key.as_bytes()), Some(value.as_bytes()), &[])
            .expect("it fits");
    }
    let batch = ProduceBatch {
        topic: INPUT.into(),
        partition: 0,
        batch: builder.build().expect("it has records"),
    };
    let produced = node.block_on(async move { broker.produce(&caller(), vec![batch], 1).await })?;
    let produced = produced
        .and_then(|mut outcomes| outcomes.remove(0))
        .map_err(|error| Failure::new(error.to_string()))?;
    let mut ledger = Ledger::new(1);
    ledger.acknowledge(0, produced.base_offset, records, &mut node.tally)?;

    let runtime = node.live().runtime.clone();
    node.block_on(async move {
        runtime
            .deploy(&caller(), handler::deployment(), 1)
            .await
            .map(drop)
    })?
    .map_err(|error| Failure::new(error.to_string()))?;
    // Finding it takes some thirty steps: these crashes fall in between.
    for _ in 0..4 {
        for _ in 0..node.rng.random_range(5..60) {
            node.move_runtime();
            node.move_engine();
        }
        let crash = node.any_crash();
        node.crash(crash)?;
        ledger.read_all(node.live())?;
        compare(&mut node, &mut ledger)?;
        node.deploy();
    }
    for round in 0.. {
        ensure!(
            round < 1_000,
            "the handler does not come to the end of its batch"
        );
        node.settle();
        node.tick();
        ledger.read_all(node.live())?;
        compare(&mut node, &mut ledger)?;
        if ledger.is_caught_up() {
            break;
        }
    }
    ledger.check_input(&mut node.tally)?;
    let (handled, dead_letters) = ledger.handled();
    ensure!(
        handled == EVENTS as u64,
        "{handled} events were passed instead of {EVENTS}"
    );
    ensure!(
        dead_letters == 1,
        "{dead_letters} dead letters instead of one"
    );
    Ok(std::mem::take(&mut node.tally))
}

fn compare(node: &mut Node, ledger: &mut Ledger) -> Result<(), Failure> {
    let ticket = node.live().engine.snapshot();
    let snapshot = node
        .block_on(ticket)?
        .map_err(|error| Failure::new(format!("no snapshot: {error}")))?;
    ledger.check_snapshot(node.live(), &snapshot)?;
    node.tally.snapshots += 1;
    (node.tally.handled, node.tally.dead_letters) = ledger.handled();
    Ok(())
}
