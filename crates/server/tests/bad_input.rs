//! Bad input, as a user meets it: each kind is refused by the real binary with a code for scripts, with a message that
//! says what was wrong and where, and with a hint that says what to do. A disk that is full has a file of its own,
//! `full_disk.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use mainstem_client::{Client, ClientOptions, ProducerOptions, ProducerRecord};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use support::grpc::{self, block_on};
use support::{Server, error_of, mainstem};

const FREE_PORTS: [&str; 6] = [
    "--listen-grpc",
    "127.0.0.1:0",
    "--listen-http",
    "127.0.0.1:0",
    "--listen-kafka",
    "127.0.0.1:0",
];

/// The error has this code, its message holds these words, and so does its hint.
fn assert_told(found: &(Value, i32), code: &str, message: &[&str], hint: &[&str]) {
    support::assert_error(found, code, 1);
    for (field, words) in [("message", message), ("hint", hint)] {
        let text = found.0[field].as_str().unwrap();
        for word in words {
            assert!(
                text.contains(word),
                "the {field} lacks {word:?}: {}",
                found.0
            );
        }
    }
}

fn file(dir: &Path, name: &str, content: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A `serve` that is refused.
fn refused(data_dir: &Path, arguments: &[&str]) -> (Value, i32) {
    let mut command = mainstem();
    command.arg("serve").arg("--data-dir").arg(data_dir);
    error_of(&command.args(arguments).output().unwrap())
}

/// A server with a topic `flights` of one partition that holds two records.
fn serve_flights(dir: &Path) -> Server {
    let server = Server::start(&dir.join("data"));
    server.run(&["topic", "create", "flights"]);
    let lines = file(dir, "two.txt", b"one\ntwo\n");
    server.run(&["produce", "flights", &lines]);
    server
}

#[test]
fn a_data_directory_in_use_is_refused_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let holder = format!("process {}", server.child.id());
    assert_told(
        &refused(dir.path(), &FREE_PORTS),
        "data_dir_in_use",
        &[dir.path().to_str().unwrap(), &holder],
        &["stop that process", "--data-dir"],
    );
    server.run(&["status"]);
}

#[test]
fn a_data_directory_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let meta = r#"{"format_version": 1000}"#;
    file(dir.path(), "meta.json", meta.as_bytes());
    assert_told(
        &refused(dir.path(), &FREE_PORTS),
        "data_dir_newer_version",
        &[dir.path().to_str().unwrap(), "format 1000", "reads up to 1"],
        &["version of mainstem that wrote it"],
    );
    let kept = std::fs::read_to_string(dir.path().join("meta.json")).unwrap();
    assert_eq!(kept, meta);
    assert!(!dir.path().join("journal").exists());
}

#[test]
fn an_unknown_topic_is_named_with_those_like_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    let lines = file(dir.path(), "x.txt", b"one\n");
    let like_it = ["did you mean", "flights"];
    let message = ["fligths"];
    for command in [
        &["produce", "fligths", &lines][..],
        &["consume", "fligths"],
        &["topic", "describe", "fligths"],
        &["topic", "delete", "fligths"],
    ] {
        assert_told(&server.fail(command), "topic_not_found", &message, &like_it);
    }
    assert_told(
        &server.fail(&["sql", "SELECT * FROM fligths"]),
        "sql_unknown_table",
        &message,
        &["flights"],
    );
    // Nothing like it is there: to be deleted, it need not be made.
    assert_told(
        &server.fail(&["topic", "delete", "orders"]),
        "topic_not_found",
        &["orders"],
        &["mainstem topic list"],
    );
    // How to make it.
    assert_told(
        &server.fail(&["produce", "orders", &lines]),
        "topic_not_found",
        &["orders"],
        &["mainstem topic create orders"],
    );
    let topics = server.run(&["topic", "list"]).remove(0);
    let names: Vec<&Value> = topics["topics"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 1, "no call has made a topic: {topics}");

    let component = guest("kitchen");
    let deploy = |from: &str, to: &str| {
        let component = component.to_str().unwrap();
        let arguments = ["--component", component, "--from", from, "--to", to];
        server.fail(&[&["handler", "deploy", "h"], &arguments[..]].concat())
    };
    assert_told(
        &deploy("fligths", "flights"),
        "topic_not_found",
        &["input topic `fligths`"],
        &["mainstem topic create"],
    );
    assert_told(
        &deploy("flights", "nowhere"),
        "topic_not_found",
        &["output topic `nowhere`"],
        &["--create-topics"],
    );
}

