//! `mainstem bench` on the real binary: what it counts, what it prints, what it leaves behind. No time is asserted.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use support::{Server, assert_error, error_of, mainstem};

/// Half a second at 1,000 a second.
const SHORT: [&str; 8] = [
    "--rate",
    "1000",
    "--seconds",
    "0.5",
    "--warm-up",
    "0.25",
    "--record-bytes",
    "100",
];

fn row<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    let found = rows.iter().find(|row| row["name"] == name);
    found.unwrap_or_else(|| panic!("no row '{name}' in {rows:#?}"))
}

fn assert_shape(rows: &[Value]) {
    for row in rows {
        let mut names: Vec<&String> = row.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(
            names,
            ["aim", "layer", "limit", "name", "ratio", "unit", "value"],
            "{row}"
        );
        assert!(row["value"].is_number() && row["name"].is_string(), "{row}");
        assert_eq!(row["limit"].is_null(), row["ratio"].is_null(), "{row}");
    }
}

#[test]
fn what_was_due_is_acknowledged_and_read_and_the_topic_goes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let bench = |more: &[&str]| server.run(&[&["bench"], &SHORT[..], more].concat());
    let sides = [
        "--partitions",
        "3",
        "--producers",
        "2",
        "--tail-readers",
        "2",
        "--readers",
        "3",
    ];
    let kept = bench(&[&sides[..], &["--topic", "kept", "--keep", "--keys", "10"]].concat());
    let rows = kept[0].as_array().unwrap();
    assert_shape(rows);
    let name = "produce, 1,000 records/s";
    assert_eq!(row(rows, &format!("{name}: acknowledged"))["value"], 500.0);
    assert_eq!(
        row(rows, &format!("{name}: not sent in time"))["value"],
        0.0
    );
    // Each reader has each record.
    assert_eq!(
        row(rows, &format!("{name}: read by those who follow"))["value"],
        1000.0
    );
    for quantile in ["p50", "p90", "p99", "p99.9", "max"] {
        for side in ["acknowledged", "read"] {
            assert!(
                row(rows, &format!("{name}: {side} {quantile}"))["value"]
                    .as_f64()
                    .unwrap()
                    > 0.0
            );
        }
    }
    for readers in ["1 reader", "3 readers"] {
        let fetched = row(rows, &format!("fetch, {readers}: bytes"));
        assert!(fetched["value"].as_f64().unwrap() > 0.0);
        assert_eq!(fetched["aim"], 0.7);
    }
    // Nobody said which disk is meant.
    assert!(
        !rows
            .iter()
            .any(|row| row["name"].as_str().unwrap().starts_with("the disk"))
    );

    // The topic holds what was sent, warm-up included.
    let topic = server.run(&["topic", "describe", "kept"]).remove(0);
    let partitions = topic["partitions"].as_array().unwrap();
    let records: i64 = partitions
        .iter()
        .map(|one| one["high_watermark"].as_i64().unwrap())
        .sum();
    assert_eq!((partitions.len(), records), (3, 750));

    let limited = bench(&[
        "--tail-readers",
        "0",
        "--readers",
        "0",
        "--dir",
        dir.path().to_str().unwrap(),
    ]);
    let rows = limited[0].as_array().unwrap();
    assert_shape(rows);
    let p99 = row(rows, "produce, 1,000 records/s: acknowledged p99");
    assert_eq!(p99["aim"], 0.33);
    let ratio = p99["limit"].as_f64().unwrap() / p99["value"].as_f64().unwrap();
    assert!(
        (ratio / p99["ratio"].as_f64().unwrap() - 1.0).abs() < 1e-9,
        "{p99}"
    );
    assert!(
        row(rows, "the disk: overwrites and fdatasync")["value"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert!(
        !rows
            .iter()
            .any(|row| row["name"].as_str().unwrap().contains("fetch"))
    );
    let topics = server.run(&["topic", "list"]).remove(0);
    assert_eq!(names(&topics), ["kept"]);
}

fn names(topics: &Value) -> Vec<&str> {
    let topics = topics["topics"].as_array().unwrap();
    topics
        .iter()
        .map(|topic| topic["name"].as_str().unwrap())
        .collect()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn without_a_server_it_has_one_of_its_own_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |more: &[&str]| {
        let mut command = mainstem();
        command
            .args([
                "bench",
                "--seconds",
                "0.3",
                "--warm-up",
                "0",
                "--readers",
                "1",
                "--dir",
            ])
            .arg(dir.path())
            .args(more);
        command.output().unwrap()
    };
    let output = bench(&["--load", "0.5", "--output", "json"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_shape(&rows);
    let most = row(&rows, "produce, as fast as it goes: records")["value"]
        .as_f64()
        .unwrap();
    let due = row(&rows, "produce, half load: records")["limit"]
        .as_f64()
        .unwrap();
    assert!(
        most > 0.0 && (due / most - 0.5).abs() < 1e-9,
        "{most}, {due}"
    );
    assert_eq!(
        row(&rows, "produce, half load: acknowledged p99")["aim"],
        0.33
    );
    row(
        &rows,
        "produce, half load: server's processor time per record",
    );
    assert_eq!(entries(dir.path()), Vec::<String>::new());

    let output = bench(&["--rate", "100", "--tail-readers", "0"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "produce, 100 records/s",
        "p99.9",
        "fdatasync alone",
        "up to",
        "fetch, 1 reader",
        "the disk itself",
    ] {
        assert!(text.contains(word), "no '{word}' in {text}");
    }
}

#[test]
fn interrupted_it_takes_away_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let mut command = server.command(&[
        "bench",
        "--rate",
        "100",
        "--seconds",
        "600",
        "--progress-ms",
        "10",
    ]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The limits are behind it, and records are coming.
    assert!(lines.any(|line| line.unwrap().contains("acknowledged")));
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert!(lines.any(|line| line.unwrap().contains("\"interrupted\"")));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(names(&server.run(&["topic", "list"])[0]).is_empty());
}

#[test]
fn killed_it_takes_its_own_server_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = mainstem();
    command.args(["bench", "--rate", "100", "--seconds", "600"]);
    command
        .args(["--progress-ms", "10", "--dir"])
        .arg(dir.path());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("acknowledged")));
    let data = dir.path().join(&entries(dir.path())[0]).join("data");
    assert!(data.join("endpoints.json").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    // The server writes its log there, too: the end comes when both have ended.
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        lines.for_each(drop);
        ended.send(())
    });
    end.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(
        !data.join("endpoints.json").exists(),
        "it has stopped cleanly"
    );
}

