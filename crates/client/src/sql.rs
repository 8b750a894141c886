//! SQL: a statement goes out, the bytes of an Arrow IPC stream come back.

use bytes::Bytes;
use mainstem_proto::v1::sql_client::SqlClient;
use mainstem_proto::v1::{QueryRequest, QueryResponse, query_response::Part};
use tonic::Streaming;

use crate::{Client, ClientError};

/// One thing that a query has to tell beside its rows.
pub use mainstem_proto::v1::Notice;

/// A result: chunks of one Arrow IPC stream, cut anywhere; give them to Arrow's `StreamReader` or `StreamDecoder` one
/// after the other. Dropping it ends the query.
#[derive(Debug)]
pub struct SqlStream {
    client: Client,
    answers: Streaming<QueryResponse>,
    notices: Vec<Notice>,
    lsn: u64,
    ended: bool,
}

impl Client {
    /// Runs one SQL statement.
    pub async fn sql(&self, statement: &str) -> Result<SqlStream, ClientError> {
        let request = self.request(QueryRequest {
            sql: statement.to_owned(),
        });
        // Of its own: a result that is read slowly must not hold up other calls.
        let mut sql = SqlClient::new(self.own_channel());
        let answers = sql
            .query(request)
            .await
            .map_err(|status| self.error(&status))?
            .into_inner();
        Ok(SqlStream {
            client: self.clone(),
            answers,
            notices: Vec::new(),
            lsn: 0,
            ended: false,
        })
    }
}

impl SqlStream {
    /// The next chunk; `None` when the result is complete. A result that breaks off is an error, never an end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        while !self.ended {
            let part = match self.answers.message().await {
                Ok(Some(QueryResponse { part: Some(part) })) => part,
                Ok(Some(QueryResponse { part: None })) => continue,
                Ok(None) => {
                    self.ended = true;
                    return Some(Err(ClientError::protocol(
                        "the result broke off before its end",
                    )));
                }
                Err(status) => {
                    self.ended = true;
                    return Some(Err(self.client.error(&status)));
                }
            };
            match part {
                Part::ArrowIpc(bytes) => return Some(Ok(bytes)),
                Part::End(end) => {
                    self.notices = end.notices;
                    self.lsn = end.lsn;
                    self.ended = true;
                }
            }
        }
        None
    }

    /// What the query has to tell beside its rows; complete once `next` has answered `None`.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The snapshot's LSN; known once `next` has answered `None`.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }
}
