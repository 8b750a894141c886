//! Members of consumer groups, of both protocols: they read what is theirs, and commit how far they have come. What befalls
//! them is here, too: they leave, die and come back, fall silent for too long, and lose answers.

mod classic;
mod commit;
mod consumer;
mod organizer;
mod zombie;

pub use commit::{COMMITTED, COMMITTED_WITH_TRANSACTION, REPLACED, UNSTABLE};
pub use consumer::{BY_PATTERN, BY_RANGE, GIVEN_ON, UNRELEASED};
pub use organizer::{DELETED_GROUP, DELETED_OFFSETS, NOT_EMPTY, SUBSCRIBED};
pub use zombie::FENCED as ZOMBIE_FENCED;

use mainstem_broker::{BrokerError, FetchRequest, Isolation, LeavingMember};
use mainstem_log::PartitionId;
use rand::Rng;

use super::Actor;
use crate::coverage::met;
use crate::groups::{self, HEARTBEAT_MS, MEMBERS, NAMES, Place, READ, SESSION_MS, Stage};
use crate::note;
use crate::world::{After, Client, World};

/// A member left its group.
pub const LEFT: &str = "members that left their group";
/// A member's process died, and another came.
pub const DIED: &str = "members that died, and came back as another";
/// A member was silent for too long, and was told that it is none any more.
pub const REMOVED: &str = "members removed in their absence";
/// A static member came back, and whoever held its name was told.
pub const FENCED: &str = "static members fenced by their successor";

/// Everybody who has to do with groups.
pub fn all(running: &[usize], mut client: impl FnMut() -> Client) -> Vec<Actor> {
    let mut actors: Vec<Actor> = Vec::new();
    for group in running {
        for me in group * MEMBERS..(group + 1) * MEMBERS {
            actors.push(("member", Box::pin(run(client(), me))));
        }
    }
    actors.push(("zombie member", Box::pin(zombie::run(client()))));
    actors.push(("organizer", Box::pin(organizer::run(client()))));
    actors
}

/// Is a member until the run ends and all is read and committed.
async fn run(mut client: Client, me: usize) {
    let group = client.world.borrow().groups.members[me].group;
    let mut away_until_ms = None;
    loop {
        if client.is_stopping() && is_done(&client, group) {
            client.world.borrow_mut().groups.finished += 1;
            return;
        }
        let now_ms = client.clock.now_ms();
        let is_closed = client.world.borrow().groups.groups[group].closed;
        if let Some(until_ms) = away_until_ms
            && now_ms < until_ms
            && !client.is_stopping()
        {
            client.clock.sleep(until_ms - now_ms).await;
            continue;
        }
        away_until_ms = None;
        client.operation();
        let outcome = match is_member(&client, me) && !client.is_stopping() {
            true if is_closed || client.rng.random_ratio(1, 150) => {
                away_until_ms = Some(now_ms + client.rng.random_range(50..400));
                met(LEFT);
                leave(&client, me).await
            }
            true if client.rng.random_ratio(1, 100) => {
                met(DIED);
                client.world.borrow_mut().groups.dies(me);
                away_until_ms = Some(now_ms + client.rng.random_range(0..600));
                Ok(())
            }
            true if client.rng.random_ratio(1, 150) => {
                // It stands still, and goes on as if nothing had been.
                let pause_ms = client.rng.random_range(SESSION_MS / 2..2 * SESSION_MS);
                client.clock.sleep(pause_ms).await;
                Ok(())
            }
            false if is_closed && !client.is_stopping() => {
                client.clock.sleep(40).await;
                continue;
            }
            _ => go_on(&mut client, me).await,
        };
        let Some(pause_ms) = settled(&client, me, outcome) else {
            return;
        };
        client
            .clock
            .sleep(pause_ms + client.rng.random_range(0..40))
            .await;
    }
}

fn is_member(client: &Client, me: usize) -> bool {
    !client.world.borrow().groups.members[me].id.is_empty()
}

