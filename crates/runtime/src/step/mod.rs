//! The life of a step: events are fetched, handled over the overlay, and leave as one frame; the next step begins while
//! earlier frames are being synced.

mod failure;
mod in_flight;
mod input;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use mainstem_broker::Topic;
use mainstem_engine::Append;
use mainstem_log::LogError;

use self::in_flight::{Counts, InFlight};
pub(crate) use self::input::Input;
use crate::control::Desired;
use crate::deployment::MAX_FUEL_PER_EVENT;
use crate::executor::yield_now;
use crate::fence::Fence;
use crate::memory::Listener;
use crate::outputs::{OutputBatches, OutputTopics};
use crate::state::StepState;
use crate::task::{Ended, Task};
use crate::{
    Event, HandlerInstance, HandlerModule, RuntimeError, StepFailure, StepLimits, TaskState,
};

/// Fuel of a step of many events at most, or of one event if that may use more: a step is to end in a few seconds, whatever
/// the handler does. Steps that hit it become smaller.
const MAX_STEP_FUEL: u64 = 2_000_000_000;

/// After so many good steps, smaller steps grow again.
const STEPS_BEFORE_GROWTH: u32 = 16;

/// The running part of a task.
pub(crate) struct Stepper<'a> {
    task: &'a Task,
    fence: Fence,
    module: Arc<dyn HandlerModule>,
    instance: Option<Box<dyn HandlerInstance>>,
    /// What the next instance asks for before it starts: what one before it did not get.
    wanted_bytes: u64,
    memory: Listener,
    label: Arc<str>,
    inputs: Vec<Input>,
    /// The input that is fetched from first, so that none is starved.
    turn: usize,
    outputs: OutputTopics,
    dead_letters: Option<Arc<Topic>>,
    state: StepState,
    events: Vec<Event>,
    /// How many of the events are behind us.
    done: usize,
    in_flight: VecDeque<InFlight>,
    /// So many of the next events are known to contain one that fails.
    suspects: Option<usize>,
    /// How often the next event has failed alone.
    attempts: u32,
    max_events: usize,
    good_steps: u32,
    /// What an event of the last step has led to: outputs or state, whichever is more.
    bytes_per_event: usize,
}

