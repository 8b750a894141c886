//! Handlers: code that turns events into state and further events, exactly once.
//!
//! **Promises.** Each event of a handler's input topics changes its state and outputs exactly once, through crashes,
//! restarts, upgrades and failures of the handler: a step's outputs, state changes and input offsets are one frame.
//! An event that cannot be handled is found by running it alone, and then dead-lettered together with the offset that
//! passes it, or the task halts: the deployment's policy says which. One task's trouble stops no other. What a handler
//! may use (instructions, memory, the topics it declared) is bounded, and the bounds are kept by the host. A step that takes
//! long has others between, and ends early when its handler is paused, replaced or removed, or the runtime is closed.
//!
//! **Refuses.** Components that ask for anything but state and a log, at deploy and by name; undeclared output topics;
//! writes of a task that has been replaced (each start of a task has an epoch, checked at admission).
//!
//! ```text
//!             ┌────────────── task (one per handler and partition number) ───────────────┐
//!  log ──────►│ fetch ─► step over the overlay ─► one frame ─► pipeline of frames in sync │──► engine
//!             └──────────────┬──────────────────────────────────────────────▲────────────┘
//!                  HandlerInstance (wasmtime, native)                       └ applied: the overlay forgets
//! ```
//!
//! **Time and threads come from outside.** A task is a plain future on a small executor that owns no thread: whoever
//! calls [`Runtime::work`] with the time moves one task by one turn; [`Runtime::park`] is for a thread that has nothing
//! to do. What takes long by itself, compiling, waits for whoever calls [`Runtime::compile`]. A test calls both from its
//! own scheduler.
//!
//! **Where to start reading:** [`handler`] (the seam), `task.rs` (the life of a step), [`StepState`] (the overlay),
//! `wasm/` (components), [`keys`] (what is written where), [`verify`] (a check of entries and components offline).

mod catalog;
pub mod conformance;
mod control;
mod deploy;
mod deployment;
mod error;
mod executor;
mod fence;
pub mod handler;
mod inputs;
pub mod keys;
mod lifecycle;
mod memory;
mod outputs;
mod removal;
mod runtime;
mod state;
mod status;
mod step;
mod task;
pub mod verify;
mod wasm;

pub use deployment::{Code, Deployment, MAX_FUEL_PER_EVENT, OnError, StartFrom};
pub use error::{RuntimeError, ValidationError};
pub use executor::Next;
pub use handler::{
    Event, HandlerInstance, HandlerModule, NativeHandler, OutputRecord, StepFailure, StepFuture,
    StepLimits, StepOutput, run_through,
};
pub use memory::InstanceMemory;
pub use runtime::{Runtime, RuntimeOptions};
pub use state::StepState;
pub use status::{HandlerState, HandlerStatus, InputStatus, TaskState, TaskStatus};
pub use wasm::{WasmEngine, WasmModule};
