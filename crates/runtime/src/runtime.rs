//! The runtime: handlers deployed, their tasks, and the calls that change them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mainstem_broker::{Broker, Caller, keys::whole_catalog};
use mainstem_engine::Promise;
use mainstem_journal::Disk;
use mainstem_store::Family;
use parking_lot::Mutex;

use crate::catalog::HandlerRecord;
use crate::control::TaskHandle;
use crate::executor::Executor;
use crate::memory::MemoryPool;
use crate::wasm::ModuleStore;
use crate::{
    HandlerModule, HandlerState, HandlerStatus, InputStatus, Next, RuntimeError, TaskState,
    TaskStatus, keys,
};

/// How a runtime is set up.
#[derive(Clone)]
pub struct RuntimeOptions {
    /// Where components are kept: `modules/` in the data directory.
    pub modules_dir: PathBuf,
    /// The disk they are kept on.
    pub disk: Arc<dyn Disk>,
    /// Events of a step at most.
    pub max_step_events: usize,
    /// Bytes of a step's events at most; also of its outputs and of its state changes, each. Three times this must fit
    /// into a frame.
    pub max_step_bytes: usize,
    /// Frames of a task that may be on their way at a time.
    pub max_in_flight: usize,
    /// Bytes that the instances of all handlers together may hold.
    pub handlers_memory_bytes: u64,
    /// The first wait after a failure; it doubles up to a hundredfold.
    pub backoff_ms: i64,
    /// Instead of turn by turn, choose which task moves next with this seed: for simulations.
    pub schedule_seed: Option<u64>,
}

impl RuntimeOptions {
    /// Options with defaults.
    pub fn new(disk: Arc<dyn Disk>, modules_dir: impl Into<PathBuf>) -> RuntimeOptions {
        RuntimeOptions {
            modules_dir: modules_dir.into(),
            disk,
            max_step_events: 16 * 1024,
            max_step_bytes: 4 << 20,
            max_in_flight: 4,
            handlers_memory_bytes: 128 << 20,
            backoff_ms: 100,
            schedule_seed: None,
        }
    }
}

/// Handlers and their tasks. Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) broker: Broker,
    pub(crate) options: RuntimeOptions,
    pub(crate) executor: Executor,
    /// What reads and compiles code: apart, because it takes up to seconds, and tasks share a few threads.
    pub(crate) compiler: Executor,
    pub(crate) memory: Arc<MemoryPool>,
    pub(crate) modules: Arc<ModuleStore>,
    pub(crate) handlers: Mutex<BTreeMap<HandlerName, Handler>>,
    /// Moved, under the lock of `handlers`, by whoever makes them what was read of the catalogue before.
    pub(crate) handler_changes: AtomicU64,
    /// Code of this process, by handler.
    pub(crate) native: Arc<Mutex<BTreeMap<HandlerName, NativeCode>>>,
    /// Removals under way, by the handler's id: whoever asks for the same one waits for it. Held by the removal's job,
    /// so that nobody waits for one that has been dropped.
    pub(crate) removals: Mutex<BTreeMap<u64, Weak<Waiters>>>,
}

/// Those who wait for one removal.
pub(crate) type Waiters = Mutex<Vec<Promise<()>>>;

/// A version, and the code of it.
pub(crate) type NativeCode = (String, Arc<dyn HandlerModule>);

/// Tenant and name.
pub(crate) type HandlerName = (Arc<str>, Arc<str>);

pub(crate) struct Handler {
    pub(crate) record: Arc<HandlerRecord>,
    pub(crate) tasks: Vec<Arc<TaskHandle>>,
    /// The partitions of its inputs, all together, that its tasks have been started for.
    pub(crate) partitions: u32,
}

impl Runtime {
    /// Opens the runtime on what the catalogue holds: tasks of running handlers are ready to be moved, removals that a
    /// crash interrupted go on.
    pub fn open(
        broker: Broker,
        options: RuntimeOptions,
        now_ms: i64,
    ) -> Result<Runtime, RuntimeError> {
        let modules = Arc::new(ModuleStore::open(
            options.disk.clone(),
            options.modules_dir.clone(),
        )?);
        let executor = Executor::new(options.schedule_seed, now_ms);
        let compiler = Executor::new(None, now_ms);
        let memory = MemoryPool::new(options.handlers_memory_bytes);
        let (handlers, native) = (Mutex::default(), Arc::default());
        let runtime = Runtime {
            inner: Arc::new(Inner {
                broker,
                options,
                executor,
                compiler,
                memory,
                modules,
                handlers,
                handler_changes: AtomicU64::new(0),
                native,
                removals: Mutex::default(),
            }),
        };
        let records = runtime.read_all()?;
        let needed = records.iter().map(|record| &*record.version).collect();
        if let Err(error) = runtime.inner.modules.remove_unneeded(&needed) {
            // They take space and do no harm; the next start tries again.
            tracing::warn!(%error, "old components cannot be removed");
        }
        for record in records {
            match record.removing {
                true => drop(runtime.start_removal(Arc::new(record))),
                false => {
                    let partitions = runtime.covered_partitions(&record);
                    let mut handlers = runtime.inner.handlers.lock();
                    runtime.install(&mut handlers, Arc::new(record), partitions);
                }
            }
        }
        runtime.watch_inputs();
        Ok(runtime)
    }

