//! Components: both worlds keep the contract, what is no handler is refused by name, and limits hold.

use std::path::Path;

use bytes::Bytes;
use mainstem_broker::NewRecord;
use mainstem_engine::testing::{Crash, poll_once};
use mainstem_journal::{Disk, OpenMode};
use mainstem_runtime::{
    Code, Deployment, HandlerModule, HandlerState, InstanceMemory, MAX_FUEL_PER_EVENT,
    NativeHandler, OnError, RuntimeError, StepFailure, StepLimits, TaskState, ValidationError,
    WasmEngine, conformance, run_through,
};

use crate::support::{Bed, caller, guest, obey};

const MEMORY_BYTES: u64 = 16 << 20;

fn compile(bytes: &[u8]) -> Result<mainstem_runtime::WasmModule, ValidationError> {
    WasmEngine::new().unwrap().compile(bytes, MEMORY_BYTES)
}

fn deploy(bed: &mut Bed, deployment: Deployment) -> Result<(), RuntimeError> {
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.deploy(&caller(), deployment, now_ms))
        .map(|_| ())
}

#[test]
fn native_handlers_keep_the_contract() {
    conformance::check(&NativeHandler::new(obey));
}

#[test]
fn components_of_the_packed_world_keep_the_contract() {
    conformance::check(&compile(&guest("kitchen")).unwrap());
}

#[test]
fn components_of_the_typed_world_keep_the_contract() {
    conformance::check(&compile(&guest("typed")).unwrap());
}

#[test]
fn what_is_no_component_is_refused_in_words() {
    let refused = |bytes: &[u8]| compile(bytes).err().unwrap();
    assert!(matches!(refused(b""), ValidationError::NotWasm { .. }));
    let native = refused(b"\x7fELF\x02\x01");
    assert!(native.to_string().contains("native program"), "{native}");
    assert_eq!(refused(b"\0asm\x01\0\0\0"), ValidationError::CoreModule);
    assert!(matches!(
        refused(b"\0asm\x0d\0\x01\0\xff\xff"),
        ValidationError::Invalid { .. }
    ));
    let empty = refused(b"\0asm\x0d\0\x01\0");
    assert!(empty.to_string().contains("exports nothing"), "{empty}");
}

