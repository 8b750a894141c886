//! SQL on threads of its own, so that a query never delays a produce.
//!
//! A query is planned and run on the runtime kept for SQL; its batches reach the caller through a short channel,
//! so that a reader who stops reading stops the query, and one who goes away ends it.

use datafusion::common::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use mainstem_broker::Caller;
use mainstem_query::{QueryEngine, QueryError, QueryResult, SQL_STACK_BYTES};
use mainstem_schema::TopicSchema;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;

/// Batches the query may be ahead of its reader.
const AHEAD: usize = 2;

/// How long a query may take to notice that it is to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The threads for SQL, and the engine they run.
pub(crate) struct SqlThreads {
    engine: QueryEngine,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl SqlThreads {
    pub(crate) fn start(engine: QueryEngine, threads: usize) -> std::io::Result<SqlThreads> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("mainstem-sql")
            // Reserved, and used only as deep as a statement goes.
            .thread_stack_size(SQL_STACK_BYTES)
            .enable_time()
            .build()?;
        Ok(SqlThreads {
            engine,
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(crate) fn engine(&self) -> &QueryEngine {
        &self.engine
    }

    pub(crate) async fn run(
        &self,
        caller: &Caller,
        statement: &str,
    ) -> Result<QueryResult, QueryError> {
        let (engine, caller, statement) =
            (self.engine.clone(), caller.clone(), statement.to_string());
        let started = self
            .handle
            .spawn(async move { engine.sql(&caller, &statement).await });
        let result = started.await.map_err(stopped)??;
        let (send, receive) = mpsc::channel(AHEAD);
        let mut rows = result.stream;
        let sending = self.handle.spawn(async move {
            loop {
                // Ends when the reader is gone, even while the query is in the middle of a long step.
                let row = tokio::select! {
                    row = rows.next() => row,
                    () = send.closed() => return,
                };
                match row {
                    Some(row) => {
                        if send.send(row).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                }
            }
        });
        let forwarded = futures::stream::unfold(
            (receive, Some(sending)),
            |(mut receive, mut sending)| async move {
                if let Some(row) = receive.recv().await {
                    return Some((row, (receive, sending)));
                }
                // Whether that was all: a query that was cut short must not look like one that ended.
                let ended = sending.take()?.await;
                let error: DataFusionError = stopped(ended.err()?).into();
                Some((Err(error), (receive, None)))
            },
        );
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&result.schema), forwarded);
        Ok(QueryResult {
            stream: Box::pin(stream),
            ..result
        })
    }

    /// The columns of a topic's values: reading a sample of them is work for these threads, too.
    pub(crate) async fn infer_topic_schema(
        &self,
        caller: &Caller,
        topic: &str,
    ) -> Result<TopicSchema, QueryError> {
        let (engine, caller, topic) = (self.engine.clone(), caller.clone(), topic.to_string());
        let inferring = self
            .handle
            .spawn(async move { engine.infer_topic_schema(&caller, &topic).await });
        inferring.await.map_err(stopped)?
    }

    /// Ends every query, and waits a little for those in the middle of a long step: what they hold keeps the store
    /// open.
    pub(crate) fn stop(&self) {
        let Some(runtime) = self.runtime.lock().take() else {
            return;
        };
        // On a thread of its own, since waiting is not allowed where the caller is itself moved by tokio.
        let stopping = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
        let _ = stopping.join();
    }
}

fn stopped(error: tokio::task::JoinError) -> QueryError {
    let message = if error.is_cancelled() {
        "the platform is shutting down"
    } else {
        "the query stopped unexpectedly"
    };
    QueryError::Failed {
        message: message.into(),
    }
}