#[test]
fn what_cannot_be_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "mine"]);
    let short = |more: &[&'static str]| [&["bench"], &SHORT[..], more].concat();
    assert_error(
        &server.fail(&short(&["--topic", "mine"])),
        "topic_exists",
        1,
    );
    // And a topic of somebody else is not deleted.
    server.run(&["topic", "describe", "mine"]);
    assert_error(
        &server.fail(&short(&["--buffer-bytes", "50"])),
        "record_too_large",
        1,
    );
    assert_error(
        &server.fail(&short(&["--set", "no.such=1"])),
        "unknown_config",
        1,
    );
    assert_error(&server.fail(&["bench", "--rate", "0"]), "usage", 2);
    assert_error(
        &server.fail(&["bench", "--max", "--load", "0.5"]),
        "usage",
        2,
    );
    assert_error(&server.fail(&short(&["--dir", "/no/such/folder"])), "io", 1);
    let nobody = mainstem()
        .args([
            "bench",
            "--seconds",
            "0.3",
            "--server",
            "127.0.0.1:1",
            "--output",
            "json",
        ])
        .output()
        .unwrap();
    assert_error(&error_of(&nobody), "unreachable", 1);
    assert_eq!(names(&server.run(&["topic", "list"])[0]), ["mine"]);
}
