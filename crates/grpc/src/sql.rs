//! Service `Sql`: a statement in, an Arrow IPC stream out.

use std::pin::Pin;

use futures::StreamExt;
use futures::stream::{self, Stream};
use mainstem::query::query_to_ipc;
use mainstem_proto::v1::{self, query_response::Part};
use tonic::{Request, Response, Status};

use crate::call::Platform;
use crate::errors;

/// The service.
pub(crate) struct Sql {
    pub(crate) platform: Platform,
}

#[tonic::async_trait]
impl v1::sql_server::Sql for Sql {
    type QueryStream = Pin<Box<dyn Stream<Item = Result<v1::QueryResponse, Status>> + Send>>;

    async fn query(
        &self,
        request: Request<v1::QueryRequest>,
    ) -> Result<Response<Self::QueryStream>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let result = self
            .platform
            .mainstem
            .sql(&caller, &request.into_inner().sql)
            .await;
        let result = result.map_err(errors::query)?;
        let (notices, lsn) = (result.notices.clone(), result.lsn.0);
        let chunks = query_to_ipc(result).map_err(errors::query)?;
        let chunks = chunks.map(|chunk| match chunk {
            Ok(bytes) => Ok(answer(Part::ArrowIpc(bytes))),
            Err(error) => Err(errors::query(error)),
        });
        // Only now are the notices complete; after an error there is no end.
        let end = stream::once(async move {
            let notices = notices.list().into_iter().map(|notice| v1::Notice {
                code: notice.code.to_owned(),
                message: notice.message,
                count: notice.count,
            });
            Ok(answer(Part::End(v1::QueryEnd {
                notices: notices.collect(),
                lsn,
            })))
        });
        let mut failed = false;
        let answers = chunks.chain(end).take_while(move |answer| {
            let go_on = !failed;
            failed |= answer.is_err();
            std::future::ready(go_on)
        });
        let stopping = self.platform.stopping();
        let stopped = stream::once(async move {
            stopping.await;
            Err(errors::stopping())
        });
        Ok(Response::new(
            until_stopped(answers.boxed(), stopped.boxed()).boxed(),
        ))
    }
}

fn answer(part: Part) -> v1::QueryResponse {
    v1::QueryResponse { part: Some(part) }
}

/// The answers, or an error once the server stops.
fn until_stopped<T: Send>(
    answers: impl Stream<Item = T> + Send + Unpin,
    stopped: impl Stream<Item = T> + Send + Unpin,
) -> impl Stream<Item = T> + Send {
    stream::unfold(Some((answers, stopped)), |streams| async move {
        let (mut answers, mut stopped) = streams?;
        tokio::select! {
            biased;
            Some(last) = stopped.next() => Some((last, None)),
            answer = answers.next() => Some((answer?, Some((answers, stopped)))),
        }
    })
}
