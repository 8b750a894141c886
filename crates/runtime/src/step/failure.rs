//! A step that failed: its events are tried again in smaller steps, until the one that fails stands alone and is judged.

use super::Stepper;
use crate::deployment::MAX_FUEL_PER_EVENT;
use crate::outputs::OutputBatches;
use crate::task::Ended;
use crate::{Event, OnError, StepFailure, TaskState};

impl Stepper<'_> {
    /// Undoes a step that failed, and decides how the events are tried again. Only an event that was run alone is judged.
    pub(super) async fn failed(&mut self, size: usize, failure: StepFailure) -> Result<(), Ended> {
        self.state.roll_back();
        if let StepFailure::NoMemory { wanted_bytes } = failure {
            tracing::debug!(handler = %self.label, wanted_bytes, "a step waits for memory");
            self.wanted_bytes = wanted_bytes;
            return Ok(());
        }
        self.task.handle.status.lock().failures += 1;
        if !failure.blames_events() {
            return Err(failure.into());
        }
        if size > 1 {
            tracing::debug!(handler = %self.label, size, %failure, "a step failed; its events are tried in smaller steps");
            // Where the step itself was too large, nobody is suspected.
            if let Some(fitting) = self.fitting(size, &failure) {
                self.max_events = fitting.clamp(1, size - 1);
                self.good_steps = 0;
                return Ok(());
            }
            self.suspects = Some(size);
            return Ok(());
        }
        self.suspects = Some(1);
        self.attempts += 1;
        let Some(event) = self.events.get(self.done).cloned() else {
            return Ok(());
        };
        let why = format!(
            "topic `{}`, partition {}, offset {}: {failure} (attempt {} of {})",
            event.topic,
            event.partition,
            event.offset,
            self.attempts,
            self.task.record.on_error.attempts()
        );
        self.task.note_error(&why);
        // Whatever it waits for from here on, it holds no memory.
        self.instance = None;
        if self.attempts < self.task.record.on_error.attempts() {
            self.task.set_state(TaskState::Retrying);
            self.task.wait_to_retry(self.attempts).await;
            self.task.set_state(TaskState::Running);
            return Ok(());
        }
        match self.task.record.on_error {
            OnError::DeadLetter { .. } => self.dead_letter(&event, &failure).await,
            OnError::Halt { .. } => self.halt().await,
        }
    }

    /// How many events a step may have that failed because it had so many.
    fn fitting(&self, size: usize, failure: &StepFailure) -> Option<usize> {
        let each = self.task.record.fuel_per_event.clamp(1, MAX_FUEL_PER_EVENT);
        match failure {
            // It was cut short by the limit of the step, not by the sum of its events'.
            StepFailure::OutOfFuel { fuel } if *fuel < each.saturating_mul(size as u64) => {
                Some(usize::try_from(fuel / each).unwrap_or(usize::MAX))
            }
            StepFailure::TooLarge(_) => Some(size / 2),
            _ => None,
        }
    }

    /// Sends the event away and passes it, in one frame.
    async fn dead_letter(&mut self, event: &Event, failure: &StepFailure) -> Result<(), Ended> {
        let Some(topic) = self.dead_letters.clone() else {
            return self.halt().await;
        };
        let mut batches =
            OutputBatches::new(&self.outputs, self.task.partition, event.timestamp_ms);
        let max_bytes = self.task.options.max_step_bytes;
        batches.add_dead_letter(
            &topic,
            event,
            &failure.to_string(),
            self.attempts,
            max_bytes,
        )?;
        let (appends, _) = batches.finish()?;
        self.attempts = 0;
        self.suspects = None;
        self.commit(1, appends, 0, 1).await
    }

    /// Stands still before the event, until somebody has done something about it.
    async fn halt(&mut self) -> Result<(), Ended> {
        let seen = self.task.commands();
        self.settle_all().await?;
        self.task.set_state(TaskState::Halted);
        self.task.wait_for_command(seen).await;
        self.attempts = 0;
        self.task.set_state(TaskState::Running);
        Ok(())
    }
}
