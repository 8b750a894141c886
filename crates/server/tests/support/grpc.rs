//! The API as it is, where no command and no client stands between.

use super::Server;
use mainstem_proto::v1::produce_client::ProduceClient;
use mainstem_proto::v1::{PartitionBatch, ProduceRequest, partition_result};
use mainstem_record::{BatchBuilder, Compression};
use serde_json::{Value, json};

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// A batch with one record.
pub fn batch(value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder.append(1, None, Some(value), &[]).unwrap();
    builder.build().unwrap().into_bytes().to_vec()
}

/// Sends a batch as it is, once; its first offset, or the error as a command would tell it, with its exit code.
pub fn produce(
    server: &Server,
    topic: &str,
    partition: u32,
    batch: Vec<u8>,
) -> Result<i64, (Value, i32)> {
    let address = format!("http://{}", server.address("grpc"));
    let batch = PartitionBatch {
        topic: topic.into(),
        partition,
        batch: batch.into(),
    };
    let request = ProduceRequest {
        correlation_id: 1,
        batches: vec![batch],
    };
    let answer = block_on(async {
        let mut client = ProduceClient::connect(address).await.unwrap();
        client.produce(request).await.unwrap().into_inner()
    });
    match answer.results[0].result.clone().unwrap() {
        partition_result::Result::Produced(produced) => Ok(produced.base_offset),
        partition_result::Result::Error(error) => Err((
            json!({ "code": error.code, "message": error.message, "hint": error.hint }),
            1,
        )),
    }
}
