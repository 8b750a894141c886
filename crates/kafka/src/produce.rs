//! Produce: batches are checked as slices of the request, and appended by one call of the broker.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka_protocol::ResponseError;
use mainstem::broker::{BrokerError, PlacedBatch, Topic};
use mainstem_record::{Batch, Compression};
use tokio::sync::OwnedSemaphorePermit;

use crate::call::{Answer, Call};
use crate::client::Client;
use crate::codec::produce::{self as codec, PartitionResult, TopicResult};
use crate::codes::Refusal;
use crate::error::KafkaError;
use crate::internal_topics;
use crate::topic_ref::partition_number;

/// The first version whose clients may use zstd (KIP-110).
const ZSTD: i16 = 7;
/// The first version in which a batch makes its partition part of the transaction (KIP-890).
const ADDS_PARTITIONS: i16 = 12;
/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 11;

/// Checks a request's batches. Polling what comes back begins to append them; others may be begun behind it then.
///
/// Where the client wants no answer (acks=0), it gets none, and a refusal ends the connection, as in Kafka.
pub(crate) async fn begin(
    client: Arc<Client>,
    call: Call,
) -> Result<BoxFuture<'static, Result<Option<Answer>, KafkaError>>, KafkaError> {
    let begun = Instant::now();
    let request = call.own(codec::Request::read)?;
    let acks = request.acks;
    let checked = Checked::of(&client, request, call.version).await;
    Ok(async move {
        let results = checked.append(&client, call.version).await;
        client
            .gateway
            .mainstem
            .latencies()
            .produce
            .add(begun.elapsed());
        if acks == 0 {
            return match results
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find(|one| one.error_code != 0)
            {
                None => Ok(None),
                Some(failed) => Err(KafkaError::Unacknowledged {
                    why: failed.message.clone().unwrap_or_default(),
                }),
            };
        }
        call.own_answer(|writer, version| codec::write(writer, version, &results))
            .map(Some)
    }
    .boxed())
}

/// A request whose batches are known to be good, or why they are not.
struct Checked {
    /// The transactional id that the request speaks for.
    transactional_id: Option<String>,
    batches: Vec<PlacedBatch>,
    /// Each batch's place in `results`.
    places: Vec<(usize, usize)>,
    results: Vec<TopicResult>,
    /// What its batches hold of the room for what was decompressed, until they are appended.
    room: Option<OwnedSemaphorePermit>,
}

impl Checked {
    async fn of(client: &Client, request: codec::Request, version: i16) -> Checked {
        let is_transactional = request.transactional_id.is_some();
        let refused = refuse_all(&request);
        let mut checked = Checked {
            transactional_id: request.transactional_id,
            batches: Vec::new(),
            places: Vec::new(),
            results: Vec::with_capacity(request.topics.len()),
            room: None,
        };
        for codec::Topic { topic, partitions } in request.topics {
            let found = match (&refused, internal_topics::find(&topic)) {
                (Some(refusal), _) => Err(refusal.clone()),
                (None, Some(internal)) => Err(internal.refusal()),
                (None, None) => topic.find(client),
            };
            let mut results = Vec::with_capacity(partitions.len());
            for codec::Partition { index, records } in partitions {
                let placed = match &found {
                    Ok(topic) => place(topic, index, records, version),
                    Err(refusal) => Err(refusal.clone()),
                };
                let placed = placed.and_then(|placed| {
                    if placed.batch.header().is_transactional() && !is_transactional {
                        return Err(no_id());
                    }
                    Ok(placed)
                });
                let mut result = PartitionResult {
                    index,
                    error_code: 0,
                    base_offset: -1,
                    append_time_ms: -1,
                    log_start: -1,
                    record_errors: Vec::new(),
                    message: None,
                };
                match placed {
                    Ok(batch) => {
                        checked.places.push((checked.results.len(), results.len()));
                        checked.batches.push(batch);
                    }
                    Err(refusal) => result.refuse(refusal),
                }
                results.push(result);
            }
            checked.results.push(TopicResult {
                topic,
                partitions: results,
            });
        }
        checked.unpack(client).await;
        checked
    }