impl<'a> Stepper<'a> {
    pub(crate) fn new(
        task: &'a Task,
        fence: Fence,
        module: Arc<dyn HandlerModule>,
        inputs: Vec<Input>,
    ) -> Result<Stepper<'a>, Ended> {
        let record = &task.record;
        let dead_letters = record
            .dead_letter_topic()
            .map(|name| task.broker.topic(&task.caller, &name))
            .transpose()
            .map_err(RuntimeError::from)?;
        let store = task.broker.engine().store().clone();
        let limit = task.options.max_step_bytes;
        Ok(Stepper {
            fence,
            module,
            instance: None,
            wanted_bytes: 0,
            memory: task.memory.listener(),
            label: record.label(task.partition),
            inputs,
            turn: 0,
            outputs: task.output_topics()?,
            dead_letters,
            state: StepState::new(store, task.shard, record.id, task.partition, limit),
            events: Vec::new(),
            done: 0,
            in_flight: VecDeque::new(),
            suspects: None,
            attempts: 0,
            max_events: task.options.max_step_events,
            good_steps: 0,
            bytes_per_event: 0,
            task,
        })
    }

    pub(crate) async fn run(&mut self) -> Result<(), Ended> {
        self.task.set_state(TaskState::Running);
        loop {
            match self.task.handle.desired() {
                Desired::Run => {}
                Desired::Stop => return Err(Ended::Stopped),
                Desired::Pause => self.pause().await?,
            }
            self.settle_ready()?;
            while self.in_flight.len() >= self.task.options.max_in_flight.max(1) {
                self.settle_one().await?;
            }
            if self.done == self.events.len() {
                self.fetch()?;
            }
            if self.done == self.events.len() {
                self.pass_gaps().await?;
                self.wait_for_work().await?;
                continue;
            }
            self.step().await?;
            if self.task.memory.is_short() {
                self.instance = None;
            }
            yield_now().await;
        }
    }

    async fn pause(&mut self) -> Result<(), Ended> {
        self.settle_all().await?;
        // Its memory is given back.
        self.instance = None;
        self.task.while_paused().await?;
        self.task.set_state(TaskState::Running);
        Ok(())
    }

    /// Fills the queue of events, which is empty: input by input, until there is enough for a step.
    fn fetch(&mut self) -> Result<(), Ended> {
        self.events.clear();
        self.done = 0;
        let (max_bytes, max_events) = (
            self.task.options.max_step_bytes,
            self.task.options.max_step_events,
        );
        let count = self.inputs.len();
        self.turn = (self.turn + 1) % count.max(1);
        let mut bytes = 0;
        let order: Vec<usize> = (0..count).map(|step| (self.turn + step) % count).collect();
        for place in order {
            if bytes < max_bytes && self.events.len() < max_events {
                bytes += self.fetch_from(place, max_bytes - bytes)?;
            }
        }
        Ok(())
    }

    fn fetch_from(&mut self, place: usize, max_bytes: usize) -> Result<usize, Ended> {
        let log = self.task.broker.engine().log();
        let Some(input) = self.inputs.get_mut(place) else {
            return Ok(0);
        };
        let read = match log.read_committed(input.id, input.fetch, max_bytes, None) {
            Err(LogError::OffsetOutOfRange { offset, start, .. }) if offset < start => {
                let gone = format!(
                    "{} events of topic `{}` were removed by retention before they were handled: offsets {offset} to {}",
                    start - offset,
                    input.topic,
                    start - 1
                );
                self.task.note_error(&gone);
                input.fetch = start;
                log.read_committed(input.id, start, max_bytes, None)?
            }
            other => other?,
        };
        let next_offset = read.next_offset;
        let bytes = input.decode(read.batches, max_bytes, &mut self.events)?;
        if bytes < max_bytes {
            // All of it was taken: behind the last batch there may be what is not delivered.
            input.fetch = input.fetch.max(next_offset);
        }
        Ok(bytes)
    }

    /// How many of the next events the next step takes.
    fn step_size(&self) -> usize {
        // With a quarter to spare, the frame will be no larger than the last one says.
        let room = self.task.options.max_step_bytes / 4 * 3;
        let fitting = room / self.bytes_per_event.max(1);
        let most = self.max_events.min(fitting).max(1);
        if let Some(suspects) = self.suspects {
            return (suspects / 2).clamp(1, most);
        }
        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += event.size_bytes();
            bytes <= self.task.options.max_step_bytes
        };
        let waiting = self.events.get(self.done..).unwrap_or_default();
        waiting.iter().take(most).take_while(fits).count().max(1)
    }

    /// Makes one step, and its frame.
    async fn step(&mut self) -> Result<(), Ended> {
        // A topic that has got more partitions has other places for keys, for everybody at once.
        self.outputs = self.task.output_topics()?;
        let size = self.step_size();
        match self.try_step(size).await {
            Ok(None) => {
                self.state.roll_back();
                Ok(())
            }
            Ok(Some((appends, outputs))) => {
                self.attempts = 0;
                self.suspects = self
                    .suspects
                    .and_then(|suspects| suspects.checked_sub(size))
                    .filter(|left| *left > 0);
                self.grow();
                self.commit(size, appends, outputs, 0).await
            }
            Err(failure) => self.failed(size, failure).await,
        }
    }

    /// The outputs of the next `size` events, and how many records they are; none where a command came in between.
    async fn try_step(&mut self, size: usize) -> Result<Option<(Vec<Append>, u64)>, StepFailure> {
        let limits = self.limits(size);
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => match self.instantiate().await? {
                Some(instance) => instance,
                None => return Ok(None),
            },
        };
        let events = self
            .events
            .get(self.done..self.done + size)
            .unwrap_or_default();
        let step = instance.step(events, &mut self.state, limits);
        let Some(result) = self.task.unless_commanded(step).await else {
            return Ok(None);
        };
        // An error of the store is nobody's fault but the store's, whatever the handler has made of it.
        if let Some(failure) = self.state.take_store_failure() {
            return Err(StepFailure::Host(failure));
        }
        if let Some(what) = self.state.take_over_limit() {
            return Err(StepFailure::TooLarge(what));
        }
        if !matches!(&result, Err(failure) if failure.breaks_instance()) {
            self.instance = Some(instance);
        }
        let time = events.last().map_or(0, |event| event.timestamp_ms);
        let mut batches = OutputBatches::new(&self.outputs, self.task.partition, time);
        batches.add_all(&result?.records)?;
        let (appends, records) = batches.finish()?;
        let output_bytes: usize = appends.iter().map(|append| append.batch.size_bytes()).sum();
        self.bytes_per_event = output_bytes.max(self.state.change_bytes()) / size.max(1);
        Ok(Some((appends, records)))
    }

    async fn instantiate(&mut self) -> Result<Option<Box<dyn HandlerInstance>>, StepFailure> {
        let waiting = self.task.memory.reserve(self.wanted_bytes);
        let Some(memory) = self.task.unless_commanded(waiting).await else {
            return Ok(None);
        };
        let starting = self.module.instantiate(&self.label, memory);
        match self.task.unless_commanded(starting).await {
            Some(Err(failure @ StepFailure::NoMemory { .. })) => Err(failure),
            Some(Err(failure)) => {
                let what = format!("it could not be started: {failure}");
                Err(StepFailure::Host(what))
            }
            Some(Ok(instance)) => Ok(Some(instance)),
            None => Ok(None),
        }
    }

    fn limits(&self, size: usize) -> StepLimits {
        let each = self.task.record.fuel_per_event.min(MAX_FUEL_PER_EVENT);
        let fuel = each
            .saturating_mul(size as u64)
            .min(MAX_STEP_FUEL.max(each));
        StepLimits {
            fuel,
            output_bytes: self.task.options.max_step_bytes,
        }
    }

    /// Steps that were made smaller become larger again.
    fn grow(&mut self) {
        self.good_steps += 1;
        if self.good_steps >= STEPS_BEFORE_GROWTH {
            self.good_steps = 0;
            self.max_events = (self.max_events * 2).min(self.task.options.max_step_events);
        }
    }

    /// Makes the frame of the next `size` events, and hands it over.
    async fn commit(
        &mut self,
        size: usize,
        appends: Vec<Append>,
        outputs: u64,
        dead_letters: u64,
    ) -> Result<(), Ended> {
        let handled = self
            .events
            .get(self.done..self.done + size)
            .unwrap_or_default();
        let behind = |(place, input): (usize, &Input)| {
            // A partition's events are in order: its last one says where it stands.
            let last = handled
                .iter()
                .rev()
                .find(|event| Arc::ptr_eq(&event.topic, &input.topic))?;
            Some((place, last.offset + 1))
        };
        let positions = self.inputs.iter().enumerate().filter_map(behind).collect();
        self.done += size;
        let counts = Counts {
            events: size as u64,
            outputs,
            dead_letters,
        };
        self.hand_over(appends, positions, counts).await
    }

    /// Passes offsets behind the last event that hold none, because retention or compaction has taken it or it was not
    /// for handlers, as what an aborted transaction has left and its marker: who waits for the task to have come to the end would wait for ever.
    async fn pass_gaps(&mut self) -> Result<(), Ended> {
        let behind = |(place, input): (usize, &Input)| {
            (input.fetch > input.next).then_some((place, input.fetch))
        };
        let positions: Vec<_> = self.inputs.iter().enumerate().filter_map(behind).collect();
        match positions.is_empty() {
            true => Ok(()),
            false => {
                self.hand_over(Vec::new(), positions, Counts::default())
                    .await
            }
        }
    }

    /// Waits for records, for a frame to be committed, or for a command.
    async fn wait_for_work(&mut self) -> Result<(), Ended> {
        let log = self.task.broker.engine().log();
        for input in &mut self.inputs {
            input.waiter = Some(log.on_stable_data(input.id, input.fetch));
        }
        std::future::poll_fn(|context| {
            self.task.handle.listen(context.waker());
            if self.task.handle.desired() != Desired::Run {
                return Poll::Ready(());
            }
            if self.instance.is_some() && self.memory.is_wanted(context.waker()) {
                self.instance = None;
            }
            if !self.in_flight.is_empty() && self.poll_front(context).is_ready() {
                return Poll::Ready(());
            }
            let mut waiters = self
                .inputs
                .iter_mut()
                .filter_map(|input| input.waiter.as_mut());
            match waiters.any(|waiter| Pin::new(waiter).poll(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        Ok(())
    }
}
