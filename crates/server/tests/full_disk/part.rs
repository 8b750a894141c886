//! One part of the data directory on a disk of its own that is full: journal, segments and store in turn are the ones to
//! meet it. Free space is looked up for the directory as a whole, so that nobody is refused in time.

use crate::disk::SmallDisk;
use crate::support::numbers::{Pipe, lines_of, numbers, produce, refusal, until, until_some};
use crate::support::{Server, assert_error};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What is written before the disk is full, and what while it is.
struct Load {
    before: u64,
    after: u64,
    line_bytes: usize,
    /// What may wait for its acknowledgement.
    buffer_bytes: &'static str,
}

/// As the command has it by itself.
const MUCH: &str = "33554432";
/// So little that it goes through the journal: large batches go to their segments at once.
const LITTLE: &str = "200000";

/// The journal has its files for now: it needs another when those are used up, and that is at most three of 64 MiB.
pub fn journal() {
    let load = Load {
        before: 100,
        after: 10_000,
        line_bytes: 25_000,
        buffer_bytes: LITTLE,
    };
    full_part("journal", 512, load);
}

/// Segments are written when a part of the memory for records is used up.
pub fn segment() {
    let load = Load {
        before: 100,
        after: 4_000,
        line_bytes: 25_000,
        buffer_bytes: MUCH,
    };
    full_part("topics", 256, load);
}

/// The store is written with the checkpoint that follows after a while without work.
pub fn store() {
    let load = Load {
        before: 100,
        after: 10,
        line_bytes: 500,
        buffer_bytes: MUCH,
    };
    full_part("store", 256, load);
}

fn full_part(part: &str, disk_mib: u64, load: Load) {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let server = Server::start(&data);
    for topic in ["numbers", "probe"] {
        server.run(&["topic", "create", topic]);
    }
    stop(server);
    let disk = move_to_small_disk(&data.join(part), disk_mib);

    let arguments = [
        "--listen-grpc",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
        "--listen-kafka",
        "127.0.0.1:0",
        "--memory-limit",
        "256MiB",
    ];
    let server = Server::start_with(&data, &arguments);
    let lines = |numbers| lines_of(numbers, load.line_bytes);
    assert_eq!(produce(&server, &lines(0..load.before)), load.before);

    disk.fill();
    let end = load.before + load.after;
    let file = root.path().join("numbers.txt");
    std::fs::write(&file, lines(load.before..end)).unwrap();
    let file = file.to_str().unwrap();
    let pipe = Pipe::start_with(
        &server,
        &["numbers", file, "--buffer-bytes", load.buffer_bytes],
    );
    let poisoned = until_some("the failure", || {
        let status = server.run(&["status"]).remove(0);
        status["poisoned"].as_str().map(str::to_owned)
    });
    assert!(poisoned.contains("space"), "{part}: {poisoned}");

    // Whoever writes is told that writes have stopped, that nobody knows the outcome, and what to do.
    for _ in 0..2 {
        let refused = refusal(&server).unwrap();
        assert_error(&refused, "writes_stopped", 1);
        let message = refused.0["message"].as_str().unwrap();
        assert!(message.contains("unknown"), "{part}: {message}");
    }
    // Reading goes on.
    let seen = numbers(&server);
    assert!(seen.len() as u64 >= load.before, "{part}: {}", seen.len());
    assert!(seen.iter().copied().eq(0..seen.len() as u64));

    // With space the server opens its data again by itself, and the producer, which has tried again all the time, comes to
    // its end. Nothing that was acknowledged or seen is gone.
    disk.give_back();
    until("writes again", || {
        let output = server.command(&["status"]).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .is_ok_and(|status: Value| status["poisoned"] == Value::Null)
    });
    assert_eq!(pipe.end()["acknowledged"], load.after);
    let again = numbers(&server);
    assert_eq!(again[..seen.len()], seen[..], "{part}");
    assert!(again.into_iter().eq(0..end), "{part}");
    assert_eq!(produce(&server, &lines(end..end + 10)), 10);
    assert!(numbers(&server).into_iter().eq(0..end + 10), "{part}");
    stop(server);
}

/// Ends a server in order.
fn stop(mut server: Server) {
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
}

/// Puts a folder with what is in it on a disk of its own.
fn move_to_small_disk(dir: &Path, mib: u64) -> SmallDisk {
    let moved = dir.parent().unwrap().with_extension("moved");
    std::fs::rename(dir, &moved).unwrap();
    std::fs::create_dir(dir).unwrap();
    let disk = SmallDisk::mount(dir, mib);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(moved.join("."))
        .arg(dir)
        .status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(&moved).unwrap();
    disk
}
