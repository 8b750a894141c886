//! Consumer groups: what their members know beyond any crash, what was sent and answered, and what must hold of it.
//!
//! Each run has two groups, one of either protocol, whose members commit plainly or with transactions. They read topics of
//! which nothing is ever deleted. Every commit has a number, in the order of sending, and carries it as its metadata: so the
//! journal says which commit a frame holds ([`rules`]).

pub mod record;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};

use mainstem_broker::{
    Broker, BrokerError, Caller, CommittedOffset, GroupMember, GroupSettings, JOIN_EPOCH,
    SyncGroup, TransactionalProducer,
};
use mainstem_log::PartitionId;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::actors::{INPUT, LEDGER};
use crate::coverage::met;
use crate::views::Views;
use record::Kept;

/// Every group there may be: of the classic protocol, of the consumer protocol, and both once more with transactions.
pub const NAMES: [&str; 4] = ["classic", "consumer", "exact-classic", "exact-consumer"];
/// Whose they are.
pub const TENANT: &str = "default";
/// Members of each group.
pub const MEMBERS: usize = 3;
/// What they read: topic and partition.
pub const READ: [(&str, u32); 5] = [
    (INPUT, 0),
    (INPUT, 1),
    (LEDGER, 0),
    (LEDGER, 1),
    (LEDGER, 2),
];

/// A member that is silent for so long is removed.
pub const SESSION_MS: i64 = 1_500;
/// How often a member is heard.
pub const HEARTBEAT_MS: i64 = 100;
/// How long a member may take to join again, or to give partitions up.
pub const REBALANCE_MS: i64 = 1_000;

/// A crash came while a commit was under way.
pub const CRASHED: &str = "crash while a commit of a group is under way";
/// A group was found after a restart as its record says.
pub const FOUND: &str = "groups found after a restart as they were";

/// Whether the broker assigns (KIP-848).
pub fn is_consumer(group: usize) -> bool {
    group % 2 == 1
}

/// Whether its members commit with transactions, so that each record counts once.
pub fn is_exact(group: usize) -> bool {
    group >= 2
}

/// What was asked for, with the number of its place in the list, from 1 on.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Whose.
    pub group: usize,
    /// What.
    pub kind: Kind,
    /// Who asks: the member's id.
    pub member: String,
    /// Its generation or epoch.
    pub epoch: i32,
    /// For each partition, from where on the member has read, and the offset that it commits.
    pub offsets: BTreeMap<PartitionId, (i64, i64)>,
    /// What it has heard.
    pub fate: Fate,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// That offsets are committed.
    Plain,
    /// That they are with the transaction of that number.
    InTransaction(u64),
    /// That they are deleted, perhaps with the whole group.
    Deletion {
        /// With the group.
        whole: bool,
    },
}

/// What was heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Sent,
    /// That it is done.
    Acknowledged,
    /// That it is not.
    Refused,
}

/// The number of the commit that an offset comes from.
pub fn number_of(committed: &CommittedOffset) -> usize {
    committed.metadata.parse().expect("the workload's own")
}

/// All that is known of groups.
#[derive(Default)]
pub struct Groups {
    /// By number of the group.
    pub groups: [Group; NAMES.len()],
    /// Those that there are in this run.
    pub running: Vec<usize>,
    /// Members, [`MEMBERS`] of each group after the other.
    pub members: Vec<Member>,
    /// Processes that were taken for dead and go on.
    pub zombies: Vec<Zombie>,
    /// Members that have nothing left to do.
    pub finished: usize,
    transactions: u64,
}

/// One group.
#[derive(Default)]
pub struct Group {
    /// An administrator wants it empty.
    pub closed: bool,
    /// All is read and committed, and nothing comes any more.
    pub done: bool,
    /// How often it may have been removed: its generations and epochs begin anew then.
    era: u32,
    /// The newest generation or epoch that anybody was told, by era.
    newest: BTreeMap<u32, i32>,
    /// Of the classic protocol: who has a partition in a generation of an era.
    owners: BTreeMap<(u32, i32, PartitionId), String>,
    /// Of the consumer protocol: which member reads a partition, as far as it knows.
    pub readers: BTreeMap<PartitionId, usize>,
    /// Records that were given to somebody: where ranges begin and end.
    delivered: BTreeMap<PartitionId, BTreeMap<i64, i64>>,
    /// The newest commit or deletion of each partition that was acknowledged.
    acknowledged: BTreeMap<PartitionId, usize>,
}

