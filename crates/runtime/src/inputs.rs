//! Partitions that are added to a handler's inputs after it was deployed.
//!
//! A handler without state gets tasks for them by itself. One with state does not: its keys now lie in other partitions
//! than their state, so somebody must have decided that this is right, and says so by deploying it again.

use std::ops::ControlFlow;
use std::sync::Arc;

use mainstem_broker::Topic;
use mainstem_store::{Family, prefix_end};

use crate::catalog::HandlerRecord;
use crate::lifecycle::name_of;
use crate::runtime::{Runtime, caller_of};
use crate::{RuntimeError, keys};

/// How often the inputs are looked at.
const WATCH_MS: i64 = 1_000;

impl Runtime {
    /// Looks at the inputs of all handlers now and then.
    pub(crate) fn watch_inputs(&self) {
        let (inner, executor) = (Arc::downgrade(&self.inner), self.inner.executor.clone());
        self.inner.executor.spawn(async move {
            loop {
                executor.sleep_until(executor.now_ms() + WATCH_MS).await;
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                let runtime = Runtime { inner };
                for record in runtime.grown() {
                    if let Err(error) = runtime.take_in(&record).await {
                        tracing::warn!(handler = %record.name, %error, "added partitions are not read yet");
                        runtime.look_again(&record);
                    }
                }
            }
        });
    }

    /// Those of a handler's input partitions that have a task.
    pub(crate) fn covered_partitions(&self, record: &HandlerRecord) -> u32 {
        let tasks = u32::try_from(record.shards.len()).unwrap_or(u32::MAX);
        self.inputs_of(record)
            .map(|topic| topic.partitions.min(tasks))
            .fold(0, u32::saturating_add)
    }

    /// The partitions of a handler's inputs, all together.
    fn input_partitions(&self, record: &HandlerRecord) -> u32 {
        self.inputs_of(record)
            .map(|topic| topic.partitions)
            .fold(0, u32::saturating_add)
    }

    fn inputs_of<'a>(&'a self, record: &'a HandlerRecord) -> impl Iterator<Item = Arc<Topic>> + 'a {
        let caller = caller_of(record);
        let find = move |name: &String| self.inner.broker.topic(&caller, name).ok();
        record.inputs.iter().filter_map(find)
    }

    /// Handlers that have got more partitions to read since they were last looked at.
    fn grown(&self) -> Vec<Arc<HandlerRecord>> {
        let handlers = self.inner.handlers.lock();
        let records: Vec<_> = handlers
            .values()
            .map(|known| known.record.clone())
            .collect();
        drop(handlers);
        let mut grown = Vec::new();
        for record in records {
            let partitions = self.input_partitions(&record);
            let mut handlers = self.inner.handlers.lock();
            // One that was changed meanwhile is looked at the next time.
            let known = handlers.get_mut(&name_of(&record));
            let Some(handler) = known.filter(|known| Arc::ptr_eq(&known.record, &record)) else {
                continue;
            };
            // Said and done once for each change.
            let before = std::mem::replace(&mut handler.partitions, partitions);
            if partitions > before && !record.removing {
                drop(handlers);
                grown.push(record);
            }
        }
        grown
    }

    /// Has the next round find what this one could not take in.
    fn look_again(&self, record: &HandlerRecord) {
        let covered = self.covered_partitions(record);
        let mut handlers = self.inner.handlers.lock();
        let mut handlers = handlers.values_mut();
        if let Some(handler) = handlers.find(|handler| handler.record.id == record.id) {
            handler.partitions = covered;
        }
    }

    async fn take_in(&self, record: &HandlerRecord) -> Result<(), RuntimeError> {
        let caller = caller_of(record);
        if self.has_state(record)? {
            let why = "partitions were added to its inputs, and are not read: it has state, and keys may be in another partition now than their state; deploy it again to read them all the same";
            tracing::warn!(handler = %record.name, why);
            if let Ok((_, tasks)) = self.find(&caller, &record.name) {
                for task in tasks {
                    let mut status = task.status.lock();
                    status.last_error = Some(why.to_owned());
                    status.last_error_ms = Some(self.inner.executor.now_ms());
                }
            }
            return Ok(());
        }
        let topics: Vec<Arc<Topic>> = self.inputs_of(record).collect();
        let change = |found: &mut HandlerRecord| {
            if found.id == record.id && !found.removing {
                found.shards = shards(&topics, &found.shards);
                // A new start of all tasks: one that was there may have a further input.
                found.generation += 1;
            }
        };
        self.change(&caller, &record.name, change).await?;
        tracing::info!(handler = %record.name, "partitions were added to its inputs, and are read");
        self.follow(&record.tenant, &record.name)
    }

    fn has_state(&self, record: &HandlerRecord) -> Result<bool, RuntimeError> {
        let store = self.inner.broker.engine().store();
        let mut found = false;
        for (partition, shard) in record.tasks() {
            let prefix = keys::state_prefix(shard, record.id, partition);
            let end = prefix_end(&prefix);
            store.scan(Family::State, &prefix, end.as_deref(), &mut |_, _| {
                found = true;
                ControlFlow::Break(())
            })?;
        }
        Ok(found)
    }
}

/// The shard of each task: that of its partition in the first input topic that has it. What is known stays.
pub(crate) fn shards(inputs: &[Arc<Topic>], known: &[u16]) -> Vec<u16> {
    let most = inputs
        .iter()
        .map(|topic| topic.partitions)
        .max()
        .unwrap_or(0)
        .max(known.len() as u32);
    (0..most)
        .map(|partition| {
            let kept = known.get(partition as usize).copied();
            kept.or_else(|| inputs.iter().find_map(|topic| topic.shard(partition)))
                .unwrap_or_default()
        })
        .collect()
}
