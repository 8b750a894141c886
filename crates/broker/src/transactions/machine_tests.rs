//! What one transactional id decides.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use mainstem_engine::{MARKER_BYTES, Marker};
use mainstem_log::{PartitionId, TopicId};

use super::machine::{Change, Decision, Machine};
use super::record::Status;
use super::types::TransactionState;
use crate::{BrokerError, CommittedOffset, ProducerIdentity};

const TIMEOUT_MS: i64 = 1_000;
const EXPIRATION_MS: i64 = 100_000;

fn partition(index: u32) -> PartitionId {
    PartitionId {
        topic: TopicId(1),
        index,
    }
}

/// The change that was decided, done.
fn done(machine: &mut Machine, decision: Decision, now_ms: i64) -> (ProducerIdentity, Change) {
    let Decision::Write(change, producer) = decision else {
        panic!("{decision:?}")
    };
    machine.begin((*change).clone());
    machine.done(true, now_ms);
    (producer, *change)
}

fn answer(decision: Decision) -> ProducerIdentity {
    match decision {
        Decision::Answer(producer) => producer,
        other => panic!("{other:?}"),
    }
}

/// An id with its first producer.
fn begun() -> (Machine, ProducerIdentity) {
    let mut machine = Machine::new("t");
    let needs = machine.init(TIMEOUT_MS, None, None, 0).unwrap();
    assert!(matches!(needs, Decision::NeedsId));
    let first = machine.init(TIMEOUT_MS, None, Some(7), 0).unwrap();
    let (producer, _) = done(&mut machine, first, 0);
    assert_eq!(producer, ProducerIdentity { id: 7, epoch: 0 });
    assert_eq!(machine.state(), TransactionState::Empty);
    (machine, producer)
}

fn is_fenced<T: std::fmt::Debug>(outcome: Result<T, BrokerError>) -> bool {
    matches!(outcome, Err(BrokerError::ProducerFenced { .. }))
}

#[test]
fn the_next_producer_fences_the_one_before_and_aborts_what_it_left_open() {
    let (mut machine, zombie) = begun();
    assert!(machine.takes(partition(1), true, 10).unwrap().is_some());
    let init = machine.init(TIMEOUT_MS, None, None, 20).unwrap();
    let (producer, change) = done(&mut machine, init, 20);
    assert_eq!(producer, ProducerIdentity { id: 7, epoch: 1 });
    let end = change.end.unwrap();
    assert_eq!((end.marker, end.marker_epoch), (Marker::Abort, 1));
    assert_eq!(end.partitions, [partition(1)]);
    assert!(is_fenced(machine.admits(zombie)));
    assert!(is_fenced(machine.end(zombie, true, false, None, 30)));
    assert!(is_fenced(machine.add_partitions(
        zombie,
        &[partition(1)],
        30
    )));
    assert!(machine.takes(partition(1), false, 30).unwrap().is_none());
}

#[test]
fn what_is_being_added_counts_before_it_is_there() {
    let limited = || begun().0.limited(10_000);
    let mut full = limited();
    let fits = |one: &PartitionId| full.takes(*one, true, 0).is_ok();
    let fitting: Vec<_> = (0..).map(partition).take_while(fits).collect();
    let (mut machine, one_more) = (limited(), partition(fitting.len() as u32));
    let producer = ProducerIdentity { id: 7, epoch: 0 };
    let Decision::Write(change, _) = machine.add_partitions(producer, &fitting, 0).unwrap() else {
        panic!("all of them fit")
    };
    machine.begin(*change);
    assert!(machine.takes(one_more, true, 0).is_err());
    machine.done(false, 0);
    assert!(machine.takes(one_more, true, 0).is_ok());
}

#[test]
fn who_names_himself_gets_the_next_epoch_once() {
    let (mut machine, first) = begun();
    let init = machine.init(TIMEOUT_MS, Some(first), None, 1).unwrap();
    let (second, _) = done(&mut machine, init, 1);
    assert_eq!(second.epoch, 1);
    let again = machine.init(TIMEOUT_MS, Some(first), None, 2).unwrap();
    assert_eq!(answer(again), second);
    // Another one has taken the id meanwhile.
    let other = machine.init(TIMEOUT_MS, None, None, 3).unwrap();
    done(&mut machine, other, 3);
    assert!(is_fenced(machine.init(TIMEOUT_MS, Some(second), None, 4)));
    assert!(is_fenced(machine.init(TIMEOUT_MS, Some(first), None, 4)));
}

