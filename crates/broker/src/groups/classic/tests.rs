#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Each rule of the classic protocol.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Classic;
use crate::BrokerError;
use crate::groups::effects::{Effect, Storing, WaitId};
use crate::groups::record::GroupRecord;
use crate::groups::settings::GroupSettings;
use crate::groups::types::{
    GroupMember, GroupState, JoinGroup, Joined, LeavingMember, Protocol, SyncGroup, Synced,
};

const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 60_000;

/// A group, its time, and whoever waits.
struct Bench {
    group: Classic,
    now_ms: i64,
    next: u64,
    joined: BTreeMap<WaitId, Result<Joined, BrokerError>>,
    synced: BTreeMap<WaitId, Result<Synced, BrokerError>>,
    stores: VecDeque<(GroupRecord, Storing)>,
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    names
        .iter()
        .map(|name| Protocol {
            name: (*name).to_owned(),
            metadata: Bytes::from(format!("{name}'s")),
        })
        .collect()
}

/// A dynamic member that wants to join, as a client since KIP-394 does it.
fn dynamic(member_id: &str) -> JoinGroup {
    JoinGroup {
        group: "g".into(),
        member_id: member_id.into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
        requires_member_id: true,
        ..JoinGroup::default()
    }
}

/// One that is given its id with its first generation, as older clients are.
fn older(member_id: &str) -> JoinGroup {
    JoinGroup {
        requires_member_id: false,
        ..dynamic(member_id)
    }
}

fn fixed(instance_id: &str) -> JoinGroup {
    JoinGroup {
        instance_id: Some(instance_id.into()),
        ..dynamic("")
    }
}

fn code<T>(outcome: &Result<T, BrokerError>) -> &'static str {
    outcome.as_ref().map_or_else(BrokerError::code, |_| "ok")
}

impl Bench {
    fn new() -> Bench {
        Bench::with(GroupSettings::default())
    }

