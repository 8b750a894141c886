//! A member of the classic protocol: it joins, the leader deals the partitions out, and each generation is another deal.

use bytes::{BufMut, Bytes, BytesMut};
use mainstem_broker::{BrokerError, JoinGroup, Joined, Protocol, SyncGroup};
use mainstem_log::PartitionId;
use rand::Rng;

use crate::actors::{INPUT, LEDGER};
use crate::clock::within;
use crate::groups::{NAMES, READ, REBALANCE_MS, SESSION_MS, Stage};
use crate::note;
use crate::world::Client;

/// One step; whether the member may read.
pub async fn go_on(client: &mut Client, me: usize) -> Result<bool, BrokerError> {
    let stage = client.world.borrow().groups.members[me].stage.clone();
    match stage {
        Stage::Out => join(client, me).await.map(|()| false),
        Stage::Joined(request) => sync(client, me, request).await.map(|()| false),
        Stage::In => {
            let (member, is_due) = {
                let world = client.world.borrow();
                let member = &world.groups.members[me];
                let is_due = member.next_beat_ms <= client.clock.now_ms();
                (member.identity(), is_due)
            };
            if is_due {
                let now_ms = client.clock.now_ms();
                client.broker.heartbeat(&client.caller, &member, now_ms)?;
                let next_ms = super::next_beat_ms(client);
                client.world.borrow_mut().groups.members[me].next_beat_ms = next_ms;
            }
            Ok(true)
        }
    }
}

/// How long the member waits for an answer.
fn patience_ms(client: &mut Client) -> i64 {
    match !client.is_stopping() && client.rng.random_bool(0.06) {
        true => client.rng.random_range(0..100),
        false => 60_000,
    }
}

/// What consumers say in every protocol of theirs: which topics they read.
fn subscription() -> Bytes {
    let mut out = BytesMut::new();
    out.put_u16(1);
    out.put_u32(2);
    for topic in [INPUT, LEDGER] {
        out.put_u16(topic.len() as u16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}

async fn join(client: &mut Client, me: usize) -> Result<(), BrokerError> {
    let request = {
        let mut world = client.world.borrow_mut();
        world.groups.joins(me);
        let member = &world.groups.members[me];
        JoinGroup {
            group: NAMES[member.group].into(),
            member_id: member.id.clone(),
            instance_id: member.name.clone(),
            client_id: format!("member-{me}"),
            client_host: "/simulated".into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "dealt".into(),
                metadata: subscription(),
            }],
            requires_member_id: true,
            skips_assignment: member.life.is_multiple_of(2),
        }
    };
    let (broker, caller) = (client.broker.clone(), client.caller.clone());
    let now_ms = client.clock.now_ms();
    let call = Box::pin(async move { broker.join_group(&caller, request, now_ms).await });
    let patience_ms = patience_ms(client);
    let Some(joined) = within(&client.clock, patience_ms, call).await else {
        return Ok(());
    };
    let joined = joined?;
    let assignments = deal(client, &joined);
    let mut world = client.world.borrow_mut();
    note!(
        world.trace,
        "    member {me} is {} in generation {}, led by {}",
        joined.member_id,
        joined.generation,
        joined.leader
    );
    let member = &mut world.groups.members[me];
    member.id = joined.member_id;
    member.epoch = joined.generation;
    member.held.clear();
    member.stage = Stage::Joined(SyncGroup {
        member: member.identity(),
        protocol_type: Some(joined.protocol_type),
        protocol: Some(joined.protocol),
        assignments,
    });
    Ok(())
}

/// The leader's deal: each partition to one member.
fn deal(client: &mut Client, joined: &Joined) -> Vec<(String, Bytes)> {
    if joined.leader != joined.member_id || joined.skip_assignment || joined.members.is_empty() {
        return Vec::new();
    }
    let first = client.rng.random_range(0..joined.members.len());
    let mut hands = vec![Vec::new(); joined.members.len()];
    for place in 0..READ.len() {
        let count = hands.len();
        hands[(first + place) % count].push(place as u8);
    }
    let members = joined.members.iter().map(|one| one.member_id.clone());
    members.zip(hands.into_iter().map(Bytes::from)).collect()
}

async fn sync(client: &mut Client, me: usize, request: SyncGroup) -> Result<(), BrokerError> {
    let (broker, caller) = (client.broker.clone(), client.caller.clone());
    let (now_ms, generation) = (client.clock.now_ms(), request.member.generation);
    let call = Box::pin(async move { broker.sync_group(&caller, request, now_ms).await });
    let patience_ms = patience_ms(client);
    let synced = within(&client.clock, patience_ms, call).await;
    if client.rng.random_bool(0.5) && !matches!(synced, Some(Ok(_))) {
        // Some clients ask again for the same, others join again.
        client.world.borrow_mut().groups.members[me].stage = Stage::Out;
    }
    let Some(synced) = synced else {
        return Ok(());
    };
    let synced = synced?;
    let next_ms = super::next_beat_ms(client);
    let mut world = client.world.borrow_mut();
    let partitions: Vec<PartitionId> = synced
        .assignment
        .iter()
        .map(|place| {
            let (topic, index) = READ[usize::from(*place)];
            world.partition(topic, index)
        })
        .collect();
    note!(
        world.trace,
        "    member {me} has {partitions:?} in generation {generation}"
    );
    let member = &mut world.groups.members[me];
    member.stage = Stage::In;
    member.held = partitions.iter().map(|one| (*one, None)).collect();
    member.next_beat_ms = next_ms;
    // A static member is the same one under every id.
    let who = member.name.clone().unwrap_or_else(|| member.id.clone());
    let era = member.era;
    let group = world.groups.of(me);
    group.assigned(era, generation, &who, &partitions);
    Ok(())
}
