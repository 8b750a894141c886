//! The commands against a real server: what they print. What they say to bad input is in `bad_input.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Server, assert_error, error_of, mainstem};

fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn values(records: &[Value]) -> Vec<Value> {
    records
        .iter()
        .map(|record| serde_json::from_str(record["value"].as_str().unwrap()).unwrap())
        .collect()
}

const CSV: &str = "id,city,late\n1,Oslo,NA\n2,Rome,5\n3,,\n";

#[test]
fn a_csv_goes_in_and_comes_out_typed_plain_packed_and_by_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let plain = file(dir.path(), "a.csv", CSV.as_bytes());
    let mut gz = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(CSV.as_bytes()).unwrap();
    let gz = file(dir.path(), "a.csv.gz", &gz.finish().unwrap());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("inner.csv", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(CSV.as_bytes()).unwrap();
    let zip = file(dir.path(), "a.zip", zip.finish().unwrap().get_ref());
    let expected = [
        json!({"id": 1, "city": "Oslo", "late": null}),
        json!({"id": 2, "city": "Rome", "late": 5}),
        json!({"id": 3, "city": null, "late": null}),
    ];
    for (topic, path) in [("plain", plain), ("gz", gz), ("zip", zip)] {
        server.run(&[
            "topic",
            "create",
            topic,
            "--schema",
            "id:int, city:text, late:int",
        ]);
        let summary = server
            .run(&["produce", topic, path.to_str().unwrap(), "--key", "city"])
            .remove(0);
        assert_eq!(
            (&summary["sent"], &summary["acknowledged"]),
            (&json!(3), &json!(3)),
            "{summary}"
        );
        let records = server.run(&["consume", topic]);
        assert_eq!(values(&records), expected);
        assert_eq!(records[1]["key"], "Rome");
        assert_eq!(records[2]["key"], Value::Null);
        assert_eq!(records[2]["offset"], 2);
    }
    server.run(&["topic", "create", "pipe"]);
    let mut child = server
        .command(&["produce", "pipe", "--format", "csv"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(CSV.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(values(&server.run(&["consume", "pipe"])), expected);
}

#[test]
fn a_pipe_that_trickles_is_passed_on_as_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&["topic", "create", "t", "--schema", "a:int"]);
    for (format, before, row) in [("lines", "", "one\n"), ("csv", "a\n", "1\n")] {
        let mut command = server.command(&["produce", "t", "--format", format]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(before.as_bytes()).unwrap();
        // It comes while the pipe stays open, and again.
        for _ in 0..2 {
            let before = server.run(&["consume", "t"]).len();
            input.write_all(row.as_bytes()).unwrap();
            let begun = Instant::now();
            while server.run(&["consume", "t"]).len() == before {
                assert!(begun.elapsed() < Duration::from_secs(60), "{format}");
            }
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn names_and_settings_that_cannot_be_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&["topic", "create", "flights"]);
    for (arguments, code) in [
        (&["topic", "create", "flights"][..], "topic_exists"),
        (
            &["topic", "create", "x", "--set", "retention.mss=1"],
            "unknown_config",
        ),
        (
            &["topic", "create", "x", "--set", "min.insync.replicas=2"],
            "refused_config",
        ),
        (&["topic", "create", "__consumer_offsets"], "internal_topic"),
    ] {
        assert_error(&server.fail(arguments), code, 1);
    }
    assert_error(
        &server.fail(&["consume", "flights", "--from", "whenever"]),
        "usage",
        2,
    );
    let nobody = mainstem()
        .args(["status", "--server", "127.0.0.1:1", "--output", "json"])
        .output()
        .unwrap();
    assert_error(&error_of(&nobody), "unreachable", 1);
    let other_listener = mainstem()
        .args([
            "status",
            "--server",
            &server.address("http"),
            "--output",
            "json",
        ])
        .output()
        .unwrap();
    assert_error(&error_of(&other_listener), "unimplemented", 1);
}

#[test]
fn ranges_positions_and_raw_values() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&["topic", "create", "t"]);
    let lines = file(dir.path(), "x.txt", b"a\nb\nc\nd\n");
    server.run(&["produce", "t", lines.to_str().unwrap()]);
    let read = |arguments: &[&str]| -> Vec<String> {
        let records = server.run(&[&["consume", "t"], arguments].concat());
        records
            .iter()
            .map(|record| record["value"].as_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(read(&["--from", "1", "--to", "3"]), ["b", "c"]);
    assert_eq!(read(&["--from", "3", "--to", "100"]), ["d"]);
    assert!(read(&["--from", "3", "--to", "2"]).is_empty());
    assert_eq!(read(&["--max", "2"]), ["a", "b"]);
    assert!(read(&["--from", "latest"]).is_empty());
    assert_eq!(read(&["--from", "2001-01-01T00:00:00Z"]).len(), 4);
    let raw = server.command(&["consume", "t", "--raw"]).output().unwrap();
    assert_eq!(raw.stdout, b"a\nb\nc\nd\n");
}

#[test]
fn sql_prints_a_row_a_line_and_bytes_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&[
        "topic",
        "create",
        "t",
        "--partitions",
        "2",
        "--schema",
        "k:text, n:int",
    ]);
    let lines = file(
        dir.path(),
        "x.jsonl",
        b"{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":2}\n{\"k\":\"a\",\"n\":3}\n",
    );
    server.run(&["produce", "t", lines.to_str().unwrap(), "--key", "k"]);
    let rows = server.run(&[
        "sql",
        "SELECT k, sum(n) AS total FROM t GROUP BY k ORDER BY k; SELECT 1 AS one",
    ]);
    assert_eq!(
        rows,
        [
            json!({"k": "a", "total": 4}),
            json!({"k": "b", "total": 2}),
            json!({"one": 1})
        ]
    );
    let rows = server.run(&["sql", "SELECT _key, _offset FROM t WHERE k = 'b'"]);
    assert_eq!(rows, [json!({"_key": "b", "_offset": rows[0]["_offset"]})]);
    assert_eq!(
        server.run(&[
            "sql",
            "SELECT durable_lsn > 0 AS durable FROM system.server"
        ]),
        [json!({"durable": true})]
    );
}

#[test]
fn everything_acknowledged_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    server.run(&["topic", "create", "t", "--partitions", "3"]);
    let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    let lines = file(dir.path(), "x.txt", text.as_bytes());
    let summary = server
        .run(&["produce", "t", lines.to_str().unwrap()])
        .remove(0);
    assert_eq!(summary["acknowledged"], 5000);
    server.kill();
    let server = Server::start_again(&data, &server);
    let mut found: Vec<String> = server
        .run(&["consume", "t"])
        .iter()
        .map(|record| record["value"].as_str().unwrap().to_string())
        .collect();
    found.sort();
    let mut expected: Vec<String> = text.lines().map(str::to_string).collect();
    expected.sort();
    assert_eq!(found, expected);
    assert!(
        server.ready["recovery"]["replayed_frames"]
            .as_u64()
            .unwrap()
            > 0,
        "{}",
        server.ready
    );
}