    fn with(settings: GroupSettings) -> Bench {
        Bench {
            group: Classic::new("g".into(), settings, 0),
            now_ms: 0,
            next: 0,
            joined: BTreeMap::new(),
            synced: BTreeMap::new(),
            stores: VecDeque::new(),
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Joined(wait, answer) => {
                    assert!(self.joined.insert(wait, answer).is_none(), "answered twice");
                }
                Effect::Synced(wait, answer) => {
                    assert!(self.synced.insert(wait, answer).is_none(), "answered twice");
                }
                Effect::Store(record, storing) => self.stores.push_back((*record, storing)),
            }
        }
    }

    fn join(&mut self, request: &JoinGroup) -> WaitId {
        self.next += 1;
        let mut effects = Vec::new();
        let (wait, random) = (self.next, u128::from(self.next));
        self.group
            .join(request, wait, random, self.now_ms, &mut effects);
        self.take(effects);
        wait
    }

    fn answer(&mut self, wait: WaitId) -> Result<Joined, BrokerError> {
        self.joined.remove(&wait).expect("a join is answered")
    }

    fn sync(&mut self, joined: &Joined, assignments: &[(&str, &str)]) -> WaitId {
        self.next += 1;
        let request = SyncGroup {
            member: member(joined),
            protocol_type: Some("consumer".into()),
            protocol: Some(joined.protocol.clone()),
            assignments: assignments
                .iter()
                .map(|(id, what)| ((*id).to_owned(), Bytes::from((*what).to_owned())))
                .collect(),
        };
        let mut effects = Vec::new();
        self.group
            .sync(&request, self.next, self.now_ms, &mut effects);
        self.take(effects);
        self.next
    }

    fn assignment(&mut self, wait: WaitId) -> Result<Bytes, BrokerError> {
        let answer = self.synced.remove(&wait).expect("a sync is answered");
        answer.map(|synced| synced.assignment)
    }

    /// Everything that was to be stored is durable.
    fn durable(&mut self) {
        while let Some((_, storing)) = self.stores.pop_front() {
            let mut effects = Vec::new();
            self.group
                .stored(storing, Ok(()), self.now_ms, &mut effects);
            self.take(effects);
        }
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while let Some(at_ms) = self.group.deadline_ms().filter(|at_ms| *at_ms <= until_ms) {
            self.now_ms = self.now_ms.max(at_ms);
            let mut effects = Vec::new();
            self.group.tick(self.now_ms, &mut effects);
            self.take(effects);
        }
        self.now_ms = until_ms;
    }

    fn leave(&mut self, member_id: &str, instance_id: Option<&str>) -> Result<(), BrokerError> {
        let leaving = LeavingMember {
            member_id: member_id.into(),
            instance_id: instance_id.map(str::to_owned),
        };
        let mut effects = Vec::new();
        let outcome = self.group.leave(&leaving, self.now_ms, &mut effects);
        self.take(effects);
        outcome
    }

    fn heartbeat(&mut self, joined: &Joined) -> &'static str {
        let outcome = self.group.heartbeat(&member(joined), self.now_ms);
        code(&outcome)
    }

    /// A stable group of these members, the first of which leads.
    fn stable(&mut self, requests: &[JoinGroup]) -> Vec<Joined> {
        let waits: Vec<_> = requests.iter().map(|request| self.join(request)).collect();
        let joined = self.generation(&waits);
        self.settle(&joined);
        joined
    }

    /// Waits until all of them are told of their generation.
    fn generation(&mut self, waits: &[WaitId]) -> Vec<Joined> {
        while !waits.iter().all(|wait| self.joined.contains_key(wait)) {
            assert!(self.group.deadline_ms().is_some(), "nothing will happen");
            self.pass(1_000);
        }
        waits
            .iter()
            .map(|wait| self.answer(*wait).unwrap())
            .collect()
    }

    /// Members of one generation ask for their assignments: each gets its own id.
    fn settle(&mut self, joined: &[Joined]) {
        let leader = joined.iter().find(|one| one.member_id == one.leader);
        let members = leader.unwrap().members.iter();
        let ids: Vec<_> = members.map(|one| one.member_id.clone()).collect();
        let assignments: Vec<_> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        let waits: Vec<_> = joined
            .iter()
            .map(|one| match one.member_id == one.leader {
                true => self.sync(one, &assignments),
                false => self.sync(one, &[]),
            })
            .collect();
        self.durable();
        for (wait, one) in waits.into_iter().zip(joined) {
            assert_eq!(self.assignment(wait).unwrap(), one.member_id);
        }
        assert_eq!(self.group.state(), GroupState::Stable);
    }

    fn commit(&mut self, member: &GroupMember) -> &'static str {
        code(&self.group.check_commit(member, self.now_ms))
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

fn again(joined: &Joined) -> JoinGroup {
    dynamic(&joined.member_id)
}

#[test]
fn the_first_members_wait_for_company_again_and_again_but_not_for_ever() {
    let mut bench = Bench::new();
    let mut waits = vec![bench.join(&older(""))];
    bench.pass(2_999);
    assert!(bench.joined.is_empty());
    // Each time somebody has come, it is waited for more, up to the rebalance timeout.
    for _ in 0..30 {
        waits.push(bench.join(&older("")));
        bench.pass(2_999);
    }
    let first = bench.answer(waits[0]).unwrap();
    assert_eq!(first.generation, 1);
    assert!(bench.now_ms > REBALANCE_MS && first.members.len() >= 20);

    let mut alone = Bench::new();
    let wait = alone.join(&older(""));
    alone.pass(2_999);
    assert!(alone.joined.is_empty());
    alone.pass(1);
    assert_eq!(alone.answer(wait).unwrap().generation, 1);
}