    /// All handlers of the tenant, by name.
    pub fn list(&self, caller: &Caller) -> Vec<HandlerStatus> {
        let handlers = self.inner.handlers.lock();
        let of_tenant = handlers
            .iter()
            .filter(|((tenant, _), _)| *tenant == caller.tenant);
        let found: Vec<_> = of_tenant
            .map(|(_, handler)| (handler.record.clone(), handler.tasks.clone()))
            .collect();
        drop(handlers);
        found
            .into_iter()
            .map(|(record, tasks)| self.status_of(&record, &tasks))
            .collect()
    }

    /// One handler.
    pub fn status(&self, caller: &Caller, name: &str) -> Result<HandlerStatus, RuntimeError> {
        let (record, tasks) = self.find(caller, name)?;
        Ok(self.status_of(&record, &tasks))
    }

    /// Stops the handler's tasks after the step they are in; stays so over restarts.
    pub async fn pause(
        &self,
        caller: &Caller,
        name: &str,
        now_ms: i64,
    ) -> Result<HandlerStatus, RuntimeError> {
        self.set_paused(caller, name, true, now_ms).await
    }

    /// Lets a paused or halted handler go on.
    pub async fn resume(
        &self,
        caller: &Caller,
        name: &str,
        now_ms: i64,
    ) -> Result<HandlerStatus, RuntimeError> {
        self.set_paused(caller, name, false, now_ms).await
    }

    async fn set_paused(
        &self,
        caller: &Caller,
        name: &str,
        paused: bool,
        now_ms: i64,
    ) -> Result<HandlerStatus, RuntimeError> {
        let (runtime, who, name) = (self.clone(), caller.clone(), name.to_owned());
        self.to_its_end(async move {
            let change = |record: &mut HandlerRecord| {
                if record.paused != paused {
                    (record.paused, record.updated_ms) = (paused, now_ms);
                }
            };
            runtime.change(&who, &name, change).await?;
            runtime.follow(&who.tenant, &name)?;
            runtime.status(&who, &name)
        })
        .await
    }

    /// Removes the handler with its state and offsets; its topics stay. Resolves when all is gone.
    pub async fn remove(
        &self,
        caller: &Caller,
        name: &str,
        now_ms: i64,
    ) -> Result<(), RuntimeError> {
        let (runtime, who, name) = (self.clone(), caller.clone(), name.to_owned());
        self.to_its_end(async move {
            let change = |record: &mut HandlerRecord| {
                if !record.removing {
                    (record.removing, record.updated_ms) = (true, now_ms);
                }
            };
            let record = runtime.change(&who, &name, change).await?;
            Ok(runtime.start_removal(Arc::new(record)).await?)
        })
        .await
    }

