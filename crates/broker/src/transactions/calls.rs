//! What transactional producers call.

use super::types::{
    ActiveProducer, StableOffset, TransactionCommit, TransactionDescription, TransactionFilter,
    TransactionListing, TransactionalProducer,
};
use crate::broker::Broker;
use crate::{BrokerError, Caller, PlacedBatch, Produced, ProducerIdentity};

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
        let _ = (caller, timeout_ms, expected, now_ms);
        Err(unfinished(id))
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
        let _ = (caller, partitions, now_ms);
        Err(unfinished(&producer.id))
    }

    /// Whether partitions are part of the producer's open transaction, each by itself; changes nothing
    /// (AddPartitionsToTxn with `verify_only`). [`BrokerError::NotInTransaction`] for those that are not.
    pub fn verify_partitions(
        &self,
        caller: &Caller,
        producer: &TransactionalProducer,
        partitions: &[(String, u32)],
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let _ = (caller, partitions);
        Err(unfinished(&producer.id))
    }

    /// Makes a group's offsets part of the producer's transaction, begun if none is open.
    pub async fn add_offsets(
        &self,
        caller: &Caller,
        producer: &TransactionalProducer,
        group: &str,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        let _ = (caller, group, now_ms);
        Err(unfinished(&producer.id))
    }

    /// Appends batches as [`Broker::produce_placed`] does; those that are transactional belong to the open transaction of
    /// `id`, whose producer they must name. With `adds_partitions` their partitions become part of it, and the
    /// transaction begins if none is open (KIP-890; Produce from version 12); without it, a batch for a partition that
    /// was not added is refused ([`BrokerError::NotInTransaction`]).
    ///
    /// Nothing of a transaction is ever appended after its end, however late a batch comes.
    pub async fn produce_in_transaction(
        &self,
        caller: &Caller,
        id: &str,
        adds_partitions: bool,
        batches: Vec<PlacedBatch>,
        now_ms: i64,
    ) -> Result<Vec<Result<Produced, BrokerError>>, BrokerError> {
        let _ = (caller, adds_partitions, batches, now_ms);
        Err(unfinished(id))
    }

    /// Keeps offsets to be committed with the transaction; durable when this returns. Until the end they are no group's
    /// offsets, but [`Broker::fetch_stable_offsets`] says that they are coming. The outcomes are in the order of the
    /// offsets. Fails as a whole where the member may not commit.
    pub async fn commit_transaction_offsets(
        &self,
        caller: &Caller,
        commit: TransactionCommit,
        now_ms: i64,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let _ = (caller, now_ms);
        Err(unfinished(&commit.producer.id))
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
        let _ = (caller, commit, bumps_epoch, now_ms);
        Err(unfinished(&producer.id))
    }

    /// A transactional id and its transaction.
    pub fn describe_transaction(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<TransactionDescription, BrokerError> {
        let _ = caller;
        Err(unfinished(id))
    }

    /// The tenant's transactional ids that pass the filter, by name.
    pub fn list_transactions(
        &self,
        caller: &Caller,
        filter: &TransactionFilter,
        now_ms: i64,
    ) -> Result<Vec<TransactionListing>, BrokerError> {
        let _ = (caller, filter, now_ms);
        Err(unfinished(""))
    }

    /// The idempotent and transactional producers that are known on a partition, by id.
    pub async fn active_producers(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
    ) -> Result<Vec<ActiveProducer>, BrokerError> {
        let _ = (caller, partition);
        Err(unfinished(topic))
    }

    /// As [`Broker::fetch_offsets`], for a reader that must not begin before offsets of an open transaction
    /// (KIP-447; OffsetFetch with `require_stable`).
    pub fn fetch_stable_offsets(
        &self,
        caller: &Caller,
        group: &str,
        topic: &str,
        partitions: &[u32],
    ) -> Result<Vec<StableOffset>, BrokerError> {
        let _ = (caller, topic, partitions);
        Err(unfinished(group))
    }

    /// Every partition for which an open transaction holds an offset of this group, as topic and partition: what
    /// [`Broker::fetch_all_offsets`] says of these may change. Ask this first.
    pub fn unstable_offsets(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<Vec<(String, u32)>, BrokerError> {
        let _ = caller;
        Err(unfinished(group))
    }
}

fn unfinished(id: &str) -> BrokerError {
    BrokerError::InvalidTransactionState {
        id: id.to_owned(),
        why: "transactions are being built",
    }
}
