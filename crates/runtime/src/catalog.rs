//! A handler as the catalogue has it.

use std::sync::Arc;

use bytes::Bytes;
use mainstem_engine::{Check, Engine};
use mainstem_store::Family;
use serde::{Deserialize, Serialize};

use crate::{OnError, RuntimeError, StartFrom, keys};

/// The version of the entry's format.
const FORMAT: u32 = 1;

/// A deployed handler. Kept as JSON under [`keys::handler_key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandlerRecord {
    format: u32,
    pub(crate) id: u64,
    pub(crate) tenant: String,
    pub(crate) name: String,
    /// The SHA-256 of the component, or the version of native code.
    pub(crate) version: String,
    /// Whether the code is in the program and not in `modules/`.
    pub(crate) native: bool,
    pub(crate) generation: u64,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) start: StartFrom,
    pub(crate) on_error: OnError,
    pub(crate) fuel_per_event: u64,
    pub(crate) memory_bytes: u64,
    /// The shard of each task, by partition number. Kept over upgrades, because the state lies there.
    pub(crate) shards: Vec<u16>,
    pub(crate) paused: bool,
    pub(crate) removing: bool,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

impl HandlerRecord {
    pub(crate) fn new(id: u64, tenant: &str, name: &str, now_ms: i64) -> HandlerRecord {
        HandlerRecord {
            format: FORMAT,
            id,
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            version: String::new(),
            native: false,
            generation: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            start: StartFrom::default(),
            on_error: OnError::default(),
            fuel_per_event: 0,
            memory_bytes: 0,
            shards: Vec::new(),
            paused: false,
            removing: false,
            created_ms: now_ms,
            updated_ms: now_ms,
        }
    }

    pub(crate) fn key(&self) -> Bytes {
        keys::handler_key(&self.tenant, &self.name)
    }

    pub(crate) fn encode(&self) -> Result<Bytes, RuntimeError> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|error| self.unreadable(&error))
    }

    pub(crate) fn decode(name: &str, value: &[u8]) -> Result<HandlerRecord, RuntimeError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let failed = |reason: String| RuntimeError::Catalog {
            name: name.to_owned(),
            reason,
        };
        let version: Version =
            serde_json::from_slice(value).map_err(|error| failed(error.to_string()))?;
        if version.format != FORMAT {
            return Err(failed(format!(
                "it has format {}, this program knows {FORMAT}; use the program that wrote it, or a newer one",
                version.format
            )));
        }
        serde_json::from_slice(value).map_err(|error| failed(error.to_string()))
    }

    /// Where the handler sends what it cannot handle, where that is its policy.
    pub(crate) fn dead_letter_topic(&self) -> Option<String> {
        match self.on_error {
            OnError::DeadLetter { .. } => Some(dead_letter_topic(&self.name)),
            OnError::Halt { .. } => None,
        }
    }

    /// Each task's partition number and shard.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        (0u32..).zip(self.shards.iter().copied())
    }

    /// A task's name in the server's log.
    pub(crate) fn label(&self, partition: u32) -> Arc<str> {
        format!("{}/{}/{partition}", self.tenant, self.name).into()
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> RuntimeError {
        RuntimeError::Catalog {
            name: self.name.clone(),
            reason: error.to_string(),
        }
    }
}

/// A handler's entry as it was read, with what a change of it must check.
pub(crate) struct Read {
    pub(crate) record: Option<HandlerRecord>,
    pub(crate) checks: Vec<Check>,
    pub(crate) next_id: u64,
}

/// Reads a handler's entry.
pub(crate) fn read(engine: &Engine, tenant: &str, name: &str) -> Result<Read, RuntimeError> {
    let (as_of, snapshot) = engine.read_at()?;
    let (key, next_id_key) = (keys::handler_key(tenant, name), keys::next_id_key());
    let record = snapshot
        .get(Family::Catalog, &key)?
        .map(|value| HandlerRecord::decode(name, &value))
        .transpose()?;
    let next_id = snapshot
        .get(Family::Catalog, &next_id_key)?
        .as_deref()
        .and_then(keys::read_number)
        .unwrap_or(1);
    let unchanged = |key| Check::Unchanged {
        family: Family::Catalog,
        key,
        as_of,
    };
    let mut checks = vec![unchanged(key)];
    if record.is_none() {
        checks.push(unchanged(next_id_key));
    }
    Ok(Read {
        record,
        checks,
        next_id,
    })
}

/// The dead-letter topic of a handler.
pub(crate) fn dead_letter_topic(handler: &str) -> String {
    format!("{handler}.dlq")
}
