//! Consumer groups over the broker: what is durable, what a restart finds, what administrators see.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use common::TestBroker;
use mainstem_broker::{
    Broker, BrokerError, Caller, ConsumerHeartbeat, GroupCommit, GroupMember, GroupState,
    GroupType, JOIN_EPOCH, JoinGroup, Joined, LeavingMember, NewTopic, OffsetCommit, Protocol,
    SyncGroup, Synced,
};
use mainstem_engine::testing::{Crash, poll_once};

const MINUTE_MS: i64 = 60_000;
const WEEK_MS: i64 = 7 * 24 * 60 * MINUTE_MS;

struct Node {
    test: TestBroker,
    now_ms: i64,
}

type Call<T> = Pin<Box<dyn Future<Output = T>>>;

impl Node {
    fn new(topics: &[&str]) -> Node {
        let mut test = TestBroker::open(1);
        for topic in topics {
            let new = NewTopic::named(*topic).partitions(4);
            test.run(|broker, caller| async move { broker.create_topic(&caller, new, 0).await })
                .unwrap();
        }
        Node {
            test,
            now_ms: 1_000_000,
        }
    }

    fn crash(self, crash: Crash) -> Node {
        Node {
            test: self.test.crash(crash),
            ..self
        }
    }

    fn broker(&self) -> &Broker {
        &self.test.broker
    }

    fn caller(&self) -> &Caller {
        &self.test.caller
    }

    /// Begins a call.
    fn begin<F: Future + 'static>(
        &self,
        call: impl FnOnce(Broker, Caller, i64) -> F,
    ) -> Call<F::Output> {
        let mut call: Call<F::Output> = Box::pin(call(
            self.test.broker.clone(),
            self.test.caller.clone(),
            self.now_ms,
        ));
        // Whatever it decides, it decides now; only the answer may take a while.
        if let Poll::Ready(output) = poll_once(call.as_mut()) {
            return Box::pin(std::future::ready(output));
        }
        call
    }

    /// Moves everything on until the call is answered: time, too, where all else is idle.
    fn end<T>(&mut self, mut call: Call<T>) -> T {
        for round in 1..1_000 {
            if let Poll::Ready(output) = poll_once(call.as_mut()) {
                return output;
            }
            self.test.node.driver.settle();
            let next_ms = self.test.broker.move_coordinators(self.now_ms);
            // A call may have several frames made, one after the other.
            if round % 10 == 0 {
                self.now_ms = next_ms.map_or(self.now_ms, |at_ms| self.now_ms.max(at_ms));
            }
        }
        panic!("the call is never answered");
    }

    fn call<F: Future + 'static>(
        &mut self,
        call: impl FnOnce(Broker, Caller, i64) -> F,
    ) -> F::Output {
        let call = self.begin(call);
        self.end(call)
    }

    fn commit(
        &mut self,
        member: GroupMember,
        offsets: &[(&str, u32, i64)],
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let offsets = offsets
            .iter()
            .map(|(topic, partition, offset)| OffsetCommit {
                topic: (*topic).into(),
                partition: *partition,
                offset: *offset,
                leader_epoch: Some(5),
                metadata: "kept".into(),
            });
        let commit = GroupCommit {
            member,
            knows_epochs: true,
            offsets: offsets.collect(),
        };
        self.call(|broker, caller, now_ms| async move {
            broker.commit_offsets(&caller, commit, now_ms).await
        })
    }

    fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let found = self
            .broker()
            .fetch_offsets(self.caller(), group, topic, &[0, 1, 2, 3]);
        let offsets = found.unwrap().into_iter();
        offsets.map(|one| one.map(|one| one.offset)).collect()
    }

    fn join(&self, request: JoinGroup) -> Call<Result<Joined, BrokerError>> {
        self.begin(|broker, caller, now_ms| async move {
            broker.join_group(&caller, request, now_ms).await
        })
    }

    fn sync(&self, joined: &Joined) -> Call<Result<Synced, BrokerError>> {
        let assignments = joined.members.iter();
        let request = SyncGroup {
            member: member(joined),
            assignments: assignments
                .map(|one| (one.member_id.clone(), Bytes::from_static(b"something")))
                .collect(),
            ..SyncGroup::default()
        };
        self.begin(|broker, caller, now_ms| async move {
            broker.sync_group(&caller, request, now_ms).await
        })
    }

    /// A stable group with so many members.
    fn stable(&mut self, count: usize) -> Vec<Joined> {
        let calls: Vec<_> = (0..count).map(|_| self.join(new_member())).collect();
        let joined: Vec<_> = calls
            .into_iter()
            .map(|call| self.end(call).unwrap())
            .collect();
        let calls: Vec<_> = joined.iter().map(|one| self.sync(one)).collect();
        for call in calls {
            assert_eq!(self.end(call).unwrap().assignment, "something");
        }
        joined
    }

    fn heartbeat(&self, joined: &Joined) -> Result<(), BrokerError> {
        self.broker()
            .heartbeat(self.caller(), &member(joined), self.now_ms)
    }

    fn leave(&self, joined: &[Joined]) {
        let leaving: Vec<_> = joined
            .iter()
            .map(|one| LeavingMember {
                member_id: one.member_id.clone(),
                instance_id: None,
            })
            .collect();
        let outcomes = self
            .broker()
            .leave_group(self.caller(), "g", &leaving, self.now_ms);
        assert!(outcomes.unwrap().iter().all(Result::is_ok));
    }

    fn delete_group(&mut self, group: &'static str) -> Result<(), BrokerError> {
        self.call(|broker, caller, now_ms| async move {
            broker.delete_group(&caller, group, now_ms).await
        })
    }

    fn expire(&mut self) -> (usize, usize) {
        let round =
            self.call(|broker, _, now_ms| async move { broker.group_expiry_round(now_ms).await });
        let round = round.unwrap();
        (round.offsets, round.groups)
    }

    fn groups(&self) -> Vec<String> {
        let found = self.broker().list_groups(self.caller(), &[], &[]).unwrap();
        found.into_iter().map(|one| one.group).collect()
    }
}

