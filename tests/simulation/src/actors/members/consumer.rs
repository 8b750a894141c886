//! A member of the consumer protocol (KIP-848): the broker assigns, and a member goes step by step to what it is to have.

use std::collections::BTreeSet;

use mainstem_broker::{
    BrokerError, ConsumerBeat, ConsumerHeartbeat, GroupMember, JOIN_EPOCH, LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
};
use mainstem_log::PartitionId;
use rand::Rng;

use crate::actors::{INPUT, LEDGER};
use crate::clock::within;
use crate::coverage::met;
use crate::groups::{Groups, NAMES, REBALANCE_MS};
use crate::note;
use crate::world::Client;

/// A partition was taken over from somebody who had it.
pub const GIVEN_ON: &str = "partitions given up by one member and taken by another";
/// A static member came back before the one before it was known to be gone.
pub const UNRELEASED: &str = "static members that had to wait for their predecessor";

/// Partitions came to a member that names its topics by a pattern.
pub const BY_PATTERN: &str = "partitions assigned to a member that reads by a pattern";
/// Partitions came to a member that would have them in ranges.
pub const BY_RANGE: &str = "partitions assigned to a member that prefers ranges";

/// What members read, as the pattern that some of them give.
const PATTERN: &str = "(input|ledg[a-z]+)";
/// How partitions are to be shared out, by number of the choice.
const ASSIGNORS: [Option<&str>; 3] = [None, Some("uniform"), Some("range")];

/// One step; whether the member may read.
pub async fn go_on(client: &mut Client, me: usize) -> Result<bool, BrokerError> {
    apply(client, me);
    let now_ms = client.clock.now_ms();
    let is_due = {
        let mut world = client.world.borrow_mut();
        let id = format!("{:032x}", client.rng.random::<u128>());
        let member = &mut world.groups.members[me];
        let is_new = member.id.is_empty();
        if is_new {
            member.id = id;
        }
        let has_news =
            member.epoch != JOIN_EPOCH && member.balance.reported != Some(member.owned());
        is_new || has_news || now_ms >= member.next_beat_ms
    };
    if is_due {
        beat(client, me).await?;
        apply(client, me);
    }
    Ok(client.world.borrow().groups.members[me].epoch > JOIN_EPOCH)
}

/// Says that it is gone; a static member mostly for a while.
pub async fn leave(client: &Client, member: GroupMember) -> Result<(), BrokerError> {
    let request = ConsumerHeartbeat {
        group: member.group,
        member_id: member.member_id,
        member_epoch: match member.instance_id {
            Some(_) => STATIC_LEAVE_EPOCH,
            None => LEAVE_EPOCH,
        },
        instance_id: member.instance_id,
        ..ConsumerHeartbeat::default()
    };
    let now_ms = client.clock.now_ms();
    let call = client
        .broker
        .consumer_heartbeat(&client.caller, request, now_ms);
    call.await.map(drop)
}

async fn beat(client: &mut Client, me: usize) -> Result<(), BrokerError> {
    let now_ms = client.clock.now_ms();
    let (request, owned, newest) = {
        let mut world = client.world.borrow_mut();
        let joins = world.groups.members[me].epoch == JOIN_EPOCH;
        if joins {
            world.groups.joins(me);
            let balance = &mut world.groups.members[me].balance;
            balance.reads_by_pattern = client.rng.random_bool(0.3);
            balance.assignor = ASSIGNORS[client.rng.random_range(0..ASSIGNORS.len())];
        }
        let era = world.groups.members[me].era;
        let newest = world.groups.of(me).newest(era);
        let member = &mut world.groups.members[me];
        member.balance.sent_ms = Some(now_ms);
        let says_all = joins || !member.balance.is_in_step;
        let has_news = member.balance.reported != Some(member.owned());
        let owned = (says_all || has_news).then(|| member.owned());
        let (topics, pattern) = match member.balance.reads_by_pattern {
            true => (Vec::new(), PATTERN),
            false => (vec![INPUT.into(), LEDGER.into()], ""),
        };
        let assignor = member.balance.assignor.map(str::to_owned);
        let request = ConsumerHeartbeat {
            group: NAMES[member.group].into(),
            member_id: member.id.clone(),
            member_epoch: member.epoch,
            instance_id: member.name.clone(),
            rebalance_timeout_ms: says_all.then_some(REBALANCE_MS),
            topics: says_all.then_some(topics),
            pattern: says_all.then(|| pattern.into()),
            assignor: assignor.filter(|_| says_all),
            owned: owned.as_ref().map(|owned| owned.iter().copied().collect()),
            ..ConsumerHeartbeat::default()
        };
        // Who is new gets an epoch that nobody was told before.
        let is_first = joins && member.name.is_none() && member.balance.unsure_since_ms.is_none();
        (request, owned, is_first.then_some(newest))
    };
    let (broker, caller) = (client.broker.clone(), client.caller.clone());
    let call = Box::pin(async move { broker.consumer_heartbeat(&caller, request, now_ms).await });
    let patience_ms = match !client.is_stopping() && client.rng.random_bool(0.06) {
        true => client.rng.random_range(0..30),
        false => 60_000,
    };
    let answer = within(&client.clock, patience_ms, call).await;
    let next_ms = super::next_beat_ms(client);
    let mut world = client.world.borrow_mut();
    let world = &mut *world;
    let member = &mut world.groups.members[me];
    member.balance.sent_ms = None;
    let beat = match answer {
        Some(Ok(beat)) => beat,
        Some(Err(error)) => {
            member.balance.loses_answer(now_ms);
            return Err(error);
        }
        None => {
            member.balance.loses_answer(now_ms);
            return Ok(());
        }
    };
    assert_eq!(beat.member_id, member.id);
    assert!(
        beat.member_epoch >= member.epoch && newest.is_none_or(|newest| beat.member_epoch > newest),
        "member {me} has epoch {} after {}, the group had {newest:?}",
        beat.member_epoch,
        member.epoch
    );
    note!(world.trace, "    member {me} hears {beat:?}");
    member.next_beat_ms = next_ms;
    let busy_ms = match !world.stopping && client.rng.random_ratio(1, 15) {
        true => REBALANCE_MS + 200,
        false => 60,
    };
    let busy_ms = client.rng.random_range(0..busy_ms);
    let epoch = beat.member_epoch;
    hears(me, &mut world.groups, beat, owned, now_ms);
    let member = &mut world.groups.members[me];
    if member.balance.revoke_by_ms.is_some() && member.balance.busy_until_ms == 0 {
        member.balance.busy_until_ms = client.clock.now_ms() + busy_ms;
    }
    let era = member.era;
    world.groups.of(me).told(era, epoch);
    Ok(())
}

