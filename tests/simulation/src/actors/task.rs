//! A task: reads its input, and makes steps of offset, state and output, several of them under way before the first is
//! durable. A rival takes the task over now and then; whoever held it is refused from then on.

use std::collections::VecDeque;
use std::pin::Pin;

use mainstem_broker::{BrokerError, FetchRequest, Isolation};
use mainstem_engine::{Append, Check, Committed, EngineError, Submission, Ticket};
use mainstem_record::Batch;
use mainstem_store::{Family, StoreOp};
use rand::Rng;

use super::{INPUT, OUTPUT, PRODUCERS, batch};
use crate::clock::within;
use crate::coverage::met;
use crate::note;
use crate::rules::{TaskState, number, task_fence, task_offset, task_state};
use crate::views::record_hash;
use crate::world::{After, Client};

/// A step of a task that has been taken over.
pub const FENCED: &str = "steps of a replaced task fenced";
/// Steps that were sent before the one before them was durable.
pub const PIPELINED: &str = "steps sent before the one before was durable";

/// Steps under way at most.
const STEPS: usize = 4;

struct Step {
    ticket: Ticket<Committed>,
    to: i64,
    output: u64,
}

/// Where the next step begins.
struct Position {
    epoch: u64,
    offset: i64,
    state: TaskState,
}

/// Runs the task until the run ends and all input is passed. A rival gives up long before.
pub async fn run(mut client: Client, task: u32, is_owner: bool) {
    loop {
        if !is_owner {
            client
                .clock
                .sleep(client.rng.random_range(100..1_500))
                .await;
            if client.is_stopping() {
                return;
            }
        }
        client.operation();
        let outcome = match take(&client, task).await {
            Ok(position) => steps(&mut client, task, position, is_owner).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                if client.after(&error) == After::Over {
                    return;
                }
            }
        }
        client.clock.sleep(client.rng.random_range(1..100)).await;
    }
}

/// Takes the task over: all that earlier owners have got through is in the store when this returns.
async fn take(client: &Client, task: u32) -> Result<Position, BrokerError> {
    let owner = task_fence(task);
    let engine = client.broker.engine();
    let mut admitted = 0;
    let epoch = loop {
        let (as_of, snapshot) = engine.read_at()?;
        let kept = snapshot.get(Family::Offsets, &owner)?;
        let epoch = admitted.max(number(kept.as_ref()) as u64) + 1;
        let submission = Submission {
            store_ops: vec![StoreOp::put(
                Family::Offsets,
                owner.clone(),
                epoch.to_string(),
            )],
            // Owner and rival may have read the same: one of them gets through.
            checks: vec![
                Check::Unchanged {
                    family: Family::Offsets,
                    key: owner.clone(),
                    as_of,
                },
                Check::TakeFence {
                    owner: owner.clone(),
                    epoch,
                },
            ],
            all_or_nothing: true,
            ..Submission::default()
        };
        match client.submit(submission).await {
            Ok(_) => break epoch,
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => {}
            Err(EngineError::Fenced { current, .. }) => admitted = current,
            Err(error) => return Err(error.into()),
        }
    };
    let offset = number(
        engine
            .store()
            .get(Family::Offsets, &task_offset(task))?
            .as_ref(),
    );
    let state = engine.store().get(Family::State, &task_state(task))?;
    note!(
        client.world.borrow().trace,
        "    task {task} is taken over at {offset} with epoch {epoch}"
    );
    Ok(Position {
        epoch,
        offset,
        state: state.map_or_else(TaskState::default, |state| TaskState::decode(&state)),
    })
}

