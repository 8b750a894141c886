//! Committing what a member has read: plainly, or with a transaction.

use std::collections::BTreeMap;

use mainstem_broker::{
    BrokerError, CommittedOffset, GroupCommit, GroupMember, OffsetCommit, TransactionCommit,
    TransactionalProducer,
};
use mainstem_log::PartitionId;
use rand::Rng;

use super::topic_of;
use crate::clock::within;
use crate::coverage::met;
use crate::groups::{self, Commit, Fate, Kind, NAMES};
use crate::note;
use crate::world::Client;

/// A commit was acknowledged.
pub const COMMITTED: &str = "offsets of groups committed";
/// A commit with a transaction was acknowledged.
pub const COMMITTED_WITH_TRANSACTION: &str = "offsets of groups committed with a transaction";
/// A commit under an old generation or epoch was refused.
pub const REPLACED: &str = "commits of a replaced generation or epoch refused";
/// An offset was asked for that a transaction may change.
pub const UNSTABLE: &str = "offsets of groups that wait for a transaction's end";

const TRANSACTION_TIMEOUT_MS: i64 = 1_000;

/// What a commit says: from where on was read, and up to where.
type Offsets = BTreeMap<PartitionId, (i64, i64)>;
type Outcome = Result<Vec<Result<(), BrokerError>>, BrokerError>;

/// What the group has committed; the outer `None` says that a transaction must end first.
pub fn committed(
    client: &Client,
    group: usize,
    partition: PartitionId,
) -> Result<Option<Option<CommittedOffset>>, BrokerError> {
    let topic = topic_of(&client.world.borrow(), partition);
    let (broker, caller, name) = (&client.broker, &client.caller, NAMES[group]);
    // First: what ends in between is then among the offsets.
    let unstable = match groups::is_exact(group) {
        true => broker.unstable_offsets(caller, name)?,
        false => Vec::new(),
    };
    let found = broker.fetch_offsets(caller, name, topic, &[partition.index])?;
    if unstable.contains(&(topic.to_owned(), partition.index)) {
        met(UNSTABLE);
        return Ok(None);
    }
    Ok(Some(found.into_iter().next().flatten()))
}

/// Notes a commit that is about to be sent: its number.
pub fn note_commit(client: &Client, commit: Commit) -> usize {
    let world = client.world.borrow();
    let mut commits = world.rules.commits.borrow_mut();
    commits.push(commit);
    let number = commits.len();
    note!(
        world.trace,
        "    commit {number}: {:?}",
        commits[number - 1]
    );
    number
}

/// What was heard of a commit.
pub fn heard(client: &Client, number: usize, fate: Fate) {
    let mut world = client.world.borrow_mut();
    let rules = world.rules.clone();
    let mut commits = rules.commits.borrow_mut();
    let commit = &mut commits[number - 1];
    commit.fate = fate;
    note!(world.trace, "    commit {number}: {fate:?}");
    if fate == Fate::Acknowledged && !matches!(commit.kind, Kind::InTransaction(_)) {
        world.groups.groups[commit.group].acknowledged(number, commit);
    }
}

/// What is sent, under its number.
pub fn request(
    client: &Client,
    member: &GroupMember,
    number: usize,
    offsets: &Offsets,
) -> GroupCommit {
    let world = client.world.borrow();
    let offset = |(partition, (_, to)): (&PartitionId, &(i64, i64))| OffsetCommit {
        topic: topic_of(&world, *partition).into(),
        partition: partition.index,
        offset: *to,
        metadata: number.to_string(),
        ..OffsetCommit::default()
    };
    GroupCommit {
        member: member.clone(),
        knows_epochs: true,
        offsets: offsets.iter().map(offset).collect(),
    }
}