    /// Looks into what is compressed, so that it can be trusted for ever.
    async fn unpack(&mut self, client: &Client) {
        let mainstem = &client.gateway.mainstem;
        let mut unpacked = mainstem.unpack::<Refusal>(&mut self.batches).await;
        self.room = unpacked.room.take();
        let (batches, places, results) = (&mut self.batches, &mut self.places, &mut self.results);
        unpacked.sort_out(batches, places, |(topic, partition), refusal| {
            let result = results.get_mut(topic);
            if let Some(result) = result.and_then(|topic| topic.partitions.get_mut(partition)) {
                result.refuse(refusal);
            }
        });
    }

    async fn append(self, client: &Client, version: i16) -> Vec<TopicResult> {
        let Checked {
            transactional_id,
            batches,
            places,
            mut results,
            room: _room,
        } = self;
        if batches.is_empty() {
            return results;
        }
        let (broker, caller, now_ms) = (client.broker(), &client.caller, mainstem::now_ms());
        let appended = match transactional_id {
            None => broker.produce_placed(caller, batches, now_ms).await,
            Some(id) => {
                let adds = version >= ADDS_PARTITIONS;
                broker
                    .produce_in_transaction(caller, &id, adds, batches, now_ms)
                    .await
            }
        };
        let outcomes = match appended {
            Ok(outcomes) => outcomes,
            Err(error) => places.iter().map(|_| Err(error.clone())).collect(),
        };
        for ((topic, partition), outcome) in places.into_iter().zip(outcomes) {
            let result = results
                .get_mut(topic)
                .and_then(|topic| topic.partitions.get_mut(partition));
            match (result, outcome) {
                (Some(result), Ok(produced)) => {
                    result.base_offset = produced.base_offset;
                    result.log_start = produced.log_start;
                    result.append_time_ms = produced.append_time_ms.unwrap_or(-1);
                }
                (Some(result), Err(error)) => result.refuse(refusal(error, version)),
                (None, _) => {}
            }
        }
        results
    }
}

impl PartitionResult {
    fn refuse(&mut self, refusal: Refusal) {
        self.error_code = refusal.code();
        self.record_errors = refusal.records;
        self.message = Some(refusal.message);
    }
}

/// Why nothing of a request is taken, if so.
fn refuse_all(request: &codec::Request) -> Option<Refusal> {
    if !(-1..=1).contains(&request.acks) {
        let why = format!(
            "acks={} does not exist; there are 0, 1 and all",
            request.acks
        );
        return Some(Refusal::new(ResponseError::InvalidRequiredAcks, why));
    }
    None
}

/// What comes of a transactional batch in a request without a transactional id.
fn no_id() -> Refusal {
    Refusal::new(
        ResponseError::TransactionalIdAuthorizationFailed,
        "a transactional batch comes with its producer's transactional id",
    )
}

/// Why a batch was refused, by a code that clients of this version understand.
fn refusal(error: BrokerError, version: i16) -> Refusal {
    let mut refusal = Refusal::from(error);
    refusal.error = match refusal.error {
        ResponseError::TransactionAbortable if version < ABORTABLE => {
            ResponseError::InvalidTxnState
        }
        // They do not expect it of a partition, and try this one again.
        ResponseError::ConcurrentTransactions if version < ADDS_PARTITIONS => {
            ResponseError::NotEnoughReplicas
        }
        error => error,
    };
    refusal
}

fn place(
    topic: &Arc<Topic>,
    index: i32,
    records: Option<Bytes>,
    version: i16,
) -> Result<PlacedBatch, Refusal> {
    let partition = partition_number(index)?;
    let records = records.unwrap_or_default();
    let limit_bytes = topic.limits.max_message_bytes;
    if records.len() > limit_bytes {
        return Err(BrokerError::RecordTooLarge {
            topic: topic.name.to_string(),
            what: "a batch",
            bytes: records.len(),
            limit_bytes,
        }
        .into());
    }
    let batch = Batch::parse(records)?;
    if batch.header().compression() == Compression::Zstd && version < ZSTD {
        return Err(Refusal::new(
            ResponseError::UnsupportedCompressionType,
            "zstd takes version 7 of Produce; use a newer client",
        ));
    }
    Ok(PlacedBatch {
        topic: Arc::clone(topic),
        partition,
        batch,
    })
}
