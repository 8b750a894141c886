//! Opening a data directory, the handle, and the way down.

use crate::descriptors::Descriptors;
use crate::directory::{DataDirectory, io};
use crate::handlers::{Handlers, committed_events};
use crate::latency::Latencies;
use crate::sql::SqlThreads;
use crate::status::Facts;
use crate::threads::Threads;
use crate::timed_disk::TimedDisk;
use crate::unpack::Room;
use crate::{Error, Options, RecoveryReport, Status, system_tables};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use mainstem_broker::{Broker, Caller};
use mainstem_engine::{Engine, RecoveryProgress};
use mainstem_journal::{Disk, RealDisk};
use mainstem_query::{QueryEngine, QueryError, QueryOptions, QueryResult};
use mainstem_runtime::{Runtime, RuntimeOptions};
use mainstem_schema::TopicSchema;
use mainstem_store::{RocksStore, Store, StoreOptions};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The platform, running. Cheap to clone; the last handle to go stops every thread and frees the directory.
#[derive(Clone)]
pub struct Mainstem {
    inner: Arc<Inner>,
}

// The order of the fields is the order of their end: queries, threads, and only then the lock.
struct Inner {
    sql: SqlThreads,
    threads: Mutex<Threads>,
    facts: Facts,
    latencies: Arc<Latencies>,
    room_to_unpack: Room,
    directory: DataDirectory,
}

impl Mainstem {
    /// Opens a data directory, made if it is not there, and recovers what it holds. Blocks until the platform
    /// serves.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Mainstem, Error> {
        let begun = Instant::now();
        options.check()?;
        let settings = options.broker_settings()?;
        let retention_every = Duration::from_millis(options.retention_interval_ms()?);
        let compaction_every = Duration::from_millis(options.compaction_interval_ms()?);
        let directory = DataDirectory::take(dir.as_ref(), &RealDisk)?;
        let latencies = Arc::new(Latencies::default());
        let timed = TimedDisk::new(RealDisk, &directory.path, Arc::clone(&latencies));
        let disk: Arc<dyn Disk> = Arc::new(timed);
        let memory = options.memory();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let or_cores = |count: usize| if count == 0 { cores } else { count };
        let no_threads = || io("start threads for", &directory.path);

        let mut engine_options = options.engine();
        engine_options.producer_expiration_ms = options.producer_expiration_ms()?;
        let mut store_options = StoreOptions {
            memory_bytes: size(memory.store_bytes),
            ..StoreOptions::default()
        };
        let files = Descriptors::take(options.max_open_files, store_options.max_open_files);
        engine_options.log.max_open_files = files.segments;
        engine_options.log.max_sent_files = files.sent;
        store_options.max_open_files = files.store;
        let store: Arc<dyn Store> = Arc::new(RocksStore::open(&directory.store(), store_options)?);
        let opened = Engine::open(
            Arc::clone(&disk),
            &directory.path,
            store,
            engine_options,
            &mut say_progress(),
        )?;
        let replayed = opened.recovery;
        let mut threads =
            Threads::start(opened.engine.clone(), opened.workers).map_err(no_threads())?;

        opened.engine.tell_time(now_ms());
        let broker = Broker::open(opened.engine, settings)?;
        let runtime_options = RuntimeOptions {
            handlers_memory_bytes: memory.handlers_bytes,
            ..RuntimeOptions::new(disk, directory.modules())
        };
        let runtime = Runtime::open(broker.clone(), runtime_options, now_ms())?;
        // Before any task moves: where the handlers stood when the last process ended.
        let handlers = committed_events(&broker, &runtime)?;

