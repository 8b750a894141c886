//! What transactional producers call to begin, to name what is part of their transaction, and to end it.

use mainstem_log::PartitionId;

use super::coordinator::{Asked, IdKey};
use super::machine::{Decision, Machine};
use super::types::TransactionalProducer;
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::coordinator::answered;
use crate::produce::no_partition;
use crate::topics::MAX_TRIES;
use crate::{BrokerError, Caller, ProducerIdentity, names};

impl Broker {
    /// The next life of a transactional id: its producer, with an epoch that fences whoever had the id before. That one's
    /// open transaction is aborted, in the same frame. A new producer id when the epochs of the old one are used up.
    ///
    /// `expected` is who the caller believes to be (KIP-360): if somebody else has the id by now, the caller is fenced
    /// ([`BrokerError::ProducerFenced`]), and the same question asked twice has the same answer.
    /// Fails for a timeout of 0 or above `transaction.max.timeout.ms`.
    pub async fn init_transactional(
        &self,
        caller: &Caller,
        id: &str,
        timeout_ms: i64,
        expected: Option<ProducerIdentity>,
        now_ms: i64,
    ) -> Result<ProducerIdentity, BrokerError> {
        let max_ms = self.inner.transactions.settings.max_timeout_ms;
        if !(1..=max_ms).contains(&timeout_ms) {
            return Err(BrokerError::InvalidTransactionTimeout {
                got_ms: timeout_ms,
                max_ms,
            });
        }
        self.change_id(caller, id, now_ms, |machine, new_id| {
            machine.init(timeout_ms, expected, new_id, now_ms)
        })
        .await
    }

    /// Makes partitions part of the producer's transaction, begun if none is open; durable when this returns. The outcomes
    /// are in their order: where one cannot be added, none is, and the others are [`BrokerError::NotAttempted`].
    pub async fn add_partitions(
        &self,
        caller: &Caller,
        producer: &TransactionalProducer,
        partitions: &[(String, u32)],
        now_ms: i64,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let found = self.find_partitions(caller, partitions);
        if found.iter().any(Result::is_err) {
            let outcome =
                |one: Result<PartitionId, BrokerError>| one.and(Err(BrokerError::NotAttempted));
            return Ok(found.into_iter().map(outcome).collect());
        }
        let ids: Vec<PartitionId> = found.into_iter().flatten().collect();
        let identity = producer.identity;
        self.change_id(caller, &producer.id, now_ms, |machine, _| {
            machine.add_partitions(identity, &ids, now_ms)
        })
        .await?;
        Ok(vec![Ok(()); partitions.len()])
    }

    /// Whether partitions are part of the producer's open transaction, each by itself; changes nothing
    /// (AddPartitionsToTxn with `verify_only`). [`BrokerError::NotInTransaction`] for those that are not.
    pub fn verify_partitions(
        &self,
        caller: &Caller,
        producer: &TransactionalProducer,
        partitions: &[(String, u32)],
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        check_producer(caller, &producer.id)?;
        let found = self.find_partitions(caller, partitions);
        let key = IdKey::new(caller, &producer.id);
        self.inner.transactions.with(None, |state| {
            let nobody = Machine::new(&producer.id);
            let machine = state.machine(&key).unwrap_or(&nobody);
            machine.check(producer.identity)?;
            let verify = |(found, (topic, index)): (_, &(String, u32))| {
                let found: Result<PartitionId, BrokerError> = found;
                match machine.has(found?) {
                    true => Ok(()),
                    false => Err(machine.not_in_transaction(format!("partition {topic}/{index}"))),
                }
            };
            Ok(found.into_iter().zip(partitions).map(verify).collect())
        })
    }

    /// Makes a group's offsets part of the producer's transaction, begun if none is open.
    pub async fn add_offsets(
        &self,
        caller: &Caller,
        producer: &TransactionalProducer,
        group: &str,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        access::check(caller, Access::ReadGroup { group })?;
        names::check_group(group, true)?;
        let identity = producer.identity;
        self.change_id(caller, &producer.id, now_ms, |machine, _| {
            machine.add_group(identity, group, now_ms)
        })
        .await?;
        Ok(())
    }

    /// Ends the producer's transaction: one frame with the markers, the group offsets and the id's state. Answers who
    /// the producer is from now on: with `bumps_epoch` (KIP-890; EndTxn from version 5) its next epoch, or a new id
    /// when epochs are used up. The same end asked again is answered the same.
    pub async fn end_transaction(
        &self,
        caller: &Caller,
        producer: &TransactionalProducer,
        commit: bool,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> Result<ProducerIdentity, BrokerError> {
        let identity = producer.identity;
        self.change_id(caller, &producer.id, now_ms, |machine, new_id| {
            machine.end(identity, commit, bumps_epoch, new_id, now_ms)
        })
        .await
    }

    /// Asks the id's machine until it has an answer: what is under way is waited for, and a new producer id is brought.
    pub(super) async fn change_id(
        &self,
        caller: &Caller,
        id: &str,
        now_ms: i64,
        mut ask: impl FnMut(&Machine, Option<i64>) -> Result<Decision, BrokerError>,
    ) -> Result<ProducerIdentity, BrokerError> {
        check_producer(caller, id)?;
        let key = IdKey::new(caller, id);
        let groups = &self.inner.groups;
        let mut new_id = None;
        for _ in 0..MAX_TRIES {
            let asked = self.inner.transactions.with(Some(now_ms), |state| {
                state.ask(groups, &key, now_ms, |machine| ask(machine, new_id))
            })?;
            match asked {
                Asked::Busy(done) => answered(done).await?,
                Asked::NeedsId => new_id = Some(self.init_producer(caller).await?.id),
                Asked::Answer(producer) => return Ok(producer),
                Asked::Frame(answer) => return answered(answer).await,
            }
        }
        Err(BrokerError::ConcurrentTransactions {
            id: names::shorten(id),
        })
    }

    fn find_partitions(
        &self,
        caller: &Caller,
        partitions: &[(String, u32)],
    ) -> Vec<Result<PartitionId, BrokerError>> {
        let find = |(topic, index): &(String, u32)| {
            let topic = self.topic_for(caller, Access::Write { topic }, topic)?;
            let partition = topic.partition_id(*index);
            partition.ok_or_else(|| no_partition(&topic, *index))
        };
        partitions.iter().map(find).collect()
    }
}

pub(super) fn check_producer(caller: &Caller, id: &str) -> Result<(), BrokerError> {
    names::check_transactional_id(id)?;
    access::check(caller, Access::WriteTransaction { id })
}