#[test]
fn a_partition_out_of_range_is_told_with_how_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    let message = ["'flights'", "no partition 7", "it has 1"];
    let hint = ["mainstem topic describe"];
    let found = server.fail(&["consume", "flights", "--partition", "7"]);
    assert_told(&found, "partition_not_found", &message, &hint);

    let batch = grpc::batch(b"x");
    let found = grpc::produce(&server, "flights", 7, batch).unwrap_err();
    assert_told(&found, "partition_not_found", &message, &hint);
    let error = put(&server, &[("flights", 7, "x")]).unwrap_err();
    assert_eq!(error.code(), "partition_not_found");
    assert!(error.to_string().contains("no partition 7"), "{error}");
}

#[test]
fn an_offset_out_of_range_is_told_with_those_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    assert_told(
        &server.fail(&["consume", "flights", "--from", "99"]),
        "offset_out_of_range",
        &["offset 99", "flights/0", "0 up to 2"],
        &["from 0 (earliest)", "2 (latest)"],
    );
}

#[test]
fn an_oversized_record_is_told_with_its_line_and_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    let large = [b"small\n".as_slice(), &vec![b'x'; 2 << 20]].concat();
    let large = file(dir.path(), "large.txt", &large);
    assert_told(
        &server.fail(&["produce", "flights", &large]),
        "record_too_large",
        &["line 2", "flights", "max.message.bytes", "1048588"],
        &["mainstem topic alter flights --set max.message.bytes"],
    );
    // The hint works.
    server.run(&[
        "topic",
        "alter",
        "flights",
        "--set",
        "max.message.bytes=4000000",
    ]);
    server.run(&["produce", "flights", &large]);
}

#[test]
fn a_corrupt_batch_is_refused_and_nothing_of_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    let whole = grpc::batch(b"payload");
    let last = whole.len() - 1;
    let mut flipped = whole.clone();
    flipped[last] ^= 1;
    assert_told(
        &grpc::produce(&server, "flights", 0, flipped).unwrap_err(),
        "invalid_batch",
        &["checksum mismatch", "changed on their way"],
        &["build the batch anew"],
    );
    assert_told(
        &grpc::produce(&server, "flights", 0, whole[..last].to_vec()).unwrap_err(),
        "invalid_batch",
        &["cut off"],
        &["build the batch anew"],
    );
    let topic = server.run(&["consume", "flights"]);
    assert_eq!(topic.len(), 2, "{topic:?}");
    assert_eq!(grpc::produce(&server, "flights", 0, whole), Ok(2));
}

#[test]
fn a_batch_that_is_damaged_on_disk_is_named_and_never_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = serve_flights(dir.path());
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    let segment = segments(&data.join("topics")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let place = bytes.windows(3).rposition(|window| window == b"two");
    bytes[place.unwrap()] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    let server = Server::start(&data);
    let named = segment.to_str().unwrap();
    let found = server.fail(&["consume", "flights"]);
    assert_told(
        &found,
        "damaged",
        &[named, "does not match its CRC"],
        &["restore", "backup"],
    );
    let found = server.fail(&["sql", "SELECT _value FROM flights"]);
    assert_told(
        &found,
        "damaged",
        &[named, "does not match its CRC"],
        &["restore"],
    );
}

