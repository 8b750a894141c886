//! What clients know beyond any crash: what they were told and what they have read. All of it must stay true.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use mainstem_broker::{Broker, BrokerError, Caller, ProducerIdentity};
use mainstem_engine::{Committed, EngineError, Snapshot, Submission};
use mainstem_log::{LogError, PartitionId, TopicId};
use mainstem_store::StoreError;
use rand::rngs::SmallRng;

use crate::actors::PRODUCERS;
use crate::actors::transactor::TRANSACTORS;
use crate::clock::Clock;
use crate::coverage::met;
use crate::disk::Control;
use crate::groups::{self, Groups};
use crate::note;
use crate::rules::Rules;
use crate::trace::Trace;
use crate::views::Views;

/// Everybody's knowledge.
pub type SharedWorld = Rc<RefCell<World>>;

/// A shortage of space was answered with a refusal.
pub const REFUSED_FULL: &str = "writes refused for want of space";

/// See the module.
pub struct World {
    /// What happened.
    pub trace: Arc<Trace>,
    /// The disk's side.
    pub control: Arc<Control>,
    /// What frames must keep to.
    pub rules: Rc<Rules>,
    /// Calls that clients have made.
    pub operations: u64,
    /// The run comes to its end: finish what you have begun.
    pub stopping: bool,
    /// The node is being stopped.
    pub closing: bool,
    /// Space has been short in this life.
    pub squeezed: bool,
    /// Writes were refused for want of space, and none has been taken since.
    pub refused_full: bool,
    /// The power goes in this moment: somebody has just seen what would be lost if it were told too early.
    pub power_goes: bool,
    /// Idempotent producers.
    pub producers: Vec<Producer>,
    /// Those of them that have nothing left to send.
    pub finished: usize,
    /// Transactional producers.
    pub transactors: Vec<Transactor>,
    /// Those of them that have nothing open any more.
    pub transactors_finished: usize,
    /// Every transaction there was, by its number.
    pub transactions: BTreeMap<u64, Transaction>,
    /// Consumer groups and their members.
    pub groups: Groups,
    /// The topics that stay, by name.
    pub topics: BTreeMap<&'static str, TopicId>,
    /// The topics that come and go.
    pub churned: BTreeMap<&'static str, Churned>,
    /// Highest acknowledged value of each register.
    pub registers: BTreeMap<u32, i64>,
    /// Furthest acknowledged input offset of each task.
    pub tasks: BTreeMap<u32, i64>,
    /// What the journal's history says of log and store, as far as it was needed.
    pub views: Views,
    seen: BTreeMap<PartitionId, Seen>,
}

/// What was acknowledged or read of a partition and not yet compared with the history.
#[derive(Default)]
struct Seen {
    records: BTreeMap<i64, u64>,
    start: i64,
    end: i64,
}

/// An idempotent producer.
#[derive(Default)]
pub struct Producer {
    /// Who it is.
    pub identity: Option<ProducerIdentity>,
    /// The next sequence on each partition.
    pub next_sequence: BTreeMap<(&'static str, u32), i32>,
    /// Sent and not acknowledged: sent again, unchanged and in order, until it is.
    pub pending: VecDeque<Pending>,
    /// Values made so far.
    pub sent: u64,
    /// Who it was before it began anew with a higher epoch.
    pub zombie: Option<Zombie>,
}

/// A batch without an answer.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Tells it from others of the same producer.
    pub number: u64,
    /// Where to.
    pub topic: &'static str,
    /// Where to.
    pub partition: u32,
    /// Its first sequence.
    pub sequence: i32,
    /// Its records.
    pub values: Vec<String>,
    /// Their time.
    pub timestamp_ms: i64,
}

