//! Produce: batches are checked as slices of the request, and appended by one call of the broker.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka_protocol::ResponseError;
use mainstem::broker::{BrokerError, PlacedBatch, Topic};
use mainstem_record::{Batch, Compression, DEFAULT_DECOMPRESSED_LIMIT_BYTES, RecordError};

use crate::call::{Answer, Call};
use crate::client::Client;
use crate::codec::produce::{self as codec, PartitionResult, TopicResult};
use crate::codes::Refusal;
use crate::error::KafkaError;
use crate::internal_topics;
use crate::topic_ref::partition_number;

/// Bytes that the batches of one request may have when decompressed, all together.
const MAX_DECOMPRESSED_BYTES: usize = 256 << 20;
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
        };
        let mut room_bytes = MAX_DECOMPRESSED_BYTES;
        for codec::Topic { topic, partitions } in request.topics {
            let found = match (&refused, internal_topics::find(&topic)) {
                (Some(refusal), _) => Err(refusal.clone()),
                (None, Some(internal)) => Err(internal.refusal()),
                (None, None) => topic.find(client),
            };
            let mut results = Vec::with_capacity(partitions.len());
            for codec::Partition { index, records } in partitions {
                let placed = match &found {
                    Ok(topic) => place(topic, index, records, version, &mut room_bytes).await,
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
        checked
    }

    async fn append(self, client: &Client, version: i16) -> Vec<TopicResult> {
        let Checked {
            transactional_id,
            batches,
            places,
            mut results,
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

async fn place(
    topic: &Arc<Topic>,
    index: i32,
    records: Option<Bytes>,
    version: i16,
    room_bytes: &mut usize,
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
    match batch.header().compression() {
        Compression::None => {}
        Compression::Zstd if version < ZSTD => {
            return Err(Refusal::new(
                ResponseError::UnsupportedCompressionType,
                "zstd takes version 7 of Produce; use a newer client",
            ));
        }
        _ => {
            look_into(&batch, room_bytes)?;
            // Others have a turn behind what takes long.
            tokio::task::yield_now().await;
        }
    }
    Ok(PlacedBatch {
        topic: Arc::clone(topic),
        partition,
        batch,
    })
}

/// Looks into a compressed batch once, so that it can be trusted for ever. What decompressing takes is bounded for the
/// request.
fn look_into(batch: &Batch, room_bytes: &mut usize) -> Result<(), Refusal> {
    match batch.check_records(DEFAULT_DECOMPRESSED_LIMIT_BYTES.min(*room_bytes)) {
        Ok(size_bytes) => {
            *room_bytes -= size_bytes.min(*room_bytes);
            Ok(())
        }
        Err(RecordError::DecompressedTooLarge { .. })
            if *room_bytes < DEFAULT_DECOMPRESSED_LIMIT_BYTES =>
        {
            *room_bytes = 0;
            let why = format!(
                "the request's batches have more than {MAX_DECOMPRESSED_BYTES} bytes when decompressed; send fewer at a time"
            );
            Err(Refusal::new(ResponseError::MessageTooLarge, why))
        }
        Err(error) => Err(error.into()),
    }
}
