//! `mainstem status`: what the server is doing.

use super::Common;
use super::connect::connect;
use super::output::{document, fields, size, span};
use crate::failure::Failure;
use serde_json::json;

pub async fn run(common: &Common) -> Result<(), Failure> {
    let status = connect(common).await?.status().await?;
    let journal = status.journal.unwrap_or_default();
    let addresses: std::collections::BTreeMap<_, _> = status.addresses.iter().collect();
    let value = json!({
        "version": status.version,
        "cluster_id": status.cluster_id,
        "data_dir": status.data_dir,
        "uptime_ms": status.uptime_ms,
        "memory_bytes": status.memory_bytes,
        "memory_limit_bytes": status.memory_limit_bytes,
        "topics": status.topics,
        "partitions": status.partitions,
        "handlers": status.handlers,
        "durable_lsn": journal.durable_lsn,
        "applied_lsn": journal.applied_lsn,
        "checkpoint_lsn": journal.checkpoint_lsn,
        "addresses": addresses,
        "poisoned": Some(&status.poisoned).filter(|why| !why.is_empty()),
    });
    document(common.output, &value, || {
        let serving = match status.poisoned.as_str() {
            "" => "serving".to_string(),
            why => format!("reading only: {why}"),
        };
        let listens = addresses
            .iter()
            .map(|(protocol, address)| format!("{protocol} {address}"));
        fields([
            ("state", serving),
            ("version", status.version.clone()),
            ("cluster", status.cluster_id.clone()),
            ("data directory", status.data_dir.clone()),
            ("listens on", listens.collect::<Vec<_>>().join(", ")),
            ("up for", span(status.uptime_ms)),
            (
                "memory",
                format!(
                    "{} of {}",
                    size(status.memory_bytes),
                    size(status.memory_limit_bytes)
                ),
            ),
            (
                "topics",
                format!("{} with {} partitions", status.topics, status.partitions),
            ),
            ("handlers", status.handlers.to_string()),
            (
                "journal",
                format!(
                    "durable to LSN {}, checkpoint at {}",
                    journal.durable_lsn, journal.checkpoint_lsn
                ),
            ),
        ])
    })
}
