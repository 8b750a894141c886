//! What every [`HandlerModule`] must do, whatever it is made of. The module under test is a handler that obeys orders:
//! the value of an event says what to do with its key.
//!
//! | order | what it does |
//! |---|---|
//! | `count` | adds one to the key's number in table `counts` (decimal digits), emits the new one to topic `out` under the key |
//! | `forget` | removes the key from `counts` |
//! | `list` | emits to `out`, under key `list`, a JSON array of all of `counts` as `"key=number"`, in order |
//! | `copy` | emits to `out`, under the key, the value `copied`, with the event's headers |
//! | `error` | fails with the message `no such thing` |
//! | `panic` | breaks down saying `the milk is sour` |
//! | `undeclared` | emits to topic `nowhere`, which is for the task to refuse |

use std::sync::Arc;

use bytes::Bytes;
use mainstem_store::{Applied, MemoryStore, Store};

use crate::{
    Event, HandlerInstance, HandlerModule, InstanceMemory, StepFailure, StepLimits, StepOutput,
    StepState, run_through,
};

/// Plenty.
pub const LIMITS: StepLimits = StepLimits {
    fuel: 1_000_000_000,
    output_bytes: 1 << 20,
};

/// An event with an order.
pub fn order(offset: i64, key: &str, order: &str) -> Event {
    Event {
        topic: "orders".into(),
        partition: 3,
        offset,
        timestamp_ms: 1_000 + offset,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(order.as_bytes())),
        headers: Vec::new(),
    }
}

/// Runs the suite.
///
/// # Panics
/// Where the module does not keep the contract.
pub fn check(module: &dyn HandlerModule) {
    a_step_sees_its_own_writes(module);
    an_instance_goes_on_over_steps_and_a_new_one_knows_nothing_else(module);
    everything_of_an_event_arrives(module);
    failures_say_what_was_wrong(module);
    the_same_steps_have_the_same_results(module);
}

fn fresh(module: &dyn HandlerModule) -> Result<Box<dyn HandlerInstance>, StepFailure> {
    run_through(module.instantiate("conformance", InstanceMemory::unlimited()))
}

struct Bench {
    store: Arc<MemoryStore>,
    state: StepState,
    instance: Box<dyn HandlerInstance>,
    lsn: u64,
}

impl Bench {
    #[allow(clippy::expect_used)]
    fn new(module: &dyn HandlerModule) -> Bench {
        let store = Arc::new(MemoryStore::new(1));
        let state = StepState::new(store.clone(), 1, 2, 3, 1 << 20);
        let instance = fresh(module).expect("an instance");
        Bench {
            store,
            state,
            instance,
            lsn: 0,
        }
    }

    fn step(&mut self, orders: &[(&str, &str)]) -> Result<StepOutput, StepFailure> {
        let events: Vec<Event> = (0..)
            .zip(orders)
            .map(|(offset, (key, what))| order(offset, key, what))
            .collect();
        let result = run_through(self.instance.step(&events, &mut self.state, LIMITS));
        if result.is_err() {
            self.state.roll_back();
        }
        result
    }

