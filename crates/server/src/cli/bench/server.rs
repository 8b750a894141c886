//! A server of its own: this same binary, on free ports, with a fresh data directory that goes away with it. Where the
//! benchmark is killed, its end of the server's standard input closes, and the server stops by itself.

use crate::failure::Failure;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The process and its directory; dropping it ends the one and removes the other.
pub struct OwnServer {
    address: String,
    // In this order: the process ends before its directory goes.
    process: Process,
    _dir: TempDir,
}

/// Kernel ticks a second, in which Linux tells the time of processes on every machine Mainstem is built for.
const TICKS_PER_SECOND: f64 = 100.0;

impl OwnServer {
    /// Starts it and waits until it serves.
    pub async fn start(dir: &Path) -> Result<OwnServer, Failure> {
        let dir = dir.to_owned();
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(&dir)).await;
        started.unwrap_or_else(|error| {
            Err(Failure::new(
                "internal",
                format!("starting a server failed: {error}"),
                "",
            ))
        })
    }

    fn start_blocking(dir: &Path) -> Result<OwnServer, Failure> {
        let fresh = tempfile::Builder::new()
            .prefix("mainstem-bench-")
            .tempdir_in(dir)
            .map_err(|error| Failure::io("make a data directory in", dir.display(), &error))?;
        let binary = std::env::current_exe()
            .map_err(|error| Failure::new("io", format!("cannot find this binary: {error}"), ""))?;
        // What it says on standard error is for the user: what is wrong, if it cannot start.
        let child = Command::new(&binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(fresh.path().join("data"))
            .args([
                "--listen-grpc",
                "127.0.0.1:0",
                "--listen-http",
                "127.0.0.1:0",
                "--listen-kafka",
                "127.0.0.1:0",
                "--log",
                "warn",
                "--until-stdin-ends",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::io("start", binary.display(), &error))?;
        let mut process = Process(child);
        let mut line = String::new();
        if let Some(out) = process.0.stdout.take() {
            // An end without a line is told below.
            let _ = BufReader::new(out).read_line(&mut line);
        }
        let address = line
            .strip_prefix("ready ")
            .and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok())
            .and_then(|ready| Some(ready.get("grpc")?.as_str()?.to_owned()))
            .ok_or_else(|| {
                Failure::new(
                    "server_failed",
                    "the server that the benchmark started did not come up",
                    "what it said stands above; or start one yourself and name it with --server",
                )
            })?;
        Ok(OwnServer {
            address,
            process,
            _dir: fresh,
        })
    }

    /// Where it takes gRPC.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Processor time that it has used, by itself and in the kernel; `None` where the kernel does not say.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).ok()?;
        // The name, in brackets, may hold anything.
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
    }
}

/// Ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Its data go with it: there is nothing to stop cleanly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
