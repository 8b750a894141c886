//! What administrators ask: which transactional ids there are, what their transactions have, who produces where.

use std::collections::BTreeMap;

use mainstem_engine::Submission;
use mainstem_log::TopicId;

use super::coordinator::IdKey;
use super::types::{ActiveProducer, TransactionDescription, TransactionFilter, TransactionListing};
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::fetch::named;
use crate::produce::no_partition;
use crate::{BrokerError, Caller, ProducerIdentity, names};

impl Broker {
    /// A transactional id and its transaction.
    pub fn describe_transaction(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<TransactionDescription, BrokerError> {
        names::check_transactional_id(id)?;
        access::check(caller, Access::DescribeTransaction { id })?;
        let key = IdKey::new(caller, id);
        let found = self.inner.transactions.with(None, |state| {
            let machine = state.machine(&key)?;
            let record = machine.record()?;
            let description = TransactionDescription {
                id: id.to_owned(),
                producer: record.producer,
                state: machine.state(),
                timeout_ms: record.timeout_ms,
                started_ms: machine.started_ms(),
                partitions: Vec::new(),
                groups: machine.groups().map(str::to_owned).collect(),
            };
            Some((description, machine.partitions()))
        });
        let Some((mut description, partitions)) = found else {
            return Err(BrokerError::TransactionalIdNotFound {
                id: names::shorten(id),
            });
        };
        let mut by_topic: BTreeMap<TopicId, Vec<u32>> = BTreeMap::new();
        for partition in partitions {
            let of_topic = by_topic.entry(partition.topic).or_default();
            of_topic.push(partition.index);
        }
        if !by_topic.is_empty() {
            let topics = self.list_topics(caller)?.into_iter();
            let with =
                topics.filter_map(|topic| Some((topic.clone(), by_topic.remove(&topic.id)?)));
            description.partitions = with.collect();
        }
        Ok(description)
    }

    /// The tenant's transactional ids that pass the filter, by name.
    pub fn list_transactions(
        &self,
        caller: &Caller,
        filter: &TransactionFilter,
        now_ms: i64,
    ) -> Result<Vec<TransactionListing>, BrokerError> {
        access::check(caller, Access::DescribeTransaction { id: "*" })?;
        let TransactionFilter {
            states,
            producer_ids,
            longer_than_ms,
        } = filter;
        Ok(self.inner.transactions.with(None, |all| {
            let listing = |(id, machine): (&str, &super::machine::Machine)| {
                let listing = TransactionListing {
                    id: id.to_owned(),
                    producer_id: machine.record()?.producer.id,
                    state: machine.state(),
                };
                let is_long = longer_than_ms.is_none_or(|longer_than_ms| {
                    let open_ms = machine.started_ms().map(|ms| now_ms.saturating_sub(ms));
                    open_ms.is_some_and(|open_ms| open_ms > longer_than_ms)
                });
                let passes = (states.is_empty() || states.contains(&listing.state))
                    && (producer_ids.is_empty() || producer_ids.contains(&listing.producer_id))
                    && is_long;
                passes.then_some(listing)
            };
            all.of_tenant(caller).filter_map(listing).collect()
        }))
    }

    /// The idempotent and transactional producers that are known on a partition, by id.
    pub async fn active_producers(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
    ) -> Result<Vec<ActiveProducer>, BrokerError> {
        let topic = self.topic_for(caller, Access::Read { topic }, topic)?;
        let partition = topic
            .partition_id(partition)
            .ok_or_else(|| no_partition(&topic, partition))?;
        let submission = Submission {
            producers_of: Some(partition),
            ..Submission::default()
        };
        let known = self.engine().submit_in_turn(submission).await?.producers;
        let open = self.engine().log().open_transactions_of(partition);
        let open: BTreeMap<i64, i64> = open
            .map_err(|error| named(error, &topic, partition))?
            .into_iter()
            .map(|open| (open.producer_id, open.first_offset))
            .collect();
        let active = known.into_iter().map(|one| ActiveProducer {
            producer: ProducerIdentity {
                id: one.producer_id,
                epoch: one.producer_epoch,
            },
            last_sequence: one.last_sequence,
            last_seen_ms: one.last_seen_ms,
            transaction_start: open.get(&one.producer_id).copied(),
        });
        Ok(active.collect())
    }
}
