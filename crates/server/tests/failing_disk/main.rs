//! Writes and syncs that fail under the real binary, in the journal, in segments and in the store: writes stop, reading goes
//! on, and after a restart nothing that was acknowledged is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::numbers::{Pipe, lines_of, numbers, produce, refusal, until_some};
use support::{Server, assert_error, mainstem};

const BEFORE: u64 = 100;

/// So few lines go through the journal.
const FEW: (u64, usize) = (100, 500);
/// So many are more than stays in memory.
const MANY: (u64, usize) = (4_000, 25_000);

/// Compiles what is preloaded.
fn failing_disk(dir: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failing_disk/failing.c");
    let library = dir.join("failing.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let compiled = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success());
    library
}

/// `call`s in a part of the data directory fail while so many lines of so many bytes are written.
fn fails(part: &str, call: &str, (after, line_bytes): (u64, usize)) {
    let root = tempfile::tempdir().unwrap();
    let (data, flag) = (root.path().join("data"), root.path().join("failing"));
    let mut command = mainstem();
    command.args(["serve", "--log", "error", "--memory-limit", "256MiB"]);
    command.args(["--checkpoint-interval-ms", "500", "--data-dir"]);
    command.arg(&data);
    for listen in ["--listen-grpc", "--listen-http", "--listen-kafka"] {
        command.args([listen, "127.0.0.1:0"]);
    }
    command
        .env("LD_PRELOAD", failing_disk(root.path()))
        .env("FAIL_IN", data.join(part))
        .env("FAIL_CALL", call)
        .env("FAIL_WHEN", &flag);
    let mut server = Server::spawn(command);
    for topic in ["numbers", "probe"] {
        server.run(&["topic", "create", topic]);
    }
    let lines = |numbers| lines_of(numbers, line_bytes);
    assert_eq!(produce(&server, &lines(0..BEFORE)), BEFORE);

    std::fs::write(&flag, "").unwrap();
    let end = BEFORE + after;
    let file = root.path().join("numbers.txt");
    std::fs::write(&file, lines(BEFORE..end)).unwrap();
    let pipe = Pipe::start_with(&server, &["numbers", file.to_str().unwrap()]);
    let poisoned = until_some("the failure", || {
        let status = server.run(&["status"]).remove(0);
        status["poisoned"].as_str().map(str::to_owned)
    });
    let what = format!("{call} of {part}: {poisoned}");
    assert!(poisoned.contains(part), "{what}");

    // Whoever writes is told that writes have stopped, and that nobody knows the outcome.
    let refused = refusal(&server).unwrap();
    assert_error(&refused, "writes_stopped", 1);
    assert!(
        refused.0["message"].as_str().unwrap().contains("unknown"),
        "{what}"
    );
    // Reading goes on.
    let seen = numbers(&server);
    assert!(seen.len() as u64 >= BEFORE, "{what}: {}", seen.len());
    assert!(seen.iter().copied().eq(0..seen.len() as u64), "{what}");

    // The producer has tried again all the time. After a restart with a disk that works it comes to its end.
    std::fs::remove_file(&flag).unwrap();
    server.kill();
    let server = Server::start_again(&data, &server);
    assert_eq!(pipe.end()["acknowledged"], after, "{what}");
    let again = numbers(&server);
    assert_eq!(again[..seen.len()], seen[..], "{what}");
    assert!(again.into_iter().eq(0..end), "{what}");
}

#[test]
fn a_journal_whose_writes_fail() {
    fails("journal", "write", FEW);
}

#[test]
fn a_journal_whose_syncs_fail() {
    fails("journal", "sync", FEW);
}

#[test]
fn segments_whose_writes_fail() {
    fails("topics", "write", MANY);
}

#[test]
fn segments_whose_syncs_fail() {
    fails("topics", "sync", MANY);
}

#[test]
fn a_store_whose_writes_fail() {
    fails("store", "write", FEW);
}

#[test]
fn a_store_whose_syncs_fail() {
    fails("store", "sync", FEW);
}