async fn go_on(client: &mut Client, me: usize) -> Result<(), BrokerError> {
    let (group, commits_first) = {
        let world = client.world.borrow();
        let member = &world.groups.members[me];
        // Before it joins again it may still commit what it has read.
        let is_out = matches!(member.stage, Stage::Out) && !member.uncommitted().is_empty();
        let has_producer = !groups::is_exact(member.group) || member.producer.is_some();
        let commits_first = is_out && has_producer && !groups::is_consumer(member.group);
        (member.group, commits_first)
    };
    if commits_first && client.rng.random_bool(0.5) {
        commit(client, me, group).await?;
    }
    let reads = match groups::is_consumer(group) {
        true => consumer::go_on(client, me).await?,
        false => classic::go_on(client, me).await?,
    };
    if reads {
        work(client, me, group).await?;
    }
    Ok(())
}

async fn leave(client: &Client, me: usize) -> Result<(), BrokerError> {
    let member = {
        let world = client.world.borrow();
        world.groups.members[me].identity()
    };
    let group = client.world.borrow().groups.members[me].group;
    // It gives up before it says so.
    {
        let mut world = client.world.borrow_mut();
        world.groups.gives_up_all(me);
        world.groups.members[me].begin_anew();
    }
    if groups::is_consumer(group) {
        return consumer::leave(client, member).await;
    }
    let leaving = LeavingMember {
        member_id: member.member_id,
        instance_id: member.instance_id,
    };
    let now_ms = client.clock.now_ms();
    let left = client
        .broker
        .leave_group(&client.caller, NAMES[group], &[leaving], now_ms)?;
    left.into_iter().collect()
}

/// Takes an outcome in. How long the member waits, in milliseconds; none where the node is of no use.
fn settled(client: &Client, me: usize, outcome: Result<(), BrokerError>) -> Option<i64> {
    let mut world = client.world.borrow_mut();
    let world = &mut *world;
    let member = &mut world.groups.members[me];
    let was_committing = std::mem::take(&mut member.committing);
    let Err(error) = outcome else {
        return Some(0);
    };
    note!(world.trace, "    member {me}: {error}");
    let is_consumer = groups::is_consumer(member.group);
    if was_committing || groups::is_exact(member.group) {
        member.rewind();
    }
    member.next_beat_ms = 0;
    match error {
        BrokerError::MemberIdRequired { member_id } => member.id = member_id,
        BrokerError::UnknownMember { .. }
        | BrokerError::GroupNotFound { .. }
        | BrokerError::FencedEpoch { .. }
        | BrokerError::UnreleasedInstance { .. }
        | BrokerError::FencedInstance { .. } => {
            met(match error {
                BrokerError::FencedInstance { .. } => FENCED,
                BrokerError::UnreleasedInstance { .. } => UNRELEASED,
                _ => REMOVED,
            });
            world.groups.gives_up_all(me);
            world.groups.members[me].begin_anew();
            if let BrokerError::UnreleasedInstance { .. } = error {
                return Some(100);
            }
        }
        BrokerError::RebalanceInProgress { .. } | BrokerError::IllegalGeneration { .. }
            if !is_consumer =>
        {
            member.stage = Stage::Out;
            if was_committing || matches!(error, BrokerError::IllegalGeneration { .. }) {
                member.held.clear();
            }
        }
        BrokerError::StaleEpoch { .. }
        | BrokerError::RebalanceInProgress { .. }
        | BrokerError::IllegalGeneration { .. }
        | BrokerError::ProducerFenced { .. }
        | BrokerError::InvalidProducerMapping { .. }
        | BrokerError::InvalidTransactionState { .. }
        | BrokerError::ConcurrentTransactions { .. }
        | BrokerError::NotInTransaction { .. } => {}
        error => return (world.after(&error) != After::Over).then_some(0),
    }
    Some(0)
}