#[test]
fn usage_is_exit_2_and_json_where_json_is_asked_for() {
    let found = error_of(
        &mainstem()
            .args(["produce", "--output", "json"])
            .output()
            .unwrap(),
    );
    assert_eq!((found.0["code"].as_str(), found.1), (Some("usage"), 2));
    let help = mainstem().arg("--help").output().unwrap();
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for command in [
        "serve", "topic", "produce", "consume", "handler", "sql", "status",
    ] {
        assert!(
            text.contains(&format!("\n  {command}")),
            "{command} is not in the help"
        );
    }
}

#[test]
fn records_are_deleted_from_the_front_and_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let csv = file(dir.path(), "a.csv", CSV.as_bytes());
    server.run(&["topic", "create", "t"]);
    server.run(&["produce", "t", csv.to_str().unwrap()]);
    let delete = |before| {
        [
            "topic",
            "delete-records",
            "t",
            "--partition",
            "0",
            "--before",
            before,
        ]
    };
    let deleted = server.run(&delete("2")).remove(0);
    assert_eq!(
        (&deleted["start_offset"], &deleted["high_watermark"]),
        (&json!(2), &json!(3))
    );
    let left = server.run(&["consume", "t"]);
    assert_eq!((left.len(), &left[0]["offset"]), (1, &json!(2)));
    assert_error(
        &server.fail(&["consume", "t", "--from", "1"]),
        "offset_out_of_range",
        1,
    );
    assert_error(&server.fail(&delete("4")), "offset_out_of_range", 1);
    assert_error(&server.fail(&delete("-1")), "usage", 2);
    let deleted = server.run(&delete("latest")).remove(0);
    assert_eq!(deleted["start_offset"], json!(3));
}
