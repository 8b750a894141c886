//! What a deployment says.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::HandlerModule;

/// Fuel an event gets unless the deployment says otherwise: about as many WebAssembly instructions, some 10 ms.
pub const DEFAULT_FUEL_PER_EVENT: u64 = 20_000_000;
/// The most fuel that an event can be given: about a minute.
pub const MAX_FUEL_PER_EVENT: u64 = 100_000_000_000;
/// Memory an instance gets unless the deployment says otherwise.
pub const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;

/// The code of a handler.
#[derive(Clone)]
pub enum Code {
    /// A WebAssembly component of one of the worlds in `sdk/wit`.
    Component(Bytes),
    /// Code of this process, for programs that embed the platform. It is not kept: after a restart, deploy it again;
    /// until then the handler's tasks wait.
    Native {
        /// Names this version of the code, as its hash names a component.
        version: String,
        /// The code.
        module: Arc<dyn HandlerModule>,
    },
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Component(bytes) => write!(f, "Component({} bytes)", bytes.len()),
            Code::Native { version, .. } => write!(f, "Native({version})"),
        }
    }
}

impl From<Bytes> for Code {
    fn from(component: Bytes) -> Code {
        Code::Component(component)
    }
}

/// Where a new handler begins in its input topics. An upgrade goes on where the handler stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// With the oldest record that is retained.
    #[default]
    Earliest,
    /// With what is produced after the deployment.
    Latest,
    /// With the first record at or after this time, in milliseconds since 1970.
    Timestamp(i64),
}

/// What happens with an event that fails, run alone, as often as it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It goes to topic `<handler>.dlq`, and the task goes on behind it.
    DeadLetter {
        /// How often it is run alone before that; at least 1.
        attempts: u32,
    },
    /// The task stops before it, until the handler is resumed or upgraded.
    Halt {
        /// How often it is run alone before that; at least 1.
        attempts: u32,
    },
}

impl Default for OnError {
    fn default() -> Self {
        OnError::DeadLetter { attempts: 3 }
    }
}

impl OnError {
    /// How often a failing event is run alone.
    pub fn attempts(&self) -> u32 {
        match self {
            OnError::DeadLetter { attempts } | OnError::Halt { attempts } => (*attempts).max(1),
        }
    }
}

/// A handler, as it is deployed.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its name in the tenant; letters, digits, `.`, `_` and `-`, at most 200 bytes.
    pub name: String,
    /// The topics it reads; they must exist.
    pub inputs: Vec<String>,
    /// The topics it may write to.
    pub outputs: Vec<String>,
    /// Its code.
    pub code: Code,
    /// Where a new handler begins.
    pub start: StartFrom,
    /// What happens with an event that fails.
    pub on_error: OnError,
    /// Instructions an event may use, about; a step gets the sum. Calls of the state use as much again, at 500 for each
    /// call and key, and 1 for 8 bytes. At most [`MAX_FUEL_PER_EVENT`].
    pub fuel_per_event: u64,
    /// The linear memory an instance may grow to; at most what all handlers together have. The host copies no more than
    /// this for one call, and no more than 32 MiB.
    pub memory_bytes: u64,
    /// Whether output topics that are missing are created, with as many partitions as the first input topic.
    pub create_topics: bool,
}

impl Deployment {
    /// A deployment with every setting at its default.
    pub fn new(name: impl Into<String>, code: impl Into<Code>) -> Deployment {
        Deployment {
            name: name.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            code: code.into(),
            start: StartFrom::default(),
            on_error: OnError::default(),
            fuel_per_event: DEFAULT_FUEL_PER_EVENT,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            create_topics: false,
        }
    }

    /// Adds an input topic.
    pub fn input(mut self, topic: impl Into<String>) -> Deployment {
        self.inputs.push(topic.into());
        self
    }

    /// Adds an output topic.
    pub fn output(mut self, topic: impl Into<String>) -> Deployment {
        self.outputs.push(topic.into());
        self
    }
}