/// Reads on, or commits.
async fn work(client: &mut Client, me: usize, group: usize) -> Result<(), BrokerError> {
    if groups::is_exact(group) && !commit::has_producer(client, me).await? {
        return Ok(());
    }
    look_up(client, me, group)?;
    for _ in 0..client.rng.random_range(1..4) {
        read(client, me, group)?;
    }
    let has_read = {
        let world = client.world.borrow();
        !world.groups.members[me].uncommitted().is_empty()
    };
    if has_read && (client.is_stopping() || client.rng.random_bool(0.3)) {
        return commit(client, me, group).await;
    }
    if !has_read && client.is_stopping() {
        find_end(client, group)?;
    }
    Ok(())
}

async fn commit(client: &mut Client, me: usize, group: usize) -> Result<(), BrokerError> {
    match groups::is_exact(group) {
        true => commit::with_transaction(client, me, group).await,
        false => commit::plainly(client, me, group).await,
    }
}

/// Begins where the group has come to.
fn look_up(client: &Client, me: usize, group: usize) -> Result<(), BrokerError> {
    let unknown: Vec<PartitionId> = {
        let world = client.world.borrow();
        let held = world.groups.members[me].held.iter();
        held.filter(|(_, place)| place.is_none())
            .map(|(id, _)| *id)
            .collect()
    };
    for partition in unknown {
        let found = commit::committed(client, group, partition)?;
        let Some(found) = found else {
            continue;
        };
        let mut world = client.world.borrow_mut();
        let commits = world.rules.clone();
        let commits = commits.commits.borrow();
        world.groups.groups[group].check_found(&commits, group, partition, found.as_ref());
        let committed = found.map_or(0, |found| found.offset);
        let place = Place {
            committed,
            next: committed,
        };
        world.groups.members[me].held.insert(partition, Some(place));
    }
    Ok(())
}

fn read(client: &mut Client, me: usize, group: usize) -> Result<(), BrokerError> {
    let (partition, from, topic) = {
        let world = client.world.borrow();
        let held = &world.groups.members[me].held;
        if held.is_empty() {
            return Ok(());
        }
        let at = client.rng.random_range(0..held.len());
        let Some((partition, Some(place))) = held.iter().nth(at) else {
            return Ok(());
        };
        (*partition, place.next, topic_of(&world, *partition))
    };
    let request = FetchRequest {
        topic: topic.into(),
        partition: partition.index,
        offset: from,
        max_bytes: client.rng.random_range(0..4_000),
        isolation: Isolation::ReadCommitted,
    };
    let fetched = client.broker.fetch(&client.caller, &request)?;
    let next = fetched.next_offset;
    if next > from {
        let mut world = client.world.borrow_mut();
        world.see_end(partition, next);
        world.groups.groups[group].deliver(partition, from, next);
        if let Some(Some(place)) = world.groups.members[me].held.get_mut(&partition) {
            place.next = next;
        }
    }
    Ok(())
}

fn topic_of(world: &World, partition: PartitionId) -> &'static str {
    let named = READ
        .iter()
        .find(|(topic, _)| world.topics[topic] == partition.topic);
    named.expect("a topic that groups read").0
}

fn is_done(client: &Client, group: usize) -> bool {
    client.world.borrow().groups.groups[group].done
}

/// Once nobody writes any more: whether all is read and committed.
fn find_end(client: &Client, group: usize) -> Result<(), BrokerError> {
    if !client.world.borrow().is_quiet() {
        return Ok(());
    }
    let mut ends = Vec::new();
    for (topic, index) in READ {
        let bounds = client
            .broker
            .partition_bounds(&client.caller, topic, index)?;
        let partition = client.world.borrow().partition(topic, index);
        let found = commit::committed(client, group, partition)?.flatten();
        let committed = found.map_or(0, |found| found.offset);
        if bounds.last_stable < bounds.high_watermark || committed < bounds.high_watermark {
            return Ok(());
        }
        ends.push((partition, committed));
    }
    let mut world = client.world.borrow_mut();
    let group = &mut world.groups.groups[group];
    for (partition, end) in ends {
        assert!(
            group.has_delivered(partition, end),
            "{partition}: {end} is committed, and not all below was given to somebody"
        );
    }
    group.done = true;
    Ok(())
}

/// When a member is heard next.
fn next_beat_ms(client: &Client) -> i64 {
    client.clock.now_ms() + HEARTBEAT_MS
}