#[test]
fn without_a_delay_the_first_member_is_answered_at_the_next_tick() {
    let settings = GroupSettings {
        initial_rebalance_delay_ms: 0,
        ..GroupSettings::default()
    };
    let mut bench = Bench::with(settings);
    let wait = bench.join(&older(""));
    assert_eq!(bench.group.deadline_ms(), Some(0));
    bench.pass(0);
    assert!(bench.answer(wait).is_ok());
}

#[test]
fn a_new_member_is_given_an_id_and_joins_with_it() {
    let mut bench = Bench::new();
    let wait = bench.join(&dynamic(""));
    let Err(BrokerError::MemberIdRequired { member_id }) = bench.answer(wait) else {
        panic!("an id is given first");
    };
    assert!(member_id.starts_with("client-"));
    assert!(!bench.group.is_vacant());
    let wait = bench.join(&dynamic(&member_id));
    bench.pass(3_000);
    let joined = bench.answer(wait).unwrap();
    assert_eq!(
        (&joined.member_id, &joined.leader),
        (&member_id, &member_id)
    );
    let unknown = bench.join(&dynamic("somebody"));
    assert_eq!(code(&bench.answer(unknown)), "unknown_member");
}

#[test]
fn an_id_that_was_given_out_is_waited_for_until_it_expires() {
    let mut bench = Bench::new();
    let one = bench.stable(&[older("")]).remove(0);
    let asked = bench.join(&dynamic(""));
    assert_eq!(code(&bench.answer(asked)), "member_id_required");
    let wait = bench.join(&again(&one));
    bench.pass(SESSION_MS - 1);
    assert!(bench.joined.is_empty(), "the new member may still come");
    bench.pass(1);
    assert_eq!(bench.answer(wait).unwrap().generation, 2);
}

#[test]
fn nobody_hears_an_assignment_before_it_is_durable() {
    let mut bench = Bench::new();
    let waits = [bench.join(&older("")), bench.join(&older(""))];
    bench.pass(2 * 3_000);
    let [leader, follower] = waits.map(|wait| bench.answer(wait).unwrap());
    assert_eq!(leader.members.len(), 2);
    assert!(follower.members.is_empty());
    assert_eq!(follower.leader, leader.member_id);
    let follows = bench.sync(&follower, &[]);
    let leads = bench.sync(&leader, &[(&follower.member_id, "all"), ("nobody", "x")]);
    assert!(bench.synced.is_empty());
    assert_eq!(bench.group.state(), GroupState::CompletingRebalance);
    let (record, _) = bench.stores.front().unwrap();
    assert_eq!(record.generation, 1);
    let kept: Vec<_> = record
        .members
        .iter()
        .map(|one| &one.assignment[..])
        .collect();
    assert_eq!(kept.iter().filter(|one| **one == b"all").count(), 1);
    bench.durable();
    assert_eq!(bench.assignment(follows).unwrap(), "all");
    assert_eq!(bench.assignment(leads).unwrap(), "");
    // Asked again, it is told again.
    let asked = bench.sync(&follower, &[]);
    assert_eq!(bench.assignment(asked).unwrap(), "all");
}

#[test]
fn an_assignment_that_cannot_be_kept_is_not_told() {
    let mut bench = Bench::new();
    let wait = bench.join(&older(""));
    bench.pass(3_000);
    let one = bench.answer(wait).unwrap();
    let wait = bench.sync(&one, &[(&one.member_id, "all")]);
    let (_, storing) = bench.stores.pop_front().unwrap();
    let mut effects = Vec::new();
    let failed = Err(BrokerError::Closed);
    bench
        .group
        .stored(storing, failed, bench.now_ms, &mut effects);
    bench.take(effects);
    assert_eq!(code(&bench.assignment(wait)), "closed");
    assert_eq!(bench.heartbeat(&one), "rebalance_in_progress");
}