#[test]
fn used_up_epochs_make_a_new_id() {
    let (mut machine, mut producer) = begun();
    loop {
        match machine.init(TIMEOUT_MS, Some(producer), None, 0).unwrap() {
            Decision::NeedsId => break,
            decision => producer = done(&mut machine, decision, 0).0,
        }
    }
    assert_eq!(producer.epoch, i16::MAX - 1);
    machine.takes(partition(1), true, 0).unwrap();
    let needs = machine.end(producer, true, true, None, 0).unwrap();
    assert!(matches!(needs, Decision::NeedsId));
    let end = machine.end(producer, true, true, Some(8), 0).unwrap();
    let (next, change) = done(&mut machine, end, 0);
    assert_eq!(next, ProducerIdentity { id: 8, epoch: 0 });
    // The old id's partitions are fenced with the last epoch of all.
    assert_eq!(change.end.unwrap().marker_epoch, i16::MAX);
    let again = machine.end(producer, true, true, None, 0).unwrap();
    assert_eq!(answer(again), next);
    assert!(matches!(
        machine.admits(producer),
        Err(BrokerError::InvalidProducerMapping { .. })
    ));
}

#[test]
fn an_end_is_answered_the_same_again_and_not_the_other_way() {
    let (mut machine, producer) = begun();
    assert!(matches!(
        machine.end(producer, true, false, None, 0),
        Err(BrokerError::InvalidTransactionState { .. })
    ));
    let add = machine
        .add_partitions(producer, &[partition(1), partition(2)], 5)
        .unwrap();
    done(&mut machine, add, 5);
    let again = machine
        .add_partitions(producer, &[partition(2)], 6)
        .unwrap();
    assert_eq!(answer(again), producer);
    assert_eq!(
        (machine.state(), machine.started_ms()),
        (TransactionState::Ongoing, Some(5))
    );
    let end = machine.end(producer, true, false, None, 7).unwrap();
    let (after, change) = done(&mut machine, end, 7);
    assert_eq!(after, producer);
    let end = change.end.unwrap();
    assert_eq!((end.marker, end.marker_epoch), (Marker::Commit, 0));
    assert_eq!(end.partitions.len(), 2);
    assert_eq!(
        answer(machine.end(producer, true, false, None, 8).unwrap()),
        producer
    );
    assert!(machine.end(producer, false, false, None, 8).is_err());
    // The next transaction has nothing of this one.
    let add = machine
        .add_partitions(producer, &[partition(3)], 9)
        .unwrap();
    let (_, change) = done(&mut machine, add, 9);
    assert_eq!(change.record.unwrap().partitions, [partition(3)].into());
}

#[test]
fn an_end_that_gives_the_next_epoch_is_answered_the_same_again() {
    let (mut machine, producer) = begun();
    machine.takes(partition(1), true, 0).unwrap();
    let end = machine.end(producer, false, true, None, 1).unwrap();
    let (next, change) = done(&mut machine, end, 1);
    assert_eq!((next.epoch, change.end.unwrap().marker_epoch), (1, 1));
    assert_eq!(
        answer(machine.end(producer, false, true, None, 2).unwrap()),
        next
    );
    assert!(machine.end(producer, true, true, None, 2).is_err());
    assert!(
        machine.end(next, true, true, None, 2).is_err(),
        "nothing to commit"
    );
    // An abort of nothing still gives the next epoch: the client may have sent batches that never came.
    let empty = machine.end(next, false, true, None, 3).unwrap();
    let (third, change) = done(&mut machine, empty, 3);
    assert!(third.epoch == 2 && change.end.is_none());
    assert!(is_fenced(machine.admits(next)));
}

#[test]
fn offsets_wait_for_the_end_and_go_with_a_commit_alone() {
    let committed = CommittedOffset {
        offset: 9,
        leader_epoch: None,
        metadata: String::new(),
        committed_ms: 0,
    };
    let offsets: BTreeMap<_, _> = [(partition(1), committed)].into();
    for commit in [true, false] {
        let (mut machine, producer) = begun();
        let refused = machine.add_offsets(producer, "g", false, &offsets, 0);
        assert!(matches!(refused, Err(BrokerError::NotInTransaction { .. })));
        let add = machine.add_group(producer, "g", 0).unwrap();
        done(&mut machine, add, 0);
        let add = machine
            .add_offsets(producer, "g", false, &offsets, 0)
            .unwrap();
        let Decision::Write(change, _) = add else {
            panic!()
        };
        machine.begin((*change).clone());
        assert_eq!(
            machine.unstable("g").count(),
            1,
            "from when it is under way"
        );
        machine.done(true, 0);
        assert_eq!(machine.unstable("g").count(), 1);
        assert_eq!(machine.unstable("h").count(), 0);
        let end = machine.end(producer, commit, true, None, 0).unwrap();
        let (_, change) = done(&mut machine, end, 0);
        let end = change.end.unwrap();
        assert_eq!(end.offsets.contains_key("g"), commit);
        assert_eq!(machine.unstable("g").count(), 0);
    }
}

