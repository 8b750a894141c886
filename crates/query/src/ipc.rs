//! Results as Arrow IPC, for gateways.

use crate::{QueryError, QueryResult};
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

/// The bytes of one Arrow IPC stream, in chunks.
pub type IpcStream = BoxStream<'static, Result<Bytes, QueryError>>;

/// What a chunk holds at most: within every transport's message limit.
const CHUNK_BYTES: usize = 1 << 20;

/// A result as the bytes of one Arrow IPC stream (schema first, end marker last), in chunks of at most 1 MiB. The
/// query runs as fast as the chunks are taken; after an error there are none.
pub fn query_to_ipc(result: QueryResult) -> Result<IpcStream, QueryError> {
    let writer =
        StreamWriter::try_new(Vec::new(), &result.schema).map_err(DataFusionError::from)?;
    let state = Some((writer, result.stream));
    let pieces = stream::unfold(state, |state| async move {
        let (writer, rows) = state?;
        match write_next(writer, rows).await {
            Ok((piece, state)) => Some((Ok(piece), state)),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(pieces.flat_map(|piece| stream::iter(chunks(piece))).boxed())
}

type Writing = (StreamWriter<Vec<u8>>, SendableRecordBatchStream);

async fn write_next(
    mut writer: StreamWriter<Vec<u8>>,
    mut rows: SendableRecordBatchStream,
) -> Result<(Bytes, Option<Writing>), QueryError> {
    let more = match rows.next().await {
        Some(batch) => {
            writer.write(&batch?).map_err(DataFusionError::from)?;
            true
        }
        None => {
            writer.finish().map_err(DataFusionError::from)?;
            false
        }
    };
    let piece = Bytes::from(std::mem::take(writer.get_mut()));
    Ok((piece, more.then_some((writer, rows))))
}

fn chunks(piece: Result<Bytes, QueryError>) -> Vec<Result<Bytes, QueryError>> {
    match piece {
        Ok(mut bytes) => {
            let mut chunks = Vec::with_capacity(bytes.len() / CHUNK_BYTES + 1);
            while !bytes.is_empty() {
                chunks.push(Ok(bytes.split_to(bytes.len().min(CHUNK_BYTES))));
            }
            chunks
        }
        Err(error) => vec![Err(error)],
    }
}
