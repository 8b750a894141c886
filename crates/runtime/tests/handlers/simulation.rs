//! A stateful handler under crashes in any sequence: state and outputs equal a recomputation from the input, and every
//! event is counted once.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use mainstem_broker::NewRecord;
use mainstem_engine::testing::{Crash, poll_once};
use mainstem_runtime::{Code, Deployment, NativeHandler};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::{Bed, caller, obey};

const PARTITIONS: u32 = 3;

fn deployment(version: u32) -> Deployment {
    let module = Arc::new(NativeHandler::new(obey));
    let code = Code::Native {
        version: version.to_string(),
        module,
    };
    Deployment::new("counter", code).input("in").output("out")
}

/// What a run has led to, for comparison.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    input: Vec<Vec<(Bytes, Bytes)>>,
    state: BTreeMap<(u32, String, Vec<u8>), Vec<u8>>,
    outputs: Vec<Vec<(Bytes, Bytes)>>,
    replayed: u64,
    crashes: u32,
}

type Produce = Pin<Box<dyn Future<Output = usize>>>;

fn produce(bed: &Bed, rng: &mut SmallRng) -> Produce {
    let count = rng.random_range(1..60);
    let record = |_| NewRecord {
        key: Some(format!("k{}", rng.random_range(0..20)).into()),
        value: Some(
            if rng.random_ratio(1, 10) {
                "forget"
            } else {
                "count"
            }
            .into(),
        ),
        ..NewRecord::default()
    };
    let records: Vec<NewRecord> = (0..count).map(record).collect();
    let (broker, now_ms) = (bed.broker.clone(), bed.now_ms);
    Box::pin(async move {
        broker
            .produce_records(&caller(), "in", records, now_ms)
            .await
            .map_or(0, |done| done.len())
    })
}

fn run(seed: u64) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut bed = Bed::new(seed);
    bed.topic("in", PARTITIONS);
    bed.topic("out", 2);
    let mut version = 1;
    bed.deploy(deployment(version));
    let mut waiting: Vec<Produce> = Vec::new();
    let (mut acknowledged, mut replayed, mut crashes) = (0, 0, 0);
    for _ in 0..4_000 {
        match rng.random_range(0..1000) {
            0..40 if waiting.len() < 8 => waiting.push(produce(&bed, &mut rng)),
            40..45 => {
                waiting.clear();
                bed = bed
                    .crash(if rng.random() {
                        Crash::Process
                    } else {
                        Crash::Power
                    })
                    .unwrap();
                replayed += bed.node.recovery.replayed_frames;
                crashes += 1;
                bed.deploy(deployment(version));
            }
            45..48 => {
                version += 1;
                bed.deploy(deployment(version));
            }
            48..60 => bed.now_ms += 50,
            _ => {
                bed.step(rng.random());
            }
        }
        waiting.retain_mut(|produce| match poll_once(produce.as_mut()) {
            std::task::Poll::Ready(count) => {
                acknowledged += count;
                false
            }
            std::task::Poll::Pending => true,
        });
    }
    drop(waiting);
    bed.pass(60_000);

    let pairs = |topic: &str| -> Vec<Vec<(Bytes, Bytes)>> {
        let pair = |record: mainstem_record::Record| (record.key.unwrap(), record.value.unwrap());
        bed.read(topic)
            .into_iter()
            .map(|records| records.into_iter().map(pair).collect())
            .collect()
    };
    let (input, outputs) = (pairs("in"), pairs("out"));
    let found: usize = input.iter().map(Vec::len).sum();
    assert!(
        found >= acknowledged,
        "seed {seed}: {acknowledged} acknowledged, {found} there"
    );
    assert_eq!(
        bed.status("counter").lag(),
        0,
        "seed {seed}: {:?}",
        bed.status("counter")
    );

    // The recomputation, with nothing of the handler's.
    let mut state = BTreeMap::new();
    let mut counts: BTreeMap<Bytes, Vec<u64>> = BTreeMap::new();
    for (partition, records) in (0u32..).zip(&input) {
        for (key, value) in records {
            let place = (partition, "counts".to_owned(), key.to_vec());
            if value.as_ref() == b"forget" {
                state.remove(&place);
                continue;
            }
            let count = state.get(&place).map_or(0, |count: &Vec<u8>| {
                String::from_utf8_lossy(count).parse().unwrap()
            }) + 1;
            state.insert(place, count.to_string().into_bytes());
            counts.entry(key.clone()).or_default().push(count);
        }
    }
    assert_eq!(bed.state("counter"), state, "seed {seed}");
    let mut made: BTreeMap<Bytes, Vec<u64>> = BTreeMap::new();
    for (key, value) in outputs.iter().flatten() {
        made.entry(key.clone())
            .or_default()
            .push(String::from_utf8_lossy(value).parse().unwrap());
    }
    assert_eq!(made, counts, "seed {seed}: outputs, in order for each key");
    Outcome {
        input,
        state,
        outputs,
        replayed,
        crashes,
    }
}

#[test]
fn state_and_outputs_equal_a_recomputation_after_crashes_in_any_sequence() {
    let (mut crashes, mut replayed, mut events) = (0, 0, 0);
    for seed in 0..12 {
        let outcome = run(seed);
        crashes += outcome.crashes;
        replayed += outcome.replayed;
        events += outcome.input.iter().map(Vec::len).sum::<usize>();
    }
    println!(
        "{events} events, {crashes} crashes, {replayed} frames replayed, none lost, none doubled"
    );
    assert!(
        crashes > 50 && replayed > 0 && events > 10_000,
        "{crashes} crashes, {replayed} replayed, {events} events"
    );
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(run(77), run(77));
}