fn hears(
    me: usize,
    groups: &mut Groups,
    beat: ConsumerBeat,
    owned: Option<BTreeSet<PartitionId>>,
    sent_ms: i64,
) {
    let member = &mut groups.members[me];
    member.epoch = beat.member_epoch;
    let mut may_have = member.owned();
    let balance = &mut member.balance;
    if owned.is_none() {
        // What it was told to have and has not taken: to the broker it has that, too.
        may_have.extend(balance.told.iter().flatten());
    }
    balance.heard_ms = sent_ms;
    balance.is_in_step = true;
    if owned.is_some() {
        balance.reported = owned;
        if balance.told.is_none() {
            // It had nothing left to give up.
            balance.revoke_by_ms = None;
        }
    }
    let begun_ms = balance.unsure_since_ms.take().unwrap_or(sent_ms);
    if let Some(assignment) = beat.assignment {
        if balance.reads_by_pattern && !assignment.is_empty() {
            met(BY_PATTERN);
        }
        if balance.assignor == Some("range") && !assignment.is_empty() {
            met(BY_RANGE);
        }
        balance.told = Some(assignment.into_iter().collect());
    }
    if let Some(told) = &balance.told
        && !may_have.is_subset(told)
        && balance.revoke_by_ms.is_none()
    {
        balance.revoke_by_ms = Some(begun_ms + REBALANCE_MS);
        balance.busy_until_ms = 0;
    }
}

/// Gives up what it must, then takes what it may.
fn apply(client: &Client, me: usize) {
    let now_ms = client.clock.now_ms();
    let mut world = client.world.borrow_mut();
    let world = &mut *world;
    let member = &mut world.groups.members[me];
    let owned = member.owned();
    // It cannot know whether what it was told still holds: a real one would learn so by its next heartbeat.
    let is_sure = member.is_sure(now_ms);
    let balance = &mut member.balance;
    let is_busy =
        |told: &BTreeSet<PartitionId>| !owned.is_subset(told) && now_ms < balance.busy_until_ms;
    if !is_sure || balance.told.as_ref().is_none_or(is_busy) {
        return;
    }
    let Some(told) = balance.told.take() else {
        return;
    };
    // It says so, even where that is what it said before: perhaps it was told something else in between.
    balance.reported = None;
    member.held.retain(|partition, _| told.contains(partition));
    for partition in &told {
        member.held.entry(*partition).or_insert(None);
    }
    note!(world.trace, "    member {me} has {told:?}");
    for partition in owned.difference(&told) {
        let readers = &mut world.groups.of(me).readers;
        if readers.get(partition) == Some(&me) {
            readers.remove(partition);
            met(GIVEN_ON);
        }
    }
    for partition in told.difference(&owned) {
        let before = world.groups.of(me).readers.insert(*partition, me);
        if let Some(before) = before {
            assert!(
                !world.groups.members[before].is_sure(now_ms),
                "{partition} of member {before} is given to {me}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstem_log::TopicId;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn what_was_told_and_not_taken_must_be_given_up_in_time() {
        let mut groups = Groups::new(&mut SmallRng::seed_from_u64(0));
        let me = crate::groups::MEMBERS;
        let partition = |index| PartitionId {
            topic: TopicId(1),
            index,
        };
        let told = |member_epoch, indices: std::ops::Range<u32>| ConsumerBeat {
            member_id: "m".into(),
            member_epoch,
            heartbeat_interval_ms: 100,
            assignment: Some(indices.map(partition).collect()),
        };
        hears(me, &mut groups, told(1, 0..2), Some(BTreeSet::new()), 0);
        assert_eq!(groups.members[me].balance.revoke_by_ms, None);
        hears(me, &mut groups, told(1, 0..1), None, 10);
        assert_eq!(
            groups.members[me].balance.revoke_by_ms,
            Some(10 + REBALANCE_MS)
        );
    }
}