/// A member: one process after the other.
#[derive(Default)]
pub struct Member {
    /// Which group's.
    pub group: usize,
    /// Its static name.
    pub name: Option<String>,
    /// Its id; empty where it has none.
    pub id: String,
    /// Where it stands with its group.
    pub stage: Stage,
    /// Its generation or epoch.
    pub epoch: i32,
    /// In which era of its group it has joined.
    pub era: u32,
    /// The partitions that it reads, and how far it has come; `None` where it must look that up.
    pub held: BTreeMap<PartitionId, Option<Place>>,
    /// Which process it is.
    pub life: u32,
    /// Who commits its transactions.
    pub producer: Option<TransactionalProducer>,
    /// A commit is under way.
    pub committing: bool,
    /// When it is heard next.
    pub next_beat_ms: i64,
    /// Of the consumer protocol.
    pub balance: Balance,
}

/// Where a member of the classic protocol stands.
#[derive(Clone, Debug, Default)]
pub enum Stage {
    /// It is to join.
    #[default]
    Out,
    /// It is to ask for its assignment.
    Joined(SyncGroup),
    /// It reads.
    In,
}

/// How far a member has come in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is committed.
    pub committed: i64,
    /// What it reads next.
    pub next: i64,
}

/// What a member of the consumer protocol knows of its partitions, and what its broker knows of it.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// It names its topics by a pattern.
    pub reads_by_pattern: bool,
    /// How it would have partitions shared out.
    pub assignor: Option<&'static str>,
    /// What the broker knows that it has.
    pub reported: Option<BTreeSet<PartitionId>>,
    /// What it is to have.
    pub told: Option<BTreeSet<PartitionId>>,
    /// Until then it is busy with what it must give up.
    pub busy_until_ms: i64,
    /// No answer was lost since it last said everything: it leaves out what is as it was.
    pub is_in_step: bool,
    /// When the heartbeat under way was sent.
    pub sent_ms: Option<i64>,
    /// When the last one was sent that was answered.
    pub heard_ms: i64,
    /// When the first one was sent whose answer it does not know.
    pub unsure_since_ms: Option<i64>,
    /// Until when it must have given up what it must.
    pub revoke_by_ms: Option<i64>,
}

/// A process that was taken for dead, and commits what it had read.
#[derive(Clone, Debug)]
pub struct Zombie {
    /// Which group's.
    pub group: usize,
    /// Who it thinks it is.
    pub member: GroupMember,
    /// Who commits its transactions.
    pub producer: Option<TransactionalProducer>,
    /// From where and to where it had read.
    pub offsets: BTreeMap<PartitionId, (i64, i64)>,
}

impl Member {
    /// As it names itself to its group.
    pub fn identity(&self) -> GroupMember {
        GroupMember {
            group: NAMES[self.group].into(),
            member_id: self.id.clone(),
            instance_id: self.name.clone(),
            generation: self.epoch,
        }
    }

    /// What it has read and not committed.
    pub fn uncommitted(&self) -> BTreeMap<PartitionId, (i64, i64)> {
        let read = |(id, place): (&PartitionId, &Option<Place>)| {
            let place = place.filter(|place| place.next > place.committed)?;
            Some((*id, (place.committed, place.next)))
        };
        self.held.iter().filter_map(read).collect()
    }

    /// It does not know any more what became of its transaction: it begins anew, from what is committed.
    pub fn rewind(&mut self) {
        self.producer = None;
        self.held.values_mut().for_each(|place| *place = None);
    }

    /// Another process takes its place.
    pub fn begin_anew(&mut self) {
        self.life += 1;
        self.id.clear();
        self.stage = Stage::Out;
        self.producer = None;
        self.leaves_group();
    }

    /// It is no member any more, and knows it.
    pub fn leaves_group(&mut self) {
        self.held.clear();
        self.epoch = match is_consumer(self.group) {
            true => JOIN_EPOCH,
            false => -1,
        };
        self.balance = Balance::default();
    }

    /// Whether the broker must take it for a member that may have what it has.
    pub fn is_sure(&self, now_ms: i64) -> bool {
        let balance = &self.balance;
        let unsure_since_ms = balance.unsure_since_ms.or(balance.sent_ms);
        let unsure_ms = unsure_since_ms.map(|at_ms| at_ms + REBALANCE_MS);
        let until_ms = [unsure_ms, balance.revoke_by_ms].into_iter().flatten();
        until_ms.fold(balance.heard_ms + SESSION_MS, i64::min) > now_ms
    }

