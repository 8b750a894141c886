//! Deploying, pausing, upgrading, removing; and what is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use mainstem_broker::{NewRecord, TopicChange};
use mainstem_engine::testing::{Crash, poll_once};
use mainstem_runtime::{
    Code, Deployment, HandlerState, HandlerStatus, NativeHandler, OnError, OutputRecord,
    RuntimeError, StartFrom, TaskState,
};

use crate::support::{Bed, caller, guest, obey};

fn native(version: &str) -> Code {
    Code::Native {
        version: version.to_owned(),
        module: Arc::new(NativeHandler::new(obey)),
    }
}

fn counter() -> Deployment {
    Deployment::new("counter", native("1"))
        .input("in")
        .output("out")
}

fn bed(seed: u64) -> Bed {
    let mut bed = Bed::new(seed);
    bed.topic("in", 2);
    bed.topic("out", 3);
    bed
}

fn refused(bed: &mut Bed, deployment: Deployment) -> RuntimeError {
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.deploy(&caller(), deployment, now_ms))
        .unwrap_err()
}

#[test]
fn deployments_that_make_no_sense_are_refused_in_words() {
    let mut bed = bed(1);
    let error = refused(&mut bed, Deployment::new("x", native("1")));
    assert!(error.to_string().contains("no input topic"), "{error}");
    let error = refused(&mut bed, Deployment::new("a/b", native("1")).input("in"));
    assert!(error.to_string().contains("letters"), "{error}");
    let error = refused(&mut bed, counter().input("in"));
    assert!(error.to_string().contains("named twice"), "{error}");
    let error = refused(&mut bed, counter().input("absent"));
    assert!(
        matches!(&error, RuntimeError::UnknownTopic { role: "input", .. }),
        "{error}"
    );
    let error = refused(&mut bed, counter().output("absent"));
    assert!(error.to_string().contains("--create-topics"), "{error}");
    let error = bed.runtime.status(&caller(), "nobody").unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
}

#[test]
fn missing_outputs_are_created_when_asked_for() {
    let mut bed = bed(2);
    let mut deployment = counter().output("more");
    deployment.create_topics = true;
    bed.deploy(deployment);
    assert_eq!(
        bed.broker.topic(&caller(), "more").unwrap().partitions,
        2,
        "as many as the first input has"
    );
    assert_eq!(
        bed.broker
            .topic(&caller(), "counter.dlq")
            .unwrap()
            .partitions,
        2
    );
}

#[test]
fn a_paused_handler_stands_still_over_a_restart_and_goes_on() {
    let mut bed = bed(3);
    bed.deploy(counter());
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    let status = bed
        .block_on(runtime.pause(&caller(), "counter", now_ms))
        .unwrap();
    assert_eq!(status.state, HandlerState::Paused);
    bed.produce("in", &[("a", "count"), ("b", "count")]);
    bed.pass(5_000);
    assert_eq!(bed.values("out").len(), 1);
    assert_eq!(bed.status("counter").lag(), 2);

    let mut bed = bed.crash(Crash::Process).unwrap();
    bed.deploy(counter());
    bed.pass(5_000);
    assert_eq!(bed.status("counter").state, HandlerState::Paused);
    assert_eq!(
        bed.status("counter").lag(),
        2,
        "what waits for it is known before it runs"
    );
    assert_eq!(bed.values("out").len(), 1);
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.resume(&caller(), "counter", now_ms))
        .unwrap();
    bed.settle();
    assert_eq!(bed.values("out").len(), 3);
}