        let query_options = QueryOptions {
            memory_bytes: size(memory.sql_bytes),
            threads: or_cores(options.sql_threads),
        };
        let known_handlers = Arc::new(Handlers {
            runtime: runtime.clone(),
        });
        let query =
            QueryEngine::new(broker.clone(), query_options)?.with_handler_tables(known_handlers);
        let facts = Facts {
            meta: directory.meta.clone(),
            data_dir: directory.path.clone(),
            broker: broker.clone(),
            runtime: runtime.clone(),
            started_ms: now_ms(),
            memory_limit_bytes: options.memory_limit_bytes,
            recovery: Arc::new(RecoveryReport {
                replayed_frames: replayed.replayed_frames,
                read_bytes: replayed.read_bytes,
                took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                handlers,
            }),
        };
        system_tables::register(&query, &facts);
        let sql = SqlThreads::start(query, or_cores(options.sql_threads)).map_err(no_threads())?;
        threads
            .start_tasks(runtime, or_cores(options.task_workers))
            .map_err(no_threads())?;
        threads
            .start_coordinators(broker.clone())
            .map_err(no_threads())?;
        threads
            .start_retention(broker, retention_every, compaction_every)
            .map_err(no_threads())?;
        tracing::info!(
            data_dir = %directory.path.display(),
            cluster_id = %directory.meta.cluster_id,
            replayed_frames = replayed.replayed_frames,
            took_ms = facts.recovery.took_ms,
            "opened"
        );
        Ok(Mainstem {
            inner: Arc::new(Inner {
                sql,
                threads: Mutex::new(threads),
                facts,
                latencies,
                // Of what is left for the rest.
                room_to_unpack: Room::new(options.memory_limit_bytes / 64),
                directory,
            }),
        })
    }

    /// Topics, produce and fetch.
    pub fn broker(&self) -> &Broker {
        &self.inner.facts.broker
    }

    /// Handlers.
    pub fn runtime(&self) -> &Runtime {
        &self.inner.facts.runtime
    }

    /// The SQL engine itself; queries go through [`Mainstem::sql`], which keeps them off the caller's threads.
    pub fn query(&self) -> &QueryEngine {
        self.inner.sql.engine()
    }

    /// The engine under the broker.
    pub fn engine(&self) -> &Engine {
        self.broker().engine()
    }

    /// Runs one SQL statement on the threads kept for SQL; its stream holds the query back when it is not read, and
    /// ends it when it is dropped.
    pub async fn sql(&self, caller: &Caller, statement: &str) -> Result<QueryResult, QueryError> {
        self.inner.sql.run(caller, statement).await
    }

    /// The columns of a topic's values: those declared, or those that a sample of its records shows.
    pub async fn infer_topic_schema(
        &self,
        caller: &Caller,
        topic: &str,
    ) -> Result<TopicSchema, QueryError> {
        self.inner.sql.infer_topic_schema(caller, topic).await
    }

    /// The whole result of a statement, where it is known to be small.
    pub async fn sql_all(
        &self,
        caller: &Caller,
        statement: &str,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let mut stream = self.sql(caller, statement).await?.stream;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    /// How long producing and syncing take, since the directory was opened.
    pub fn latencies(&self) -> &Latencies {
        &self.inner.latencies
    }

    /// Room for what [`Mainstem::unpack`] decompresses.
    pub(crate) fn room_to_unpack(&self) -> &Room {
        &self.inner.room_to_unpack
    }

    /// Whether writes have stopped because a disk was full, and there is space again: to [`Mainstem::shutdown`], to let
    /// go of every handle and to open the directory anew then takes writes again. The server does so by itself. Asks the
    /// disks.
    pub fn has_space_again(&self) -> bool {
        self.engine().has_space_again()
    }

    /// What the platform is doing now.
    pub fn status(&self) -> Status {
        self.inner.facts.status()
    }

    /// How large the disk of the data directory is, if the operating system says so.
    pub fn disk_total_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.inner.directory.path).ok()?;
        stat.f_frsize.checked_mul(stat.f_blocks)
    }

    /// The cluster's id, made once with the directory.
    pub fn cluster_id(&self) -> String {
        self.inner.directory.meta.cluster_id.to_string()
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.inner.directory.path
    }

    /// Stops cleanly: no new work, everything admitted is durable and checkpointed, every thread has ended when it
    /// returns. Blocks; a second call does nothing.
    pub fn shutdown(&self) -> Result<(), Error> {
        self.inner.sql.stop();
        self.inner.threads.lock().stop();
        match self.engine().status().poisoned {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sql.stop();
        self.threads.lock().stop();
    }
}

impl std::fmt::Debug for Mainstem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mainstem")
            .field("dir", &self.inner.directory.path)
            .finish_non_exhaustive()
    }
}

/// The present, in milliseconds since 1970, by this machine's clock: what calls of broker and runtime take as
/// `now_ms`.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
        })
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Tells how far a replay is once a second, and at its end.
fn say_progress() -> impl FnMut(RecoveryProgress) {
    let mut said = Instant::now();
    let mut said_bytes = 0;
    move |RecoveryProgress {
              read_bytes,
              total_bytes,
          }| {
        let is_all = read_bytes == total_bytes && said_bytes != read_bytes;
        if is_all || said.elapsed() >= Duration::from_secs(1) {
            (said, said_bytes) = (Instant::now(), read_bytes);
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            tracing::info!("recovered {} of {} MiB", mib(read_bytes), mib(total_bytes));
        }
    }
}
