//! An administrator of groups: deletes offsets and whole groups, now and then with the members sent away first.

use std::collections::BTreeMap;

use mainstem_broker::BrokerError;
use rand::Rng;

use super::commit;
use crate::actors::EVENTS;
use crate::coverage::met;
use crate::groups::{self, Commit, Fate, Kind, NAMES, READ};
use crate::world::{After, Client};

/// Offsets of a group were deleted.
pub const DELETED_OFFSETS: &str = "offsets of groups deleted";
/// A group was deleted.
pub const DELETED_GROUP: &str = "groups deleted";
/// Offsets were not deleted, because the group's members read the topic.
pub const SUBSCRIBED: &str = "deletions of offsets refused because they are in use";
/// A group was not deleted, because it has members.
pub const NOT_EMPTY: &str = "deletions of groups refused because they are in use";

/// Looks after groups until the run ends.
pub async fn run(mut client: Client) {
    let running = client.world.borrow().groups.running.clone();
    while !client.is_stopping() {
        client.clock.sleep(client.rng.random_range(30..500)).await;
        let group = running[client.rng.random_range(0..running.len())];
        client.operation();
        // Where each record is to count once, nobody deletes what says which have.
        let is_plain = !groups::is_exact(group);
        let outcome = match client.rng.random_range(0..10) {
            0..4 if is_plain => {
                client.world.borrow_mut().groups.groups[group].closed = true;
                client.clock.sleep(client.rng.random_range(50..600)).await;
                let outcome = delete(&mut client, group).await;
                client.world.borrow_mut().groups.groups[group].closed = false;
                outcome
            }
            4..6 if is_plain => delete(&mut client, group).await,
            // Nothing is committed there: the group is touched, and goes on.
            _ => offsets(&client, group, &[(EVENTS, 0)]).await,
        };
        match outcome {
            Ok(()) | Err(BrokerError::GroupNotFound { .. } | BrokerError::GroupNotEmpty { .. }) => {
            }
            Err(error) => {
                if client.after(&error) == After::Over {
                    return;
                }
            }
        }
    }
}

async fn delete(client: &mut Client, group: usize) -> Result<(), BrokerError> {
    if client.rng.random_bool(0.5) {
        return whole(client, group).await;
    }
    let first = client.rng.random_range(0..READ.len());
    let to = client.rng.random_range(first..READ.len());
    offsets(client, group, &READ[first..=to]).await
}

fn deletion(
    client: &Client,
    group: usize,
    whole: bool,
    partitions: &[(&'static str, u32)],
) -> usize {
    let offsets: BTreeMap<_, _> = {
        let world = client.world.borrow();
        let id = |(topic, index): &(&'static str, u32)| world.partition(topic, *index);
        partitions.iter().map(|one| (id(one), (0, 0))).collect()
    };
    let commit = Commit {
        group,
        kind: Kind::Deletion { whole },
        member: String::new(),
        epoch: -1,
        offsets,
        fate: Fate::Sent,
    };
    commit::note_commit(client, commit)
}

async fn offsets(
    client: &Client,
    group: usize,
    partitions: &[(&'static str, u32)],
) -> Result<(), BrokerError> {
    let number = deletion(client, group, false, partitions);
    let named: Vec<(String, u32)> = partitions
        .iter()
        .map(|(topic, index)| ((*topic).to_owned(), *index))
        .collect();
    let now_ms = client.clock.now_ms();
    let call = client
        .broker
        .delete_offsets(&client.caller, NAMES[group], &named, now_ms);
    let outcome = call.await;
    let is_refused = match &outcome {
        Ok(outcomes) => outcomes.iter().all(Result::is_err),
        Err(error) => matches!(error, BrokerError::GroupNotFound { .. }),
    };
    if is_refused {
        commit::heard(client, number, Fate::Refused);
    }
    let outcomes = outcome?;
    if is_refused {
        met(SUBSCRIBED);
        return Ok(());
    }
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    commit::heard(client, number, Fate::Acknowledged);
    if partitions != [(EVENTS, 0)] {
        met(DELETED_OFFSETS);
    }
    Ok(())
}

async fn whole(client: &Client, group: usize) -> Result<(), BrokerError> {
    let number = deletion(client, group, true, &READ);
    client.world.borrow_mut().groups.groups[group].begin_era();
    let now_ms = client.clock.now_ms();
    let call = client
        .broker
        .delete_group(&client.caller, NAMES[group], now_ms);
    let outcome = call.await;
    match &outcome {
        Ok(()) => {
            met(DELETED_GROUP);
            commit::heard(client, number, Fate::Acknowledged);
        }
        Err(BrokerError::GroupNotEmpty { .. } | BrokerError::GroupNotFound { .. }) => {
            if let Err(BrokerError::GroupNotEmpty { .. }) = outcome {
                met(NOT_EMPTY);
            }
            commit::heard(client, number, Fate::Refused);
            client.world.borrow_mut().groups.groups[group].take_era_back();
        }
        Err(_) => {}
    }
    outcome
}