#[test]
fn an_assignment_of_an_overtaken_generation_is_not_told() {
    let mut bench = Bench::new();
    let wait = bench.join(&older(""));
    bench.pass(3_000);
    let one = bench.answer(wait).unwrap();
    let wait = bench.sync(&one, &[(&one.member_id, "all")]);
    bench.join(&older(""));
    assert_eq!(code(&bench.assignment(wait)), "rebalance_in_progress");
    bench.durable();
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    assert!(bench.synced.is_empty());
}

#[test]
fn a_follower_that_says_the_same_again_disturbs_nobody_and_everything_else_does() {
    let mut bench = Bench::new();
    let members = bench.stable(&[older(""), older("")]);
    let (leader, follower) = (&members[0], &members[1]);
    let wait = bench.join(&again(follower));
    let told = bench.answer(wait).unwrap();
    assert_eq!((told.generation, told.members.len()), (1, 0));
    assert_eq!(bench.group.state(), GroupState::Stable);

    let changed = JoinGroup {
        protocols: protocols(&["range", "sticky"]),
        ..again(follower)
    };
    let wait = bench.join(&changed);
    assert_eq!(bench.heartbeat(leader), "rebalance_in_progress");
    let leads = bench.join(&again(leader));
    let joined = [leads, wait].map(|wait| bench.answer(wait).unwrap());
    assert!(joined.iter().all(|one| one.generation == 2));
    // While the assignment is made, one that missed its answer is told again.
    let wait = bench.join(&changed);
    assert_eq!(bench.answer(wait).unwrap().generation, 2);
    bench.settle(&joined);

    bench.join(&again(leader));
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_silent_member_is_removed_and_the_others_go_on() {
    let mut bench = Bench::new();
    let members = bench.stable(&[older(""), older("")]);
    for _ in 0..3 {
        bench.pass(SESSION_MS / 2);
        // One of them says that it is there.
        bench.heartbeat(&members[1]);
    }
    assert_eq!(bench.heartbeat(&members[0]), "unknown_member");
    assert_eq!(bench.heartbeat(&members[1]), "rebalance_in_progress");
    let wait = bench.join(&again(&members[1]));
    let joined = bench.answer(wait).unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(joined.leader, members[1].member_id);
    assert_eq!(bench.heartbeat(&members[1]), "illegal_generation");
    assert_eq!(bench.heartbeat(&joined), "ok");
}

#[test]
fn who_waits_for_an_answer_is_not_silent() {
    let mut bench = Bench::new();
    let members = bench.stable(&[older(""), older("")]);
    let wait = bench.join(&again(&members[0]));
    // The other one is there, but does not join again before the time is up.
    for _ in 0..11 {
        bench.pass(SESSION_MS / 2);
        bench.heartbeat(&members[1]);
    }
    assert!(bench.joined.is_empty());
    bench.pass(SESSION_MS / 2);
    let joined = bench.answer(wait).unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(bench.heartbeat(&members[1]), "unknown_member");
}

/// The leader dies while it makes the assignment. Who has waited for that as long as the leader was given is not silent.
#[test]
fn who_waited_for_a_leader_that_died_stays_a_member() {
    let mut bench = Bench::new();
    let members = bench.stable(&[older(""), older("")]);
    let waits = [0, 1].map(|at| bench.join(&again(&members[at])));
    let joined = bench.generation(&waits);
    let other = joined
        .iter()
        .find(|one| one.member_id != one.leader)
        .unwrap();
    let wait = bench.sync(other, &[]);
    bench.pass(SESSION_MS);
    assert_eq!(code(&bench.assignment(wait)), "rebalance_in_progress");
    bench.pass(SESSION_MS - 1);
    let wait = bench.join(&again(other));
    let next = bench.answer(wait).unwrap();
    assert_eq!((&next.member_id, next.members.len()), (&other.member_id, 1));
}

#[test]
fn a_new_member_whose_client_is_gone_is_not_waited_for_for_ever() {
    let mut bench = Bench::new();
    let slow = JoinGroup {
        rebalance_timeout_ms: 60 * 60_000,
        ..older("")
    };
    let one = bench.stable(&[slow]).remove(0);
    let wait = bench.join(&older(""));
    for _ in 0..40 {
        bench.pass(SESSION_MS - 1);
        bench.heartbeat(&one);
    }
    assert_eq!(code(&bench.answer(wait)), "unknown_member");
}

#[test]
fn who_does_not_ask_for_its_assignment_in_time_is_removed() {
    let mut bench = Bench::new();
    let waits = [bench.join(&older("")), bench.join(&older(""))];
    bench.pass(2 * 3_000);
    let [leader, follower] = waits.map(|wait| bench.answer(wait).unwrap());
    let wait = bench.sync(&leader, &[]);
    bench.durable();
    bench.assignment(wait).unwrap();
    for _ in 0..7 {
        bench.pass(SESSION_MS - 1);
        bench.heartbeat(&leader);
        bench.heartbeat(&follower);
    }
    assert_eq!(bench.heartbeat(&follower), "unknown_member");
    assert_eq!(bench.heartbeat(&leader), "rebalance_in_progress");
}

#[test]
fn a_static_member_comes_back_and_nobody_is_disturbed() {
    let mut bench = Bench::new();
    let members = bench.stable(&[fixed("a"), fixed("b")]);
    assert!(members[1].member_id.starts_with("b-"));
    let wait = bench.join(&fixed("b"));
    assert!(bench.joined.is_empty(), "the new id is made durable first");
    bench.durable();
    let back = bench.answer(wait).unwrap();
    assert_ne!(back.member_id, members[1].member_id);
    assert_eq!(
        (back.generation, bench.group.state()),
        (1, GroupState::Stable)
    );
    let wait = bench.sync(&back, &[]);
    assert_eq!(
        bench.assignment(wait).unwrap(),
        members[1].member_id,
        "what it had"
    );
    // The one before is fenced, by name and by id.
    let before = GroupMember {
        instance_id: Some("b".into()),
        ..member(&members[1])
    };
    assert_eq!(
        code(&bench.group.heartbeat(&before, bench.now_ms)),
        "fenced_instance"
    );
    assert_eq!(bench.commit(&before), "fenced_instance");
    assert_eq!(bench.heartbeat(&members[1]), "unknown_member");
    assert_eq!(
        code(&bench.leave(&members[1].member_id, Some("b"))),
        "fenced_instance"
    );
    let stale = JoinGroup {
        member_id: members[1].member_id.clone(),
        ..fixed("b")
    };
    let wait = bench.join(&stale);
    assert_eq!(code(&bench.answer(wait)), "fenced_instance");
}

#[test]
fn a_static_leader_that_comes_back_does_not_assign_anew() {
    for skips_assignment in [false, true] {
        let mut bench = Bench::new();
        let members = bench.stable(&[fixed("a"), fixed("b")]);
        let request = JoinGroup {
            skips_assignment,
            ..fixed("a")
        };
        let wait = bench.join(&request);
        bench.durable();
        let back = bench.answer(wait).unwrap();
        assert_eq!(back.skip_assignment, skips_assignment);
        match skips_assignment {
            true => assert_eq!((&back.leader, back.members.len()), (&back.member_id, 2)),
            false => {
                let before = &members[0].member_id;
                assert_eq!((&back.leader, back.members.len()), (before, 0));
            }
        }
        // It leads all the same: when it joins again, the group rebalances.
        bench.join(&JoinGroup {
            member_id: back.member_id.clone(),
            ..request
        });
        assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    }
}

#[test]
fn a_static_member_that_changes_the_chosen_protocol_makes_the_group_rebalance() {
    let mut bench = Bench::new();
    let both = |instance| JoinGroup {
        protocols: protocols(&["range", "sticky"]),
        ..fixed(instance)
    };
    let members = bench.stable(&[both("a"), both("b")]);
    assert_eq!(members[0].protocol, "range");
    let wait = bench.join(&JoinGroup {
        protocols: protocols(&["sticky"]),
        ..fixed("b")
    });
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    let other = bench.join(&JoinGroup {
        member_id: members[0].member_id.clone(),
        ..both("a")
    });
    for wait in [wait, other] {
        let joined = bench.answer(wait).unwrap();
        assert_eq!((joined.generation, joined.protocol.as_str()), (2, "sticky"));
    }
}

#[test]
fn a_static_member_whose_new_id_cannot_be_kept_is_the_old_one_still() {
    let mut bench = Bench::new();
    let members = bench.stable(&[fixed("a")]);
    let wait = bench.join(&fixed("a"));
    let (_, storing) = bench.stores.pop_front().unwrap();
    let mut effects = Vec::new();
    let failed = Err(BrokerError::Closed);
    bench
        .group
        .stored(storing, failed, bench.now_ms, &mut effects);
    bench.take(effects);
    assert_eq!(code(&bench.answer(wait)), "closed");
    assert_eq!(bench.heartbeat(&members[0]), "ok");
}

#[test]
fn a_static_member_keeps_its_place_while_others_rebalance_until_its_session_ends() {
    let mut bench = Bench::new();
    let long = JoinGroup {
        session_timeout_ms: 10 * REBALANCE_MS,
        ..fixed("b")
    };
    let members = bench.stable(&[fixed("a"), long.clone()]);
    let first = JoinGroup {
        member_id: members[0].member_id.clone(),
        ..fixed("a")
    };
    let wait = bench.join(&first);
    bench.pass(REBALANCE_MS);
    let joined = bench.answer(wait).unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 2));
    // It comes back while the assignment is made: that is made anew, with its new id.
    let back = bench.join(&long);
    let wait = bench.join(&first);
    for wait in [back, wait] {
        assert_eq!(bench.answer(wait).unwrap().generation, 3);
    }
}

