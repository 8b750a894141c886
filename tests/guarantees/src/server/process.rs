//! The binary as a process: started, killed, started again on the same ports.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Failure, ensure};

/// A running server. Dropped, it is killed.
pub(super) struct Server {
    child: Child,
    grpc: String,
    http: String,
    /// Frames that its recovery applied again.
    pub(super) replayed: u64,
}

/// The binary that was built beside this one.
pub(super) fn binary() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("MAINSTEM_BIN") {
        return Ok(named.into());
    }
    let own = std::env::current_exe().map_err(|error| Failure::new(error.to_string()))?;
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("mainstem"))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new("there is no `mainstem` beside this program; build it first: cargo build --release --bin mainstem")
    })
}

/// The binary, deaf to the settings of whoever runs the tests.
fn command() -> Result<Command, Failure> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("MAINSTEM_") && name != "MAINSTEM_MUTATION")
    {
        command.env_remove(name);
    }
    Ok(command)
}

/// Builds the component of the example handler and returns it.
pub(super) fn component() -> Result<Vec<u8>, Failure> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights/handler");
    let output = command()?
        .args(["handler", "build"])
        .arg(&dir)
        .args(["--output", "json"])
        .output();
    let output =
        output.map_err(|error| Failure::new(format!("mainstem handler build: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "mainstem handler build {}: {said}",
        dir.display()
    );
    let built: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| Failure::new(error.to_string()))?;
    let path = built["component"].as_str().unwrap_or_default();
    std::fs::read(path).map_err(|error| Failure::new(format!("{path}: {error}")))
}

impl Server {
    pub(super) fn start(data_dir: &Path, arguments: &[&str]) -> Result<Server, Failure> {
        Server::listen(data_dir, "127.0.0.1:0", "127.0.0.1:0", arguments)
    }

    /// Kills it with SIGKILL, and starts it again on the same ports.
    pub(super) fn kill_and_restart(
        mut self,
        data_dir: &Path,
        arguments: &[&str],
    ) -> Result<Server, Failure> {
        self.kill();
        Server::listen(data_dir, &self.grpc, &self.http, arguments)
    }

    fn listen(
        data_dir: &Path,
        grpc: &str,
        http: &str,
        arguments: &[&str],
    ) -> Result<Server, Failure> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data_dir.join("../server.log"));
        let log = log.map_err(|error| Failure::new(format!("server.log: {error}")))?;
        let mut command = command()?;
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command
            .args([
                "--listen-grpc",
                grpc,
                "--listen-http",
                http,
                "--listen-kafka",
                "127.0.0.1:0",
                "--log",
                "warn",
            ])
            .args(arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        let mut child = child.map_err(|error| Failure::new(format!("mainstem serve: {error}")))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            // A server that ends without a word closes the pipe.
            let _ = BufReader::new(out).read_line(&mut line);
        }
        let mut server = Server {
            child,
            grpc: grpc.to_owned(),
            http: http.to_owned(),
            replayed: 0,
        };
        let ready: Option<Value> = line
            .strip_prefix("ready ")
            .and_then(|json| serde_json::from_str(json).ok());
        let Some(ready) = ready else {
            let log = std::fs::read_to_string(data_dir.join("../server.log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            return Err(Failure::new(format!(
                "the server does not come up; its log ends (newest first):\n{}",
                end.join("\n")
            )));
        };
        server.grpc = ready["grpc"].as_str().unwrap_or_default().to_owned();
        server.http = ready["http"].as_str().unwrap_or_default().to_owned();
        server.replayed = ready["recovery"]["replayed_frames"].as_u64().unwrap_or(0);
        Ok(server)
    }

    pub(super) fn grpc(&self) -> &str {
        &self.grpc
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn kill(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
