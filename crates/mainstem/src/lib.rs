//! Mainstem in one process: a data directory goes in, a running platform comes out.
//!
//! [`Mainstem::open`] takes a directory and [`Options`], and gives back a handle from which a program gets
//! the [`Broker`] (topics, produce, fetch), the [`Runtime`] (handlers) and SQL ([`Mainstem::sql`]). The server
//! is a thin shell around exactly this; a program that embeds it has the same promises and no network.
//!
//! What it promises:
//! - one process per directory: a second one is refused with the process id of the first;
//! - everything that was acknowledged is there after `open`, however the last process ended;
//! - every thread it starts ends with [`Mainstem::shutdown`], or with the last handle;
//! - memory is shared out of one limit, in one place: [`MemorySplit`].
//!
//! What it refuses: a directory written by a newer version, a directory that holds something else, and a
//! setting it does not know.
//!
//! Where to start reading: `platform.rs` (open, the handle, shutdown), then `threads.rs`
//! (who moves the state machines), `directory.rs` (what the data directory holds), `check/` (looking one through offline).

mod beside;
mod broker_configs;
mod check;
mod descriptors;
mod directory;
mod error;
mod handlers;
mod latency;
mod options;
mod platform;
mod sql;
mod status;
mod system_tables;
mod threads;
mod timed_disk;
mod unpack;

pub use beside::beside;
pub use broker_configs::{BrokerConfig, broker_configs};
pub use check::{CheckOptions, CheckProgress, CheckReport, Checked, Finding, Grade, check};
pub use directory::{FORMAT_VERSION, Meta};
pub use error::Error;
pub use handlers::RecoveredHandler;
pub use latency::{LATENCY_BOUNDS_S, Latencies, Latency};
pub use options::{MemorySplit, Options};
pub use platform::{Mainstem, now_ms};
pub use status::{RecoveryReport, Status};
pub use unpack::Unpacked;

// What a program needs beside the handle, so that depending on `mainstem` alone is enough.
pub use mainstem_broker::{self as broker, Broker, Caller};
pub use mainstem_engine as engine;
pub use mainstem_query::{self as query, QueryEngine, QueryError, QueryResult};
pub use mainstem_record as record;
pub use mainstem_runtime::{self as runtime, Runtime};
pub use mainstem_schema as schema;