    /// What it reads.
    pub fn owned(&self) -> BTreeSet<PartitionId> {
        self.held.keys().copied().collect()
    }
}

impl Balance {
    /// The answer to what was sent then does not come any more.
    pub fn loses_answer(&mut self, sent_ms: i64) {
        self.is_in_step = false;
        self.unsure_since_ms.get_or_insert(sent_ms);
    }
}

impl Groups {
    /// Groups that nobody has joined, two of them chosen for this run.
    pub fn new(rng: &mut SmallRng) -> Groups {
        let exact = [rng.random_bool(0.4), rng.random_bool(0.4)];
        let member = |index: usize| Member {
            group: index / MEMBERS,
            name: index
                .is_multiple_of(MEMBERS)
                .then(|| format!("static-{index}")),
            epoch: match is_consumer(index / MEMBERS) {
                true => JOIN_EPOCH,
                false => -1,
            },
            ..Member::default()
        };
        Groups {
            running: vec![2 * usize::from(exact[0]), 1 + 2 * usize::from(exact[1])],
            members: (0..NAMES.len() * MEMBERS).map(member).collect(),
            ..Groups::default()
        }
    }

    /// The node comes back: what was under way is lost.
    pub fn begin_life(&mut self) {
        self.finished = 0;
        for member in &mut self.members {
            if std::mem::take(&mut member.committing) {
                met(CRASHED);
                if is_exact(member.group) {
                    member.rewind();
                }
            }
            if let Some(sent_ms) = member.balance.sent_ms.take() {
                member.balance.loses_answer(sent_ms);
            }
        }
        for group in &mut self.groups {
            group.closed = false;
        }
    }

    /// The member is about to join: it belongs to this era of its group from now on.
    pub fn joins(&mut self, me: usize) {
        self.members[me].era = self.of(me).era;
    }

    /// Whether no member has anything left to do.
    pub fn are_done(&self) -> bool {
        self.finished == self.running.len() * MEMBERS
    }

    /// The group of a member.
    pub fn of(&mut self, me: usize) -> &mut Group {
        &mut self.groups[self.members[me].group]
    }

    /// A new number for a transaction.
    pub fn next_transaction(&mut self) -> u64 {
        self.transactions += 1;
        self.transactions
    }

    /// The member's process is gone. What it has read it may still commit, as long as its group takes it for a member.
    pub fn dies(&mut self, me: usize) {
        let member = &self.members[me];
        let zombie = Zombie {
            group: member.group,
            member: member.identity(),
            producer: member.producer.clone(),
            offsets: member.uncommitted(),
        };
        // Whether its last commit holds it would have to ask first.
        if !zombie.offsets.is_empty() && !member.committing {
            self.zombies.push(zombie);
        }
        self.gives_up_all(me);
        self.members[me].begin_anew();
    }

    /// It reads nothing any more.
    pub fn gives_up_all(&mut self, me: usize) {
        self.of(me).readers.retain(|_, reader| *reader != me);
        self.members[me].leaves_group();
    }
}

impl Group {
    /// The newest generation or epoch that anybody was told in an era.
    pub fn newest(&self, era: u32) -> i32 {
        self.newest.get(&era).copied().unwrap_or(0)
    }

    /// Somebody was told of a generation or epoch.
    pub fn told(&mut self, era: u32, epoch: i32) {
        let newest = self.newest.entry(era).or_default();
        *newest = epoch.max(*newest);
    }

    /// A member was told that these partitions are its own in a generation.
    pub fn assigned(&mut self, era: u32, generation: i32, who: &str, partitions: &[PartitionId]) {
        let newest = self.newest(era);
        assert!(
            generation >= newest,
            "{who} is assigned {partitions:?} in generation {generation} after {newest}"
        );
        self.told(era, generation);
        for partition in partitions {
            let owner = self.owners.entry((era, generation, *partition));
            let owner = owner.or_insert_with(|| who.to_owned());
            assert_eq!(owner, who, "{partition} has two owners in {generation}");
        }
    }

    /// An administrator is about to remove it.
    pub fn begin_era(&mut self) {
        self.era += 1;
    }

    /// It was refused: nobody has seen the era.
    pub fn take_era_back(&mut self) {
        self.era -= 1;
    }