#[test]
fn events_that_are_gone_before_they_were_handled_are_told_once_and_are_no_lag() {
    let mut bed = bed(3);
    bed.deploy(counter());
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    let (runtime, broker, now_ms) = (bed.runtime.clone(), bed.broker.clone(), bed.now_ms);
    bed.block_on(runtime.pause(&caller(), "counter", now_ms))
        .unwrap();
    bed.produce("in", &[("a", "count"), ("b", "count"), ("c", "count")]);
    let all = [(0, None), (1, None)];
    bed.block_on(broker.delete_records(&caller(), "in", &all))
        .unwrap();
    bed.block_on(runtime.resume(&caller(), "counter", now_ms))
        .unwrap();
    bed.settle();
    let status = bed.status("counter");
    assert_eq!(status.lag(), 0);
    let told = |status: &HandlerStatus| {
        let errors = status
            .tasks
            .iter()
            .filter_map(|task| task.last_error.clone());
        errors
            .filter(|error| error.contains("were removed"))
            .count()
    };
    assert!(told(&status) > 0, "{status:?}");

    let mut bed = bed.crash(Crash::Process).unwrap();
    bed.deploy(counter());
    bed.settle();
    let status = bed.status("counter");
    assert_eq!((status.lag(), told(&status)), (0, 0), "{status:?}");
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(bed.values("out").len(), 2);
}

#[test]
fn an_upgrade_keeps_state_and_handles_no_event_twice() {
    let mut bed = bed(4);
    bed.deploy(counter());
    bed.produce("in", &[("a", "count"), ("a", "count")]);
    bed.settle();
    let twice = NativeHandler::new(|event, state, out: &mut Vec<OutputRecord>| {
        obey(event, state, out)?;
        obey(event, state, out)
    });
    // Some of these are handled by the old version and some by the new one; which, is for the moment to decide.
    bed.produce("in", &[("a", "count"), ("a", "count")]);
    let mut upgrade = counter();
    upgrade.code = Code::Native {
        version: "2".into(),
        module: Arc::new(twice),
    };
    assert_eq!(bed.deploy(upgrade).generation, 2);
    bed.settle();
    let counts: Vec<u64> = bed
        .values("out")
        .iter()
        .map(|(_, count)| count.parse().unwrap())
        .collect();
    let last = *counts.last().unwrap();
    assert_eq!(counts, (1..=last).collect::<Vec<_>>());
    assert!((4..=6).contains(&last), "{last}");
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(bed.values("out").len() as u64, last + 2);
}

#[test]
fn a_removed_handler_leaves_no_trace_and_its_name_is_free() {
    let mut bed = bed(5);
    let first = bed.deploy(counter()).id;
    let keys: Vec<String> = (0..5_000).map(|n| format!("key-{n}")).collect();
    let records: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "count")).collect();
    for some in records.chunks(1_000) {
        bed.produce("in", some);
        bed.settle();
    }
    assert_eq!(bed.state("counter").len(), 5_000);
    let prefixes = bed.runtime.state_prefixes(&caller(), "counter").unwrap();
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.remove(&caller(), "counter", now_ms))
        .unwrap();
    assert!(bed.runtime.list(&caller()).is_empty());
    for (_, prefix) in prefixes {
        use mainstem_store::StoreSnapshot;
        let left = |_: &[u8], _: &[u8]| panic!("state was left");
        bed.node
            .store
            .scan_prefix(mainstem_store::Family::State, &prefix, &mut { left })
            .unwrap();
    }
    bed.deploy(counter());
    bed.settle();
    let status = bed.status("counter");
    assert!(status.id > first);
    assert_eq!(status.lag(), 0, "it has begun anew, at earliest");
    assert_eq!(bed.values("out").len(), 10_000);
}

#[test]
fn a_removal_cut_short_goes_on_after_a_restart() {
    let mut bed = bed(6);
    bed.deploy(counter());
    bed.produce("in", &[("a", "count"), ("b", "count")]);
    bed.settle();
    let runtime = bed.runtime.clone();
    let mut removal = Box::pin(async move { runtime.remove(&caller(), "counter", 0).await });
    while bed.status("counter").state != HandlerState::Removing {
        let _ = poll_once(removal.as_mut());
        bed.runtime.work(bed.now_ms);
        bed.node.driver.step();
    }
    drop(removal);
    let mut bed = bed.crash(Crash::Power).unwrap();
    bed.pass(10_000);
    assert!(bed.runtime.list(&caller()).is_empty());
}

