//! The seam: what a handler is to a task, whatever it is made of.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::{InstanceMemory, StepState};

/// One record of an input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// The record's time.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers; names are UTF-8.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Event {
    /// About what the event costs in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value))
            .sum();
        48 + length(&self.key) + length(&self.value) + headers
    }
}

/// One record for an output topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputRecord {
    /// The topic's name; it must be declared.
    pub topic: Arc<str>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers; names are UTF-8.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The record's time; without it, that of the step's last event.
    pub timestamp_ms: Option<i64>,
    /// The partition; without it, murmur2 of the key; without a key, that of the task.
    pub partition: Option<u32>,
}

/// What a step leads to, beside the changes in its [`StepState`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepOutput {
    /// Records, in the order they were made.
    pub records: Vec<OutputRecord>,
}

/// What a step may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Fuel for the whole step. A handler that cannot be metered ignores it.
    pub fuel: u64,
    /// The most bytes of outputs; more is a failure of the step.
    pub output_bytes: usize,
}

impl StepLimits {
    pub(crate) fn too_much_output(&self) -> StepFailure {
        StepFailure::TooLarge(format!(
            "the step makes more than {} bytes of outputs",
            self.output_bytes
        ))
    }
}

/// Why a step was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepFailure {
    /// The handler said so.
    Error(String),
    /// The handler broke down: a trap, a panic, out of memory. Its instance is unusable.
    Trap(String),
    /// The handler used up its fuel. Its instance is unusable.
    OutOfFuel {
        /// What it had.
        fuel: u64,
    },
    /// The handler wrote to a topic that it did not declare, or a partition that is not there.
    Output(String),
    /// The step would not fit into a frame. With fewer events it may.
    TooLarge(String),
    /// Not the handler's doing: the state could not be read. The same step is tried again.
    Host(String),
    /// Not the handler's doing: all handlers together have no memory left. The same step is tried again when there are
    /// so many bytes for its instance.
    NoMemory {
        /// What the instance needs.
        wanted_bytes: u64,
    },
}

impl StepFailure {
    /// Whether an instance that failed so must be rebuilt.
    pub fn breaks_instance(&self) -> bool {
        !matches!(self, StepFailure::Output(_))
    }

    /// Whether the events are to blame, so that running them alone finds the one that fails.
    pub fn blames_events(&self) -> bool {
        !matches!(self, StepFailure::Host(_) | StepFailure::NoMemory { .. })
    }
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepFailure::Error(message) => write!(f, "the handler returned an error: {message}"),
            StepFailure::Trap(message) => write!(f, "the handler trapped: {message}"),
            StepFailure::OutOfFuel { fuel } => write!(
                f,
                "the handler ran out of fuel ({fuel} instructions): it loops, or needs a higher fuel per event"
            ),
            StepFailure::Output(message) => write!(f, "an output is refused: {message}"),
            StepFailure::TooLarge(message) => write!(f, "the frame is too large: {message}"),
            StepFailure::Host(message) => write!(f, "the step could not be run: {message}"),
            StepFailure::NoMemory { wanted_bytes } => write!(
                f,
                "the step waits for {wanted_bytes} bytes of the memory that all handlers share; a higher memory.limit gives them more"
            ),
        }
    }
}

/// A handler's code, ready to be instantiated: one for each deployed version.
///
/// The contract of module and instance, which the crate's tests check for native code and for components:
///
/// - **Deterministic.** The same events over the same state lead to the same changes and outputs, whatever was run on
///   the instance before. What an instance keeps in memory is a cache, and never what counts.
/// - **All or nothing.** After a failure the task forgets all that the step changed; the instance need not undo it.
/// - **Reads see the step's own writes.** All state goes through [`StepState`].
/// - **Bounded.** A step ends, by itself or by its limits.
/// - **In turns.** A step that takes long is pending now and then, having woken its waker, so that others go on; it may
///   be dropped then, and the instance with it. (Code of this process is trusted to be short.)
pub trait HandlerModule: Send + Sync {
    /// A fresh instance, which holds no more than `memory` gives it. `label` names the task in the server's log.
    fn instantiate<'a>(
        &'a self,
        label: &'a str,
        memory: InstanceMemory,
    ) -> StepFuture<'a, Box<dyn HandlerInstance>>;
}

