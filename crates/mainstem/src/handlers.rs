//! Where handlers and what they process meet: what SQL must know of them, and how far they have come.

use crate::Error;
use mainstem_broker::{Broker, Caller};
use mainstem_query::{HandlerCatalog, HandlerTable};
use mainstem_runtime::{HandlerState, HandlerStatus, Runtime, keys};
use mainstem_store::{Family, StoreSnapshot};
use serde::Serialize;

/// The handlers as SQL sees them.
pub(crate) struct Handlers {
    pub(crate) runtime: Runtime,
}

impl HandlerCatalog for Handlers {
    fn handlers(&self, caller: &Caller) -> Vec<HandlerTable> {
        let of = |status: HandlerStatus| {
            let tasks = task_shards(&self.runtime, caller, &status.name);
            HandlerTable {
                name: status.name.into(),
                id: status.id,
                tasks,
                schema: None,
            }
        };
        // What is being removed is half gone already.
        let there = |status: &HandlerStatus| status.state != HandlerState::Removing;
        let handlers = self.runtime.list(caller).into_iter();
        handlers.filter(there).map(of).collect()
    }
}

/// Each task's partition number and shard; none where the handler is gone in the meantime.
fn task_shards(runtime: &Runtime, caller: &Caller, handler: &str) -> Vec<(u32, u16)> {
    let shard = |prefix: &[u8]| match prefix {
        [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    let prefixes = runtime.state_prefixes(caller, handler).unwrap_or_default();
    prefixes
        .into_iter()
        .filter_map(|(partition, prefix)| Some((partition, shard(&prefix)?)))
        .collect()
}

/// How far one task is in one of its input partitions.
#[derive(Clone, Debug)]
pub(crate) struct InputPosition {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// The next offset to process; `None` before the first step.
    pub(crate) next_offset: Option<i64>,
    pub(crate) start: i64,
    pub(crate) high_watermark: i64,
}

impl InputPosition {
    /// Events yet to process.
    pub(crate) fn lag(&self) -> u64 {
        let next = self.next_offset.unwrap_or(self.start).max(self.start);
        u64::try_from(self.high_watermark - next).unwrap_or(0)
    }
}

/// Every input position of a handler, as a view of the store has it; `bounds` gives a partition's start and end in
/// the log of the same moment.
pub(crate) fn input_positions(
    broker: &Broker,
    runtime: &Runtime,
    caller: &Caller,
    handler: &HandlerStatus,
    store: &dyn StoreSnapshot,
    bounds: &dyn Fn(mainstem_log::PartitionId) -> Option<(i64, i64)>,
) -> Result<Vec<InputPosition>, mainstem_store::StoreError> {
    let mut positions = Vec::new();
    let shards = task_shards(runtime, caller, &handler.name);
    for topic in handler
        .inputs
        .iter()
        .filter_map(|name| broker.topic(caller, name).ok())
    {
        for (partition, shard) in &shards {
            let Some(id) = topic.partition_id(*partition) else {
                continue;
            };
            let Some((start, high_watermark)) = bounds(id) else {
                continue;
            };
            let value = store.get(
                Family::Offsets,
                &keys::offset_key(*shard, handler.id, *partition, topic.id.0),
            )?;
            let next_offset =
                value.and_then(|value| Some(i64::from_be_bytes(value.as_ref().try_into().ok()?)));
            let topic = topic.name.to_string();
            positions.push(InputPosition {
                topic,
                partition: *partition,
                next_offset,
                start,
                high_watermark,
            });
        }
    }
    Ok(positions)
}

/// How far a handler had come when the directory was opened.
#[derive(Clone, Debug, Serialize)]
pub struct RecoveredHandler {
    /// Its name.
    pub name: String,
    /// Events whose step was committed, of those that are retained.
    pub committed_events: u64,
    /// Events that the topics hold beyond that.
    pub lag_events: u64,
}

/// How far every handler of the default tenant has come. Called before any task moves.
pub(crate) fn committed_events(
    broker: &Broker,
    runtime: &Runtime,
) -> Result<Vec<RecoveredHandler>, Error> {
    let caller = Caller::anonymous();
    let log = broker.engine().log();
    let bounds = |partition| {
        log.bounds(partition)
            .ok()
            .map(|bounds| (bounds.start, bounds.high_watermark))
    };
    let mut recovered = Vec::new();
    for handler in runtime.list(&caller) {
        let store = broker.engine().store();
        let positions =
            input_positions(broker, runtime, &caller, &handler, store.as_ref(), &bounds)?;
        let lag_events = positions.iter().map(InputPosition::lag).sum();
        let held: u64 = positions
            .iter()
            .map(|one| u64::try_from(one.high_watermark - one.start).unwrap_or(0))
            .sum();
        recovered.push(RecoveredHandler {
            name: handler.name,
            committed_events: held - lag_events,
            lag_events,
        });
    }
    Ok(recovered)
}