    /// Where the state of each task of a handler lies in `Family::State`: partition number and key prefix, for those
    /// who read it (see [`crate::keys::StateKey`]).
    pub fn state_prefixes(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<Vec<(u32, Bytes)>, RuntimeError> {
        let (record, _) = self.find(caller, name)?;
        let prefix =
            |(partition, shard)| (partition, keys::state_prefix(shard, record.id, partition));
        Ok(record.tasks().map(prefix).collect())
    }

    /// Moves one task by one turn, at this time. For any number of threads at once; a task is moved by one at a time.
    pub fn work(&self, now_ms: i64) -> Next {
        self.inner.executor.work(now_ms)
    }

    /// Blocks this thread until there may be work, or the time is up.
    pub fn park(&self, timeout: Duration) {
        self.inner.executor.park(timeout);
    }

    /// Makes the code of one handler ready whose tasks wait for it: read, or compiled where this program has not compiled it
    /// for this machine yet. It takes up to seconds: for a thread of its own, while others call [`Runtime::work`]. Nothing
    /// is compiled by two at once.
    pub fn compile(&self, now_ms: i64) -> Next {
        self.inner.compiler.work(now_ms)
    }

    /// Blocks this thread until there may be something to compile, or the time is up.
    pub fn park_compiler(&self, timeout: Duration) {
        self.inner.compiler.park(timeout);
    }

    /// Ends all tasks; what is on its way is left to the engine. Wakes all parked threads; `work` and `compile` answer
    /// [`Next::Closed`] from now on.
    pub fn close(&self) {
        self.inner.compiler.close();
        self.inner.executor.close();
    }

    pub(crate) fn find(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<(Arc<HandlerRecord>, Vec<Arc<TaskHandle>>), RuntimeError> {
        let handlers = self.inner.handlers.lock();
        let found = handlers.get(&(caller.tenant.clone(), name.into()));
        found
            .map(|handler| (handler.record.clone(), handler.tasks.clone()))
            .ok_or_else(|| RuntimeError::UnknownHandler {
                name: name.to_owned(),
            })
    }

    fn status_of(&self, record: &HandlerRecord, tasks: &[Arc<TaskHandle>]) -> HandlerStatus {
        let caller = caller_of(record);
        let tasks: Vec<TaskStatus> = tasks
            .iter()
            .map(|task| self.task_status(&caller, record, task))
            .collect();
        let state = match record {
            _ if record.removing => HandlerState::Removing,
            _ if record.paused => HandlerState::Paused,
            _ if tasks.iter().any(|task| task.state == TaskState::Halted) => HandlerState::Halted,
            _ if tasks.iter().any(|task| task.state == TaskState::Compiling) => {
                HandlerState::Compiling
            }
            _ => HandlerState::Running,
        };
        HandlerStatus {
            name: record.name.clone(),
            id: record.id,
            version: record.version.clone(),
            generation: record.generation,
            state,
            inputs: record.inputs.clone(),
            outputs: record.outputs.clone(),
            dead_letter_topic: record.dead_letter_topic(),
            on_error: record.on_error,
            start: record.start,
            fuel_per_event: record.fuel_per_event,
            memory_bytes: record.memory_bytes,
            created_ms: record.created_ms,
            updated_ms: record.updated_ms,
            tasks,
        }
    }

    fn task_status(
        &self,
        caller: &Caller,
        record: &HandlerRecord,
        task: &TaskHandle,
    ) -> TaskStatus {
        let broker = &self.inner.broker;
        let mut status = task.status.lock().clone();
        status.events_per_second = task.rate.lock().get(self.inner.executor.now_ms());
        if status.inputs.is_empty() {
            // The task has not come to reading them itself, but what it lags behind counts from the first moment.
            status.inputs = self.kept_positions(caller, record, status.partition);
        }
        for input in &mut status.inputs {
            if let Ok(bounds) = broker.partition_bounds(caller, &input.topic, status.partition) {
                input.high_watermark = bounds.high_watermark;
            }
        }
        status
    }

    /// Where a task stands, as the store has it; without what cannot be read.
    fn kept_positions(
        &self,
        caller: &Caller,
        record: &HandlerRecord,
        partition: u32,
    ) -> Vec<InputStatus> {
        let Some(shard) = record.shards.get(partition as usize) else {
            return Vec::new();
        };
        let store = self.inner.broker.engine().store();
        let position = |name: &String| {
            let topic = self.inner.broker.topic(caller, name).ok()?;
            topic.partition_id(partition)?;
            let key = keys::offset_key(*shard, record.id, partition, topic.id.0);
            let kept = store.get(Family::Offsets, &key).ok()??;
            let offset = keys::read_number(&kept)? as i64;
            Some(InputStatus {
                topic: topic.name.clone(),
                offset,
                high_watermark: offset,
            })
        };
        record.inputs.iter().filter_map(position).collect()
    }

    pub(crate) fn read_all(&self) -> Result<Vec<HandlerRecord>, RuntimeError> {
        use mainstem_broker::keys::{Kind, parse_catalog_key};
        let mut records = Vec::new();
        let mut failure = None;
        self.inner.broker.engine().store().scan_prefix(
            Family::Catalog,
            &whole_catalog(),
            &mut |key, value| {
                if let Some((_, kind, name)) = parse_catalog_key(key)
                    && kind == Kind::Handler as u8
                {
                    match HandlerRecord::decode(name, value) {
                        Ok(record) => records.push(record),
                        Err(error) => failure = Some(error),
                    }
                }
                std::ops::ControlFlow::Continue(())
            },
        )?;
        failure.map_or(Ok(records), Err)
    }
}

/// Tasks act for their handler, in its tenant.
pub(crate) fn caller_of(record: &HandlerRecord) -> Caller {
    Caller {
        tenant: record.tenant.as_str().into(),
        principal: format!("handler:{}", record.name).into(),
    }
}