/// All segment files below a folder.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if std::fs::read(&path)
            .unwrap()
            .windows(3)
            .any(|window| window == b"two")
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_is_no_component_is_refused_by_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    let build = "mainstem handler build";
    for (name, content, message) in [
        ("text.wasm", &b"one\ntwo\n"[..], "not WebAssembly"),
        ("empty.wasm", b"", "the file is empty"),
        ("program", b"\x7fELF\x02\x01\x01", "a native program"),
        ("core.wasm", b"\0asm\x01\0\0\0", "a core WebAssembly module"),
        (
            "torn.wasm",
            b"\0asm\x0d\0\x01\0\xff\xff",
            "cannot be compiled",
        ),
        ("nothing.wasm", b"\0asm\x0d\0\x01\0", "exports nothing"),
    ] {
        let component = file(dir.path(), name, content);
        let found = deploy(&server, "h", &component, "flights", &[]);
        assert_told(
            &found.unwrap_err(),
            "invalid_component",
            &[message],
            &[build],
        );
    }
    let found = deploy(&server, "h", "nowhere.wasm", "flights", &[]);
    assert_told(
        &found.unwrap_err(),
        "io",
        &["nowhere.wasm"],
        &["check the path"],
    );
    assert_told(
        &server.fail(&["handler", "status", "h"]),
        "handler_not_found",
        &["`h`"],
        &["mainstem handler status"],
    );
}

#[test]
fn a_component_of_the_wrong_world_is_refused_by_what_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    let component = guest("stranger");
    let found = deploy(&server, "h", component.to_str().unwrap(), "flights", &[]);
    assert_told(
        &found.unwrap_err(),
        "invalid_component",
        &["somebody:other/clock@1.2.3", "no handler gets"],
        &["mainstem handler build"],
    );
}

/// What a handler that misbehaves is given, so that its limits are met soon.
const TIGHT: [&str; 8] = [
    "--fuel-per-event",
    "100000000",
    "--memory-bytes",
    "16777216",
    "--attempts",
    "2",
    "--to",
    "out",
];

#[test]
fn a_handler_that_traps_loops_or_grows_loses_those_events_to_its_dead_letters_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let component = guest("kitchen");
    let component = component.to_str().unwrap();
    server.run(&["topic", "create", "orders", "--partitions", "2"]);
    server.run(&["topic", "create", "calm"]);
    server.run(&["topic", "create", "out"]);
    deploy(&server, "kitchen", component, "orders", &TIGHT).unwrap();
    deploy(&server, "other", component, "calm", &TIGHT).unwrap();
    let orders = ["count", "panic", "count", "loop", "count", "grow", "count"];
    let mut records: Vec<(&str, u32, &str)> = orders.map(|what| ("orders", 0, what)).to_vec();
    records.extend([("orders", 1, "count"), ("calm", 0, "count")].repeat(5));
    put(&server, &records).unwrap();
    for handler in ["kitchen", "other"] {
        server.run(&["handler", "wait", handler, "--timeout", "60s"]);
    }

    let status = server.run(&["handler", "status", "kitchen"]).remove(0);
    assert_eq!(status["state"], "running", "{status}");
    assert_eq!(status["dead_letters"], 3, "{status}");
    assert_eq!(status["events"], 12, "{status}");
    let error = status["last_error"].as_str().unwrap();
    for word in [
        "`orders`, partition 0, offset 5",
        "bytes of memory",
        "16777216",
    ] {
        assert!(
            error.contains(word),
            "the last error lacks {word:?}: {error}"
        );
    }
    let other = server.run(&["handler", "status", "other"]).remove(0);
    assert_eq!(
        (
            &other["events"],
            &other["dead_letters"],
            &other["last_error"]
        ),
        (&json!(5), &json!(0), &Value::Null)
    );

    let dead = server.run(&["consume", "kitchen.dlq"]);
    let expected = [
        ("panic", "1", "the milk is sour"),
        ("loop", "3", "out of fuel"),
        ("grow", "5", "16777216"),
    ];
    assert_eq!(dead.len(), expected.len(), "{dead:?}");
    for (record, (value, offset, error)) in dead.iter().zip(expected) {
        assert_eq!(record["value"], value);
        assert_eq!(record["key"], "k");
        let header = |name: &str| {
            let headers = record["headers"].as_array().unwrap();
            let found = headers.iter().find(|header| header[0] == name);
            found.unwrap()[1].as_str().unwrap().to_owned()
        };
        assert_eq!(header("mainstem-topic"), "orders");
        assert_eq!(header("mainstem-partition"), "0");
        assert_eq!(header("mainstem-offset"), offset);
        assert_eq!(header("mainstem-attempts"), "2");
        let said = header("mainstem-error");
        assert!(said.contains(error), "{said:?} lacks {error:?}");
    }
    // Every good event counts once: four in the one partition, five in the other, five in the other topic.
    let mut counts: Vec<u64> = server
        .run(&["consume", "out"])
        .iter()
        .map(|record| record["value"].as_str().unwrap().parse().unwrap())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5]);
}