/// A producer that does not know that it was replaced.
#[derive(Clone)]
pub struct Zombie {
    /// Who it thinks it is.
    pub identity: ProducerIdentity,
    /// The next sequence on each partition.
    pub next_sequence: BTreeMap<(&'static str, u32), i32>,
    /// What it had not heard of.
    pub pending: VecDeque<Pending>,
}

/// A transactional producer.
#[derive(Default)]
pub struct Transactor {
    /// Who it believes to be.
    pub identity: Option<ProducerIdentity>,
    /// The next sequence on each partition.
    pub sequences: BTreeMap<(&'static str, u32), i32>,
    /// The number of its open transaction.
    pub open: Option<u64>,
    /// It is in the middle of a call.
    pub busy: bool,
    /// That call is a commit.
    pub committing: bool,
}

impl Transactor {
    /// It asks for its next life; what it has open is for others to end.
    pub fn begin_anew(&mut self) {
        self.identity = None;
        self.sequences.clear();
        self.open = None;
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its commit was never asked for.
    Aborted,
    /// Its commit was asked for, and not answered.
    Unknown,
    /// Its commit was answered.
    Committed,
}

/// A transaction, as its producer knows it.
#[derive(Debug)]
pub struct Transaction {
    /// Whose.
    pub of: usize,
    /// Records whose place was told.
    pub written: Vec<(PartitionId, i64)>,
    /// Whether an offset goes with it: its number.
    pub offset: bool,
    /// What became of it.
    pub fate: Fate,
}

impl Transaction {
    /// One that begins.
    pub fn new(of: usize) -> Transaction {
        Transaction {
            of,
            written: Vec::new(),
            offset: false,
            fate: Fate::Aborted,
        }
    }
}

/// A topic that comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Churned {
    /// It is not there.
    #[default]
    Gone,
    /// It is there, with so many partitions at least.
    There(TopicId, u32),
    /// A crash came before the answer: this one, or none, or if none is named any.
    Unknown(Option<TopicId>),
}

/// What a client does after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Tries again later.
    Retry,
    /// The node is of no use any more.
    Over,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(control: Arc<Control>, groups: Groups) -> World {
        World {
            trace: control.trace.clone(),
            control,
            rules: Rc::default(),
            operations: 0,
            stopping: false,
            closing: false,
            squeezed: false,
            refused_full: false,
            power_goes: false,
            producers: (0..PRODUCERS).map(|_| Producer::default()).collect(),
            finished: 0,
            transactors: (0..TRANSACTORS).map(|_| Transactor::default()).collect(),
            transactors_finished: 0,
            transactions: BTreeMap::new(),
            groups,
            topics: BTreeMap::new(),
            churned: BTreeMap::new(),
            registers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            views: Views::default(),
            seen: BTreeMap::new(),
        }
    }

    /// Whether nobody writes any more to what stays.
    pub fn is_quiet(&self) -> bool {
        self.finished == PRODUCERS && self.transactors_finished == TRANSACTORS
    }

    /// The log's name of a partition of a topic that stays.
    pub fn partition(&self, topic: &str, index: u32) -> PartitionId {
        PartitionId::new(self.topics[topic], index)
    }

    /// Somebody was told, or has read, that this record stands there.
    pub fn see(&mut self, partition: PartitionId, offset: i64, record: u64) {
        let seen = self.seen.entry(partition).or_default();
        let known = *seen.records.entry(offset).or_insert(record);
        assert_eq!(
            known, record,
            "{partition} at {offset} named another record a moment ago"
        );
    }

    /// Somebody was told that everything up to `end` is there.
    pub fn see_end(&mut self, partition: PartitionId, end: i64) {
        let seen = self.seen.entry(partition).or_default();
        seen.end = seen.end.max(end);
    }

    /// Somebody was told that nothing is there any more below `start`.
    pub fn see_start(&mut self, partition: PartitionId, start: i64) {
        let seen = self.seen.entry(partition).or_default();
        seen.start = seen.start.max(start);
    }

    /// Brings the views of the history up to `lsn`, which somebody has been shown.
    pub fn look_at(&mut self, lsn: u64) {
        let control = self.control.clone();
        let mut history = control.history.lock();
        history.shown(lsn);
        self.views.apply_to(lsn, &history, &self.rules);
    }

    /// Compares log and store at one moment with the history. Fails only where the disk does.
    pub fn compare_snapshot(
        &mut self,
        snapshot: &Snapshot,
        max_bytes: usize,
    ) -> Result<(), EngineError> {
        self.look_at(snapshot.lsn.0);
        self.views
            .compare_snapshot(&snapshot.log, &*snapshot.store, max_bytes)
    }

    /// Compares everything that was told or read since the last time with what the node holds now.
    pub fn verify(&mut self) {
        let views = &self.views;
        for (id, seen) in std::mem::take(&mut self.seen) {
            let part = views.partitions.get(&id);
            let part = part.unwrap_or_else(|| panic!("{id} was shown, but nothing is known of it"));
            for (offset, record) in seen.records {
                let found = part.records.get(offset as usize).map(|found| found.hash);
                assert_eq!(
                    found,
                    Some(record),
                    "{id} at {offset}: acknowledged or read before, and now another record, or none"
                );
            }
            assert!(
                seen.end <= part.end(),
                "{id}: {} records were shown, {} are there",
                seen.end,
                part.end()
            );
            assert!(
                seen.start <= part.start,
                "{id}: nothing was to be left below {}, now it begins at {}",
                seen.start,
                part.start
            );
        }
        let stored = |key| {
            let value = views.store.get(&(mainstem_store::Family::Offsets, key));
            crate::rules::number(value)
        };
        for (register, acknowledged) in &self.registers {
            let found = stored(crate::rules::register(*register));
            assert!(
                found >= *acknowledged,
                "register {register} was {acknowledged}, now it is {found}"
            );
        }
        self.verify_transactions();
        self.verify_groups();
        for (task, acknowledged) in &self.tasks {
            let found = stored(crate::rules::task_offset(*task));
            assert!(
                found >= *acknowledged,
                "task {task} had passed {acknowledged}, now {found}"
            );
        }
    }

