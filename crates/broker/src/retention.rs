//! Retention: the log says what is expired, a frame says that it is gone. Nobody who writes waits for it.

use mainstem_engine::{Check, EngineError, Submission};
use mainstem_log::{LogError, LogOp};

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

impl Broker {
    /// Looks at every partition once and moves the starts of those that hold expired segments. Whoever has the timer
    /// calls this now and then.
    pub async fn retention_round(&self, now_ms: i64) -> Result<RetentionRound, BrokerError> {
        let mut round = RetentionRound::default();
        for topic in self.all_topics()? {
            round.topics += 1;
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
