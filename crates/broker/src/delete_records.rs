//! Deleting records: a partition's start moves up, as retention does it, but at somebody's word.

use mainstem_engine::{Check, EngineError, Submission};
use mainstem_log::LogOp;

use crate::access::Access;
use crate::broker::Broker;
use crate::catalog::Entry;
use crate::fetch::{PartitionBounds, named};
use crate::produce::no_partition;
use crate::topic::Topic;
use crate::topics::{MAX_TRIES, not_found};
use crate::{BrokerError, Caller, keys};

impl Broker {
    /// Deletes the records below an offset in each of the named partitions, or all that can be read now where no offset
    /// is given: in all of these partitions together, or in none. Returns what they hold afterwards, in the order of
    /// the question. An offset below the start changes nothing; one above the high watermark is out of range. A topic that
    /// is only compacted refuses, as in Kafka.
    pub async fn delete_records(
        &self,
        caller: &Caller,
        topic: &str,
        before: &[(u32, Option<i64>)],
    ) -> Result<Vec<PartitionBounds>, BrokerError> {
        self.topic_for(caller, Access::Delete { topic }, topic)?;
        let entry = Entry::new(&caller.tenant, topic);
        for _ in 0..MAX_TRIES {
            // Read first, so that the check covers everything decided after it.
            let (as_of, store) = self.inner.engine.read_at()?;
            let found = self.inner.catalog.read(&*store, &entry)?;
            let found = found.ok_or_else(|| not_found(topic))?;
            drop(store);
            if !found.limits.deletes {
                return Err(BrokerError::NotDeleted {
                    topic: topic.into(),
                });
            }
            let log_ops = self.cuts(&found, before)?;
            if !log_ops.is_empty() {
                let submission = Submission {
                    log_ops,
                    checks: vec![Check::Unchanged {
                        family: keys::FAMILY,
                        key: entry.key(),
                        as_of,
                    }],
                    all_or_nothing: true,
                    ..Submission::default()
                };
                let permit = self.reserve(&submission).await?;
                match self.inner.engine.submit(submission, permit).await {
                    Ok(_) => {
                        tracing::info!(tenant = %caller.tenant, principal = %caller.principal, topic, ?before, "records deleted");
                    }
                    Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let partitions = before
                .iter()
                .filter_map(|(index, _)| found.partition_id(*index));
            return partitions
                .map(|partition| self.bounds_of(&found, partition))
                .collect();
        }
        Err(BrokerError::Contended {
            what: format!("topic '{topic}'"),
        })
    }

    /// The operations that move starts, for those partitions where there is something to delete.
    fn cuts(
        &self,
        topic: &Topic,
        before: &[(u32, Option<i64>)],
    ) -> Result<Vec<(u16, LogOp)>, BrokerError> {
        let mut log_ops = Vec::new();
        for (index, before) in before {
            let (Some(partition), Some(shard)) = (topic.partition_id(*index), topic.shard(*index))
            else {
                return Err(no_partition(topic, *index));
            };
            let bounds = self.inner.engine.log().bounds(partition);
            let bounds = bounds.map_err(|error| named(error, topic, partition))?;
            let offset = before.unwrap_or(bounds.high_watermark);
            if !(0..=bounds.high_watermark).contains(&offset) {
                return Err(BrokerError::OffsetOutOfRange {
                    topic: topic.name.to_string(),
                    partition: *index,
                    offset,
                    start: bounds.start,
                    end: bounds.high_watermark,
                });
            }
            if offset > bounds.start {
                log_ops.push((shard, LogOp::SetStart { partition, offset }));
            }
        }
        Ok(log_ops)
    }
}