#[test]
fn a_handler_that_halts_at_a_bad_event_says_so_and_stops_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let component = guest("kitchen");
    let component = component.to_str().unwrap();
    server.run(&["topic", "create", "orders", "--partitions", "2"]);
    server.run(&["topic", "create", "calm"]);
    server.run(&["topic", "create", "out"]);
    let halting = [&TIGHT[..], &["--on-error", "halt"]].concat();
    deploy(&server, "kitchen", component, "orders", &halting).unwrap();
    deploy(&server, "other", component, "calm", &TIGHT).unwrap();
    put(&server, &[("orders", 0, "count"), ("orders", 0, "loop")]).unwrap();
    let halted = until(|| {
        let status = server.run(&["handler", "status", "kitchen"]).remove(0);
        (status["tasks"][0]["state"] == "halted").then_some(status)
    });
    assert_eq!(halted["state"], "halted", "{halted}");
    assert_told(
        &server.fail(&["handler", "wait", "kitchen", "--timeout", "60s"]),
        "handler_halted",
        &["kitchen"],
        &[
            "`orders`, partition 0, offset 1",
            "out of fuel",
            "mainstem handler resume kitchen",
        ],
    );

    // While it stands, the others go on.
    let good = [("orders", 1, "count"), ("calm", 0, "count")].repeat(3);
    put(&server, &good).unwrap();
    put(&server, &[("orders", 0, "count")]).unwrap();
    server.run(&["handler", "wait", "other", "--timeout", "60s"]);
    let status = until(|| {
        let status = server.run(&["handler", "status", "kitchen"]).remove(0);
        let done = status["tasks"][1]["events"] == 3 && status["tasks"][0]["lag_events"] == 2;
        done.then_some(status)
    });
    assert_eq!(status["tasks"][0]["events"], 1, "{status}");
    assert_eq!(server.run(&["consume", "out"]).len(), 7);
    // Another policy for the same code passes it.
    deploy(&server, "kitchen", component, "orders", &TIGHT).unwrap();
    server.run(&["handler", "wait", "kitchen", "--timeout", "60s"]);
    assert_eq!(server.run(&["consume", "out"]).len(), 8);
    assert_eq!(server.run(&["consume", "kitchen.dlq"]).len(), 1);
}

#[test]
fn sql_that_does_not_parse_is_told_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_flights(dir.path());
    for (statement, message, hint) in [
        (
            "SELEKT 1",
            "SELEKT at line 1, column 1",
            "did you mean SELECT?",
        ),
        (
            "SELECT count(* FROM flights",
            "FROM at line 1, column 16",
            "SELECT columns FROM",
        ),
        ("SELECT 1 +", "found: EOF", "ends too early"),
        ("SELECT 'no end", "at line 1, column 8", "not closed"),
        (
            "SELECT *\nFORM flights",
            "FORM at line 2, column 1",
            "SELECT columns FROM",
        ),
    ] {
        assert_told(
            &server.fail(&["sql", statement]),
            "sql_syntax",
            &[message],
            &[hint],
        );
    }
}

