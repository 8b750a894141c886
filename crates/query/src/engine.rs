//! A query from its text to its stream.

use crate::catalog::{CATALOG, PUBLIC, QueryCatalog};
use crate::columns::TIME_ZONE;
use crate::infer::{SampleCache, topic_schema};
use crate::scan::BATCH_ROWS;
use crate::state::HandlerTable;
use crate::statement::parse;
use crate::system::{PartitionsTable, SystemTables, TopicsTable};
use crate::{HandlerCatalog, Notices, QueryError, SystemTable};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig};
use futures::future::BoxFuture;
use mainstem_broker::{Broker, BrokerError, Caller, Topic};
use mainstem_engine::{Lsn, Snapshot};
use mainstem_log::{Bounds, PartitionId};
use mainstem_schema::TopicSchema;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What SQL may use.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Bytes that all queries together may hold in sorts, joins, groupings and scans.
    pub memory_bytes: usize,
    /// Streams that a query is split into; the threads they run on are those of the runtime that polls them.
    pub threads: usize,
}

impl Default for QueryOptions {
    fn default() -> QueryOptions {
        QueryOptions {
            memory_bytes: 128 << 20,
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}

/// Answers SQL statements over a broker and its engine. Cheap to clone.
#[derive(Clone)]
pub struct QueryEngine {
    broker: Broker,
    config: SessionConfig,
    /// One pool for all queries.
    runtime: Arc<RuntimeEnv>,
    handlers: Option<Arc<dyn HandlerCatalog>>,
    /// Each query takes the tables as they are when it begins.
    system: Arc<RwLock<Arc<SystemTables>>>,
    samples: Arc<SampleCache>,
}

/// A running query. Dropping the stream ends it.
pub struct QueryResult {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows; the query runs as far as it is read. An error in it converts into [`QueryError`].
    pub stream: SendableRecordBatchStream,
    /// Filled while the stream is read.
    pub notices: Notices,
    /// The snapshot's LSN: every frame up to it is seen, none after it.
    pub lsn: Lsn,
}

/// What everything in one query shares: who asks, and the one moment that is read.
pub(crate) struct QueryContext {
    pub(crate) caller: Caller,
    pub(crate) snapshot: Snapshot,
    pub(crate) topics: BTreeMap<String, Arc<Topic>>,
    pub(crate) handlers: BTreeMap<String, Arc<HandlerTable>>,
    pub(crate) samples: Arc<SampleCache>,
    pub(crate) notices: Notices,
}

impl QueryContext {
    /// A topic's partitions at the snapshot, with their bounds.
    pub(crate) fn partitions(
        &self,
        topic: &Topic,
    ) -> impl Iterator<Item = (PartitionId, Bounds)> + '_ {
        partitions(&self.snapshot, topic)
    }
}

/// A topic's partitions at a snapshot, with their bounds.
pub(crate) fn partitions<'a>(
    snapshot: &'a Snapshot,
    topic: &Topic,
) -> impl Iterator<Item = (PartitionId, Bounds)> + use<'a> {
    let (first, last) = (
        PartitionId::new(topic.id, 0),
        PartitionId::new(topic.id, u32::MAX),
    );
    snapshot
        .log
        .partitions
        .range(first..=last)
        .map(|(partition, bounds)| (*partition, *bounds))
}

