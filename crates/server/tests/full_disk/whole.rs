//! All of the data directory on one disk that is full.

use crate::disk::SmallDisk;
use crate::support::numbers::{Pipe, count, lines, numbers, produce, refusal, until, until_some};
use crate::support::{Server, assert_error};
use serde_json::Value;
use std::collections::BTreeSet;

/// The server wants 256 MiB free to take records, and its journal takes about 200 MiB before the first.
const DISK_MIB: u64 = 768;

pub fn full_disk() {
    let mounted = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(mounted.path(), DISK_MIB);
    let data = mounted.path().join("data");
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