    #[allow(clippy::expect_used)]
    fn good(&mut self, orders: &[(&str, &str)]) -> Vec<(String, String)> {
        let output = self.step(orders).expect("a good step");
        let (ops, changes) = self.state.commit();
        self.lsn += 1;
        self.store
            .write(
                &ops,
                Applied {
                    journal_id: 1,
                    lsn: self.lsn,
                },
            )
            .expect("a store in memory");
        self.state.forget(changes);
        let text = |bytes: &Option<Bytes>| {
            String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
        };
        output
            .records
            .iter()
            .map(|record| {
                assert_eq!(&*record.topic, "out");
                (text(&record.key), text(&record.value))
            })
            .collect()
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn a_step_sees_its_own_writes(module: &dyn HandlerModule) {
    let mut bench = Bench::new(module);
    let made = bench.good(&[
        ("a", "count"),
        ("b", "count"),
        ("a", "count"),
        ("x", "list"),
        ("a", "forget"),
        ("x", "list"),
    ]);
    let expected = [
        ("a", "1"),
        ("b", "1"),
        ("a", "2"),
        ("list", "[\"a=2\",\"b=1\"]"),
        ("list", "[\"b=1\"]"),
    ];
    assert_eq!(made, pairs(&expected));
}

fn an_instance_goes_on_over_steps_and_a_new_one_knows_nothing_else(module: &dyn HandlerModule) {
    let mut bench = Bench::new(module);
    bench.good(&[("a", "count"), ("b", "count")]);
    assert_eq!(bench.good(&[("a", "count")]), pairs(&[("a", "2")]));
    let Ok(fresh) = fresh(module) else {
        panic!("an instance")
    };
    bench.instance = fresh;
    assert_eq!(
        bench.good(&[("a", "count"), ("x", "list")]),
        pairs(&[("a", "3"), ("list", "[\"a=3\",\"b=1\"]")])
    );
    assert_eq!(bench.good(&[]), pairs(&[]), "an empty step is a step");
}

fn everything_of_an_event_arrives(module: &dyn HandlerModule) {
    let mut bench = Bench::new(module);
    let mut event = order(7, "k", "copy");
    event.headers = vec![
        ("one".into(), Some("1".into())),
        ("none".into(), None),
        ("one".into(), Some(Bytes::new())),
    ];
    let events = std::slice::from_ref(&event);
    let step = bench.instance.step(events, &mut bench.state, LIMITS);
    let Ok(output) = run_through(step) else {
        panic!("a good step")
    };
    let [record] = output.records.as_slice() else {
        panic!("one record, not {:?}", output.records)
    };
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(record.value.as_deref(), Some(&b"copied"[..]));
    assert_eq!(record.headers, event.headers);
    assert_eq!(
        record.timestamp_ms,
        Some(1_007),
        "a record has its event's time"
    );
    assert_eq!(record.partition, None);
}

fn failures_say_what_was_wrong(module: &dyn HandlerModule) {
    let mut bench = Bench::new(module);
    bench.good(&[("a", "count")]);
    match bench.step(&[("a", "count"), ("a", "error")]) {
        Err(StepFailure::Error(message)) => assert!(message.contains("no such thing"), "{message}"),
        other => panic!("an error, not {other:?}"),
    }
    for (what, message) in [("panic", "the milk is sour"), ("what?", "unknown order")] {
        let Ok(fresh) = fresh(module) else {
            panic!("an instance")
        };
        bench.instance = fresh;
        match bench.step(&[("a", "count"), ("a", what)]) {
            Err(failure @ (StepFailure::Trap(_) | StepFailure::Error(_))) => {
                assert!(failure.to_string().contains(message), "{failure}");
                assert!(failure.blames_events() && failure.breaks_instance());
            }
            other => panic!("a failure, not {other:?}"),
        }
    }
    let Ok(fresh) = fresh(module) else {
        panic!("an instance")
    };
    bench.instance = fresh;
    assert_eq!(
        bench.good(&[("a", "count")]),
        pairs(&[("a", "2")]),
        "nothing of the failed steps is left"
    );
    let Ok(output) = bench.step(&[("a", "undeclared")]) else {
        panic!("which topics are declared is for the task to know")
    };
    assert_eq!(
        output.records.first().map(|record| &*record.topic),
        Some("nowhere")
    );
}

fn the_same_steps_have_the_same_results(module: &dyn HandlerModule) {
    let steps = [
        vec![("a", "count"), ("b", "count")],
        vec![("b", "copy"), ("a", "count")],
        vec![("z", "list")],
    ];
    let run = || {
        let mut bench = Bench::new(module);
        steps
            .iter()
            .map(|step| bench.step(step))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