#[test]
fn where_nobody_comes_back_the_group_waits_for_the_sessions_to_end() {
    let mut bench = Bench::new();
    let long = JoinGroup {
        session_timeout_ms: 3 * REBALANCE_MS,
        ..fixed("a")
    };
    bench.stable(&[long]);
    let wait = bench.join(&dynamic(""));
    assert_eq!(code(&bench.answer(wait)), "member_id_required");
    let mut effects = Vec::new();
    bench.group.rebalance(bench.now_ms, &mut effects);
    bench.pass(2 * REBALANCE_MS);
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    bench.pass(2 * REBALANCE_MS);
    assert_eq!(bench.group.state(), GroupState::Empty);
    assert!(bench.group.is_vacant());
    assert!(matches!(bench.stores.pop_back(), Some((_, Storing::Empty))));
}

#[test]
fn the_protocol_that_most_like_best_is_chosen_among_those_all_speak() {
    let mut bench = Bench::new();
    let speaks = |names: &[&str]| JoinGroup {
        protocols: protocols(names),
        ..older("")
    };
    let members = bench.stable(&[
        speaks(&["own", "range", "sticky"]),
        speaks(&["sticky", "range"]),
        speaks(&["sticky", "range"]),
    ]);
    assert!(members.iter().all(|one| one.protocol == "sticky"));
    assert_eq!(members[0].members[0].metadata, "sticky's");
    let wait = bench.join(&speaks(&["own"]));
    assert_eq!(code(&bench.answer(wait)), "inconsistent_protocol");
    let other = JoinGroup {
        protocol_type: "connect".into(),
        ..speaks(&["range"])
    };
    let wait = bench.join(&other);
    assert_eq!(code(&bench.answer(wait)), "inconsistent_protocol");
    let wait = bench.join(&speaks(&[]));
    assert_eq!(code(&bench.answer(wait)), "inconsistent_protocol");
    // A sync that names another protocol is refused, too.
    let odd = Joined {
        protocol: "range".into(),
        ..members[0].clone()
    };
    let wait = bench.sync(&odd, &[]);
    assert_eq!(code(&bench.assignment(wait)), "inconsistent_protocol");
    assert_eq!(bench.group.state(), GroupState::Stable);
}

