//! A disk that is full under the real binary: a small file system of its own is filled to the last byte while a
//! producer produces and a handler works.
//!
//! Needs the right to mount. Without it the test counts as ignored, and says why; so it has no usual harness.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Server, assert_error, error_of, grpc};

/// The server wants 256 MiB free to take records, and its journal takes about 200 MiB before the first.
const DISK_MIB: u64 = 768;

const NAME: &str =
    "a_full_disk_refuses_records_loses_none_and_goes_on_by_itself_when_there_is_space";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = filters.is_empty() || filters.iter().any(|filter| NAME.contains(*filter));
    if arguments.iter().any(|argument| argument == "--list") {
        return println!("{NAME}: test");
    }
    println!("\nrunning {} test", u8::from(wanted));
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let said = match wanted.then(SmallDisk::mount) {
        None => None,
        Some(Err(why)) => {
            ignored = 1;
            Some(format!("ignored, {why}"))
        }
        // The panic says what was wrong.
        Some(Ok(disk)) if std::panic::catch_unwind(|| full_disk(&disk)).is_err() => {
            failed = 1;
            Some("FAILED".to_owned())
        }
        Some(Ok(_)) => {
            passed = 1;
            Some("ok".to_owned())
        }
    };
    if let Some(said) = said {
        println!("test {NAME} ... {said}");
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out\n"
    );
    std::process::exit(if failed == 0 { 0 } else { 101 });
}

/// A file system in memory with a size, mounted as long as this lives.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Result<SmallDisk, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_MIB}m"),
                "mainstem-test",
            ])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(SmallDisk { dir }),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!(
                    "a file system cannot be mounted here: {}",
                    said.trim()
                ))
            }
            Err(error) => Err(format!("`mount` cannot be run: {error}")),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Another file takes all that is left.
    fn fill(&self) {
        let filled = (0..100).any(|_| {
            let mut command = Command::new("fallocate");
            command.arg("-l").arg(self.free_bytes().to_string());
            command
                .arg(self.filler())
                .output()
                .unwrap()
                .status
                .success()
        });
        assert!(filled, "the disk cannot be filled");
    }

    fn give_back(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("somebody-elses.file")
    }

    fn free_bytes(&self) -> u64 {
        let output = Command::new("df")
            .args(["--output=avail", "-B1"])
            .arg(self.dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there ends with this test.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
    }
}

fn full_disk(disk: &SmallDisk) {
    let data = disk.data();
    let mut server = Server::start(&data);
    server.run(&["topic", "create", "numbers", "--partitions", "2"]);
    server.run(&["topic", "create", "probe"]);
    server.run(&["topic", "create", "spare"]);
    let mut acknowledged = produce(&server, &lines(0..20_000));
    assert_eq!(acknowledged, 20_000);

    // A producer that is in the middle of its file when the disk fills up.
    let mut pipe = Pipe::start(&server, "numbers");
    pipe.write(&lines(20_000..22_000));
    until("a part of the pipe is there", || count(&server) > 20_000);
    disk.fill();

    // Refused, and told why and what to do.
    let refused = until_some("a refusal", || refusal(&server));
    assert_error(&refused, "disk_full", 1);
    let message = refused.0["message"].as_str().unwrap();
    assert!(
        message.contains("disk is nearly full") && message.contains("MiB are needed"),
        "{message}"
    );
    let hint = refused.0["hint"].as_str().unwrap();
    assert!(
        hint.contains("free space") && hint.contains("by themselves"),
        "{hint}"
    );

    // The producer says so too, and waits.
    pipe.write(&lines(22_000..30_000));
    until("the producer's trouble", || {
        pipe.progress()
            .contains("waiting: the server's disk is nearly full")
    });

    // Reading goes on, by offset and in SQL, and so does what frees space.
    let seen = count(&server);
    assert!((20_000..30_000).contains(&seen), "{seen}");
    assert_eq!(numbers(&server).len() as u64, seen);
    let status = server.run(&["status"]).remove(0);
    assert_eq!(status["poisoned"], Value::Null, "{status}");
    server.run(&["topic", "delete", "spare"]);

    // Killed and started again on the full disk, it reads and refuses as before.
    server.kill();
    let server = Server::start_again(&data, &server);
    assert_eq!(count(&server), seen);
    assert_error(&refusal(&server).unwrap(), "disk_full", 1);

    // With space it goes on by itself, and so does the producer, which has tried again all the time.
    disk.give_back();
    let summary = pipe.end();
    assert_eq!(summary["acknowledged"], 10_000, "{summary}");
    acknowledged += 10_000;
    let found = numbers(&server);
    assert_eq!(found.len() as u64, acknowledged);
    let distinct: BTreeSet<u64> = found.into_iter().collect();
    assert_eq!(distinct, (0..acknowledged).collect());
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{number:0500}\n")).collect()
}

/// Produces lines with the command, and says how many are acknowledged.
fn produce(server: &Server, lines: &str) -> u64 {
    let mut pipe = Pipe::start(server, "numbers");
    pipe.write(lines);
    pipe.end()["acknowledged"].as_u64().unwrap()
}

/// `mainstem produce` that reads what it is given piece by piece.
struct Pipe {
    child: Child,
    progress: tempfile::NamedTempFile,
}

impl Pipe {
    fn start(server: &Server, topic: &str) -> Pipe {
        let mut command = server.command(&["produce", topic]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let progress = tempfile::NamedTempFile::new().unwrap();
        let child = piped.stderr(progress.reopen().unwrap()).spawn().unwrap();
        Pipe { child, progress }
    }

    fn write(&mut self, lines: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// What it has said on standard error.
    fn progress(&self) -> String {
        std::fs::read_to_string(self.progress.path()).unwrap()
    }

    fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What one record meets that is sent by itself and not tried again.
fn refusal(server: &Server) -> Option<(Value, i32)> {
    grpc::produce(server, "probe", 0, grpc::batch(b"x")).err()
}

fn count(server: &Server) -> u64 {
    let rows = server.run(&["sql", "SELECT count(*) AS n FROM numbers"]);
    rows[0]["n"].as_u64().unwrap()
}

fn numbers(server: &Server) -> Vec<u64> {
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

fn until(what: &str, mut ask: impl FnMut() -> bool) {
    until_some(what, || ask().then_some(()));
}

fn until_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
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