#[test]
fn a_handler_begins_where_it_is_told_to() {
    let mut bed = bed(7);
    bed.produce("in", &[("a", "count"), ("a", "count")]);
    let mut deployment = counter();
    deployment.start = StartFrom::Latest;
    bed.deploy(deployment);
    // Where it begins was decided by the deployment, and not by the first step.
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(bed.values("out"), [("a".to_owned(), "1".to_owned())]);
}

#[test]
fn a_halted_task_waits_for_its_handler_to_be_resumed_or_upgraded() {
    let mut bed = bed(8);
    let mut deployment = counter();
    deployment.on_error = OnError::Halt { attempts: 2 };
    bed.deploy(deployment.clone());
    bed.produce("in", &[("a", "count"), ("a", "error"), ("a", "count")]);
    bed.pass(10_000);
    let status = bed.status("counter");
    assert_eq!(status.state, HandlerState::Halted);
    assert!(
        status.last_error().unwrap().contains("no such thing"),
        "{:?}",
        status.last_error()
    );
    assert!(
        status
            .tasks
            .iter()
            .any(|task| task.state == TaskState::Halted)
    );
    assert_eq!(
        (bed.values("out").len(), status.lag()),
        (1, 2),
        "what came before it is committed, nothing after"
    );

    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    bed.block_on(runtime.resume(&caller(), "counter", now_ms))
        .unwrap();
    bed.pass(10_000);
    assert_eq!(
        bed.status("counter").state,
        HandlerState::Halted,
        "nothing has changed"
    );

    let forgiving = NativeHandler::new(|event, state, out: &mut Vec<OutputRecord>| {
        match event.value.as_deref() {
            Some(b"error") => Ok(()),
            _ => obey(event, state, out),
        }
    });
    deployment.code = Code::Native {
        version: "2".into(),
        module: Arc::new(forgiving),
    };
    bed.deploy(deployment);
    bed.settle();
    assert_eq!(bed.status("counter").state, HandlerState::Running);
    assert_eq!(
        (bed.values("out").len(), bed.status("counter").lag()),
        (2, 0)
    );
}

#[test]
fn several_inputs_meet_in_one_state_by_partition_number() {
    let mut bed = bed(9);
    bed.topic("more", 1);
    bed.deploy(counter().input("more"));
    let at = |partition| NewRecord {
        partition: Some(partition),
        key: Some("k".into()),
        value: Some("count".into()),
        ..NewRecord::default()
    };
    bed.produce_records("in", vec![at(0), at(1)]);
    bed.produce_records("more", vec![at(0)]);
    bed.settle();
    let state = bed.state("counter");
    assert_eq!(state[&(0, "counts".to_owned(), b"k".to_vec())], b"2");
    assert_eq!(state[&(1, "counts".to_owned(), b"k".to_vec())], b"1");
    assert_eq!(
        bed.status("counter")
            .tasks
            .iter()
            .map(|task| task.inputs.len())
            .collect::<Vec<_>>(),
        [2, 1]
    );
}

#[test]
fn a_missing_output_topic_stops_one_handler_and_says_so() {
    let mut bed = bed(10);
    bed.topic("else", 1);
    bed.deploy(counter());
    let broker = bed.broker.clone();
    bed.deploy(
        Deployment::new("third", guest("typed"))
            .input("in")
            .output("out")
            .output("else"),
    );
    bed.settle();
    bed.block_on(broker.delete_topic(&caller(), "else"))
        .unwrap();
    let mut bed = bed.crash(Crash::Process).unwrap();
    bed.deploy(counter());
    bed.produce("in", &[("a", "count")]);
    bed.pass(3_000);
    assert_eq!(bed.status("counter").lag(), 0);
    assert!(
        bed.status("third")
            .tasks
            .iter()
            .all(|task| task.state == TaskState::Retrying),
        "{:?}",
        bed.task_states("third")
    );
}

