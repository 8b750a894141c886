use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::bindings::mainstem::handler::{log, state};
use crate::packed::Writer;
use crate::{Key, Prefetch, Result};

pub use crate::bindings::mainstem::handler::log::Level;

/// What a handler can do: emit records, and reach its tables (through [`crate::Table`]).
pub struct Context {
    writer: Writer,
    timestamp_ms: i64,
    fetched: BTreeMap<&'static str, HashMap<Vec<u8>, Option<Vec<u8>>>>,
}

impl Context {
    pub(crate) fn new(batch_bytes: usize, prefetch: Prefetch) -> Context {
        let fetch = |(table, keys): (&'static str, Vec<Vec<u8>>)| {
            let values = state::get_many(table, &keys);
            (table, keys.into_iter().zip(values).collect())
        };
        Context {
            writer: Writer::with_capacity(batch_bytes),
            timestamp_ms: 0,
            fetched: prefetch.keys.into_iter().map(fetch).collect(),
        }
    }

    pub(crate) fn begin(&mut self, timestamp_ms: i64) {
        self.timestamp_ms = timestamp_ms;
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.writer.finish()
    }

    /// Emits a record with a JSON value. It goes to the partition of its key and carries the event's time.
    pub fn emit<K: Key + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        key: &K,
        value: &V,
    ) -> Result<()> {
        let value = serde_json::to_vec(value)?;
        self.send(
            topic,
            Output {
                key: Some(&key.to_key()),
                value: Some(&value),
                ..Output::default()
            },
        );
        Ok(())
    }

    /// Emits a record of bytes.
    pub fn emit_bytes(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.send(
            topic,
            Output {
                key,
                value,
                ..Output::default()
            },
        );
    }

    /// Emits a record with everything a record can have.
    pub fn send(&mut self, topic: &str, output: Output<'_>) {
        let time = output.timestamp_ms.unwrap_or(self.timestamp_ms);
        self.writer.output(
            topic,
            output.key,
            output.value,
            output.headers,
            time,
            output.partition,
        );
    }

    pub(crate) fn get(&mut self, table: &'static str, key: &[u8]) -> Option<Vec<u8>> {
        match self.fetched.get(table).and_then(|values| values.get(key)) {
            Some(value) => value.clone(),
            None => state::get(table, key),
        }
    }

    pub(crate) fn put(&mut self, table: &'static str, key: &[u8], value: Vec<u8>) {
        state::put(table, key, &value);
        if let Some(slot) = self
            .fetched
            .get_mut(table)
            .and_then(|values| values.get_mut(key))
        {
            *slot = Some(value);
        }
    }

    pub(crate) fn delete(&mut self, table: &'static str, key: &[u8]) {
        state::delete(table, key);
        if let Some(slot) = self
            .fetched
            .get_mut(table)
            .and_then(|values| values.get_mut(key))
        {
            *slot = None;
        }
    }
}

/// A record to emit.
#[derive(Clone, Copy, Default)]
pub struct Output<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// The record's time; without it, the event's.
    pub timestamp_ms: Option<i64>,
    /// The partition; without it, that of the key, and without a key that of the event.
    pub partition: Option<u32>,
}

/// A panic ends the step without a word; this says why, in the server's log and in the task's last error.
pub(crate) fn install_panic_hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            log::write(Level::Error, &panic.to_string())
        }));
    });
}
