//! SQL over gRPC, with rows as JSON.

use std::io::Cursor;

use arrow::ipc::reader::StreamReader;
use arrow::json::ArrayWriter;
use mainstem_client::{Client, ClientError};
use serde_json::Value;

/// Why there are no rows.
pub(super) enum NoRows {
    /// The server has gone, or said no.
    Client(ClientError),
    /// What came cannot be read.
    Unreadable(String),
}

/// Runs a query to its end.
pub(super) async fn rows(client: &Client, statement: &str) -> Result<Vec<Value>, NoRows> {
    let mut stream = client.sql(statement).await.map_err(NoRows::Client)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(NoRows::Client)?);
    }
    decode(bytes).map_err(NoRows::Unreadable)
}

/// Runs a query to its end and counts its rows, holding none of them.
pub(super) async fn drain(client: &Client, statement: &str) -> Result<u64, ClientError> {
    let mut stream = client.sql(statement).await?;
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        bytes += chunk?.len() as u64;
    }
    Ok(bytes)
}

fn decode(bytes: Vec<u8>) -> Result<Vec<Value>, String> {
    let reader =
        StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
    let mut writer = ArrayWriter::new(Vec::new());
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        writer.write(&batch).map_err(|error| error.to_string())?;
    }
    writer.finish().map_err(|error| error.to_string())?;
    let json = writer.into_inner();
    if json.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}