    /// Records up to `to` were given to somebody.
    pub fn deliver(&mut self, partition: PartitionId, mut from: i64, mut to: i64) {
        let ranges = self.delivered.entry(partition).or_default();
        while let Some((begin, end)) = ranges.range(..=to).next_back().map(|(at, end)| (*at, *end))
        {
            if end < from {
                break;
            }
            (from, to) = (from.min(begin), to.max(end));
            ranges.remove(&begin);
        }
        ranges.insert(from, to);
    }

    /// Up to where every record was given to somebody.
    fn delivered(&self, partition: PartitionId) -> i64 {
        let ranges = self.delivered.get(&partition);
        ranges
            .and_then(|ranges| ranges.get(&0))
            .copied()
            .unwrap_or(0)
    }

    /// A commit or deletion of that number was acknowledged.
    pub fn acknowledged(&mut self, number: usize, commit: &Commit) {
        for partition in commit.offsets.keys() {
            let known = self.acknowledged.entry(*partition).or_default();
            *known = number.max(*known);
        }
    }

    /// What is found to be committed must be what was acknowledged last, or something newer; and everything below was given
    /// to somebody.
    pub fn check_found(
        &self,
        commits: &[Commit],
        group: usize,
        partition: PartitionId,
        found: Option<&CommittedOffset>,
    ) {
        let known = self.acknowledged.get(&partition).copied().unwrap_or(0);
        let number = found.map_or(0, number_of);
        let offset = found.map_or(0, |found| found.offset);
        let name = NAMES[group];
        let before = known.checked_sub(1).map(|index| &commits[index]);
        if is_exact(group) {
            let acknowledged = before.map_or(0, |commit| commit.offsets[&partition].1);
            assert!(
                offset >= acknowledged,
                "{name}, {partition}: {acknowledged} was committed, {found:?} is there"
            );
        } else if number < known {
            let deletes = |commit: &Commit| {
                commit.group == group
                    && matches!(commit.kind, Kind::Deletion { .. })
                    && commit.fate != Fate::Refused
                    && commit.offsets.contains_key(&partition)
            };
            assert!(
                number == 0 && commits[known - 1..].iter().any(deletes),
                "{name}, {partition}: {before:?} was acknowledged, {found:?} is there"
            );
        }
        let delivered = self.delivered(partition);
        assert!(
            offset <= delivered,
            "{name}, {partition}: {offset} is committed, records up to {delivered} were given to somebody"
        );
    }

    /// Whether everything up to `end` was given to somebody.
    pub fn has_delivered(&self, partition: PartitionId, end: i64) -> bool {
        self.delivered(partition) >= end
    }
}

/// How groups are set up: quick, so that a run meets all that takes time.
pub fn settings() -> GroupSettings {
    GroupSettings {
        initial_rebalance_delay_ms: 20,
        min_session_timeout_ms: 1,
        consumer_session_timeout_ms: SESSION_MS,
        consumer_heartbeat_interval_ms: HEARTBEAT_MS,
        ..GroupSettings::default()
    }
}

/// A restart must find each group as its record says.
pub fn compare(views: &Views, broker: &Broker, caller: &Caller, running: &[usize]) {
    for group in running {
        let (group, name) = (*group, NAMES[*group]);
        let kept = rules::record(views, group);
        let described = match is_consumer(group) {
            false => broker.describe_group(caller, name).map(|found| {
                let member = |one: mainstem_broker::MemberDescription| {
                    (one.member_id, (one.instance_id, found.generation))
                };
                (
                    found.generation,
                    found.members.into_iter().map(member).collect(),
                )
            }),
            true => broker.describe_consumer_group(caller, name).map(|found| {
                let member = |one: mainstem_broker::ConsumerMemberDescription| {
                    (one.member_id, (one.instance_id, one.epoch))
                };
                (found.epoch, found.members.into_iter().map(member).collect())
            }),
        };
        let expected = kept.map(|kept: Kept| {
            let generation = kept.epoch;
            let member = |(id, one): (String, record::KeptMember)| {
                (
                    id,
                    (
                        one.name,
                        if kept.is_consumer {
                            one.epoch
                        } else {
                            generation
                        },
                    ),
                )
            };
            let members: BTreeMap<_, _> = kept.members.into_iter().map(member).collect();
            (generation, members)
        });
        match (expected, described) {
            (None, Err(BrokerError::GroupNotFound { .. })) => {}
            (Some(expected), Ok(described)) => {
                assert_eq!(described, expected, "group {name} after a restart");
                met(FOUND);
            }
            (expected, described) => {
                panic!("group {name} after a restart is {described:?}, its record {expected:?}")
            }
        }
    }
}
