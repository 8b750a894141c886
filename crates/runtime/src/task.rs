//! A task's life: it takes its fence, finds its offsets, makes steps, and begins anew after what it cannot go on from.
//!
//! ```text
//!   starting ──fence, code, offsets──► running ──stop──► stopped
//!      ▲  (compiling)                   │  │ └─pause──► paused ──resume──► (running)
//!      └────wait── retrying ◄───────────┘  └─event fails──► halted ──resume──► (running)
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use mainstem_broker::{Broker, Caller};
use mainstem_engine::{EngineError, Ticket};
use mainstem_log::{LogError, PartitionId};
use mainstem_store::Family;

use crate::catalog::HandlerRecord;
use crate::control::{Desired, TaskHandle};
use crate::executor::Executor;
use crate::fence::Fence;
use crate::memory::MemoryPool;
use crate::outputs::OutputTopics;
use crate::step::{Input, Stepper};
use crate::{
    HandlerModule, InputStatus, RuntimeError, RuntimeOptions, StepFailure, TaskState, keys,
};

/// What is kept of an error.
const MAX_ERROR_BYTES: usize = 4096;

/// The longest wait between two tries, as a multiple of the first.
const MAX_BACKOFF: i64 = 100;

/// Finds the code of a version.
pub(crate) type LoadModule = dyn Fn(&HandlerRecord) -> Loading + Send + Sync;

/// Where the code of a version is.
pub(crate) enum Loading {
    /// Here.
    Ready(Arc<dyn HandlerModule>),
    /// Read from its file, and compiled if it must be, by whoever calls [`crate::Runtime::compile`].
    Compiling(Ticket<Result<Arc<dyn HandlerModule>, RuntimeError>>),
    /// In the program, which has not deployed it since it was started.
    Absent,
}

/// Everything a task needs.
pub(crate) struct Task {
    pub(crate) broker: Broker,
    pub(crate) caller: Caller,
    pub(crate) executor: Executor,
    pub(crate) options: RuntimeOptions,
    pub(crate) record: Arc<HandlerRecord>,
    pub(crate) partition: u32,
    pub(crate) shard: u16,
    pub(crate) handle: Arc<TaskHandle>,
    pub(crate) load: Arc<LoadModule>,
    pub(crate) memory: Arc<MemoryPool>,
}

/// Why a run of a task ended.
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// The engine is closed.
    Closed,
    /// Somebody else has taken the task.
    Fenced(String),
    /// Something that may be better the next time.
    Failed(String),
}

impl From<EngineError> for Ended {
    fn from(error: EngineError) -> Ended {
        match error {
            EngineError::Closed => Ended::Closed,
            EngineError::Fenced { .. } => Ended::Fenced(error.to_string()),
            other => Ended::Failed(other.to_string()),
        }
    }
}

impl From<RuntimeError> for Ended {
    fn from(error: RuntimeError) -> Ended {
        match error {
            RuntimeError::Engine(error) => error.into(),
            other => Ended::Failed(other.to_string()),
        }
    }
}

impl From<StepFailure> for Ended {
    fn from(failure: StepFailure) -> Ended {
        Ended::Failed(failure.to_string())
    }
}

impl From<LogError> for Ended {
    fn from(error: LogError) -> Ended {
        Ended::Failed(error.to_string())
    }
}

impl Task {
    /// Runs until it is stopped.
    pub(crate) async fn run(self) {
        let mut failures = 0;
        loop {
            self.set_state(TaskState::Starting);
            let steps_before = self.handle.status.lock().steps;
            let why = match self.run_once().await {
                Err(Ended::Failed(why)) => why,
                // Who has taken the task over has told this one to stop before. If nobody has, it takes it back.
                Err(Ended::Fenced(why)) if self.handle.desired() != Desired::Stop => why,
                Err(Ended::Fenced(why)) => {
                    self.note_error(&why);
                    return self.set_state(TaskState::Stopped);
                }
                Err(Ended::Stopped | Ended::Closed) | Ok(()) => {
                    return self.set_state(TaskState::Stopped);
                }
            };
            let progressed = self.handle.status.lock().steps > steps_before;
            failures = if progressed { 1 } else { failures + 1 };
            self.note_error(&why);
            self.set_state(TaskState::Retrying);
            self.wait_to_retry(failures).await;
            if self.handle.desired() == Desired::Stop {
                return self.set_state(TaskState::Stopped);
            }
        }
    }

    async fn run_once(&self) -> Result<(), Ended> {
        self.while_paused().await?;
        let engine = self.broker.engine();
        let fence = Fence::take(
            engine,
            keys::epoch_key(self.shard, self.record.id, self.partition),
        )
        .await?;
        self.handle.status.lock().epoch = fence.epoch;
        let module = self.module().await?;
        let inputs = self.inputs()?;
        Stepper::new(self, fence, module, inputs)?.run().await
    }

