//! What a task and those who watch and command it share.

use std::task::Waker;

use parking_lot::Mutex;

use crate::TaskStatus;

/// What a task is meant to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Desired {
    #[default]
    Run,
    Pause,
    Stop,
}

/// Commands to a task, and its status.
#[derive(Default)]
pub(crate) struct TaskHandle {
    command: Mutex<Command>,
    pub(crate) status: Mutex<TaskStatus>,
    pub(crate) rate: Mutex<Rate>,
}

#[derive(Default)]
struct Command {
    desired: Desired,
    /// How often the handler was resumed: what lets a halted task try again.
    resumes: u64,
    waker: Option<Waker>,
}

impl TaskHandle {
    pub(crate) fn command(&self, desired: Desired) {
        let waker = {
            let mut command = self.command.lock();
            // Stop is for good.
            if command.desired != Desired::Stop {
                command.desired = desired;
                command.resumes += u64::from(desired == Desired::Run);
            }
            command.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn desired(&self) -> Desired {
        self.command.lock().desired
    }

    pub(crate) fn resumes(&self) -> u64 {
        self.command.lock().resumes
    }

    /// The task wants to be woken at the next command.
    pub(crate) fn listen(&self, waker: &Waker) {
        self.command.lock().waker = Some(waker.clone());
    }
}

/// Events a second, counted over windows of a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    window_start_ms: i64,
    in_window: u64,
    last: f64,
}

const WINDOW_MS: i64 = 1000;

impl Rate {
    pub(crate) fn add(&mut self, events: u64, now_ms: i64) {
        self.turn(now_ms);
        self.in_window += events;
    }

    pub(crate) fn get(&self, now_ms: i64) -> f64 {
        let mut rate = *self;
        rate.turn(now_ms);
        rate.last
    }

    fn turn(&mut self, now_ms: i64) {
        let elapsed_ms = now_ms - self.window_start_ms;
        if elapsed_ms < WINDOW_MS {
            return;
        }
        // A window that nothing was counted in for long says that it is over, not that it was slow.
        self.last = if elapsed_ms < 10 * WINDOW_MS {
            self.in_window as f64 * 1000.0 / elapsed_ms as f64
        } else {
            0.0
        };
        self.window_start_ms = now_ms;
        self.in_window = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_whole_window() {
        let mut rate = Rate::default();
        rate.add(1, 100_000);
        rate.add(499, 100_500);
        assert_eq!(rate.get(100_900), 0.0);
        assert_eq!(rate.get(101_000), 500.0);
        rate.add(10, 101_000);
        assert_eq!(rate.get(101_500), 500.0);
        assert_eq!(rate.get(200_000), 0.0);
    }

    #[test]
    fn stop_is_for_good() {
        let task = TaskHandle::default();
        task.command(Desired::Stop);
        task.command(Desired::Run);
        assert_eq!(task.desired(), Desired::Stop);
    }
}