#[test]
fn time_aborts_what_is_open_too_long_and_forgets_who_is_silent() {
    let (mut machine, producer) = begun();
    machine.takes(partition(1), true, 100).unwrap();
    assert_eq!(machine.deadline_ms(EXPIRATION_MS), Some(100 + TIMEOUT_MS));
    assert!(machine.tick(99 + TIMEOUT_MS, EXPIRATION_MS).is_none());
    let change = machine.tick(100 + TIMEOUT_MS, EXPIRATION_MS).unwrap();
    machine.begin(change.clone());
    assert_eq!(machine.state(), TransactionState::PrepareAbort);
    assert_eq!(machine.deadline_ms(EXPIRATION_MS), None);
    // It was refused: it is tried again, not at once.
    machine.done(false, 2_000);
    assert_eq!(machine.state(), TransactionState::Ongoing);
    assert!(machine.deadline_ms(EXPIRATION_MS) > Some(2_000));
    machine.begin(change.clone());
    machine.done(true, 4_000);
    assert_eq!(machine.state(), TransactionState::CompleteAbort);
    assert!(is_fenced(machine.admits(producer)));
    assert!(is_fenced(machine.init(
        TIMEOUT_MS,
        Some(producer),
        None,
        4_000
    )));
    let record = machine.record().unwrap();
    assert_eq!((record.producer.epoch, record.status), (1, Status::Aborted));
    let due_ms = machine.deadline_ms(EXPIRATION_MS).unwrap();
    let change = machine.tick(due_ms, EXPIRATION_MS).unwrap();
    assert!(change.record.is_none() && change.end.is_none());
    machine.begin(change);
    machine.done(true, due_ms);
    assert!(machine.is_nothing());
}

#[test]
fn what_is_under_way_is_waited_for() {
    let (mut machine, producer) = begun();
    machine.takes(partition(1), true, 0).unwrap();
    let Decision::Write(change, _) = machine.add_group(producer, "g", 0).unwrap() else {
        panic!()
    };
    machine.begin(*change);
    // Batches need not wait for it, ends do.
    assert!(machine.admits(producer).unwrap());
    assert!(matches!(
        machine.end(producer, true, true, None, 0),
        Ok(Decision::Busy)
    ));
    machine.done(true, 0);
    let Decision::Write(change, _) = machine.end(producer, true, true, None, 0).unwrap() else {
        panic!()
    };
    machine.begin(*change);
    assert!(!machine.admits(producer).unwrap());
    assert!(matches!(
        machine.init(TIMEOUT_MS, None, None, 0),
        Ok(Decision::Busy)
    ));
}

#[test]
fn a_restart_finds_what_was_open() {
    let (mut machine, producer) = begun();
    let add = machine
        .add_partitions(producer, &[partition(1)], 50)
        .unwrap();
    let (_, change) = done(&mut machine, add, 50);
    // Told of, and known from the log alone.
    let mut again = Machine::restore("t", change.record.unwrap());
    again.found_open(partition(2));
    assert_eq!(
        (again.state(), again.started_ms()),
        (TransactionState::Ongoing, Some(50))
    );
    assert_eq!(again.partitions(), [partition(1), partition(2)].into());
    let record = begun().0.record().unwrap().clone();
    let mut implicit = Machine::restore("t", record);
    assert_eq!(implicit.state(), TransactionState::Empty);
    implicit.found_open(partition(2));
    assert_eq!(
        implicit.deadline_ms(EXPIRATION_MS),
        None,
        "no time is known yet"
    );
    implicit.resume(60);
    assert_eq!(implicit.deadline_ms(EXPIRATION_MS), Some(60 + TIMEOUT_MS));
}

#[test]
fn what_an_end_could_not_hold_does_not_become_part_of_it() {
    let (machine, producer) = begun();
    // Room for three partitions.
    let mut machine = machine.limited(2_048 + 3 * MARKER_BYTES);
    let too_large = |refused: Result<(), BrokerError>| {
        assert_eq!(refused.unwrap_err().code(), "transaction_too_large");
    };
    let add = machine
        .add_partitions(producer, &[partition(1)], 0)
        .unwrap();
    done(&mut machine, add, 0);
    machine.takes(partition(2), true, 0).unwrap();
    let two = [partition(3), partition(4)];
    too_large(machine.add_partitions(producer, &two, 0).map(|_| ()));
    let committed = CommittedOffset {
        offset: 0,
        leader_epoch: None,
        metadata: String::new(),
        committed_ms: 0,
    };
    let offsets = [(partition(9), committed)].into();
    too_large(
        machine
            .add_offsets(producer, "g", true, &offsets, 0)
            .map(|_| ()),
    );
    machine.takes(partition(3), true, 0).unwrap();
    too_large(machine.takes(partition(4), true, 0).map(|_| ()));
    // Those that it has are written to as before, and it ends.
    assert!(machine.takes(partition(3), true, 0).unwrap().is_some());
    let end = machine.end(producer, true, false, None, 0).unwrap();
    let (_, change) = done(&mut machine, end, 0);
    assert_eq!(change.end.unwrap().partitions.len(), 3);
    // The next one begins with nothing.
    let three = [partition(4), partition(5), partition(6)];
    assert!(machine.add_partitions(producer, &three, 0).is_ok());
}