type Removal = Pin<Box<dyn Future<Output = Result<(), RuntimeError>>>>;

#[test]
fn two_removals_at_once_leave_the_next_handler_of_the_name_alone() {
    let mut bed = bed(11);
    let first = bed.deploy(counter()).id;
    bed.produce("in", &[("a", "count"), ("b", "count")]);
    bed.settle();
    let remove = |bed: &Bed| -> Removal {
        let runtime = bed.runtime.clone();
        Box::pin(async move { runtime.remove(&caller(), "counter", 0).await })
    };
    let (mut one, mut two) = (remove(&bed), remove(&bed));
    let (mut one_is_done, mut two_is_done) = (false, false);
    let poll = |removal: &mut Removal, done: &mut bool| {
        if !*done && let Poll::Ready(outcome) = poll_once(removal.as_mut()) {
            outcome.unwrap();
            *done = true;
        }
    };
    while !one_is_done && !two_is_done {
        poll(&mut one, &mut one_is_done);
        poll(&mut two, &mut two_is_done);
        bed.runtime.work(bed.now_ms);
        bed.node.driver.step();
    }
    let second = bed.deploy(counter()).id;
    assert!(second > first);
    bed.pass(10_000);
    poll(&mut one, &mut one_is_done);
    poll(&mut two, &mut two_is_done);
    assert!(one_is_done && two_is_done, "both asked for the same thing");
    assert_eq!(bed.status("counter").state, HandlerState::Running);
    drop((one, two));
    let mut bed = bed.crash(Crash::Power).unwrap();
    bed.deploy(counter());
    bed.pass(10_000);
    let status = bed.status("counter");
    assert_eq!((status.id, status.lag()), (second, 0));
}

type Change = Pin<Box<dyn Future<Output = Result<HandlerStatus, RuntimeError>>>>;

fn set_paused(bed: &Bed, paused: bool) -> Change {
    let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
    Box::pin(async move {
        match paused {
            true => runtime.pause(&caller(), "counter", now_ms).await,
            false => runtime.resume(&caller(), "counter", now_ms).await,
        }
    })
}

#[test]
fn a_change_whose_caller_goes_away_is_made_whole() {
    let mut bed = bed(12);
    bed.deploy(counter());
    for polls in 1..6 {
        for paused in [true, false] {
            let mut change = set_paused(&bed, paused);
            for _ in 0..polls {
                let _ = poll_once(change.as_mut());
                bed.runtime.work(bed.now_ms);
                bed.node.driver.step();
            }
            drop(change);
            bed.pass(100);
            let expected = match paused {
                true => (HandlerState::Paused, TaskState::Paused),
                false => (HandlerState::Running, TaskState::Running),
            };
            assert_eq!(bed.status("counter").state, expected.0, "{polls} {paused}");
            assert_eq!(bed.task_states("counter"), [expected.1; 2]);
        }
    }
}

#[test]
fn changes_at_the_same_time_end_as_the_catalogue_has_it() {
    for seed in 20..40 {
        let mut bed = bed(seed);
        bed.deploy(counter());
        let mut upgrade = counter();
        upgrade.code = native("2");
        let (runtime, now_ms) = (bed.runtime.clone(), bed.now_ms);
        let deploying: Change =
            Box::pin(async move { runtime.deploy(&caller(), upgrade, now_ms).await });
        let mut changes = vec![set_paused(&bed, true), deploying, set_paused(&bed, false)];
        let mut random = seed;
        while !changes.is_empty() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let one = (random % (2 * changes.len() as u64)) as usize;
            match changes.get_mut(one) {
                Some(change) => {
                    if let Poll::Ready(outcome) = poll_once(change.as_mut()) {
                        outcome.unwrap();
                        drop(changes.remove(one));
                    }
                }
                None => {
                    bed.step(random >> 8);
                }
            }
        }
        bed.pass(1_000);
        let (state, tasks) = (bed.status("counter").state, bed.task_states("counter"));
        let expected = match state {
            HandlerState::Paused => TaskState::Paused,
            _ => TaskState::Running,
        };
        assert_eq!(tasks, [expected; 2], "seed {seed}");
        let mut bed = bed.crash(Crash::Power).unwrap();
        let mut again = counter();
        again.code = native("2");
        let status = bed.deploy(again);
        assert_eq!((status.state, status.generation), (state, 2), "seed {seed}");
    }
}

