//! What the platform is doing, for `mainstem status`, metrics and health.

use crate::directory::Meta;
use crate::handlers::RecoveredHandler;
use crate::platform::now_ms;
use mainstem_broker::{Broker, Caller};
use mainstem_runtime::Runtime;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// One look at the running platform.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The version of this build.
    pub version: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The data directory.
    pub data_dir: String,
    /// Milliseconds since 1970 at which the platform began to serve.
    pub started_ms: i64,
    /// Milliseconds the platform has served.
    pub uptime_ms: u64,
    /// The newest durable LSN.
    pub durable_lsn: u64,
    /// The newest LSN of the store's view; frames that only append do not move it.
    pub store_applied_lsn: u64,
    /// The LSN up to which both views are on disk: what recovery starts from.
    pub checkpoint_lsn: u64,
    /// Groups synced since the directory was opened.
    pub synced_groups: u64,
    /// Bytes written to the journal since then.
    pub journal_bytes: u64,
    /// Bytes of records held in memory: queued, being committed, or in the log's tail.
    pub records_memory_bytes: u64,
    /// The limit of that, at which writers wait.
    pub records_memory_limit_bytes: u64,
    /// Bytes free on the disk of the data directory.
    pub disk_free_bytes: u64,
    /// How many topics there are, over all tenants.
    pub topics: u64,
    /// How many partitions these have.
    pub partitions: u64,
    /// How many handlers there are in the default tenant.
    pub handlers: u64,
    /// Why the engine takes no writes, if it takes none.
    pub poisoned: Option<String>,
    /// The limit that memory is shared out of.
    pub memory_limit_bytes: u64,
    /// What opening the directory had to do.
    pub recovery: RecoveryReport,
}

/// What opening the directory had to do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecoveryReport {
    /// Frames of the journal beyond the checkpoint that were applied again.
    pub replayed_frames: u64,
    /// Journal bytes read.
    pub read_bytes: u64,
    /// Milliseconds from start to serving.
    pub took_ms: u64,
    /// How far each handler had come, before it went on.
    pub handlers: Vec<RecoveredHandler>,
}

/// What status is made from. Holds no thread alive.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) meta: Meta,
    pub(crate) data_dir: PathBuf,
    pub(crate) broker: Broker,
    pub(crate) runtime: Runtime,
    pub(crate) started_ms: i64,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) recovery: Arc<RecoveryReport>,
}

impl Facts {
    pub(crate) fn status(&self) -> Status {
        let engine = self.broker.engine().status();
        let caller = Caller::anonymous();
        // The catalogue is in memory: what cannot be read of it is told where it is used.
        let topics = self.broker.all_topics().unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: self.meta.cluster_id.to_string(),
            data_dir: self.data_dir.display().to_string(),
            started_ms: self.started_ms,
            uptime_ms: u64::try_from(now_ms() - self.started_ms).unwrap_or(0),
            durable_lsn: engine.durable_lsn.0,
            store_applied_lsn: engine.store_applied_lsn.0,
            checkpoint_lsn: engine.checkpoint_lsn.0,
            synced_groups: engine.groups,
            journal_bytes: engine.journal_bytes,
            records_memory_bytes: engine.memory_used_bytes,
            records_memory_limit_bytes: engine.memory_limit_bytes,
            disk_free_bytes: engine.disk_free_bytes,
            topics: topics.len() as u64,
            partitions: topics.iter().map(|topic| u64::from(topic.partitions)).sum(),
            handlers: self.runtime.list(&caller).len() as u64,
            poisoned: engine.poisoned.map(|error| error.to_string()),
            memory_limit_bytes: self.memory_limit_bytes,
            recovery: RecoveryReport::clone(&self.recovery),
        }
    }
}