#[test]
fn session_timeouts_and_the_number_of_members_have_limits() {
    let settings = GroupSettings {
        max_size: 2,
        ..GroupSettings::default()
    };
    let mut bench = Bench::with(settings);
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let request = JoinGroup {
            session_timeout_ms,
            ..older("")
        };
        let wait = bench.join(&request);
        assert_eq!(code(&bench.answer(wait)), "invalid_session_timeout");
    }
    let waits = [bench.join(&older("")), bench.join(&older(""))];
    let wait = bench.join(&older(""));
    assert_eq!(code(&bench.answer(wait)), "group_full");
    let joined = bench.generation(&waits);
    bench.settle(&joined);
    let wait = bench.join(&older(""));
    assert_eq!(code(&bench.answer(wait)), "group_full");
    let wait = bench.join(&again(&joined[0]));
    assert!(
        !bench.joined.contains_key(&wait),
        "who is a member may come again"
    );
}

#[test]
fn members_leave_by_id_and_by_name_and_the_last_one_leaves_an_empty_group() {
    let mut bench = Bench::new();
    let members = bench.stable(&[fixed("a"), older("")]);
    assert_eq!(code(&bench.leave("", Some("nobody"))), "unknown_member");
    assert_eq!(code(&bench.leave("", None)), "unknown_member");
    assert_eq!(code(&bench.leave("nobody", None)), "unknown_member");
    assert_eq!(code(&bench.leave("", Some("a"))), "ok");
    assert_eq!(bench.heartbeat(&members[1]), "rebalance_in_progress");
    assert_eq!(code(&bench.leave(&members[1].member_id, None)), "ok");
    assert_eq!(bench.group.state(), GroupState::Empty);
    let (record, storing) = bench.stores.pop_front().unwrap();
    assert!(matches!(storing, Storing::Empty) && record.members.is_empty());
    assert_eq!((record.generation, record.protocol), (2, None));
    // Generations go on from there.
    let next = bench.stable(&[older("")]);
    assert_eq!(next[0].generation, 3);
}

