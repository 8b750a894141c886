//! The real binary: a server that ends with its test, and commands against it.
#![allow(dead_code)] // Each test file uses a part.

pub mod grpc;
pub mod numbers;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub fn mainstem() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstem"));
    // What the machine's owner has set is not what is tested.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MAINSTEM_")) {
        command.env_remove(name);
    }
    command
}

/// A server on free ports.
pub struct Server {
    pub child: Child,
    pub ready: Value,
}

impl Server {
    pub fn start(data_dir: &Path) -> Server {
        Server::start_with(
            data_dir,
            &[
                "--listen-grpc",
                "127.0.0.1:0",
                "--listen-http",
                "127.0.0.1:0",
                "--listen-kafka",
                "127.0.0.1:0",
            ],
        )
    }

    /// On the ports of a server that was there before.
    pub fn start_again(data_dir: &Path, before: &Server) -> Server {
        Server::start_with(
            data_dir,
            &[
                "--listen-grpc",
                &before.address("grpc"),
                "--listen-http",
                &before.address("http"),
                "--listen-kafka",
                &before.address("kafka"),
            ],
        )
    }

    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Server {
        let mut command = mainstem();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir)
            .args(arguments)
            .args(["--log", "warn"]);
        Server::spawn(command)
    }

    /// Runs a `serve`, and waits until it says that it is ready.
    pub fn spawn(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let json = line
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("no ready line but {line:?}"));
        Server {
            ready: serde_json::from_str(json).unwrap(),
            child,
        }
    }

    pub fn address(&self, protocol: &str) -> String {
        self.ready[protocol].as_str().unwrap().to_string()
    }

    /// A command against this server, with JSON in and out.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mainstem();
        command
            .args(arguments)
            .args(["--server", &self.address("grpc"), "--output", "json"]);
        command
    }

    /// A command that must succeed; what it printed, one JSON value a line.
    pub fn run(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.command(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A command that must fail; its error and exit code.
    pub fn fail(&self, arguments: &[&str]) -> (Value, i32) {
        error_of(&self.command(arguments).output().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The error that a failed command tells on standard error, and its exit code.
pub fn error_of(output: &Output) -> (Value, i32) {
    assert!(
        !output.status.success(),
        "it succeeded: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    let text = String::from_utf8_lossy(&output.stderr);
    let error = text.lines().find_map(|line| {
        let value: Value = serde_json::from_str(line).ok()?;
        value.get("error").cloned()
    });
    (
        error.unwrap_or_else(|| panic!("no error in {text:?}")),
        output.status.code().unwrap(),
    )
}

/// An error must have a code, a message and something to do.
pub fn assert_error(found: &(Value, i32), code: &str, exit: i32) {
    assert_eq!(found.0["code"], code, "{}", found.0);
    assert_eq!(found.1, exit, "{}", found.0);
    assert!(!found.0["message"].as_str().unwrap().is_empty());
    assert!(
        !found.0["hint"].as_str().unwrap().is_empty(),
        "no hint: {}",
        found.0
    );
}
