//! The runtime: handlers deployed, their tasks, and the calls that change them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mainstem_broker::{Broker, Caller, keys::whole_catalog};
use mainstem_engine::{Check, EngineError, Promise, Submission, Ticket, ticket};
use mainstem_journal::Disk;
use mainstem_store::{Family, StoreOp};
use parking_lot::Mutex;

use crate::catalog::{self, HandlerRecord};
use crate::control::{Desired, TaskHandle};
use crate::executor::Executor;
use crate::memory::MemoryPool;
use crate::task::{LoadModule, Task};
use crate::wasm::ModuleStore;
use crate::{
    HandlerModule, HandlerState, HandlerStatus, InputStatus, Next, RuntimeError, TaskState,
    TaskStatus, keys, removal,
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
    executor: Executor,
    memory: Arc<MemoryPool>,
    pub(crate) modules: Arc<ModuleStore>,
    handlers: Mutex<BTreeMap<HandlerName, Handler>>,
    /// Code of this process, by handler.
    native: Arc<Mutex<BTreeMap<HandlerName, NativeCode>>>,
    /// Removals under way, by the handler's id: whoever asks for the same one waits for it. Held by the removal's job,
    /// so that nobody waits for one that has been dropped.
    removals: Mutex<BTreeMap<u64, Weak<Waiters>>>,
}

/// Those who wait for one removal.
type Waiters = Mutex<Vec<Promise<()>>>;

/// A version, and the code of it.
type NativeCode = (String, Arc<dyn HandlerModule>);

/// Tenant and name.
type HandlerName = (Arc<str>, Arc<str>);

