//! What a transactional producer asks of its coordinator: to be told who it is, to make partitions and groups part of its
//! transaction, to end it (KIP-98, KIP-360, KIP-890).
//!
//! A producer of `transaction.version` 2 makes partitions and groups part of its transaction by using them, and has a new
//! epoch after each end; EndTxn from version 5 on says that it is one. Those before ask first, and are refused where they
//! have not.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ProducerId, TransactionalId,
};
use mainstem::broker::{BrokerError, ProducerIdentity, TransactionalProducer};

use crate::asked::Asked;
use crate::call::Call;
use crate::client::Client;
use crate::codes::{Refusal, of_coordinator};

/// Who a request says it is.
pub(crate) fn producer(
    id: &TransactionalId,
    producer_id: ProducerId,
    epoch: i16,
) -> TransactionalProducer {
    TransactionalProducer {
        id: id.to_string(),
        identity: ProducerIdentity {
            id: producer_id.0,
            epoch,
        },
    }
}

/// Who the producer is. Without a transactional id that is a new identity, also for one that had one and asks for its epoch
/// to be raised: what it numbers anew from 0 is what the old one had not been answered, and its own records stay apart from it.
pub(crate) async fn init(
    client: &Client,
    call: &Call,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let (broker, caller) = (client.broker(), &client.caller);
    let identity = match &request.transactional_id {
        None => broker.init_producer(caller).await,
        Some(id) => match expected(&request) {
            Ok(expected) => {
                let timeout_ms = i64::from(request.transaction_timeout_ms);
                let now_ms = mainstem::now_ms();
                broker
                    .init_transactional(caller, id.as_str(), timeout_ms, expected, now_ms)
                    .await
            }
            Err(refusal) => return not_initialised(refusal.error),
        },
    };
    match identity {
        Ok(identity) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch),
        Err(error) => {
            let error = match of_coordinator(&error, call.version >= 4, call.version >= 5) {
                // Who believes to be somebody else is fenced, whoever that is.
                ResponseError::InvalidProducerIdMapping if call.version >= 4 => {
                    ResponseError::ProducerFenced
                }
                ResponseError::InvalidProducerIdMapping => ResponseError::InvalidProducerEpoch,
                error => error,
            };
            not_initialised(error)
        }
    }
}

fn not_initialised(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

/// Who the producer believes to be (KIP-360): both parts of it, or none.
fn expected(request: &InitProducerIdRequest) -> Result<Option<ProducerIdentity>, Refusal> {
    match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => Ok(None),
        (-1, _) | (_, -1) => Err(Refusal::new(
            ResponseError::InvalidRequest,
            "a producer id comes with its epoch",
        )),
        (id, epoch) => Ok(Some(ProducerIdentity { id, epoch })),
    }
}

/// One transaction up to version 3, which is what producers send; from version 4 on many, each of which may also only ask
/// whether partitions are part of it, which is what one broker asks another.
pub(crate) async fn add_partitions(
    client: &Client,
    call: &Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let response = AddPartitionsToTxnResponse::default();
    if call.version < 4 {
        let producer = producer(
            &request.v3_and_below_transactional_id,
            request.v3_and_below_producer_id,
            request.v3_and_below_producer_epoch,
        );
        let topics = request.v3_and_below_topics;
        return response.with_results_by_topic_v3_and_below(
            add_to_one(client, call.version, &producer, topics, false).await,
        );
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for one in request.transactions {
        let producer = producer(&one.transactional_id, one.producer_id, one.producer_epoch);
        let topics = add_to_one(client, call.version, &producer, one.topics, one.verify_only).await;
        results.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(one.transactional_id)
                .with_topic_results(topics),
        );
    }
    response.with_results_by_transaction(results)
}

async fn add_to_one(
    client: &Client,
    version: i16,
    producer: &TransactionalProducer,
    topics: Vec<AddPartitionsToTxnTopic>,
    verify_only: bool,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|index| (index, ()));
        (topic.name, partitions.collect())
    });
    let asked = Asked(topics.collect());
    let partitions: Vec<(String, u32)> = asked
        .numbered()
        .map(|(topic, partition, ())| (topic.to_string(), partition))
        .collect();
    let (broker, caller) = (client.broker(), &client.caller);
    let outcomes = if partitions.len() < asked.len() {
        // Where one cannot be added, none is.
        Ok(partitions
            .iter()
            .map(|_| Err(BrokerError::NotAttempted))
            .collect())
    } else if verify_only {
        broker.verify_partitions(caller, producer, &partitions)
    } else {
        broker
            .add_partitions(caller, producer, &partitions, mainstem::now_ms())
            .await
    };
    let code = |error: &BrokerError| of_coordinator(error, version >= 2, version >= 5);
    let partition = |index, code| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(code)
    };
    let topic = |name, partitions| {
        AddPartitionsToTxnTopicResult::default()
            .with_name(name)
            .with_results_by_partition(partitions)
    };
    asked.answers(outcomes, code, partition, topic)
}

/// A group's offsets become part of the transaction.
pub(crate) async fn add_offsets(
    client: &Client,
    call: &Call,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let producer = producer(
        &request.transactional_id,
        request.producer_id,
        request.producer_epoch,
    );
    let group = request.group_id.as_str();
    let added = client
        .broker()
        .add_offsets(&client.caller, &producer, group, mainstem::now_ms())
        .await;
    let code = |error| of_coordinator(&error, call.version >= 2, call.version >= 4).code();
    AddOffsetsToTxnResponse::default().with_error_code(added.map_or_else(code, |()| 0))
}

/// The transaction ends. From version 5 on the producer has another epoch after it, which the answer tells.
pub(crate) async fn end(client: &Client, call: &Call, request: EndTxnRequest) -> EndTxnResponse {
    let producer = producer(
        &request.transactional_id,
        request.producer_id,
        request.producer_epoch,
    );
    let bumps_epoch = call.version >= 5;
    let ended = client
        .broker()
        .end_transaction(
            &client.caller,
            &producer,
            request.committed,
            bumps_epoch,
            mainstem::now_ms(),
        )
        .await;
    let response = EndTxnResponse::default()
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    match ended {
        Ok(identity) if bumps_epoch => response
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch),
        Ok(_) => response,
        Err(error) => {
            let code = of_coordinator(&error, call.version >= 2, call.version >= 4);
            response.with_error_code(code.code())
        }
    }
}