fn at(partition: u32, what: &'static str) -> NewRecord {
    NewRecord {
        partition: Some(partition),
        key: Some("k".into()),
        value: Some(what.into()),
        ..NewRecord::default()
    }
}

fn grow(bed: &mut Bed, topic: &str, partitions: u32) {
    let broker = bed.broker.clone();
    let change = TopicChange {
        partitions: Some(partitions),
        ..TopicChange::default()
    };
    bed.block_on(broker.alter_topic(&caller(), topic, change))
        .unwrap();
}

#[test]
fn partitions_that_are_added_are_read_where_there_is_no_state() {
    let mut bed = bed(13);
    bed.topic("more", 1);
    bed.deploy(counter().input("more"));
    bed.produce_records("in", vec![at(1, "copy")]);
    bed.settle();
    grow(&mut bed, "in", 4);
    grow(&mut bed, "more", 2);
    bed.produce_records("in", vec![at(3, "copy"), at(0, "copy")]);
    // Its task was there before, without this input.
    bed.produce_records("more", vec![at(1, "copy")]);
    bed.pass(5_000);
    assert_eq!(bed.values("out").len(), 4);
    let status = bed.status("counter");
    assert_eq!((status.tasks.len(), status.lag()), (4, 0));
    let mut bed = bed.crash(Crash::Power).unwrap();
    bed.deploy(counter().input("more"));
    bed.pass(5_000);
    assert_eq!(
        (bed.status("counter").tasks.len(), bed.values("out").len()),
        (4, 4)
    );
}

#[test]
fn a_handler_with_state_reads_added_partitions_when_it_is_deployed_again() {
    let mut bed = bed(14);
    bed.deploy(counter());
    bed.produce_records("in", vec![at(1, "count")]);
    bed.settle();
    grow(&mut bed, "in", 4);
    bed.produce_records("in", vec![at(3, "count"), at(1, "count")]);
    bed.pass(5_000);
    assert_eq!(bed.values("out").len(), 2);
    let status = bed.status("counter");
    assert!(status.last_error().unwrap().contains("deploy it again"));
    bed.deploy(counter());
    bed.pass(5_000);
    let status = bed.status("counter");
    assert_eq!(
        (status.tasks.len(), status.lag(), bed.values("out").len()),
        (4, 0, 3)
    );
}

#[test]
fn outputs_follow_their_key_to_partitions_that_were_added() {
    let mut bed = bed(15);
    bed.deploy(counter());
    let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    let orders: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "count")).collect();
    bed.produce("in", &orders);
    bed.settle();
    grow(&mut bed, "out", 7);
    bed.produce("in", &orders);
    bed.settle();
    // Where everybody else sends them now.
    let expected: Vec<u32> = bed
        .produce("out", &orders)
        .iter()
        .map(|place| place.0)
        .collect();
    let out = bed.read("out");
    for (key, partition) in keys.iter().zip(expected) {
        let counts = out[partition as usize].iter().filter(|record| {
            record.key.as_deref() == Some(key.as_bytes()) && record.value.as_deref() == Some(b"2")
        });
        assert_eq!(counts.count(), 1, "{key} in partition {partition}");
    }
}