struct Handler {
    record: Arc<HandlerRecord>,
    tasks: Vec<Arc<TaskHandle>>,
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
        let memory = MemoryPool::new(options.handlers_memory_bytes);
        let (handlers, native) = (Mutex::default(), Arc::default());
        let runtime = Runtime {
            inner: Arc::new(Inner {
                broker,
                options,
                executor,
                memory,
                modules,
                handlers,
                native,
                removals: Mutex::default(),
            }),
        };
        for record in runtime.read_all()? {
            match record.removing {
                true => drop(runtime.start_removal(Arc::new(record))),
                false => runtime.install(record),
            }
        }
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
        let changed = self
            .change(caller, name, |record| {
                (record.paused, record.updated_ms) = (paused, now_ms)
            })
            .await?;
        let mut handlers = self.inner.handlers.lock();
        if let Some(handler) = handlers.get_mut(&(caller.tenant.clone(), name.into()))
            && handler.record.generation == changed.generation
        {
            handler.record = Arc::new(changed);
            let desired = if paused { Desired::Pause } else { Desired::Run };
            handler.tasks.iter().for_each(|task| task.command(desired));
        }
        drop(handlers);
        self.status(caller, name)
    }

    /// Removes the handler with its state and offsets; its topics stay. Resolves when all is gone.
    pub async fn remove(
        &self,
        caller: &Caller,
        name: &str,
        now_ms: i64,
    ) -> Result<(), RuntimeError> {
        let change = |record: &mut HandlerRecord| {
            if !record.removing {
                (record.removing, record.updated_ms) = (true, now_ms);
            }
        };
        let record = Arc::new(self.change(caller, name, change).await?);
        self.start_removal(record).await?;
        Ok(())
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

    /// Ends all tasks; what is on its way is left to the engine. Wakes all parked threads; `work` answers
    /// [`Next::Closed`] from now on.
    pub fn close(&self) {
        self.inner.executor.close();
    }

    fn find(
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

    /// Changes the entry of a handler that is there.
    async fn change(
        &self,
        caller: &Caller,
        name: &str,
        change: impl Fn(&mut HandlerRecord),
    ) -> Result<HandlerRecord, RuntimeError> {
        const TRIES: u32 = 64;
        for _ in 0..TRIES {
            let read = catalog::read(self.inner.broker.engine(), &caller.tenant, name)?;
            let Some(before) = read.record else {
                return Err(RuntimeError::UnknownHandler {
                    name: name.to_owned(),
                });
            };
            let mut record = before.clone();
            change(&mut record);
            if before.removing && (!record.removing || record.paused != before.paused) {
                return Err(RuntimeError::Removing {
                    name: name.to_owned(),
                });
            }
            if record == before {
                return Ok(record);
            }
            let op = StoreOp::put(Family::Catalog, record.key(), record.encode()?);
            if self.submit_checked(vec![op], read.checks).await? {
                return Ok(record);
            }
        }
        Err(RuntimeError::Contended {
            name: name.to_owned(),
        })
    }

    /// Whether the operations were made; not, where somebody else was first.
    pub(crate) async fn submit_checked(
        &self,
        store_ops: Vec<StoreOp>,
        checks: Vec<Check>,
    ) -> Result<bool, RuntimeError> {
        let engine = self.inner.broker.engine();
        let submission = Submission {
            store_ops,
            checks,
            all_or_nothing: true,
            ..Submission::default()
        };
        let permit = engine
            .reserve_with_store(submission.size_bytes(), submission.store_bytes())
            .await?;
        match engine.submit(submission, permit).await {
            Ok(_) => Ok(true),
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read_all(&self) -> Result<Vec<HandlerRecord>, RuntimeError> {
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

    /// Starts the tasks of a deployment, in place of those of an earlier one. The order of their frames is kept by the
    /// fence that each new task takes: what an old one still has under way comes before it, or not at all.
    pub(crate) fn install(&self, record: HandlerRecord) {
        let record = Arc::new(record);
        let name: HandlerName = (record.tenant.as_str().into(), record.name.as_str().into());
        let mut handlers = self.inner.handlers.lock();
        if let Some(known) = handlers.get(&name) {
            if known.record.id == record.id && known.record.generation >= record.generation {
                return;
            }
            known
                .tasks
                .iter()
                .for_each(|task| task.command(Desired::Stop));
        }
        let tasks = record
            .tasks()
            .map(|(partition, shard)| self.start_task(&record, partition, shard))
            .collect();
        handlers.insert(name, Handler { record, tasks });
    }

    fn start_task(
        &self,
        record: &Arc<HandlerRecord>,
        partition: u32,
        shard: u16,
    ) -> Arc<TaskHandle> {
        let handle = Arc::new(TaskHandle::default());
        handle.status.lock().partition = partition;
        if record.paused {
            handle.command(Desired::Pause);
        }
        let task = Task {
            broker: self.inner.broker.clone(),
            caller: caller_of(record),
            executor: self.inner.executor.clone(),
            options: self.inner.options.clone(),
            record: record.clone(),
            partition,
            shard,
            handle: handle.clone(),
            load: self.loader(),
            memory: self.inner.memory.clone(),
        };
        self.inner.executor.spawn(task.run());
        handle
    }

    fn loader(&self) -> Arc<LoadModule> {
        let (native, modules) = (self.inner.native.clone(), self.inner.modules.clone());
        Arc::new(move |record: &HandlerRecord| {
            if record.native {
                let native = native.lock();
                let known =
                    native.get(&(record.tenant.as_str().into(), record.name.as_str().into()));
                return Ok(known
                    .filter(|(version, _)| *version == record.version)
                    .map(|(_, module)| module.clone()));
            }
            let module: Arc<dyn HandlerModule> =
                modules.load(&record.version, record.memory_bytes)?;
            Ok(Some(module))
        })
    }

    /// Makes native code known; tasks that wait for it go on.
    pub(crate) fn register_native(
        &self,
        tenant: &str,
        name: &str,
        version: &str,
        module: Arc<dyn HandlerModule>,
    ) {
        let name: HandlerName = (tenant.into(), name.into());
        self.inner
            .native
            .lock()
            .insert(name.clone(), (version.to_owned(), module));
        let handlers = self.inner.handlers.lock();
        if let Some(handler) = handlers.get(&name)
            && !handler.record.paused
        {
            handler
                .tasks
                .iter()
                .for_each(|task| task.command(Desired::Run));
        }
    }

    /// Stops the tasks, removes what the handler has, and forgets it. Goes on without whoever waits for it; one job does
    /// it, however many ask.
    fn start_removal(&self, record: Arc<HandlerRecord>) -> Ticket<()> {
        let (promise, waiting) = ticket();
        let waiters = {
            let mut removals = self.inner.removals.lock();
            if let Some(waiters) = removals.get(&record.id).and_then(Weak::upgrade) {
                waiters.lock().push(promise);
                return waiting;
            }
            let waiters = Arc::new(Mutex::new(vec![promise]));
            removals.insert(record.id, Arc::downgrade(&waiters));
            waiters
        };
        let name: HandlerName = (record.tenant.as_str().into(), record.name.as_str().into());
        {
            let mut handlers = self.inner.handlers.lock();
            let known = handlers.entry(name.clone()).or_insert_with(|| Handler {
                record: record.clone(),
                tasks: Vec::new(),
            });
            // Whoever asks late may meet the next handler of the name already.
            if known.record.id == record.id {
                known
                    .tasks
                    .iter()
                    .for_each(|task| task.command(Desired::Stop));
                known.record = record.clone();
            }
        }
        let (inner, backoff_ms) = (Arc::downgrade(&self.inner), self.inner.options.backoff_ms);
        let (broker, executor) = (self.inner.broker.clone(), self.inner.executor.clone());
        self.inner.executor.spawn(async move {
            let outcome = loop {
                match removal::remove(broker.engine(), &record).await {
                    Ok(()) => break Ok(()),
                    Err(RuntimeError::Engine(
                        error @ (EngineError::Closed | EngineError::Poisoned { .. }),
                    )) => break Err(error),
                    Err(error) => {
                        tracing::warn!(handler = %record.name, %error, "a removal is tried again");
                    }
                }
                executor
                    .sleep_until(executor.now_ms() + 10 * backoff_ms)
                    .await;
            };
            if let Some(inner) = inner.upgrade() {
                if outcome.is_ok() {
                    inner.forget(&name, record.id);
                }
                inner.removals.lock().remove(&record.id);
            }
            for waiter in std::mem::take(&mut *waiters.lock()) {
                waiter.resolve(outcome.clone());
            }
        });
        waiting
    }
}

impl Inner {
    /// The handler is gone; a later one of the same name is left alone.
    fn forget(&self, name: &HandlerName, id: u64) {
        let mut handlers = self.handlers.lock();
        if handlers
            .get(name)
            .is_some_and(|handler| handler.record.id == id)
        {
            handlers.remove(name);
            self.native.lock().remove(name);
        }
    }
}

/// Tasks act for their handler, in its tenant.
fn caller_of(record: &HandlerRecord) -> Caller {
    Caller {
        tenant: record.tenant.as_str().into(),
        principal: format!("handler:{}", record.name).into(),
    }
}
