//! Groups whose members assign (the classic protocol), over the wire: all the way in every version, with static members, and
//! with a hundred members at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Connection, Gateway, name, text, until};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

const OK: i16 = 0;
const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;

/// What every member says of itself: version 0 of a subscription, to the topic `t`.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\0\0\0\0";

/// The version of JoinGroup, and of the requests that follow it, as far as each goes.
#[derive(Clone, Copy)]
struct Versions {
    join: i16,
    then: i16,
}

/// A member, as its last answer has it.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    group: String,
    id: String,
    /// Its static name.
    instance: Option<&'static str>,
    generation: i32,
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn wants(group_id: &str, member: &str, instance: Option<&'static str>) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(SUBSCRIPTION));
    JoinGroupRequest::default()
        .with_group_id(group(group_id))
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
        .with_reason(Some(text("it is a test")))
}

/// Asks to join; the answer comes when the generation is made. From version 4 on a new member is given its id before that.
fn ask_to_join(client: &mut Connection, version: i16, mut request: JoinGroupRequest) {
    let is_new = request.member_id.is_empty() && request.group_instance_id.is_none();
    if is_new && version >= 4 {
        let required = client.call(version, &request);
        assert_eq!(required.error_code, MEMBER_ID_REQUIRED, "{version}");
        request.member_id = required.member_id;
    }
    client.send(version, &request);
}

fn answer(client: &mut Connection, version: i16) -> JoinGroupResponse {
    client.receive::<JoinGroupRequest>(version).1
}

/// What is answered to a join that nobody has to be waited for.
fn joins(client: &mut Connection, version: i16, request: JoinGroupRequest) -> JoinGroupResponse {
    ask_to_join(client, version, request);
    answer(client, version)
}

impl Member {
    fn of(group: &str, instance: Option<&'static str>, joined: &JoinGroupResponse) -> Member {
        assert_eq!(joined.error_code, OK);
        Member {
            group: group.to_owned(),
            id: joined.member_id.to_string(),
            instance,
            generation: joined.generation_id,
        }
    }

    fn again(&self) -> JoinGroupRequest {
        wants(&self.group, &self.id, self.instance)
    }

