//! Service `Produce`: batches are checked here and appended by the broker.

use std::sync::Arc;
use std::time::Instant;

use mainstem::Caller;
use mainstem::broker::{BrokerError, NewRecord, PlacedBatch, Topic};
use mainstem_proto::MAX_MESSAGE_BYTES;
use mainstem_proto::v1::{self, partition_result};
use mainstem_record::Batch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::call::{Platform, now_ms};
use crate::{errors, produce_stream};

/// Batches of one request at most.
const MAX_BATCHES: usize = 16_384;
/// Longer than any topic's name.
const MAX_NAME_BYTES: usize = 1_024;

/// The service.
pub(crate) struct Produce {
    pub(crate) platform: Platform,
}

#[tonic::async_trait]
impl v1::produce_server::Produce for Produce {
    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let identity = self.platform.broker().init_producer(&caller).await;
        let identity = identity.map_err(|error| errors::broker(&error))?;
        Ok(Response::new(v1::InitProducerResponse {
            producer_id: identity.id,
            producer_epoch: u32::try_from(identity.epoch).unwrap_or(0),
        }))
    }

    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let request = request.into_inner();
        check(&request)?;
        let _room = self.platform.room_for(size(&request)).await?;
        Ok(Response::new(
            append(&self.platform, &caller, request).await,
        ))
    }

    type ProduceStreamStream = ReceiverStream<Result<v1::ProduceResponse, Status>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let answers = produce_stream::start(&self.platform, caller, request.into_inner());
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn produce_records(
        &self,
        request: Request<v1::ProduceRecordsRequest>,
    ) -> Result<Response<v1::ProduceRecordsResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let v1::ProduceRecordsRequest { topic, records } = request.into_inner();
        let _room = self
            .platform
            .room_for(records.iter().map(record_size).sum())
            .await?;
        let records = records.into_iter().map(|record| NewRecord {
            partition: record.partition,
            key: record.key,
            value: record.value,
            headers: record
                .headers
                .into_iter()
                .map(|header| (header.name, header.value))
                .collect(),
            timestamp_ms: record.timestamp_ms,
        });
        let (begun, broker) = (Instant::now(), self.platform.broker());
        let positions = broker
            .produce_records(&caller, &topic, records.collect(), now_ms())
            .await;
        let latencies = self.platform.mainstem.latencies();
        latencies.produce.add(begun.elapsed());
        let positions = positions.map_err(|error| errors::broker(&error))?;
        let positions = positions
            .into_iter()
            .map(|(partition, offset)| v1::RecordPosition { partition, offset });
        Ok(Response::new(v1::ProduceRecordsResponse {
            positions: positions.collect(),
        }))
    }
}

/// Appends the batches of one request; each has its own result.
pub(crate) async fn append(
    platform: &Platform,
    caller: &Caller,
    request: v1::ProduceRequest,
) -> v1::ProduceResponse {
    let (begun, broker) = (Instant::now(), platform.broker());
    let v1::ProduceRequest {
        correlation_id,
        batches,
    } = request;
    let mut results = Vec::with_capacity(batches.len());
    let mut accepted = Vec::with_capacity(batches.len());
    let mut places = Vec::with_capacity(batches.len());
    let mut last: Option<Arc<Topic>> = None;
    for v1::PartitionBatch {
        topic: name,
        partition,
        batch,
    } in batches
    {
        let topic = match last.take().filter(|last| *last.name == *name) {
            Some(topic) => Ok(topic),
            None => broker.topic(caller, &name),
        };
        let placed = topic.and_then(|topic| {
            last = Some(Arc::clone(&topic));
            let batch = Batch::parse(batch)?;
            Ok(PlacedBatch {
                topic,
                partition,
                batch,
            })
        });
        let result = match placed {
            Ok(placed) => {
                places.push(results.len());
                accepted.push(placed);
                None
            }
            Err(error) => Some(refused(&error)),
        };
        results.push(v1::PartitionResult {
            topic: name,
            partition,
            result,
        });
    }
    // Looked into once, so that they can be trusted for ever.
    let mut unpacked = platform.mainstem.unpack::<BrokerError>(&mut accepted).await;
    unpacked.sort_out(&mut accepted, &mut places, |place, error| {
        if let Some(slot) = results.get_mut(place) {
            slot.result = Some(refused(&error));
        }
    });
    let outcomes = match broker.produce_placed(caller, accepted, now_ms()).await {
        Ok(outcomes) => outcomes,
        Err(error) => places.iter().map(|_| Err(error.clone())).collect(),
    };
    drop(unpacked.room);
    platform.mainstem.latencies().produce.add(begun.elapsed());
    for (place, outcome) in places.into_iter().zip(outcomes) {
        let result = match outcome {
            Ok(produced) => partition_result::Result::Produced(v1::Produced {
                base_offset: produced.base_offset,
                last_offset: produced.last_offset,
                duplicate: produced.duplicate,
                log_start_offset: produced.log_start,
            }),
            Err(error) => refused(&error),
        };
        if let Some(slot) = results.get_mut(place) {
            slot.result = Some(result);
        }
    }
    v1::ProduceResponse {
        correlation_id,
        results,
    }
}

/// Refuses what would take far more memory than it has bytes.
pub(crate) fn check(request: &v1::ProduceRequest) -> Result<(), Status> {
    let mut names = request.batches.iter().map(|batch| batch.topic.len());
    if request.batches.len() > MAX_BATCHES || names.any(|bytes| bytes > MAX_NAME_BYTES) {
        return Err(errors::invalid(
            format!(
                "a request has at most {MAX_BATCHES} batches, and names of at most {MAX_NAME_BYTES} bytes"
            ),
            "send several requests",
        ));
    }
    Ok(())
}

/// What a request and its answer take in memory, about; never more than there is room for.
pub(crate) fn size(request: &v1::ProduceRequest) -> usize {
    let one = |batch: &v1::PartitionBatch| 256 + 3 * batch.topic.len() + batch.batch.len();
    let bytes: usize = request.batches.iter().map(one).sum();
    bytes.min(MAX_MESSAGE_BYTES)
}

/// What a record takes in memory here, about.
fn record_size(record: &v1::NewRecord) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let header = |header: &v1::Header| 64 + header.name.len() + length(&header.value);
    let headers: usize = record.headers.iter().map(header).sum();
    128 + length(&record.key) + length(&record.value) + headers
}

fn refused(error: &BrokerError) -> partition_result::Result {
    partition_result::Result::Error(errors::refusal(error))
}
