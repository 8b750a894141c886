//! Handlers for Mainstem, in Rust.
//!
//! A handler is a function that gets one event at a time, reads and changes its state, and emits records:
//!
//! ```ignore
//! use mainstem_sdk::prelude::*;
//!
//! const SEEN: Table<str, u64> = Table::new("seen");
//!
//! #[mainstem_sdk::handler]
//! fn count(event: &Event, ctx: &mut Context) -> Result<()> {
//!     let name = event.key_str()?;
//!     let seen = SEEN.get(ctx, name)?.unwrap_or(0) + 1;
//!     SEEN.put(ctx, name, &seen)?;
//!     ctx.emit("counts", name, &seen)
//! }
//! ```
//!
//! What it emits, what it changes and the fact that the event has been handled become one frame: all of it happens,
//! once, or none of it. An error (or a panic) undoes everything the event did; Mainstem tries it again and then does
//! what the deployment says, dead-letter it or halt.
//!
//! A handler has no clock but the event's time, no randomness of its own, no files and no network. What it keeps in
//! `static`s is a cache that may vanish at any moment; what counts belongs in a [`Table`].

mod context;
mod error;
mod event;
mod packed;
mod table;

pub use context::{Context, Level, Output};
pub use error::{Error, Result};
pub use event::{Event, Headers};
pub use mainstem_sdk_macros::handler;
pub use table::{BytesTable, Key, Table};

/// What a handler's file begins with.
pub mod prelude {
    pub use crate::{
        BytesTable, Context, Event, Handler, Output, Result, Table, bail, debug, error, info,
        trace, warn,
    };
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};
}

/// A handler as a type, where a function is not enough: see [`export!`](crate::export).
pub trait Handler {
    /// Handles one event. An error undoes all that was done for it.
    fn handle(event: &Event, ctx: &mut Context) -> Result<()>;

    /// The state that the event will read, so that it can be fetched for a whole batch in one go. Not needed: it only
    /// saves time where the state is large.
    fn prefetch(_event: &Event, _keys: &mut Prefetch) {}
}

/// Collects the keys that a batch will read.
#[derive(Default)]
pub struct Prefetch {
    pub(crate) keys: std::collections::BTreeMap<&'static str, Vec<Vec<u8>>>,
}

impl Prefetch {
    /// A key of a table with typed values.
    pub fn add<K: Key + ?Sized, V>(&mut self, table: &Table<K, V>, key: &K) {
        self.keys
            .entry(table.name())
            .or_default()
            .push(key.to_key().into_owned());
    }

    /// A key of a table of bytes.
    pub fn add_bytes(&mut self, table: &BytesTable, key: &[u8]) {
        self.keys
            .entry(table.name())
            .or_default()
            .push(key.to_vec());
    }
}

/// The generated bindings of world `packed-handler`.
#[doc(hidden)]
pub mod bindings {
    #![allow(missing_docs)]
    wit_bindgen::generate!({
        path: "../wit",
        world: "packed-handler",
        pub_export_macro: true,
        default_bindings_module: "mainstem_sdk::bindings",
        runtime_path: "::mainstem_sdk::__rt",
    });
}

#[doc(hidden)]
pub use wit_bindgen::rt as __rt;
// The bindings name this crate by its name, which it does not know itself.
extern crate self as mainstem_sdk;

/// Makes a type that implements [`Handler`] the component's handler: `mainstem_sdk::export!(MyHandler);`. For a
/// function, use the attribute [`handler`](macro@crate::handler).
#[macro_export]
macro_rules! export {
    (fn $function:ident) => {
        const _: () = {
            struct Function;
            impl $crate::Handler for Function {
                fn handle(event: &$crate::Event, ctx: &mut $crate::Context) -> $crate::Result<()> {
                    $function(event, ctx)
                }
            }
            $crate::export!(Function);
        };
    };
    ($handler:ty) => {
        const _: () = {
            struct Component;
            impl $crate::bindings::Guest for Component {
                fn step_packed(
                    events: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<::std::vec::Vec<u8>, ::std::string::String> {
                    $crate::__step::<$handler>(&events)
                }
            }
    $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}

#[doc(hidden)]
pub fn __step<H: Handler>(events: &[u8]) -> std::result::Result<Vec<u8>, String> {
    context::install_panic_hook();
    let batch =
        packed::Batch::read(events).ok_or_else(|| "the host's buffer is malformed".to_owned())?;
    let mut keys = Prefetch::default();
    for event in batch.events() {
        H::prefetch(&event, &mut keys);
    }
    let mut ctx = Context::new(events.len(), keys);
    for event in batch.events() {
        ctx.begin(event.timestamp_ms);
        H::handle(&event, &mut ctx).map_err(|error| {
            format!(
                "{error} (topic {}, partition {}, offset {})",
                event.topic, event.partition, event.offset
            )
        })?;
    }
    Ok(ctx.finish())
}

/// Ends the handler's function with an error: `bail!("no carrier in {key}")`.
#[macro_export]
macro_rules! bail {
    ($($message:tt)*) => { return Err($crate::Error::new(format!($($message)*))) };
}

/// Writes a line to the server's log, as [`format!`] does: `info!("seen {count}")`.
#[macro_export]
macro_rules! info {
    ($($message:tt)*) => { $crate::__log($crate::Level::Info, &format!($($message)*)) };
}

/// As [`info!`](crate::info), for what only helps to find errors.
#[macro_export]
macro_rules! debug {
    ($($message:tt)*) => { $crate::__log($crate::Level::Debug, &format!($($message)*)) };
}

/// As [`info!`](crate::info), for the smallest steps.
#[macro_export]
macro_rules! trace {
    ($($message:tt)*) => { $crate::__log($crate::Level::Trace, &format!($($message)*)) };
}

/// As [`info!`](crate::info), for what should not happen.
#[macro_export]
macro_rules! warn {
    ($($message:tt)*) => { $crate::__log($crate::Level::Warn, &format!($($message)*)) };
}

/// As [`info!`](crate::info), for what must not happen.
#[macro_export]
macro_rules! error {
    ($($message:tt)*) => { $crate::__log($crate::Level::Error, &format!($($message)*)) };
}

#[doc(hidden)]
pub fn __log(level: Level, message: &str) {
    bindings::mainstem::handler::log::write(level, message);
}