#[test]
fn a_line_longer_than_any_record_is_not_read_and_named_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&["topic", "create", "t"]);
    let long = vec![b'x'; (16 << 20) + 1];
    let text = [&b"one\n"[..], &long, b"\ntwo\n"].concat();
    let path = file(dir.path(), "x.txt", &text);
    let output = server.command(&["produce", "t", &path]).output().unwrap();
    assert_told(
        &error_of(&output),
        "broken_row",
        &["line 2", "longer than 16777216 bytes"],
        &["--rejects"],
    );
    let rejects = dir.path().join("rejects.jsonl");
    let rejects = rejects.to_str().unwrap();
    let summary = server.run(&["produce", "t", &path, "--rejects", rejects]);
    assert_eq!(
        (&summary[0]["acknowledged"], &summary[0]["rejected"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn a_broken_row_of_a_csv_stops_with_its_line_or_goes_to_the_rejects() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.run(&["topic", "create", "t", "--schema", "a:int, b:text"]);
    let path = file(dir.path(), "x.csv", b"a,b\n1,x\n2,y,z\nthree,x\n4,x\n");
    let output = server.command(&["produce", "t", &path]).output().unwrap();
    assert_told(
        &error_of(&output),
        "broken_row",
        &["line 3", "3 fields", "the heading 2"],
        &["--rejects"],
    );
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        summary["acknowledged"], 1,
        "what was acknowledged is told all the same"
    );

    let rejects = dir.path().join("rejects.jsonl");
    let summary = server
        .run(&[
            "produce",
            "t",
            &path,
            "--rejects",
            rejects.to_str().unwrap(),
        ])
        .remove(0);
    assert_eq!(
        (&summary["acknowledged"], &summary["rejected"]),
        (&json!(2), &json!(2))
    );
    let text = std::fs::read_to_string(rejects).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["line"], &lines[0]["row"]),
        (&json!(3), &json!("2,y,z"))
    );
    assert_eq!(lines[1]["line"], 4);
    let why = lines[1]["error"].as_str().unwrap();
    assert!(why.contains("column `a` wants int"), "{why}");
    assert!(why.contains("`three`"), "{why}");
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_opened() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let flags = ["--listen-grpc", "--listen-http", "--listen-kafka"];
    for flag in flags {
        let others = flags.into_iter().filter(|other| *other != flag);
        let mut arguments: Vec<&str> = others.flat_map(|other| [other, "127.0.0.1:0"]).collect();
        arguments.extend([flag, &address]);
        let found = refused(&data, &arguments);
        assert_told(&found, "port_in_use", &[flag, &address], &[flag, "port 0"]);
    }
    assert!(!data.exists());
}

/// Sends records with the key `k`, each to its topic and partition, and waits until they are durable.
fn put(server: &Server, records: &[(&str, u32, &str)]) -> Result<(), mainstem_client::ClientError> {
    block_on(async {
        let client = Client::connect(ClientOptions::new(server.address("grpc"))).await?;
        let producer = client.producer(ProducerOptions::default()).await?;
        for (topic, partition, value) in records {
            let record = ProducerRecord::new(*topic)
                .partition(*partition)
                .key("k")
                .value(value.to_string());
            // `close` tells what has become of it.
            drop(producer.send(record).await?);
        }
        producer.close().await
    })
}

fn deploy(
    server: &Server,
    name: &str,
    component: &str,
    from: &str,
    more: &[&str],
) -> Result<Value, (Value, i32)> {
    let arguments = ["handler", "deploy", name, "--component", component];
    let arguments = [&arguments[..], &["--from", from], more].concat();
    let output = server.command(&arguments).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(error_of(&output)),
    }
}

/// Asks again and again until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it does not come"
        );
    }
}

/// The component of one of the runtime's guests, built by the binary once a process.
fn guest(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: OnceLock<Mutex<()>> = OnceLock::new();
    let _guard = ONE_AT_A_TIME.get_or_init(Mutex::default).lock();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command: Command = mainstem();
    let built = command
        .args(["handler", "build", "--output", "json"])
        .arg(root.join("crates/runtime/tests/guests").join(name))
        .env("CARGO_TARGET_DIR", root.join("target/guests"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let built: Value = serde_json::from_slice(&built.stdout).unwrap();
    built["component"].as_str().unwrap().into()
}