/// Sends a plain commit; whether it was answered within so long.
pub async fn send(
    client: &Client,
    group: usize,
    member: &GroupMember,
    offsets: &Offsets,
    patience_ms: i64,
) -> Result<bool, BrokerError> {
    let commit = Commit {
        group,
        kind: Kind::Plain,
        member: member.member_id.clone(),
        epoch: member.generation,
        offsets: offsets.clone(),
        fate: Fate::Sent,
    };
    let number = note_commit(client, commit);
    let request = request(client, member, number, offsets);
    let (broker, caller) = (client.broker.clone(), client.caller.clone());
    let now_ms = client.clock.now_ms();
    let call = Box::pin(async move { broker.commit_offsets(&caller, request, now_ms).await });
    let Some(outcome) = within(&client.clock, patience_ms, call).await else {
        return Ok(false);
    };
    settle(client, number, outcome)?;
    met(COMMITTED);
    for partition in offsets.keys() {
        let found = committed(client, group, *partition)?.flatten();
        assert!(
            found.as_ref().map_or(0, groups::number_of) >= number
                || was_deleted(client, number, *partition),
            "commit {number} is acknowledged, and {found:?} is there"
        );
    }
    Ok(true)
}

fn was_deleted(client: &Client, number: usize, partition: PartitionId) -> bool {
    let world = client.world.borrow();
    let commits = world.rules.commits.borrow();
    commits[number..].iter().any(|commit| {
        matches!(commit.kind, Kind::Deletion { .. }) && commit.offsets.contains_key(&partition)
    })
}

fn settle(client: &Client, number: usize, outcome: Outcome) -> Result<(), BrokerError> {
    let outcome = outcome.and_then(|outcomes| outcomes.into_iter().collect());
    if let Err(error) = &outcome {
        let is_replaced = matches!(
            error,
            BrokerError::IllegalGeneration { .. }
                | BrokerError::StaleEpoch { .. }
                | BrokerError::FencedInstance { .. }
                | BrokerError::UnknownMember { .. }
                | BrokerError::GroupNotFound { .. }
        );
        if is_replaced {
            met(REPLACED);
        }
        if is_replaced || matches!(error, BrokerError::RebalanceInProgress { .. }) {
            heard(client, number, Fate::Refused);
        }
    } else {
        heard(client, number, Fate::Acknowledged);
    }
    outcome
}

/// Commits what the member has read, in some of its partitions.
pub async fn plainly(client: &mut Client, me: usize, group: usize) -> Result<(), BrokerError> {
    let (member, mut offsets) = begin(client, me);
    if !client.is_stopping() {
        let rng = &mut client.rng;
        let kept = rng.random_range(0..offsets.len());
        let kept = offsets.keys().nth(kept).copied();
        offsets.retain(|partition, _| Some(*partition) == kept || rng.random_bool(0.7));
    }
    let patience_ms = match client.rng.random_bool(0.1) {
        true => client.rng.random_range(0..20),
        false => 60_000,
    };
    if send(client, group, &member, &offsets, patience_ms).await? {
        has_committed(client, me, &offsets);
    }
    Ok(())
}

fn begin(client: &Client, me: usize) -> (GroupMember, Offsets) {
    let mut world = client.world.borrow_mut();
    let member = &mut world.groups.members[me];
    member.committing = true;
    (member.identity(), member.uncommitted())
}

fn has_committed(client: &Client, me: usize, offsets: &Offsets) {
    let mut world = client.world.borrow_mut();
    let held = &mut world.groups.members[me].held;
    for (partition, (_, to)) in offsets {
        if let Some(Some(place)) = held.get_mut(partition) {
            place.committed = *to;
        }
    }
}

/// Whether the member has a producer for its transactions; makes one if it has none. Nothing that it has looked up before
/// counts then: what was open is ended by this.
pub async fn has_producer(client: &Client, me: usize) -> Result<bool, BrokerError> {
    let id = {
        let world = client.world.borrow();
        let member = &world.groups.members[me];
        if member.producer.is_some() {
            return Ok(true);
        }
        // Not every process takes over from the one before: that one is fenced by its generation alone.
        format!("member-{me}-{}", member.life % 2)
    };
    let now_ms = client.clock.now_ms();
    let (broker, caller) = (&client.broker, &client.caller);
    let call = broker.init_transactional(caller, &id, TRANSACTION_TIMEOUT_MS, None, now_ms);
    let identity = call.await?;
    let mut world = client.world.borrow_mut();
    let member = &mut world.groups.members[me];
    member.rewind();
    member.producer = Some(TransactionalProducer { id, identity });
    Ok(true)
}

