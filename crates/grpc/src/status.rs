//! Service `Server`.

use mainstem::RecoveryReport;
use mainstem_proto::v1;
use tonic::{Request, Response, Status};

use crate::call::Platform;

/// The service.
pub(crate) struct Server {
    pub(crate) platform: Platform,
}

#[tonic::async_trait]
impl v1::server_server::Server for Server {
    async fn status(
        &self,
        request: Request<v1::ServerStatusRequest>,
    ) -> Result<Response<v1::ServerStatus>, Status> {
        self.platform.caller(request.metadata())?;
        let status = self.platform.mainstem.status();
        Ok(Response::new(v1::ServerStatus {
            version: status.version,
            cluster_id: status.cluster_id,
            data_dir: status.data_dir,
            started_ms: status.started_ms,
            uptime_ms: status.uptime_ms,
            memory_bytes: resident_bytes().unwrap_or(0),
            memory_limit_bytes: status.memory_limit_bytes,
            records_memory_bytes: status.records_memory_bytes,
            records_memory_limit_bytes: status.records_memory_limit_bytes,
            journal: Some(v1::JournalStatus {
                durable_lsn: status.durable_lsn,
                applied_lsn: status.store_applied_lsn,
                checkpoint_lsn: status.checkpoint_lsn,
                synced_groups: status.synced_groups,
                written_bytes: status.journal_bytes,
            }),
            recovery: Some(from_recovery(status.recovery)),
            topics: status.topics,
            partitions: status.partitions,
            handlers: status.handlers,
            disk_free_bytes: status.disk_free_bytes,
            addresses: self
                .platform
                .addresses
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            poisoned: status.poisoned.unwrap_or_default(),
        }))
    }
}

fn from_recovery(recovery: RecoveryReport) -> v1::RecoveryStatus {
    let handlers = recovery
        .handlers
        .into_iter()
        .map(|handler| v1::RecoveredHandler {
            name: handler.name,
            committed_events: handler.committed_events,
            lag_events: handler.lag_events,
        });
    v1::RecoveryStatus {
        replayed_frames: recovery.replayed_frames,
        replayed_bytes: recovery.read_bytes,
        took_ms: recovery.took_ms,
        handlers: handlers.collect(),
    }
}

/// What this process holds in memory, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
