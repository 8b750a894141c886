//! `ready {json}` and `endpoints.json`: how scripts and tests learn that a server serves, and where.

use super::listeners::Addresses;
use crate::failure::Failure;
use mainstem::Mainstem;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// What a server says of itself when it serves.
#[derive(Debug, Serialize)]
pub struct Ready {
    pid: u32,
    version: String,
    cluster_id: String,
    data_dir: String,
    /// By protocol, one key for each.
    #[serde(flatten)]
    addresses: BTreeMap<String, String>,
    recovery: mainstem::RecoveryReport,
}

impl Ready {
    pub fn new(mainstem: &Mainstem, addresses: &Addresses) -> Ready {
        let status = mainstem.status();
        Ready {
            pid: std::process::id(),
            version: status.version,
            cluster_id: status.cluster_id,
            data_dir: status.data_dir,
            addresses: addresses.by_protocol(),
            recovery: status.recovery,
        }
    }

    /// The one line on standard output.
    pub fn print(&self) {
        let mut out = std::io::stdout().lock();
        // Nobody reading it is no reason to stop serving.
        let _ = writeln!(out, "ready {}", self.json()).and_then(|()| out.flush());
    }

    /// The same for whoever finds the data directory: whole or not at all.
    pub fn write_endpoints(&self, data_dir: &Path) -> Result<(), Failure> {
        let (new, file) = (
            data_dir.join("endpoints.json.tmp"),
            data_dir.join("endpoints.json"),
        );
        std::fs::write(&new, self.json() + "\n")
            .and_then(|()| std::fs::rename(&new, &file))
            .map_err(|error| Failure::io("write", file.display(), &error))
    }

    fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// After a clean stop nobody listens there any more.
pub fn remove_endpoints(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join("endpoints.json"));
}