#[test]
fn an_id_that_was_given_out_can_be_given_back() {
    let mut bench = Bench::new();
    let wait = bench.join(&dynamic(""));
    let Err(BrokerError::MemberIdRequired { member_id }) = bench.answer(wait) else {
        panic!("an id is given first");
    };
    assert_eq!(code(&bench.leave(&member_id, None)), "ok");
    assert!(bench.group.is_vacant());
}

#[test]
fn who_sends_a_second_join_has_its_first_answered() {
    let mut bench = Bench::new();
    let members = bench.stable(&[older(""), older("")]);
    let first = bench.join(&again(&members[0]));
    let second = bench.join(&again(&members[0]));
    assert_eq!(code(&bench.answer(first)), "rebalance_in_progress");
    assert!(!bench.joined.contains_key(&second));
}

#[test]
fn offsets_are_committed_by_members_of_this_generation_and_by_others_only_where_there_are_none() {
    let simple = GroupMember {
        group: "g".into(),
        generation: -1,
        ..GroupMember::default()
    };
    let mut bench = Bench::new();
    assert_eq!(bench.commit(&simple), "ok");
    let wait = bench.join(&older(""));
    assert_eq!(bench.commit(&simple), "unknown_member");
    bench.pass(3_000);
    let one = bench.answer(wait).unwrap();
    assert_eq!(bench.commit(&member(&one)), "rebalance_in_progress");
    bench.settle(std::slice::from_ref(&one));
    assert_eq!(bench.commit(&member(&one)), "ok");
    let outsider = GroupMember {
        member_id: "somebody".into(),
        ..member(&one)
    };
    assert_eq!(bench.commit(&outsider), "unknown_member");
    for generation in [0, 2, -1] {
        let other = GroupMember {
            generation,
            ..member(&one)
        };
        assert_eq!(bench.commit(&other), "illegal_generation");
    }
    // While the others join again, what was read is still committed; and it counts as a heartbeat.
    bench.join(&older(""));
    for _ in 0..3 {
        bench.pass(SESSION_MS - 1);
        assert_eq!(bench.commit(&member(&one)), "ok");
    }
    assert_eq!(code(&bench.leave(&one.member_id, None)), "ok");
    assert_eq!(bench.commit(&member(&one)), "unknown_member");
}