/// What a Kafka consumer says that reads the topic `read`.
fn subscription() -> Bytes {
    Bytes::from_static(b"\0\x01\0\0\0\x01\0\x04read\xff\xff\xff\xff\0\0\0\0")
}

fn new_member() -> JoinGroup {
    JoinGroup {
        group: "g".into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: subscription(),
        }],
        ..JoinGroup::default()
    }
}

fn member(joined: &Joined) -> GroupMember {
    GroupMember {
        group: "g".into(),
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
    }
}

/// Somebody who commits without being a member.
fn simple(group: &str) -> GroupMember {
    GroupMember {
        group: group.into(),
        generation: -1,
        ..GroupMember::default()
    }
}

fn code<T>(outcome: &Result<T, BrokerError>) -> &'static str {
    outcome.as_ref().map_or_else(BrokerError::code, |_| "ok")
}

#[test]
fn what_was_committed_is_there_after_any_crash_with_all_that_came_with_it() {
    let mut node = Node::new(&["read"]);
    let outcomes = node
        .commit(
            simple("g"),
            &[
                ("read", 0, 7),
                ("read", 3, 9),
                ("read", 4, 1),
                ("gone", 0, 1),
            ],
        )
        .unwrap();
    let codes: Vec<_> = outcomes.iter().map(code).collect();
    assert_eq!(
        codes,
        ["ok", "ok", "partition_not_found", "topic_not_found"]
    );
    for crash in [Crash::Power, Crash::Process] {
        node = node.crash(crash);
        let expected = [Some(7), None, None, Some(9)];
        assert_eq!(node.committed("g", "read"), expected);
        let all = node.broker().fetch_all_offsets(node.caller(), "g").unwrap();
        assert_eq!((all.len(), &*all[0].topic.name), (1, "read"));
        let (partition, one) = &all[0].partitions[1];
        assert_eq!((*partition, one.offset, one.leader_epoch), (3, 9, Some(5)));
        assert_eq!(
            (one.metadata.as_str(), one.committed_ms),
            ("kept", 1_000_000)
        );
        assert_eq!(node.groups(), ["g"]);
    }
    // Another tenant has nothing to do with it.
    let other = Caller::new("other", "me").unwrap();
    assert!(
        node.broker()
            .list_groups(&other, &[], &[])
            .unwrap()
            .is_empty()
    );
    assert!(
        node.broker()
            .fetch_all_offsets(&other, "g")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn offsets_that_cannot_be_are_refused_one_by_one() {
    let mut node = Node::new(&["read"]);
    let mut commit = GroupCommit {
        member: simple("g"),
        knows_epochs: true,
        offsets: vec![OffsetCommit {
            topic: "read".into(),
            offset: 1,
            metadata: "x".repeat(4_097),
            ..OffsetCommit::default()
        }],
    };
    let negative = OffsetCommit {
        metadata: String::new(),
        offset: -1,
        ..commit.offsets[0].clone()
    };
    commit.offsets.push(negative);
    let outcomes = node.call(|broker, caller, now_ms| async move {
        broker.commit_offsets(&caller, commit, now_ms).await
    });
    let codes: Vec<_> = outcomes.unwrap().iter().map(code).collect();
    assert_eq!(
        codes,
        ["offset_metadata_too_large", "invalid_commit_offset"]
    );
    assert!(
        node.groups().is_empty(),
        "nothing was committed, there is no group"
    );
    let member = GroupMember {
        generation: 3,
        ..simple("g")
    };
    assert_eq!(
        code(&node.commit(member.clone(), &[("read", 0, 1)])),
        "group_not_found"
    );
    // Older clients know only this.
    let older = GroupCommit {
        member,
        ..GroupCommit::default()
    };
    let refused = node.call(|broker, caller, now_ms| async move {
        broker.commit_offsets(&caller, older, now_ms).await
    });
    assert_eq!(code(&refused), "illegal_generation");
    assert!(node.groups().is_empty());
    let long = "g".repeat(1_025);
    assert_eq!(code(&node.commit(simple(&long), &[])), "invalid_group");
    // Old clients commit under no name at all; nobody joins under it.
    assert_eq!(code(&node.commit(simple(""), &[("read", 0, 1)])), "ok");
    let nameless = JoinGroup {
        group: String::new(),
        ..new_member()
    };
    let call = node.join(nameless);
    assert_eq!(code(&node.end(call)), "invalid_group");
}

#[test]
fn a_restart_disturbs_no_member_of_a_stable_group() {
    let mut node = Node::new(&["read"]);
    let joined = node.stable(3);
    for crash in [Crash::Process, Crash::Power] {
        node = node.crash(crash);
        for one in &joined {
            assert_eq!(code(&node.heartbeat(one)), "ok");
            assert_eq!(code(&node.commit(member(one), &[("read", 1, 5)])), "ok");
            let call = node.sync(one);
            assert_eq!(node.end(call).unwrap().assignment, "something");
        }
        let described = node.broker().describe_group(node.caller(), "g").unwrap();
        assert_eq!(
            (described.state, described.generation),
            (GroupState::Stable, 1)
        );
        assert_eq!(described.members.len(), 3);
        assert_eq!(described.members[0].client_host, "/127.0.0.1");
        assert_eq!(described.members[0].metadata, subscription());
    }
    // Their sessions go on from the restart.
    node.now_ms += 46_000;
    node.broker().move_coordinators(node.now_ms);
    assert_eq!(code(&node.heartbeat(&joined[0])), "unknown_member");
    node.test.node.driver.settle();
    node = node.crash(Crash::Power);
    let described = node.broker().describe_group(node.caller(), "g").unwrap();
    assert_eq!(
        (described.state, described.generation),
        (GroupState::Empty, 2)
    );
}

/// An administrator touches a group before its first assignment is there: that keeps a record of it.
#[test]
fn a_group_that_is_kept_while_it_rebalances_has_no_members_after_a_crash() {
    for crash in [Crash::Process, Crash::Power] {
        for has_joined in [false, true] {
            let mut node = Node::new(&["read", "other"]);
            let mut call = node.join(new_member());
            if has_joined {
                let joined = node.end(call).unwrap();
                call = Box::pin(std::future::ready(Ok(joined)));
            }
            let outcomes = node.call(|broker, caller, now_ms| async move {
                let partitions = [("other".to_owned(), 0)];
                broker
                    .delete_offsets(&caller, "g", &partitions, now_ms)
                    .await
            });
            assert_eq!(code(&outcomes.unwrap()[0]), "ok");
            let joined = match poll_once(call.as_mut()) {
                Poll::Ready(joined) => Some(joined.unwrap()),
                Poll::Pending => None,
            };
            assert_eq!(joined.is_some(), has_joined);
            drop(call);
            node = node.crash(crash);
            let described = node.broker().describe_group(node.caller(), "g").unwrap();
            assert_eq!(
                (described.state, described.generation),
                (GroupState::Empty, i32::from(has_joined))
            );
            if let Some(joined) = joined {
                // It asks for an assignment that nobody has made: it is to join again, not to be content with none.
                let call = node.sync(&joined);
                assert_eq!(code(&node.end(call)), "unknown_member");
            }
            node.stable(2);
        }
    }
}

#[test]
fn groups_are_listed_by_state_and_described() {
    let mut node = Node::new(&["read"]);
    node.stable(1);
    node.commit(simple("h"), &[("read", 0, 1)])
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(node.groups(), ["g", "h"]);
    let list = |states: &[GroupState], types: &[GroupType]| {
        node.broker()
            .list_groups(node.caller(), states, types)
            .unwrap()
    };
    let stable = list(&[GroupState::Stable], &[GroupType::Classic]);
    assert_eq!((stable.len(), stable[0].group.as_str()), (1, "g"));
    assert_eq!(stable[0].protocol_type, "consumer");
    assert_eq!(list(&[GroupState::Empty], &[])[0].group, "h");
    let missing = node.broker().describe_group(node.caller(), "i");
    assert_eq!(code(&missing), "group_not_found");
}

#[test]
fn a_group_is_deleted_with_its_offsets_once_it_is_empty() {
    let mut node = Node::new(&["read"]);
    assert_eq!(code(&node.delete_group("g")), "group_not_found");
    let joined = node.stable(2);
    node.commit(member(&joined[0]), &[("read", 0, 1)])
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(code(&node.delete_group("g")), "group_not_empty");
    node.leave(&joined);
    // A commit that is under way is deleted as well.
    let late = GroupCommit {
        member: simple("g"),
        knows_epochs: true,
        offsets: vec![OffsetCommit {
            topic: "read".into(),
            partition: 2,
            offset: 8,
            ..OffsetCommit::default()
        }],
    };
    let late = node.begin(|broker, caller, now_ms| async move {
        broker.commit_offsets(&caller, late, now_ms).await
    });
    assert_eq!(code(&node.delete_group("g")), "ok");
    assert_eq!(code(&node.end(late)), "ok");
    for _ in 0..2 {
        assert_eq!(node.committed("g", "read"), [None; 4]);
        assert!(node.groups().is_empty());
        node = node.crash(Crash::Power);
    }
    // It may come back, and is a new one.
    node.commit(simple("g"), &[("read", 1, 4)])
        .unwrap()
        .remove(0)
        .unwrap();
    node = node.crash(Crash::Process);
    assert_eq!(node.committed("g", "read"), [None, Some(4), None, None]);
    assert_eq!(node.groups(), ["g"]);
}

#[test]
fn a_commit_behind_a_deletion_brings_the_group_back() {
    let mut node = Node::new(&["read"]);
    node.commit(simple("g"), &[("read", 0, 1)])
        .unwrap()
        .remove(0)
        .unwrap();
    let deletion = node.begin(|broker, caller, now_ms| async move {
        broker.delete_group(&caller, "g", now_ms).await
    });
    node.commit(simple("g"), &[("read", 1, 2)])
        .unwrap()
        .remove(0)
        .unwrap();
    node.end(deletion).unwrap();
    for _ in 0..2 {
        assert_eq!(node.groups(), ["g"]);
        assert_eq!(node.committed("g", "read"), [None, Some(2), None, None]);
        node = node.crash(Crash::Power);
    }
}

#[test]
fn offsets_of_topics_that_are_read_are_not_deleted() {
    let mut node = Node::new(&["read", "other"]);
    let delete = |node: &mut Node, topics: &[&str]| {
        let partitions: Vec<_> = topics.iter().map(|one| ((*one).to_owned(), 0)).collect();
        node.call(|broker, caller, now_ms| async move {
            broker
                .delete_offsets(&caller, "g", &partitions, now_ms)
                .await
        })
    };
    assert_eq!(code(&delete(&mut node, &["read"])), "group_not_found");
    node.commit(simple("g"), &[("read", 0, 1), ("other", 0, 2)])
        .unwrap();
    let joined = node.stable(1);
    let outcomes = delete(&mut node, &["read", "other", "gone"]).unwrap();
    let codes: Vec<_> = outcomes.iter().map(code).collect();
    assert_eq!(codes, ["group_subscribed", "ok", "topic_not_found"]);
    assert_eq!(node.committed("g", "other"), [None; 4]);
    assert_eq!(node.committed("g", "read")[0], Some(1));
    node.leave(&joined);
    assert_eq!(code(&delete(&mut node, &["read"]).unwrap()[0]), "ok");
    assert_eq!(node.committed("g", "read"), [None; 4]);
}

#[test]
fn offsets_of_a_group_that_is_no_kafka_consumers_are_not_deleted_while_it_lives() {
    let mut node = Node::new(&["read"]);
    let request = JoinGroup {
        protocol_type: "connect".into(),
        ..new_member()
    };
    let call = node.join(request);
    node.end(call).unwrap();
    let outcome = node.call(|broker, caller, now_ms| async move {
        let partitions = [("read".to_owned(), 0)];
        broker
            .delete_offsets(&caller, "g", &partitions, now_ms)
            .await
    });
    assert_eq!(code(&outcome), "group_not_empty");
}

#[test]
fn offsets_expire_once_their_group_has_been_empty_for_long() {
    let mut node = Node::new(&["read", "other"]);
    let joined = node.stable(1);
    let both = [("read", 0, 1), ("other", 0, 2)];
    node.commit(member(&joined[0]), &both).unwrap();
    node.commit(simple("h"), &[("read", 0, 3)]).unwrap();
    let begun_ms = node.now_ms;
    let live = |node: &mut Node, until_ms: i64| {
        while node.now_ms < until_ms {
            node.now_ms = (node.now_ms + 40_000).min(until_ms);
            node.heartbeat(&joined[0]).unwrap();
        }
    };
    live(&mut node, begun_ms + WEEK_MS - 1);
    assert_eq!(node.expire(), (0, 0));
    // What a group without members committed goes by its own age, and so does what a group's members do not read.
    live(&mut node, begun_ms + WEEK_MS);
    assert_eq!(node.expire(), (2, 1));
    assert_eq!(node.committed("g", "other"), [None; 4]);
    assert_eq!(node.groups(), ["g"]);
    node.leave(&joined);
    node.test.node.driver.settle();
    node = node.crash(Crash::Power);
    node.now_ms += WEEK_MS - 1;
    assert_eq!(node.expire(), (0, 0));
    assert_eq!(node.committed("g", "read")[0], Some(1));
    node.now_ms += 1;
    assert_eq!(node.expire(), (1, 1));
    assert_eq!(node.committed("g", "read"), [None; 4]);
    assert!(node.groups().is_empty());
    node = node.crash(Crash::Power);
    assert!(node.groups().is_empty());
}

#[test]
fn offsets_go_after_their_topic_and_another_of_its_name_has_none() {
    let mut node = Node::new(&["read"]);
    node.commit(simple("g"), &[("read", 0, 1)]).unwrap();
    node.call(|broker, caller, _| async move { broker.delete_topic(&caller, "read").await })
        .unwrap();
    let again = NewTopic::named("read").partitions(4);
    node.call(|broker, caller, _| async move { broker.create_topic(&caller, again, 0).await })
        .unwrap();
    assert_eq!(node.committed("g", "read"), [None; 4]);
    node.commit(simple("h"), &[("read", 0, 2)]).unwrap();
    assert_eq!(node.expire(), (1, 1), "the group had nothing else");
    assert_eq!(node.committed("h", "read")[0], Some(2));
    assert_eq!(node.groups(), ["h"]);
}

#[test]
fn a_member_that_stops_waiting_leaves_nothing_half_done() {
    let mut node = Node::new(&["read"]);
    let call = node.join(new_member());
    let joined = node.end(call).unwrap();
    // Its client is gone before the assignment is durable: the group is stable all the same.
    drop(node.sync(&joined));
    node.test.node.driver.settle();
    node.broker().move_coordinators(node.now_ms);
    let described = node.broker().describe_group(node.caller(), "g").unwrap();
    assert_eq!(described.state, GroupState::Stable);
    let call = node.sync(&joined);
    assert_eq!(node.end(call).unwrap().assignment, "something");
}

#[test]
fn a_damaged_record_of_a_group_is_named_when_the_broker_opens() {
    let mut node = Node::new(&["read"]);
    let damaged = mainstem_engine::Submission {
        store_ops: vec![mainstem_store::StoreOp::put(
            mainstem_broker::keys::FAMILY,
            mainstem_broker::keys::group("default", "g"),
            "nonsense",
        )],
        ..Default::default()
    };
    let ticket = node.broker().engine().submit_in_turn(damaged);
    node.test.node.driver.block_on(ticket).unwrap();
    let opened = Broker::open(node.broker().engine().clone(), common::settings(2));
    let error = opened.err().unwrap();
    assert!(error.to_string().contains("group 'g'"), "{error}");
}

/// Joins a group of the consumer protocol, or goes on in it; the epoch, and which partitions it may have, if told.
fn beat(node: &mut Node, member: &str, epoch: i32) -> Result<(i32, Option<usize>), BrokerError> {
    let joins = epoch == JOIN_EPOCH;
    let request = ConsumerHeartbeat {
        group: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: joins.then_some(10_000),
        topics: joins.then(|| vec!["read".into()]),
        owned: joins.then(Vec::new),
        ..ConsumerHeartbeat::default()
    };
    let beat = node.call(|broker, caller, now_ms| async move {
        broker.consumer_heartbeat(&caller, request, now_ms).await
    })?;
    Ok((beat.member_epoch, beat.assignment.map(|found| found.len())))
}

#[test]
fn what_was_told_of_a_consumer_group_and_set_for_it_is_there_after_the_power_was_lost() {
    let mut node = Node::new(&["read"]);
    let set = |value: Option<&str>| {
        let name = "consumer.session.timeout.ms".to_owned();
        BTreeMap::from([(name, value.map(str::to_owned))])
    };
    let change = |node: &mut Node, changes| {
        node.call(|broker, caller, _| async move {
            broker
                .alter_group_configs(&caller, "g", &changes, false)
                .await
        })
    };
    change(&mut node, set(Some("60000"))).unwrap();
    assert_eq!(beat(&mut node, "m", JOIN_EPOCH).unwrap(), (1, Some(4)));
    assert_eq!(beat(&mut node, "n", JOIN_EPOCH).unwrap(), (2, Some(0)));
    assert_eq!(beat(&mut node, "m", 1).unwrap(), (1, Some(2)));
    let described = |node: &Node| node.broker().describe_consumer_group(node.caller(), "g");
    let before = described(&node).unwrap();
    let mut node = node.crash(Crash::Power);
    assert_eq!(described(&node).unwrap(), before);
    assert_eq!(beat(&mut node, "n", 2).unwrap(), (2, None));
    // Its own session timeout holds, not the broker's of 45 seconds.
    node.now_ms += 59_000;
    node.broker().move_coordinators(node.now_ms);
    // The other has not given up in time what it was to give up.
    assert_eq!(beat(&mut node, "n", 2).unwrap(), (3, Some(4)));
    let value = |node: &Node| {
        let configs = node.broker().group_configs(node.caller(), "g").unwrap();
        configs
            .into_iter()
            .map(|config| config.value)
            .collect::<Vec<_>>()
    };
    assert_eq!(value(&node), ["5000", "60000"]);
    let refused = change(&mut node, set(Some("1"))).unwrap_err();
    assert_eq!(refused.code(), "invalid_config");
    change(&mut node, set(None)).unwrap();
    let node = node.crash(Crash::Process);
    assert_eq!(value(&node), ["5000", "45000"]);
}