/// Makes steps until the task is lost (false) or done (true).
async fn steps(
    client: &mut Client,
    task: u32,
    mut position: Position,
    is_owner: bool,
) -> Result<bool, BrokerError> {
    let mut under_way: VecDeque<Step> = VecDeque::new();
    let mut budget = if is_owner {
        u32::MAX
    } else {
        client.rng.random_range(1..10)
    };
    loop {
        if under_way.len() < STEPS && budget > 0 {
            let (before, first) = (position.offset, under_way.is_empty());
            if let Some(step) = step(client, task, &mut position).await? {
                note!(
                    client.world.borrow().trace,
                    "    task {task} steps from {before} to {}",
                    step.to
                );
                if !first {
                    met(PIPELINED);
                }
                budget -= 1;
                under_way.push_back(step);
                if client.rng.random_bool(0.7) {
                    client.clock.sleep(client.rng.random_range(0..20)).await;
                    continue;
                }
            }
        }
        let Some(mut front) = under_way.pop_front() else {
            if !is_owner && budget == 0 {
                return Ok(false);
            }
            if is_done(client, task, &position) {
                return Ok(true);
            }
            let (broker, caller) = (&client.broker, &client.caller);
            let (topic, isolation) = (broker.topic(caller, INPUT)?, Isolation::ReadUncommitted);
            let data = broker.wait_for_data(caller, &topic, task, position.offset, isolation)?;
            let patience = client.rng.random_range(10..300);
            within(&client.clock, patience, data).await;
            continue;
        };
        let waited = within(
            &client.clock,
            client.rng.random_range(1..50),
            Pin::new(&mut front.ticket),
        )
        .await;
        match waited {
            None => under_way.push_front(front),
            Some(Ok(committed)) => acknowledged(client, task, &front, &committed),
            Some(Err(error)) => {
                // Nothing behind it may have got through.
                for behind in under_way {
                    let outcome = behind.ticket.await;
                    assert!(
                        outcome.is_err(),
                        "a step behind one that was refused ({error}) was taken"
                    );
                }
                if let EngineError::Fenced { .. } = error {
                    met(FENCED);
                    return Ok(false);
                }
                return Err(error.into());
            }
        }
    }
}

fn is_done(client: &Client, task: u32, position: &Position) -> bool {
    let world = client.world.borrow();
    let bounds = client.broker.partition_bounds(&client.caller, INPUT, task);
    world.stopping
        && world.finished == PRODUCERS
        && bounds.is_ok_and(|bounds| bounds.high_watermark == position.offset)
}

fn acknowledged(client: &Client, task: u32, step: &Step, committed: &Committed) {
    let mut world = client.world.borrow_mut();
    let known = world.tasks.entry(task).or_default();
    *known = (*known).max(step.to);
    let output = world.partition(OUTPUT, task);
    match &committed.appends[..] {
        [Ok(appended)] => world.see(output, appended.base_offset, step.output),
        other => panic!("a step has one output, not {other:?}"),
    }
}

/// Sends the next step, if there is input for one.
async fn step(
    client: &mut Client,
    task: u32,
    position: &mut Position,
) -> Result<Option<Step>, BrokerError> {
    client.operation();
    let request = FetchRequest {
        topic: INPUT.into(),
        partition: task,
        offset: position.offset,
        max_bytes: client.rng.random_range(0..2_000),
        isolation: Isolation::ReadUncommitted,
    };
    let fetched = client.broker.fetch(&client.caller, &request)?;
    let most = client.rng.random_range(1..12);
    let (from, mut to, mut state) = (position.offset, position.offset, position.state);
    for mut piece in fetched.batches {
        while let Some(batch) =
            Batch::split_first(&mut piece).unwrap_or_else(|error| panic!("{error}"))
        {
            let payload = batch.payload().unwrap_or_else(|error| panic!("{error}"));
            for view in payload.views() {
                let view = view.unwrap_or_else(|error| panic!("{error}"));
                if view.offset == to && to - from < most {
                    to += 1;
                    state = state.after(record_hash(view.key, view.value));
                }
            }
        }
    }
    if to == from {
        return Ok(None);
    }
    let value = format!("{from}:{to}:{}", state.encode());
    let output = client.world.borrow().partition(OUTPUT, task);
    let submission = Submission {
        appends: vec![Append {
            partition: output,
            batch: batch(
                &mut client.rng,
                None,
                std::slice::from_ref(&value),
                client.clock.now_ms(),
            ),
        }],
        store_ops: vec![
            StoreOp::put(Family::Offsets, task_offset(task), to.to_string()),
            StoreOp::put(Family::State, task_state(task), state.encode()),
        ],
        checks: vec![Check::Fence {
            owner: task_fence(task),
            epoch: position.epoch,
        }],
        all_or_nothing: true,
        ..Submission::default()
    };
    let engine = client.broker.engine();
    let reserved = engine.reserve_with_store(submission.size_bytes(), submission.store_bytes());
    let permit = reserved.await?;
    let ticket = engine.submit(submission, permit);
    (position.offset, position.state) = (to, state);
    Ok(Some(Step {
        ticket,
        to,
        output: record_hash(None, Some(value.as_bytes())),
    }))
}
