//! From what the catalogue says of a handler to the tasks that run here, and the changes in between.
//!
//! A change is one frame; after it, whoever made it makes memory follow the catalogue as it is then. So calls at the same
//! time may overtake each other, and a caller may go away half way: in the end both agree.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use mainstem_broker::Caller;
use mainstem_engine::{Check, EngineError, Submission, Ticket, ticket};
use mainstem_store::{Family, StoreOp};
use parking_lot::Mutex;

use crate::catalog::{self, HandlerRecord};
use crate::control::{Desired, TaskHandle};
use crate::runtime::{Handler, HandlerName, Inner, Runtime, caller_of};
use crate::task::{LoadModule, Loading, Task};
use crate::{HandlerModule, RuntimeError, removal};

impl Runtime {
    /// Runs a change to its end, also where its caller goes away.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let (promise, outcome) = ticket();
        self.inner
            .executor
            .spawn(async move { promise.resolve(Ok(change.await)) });
        outcome.await?
    }

    /// Changes the entry of a handler that is there.
    pub(crate) async fn change(
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

    /// Makes what runs here what the catalogue says, whatever has led to it.
    pub(crate) fn follow(&self, tenant: &str, name: &str) -> Result<(), RuntimeError> {
        // Who follows last must have read last: if anything was changed here since the reading, it is done again.
        let (record, partitions, mut handlers) = loop {
            let changes = self.inner.handler_changes.load(Ordering::Acquire);
            let read = catalog::read(self.inner.broker.engine(), tenant, name)?;
            let Some(record) = read.record.map(Arc::new) else {
                return Ok(());
            };
            if record.removing {
                drop(self.start_removal(record));
                return Ok(());
            }
            let partitions = self.covered_partitions(&record);
            let handlers = self.inner.handlers.lock();
            if self.inner.handler_changes.load(Ordering::Acquire) == changes {
                break (record, partitions, handlers);
            }
        };
        self.inner.handler_changes.fetch_add(1, Ordering::AcqRel);
        match handlers.get_mut(&name_of(&record)) {
            Some(known)
                if known.record.id == record.id && known.record.generation == record.generation =>
            {
                let desired = match record.paused {
                    true => Desired::Pause,
                    false => Desired::Run,
                };
                known.record = record;
                known.tasks.iter().for_each(|task| task.command(desired));
            }
            _ => self.install(&mut handlers, record, partitions),
        }
        Ok(())
    }

    /// Starts the tasks of a deployment, in place of those of an earlier one. The order of their frames is kept by the
    /// fence that each new task takes: what an old one still has under way comes before it, or not at all. `partitions`
    /// are those that it [covers](Self::covered_partitions): what has no task yet, as after a restart, is found by whoever
    /// watches the inputs.
    pub(crate) fn install(
        &self,
        handlers: &mut BTreeMap<HandlerName, Handler>,
        record: Arc<HandlerRecord>,
        partitions: u32,
    ) {
        let name = name_of(&record);
        if let Some(known) = handlers.get(&name) {
            known
                .tasks
                .iter()
                .for_each(|task| task.command(Desired::Stop));
        }
        let tasks = record
            .tasks()
            .map(|(partition, shard)| self.start_task(&record, partition, shard))
            .collect();
        let handler = Handler {
            record,
            tasks,
            partitions,
        };
        handlers.insert(name, handler);
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
        let compiler = self.inner.compiler.clone();
        Arc::new(move |record: &HandlerRecord| {
            if record.native {
                let native = native.lock();
                let known =
                    native.get(&(record.tenant.as_str().into(), record.name.as_str().into()));
                return match known {
                    Some((version, module)) if *version == record.version => {
                        Loading::Ready(module.clone())
                    }
                    _ => Loading::Absent,
                };
            }
            if let Some(module) = modules.loaded(&record.version, record.memory_bytes) {
                return Loading::Ready(module);
            }
            let (promise, compiling) = ticket();
            let (modules, version) = (modules.clone(), record.version.clone());
            let memory_bytes = record.memory_bytes;
            compiler.spawn(async move {
                let module = modules.load(&version, memory_bytes);
                promise.resolve(Ok(module.map(|module| -> Arc<dyn HandlerModule> { module })));
            });
            Loading::Compiling(compiling)
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
    pub(crate) fn start_removal(&self, record: Arc<HandlerRecord>) -> Ticket<()> {
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
        let name = name_of(&record);
        {
            let mut handlers = self.inner.handlers.lock();
            self.inner.handler_changes.fetch_add(1, Ordering::AcqRel);
            let known = handlers.entry(name.clone()).or_insert_with(|| Handler {
                record: record.clone(),
                tasks: Vec::new(),
                partitions: 0,
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
                    // By a task that was on its way to start when it was told to stop: it comes to its end by itself.
                    Err(RuntimeError::Engine(EngineError::Fenced { .. })) => continue,
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
                    inner.remove_module(&record);
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

pub(crate) fn name_of(record: &HandlerRecord) -> HandlerName {
    (record.tenant.as_str().into(), record.name.as_str().into())
}

impl Inner {
    /// Removes the component of a handler that is gone, unless another has it, too: on the thread that compiles, which is
    /// the one to wait for a compile.
    fn remove_module(self: &Arc<Inner>, record: &HandlerRecord) {
        if record.native {
            return;
        }
        let (inner, version) = (Arc::downgrade(self), record.version.clone());
        self.compiler.spawn(async move {
            let Some(runtime) = inner.upgrade().map(|inner| Runtime { inner }) else {
                return;
            };
            let is_needed = || -> Result<bool, RuntimeError> {
                let records = runtime.read_all()?;
                Ok(records.iter().any(|record| record.version == version))
            };
            if let Err(error) = runtime.inner.modules.remove(&version, is_needed) {
                // It takes space and does no harm; the next start tries again.
                tracing::warn!(version, %error, "the component of a removed handler cannot be removed");
            }
        });
    }

    /// The handler is gone; a later one of the same name is left alone.
    fn forget(&self, name: &HandlerName, id: u64) {
        let mut handlers = self.handlers.lock();
        self.handler_changes.fetch_add(1, Ordering::AcqRel);
        if handlers
            .get(name)
            .is_some_and(|handler| handler.record.id == id)
        {
            handlers.remove(name);
            self.native.lock().remove(name);
        }
    }
}