/// Commits all that the member has read with a transaction.
pub async fn with_transaction(
    client: &mut Client,
    me: usize,
    group: usize,
) -> Result<(), BrokerError> {
    let transaction = client.world.borrow_mut().groups.next_transaction();
    let (member, offsets) = begin(client, me);
    let producer = client.world.borrow().groups.members[me].producer.clone();
    let Some(producer) = producer else {
        return Ok(());
    };
    let sent = Transaction {
        number: transaction,
        group,
        adds_group: me.is_multiple_of(2),
        producer,
        member,
        offsets,
    };
    let number = sent.commit_offsets(client).await?;
    if !client.is_stopping() {
        let pause_ms = match client.rng.random_range(0..40) {
            0 => {
                // Others may go on with it.
                let mut world = client.world.borrow_mut();
                world.groups.members[me].committing = false;
                world.groups.dies(me);
                return Ok(());
            }
            1 => client.rng.random_range(100..2 * groups::SESSION_MS),
            _ => client.rng.random_range(0..40),
        };
        client.clock.sleep(pause_ms).await;
    }
    let commits = client.is_stopping() || client.rng.random_bool(0.85);
    let next = sent.end(client, number, commits).await?;
    let mut world = client.world.borrow_mut();
    let member = &mut world.groups.members[me];
    match commits {
        true => {
            member.producer = Some(next);
            drop(world);
            has_committed(client, me, &sent.offsets);
        }
        false => {
            member.rewind();
            member.producer = Some(next);
        }
    }
    Ok(())
}

/// A transaction that commits offsets.
pub struct Transaction {
    pub number: u64,
    pub group: usize,
    pub adds_group: bool,
    pub producer: TransactionalProducer,
    pub member: GroupMember,
    pub offsets: Offsets,
}

impl Transaction {
    /// Brings the offsets into the transaction, and sends them again where no answer comes: the number of what was answered.
    pub async fn commit_offsets(&self, client: &mut Client) -> Result<usize, BrokerError> {
        let (broker, caller) = (client.broker.clone(), client.caller.clone());
        if !self.adds_group {
            let now_ms = client.clock.now_ms();
            let call = broker.add_offsets(&caller, &self.producer, NAMES[self.group], now_ms);
            call.await?;
        }
        loop {
            let commit = Commit {
                group: self.group,
                kind: Kind::InTransaction(self.number),
                member: self.member.member_id.clone(),
                epoch: self.member.generation,
                offsets: self.offsets.clone(),
                fate: Fate::Sent,
            };
            let number = note_commit(client, commit);
            let request = TransactionCommit {
                producer: self.producer.clone(),
                adds_group: self.adds_group,
                commit: request(client, &self.member, number, &self.offsets),
            };
            let now_ms = client.clock.now_ms();
            let (broker, caller) = (broker.clone(), caller.clone());
            let call = Box::pin(async move {
                let call = broker.commit_transaction_offsets(&caller, request, now_ms);
                call.await
            });
            let patience_ms = match client.rng.random_bool(0.2) {
                true => client.rng.random_range(0..20),
                false => 60_000,
            };
            if let Some(outcome) = within(&client.clock, patience_ms, call).await {
                settle(client, number, outcome)?;
                return Ok(number);
            }
        }
    }

    /// Ends the transaction: who produces from then on.
    pub async fn end(
        &self,
        client: &Client,
        number: usize,
        commits: bool,
    ) -> Result<TransactionalProducer, BrokerError> {
        let now_ms = client.clock.now_ms();
        let (broker, caller) = (&client.broker, &client.caller);
        let call = broker.end_transaction(caller, &self.producer, commits, self.adds_group, now_ms);
        let identity = call.await?;
        if commits {
            met(COMMITTED_WITH_TRANSACTION);
            let mut world = client.world.borrow_mut();
            let rules = world.rules.clone();
            let commits = rules.commits.borrow();
            world.groups.groups[self.group].acknowledged(number, &commits[number - 1]);
        }
        Ok(TransactionalProducer {
            id: self.producer.id.clone(),
            identity,
        })
    }
}
