//! Retention: the log says what is expired, a frame says that it is gone. Nobody who writes waits for it. And when
//! compaction begins: the engine's background worker does it.

use mainstem_engine::{Check, CompactionPolicy, CompactionRequest, EngineError, Submission};
use mainstem_log::{LogError, LogOp, PartitionId};

use crate::BrokerError;
use crate::broker::Broker;
use crate::catalog::Entry;
use crate::keys;
use crate::topic::Topic;

/// What a round of retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionRound {
    /// Topics looked at.
    pub topics: usize,
    /// Partitions whose start was moved.
    pub moved: usize,
}

/// What a round of compaction asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRound {
    /// Compacted topics looked at.
    pub topics: usize,
    /// Partitions that were handed to the background.
    pub requested: usize,
}

impl Broker {
    /// Looks at every partition of compacted topics once and asks for a pass over those that have become dirty enough, or
    /// have been dirty for too long: these first, then the dirtiest. Whoever has the timer calls this now and then.
    pub fn compaction_round(&self, now_ms: i64) -> Result<CompactionRound, BrokerError> {
        let mut round = CompactionRound::default();
        let mut due = Vec::new();
        for topic in self.all_topics()? {
            let Some(limits) = topic.limits.compaction else {
                continue;
            };
            round.topics += 1;
            let policy = CompactionPolicy {
                now_ms,
                min_lag_ms: limits.min_lag_ms,
                delete_retention_ms: limits.delete_retention_ms,
            };
            for (partition, shard) in topic.partition_ids().zip(&topic.shards) {
                let found = match self.inner.engine.log().compactable(partition, &policy) {
                    Err(LogError::UnknownPartition { .. }) => continue,
                    found => found?,
                };
                let all = u128::from(found.clean_bytes) + u128::from(found.dirty_bytes);
                let dirty = u128::from(found.dirty_bytes) * 1_000_000;
                let dirty_millionths = dirty.checked_div(all).unwrap_or(0);
                let is_overdue = found.dirty_bytes > 0
                    && self.is_overdue(partition, &policy, limits.max_lag_ms)?;
                if is_overdue || dirty_millionths > u128::from(limits.min_dirty_millionths) {
                    let request = CompactionRequest {
                        partition,
                        shard: *shard,
                        policy,
                    };
                    due.push(((is_overdue, dirty_millionths), request));
                }
            }
        }
        due.sort_by_key(|(urgency, _)| std::cmp::Reverse(*urgency));
        let taken = due
            .into_iter()
            .map(|(_, request)| self.inner.engine.compact(request));
        round.requested = taken.filter(|taken| *taken).count();
        Ok(round)
    }

    /// Whether a record has waited for compaction for longer than it may.
    fn is_overdue(
        &self,
        partition: PartitionId,
        policy: &CompactionPolicy,
        max_lag_ms: i64,
    ) -> Result<bool, BrokerError> {
        if max_lag_ms == i64::MAX {
            return Ok(false);
        }
        let since_ms = policy.now_ms.saturating_sub(max_lag_ms);
        match self.inner.engine.log().oldest_dirty_ms(partition, policy) {
            Err(LogError::UnknownPartition { .. }) => Ok(false),
            found => Ok(found?.is_some_and(|oldest_ms| oldest_ms < since_ms)),
        }
    }

    /// Looks at every partition once and moves the starts of those that hold expired segments. Whoever has the timer
    /// calls this now and then.
    pub async fn retention_round(&self, now_ms: i64) -> Result<RetentionRound, BrokerError> {
        let mut round = RetentionRound::default();
        for topic in self.all_topics()? {
            round.topics += 1;
            if !topic.limits.deletes {
                continue;
            }
            round.moved += self.expire(&topic, now_ms).await?;
        }
        Ok(round)
    }

    async fn expire(&self, topic: &Topic, now_ms: i64) -> Result<usize, BrokerError> {
        let engine = &self.inner.engine;
        let entry = Entry {
            tenant: topic.tenant.clone(),
            name: topic.name.clone(),
        };
        // Read first, so that the check covers everything decided after it.
        let (as_of, store) = engine.read_at()?;
        match self.inner.catalog.read(&*store, &entry)? {
            Some(found) if found.id == topic.id => drop(store),
            _ => return Ok(0),
        }
        let mut log_ops = Vec::new();
        for (partition, shard) in topic.partition_ids().zip(&topic.shards) {
            let limits = &topic.limits;
            match engine.log().expired(
                partition,
                now_ms,
                limits.retention_ms,
                limits.retention_bytes,
            ) {
                Ok(Some(offset)) => log_ops.push((*shard, LogOp::SetStart { partition, offset })),
                Ok(None) | Err(LogError::UnknownPartition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let moved = log_ops.len();
        if moved == 0 {
            return Ok(0);
        }
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
        match engine.submit(submission, permit).await {
            Ok(_) => {
                tracing::info!(topic = %topic.name, partitions = moved, "expired records removed");
                Ok(moved)
            }
            // Changed or deleted meanwhile: the next round decides anew.
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