/// What is under way in a handler, and may fail as a step does.
pub type StepFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StepFailure>> + Send + 'a>>;

/// Makes a step, or an instance, on this thread: they wait for nothing but their next turn.
pub fn run_through<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// One instance of a handler: used by one task, for one step after another, and dropped after a failure.
pub trait HandlerInstance: Send {
    /// Makes a step of `events`, in order, on `state`.
    fn step<'a>(
        &'a mut self,
        events: &'a [Event],
        state: &'a mut StepState,
        limits: StepLimits,
    ) -> StepFuture<'a, StepOutput>;
}

/// A handler that is a closure of this process: called once for each event.
///
/// ```
/// # use mainstem_runtime::{NativeHandler, OutputRecord};
/// let echo = NativeHandler::new(|event, _state, out| {
///     out.push(OutputRecord { topic: "echo".into(), value: event.value.clone(), ..OutputRecord::default() });
///     Ok(())
/// });
/// ```
pub struct NativeHandler<F>(Arc<F>);

impl<F> NativeHandler<F>
where
    F: Fn(&Event, &mut StepState, &mut Vec<OutputRecord>) -> Result<(), String>
        + Send
        + Sync
        + 'static,
{
    /// Wraps a closure; its error is the event's failure.
    pub fn new(handle: F) -> NativeHandler<F> {
        NativeHandler(Arc::new(handle))
    }
}

impl<F> Clone for NativeHandler<F> {
    fn clone(&self) -> Self {
        NativeHandler(self.0.clone())
    }
}

impl<F> HandlerModule for NativeHandler<F>
where
    F: Fn(&Event, &mut StepState, &mut Vec<OutputRecord>) -> Result<(), String>
        + Send
        + Sync
        + 'static,
{
    fn instantiate<'a>(
        &'a self,
        _label: &'a str,
        _memory: InstanceMemory,
    ) -> StepFuture<'a, Box<dyn HandlerInstance>> {
        let instance: Box<dyn HandlerInstance> = Box::new(self.clone());
        Box::pin(std::future::ready(Ok(instance)))
    }
}

impl<F> HandlerInstance for NativeHandler<F>
where
    F: Fn(&Event, &mut StepState, &mut Vec<OutputRecord>) -> Result<(), String>
        + Send
        + Sync
        + 'static,
{
    fn step<'a>(
        &'a mut self,
        events: &'a [Event],
        state: &'a mut StepState,
        limits: StepLimits,
    ) -> StepFuture<'a, StepOutput> {
        Box::pin(std::future::ready(self.run(events, state, limits)))
    }
}

impl<F> NativeHandler<F>
where
    F: Fn(&Event, &mut StepState, &mut Vec<OutputRecord>) -> Result<(), String>,
{
    fn run(
        &self,
        events: &[Event],
        state: &mut StepState,
        limits: StepLimits,
    ) -> Result<StepOutput, StepFailure> {
        let mut output = StepOutput::default();
        let run = std::panic::AssertUnwindSafe(|| {
            let mut bytes = 0;
            for event in events {
                let before = output.records.len();
                (self.0)(event, state, &mut output.records).map_err(StepFailure::Error)?;
                let made = output.records.iter().skip(before);
                bytes += made.map(OutputRecord::size_bytes).sum::<usize>();
                if bytes > limits.output_bytes {
                    return Err(limits.too_much_output());
                }
            }
            Ok(())
        });
        std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(StepFailure::Trap(format!(
                "panic: {}",
                message.unwrap_or_else(|| "of unknown kind".to_owned())
            )))
        })?;
        Ok(output)
    }
}

impl OutputRecord {
    /// About what the record costs in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value))
            .sum();
        24 + length(&self.key) + length(&self.value) + headers
    }
}
