//! A topic `numbers`: lines that are numbers go in, and are asked for again.

use super::{Server, error_of, grpc};
use serde_json::Value;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub fn lines(numbers: std::ops::Range<u64>) -> String {
    lines_of(numbers, 500)
}

pub fn lines_of(numbers: std::ops::Range<u64>, bytes: usize) -> String {
    numbers
        .map(|number| format!("{number:0bytes$}\n"))
        .collect()
}

/// Produces lines with the command, and says how many are acknowledged.
pub fn produce(server: &Server, lines: &str) -> u64 {
    let mut pipe = Pipe::start(server, "numbers");
    pipe.write(lines);
    pipe.end()["acknowledged"].as_u64().unwrap()
}

/// `mainstem produce` that reads what it is given piece by piece.
pub struct Pipe {
    child: Child,
    progress: tempfile::NamedTempFile,
}

impl Pipe {
    pub fn start(server: &Server, topic: &str) -> Pipe {
        Pipe::start_with(server, &[topic])
    }

    pub fn start_with(server: &Server, arguments: &[&str]) -> Pipe {
        let mut command = server.command(&[&["produce"], arguments].concat());
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let progress = tempfile::NamedTempFile::new().unwrap();
        let child = piped.stderr(progress.reopen().unwrap()).spawn().unwrap();
        Pipe { child, progress }
    }

    pub fn write(&mut self, lines: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// What it has said on standard error.
    pub fn progress(&self) -> String {
        std::fs::read_to_string(self.progress.path()).unwrap()
    }

    pub fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What one record meets that is sent by itself and not tried again.
pub fn refusal(server: &Server) -> Option<(Value, i32)> {
    grpc::produce(server, "probe", 0, grpc::batch(b"x")).err()
}

pub fn count(server: &Server) -> u64 {
    let rows = server.run(&["sql", "SELECT count(*) AS n FROM numbers"]);
    rows[0]["n"].as_u64().unwrap()
}

pub fn numbers(server: &Server) -> Vec<u64> {
    let output = server
        .command(&["consume", "numbers", "--raw"])
        .output()
        .unwrap();
    if !output.status.success() {
        panic!("{:?}", error_of(&output));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    until_some(what, || ask().then_some(()));
}

pub fn until_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{what} does not come"
        );
    }
}
