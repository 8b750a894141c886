//! One poison event among ten thousand: the others count once, the dead letter is there once, whatever falls over
//! meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_broker::ProduceBatch;
use mainstem_engine::testing::Crash;
use mainstem_record::{BatchBuilder, Compression};
use mainstem_runtime::{Code, Deployment, NativeHandler, OnError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::{Bed, caller, obey};

const EVENTS: usize = 10_000;

fn deployment() -> Deployment {
    let module = Arc::new(NativeHandler::new(obey));
    let mut deployment = Deployment::new(
        "counter",
        Code::Native {
            version: "1".into(),
            module,
        },
    )
    .input("in")
    .output("out");
    deployment.on_error = OnError::DeadLetter { attempts: 3 };
    deployment
}

fn run(seed: u64, kills: u32) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut bed = Bed::new(seed);
    bed.topic("in", 1);
    bed.topic("out", 1);
    let poison = rng.random_range(0..EVENTS);
    let keys: Vec<String> = (0..EVENTS).map(|n| format!("k{}", n % 100)).collect();
    let orders: Vec<(&str, &str)> = (0..EVENTS)
        .map(|n| {
            (
                keys[n].as_str(),
                if n == poison { "error" } else { "count" },
            )
        })
        .collect();
    for some in orders.chunks(500) {
        bed.produce("in", some);
    }
    bed.deploy(deployment());
    let mut killed = 0;
    while killed < kills {
        // A kill falls anywhere: into bisection, into the waits between attempts, into the dead letter's sync.
        for _ in 0..rng.random_range(1..400) {
            bed.step(rng.random());
            if rng.random_ratio(1, 50) {
                bed.now_ms += 30;
            }
        }
        bed = bed
            .crash(if rng.random() {
                Crash::Process
            } else {
                Crash::Power
            })
            .unwrap();
        bed.deploy(deployment());
        killed += 1;
    }
    bed.pass(60_000);

    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| *n != poison) {
        let _ = n;
        *expected.entry(key).or_default() += 1;
    }
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for (key, count) in bed.values("out") {
        let seen = counted.entry(key).or_default();
        *seen += 1;
        assert_eq!(
            count,
            seen.to_string(),
            "seed {seed}: counts go up one by one"
        );
    }
    let counted: BTreeMap<&str, u64> = counted
        .iter()
        .map(|(key, count)| (key.as_str(), *count))
        .collect();
    assert_eq!(counted, expected, "seed {seed}");
    let dead: Vec<_> = bed.read("counter.dlq").into_iter().flatten().collect();
    assert_eq!(dead.len(), 1, "seed {seed}: {dead:?}");
    let header = |name: &str| {
        let found = dead[0]
            .headers
            .iter()
            .find(|(header, _)| header.as_ref() == name.as_bytes());
        String::from_utf8(found.unwrap().1.clone().unwrap().to_vec()).unwrap()
    };
    assert_eq!(dead[0].key.as_deref(), Some(keys[poison].as_bytes()));
    assert_eq!(dead[0].value.as_deref(), Some(&b"error"[..]));
    assert!(header("mainstem-error").contains("no such thing"));
    assert_eq!(header("mainstem-topic"), "in");
    assert_eq!(header("mainstem-partition"), "0");
    assert_eq!(header("mainstem-offset"), poison.to_string());
    assert_eq!(header("mainstem-attempts"), "3");
    assert_eq!(bed.status("counter").lag(), 0);
}

#[test]
fn one_poison_event_in_ten_thousand() {
    run(1, 0);
}

#[test]
fn one_poison_event_in_ten_thousand_with_kills_during_bisection() {
    for seed in 2..6 {
        run(seed, 12);
    }
}

#[test]
fn a_poison_record_that_is_larger_than_a_frame_is_passed_all_the_same() {
    let mut bed = Bed::new(7);
    bed.topic("in", 1);
    bed.topic("out", 1);
    bed.deploy(deployment());
    // A few hundred bytes in the log, and a value larger than what this node takes into a frame.
    let large = vec![b'x'; 4 << 20];
    let mut builder = BatchBuilder::new(Compression::Zstd, 8 << 20);
    builder
        .append(1_000, Some(b"large"), Some(&large), &[("h", Some(b"v"))])
        .unwrap();
    let batch = ProduceBatch {
        topic: "in".into(),
        partition: 0,
        batch: builder.build().unwrap(),
    };
    let (broker, now_ms) = (bed.broker.clone(), bed.now_ms);
    let produced = bed.block_on(broker.produce(&caller(), vec![batch], now_ms));
    produced.unwrap().remove(0).unwrap();
    bed.produce("in", &[("a", "count")]);
    bed.pass(60_000);
    assert_eq!(
        (bed.status("counter").lag(), bed.values("out").len()),
        (0, 1)
    );
    let dead: Vec<_> = bed.read("counter.dlq").into_iter().flatten().collect();
    assert_eq!((dead.len(), &dead[0].value), (1, &None));
    assert_eq!(dead[0].key.as_deref(), Some(&b"large"[..]));
    let names: Vec<&[u8]> = dead[0]
        .headers
        .iter()
        .map(|(name, _)| name.as_ref())
        .collect();
    assert!(
        names.contains(&b"mainstem-left-out".as_slice()),
        "{names:?}"
    );
    assert!(names.contains(&b"mainstem-offset".as_slice()));
}
