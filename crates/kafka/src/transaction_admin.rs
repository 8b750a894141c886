//! Transactions and producers as administrators see them (KIP-664, KIP-994).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as DescribedState,
};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedState;
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId,
    TopicName, TransactionalId,
};
use mainstem::broker::{
    ActiveProducer, TransactionDescription, TransactionFilter, TransactionListing, TransactionState,
};
use regex::{Regex, RegexBuilder};

use crate::call::Call;
use crate::client::Client;
use crate::codes::{Refusal, of_broker};
use crate::internal_topics;
use crate::metadata::{text, topic_name};
use crate::topic_ref::partition_number;

/// What a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;
/// States that Kafka has and that nothing is ever found in here.
const NEVER: [&str; 2] = ["Dead", "PrepareEpochFence"];

pub(crate) async fn describe(
    client: &Client,
    _call: &Call,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let describe = |id: TransactionalId| {
        let found = client
            .broker()
            .describe_transaction(&client.caller, id.as_str());
        let entry = DescribedState::default().with_transactional_id(id);
        match found {
            Ok(found) => described(entry, found),
            Err(error) => entry.with_error_code(of_broker(&error).code()),
        }
    };
    let states = request.transactional_ids.into_iter().map(describe);
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn described(entry: DescribedState, found: TransactionDescription) -> DescribedState {
    let index = |index: u32| i32::try_from(index).unwrap_or(i32::MAX);
    let mut topics: Vec<TopicData> = found
        .partitions
        .into_iter()
        .map(|(topic, partitions)| {
            TopicData::default()
                .with_topic(topic_name(&topic.name))
                .with_partitions(partitions.into_iter().map(index).collect())
        })
        .collect();
    // A group is part of a transaction as the partition that Kafka keeps its offsets in.
    let mut groups: Vec<i32> = found
        .groups
        .iter()
        .map(|group| internal_topics::partition_of(group))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    if !groups.is_empty() {
        topics.push(
            TopicData::default()
                .with_topic(topic_name(internal_topics::OFFSETS))
                .with_partitions(groups),
        );
    }
    entry
        .with_transaction_state(text(found.state.as_str()))
        .with_transaction_timeout_ms(i32::try_from(found.timeout_ms).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(found.started_ms.unwrap_or(-1))
        .with_producer_id(ProducerId(found.producer.id))
        .with_producer_epoch(found.producer.epoch)
        .with_topics(topics)
}

/// Transactional ids by state and producer, from version 1 on by how long their transactions have been open, and from
/// version 2 on by a pattern of their whole names.
pub(crate) async fn list(
    client: &Client,
    call: &Call,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let mut response = ListTransactionsResponse::default();
    let mut filter = TransactionFilter {
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        longer_than_ms: (call.version >= 1 && request.duration_filter >= 0)
            .then_some(request.duration_filter),
        ..TransactionFilter::default()
    };
    for name in &request.state_filters {
        let state = TransactionState::ALL
            .into_iter()
            .find(|state| state.as_str() == name.as_str());
        match state {
            Some(state) => filter.states.push(state),
            None if NEVER.contains(&name.as_str()) => {}
            None => response.unknown_state_filters.push(name.clone()),
        }
    }
    if filter.states.is_empty() && !request.state_filters.is_empty() {
        return response;
    }
    let pattern = request.transactional_id_pattern.as_ref();
    let pattern = match pattern.filter(|pattern| !pattern.is_empty()) {
        None => None,
        Some(pattern) => match whole(pattern.as_str()) {
            Ok(pattern) => Some(pattern),
            Err(refusal) => return response.with_error_code(refusal.code()),
        },
    };
    let found = client
        .broker()
        .list_transactions(&client.caller, &filter, mainstem::now_ms());
    let is_wanted = |one: &TransactionListing| {
        pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(&one.id))
    };
    let listed = |one: TransactionListing| {
        ListedState::default()
            .with_transactional_id(TransactionalId(text(&one.id)))
            .with_producer_id(ProducerId(one.producer_id))
            .with_transaction_state(text(one.state.as_str()))
    };
    match found {
        Ok(found) => {
            let found = found.into_iter().filter(is_wanted);
            response.with_transaction_states(found.map(listed).collect())
        }
        Err(error) => response.with_error_code(of_broker(&error).code()),
    }
}

/// A pattern that fits whole names.
fn whole(pattern: &str) -> Result<Regex, Refusal> {
    let invalid = |error: regex::Error| {
        let why = format!("'{pattern}' is no regular expression: {error}");
        Refusal::new(ResponseError::InvalidRegularExpression, why)
    };
    let compiled = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
    compiled(pattern)
        .and_then(|_| compiled(&format!("^(?:{pattern})$")))
        .map_err(invalid)
}

pub(crate) async fn describe_producers(
    client: &Client,
    _call: &Call,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let entry = PartitionResponse::default()
                .with_partition_index(index)
                .with_error_message(None);
            partitions.push(match producers_of(client, &topic.name, index).await {
                Ok(producers) => entry.with_active_producers(producers),
                Err(refusal) => entry
                    .with_error_code(refusal.code())
                    .with_error_message(refusal.text()),
            });
        }
        topics.push(
            TopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn producers_of(
    client: &Client,
    topic: &TopicName,
    index: i32,
) -> Result<Vec<ProducerState>, Refusal> {
    let partition = partition_number(index)?;
    let found = client
        .broker()
        .active_producers(&client.caller, topic.as_str(), partition)
        .await?;
    let state = |one: ActiveProducer| {
        ProducerState::default()
            .with_producer_id(ProducerId(one.producer.id))
            .with_producer_epoch(one.producer.epoch.into())
            .with_last_sequence(one.last_sequence.unwrap_or(-1))
            .with_last_timestamp(one.last_seen_ms.unwrap_or(-1))
            // There is one coordinator, and no other has ever been.
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(one.transaction_start.unwrap_or(-1))
    };
    Ok(found.into_iter().map(state).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_names_or_is_refused() {
        let fits = |pattern, name| whole(pattern).unwrap().is_match(name);
        assert!(fits("a|bc", "bc") && !fits("a|bc", "abc"));
        assert!(fits("pay-.*", "pay-1") && !fits("pay", "pay-1"));
        for pattern in ["(", "a)|(b", "a{1000}{1000}{1000}"] {
            let refusal = whole(pattern).unwrap_err();
            assert_eq!(refusal.error, ResponseError::InvalidRegularExpression);
        }
    }
}