#[test]
fn a_stable_group_is_found_again_as_it_was() {
    let mut bench = Bench::new();
    let members = bench.stable(&[fixed("a"), older("")]);
    let record = bench.group.record();
    let record = GroupRecord::decode("g", &record.encode()).unwrap();
    bench.group = Classic::restore("g".into(), GroupSettings::default(), record);
    bench.group.resume(bench.now_ms);
    assert_eq!(bench.group.state(), GroupState::Stable);
    for one in &members {
        assert_eq!(bench.heartbeat(one), "ok");
        let wait = bench.sync(one, &[]);
        assert_eq!(bench.assignment(wait).unwrap(), one.member_id);
        assert_eq!(bench.commit(&member(one)), "ok");
    }
    assert!(bench.stores.is_empty());
    // Silence counts again.
    bench.pass(2 * SESSION_MS);
    assert_eq!(bench.group.state(), GroupState::Empty);
    assert!(bench.heartbeat(&members[0]) == "unknown_member");
}

#[test]
fn a_description_shows_what_members_have_once_the_group_is_stable() {
    let mut bench = Bench::new();
    let wait = bench.join(&older(""));
    let described = bench.group.describe();
    assert_eq!(described.state.to_string(), "PreparingRebalance");
    assert_eq!(
        (described.members.len(), described.protocol.as_str()),
        (1, "")
    );
    bench.pass(3_000);
    let joined = bench.answer(wait).unwrap();
    bench.settle(std::slice::from_ref(&joined));
    let described = bench.group.describe();
    let one = &described.members[0];
    assert_eq!(described.protocol, "range");
    assert_eq!(
        (&one.metadata[..], &one.client_host[..]),
        (&b"range's"[..], "/127.0.0.1")
    );
    assert_eq!(one.assignment, joined.member_id);
}

#[test]
fn a_storm_of_a_hundred_members_settles() {
    let mut bench = Bench::new();
    let mut ids = Vec::new();
    for _ in 0..100 {
        let wait = bench.join(&dynamic(""));
        let Err(BrokerError::MemberIdRequired { member_id }) = bench.answer(wait) else {
            panic!("an id is given first");
        };
        ids.push(member_id);
    }
    let waits: Vec<_> = ids.iter().map(|id| bench.join(&dynamic(id))).collect();
    bench.pass(2 * 3_000);
    let joined: Vec<_> = waits
        .into_iter()
        .map(|wait| bench.answer(wait).unwrap())
        .collect();
    assert!(joined.iter().all(|one| one.generation == 1));
    bench.settle(&joined);
    // Half of them go at once, the others join again, once.
    for one in joined.iter().skip(1).step_by(2) {
        bench.leave(&one.member_id, None).unwrap();
    }
    let rest: Vec<_> = joined.iter().step_by(2).collect();
    let waits: Vec<_> = rest.iter().map(|one| bench.join(&again(one))).collect();
    let joined: Vec<_> = waits
        .into_iter()
        .map(|wait| bench.answer(wait).unwrap())
        .collect();
    assert!(joined.iter().all(|one| one.generation == 2));
    bench.settle(&joined);
    assert_eq!(bench.group.describe().members.len(), 50);
}
