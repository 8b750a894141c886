//! What is known about a handler while it runs.

use std::sync::Arc;

use serde::Serialize;

use crate::{OnError, StartFrom};

/// Whether a handler is meant to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerState {
    /// Its tasks run.
    Running,
    /// Its tasks stand still until it is resumed.
    Paused,
    /// At least one task has halted at an event that fails.
    Halted,
    /// Its code is being made ready for this machine; its tasks run after that.
    Compiling,
    /// Its state is being removed.
    Removing,
}

impl HandlerState {
    /// The name for people and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            HandlerState::Running => "running",
            HandlerState::Paused => "paused",
            HandlerState::Halted => "halted",
            HandlerState::Compiling => "compiling",
            HandlerState::Removing => "removing",
        }
    }
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It takes its fence and finds its offsets.
    #[default]
    Starting,
    /// It waits for its code, which is being read or compiled.
    Compiling,
    /// It handles events or waits for them.
    Running,
    /// It waits before it tries something again: see the last error.
    Retrying,
    /// It stands still until the handler is resumed.
    Paused,
    /// It has halted at an event that fails: see the last error.
    Halted,
    /// It has ended: a newer start of the same task has taken over, or the handler is removed.
    Stopped,
}

impl TaskState {
    /// The name for people and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            TaskState::Starting => "starting",
            TaskState::Compiling => "compiling",
            TaskState::Running => "running",
            TaskState::Retrying => "retrying",
            TaskState::Paused => "paused",
            TaskState::Halted => "halted",
            TaskState::Stopped => "stopped",
        }
    }
}

/// A handler and its tasks at this moment.
#[derive(Clone, Debug, Serialize)]
pub struct HandlerStatus {
    /// Its name.
    pub name: String,
    /// Its number, under which its state is kept; never given twice.
    pub id: u64,
    /// The version of its code: the SHA-256 of the component, in hex.
    pub version: String,
    /// How often it has been deployed.
    pub generation: u64,
    /// Whether it runs.
    pub state: HandlerState,
    /// The topics it reads.
    pub inputs: Vec<String>,
    /// The topics it may write to.
    pub outputs: Vec<String>,
    /// Where it sends what it cannot handle, where that is its policy.
    pub dead_letter_topic: Option<String>,
    /// What happens with an event that fails.
    pub on_error: OnError,
    /// Where it began.
    pub start: StartFrom,
    /// Instructions an event may use.
    pub fuel_per_event: u64,
    /// Memory an instance may use.
    pub memory_bytes: u64,
    /// When it was first deployed.
    pub created_ms: i64,
    /// When it was last deployed.
    pub updated_ms: i64,
    /// One for each partition number of its input topics.
    pub tasks: Vec<TaskStatus>,
}

impl HandlerStatus {
    /// Events not yet handled, over all tasks.
    pub fn lag(&self) -> u64 {
        self.tasks.iter().map(TaskStatus::lag).sum()
    }

    /// Events handled since the tasks were started.
    pub fn events(&self) -> u64 {
        self.tasks.iter().map(|task| task.events).sum()
    }

    /// Events a second, over all tasks, of late.
    pub fn events_per_second(&self) -> f64 {
        self.tasks.iter().map(|task| task.events_per_second).sum()
    }

    /// The newest error of a task.
    pub fn last_error(&self) -> Option<&str> {
        self.tasks
            .iter()
            .filter(|task| task.last_error.is_some())
            .max_by_key(|task| task.last_error_ms)
            .and_then(|task| task.last_error.as_deref())
    }
}

/// One task at this moment. Counts are of committed steps since the task was started.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskStatus {
    /// Its partition number.
    pub partition: u32,
    /// What it is doing.
    pub state: TaskState,
    /// How often it has been started: what fences off earlier ones.
    pub epoch: u64,
    /// Where it stands in each input topic that has this partition.
    pub inputs: Vec<InputStatus>,
    /// Events handled.
    pub events: u64,
    /// Records sent to output topics.
    pub outputs: u64,
    /// Steps committed.
    pub steps: u64,
    /// Steps that failed and were undone.
    pub failures: u64,
    /// Events sent to the dead-letter topic.
    pub dead_letters: u64,
    /// Events a second, of late.
    pub events_per_second: f64,
    /// The newest error, kept after the task has recovered from it.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ms: Option<i64>,
}

impl TaskStatus {
    /// Events not yet handled.
    pub fn lag(&self) -> u64 {
        self.inputs.iter().map(InputStatus::lag).sum()
    }
}

/// Where a task stands in one partition.
#[derive(Clone, Debug, Serialize)]
pub struct InputStatus {
    /// The topic.
    pub topic: Arc<str>,
    /// The offset of the next event to commit.
    pub offset: i64,
    /// The end of the partition.
    pub high_watermark: i64,
}

impl InputStatus {
    /// Events not yet handled.
    pub fn lag(&self) -> u64 {
        u64::try_from(self.high_watermark - self.offset).unwrap_or(0)
    }
}
