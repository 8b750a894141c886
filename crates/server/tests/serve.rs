//! The life of the server: ready, health, stop, and settings it refuses to start with.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use support::{Server, assert_error, error_of, grpc, mainstem};

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_says_when_and_where_it_serves_and_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(dir.path());
        let endpoints = std::fs::read_to_string(dir.path().join("endpoints.json")).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&endpoints).unwrap(),
            server.ready
        );
        let http = server.address("http");
        assert!(get(&http, "/health/live").starts_with("HTTP/1.1 200"));
        assert!(get(&http, "/health/ready").starts_with("HTTP/1.1 200"));
        assert!(get(&http, "/metrics").contains("mainstem_up 1"));
        let status = server.run(&["status"]).remove(0);
        assert_eq!(status["cluster_id"], server.ready["cluster_id"]);
        assert_eq!(status["addresses"]["grpc"], server.ready["grpc"]);
        server.signal(signal);
        assert!(server.child.wait().unwrap().success());
        assert!(!dir.path().join("endpoints.json").exists());
    }
}

#[test]
fn a_restart_after_a_kill_says_in_the_log_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    server.run(&["topic", "create", "t"]);
    let lines = dir.path().join("lines.txt");
    std::fs::write(&lines, "a line of some bytes\n".repeat(100_000)).unwrap();
    server.run(&["produce", "t", lines.to_str().unwrap()]);
    server.kill();

    let log = dir.path().join("log");
    let mut command = mainstem();
    command.arg("serve").arg("--data-dir").arg(&data);
    command.args(["--listen-grpc", "127.0.0.1:0"]);
    command.args(["--listen-http", "127.0.0.1:0"]);
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::spawn(command);
    assert!(server.ready["recovery"]["replayed_frames"].as_u64() > Some(0));
    let log = std::fs::read_to_string(&log).unwrap();
    let last = log.lines().rfind(|line| line.contains("recovered "));
    let words: Vec<&str> = last.unwrap_or_default().split_whitespace().collect();
    let Some(["recovered", read, "of", all, "MiB"]) = words.last_chunk() else {
        panic!("no line of how far it is in {log}");
    };
    assert_eq!(read, all, "{log}");
    assert!(read.parse::<u64>().unwrap() >= 1, "{log}");
}

#[test]
fn records_are_refused_while_less_is_free_than_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let free_ports = [
        "--listen-grpc",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
    ];
    let more_than_any_disk = ["--min-free-bytes", "999999999GiB"];
    let server = Server::start_with(dir.path(), &[&free_ports[..], &more_than_any_disk].concat());
    server.run(&["topic", "create", "t"]);
    let refused = grpc::produce(&server, "t", 0, grpc::batch(b"x")).unwrap_err();
    assert_error(&refused, "disk_full", 1);
    server.run(&["topic", "delete", "t"]);
}

/// The value of a line of the metrics page.
fn metric(page: &str, line: &str) -> Option<f64> {
    let value = page.lines().find_map(|one| one.strip_prefix(line))?;
    Some(value.trim().parse().unwrap())
}

#[test]
fn metrics_tell_what_goes_through_each_topic_and_how_long_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&["topic", "create", "t"]);
    let lines = dir.path().join("lines.txt");
    std::fs::write(&lines, "a\nb\nc\n").unwrap();
    server.run(&["produce", "t", lines.to_str().unwrap()]);
    server.run(&["consume", "t"]);
    server.run(&["consume", "t", "--from", "2"]);
    let page = || get(&server.address("http"), "/metrics");
    let before = page();
    let topic = |name: &str| {
        metric(
            &before,
            &format!("mainstem_topic_{name}_total{{tenant=\"default\",topic=\"t\"}}"),
        )
    };
    assert_eq!(topic("produced_records"), Some(3.0), "{before}");
    assert_eq!(topic("fetched_records"), Some(4.0), "{before}");
    assert!(
        topic("produced_bytes") > Some(3.0) && topic("fetched_bytes") > Some(3.0),
        "{before}"
    );
    let produced = metric(&before, "mainstem_produce_seconds_count");
    assert!(produced >= Some(1.0), "{before}");
    assert_eq!(
        metric(&before, "mainstem_produce_seconds_bucket{le=\"+Inf\"}"),
        produced,
        "{before}"
    );
    assert!(
        metric(&before, "mainstem_journal_sync_seconds_count") >= Some(2.0),
        "{before}"
    );
    assert!(
        metric(&before, "mainstem_journal_sync_seconds_sum") > Some(0.0),
        "{before}"
    );
    server.run(&["topic", "delete", "t"]);
    assert!(!page().contains("topic=\"t\""));
}

#[test]
fn the_data_directory_has_the_documented_shape() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t"]);
    for name in ["meta.json", "LOCK", "journal", "topics", "store", "modules"] {
        assert!(dir.path().join(name).exists(), "{name}");
    }
}

fn refused(arguments: &[&str]) -> (serde_json::Value, i32) {
    error_of(&mainstem().arg("serve").args(arguments).output().unwrap())
}

#[test]
fn it_does_not_listen_beyond_loopback_by_accident() {
    assert_error(&refused(&["--listen-grpc", "0.0.0.0:0"]), "usage", 2);
}

/// Addresses that nobody else has.
const FREE: [&str; 6] = [
    "--listen-grpc",
    "127.0.0.1:0",
    "--listen-http",
    "127.0.0.1:0",
    "--listen-kafka",
    "127.0.0.1:0",
];

#[test]
fn a_broker_setting_that_is_unknown_or_not_so_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    for (setting, code) in [
        ("log.retension.ms=1", "bad_setting"),
        ("listeners=PLAINTEXT://:9092", "bad_setting"),
        ("log.dirs=/elsewhere", "bad_setting"),
        ("broker.id=2", "bad_setting"),
        ("default.replication.factor=3", "refused_config"),
    ] {
        let found = refused(&[&["--data-dir", data, "--set", setting], &FREE[..]].concat());
        assert_error(&found, code, 1);
        let (name, _) = setting.split_once('=').unwrap();
        assert!(found.0["message"].as_str().unwrap().contains(name));
    }
}

#[test]
fn what_is_so_may_be_given() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = format!("log.dirs={}", dir.path().display());
    let settings = ["broker.id=1", "delete.topic.enable=True", &dirs];
    let settings = settings.map(|setting| ["--set", setting]).concat();
    let arguments = [&settings[..], &FREE].concat();
    Server::start_with(dir.path(), &arguments).run(&["status"]);
}
