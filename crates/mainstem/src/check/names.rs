//! The catalogue as it will be after recovery: what stands in the store, and what frames after that change. It gives
//! topics and handlers their names.

use bytes::Bytes;
use mainstem_broker::keys::{self, Kind};
use mainstem_broker::{check_broker_configs, read_topic_entry};
use mainstem_log::{PartitionId, TopicId};
use mainstem_runtime::verify::HandlerEntry;
use mainstem_store::{StoreError, StoreOp, StoreSnapshot};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Entries by key.
#[derive(Default)]
pub(super) struct Catalog {
    entries: BTreeMap<Bytes, Bytes>,
}

/// The names in it.
#[derive(Default)]
pub(super) struct Names {
    pub(super) topics: BTreeMap<TopicId, (String, u32)>,
    pub(super) handlers: Vec<HandlerEntry>,
}

impl Catalog {
    /// Takes in what the store has. After an error it has what could be read.
    pub(super) fn read(&mut self, store: &dyn StoreSnapshot) -> Result<(), StoreError> {
        let prefix = keys::whole_catalog();
        store.scan_prefix(keys::FAMILY, &prefix, &mut |key, value| {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            self.entries.insert(key, value);
            ControlFlow::Continue(())
        })
    }

    /// Takes in a change by a frame that the store does not have yet.
    pub(super) fn change(&mut self, op: &StoreOp) {
        if !op.key.starts_with(&keys::whole_catalog()) {
            return;
        }
        match &op.value {
            Some(value) => self.entries.insert(op.key.clone(), value.clone()),
            None => self.entries.remove(&op.key),
        };
    }

    /// Reads every entry; `wrong` hears of each that makes no sense.
    pub(super) fn names(&self, wrong: &mut dyn FnMut(String)) -> Names {
        let mut names = Names::default();
        for (key, value) in &self.entries {
            let Some((tenant, kind, name)) = keys::parse_catalog_key(key) else {
                wrong(format!("the key {key:?} is no key of the catalogue"));
                continue;
            };
            if kind == Kind::Topic as u8 {
                match read_topic_entry(tenant, name, value) {
                    Ok((id, partitions)) => {
                        let name = full_name(tenant, name);
                        names.topics.insert(id, (name, partitions));
                    }
                    Err(error) => wrong(error.to_string()),
                }
            } else if kind == Kind::Handler as u8 {
                match HandlerEntry::read(name, value) {
                    Ok(handler) => names.handlers.push(handler),
                    Err(error) => wrong(error.to_string()),
                }
            } else if kind == Kind::BrokerConfigs as u8 {
                if let Err(error) = check_broker_configs(value) {
                    wrong(error.to_string());
                }
            } else if kind == Kind::Counter as u8 && value.len() != 8 {
                wrong(format!(
                    "the counter {name} has {} bytes, not 8",
                    value.len()
                ));
            }
        }
        names
    }
}

impl Names {
    /// A topic's name, or its id where no entry has it.
    pub(super) fn topic(&self, id: TopicId) -> String {
        let known = self.topics.get(&id).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| id.to_string())
    }

    /// A partition as `topic/number`.
    pub(super) fn partition(&self, id: PartitionId) -> String {
        format!("{}/{}", self.topic(id.topic), id.index)
    }
}

/// The tenant `default` goes without saying.
pub(super) fn full_name(tenant: &str, name: &str) -> String {
    match tenant {
        "default" => name.to_owned(),
        tenant => format!("{tenant}/{name}"),
    }
}
