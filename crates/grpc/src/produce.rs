//! Service `Produce`: batches are checked here and appended by the broker.

use std::sync::Arc;

use mainstem::broker::{BrokerError, NewRecord, ProduceBatch};
use mainstem::{Broker, Caller};
use mainstem_proto::v1::{self, partition_result};
use mainstem_record::{Batch, Compression, DEFAULT_DECOMPRESSED_LIMIT_BYTES, RecordError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::call::{Platform, now_ms};
use crate::{errors, produce_stream};

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
        Ok(Response::new(
            append(self.platform.broker(), &caller, request.into_inner()).await,
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
        let broker = self.platform.broker();
        let positions = broker
            .produce_records(&caller, &topic, records.collect(), now_ms())
            .await;
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
    broker: &Broker,
    caller: &Caller,
    request: v1::ProduceRequest,
) -> v1::ProduceResponse {
    let v1::ProduceRequest {
        correlation_id,
        batches,
    } = request;
    let mut results = Vec::with_capacity(batches.len());
    let mut accepted = Vec::with_capacity(batches.len());
    let mut places = Vec::with_capacity(batches.len());
    let mut last: Option<Arc<str>> = None;
    for v1::PartitionBatch {
        topic,
        partition,
        batch,
    } in batches
    {
        let result = match check(batch) {
            Ok(batch) => {
                let name = last
                    .take()
                    .filter(|last| **last == *topic)
                    .unwrap_or_else(|| topic.as_str().into());
                last = Some(name.clone());
                places.push(results.len());
                accepted.push(ProduceBatch {
                    topic: name,
                    partition,
                    batch,
                });
                None
            }
            Err(error) => Some(refused(&BrokerError::from(error))),
        };
        results.push(v1::PartitionResult {
            topic,
            partition,
            result,
        });
    }
    let outcomes = match broker.produce(caller, accepted, now_ms()).await {
        Ok(outcomes) => outcomes,
        Err(error) => places.iter().map(|_| Err(error.clone())).collect(),
    };
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

/// A batch that nobody has looked at yet becomes one that can be trusted for ever.
fn check(bytes: bytes::Bytes) -> Result<Batch, RecordError> {
    let batch = Batch::parse(bytes)?;
    if batch.header().compression() != Compression::None {
        batch.check_records(DEFAULT_DECOMPRESSED_LIMIT_BYTES)?;
    }
    Ok(batch)
}

fn refused(error: &BrokerError) -> partition_result::Result {
    partition_result::Result::Error(errors::refusal(error))
}