impl QueryEngine {
    /// An engine over this broker, with the tables of the broker itself.
    pub fn new(broker: Broker, options: QueryOptions) -> Result<QueryEngine, QueryError> {
        let greedy = GreedyMemoryPool::new(options.memory_bytes);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(greedy, NonZeroUsize::MIN)))
            // A query that needs more than its memory fails; it does not fill the disk that the journal needs.
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build_arc()?;
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, PUBLIC)
            .with_batch_size(BATCH_ROWS)
            .with_target_partitions(options.threads.max(1));
        config.options_mut().execution.time_zone = Some(TIME_ZONE.into());
        let engine = QueryEngine {
            config,
            runtime,
            handlers: None,
            system: Arc::default(),
            samples: Arc::default(),
            broker,
        };
        engine.register_system_table(Arc::new(TopicsTable::new(engine.broker.clone())));
        engine.register_system_table(Arc::new(PartitionsTable::new(engine.broker.clone())));
        Ok(engine)
    }

    /// Adds schema `state`; clones made before do not have it.
    pub fn with_handler_tables(mut self, handlers: Arc<dyn HandlerCatalog>) -> QueryEngine {
        self.handlers = Some(handlers);
        self
    }

    /// Adds a table to schema `system`, for all clones; one of the same name is replaced.
    pub fn register_system_table(&self, table: Arc<dyn SystemTable>) {
        let mut tables = self.system.write();
        Arc::make_mut(&mut tables).insert(table.name().to_owned(), table);
    }

    /// Plans a statement against a snapshot taken now, and starts it.
    pub async fn sql(&self, caller: &Caller, statement: &str) -> Result<QueryResult, QueryError> {
        self.boxed(caller, statement).await
    }

    /// A future's body is compiled in the crate that awaits it, and this one has SQL's whole planner in it. Behind a
    /// plain function and a box it stays in this crate, and is not compiled again by every caller.
    #[inline(never)]
    fn boxed<'a>(
        &'a self,
        caller: &'a Caller,
        statement: &'a str,
    ) -> BoxFuture<'a, Result<QueryResult, QueryError>> {
        Box::pin(self.answer(caller, statement))
    }

    async fn answer(&self, caller: &Caller, statement: &str) -> Result<QueryResult, QueryError> {
        // What does not parse costs no snapshot.
        let statement = parse(statement)?;
        let context = self.context(caller).await?;
        let catalog = QueryCatalog::new(context.clone(), self.system.read().clone());
        let mut state = SessionStateBuilder::new()
            .with_config(self.config.clone())
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .build();
        // The time that now() means, all through the query.
        state.mark_start_execution();
        state
            .catalog_list()
            .register_catalog(CATALOG.to_owned(), Arc::new(catalog.clone()));
        for table in state.resolve_table_references(&statement)? {
            if let Some(missing) = catalog.missing(&table) {
                return Err(missing);
            }
        }
        let plan = state.statement_to_plan(statement).await?;
        // The statement was let through by its text; this looks at what it came to (SELECT … INTO makes a table).
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|_| crate::statement::refusal("INSERT", ""))?;
        let plan = state.create_physical_plan(&plan).await?;
        let stream = execute_stream(plan, state.task_ctx())?;
        Ok(QueryResult {
            schema: stream.schema(),
            stream,
            notices: context.notices.clone(),
            lsn: context.snapshot.lsn,
        })
    }

    /// The columns of a topic's values: those declared, or those that a sample of its records shows.
    pub async fn infer_topic_schema(
        &self,
        caller: &Caller,
        topic: &str,
    ) -> Result<TopicSchema, QueryError> {
        let known = self.broker.topic(caller, topic)?;
        let context = self.context(caller).await?;
        match context.topics.get(topic) {
            Some(topic) => topic_schema(&context, topic),
            // Deleted in between.
            None => Err(BrokerError::TopicNotFound {
                topic: known.name.to_string(),
                near: Vec::new(),
            }
            .into()),
        }
    }

    /// Takes the snapshot. Names are read before it: what has gone since is not in the snapshot and left out, what
    /// has come since is not in the names, so both agree.
    async fn context(&self, caller: &Caller) -> Result<Arc<QueryContext>, QueryError> {
        let topics = self.broker.list_topics(caller)?;
        let handlers = self
            .handlers
            .as_ref()
            .map(|handlers| handlers.handlers(caller))
            .unwrap_or_default();
        let snapshot = self.broker.engine().snapshot().await?;
        Ok(Arc::new(QueryContext {
            caller: caller.clone(),
            topics: topics
                .into_iter()
                .filter(|topic| partitions(&snapshot, topic).next().is_some())
                .map(|topic| (topic.name.to_string(), topic))
                .collect(),
            handlers: handlers
                .into_iter()
                .map(|handler| (handler.name.to_string(), Arc::new(handler)))
                .collect(),
            samples: self.samples.clone(),
            notices: Notices::default(),
            snapshot,
        }))
    }
}