    /// What groups have committed is what was acknowledged, or newer.
    fn verify_groups(&self) {
        let commits = self.rules.commits.borrow();
        for group in &self.groups.running {
            for (topic, index) in groups::READ {
                let partition = self.partition(topic, index);
                let found = groups::rules::committed(&self.views, *group, partition);
                let one = &self.groups.groups[*group];
                one.check_found(&commits, *group, partition, found.as_ref());
            }
        }
    }

    /// Each transaction is there whole, with its offset, or not at all (G5).
    fn verify_transactions(&self) {
        let views = &self.views;
        let input = self.partition(crate::actors::INPUT, 0);
        let offsets: Vec<u64> = (0..TRANSACTORS)
            .map(|me| {
                let group = crate::actors::transactor::group(me);
                let key = mainstem_broker::keys::group_offset("default", &group, input);
                let value = views.store.get(&(mainstem_store::Family::Offsets, key));
                value.map_or(0, |value| {
                    let offset = mainstem_broker::CommittedOffset::decode(value);
                    offset.expect("an offset of a group").offset as u64
                })
            })
            .collect();
        for (number, transaction) in &self.transactions {
            let fate = |(partition, offset): &(PartitionId, i64)| {
                let part = views.partitions.get(partition);
                part.and_then(|part| part.fates.get(*offset as usize).copied())
            };
            let fates: Vec<_> = transaction.written.iter().map(fate).collect();
            let committed = fates
                .iter()
                .filter(|fate| **fate == Some(crate::views::Fate::Delivered))
                .count();
            match transaction.fate {
                Fate::Committed => assert_eq!(
                    committed,
                    fates.len(),
                    "transaction {number} was committed: {transaction:?}, {fates:?}"
                ),
                Fate::Unknown => assert!(
                    committed == 0 || committed == fates.len(),
                    "transaction {number} is torn: {transaction:?}, {fates:?}"
                ),
                Fate::Aborted => assert_eq!(
                    committed, 0,
                    "transaction {number} was not committed: {transaction:?}, {fates:?}"
                ),
            }
            let offset = offsets[transaction.of];
            let is_committed = committed > 0 || transaction.fate == Fate::Committed;
            assert!(
                !(transaction.offset && is_committed) || offset >= *number,
                "transaction {number} has lost its offset: {offset}"
            );
            if offset == *number {
                let is_possible = transaction.fate != Fate::Aborted;
                assert!(
                    is_possible && committed == fates.len(),
                    "the offset of transaction {number} without its records: {transaction:?}, {fates:?}"
                );
            }
        }
    }

    /// What to do after an error, which must be one that something explains.
    pub fn after(&mut self, error: &BrokerError) -> After {
        note!(self.trace, "    {error}");
        let broken = self.control.has_fired() || self.squeezed;
        match error {
            BrokerError::DiskFull { .. } => {
                assert!(self.squeezed, "there is space, but: {error}");
                met(REFUSED_FULL);
                self.refused_full = true;
                After::Retry
            }
            BrokerError::Contended { .. } => After::Retry,
            BrokerError::Closed => {
                assert!(broken || self.closing, "nothing failed, but: {error}");
                After::Over
            }
            BrokerError::WritesStopped { .. } => {
                assert!(broken, "nothing failed, but: {error}");
                After::Over
            }
            BrokerError::Engine(engine) if is_io(engine) => {
                assert!(broken, "nothing failed, but: {error}");
                After::Retry
            }
            other => panic!("an error that nothing explains: {other}"),
        }
    }
}

fn is_io(error: &EngineError) -> bool {
    match error {
        EngineError::Log(error) => matches!(**error, LogError::Io { .. }),
        EngineError::Store(error) => matches!(**error, StoreError::Backend { .. }),
        _ => false,
    }
}

/// What every actor has: the node of this life, and what outlives it.
pub struct Client {
    /// The node.
    pub broker: Broker,
    /// Who asks.
    pub caller: Caller,
    /// What everybody knows.
    pub world: SharedWorld,
    /// What time it is.
    pub clock: Clock,
    /// This actor's own choices.
    pub rng: SmallRng,
}

impl Client {
    /// Begins an operation.
    pub fn operation(&self) {
        self.world.borrow_mut().operations += 1;
    }

    /// Whether the run comes to its end.
    pub fn is_stopping(&self) -> bool {
        self.world.borrow().stopping
    }

    /// See [`World::after`].
    pub fn after(&self, error: &BrokerError) -> After {
        self.world.borrow_mut().after(error)
    }

    /// Hands a submission to the engine and waits for its answer.
    pub async fn submit(&self, submission: Submission) -> Result<Committed, EngineError> {
        let engine = self.broker.engine();
        let reserved = engine.reserve_with_store(submission.size_bytes(), submission.store_bytes());
        let permit = reserved.await?;
        engine.submit(submission, permit).await
    }
}