#[test]
fn a_component_of_another_world_is_refused_by_what_it_wants() {
    let refused = compile(&guest("stranger")).err().unwrap();
    let ValidationError::UnknownImport { import, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(import, "somebody:other/clock@1.2.3");
    assert!(refused.to_string().contains("no handler gets"), "{refused}");

    let mut bed = Bed::new(1);
    bed.topic("in", 1);
    let deployment = Deployment::new("stranger", guest("stranger")).input("in");
    let error = deploy(&mut bed, deployment).unwrap_err();
    assert!(
        matches!(
            error,
            RuntimeError::Component(ValidationError::UnknownImport { .. })
        ),
        "{error}"
    );
    assert!(
        bed.runtime.list(&caller()).is_empty(),
        "nothing is left of a refused deployment"
    );
}

#[test]
fn fuel_and_memory_are_limits() {
    let module = compile(&guest("kitchen")).unwrap();
    let store = std::sync::Arc::new(mainstem_store::MemoryStore::new(1));
    let run = |what: &str, limits: StepLimits| {
        let mut state = mainstem_runtime::StepState::new(store.clone(), 1, 2, 3, 1 << 20);
        let memory = InstanceMemory::unlimited();
        let mut instance = run_through(module.instantiate("limits", memory)).unwrap();
        let events = [conformance::order(0, "k", what)];
        run_through(instance.step(&events, &mut state, limits)).unwrap_err()
    };
    let limits = StepLimits {
        fuel: 10_000_000,
        output_bytes: 1 << 20,
    };
    assert_eq!(
        run("loop", limits),
        StepFailure::OutOfFuel { fuel: 10_000_000 }
    );
    // Next to nothing of this is the guest's own work.
    let scans = run("scan for ever", limits);
    assert_eq!(scans, StepFailure::OutOfFuel { fuel: 10_000_000 });
    let logs = run("log a lot", limits);
    assert_eq!(logs, StepFailure::OutOfFuel { fuel: 10_000_000 });
    let grown = run(
        "grow",
        StepLimits {
            fuel: 10_000_000_000,
            ..limits
        },
    );
    assert!(
        grown.to_string().contains("its limit is 16777216"),
        "{grown}"
    );
    // What the host holds for a call is bounded, too: a list of nothing is many times as large there.
    let asks = |count: u32| {
        let limits = StepLimits {
            fuel: 10_000_000_000,
            ..limits
        };
        run(&format!("ask for {count}"), limits)
    };
    let keys = asks(150_000);
    assert!(
        keys.to_string()
            .contains("come to more than 16777216 bytes"),
        "{keys}"
    );
    let handed_over = asks(450_000);
    assert!(
        matches!(&handed_over, StepFailure::TooLarge(what) if what.contains("its limit of memory is 16777216 bytes")),
        "{handed_over}"
    );
    let flooded = run(
        "flood",
        StepLimits {
            fuel: 10_000_000_000,
            ..limits
        },
    );
    assert!(matches!(&flooded, StepFailure::TooLarge(_)), "{flooded}");
}

#[test]
fn a_deployed_component_counts_and_is_found_again_after_a_restart() {
    let mut bed = Bed::new(7);
    bed.topic("in", 2);
    let mut deployment = Deployment::new("counter", guest("kitchen"))
        .input("in")
        .output("out");
    deployment.create_topics = true;
    let status = bed.deploy(deployment.clone());
    assert_eq!(status.version.len(), 64);
    assert_eq!(status.dead_letter_topic.as_deref(), Some("counter.dlq"));
    bed.produce("in", &[("a", "count"), ("b", "count"), ("a", "count")]);
    bed.settle();
    let mut values = bed.values("out");
    values.sort();
    assert_eq!(
        values,
        [("a", "1"), ("a", "2"), ("b", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    assert_eq!(bed.status("counter").lag(), 0);
    assert_eq!(
        bed.deploy(deployment).generation,
        1,
        "deploying the same again changes nothing"
    );

    let mut bed = bed.crash(mainstem_engine::testing::Crash::Power).unwrap();
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(bed.values("out").len(), 4);
    assert_eq!(bed.status("counter").version, status.version);
}

#[test]
fn a_start_removes_the_components_that_no_handler_names() {
    let mut bed = Bed::new(9);
    bed.topic("in", 1);
    let deployment = |guest_name| {
        let mut deployment = Deployment::new("counter", guest(guest_name))
            .input("in")
            .output("out");
        deployment.create_topics = true;
        deployment
    };
    let modules = |bed: &Bed| bed.node.disk.list(Path::new("/node/modules")).unwrap();
    bed.deploy(deployment("typed"));
    let before = modules(&bed);
    assert_eq!(
        before.len(),
        2,
        "a component, and its compiled code: {before:?}"
    );
    bed.deploy(deployment("kitchen"));
    let both = modules(&bed);
    let kept: Vec<_> = both.iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(kept.len(), 2, "{both:?}");
    let stranger = "notes.txt".to_owned();
    for name in ["0123.wasm.tmp", &stranger] {
        let path = Path::new("/node/modules").join(name);
        bed.node.disk.open(&path, OpenMode::Create).unwrap();
    }

    let mut bed = bed.crash(mainstem_engine::testing::Crash::Process).unwrap();
    let mut expected = [kept, vec![&stranger]].concat();
    expected.sort();
    assert_eq!(modules(&bed).iter().collect::<Vec<_>>(), expected);
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(bed.values("out").len(), 1);
    // One that was removed can be deployed again.
    let status = bed.deploy(deployment("typed"));
    assert!(modules(&bed).contains(&format!("{}.wasm", status.version)));
}

#[test]
fn bad_events_of_every_kind_are_dead_lettered_and_the_others_count() {
    let mut bed = Bed::new(8);
    bed.topic("in", 1);
    let mut deployment = Deployment::new("kitchen", guest("kitchen"))
        .input("in")
        .output("out");
    deployment.create_topics = true;
    deployment.memory_bytes = MEMORY_BYTES;
    deployment.fuel_per_event = 5_000_000;
    deployment.on_error = OnError::DeadLetter { attempts: 2 };
    bed.deploy(deployment);
    let bad = [
        "error",
        "panic",
        "loop",
        "grow",
        "undeclared",
        "nowhere",
        "flood",
        "what?",
    ];
    let orders: Vec<(&str, &str)> = bad
        .iter()
        .flat_map(|what| [("a", "count"), ("bad", *what)])
        .collect();
    bed.produce("in", &orders);
    bed.pass(60_000);
    assert_eq!(bed.values("out").len(), bad.len(), "every good event once");
    let dead: Vec<_> = bed.read("kitchen.dlq").into_iter().flatten().collect();
    let values: Vec<Bytes> = dead
        .iter()
        .map(|record| record.value.clone().unwrap())
        .collect();
    assert_eq!(values, bad);
    let why = |record: &mainstem_record::Record| {
        let (_, value) = record
            .headers
            .iter()
            .find(|(name, _)| name.as_ref() == b"mainstem-error")
            .unwrap();
        String::from_utf8(value.clone().unwrap().to_vec()).unwrap()
    };
    let expected = [
        "no such thing",
        "the milk is sour",
        "out of fuel",
        "",
        "`nowhere` is not declared",
        "there is no 99",
        "",
        "unknown order what?",
    ];
    for (record, expected) in dead.iter().zip(expected) {
        assert!(
            why(record).contains(expected),
            "{} lacks {expected}",
            why(record)
        );
    }
    let status = bed.status("kitchen");
    assert_eq!(
        (status.tasks[0].dead_letters, status.lag()),
        (bad.len() as u64, 0)
    );
}

#[test]
fn fuel_and_memory_beyond_all_measure_are_refused() {
    let mut bed = Bed::new(9);
    bed.topic("in", 1);
    let mut deployment = Deployment::new("kitchen", guest("kitchen")).input("in");
    deployment.fuel_per_event = u64::MAX;
    let error = deploy(&mut bed, deployment.clone()).unwrap_err();
    assert!(error.to_string().contains("fuel per event"), "{error}");
    deployment.fuel_per_event = MAX_FUEL_PER_EVENT;
    deployment.memory_bytes = 1 << 40;
    let error = deploy(&mut bed, deployment).unwrap_err();
    assert!(error.to_string().contains("memory.limit"), "{error}");
}

/// One thread moves everything here, so whoever kept it would keep it for all.
#[test]
fn an_endless_loop_holds_up_no_other_handler_and_ends_when_told_to() {
    let mut bed = Bed::new(10);
    bed.topic("loops", 3);
    bed.topic("in", 1);
    bed.topic("out", 1);
    let mut endless = Deployment::new("endless", guest("kitchen")).input("loops");
    endless.fuel_per_event = MAX_FUEL_PER_EVENT;
    bed.deploy(endless);
    bed.deploy(
        Deployment::new("victim", guest("kitchen"))
            .input("in")
            .output("out"),
    );
    let at = |partition, what: &'static str| NewRecord {
        partition: Some(partition),
        value: Some(what.into()),
        ..NewRecord::default()
    };
    bed.produce_records("loops", vec![at(0, "loop"), at(1, "loop"), at(2, "loop")]);
    let moves = |bed: &mut Bed, done: &dyn Fn(&Bed) -> bool| {
        for _ in 0..20_000 {
            if done(bed) {
                return;
            }
            bed.runtime.work(bed.now_ms);
            bed.node.driver.step();
        }
        panic!("it has not come: {:?}", bed.status("endless"));
    };
    let all_run = |bed: &Bed| {
        let states = bed.task_states("endless");
        states.iter().all(|state| *state == TaskState::Running)
    };
    moves(&mut bed, &all_run);
    bed.produce("in", &[("a", "count"), ("b", "count"), ("a", "count")]);
    moves(&mut bed, &|bed| bed.status("victim").lag() == 0);
    assert_eq!(bed.values("out").len(), 3);
    assert_eq!(bed.status("endless").lag(), 3, "it is still at it");

    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.pause(&caller(), "endless", now_ms))
        .unwrap();
    moves(&mut bed, &|bed| {
        let states = bed.task_states("endless");
        states.iter().all(|state| *state == TaskState::Paused)
    });
    bed.block_on(runtime.resume(&caller(), "endless", now_ms))
        .unwrap();
    moves(&mut bed, &all_run);
    bed.block_on(runtime.remove(&caller(), "endless", now_ms))
        .unwrap();
    assert_eq!(bed.runtime.list(&caller()).len(), 1);
}

#[test]
fn a_component_goes_with_the_last_handler_that_has_it() {
    let mut bed = Bed::new(13);
    bed.topic("in", 1);
    bed.topic("out", 1);
    let modules = |bed: &Bed| bed.node.disk.list(Path::new("/node/modules")).unwrap();
    let deployment = |name: &str| {
        Deployment::new(name, guest("kitchen"))
            .input("in")
            .output("out")
    };
    let remove = |bed: &mut Bed, name: &str| {
        let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
        bed.block_on(runtime.remove(&caller(), name, now_ms))
            .unwrap();
        bed.settle();
    };
    bed.deploy(deployment("one"));
    bed.deploy(deployment("two"));
    bed.settle();
    assert_eq!(modules(&bed).len(), 2);
    remove(&mut bed, "one");
    assert_eq!(modules(&bed).len(), 2, "another handler has it");
    // A deployment that is under way needs it before the catalogue says so.
    let (runtime, who) = (bed.runtime.clone(), caller());
    let mut deploying = Box::pin(runtime.deploy(&who, deployment("three"), bed.now_ms));
    assert!(poll_once(deploying.as_mut()).is_pending());
    remove(&mut bed, "two");
    assert_eq!(modules(&bed).len(), 2, "it is being deployed");
    bed.block_on(deploying).unwrap();
    remove(&mut bed, "three");
    assert_eq!(modules(&bed), [""; 0]);
    // And it can be deployed again, with its file durable.
    bed.deploy(deployment("one"));
    let mut bed = bed.crash(Crash::Power).unwrap();
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(bed.values("out").len(), 1);
}

#[test]
fn other_handlers_go_on_while_code_is_compiled() {
    let mut bed = Bed::new(12);
    bed.topic("in", 2);
    bed.topic("out", 1);
    let native = || {
        let handler = NativeHandler::new(obey);
        let code = Code::Native {
            version: "1".to_owned(),
            module: std::sync::Arc::new(handler),
        };
        Deployment::new("quick", code).input("in").output("out")
    };
    bed.deploy(native());
    let component = Deployment::new("slow", guest("kitchen"));
    bed.deploy(component.input("in").output("out"));
    let records = [("a", "count"), ("b", "count"), ("c", "count")];
    bed.produce("in", &records);
    bed.settle();
    assert_eq!(bed.values("out").len(), 6);

    // Another version of the program, or another machine, does not find what was compiled.
    for name in bed.node.disk.list(Path::new("/node/modules")).unwrap() {
        if name.ends_with(".cwasm") {
            let path = Path::new("/node/modules").join(name);
            bed.node.disk.remove_file(&path).unwrap();
        }
    }
    bed.compile_held_up = true;
    let mut bed = bed.crash(Crash::Process).unwrap();
    bed.deploy(native());
    bed.produce("in", &records);
    bed.settle();
    assert_eq!(bed.status("quick").lag(), 0);
    assert_eq!(bed.values("out").len(), 9, "the steps of one handler");
    assert_eq!(bed.status("slow").state, HandlerState::Compiling);
    assert_eq!(bed.task_states("slow"), [TaskState::Compiling; 2]);
    assert_eq!(bed.status("slow").lag(), 3);
    // It obeys meanwhile, and a later command finds the compile under way.
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.pause(&caller(), "slow", now_ms))
        .unwrap();
    bed.settle();
    assert_eq!(bed.task_states("slow"), [TaskState::Paused; 2]);
    bed.block_on(runtime.resume(&caller(), "slow", now_ms))
        .unwrap();
    bed.settle();
    assert_eq!(bed.task_states("slow"), [TaskState::Compiling; 2]);

    bed.compile_held_up = false;
    bed.settle();
    assert_eq!(bed.status("slow").state, HandlerState::Running);
    assert_eq!(bed.status("slow").lag(), 0);
    assert_eq!(bed.values("out").len(), 12);
    let modules = bed.node.disk.list(Path::new("/node/modules")).unwrap();
    let compiled = modules.iter().filter(|name| name.ends_with(".cwasm"));
    assert_eq!(compiled.count(), 1, "{modules:?}");
}

#[test]
fn handlers_share_memory_by_turns() {
    // Two instances fit, and there are eight tasks.
    let mut bed = Bed::with_memory(11, 3 << 20);
    bed.topic("in", 8);
    bed.topic("out", 1);
    bed.deploy(
        Deployment::new("kitchen", guest("kitchen"))
            .input("in")
            .output("out"),
    );
    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    for _ in 0..3 {
        let records: Vec<_> = keys.iter().map(|key| (key.as_str(), "count")).collect();
        bed.produce("in", &records);
        bed.pass(1_000);
    }
    let status = bed.status("kitchen");
    assert_eq!((status.lag(), bed.values("out").len()), (0, 300));
    assert_eq!(status.last_error(), None, "nobody is blamed");
    let failures: u64 = status.tasks.iter().map(|task| task.failures).sum();
    assert_eq!(failures, 0);
}