    /// The handler's code, when it is there.
    async fn module(&self) -> Result<Arc<dyn HandlerModule>, Ended> {
        loop {
            let seen = self.commands();
            match (self.load)(&self.record) {
                Loading::Ready(module) => return Ok(module),
                Loading::Compiling(compiling) => {
                    self.set_state(TaskState::Compiling);
                    if let Some(compiled) = self.unless_commanded(compiling).await {
                        self.set_state(TaskState::Starting);
                        return Ok(compiled??);
                    }
                }
                Loading::Absent => {
                    self.note_error(
                        "its code is in the program: waiting for the program to deploy it again",
                    );
                    self.wait_for_command(seen).await;
                }
            }
            self.while_paused().await?;
        }
    }

    /// The partitions that the task reads, each from where it stands.
    fn inputs(&self) -> Result<Vec<Input>, Ended> {
        let engine = self.broker.engine();
        let mut inputs = Vec::new();
        for name in &self.record.inputs {
            let topic = self
                .broker
                .topic(&self.caller, name)
                .map_err(RuntimeError::from)?;
            if self.partition >= topic.partitions {
                continue;
            }
            let id = PartitionId {
                topic: topic.id,
                index: self.partition,
            };
            let key = keys::offset_key(self.shard, self.record.id, self.partition, topic.id.0);
            let kept = engine
                .store()
                .get(Family::Offsets, &key)
                .map_err(RuntimeError::from)?;
            let offset = match kept.as_deref().and_then(keys::read_number) {
                Some(offset) => offset as i64,
                // The topic was created anew since the deployment.
                None => engine.log().bounds(id)?.start,
            };
            inputs.push(Input::new(topic.name.clone(), id, key, offset));
        }
        let status = |input: &Input| InputStatus {
            topic: input.topic.clone(),
            offset: input.next,
            high_watermark: input.next,
        };
        self.handle.status.lock().inputs = inputs.iter().map(status).collect();
        Ok(inputs)
    }

    /// The topics that the handler writes to, as they are now.
    pub(crate) fn output_topics(&self) -> Result<OutputTopics, Ended> {
        let topic = |name: &String| {
            self.broker
                .topic(&self.caller, name)
                .map(|topic| (topic.name.clone(), topic))
        };
        let topics = self
            .record
            .outputs
            .iter()
            .map(topic)
            .collect::<Result<_, _>>();
        Ok(topics.map_err(RuntimeError::from)?)
    }

    pub(crate) fn set_state(&self, state: TaskState) {
        self.handle.status.lock().state = state;
    }

    /// An error as it is kept and logged: a handler may say anything, of any length.
    pub(crate) fn note_error(&self, why: &str) {
        let why = why
            .get(..why.floor_char_boundary(MAX_ERROR_BYTES))
            .unwrap_or_default();
        tracing::warn!(handler = %self.record.label(self.partition), why, "a task is in trouble");
        let mut status = self.handle.status.lock();
        status.last_error = Some(why.to_owned());
        status.last_error_ms = Some(self.executor.now_ms());
    }

    /// Stands still as long as it is told to.
    pub(crate) async fn while_paused(&self) -> Result<(), Ended> {
        loop {
            let seen = self.commands();
            match self.handle.desired() {
                Desired::Run => return Ok(()),
                Desired::Stop => return Err(Ended::Stopped),
                Desired::Pause => {
                    self.set_state(TaskState::Paused);
                    self.wait_for_command(seen).await;
                }
            }
        }
    }

    /// Waits for something that may take long; a command to stand still or stop drops it.
    pub(crate) async fn unless_commanded<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            self.handle.listen(context.waker());
            match self.handle.desired() {
                Desired::Run => Poll::Pending,
                Desired::Pause | Desired::Stop => Poll::Ready(None),
            }
        })
        .await
    }

    /// Waits before the next try, longer each time, or for a command.
    pub(crate) async fn wait_to_retry(&self, failures: u32) {
        let factor = 1i64
            .checked_shl(failures.saturating_sub(1))
            .map_or(MAX_BACKOFF, |factor| factor.clamp(1, MAX_BACKOFF));
        let until = self
            .executor
            .sleep_until(self.executor.now_ms() + self.options.backoff_ms * factor);
        let mut until = pin!(until);
        let before = self.commands();
        std::future::poll_fn(|context| {
            self.handle.listen(context.waker());
            if self.commands() != before {
                return Poll::Ready(());
            }
            until.as_mut().poll(context)
        })
        .await;
    }

    /// The commands seen so far: taken before what they may change is looked at, so that none is slept through.
    pub(crate) fn commands(&self) -> (Desired, u64) {
        (self.handle.desired(), self.handle.resumes())
    }

    /// Waits for a command after those.
    pub(crate) async fn wait_for_command(&self, before: (Desired, u64)) {
        std::future::poll_fn(|context| {
            self.handle.listen(context.waker());
            match self.commands() != before {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}