    fn sync(&self, assigned: &[(&Member, &'static str)]) -> SyncGroupRequest {
        let assign = |(member, assignment): &(&Member, &'static str)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&member.id))
                .with_assignment(Bytes::from_static(assignment.as_bytes()))
        };
        SyncGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assigned.iter().map(assign).collect())
    }

    /// The error, and the assignment.
    fn syncs(
        &self,
        client: &mut Connection,
        versions: Versions,
        assigned: &[(&Member, &'static str)],
    ) -> (i16, Bytes) {
        let synced = client.call(versions.then.min(5), &self.sync(assigned));
        (synced.error_code, synced.assignment)
    }

    fn beats(&self, client: &mut Connection, versions: Versions) -> i16 {
        let heartbeat = HeartbeatRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text));
        client.call(versions.then.min(4), &heartbeat).error_code
    }

    fn leaves(&self, client: &mut Connection, versions: Versions) -> i16 {
        let version = versions.then.min(5);
        let request = LeaveGroupRequest::default().with_group_id(group(&self.group));
        if version < 3 {
            return client
                .call(version, &request.with_member_id(text(&self.id)))
                .error_code;
        }
        let member = MemberIdentity::default()
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_reason(Some(text("it is a test")));
        let left = client.call(version, &request.with_members(vec![member]));
        assert_eq!(left.error_code, OK);
        assert_eq!(left.members[0].member_id.as_str(), self.id);
        assert_eq!(left.members[0].group_instance_id, self.instance.map(text));
        left.members[0].error_code
    }

    fn commits(&self, client: &mut Connection, versions: Versions) -> i16 {
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![Default::default()]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_topics(vec![topic]);
        let committed = client.call(versions.join.clamp(7, 9), &request);
        committed.topics[0].partitions[0].error_code
    }
}

fn start() -> Gateway {
    Gateway::start_with(&[("group.initial.rebalance.delay.ms", "0")])
}

fn create_topic(client: &mut Connection) {
    let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    assert_eq!(client.call(12, &request).topics[0].error_code, OK);
}

/// Two members of a new group that share: the first leads, and has given to each what is its own.
fn share(
    group: &str,
    versions: Versions,
    one: &mut Connection,
    two: &mut Connection,
    instances: [Option<&'static str>; 2],
) -> [Member; 2] {
    let version = versions.join;
    let alone = joins(one, version, wants(group, "", instances[0]));
    let leader = Member::of(group, instances[0], &alone);
    assert_eq!((leader.generation, alone.leader.as_str()), (1, &*leader.id));
    assert_eq!(alone.members.len(), 1);
    let everything = leader.syncs(one, versions, &[(&leader, "everything")]);
    assert_eq!(everything, (OK, Bytes::from("everything")));
    assert_eq!(leader.beats(one, versions), OK);
    // Another one comes: who is there is told, and joins again.
    ask_to_join(two, version, wants(group, "", instances[1]));
    until(|| leader.beats(one, versions) == REBALANCE_IN_PROGRESS);
    let refused = leader.syncs(one, versions, &[]);
    assert_eq!(refused, (REBALANCE_IN_PROGRESS, Bytes::new()));
    let leading = joins(one, version, leader.again());
    let following = answer(two, version);
    let before = leader;
    let leader = Member::of(group, instances[0], &leading);
    let follower = Member::of(group, instances[1], &following);
    assert_eq!((leader.generation, follower.generation), (2, 2));
    assert_eq!(leader.id, before.id);
    // The leader is told what each says of itself.
    let mut told: Vec<_> = leading
        .members
        .iter()
        .map(|one| {
            assert_eq!(one.metadata, SUBSCRIPTION);
            (one.member_id.as_str(), one.group_instance_id.clone())
        })
        .collect();
    told.sort();
    let mut expected = [&leader, &follower].map(|one| (&*one.id, one.instance.map(text)));
    expected.sort();
    assert_eq!(told, expected);
    assert!(following.members.is_empty());
    for joined in [&leading, &following] {
        assert_eq!(joined.leader.as_str(), leader.id);
        assert_eq!(joined.protocol_name, Some(text("range")));
        let protocol_type = (version >= 7).then(|| text("consumer"));
        assert_eq!(joined.protocol_type, protocol_type);
        assert!(!joined.skip_assignment);
    }
    assert_eq!(before.beats(one, versions), ILLEGAL_GENERATION);
    assert_eq!(follower.beats(two, versions), OK);
    // Who follows waits for the leader.
    two.send(versions.then.min(5), &follower.sync(&[]));
    let assigned = [(&leader, "the first's"), (&follower, "the second's")];
    let first = leader.syncs(one, versions, &assigned);
    assert_eq!(first, (OK, Bytes::from("the first's")));
    let (_, second) = two.receive::<SyncGroupRequest>(versions.then.min(5));
    assert_eq!(second.error_code, OK);
    assert_eq!(second.assignment, "the second's");
    let named = |name: &str| (versions.then >= 5).then(|| text(name));
    assert_eq!(second.protocol_type, named("consumer"));
    assert_eq!(second.protocol_name, named("range"));
    for (member, client) in [(&leader, one), (&follower, two)] {
        assert_eq!(member.beats(client, versions), OK);
    }
    [leader, follower]
}

#[test]
fn members_join_share_and_leave_in_every_version() {
    let gateway = start();
    let (mut one, mut two) = (gateway.connect(), gateway.connect());
    let named = one.call(0, &ApiVersionsRequest::default()).api_keys;
    let range = |key: i16| {
        let api = named.iter().find(|api| api.api_key == key).unwrap();
        (api.min_version, api.max_version)
    };
    // JoinGroup, Heartbeat, LeaveGroup, SyncGroup: what follows goes through all of them.
    assert_eq!(
        [11, 12, 13, 14].map(range),
        [(0, 9), (0, 4), (0, 5), (0, 5)]
    );
    for version in 0..=9 {
        let id = format!("g{version}");
        let versions = Versions {
            join: version,
            then: version,
        };
        let [leader, follower] = share(&id, versions, &mut one, &mut two, [None, None]);
        assert_eq!(follower.leaves(&mut two, versions), OK);
        assert_eq!(follower.beats(&mut two, versions), UNKNOWN_MEMBER_ID);
        assert_eq!(leader.beats(&mut one, versions), REBALANCE_IN_PROGRESS);
        let alone = joins(&mut one, version, leader.again());
        let leader = Member::of(&id, None, &alone);
        assert_eq!((leader.generation, alone.members.len()), (3, 1));
        let everything = leader.syncs(&mut one, versions, &[(&leader, "everything")]);
        assert_eq!(everything, (OK, Bytes::from("everything")));
        assert_eq!(leader.leaves(&mut one, versions), OK);
        assert_eq!(leader.leaves(&mut one, versions), UNKNOWN_MEMBER_ID);
        let request = DescribeGroupsRequest::default().with_groups(vec![group(&id)]);
        let described = one.call(6, &request).groups.remove(0);
        assert_eq!(described.group_state.as_str(), "Empty");
    }
}

/// From version 5 on a sync says which protocol its member takes the group to speak (KIP-559).
#[test]
fn a_sync_names_its_protocol_from_version_5_on() {
    let gateway = start();
    let mut client = gateway.connect();
    let joined = joins(&mut client, 9, wants("g", "", None));
    let member = Member::of("g", None, &joined);
    let [range, sticky] = ["range", "sticky"].map(|name| Some(text(name)));
    let [consumer, connect] = ["consumer", "connect"].map(|name| Some(text(name)));
    let mut code = |version, protocol_type: &Option<StrBytes>, protocol: &Option<StrBytes>| {
        let request = member
            .sync(&[(&member, "everything")])
            .with_protocol_type(protocol_type.clone())
            .with_protocol_name(protocol.clone());
        client.call(version, &request).error_code
    };
    assert_eq!(code(5, &None, &None), INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(code(5, &consumer, &None), INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(code(5, &None, &range), INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(code(5, &connect, &range), INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(code(5, &consumer, &sticky), INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(code(5, &consumer, &range), OK);
    assert_eq!(code(4, &None, &None), OK);
}

/// The versions in which members can have a static name.
fn static_versions() -> impl Iterator<Item = Versions> {
    (5..=9).map(|join| Versions {
        join,
        then: join - 2,
    })
}

#[test]
fn who_comes_back_under_its_static_name_takes_its_place_over_and_disturbs_nobody() {
    let gateway = start();
    let (mut one, mut two, mut other) = (gateway.connect(), gateway.connect(), gateway.connect());
    create_topic(&mut one);
    for versions in static_versions() {
        let version = versions.join;
        let id = format!("g{version}");
        let names = [Some("a"), Some("b")];
        let [leader, follower] = share(&id, versions, &mut one, &mut two, names);
        let back = joins(&mut other, version, wants(&id, "", Some("b")));
        let new = Member::of(&id, Some("b"), &back);
        assert_ne!(new.id, follower.id);
        assert_eq!(new.generation, follower.generation);
        assert_eq!(back.leader.as_str(), leader.id);
        assert!(back.members.is_empty() && !back.skip_assignment);
        let kept = new.syncs(&mut other, versions, &[]);
        assert_eq!(kept, (OK, Bytes::from("the second's")));
        // Who was there before under this name is fenced, whatever it asks.
        let fenced = joins(&mut two, version, follower.again());
        assert_eq!(fenced.error_code, FENCED_INSTANCE_ID);
        let (fenced, _) = follower.syncs(&mut two, versions, &[]);
        assert_eq!(fenced, FENCED_INSTANCE_ID);
        assert_eq!(follower.beats(&mut two, versions), FENCED_INSTANCE_ID);
        assert_eq!(follower.commits(&mut two, versions), FENCED_INSTANCE_ID);
        assert_eq!(follower.leaves(&mut two, versions), FENCED_INSTANCE_ID);
        assert_eq!(new.beats(&mut other, versions), OK);
        assert_eq!(new.commits(&mut other, versions), OK);
        assert_eq!(leader.beats(&mut one, versions), OK);
        // The leader itself. It is not to assign anew: an older client is told that it follows.
        let back = joins(&mut two, version, wants(&id, "", Some("a")));
        let leads = Member::of(&id, Some("a"), &back);
        assert_eq!(leads.generation, leader.generation);
        match version {
            9 => {
                assert_eq!(back.leader.as_str(), leads.id);
                assert!(back.skip_assignment);
                assert_eq!(back.members.len(), 2);
            }
            _ => {
                assert_eq!(back.leader.as_str(), leader.id);
                assert!(back.members.is_empty() && !back.skip_assignment);
            }
        }
        let kept = leads.syncs(&mut two, versions, &[]);
        assert_eq!(kept, (OK, Bytes::from("the first's")));
        assert_eq!(leader.beats(&mut one, versions), FENCED_INSTANCE_ID);
        assert_eq!(leader.commits(&mut one, versions), FENCED_INSTANCE_ID);
        assert_eq!(new.beats(&mut other, versions), OK);
        assert_eq!(leads.beats(&mut two, versions), OK);
    }
}

#[test]
fn a_static_member_that_waits_to_join_is_fenced_by_who_joins_under_its_name() {
    let gateway = start();
    let (mut one, mut two, mut three) = (gateway.connect(), gateway.connect(), gateway.connect());
    let latest = Versions { join: 9, then: 9 };
    let joined = joins(&mut one, 9, wants("g", "", None));
    let member = Member::of("g", None, &joined);
    let (code, _) = member.syncs(&mut one, latest, &[(&member, "everything")]);
    assert_eq!(code, OK);
    ask_to_join(&mut two, 9, wants("g", "", Some("a")));
    until(|| member.beats(&mut one, latest) == REBALANCE_IN_PROGRESS);
    ask_to_join(&mut three, 9, wants("g", "", Some("a")));
    assert_eq!(answer(&mut two, 9).error_code, FENCED_INSTANCE_ID);
    let leading = joins(&mut one, 9, member.again());
    let new = Member::of("g", Some("a"), &answer(&mut three, 9));
    assert_eq!((leading.generation_id, new.generation), (2, 2));
    let told = leading.members.iter().map(|one| one.member_id.as_str());
    assert_eq!(told.filter(|id| *id == new.id).count(), 1);
    assert_eq!(leading.members.len(), 2);
}

#[test]
fn an_administrator_removes_static_members_by_their_names() {
    let gateway = start();
    let (mut one, mut two, mut admin) = (gateway.connect(), gateway.connect(), gateway.connect());
    for versions in static_versions() {
        let id = format!("g{}", versions.join);
        let names = [Some("a"), Some("b")];
        let [leader, removed] = share(&id, versions, &mut one, &mut two, names);
        let named = |name: &str| MemberIdentity::default().with_group_instance_id(Some(text(name)));
        let request = LeaveGroupRequest::default()
            .with_group_id(group(&id))
            .with_members(vec![named("nobody"), named("b")]);
        let outcomes: Vec<_> = admin
            .call(versions.then.min(5), &request)
            .members
            .into_iter()
            .map(|one| (one.group_instance_id.unwrap().to_string(), one.error_code))
            .collect();
        let expected = [("nobody", UNKNOWN_MEMBER_ID), ("b", OK)];
        assert_eq!(
            outcomes,
            expected.map(|(name, code)| (name.to_owned(), code))
        );
        assert_eq!(removed.beats(&mut two, versions), UNKNOWN_MEMBER_ID);
        assert_eq!(leader.beats(&mut one, versions), REBALANCE_IN_PROGRESS);
        let alone = joins(&mut one, versions.join, leader.again());
        assert_eq!((alone.error_code, alone.generation_id), (OK, 3));
        assert_eq!(alone.members.len(), 1);
        // Its name is free again.
        ask_to_join(&mut two, versions.join, wants(&id, "", Some("b")));
        let leader = Member::of(&id, Some("a"), &alone);
        until(|| leader.beats(&mut one, versions) == REBALANCE_IN_PROGRESS);
        let both = joins(&mut one, versions.join, leader.again());
        assert_eq!((both.generation_id, both.members.len()), (4, 2));
        assert_eq!(answer(&mut two, versions.join).generation_id, 4);
    }
}

#[test]
fn a_description_tells_who_the_members_are_and_what_they_have() {
    let gateway = start();
    let (mut one, mut two) = (gateway.connect(), gateway.connect());
    let latest = Versions { join: 9, then: 9 };
    let [leader, follower] = share("g", latest, &mut one, &mut two, [None, Some("b")]);
    for version in 0..=6 {
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
        let described = one.call(version, &request).groups.remove(0);
        assert_eq!(described.error_code, OK, "{version}");
        assert_eq!(described.group_id, group("g"));
        assert_eq!(described.group_state.as_str(), "Stable");
        assert_eq!(described.protocol_type.as_str(), "consumer");
        assert_eq!(described.protocol_data.as_str(), "range");
        assert_eq!(described.members.len(), 2);
        for (member, assignment) in [(&leader, "the first's"), (&follower, "the second's")] {
            let mut members = described.members.iter();
            let found = members.find(|one| one.member_id.as_str() == member.id);
            let found = found.unwrap();
            let instance = member.instance.filter(|_| version >= 4);
            assert_eq!(found.group_instance_id, instance.map(text), "{version}");
            assert_eq!(found.client_id.as_str(), "test");
            assert_eq!(found.client_host.as_str(), "/127.0.0.1");
            assert_eq!(found.member_metadata, SUBSCRIPTION);
            assert_eq!(found.member_assignment, assignment);
        }
    }
    // While they agree anew, nobody has anything.
    assert_eq!(follower.leaves(&mut two, latest), OK);
    let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
    let described = one.call(6, &request).groups.remove(0);
    assert_eq!(described.group_state.as_str(), "PreparingRebalance");
    assert_eq!(described.protocol_data.as_str(), "");
    assert_eq!(described.members.len(), 1);
    assert!(described.members[0].member_assignment.is_empty());
}

/// Joins, and joins again, until the group is complete: as a client does it. The leader gives to each the number of members.
fn stays(client: &mut Connection, versions: Versions, members: usize) -> Member {
    let mut request = wants("g", "", None);
    loop {
        let joined = joins(client, versions.join, request);
        let member = Member::of("g", None, &joined);
        request = member.again();
        let count = joined.members.len().to_string();
        let assign = |one: &join_group_response::JoinGroupResponseMember| {
            SyncGroupRequestAssignment::default()
                .with_member_id(one.member_id.clone())
                .with_assignment(Bytes::from(count.clone()))
        };
        let assignments = joined.members.iter().map(assign).collect();
        let sync = member.sync(&[]).with_assignments(assignments);
        let synced = client.call(versions.then.min(5), &sync);
        match synced.error_code {
            OK if synced.assignment == members.to_string() => return member,
            OK => until(|| member.beats(client, versions) == REBALANCE_IN_PROGRESS),
            code => assert_eq!(code, REBALANCE_IN_PROGRESS),
        }
    }
}

#[test]
fn a_storm_of_a_hundred_members_settles() {
    const MEMBERS: usize = 100;
    let gateway = Gateway::start_with(&[("group.initial.rebalance.delay.ms", "200")]);
    let latest = Versions { join: 9, then: 9 };
    let clients: Vec<Connection> = (0..MEMBERS).map(|_| gateway.connect()).collect();
    let mut settled: Vec<(Connection, Member)> = std::thread::scope(|scope| {
        let all: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let member = stays(&mut client, latest, MEMBERS);
                    (client, member)
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // All of them are of one generation, and it stays.
    let generation = settled[0].1.generation;
    let mut ids: Vec<String> = settled
        .iter()
        .map(|(_, member)| member.id.clone())
        .collect();
    for (client, member) in &mut settled {
        assert_eq!(member.generation, generation);
        assert_eq!(member.beats(client, latest), OK);
    }
    let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
    let described = gateway.connect().call(6, &request).groups.remove(0);
    assert_eq!(described.group_state.as_str(), "Stable");
    let members = described.members.iter();
    let described: Vec<String> = members.map(|one| one.member_id.to_string()).collect();
    ids.sort();
    assert_eq!(described, ids);
}
