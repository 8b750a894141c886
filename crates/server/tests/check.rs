//! `mainstem check` on a directory with everything in it, damaged in every way that a file can be: the damage named is
//! the one that was made. And what `mainstem serve` says to each: it refuses by name, or starts, because nothing that it
//! needs is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use mainstem_client::{Client, ClientOptions, ProducerOptions, ProducerRecord};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use support::grpc::block_on;
use support::{Server, assert_error, error_of, mainstem};

const FREE_PORTS: [&str; 6] = [
    "--listen-grpc",
    "127.0.0.1:0",
    "--listen-http",
    "127.0.0.1:0",
    "--listen-kafka",
    "127.0.0.1:0",
];

/// Records of topic `orders` that a checkpoint has passed, and those after them.
const OLD: usize = 3_000;
const NEW: usize = 40;

/// A data directory whose server was killed: records in segments, records in the journal alone, a compacted topic, a
/// handler with its state and its component.
fn killed() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let small = ["--set", "segment.bytes=1048576"];
        let server = start(&data);
        server.run(&[&["topic", "create", "orders"], &small[..]].concat());
        let compacted = ["--set", "cleanup.policy=compact"];
        let compacted = [&compacted[..], &small[..]].concat();
        let eager = ["--set", "min.cleanable.dirty.ratio=0.01"];
        server.run(&[&["topic", "create", "latest"], &compacted[..], &eager].concat());
        server.run(&["topic", "create", "clicks"]);
        put(&server, "orders", OLD, |_| None);
        put(&server, "latest", OLD, |index| {
            Some(format!("key-{}", index % 7))
        });
        let component = guest("kitchen");
        let component = component.to_str().unwrap();
        let deploy = ["handler", "deploy", "counts", "--component", component];
        let to = ["--from", "clicks", "--to", "out", "--create-topics"];
        server.run(&[&deploy[..], &to].concat());
        let clicks: Vec<String> = (0..200).map(|key| format!("user-{key}")).collect();
        put_values(
            &server,
            "clicks",
            clicks.iter().map(|key| (Some(&**key), "count")),
        );
        server.run(&["handler", "wait", "counts"]);
        stop(server);

        // Compaction takes what a checkpoint has passed. What the stop cut short is gone at the next start, and done again.
        let mut server = loop {
            let server = start(&data);
            until(|| rewritten(&data).pop());
            stop(server);
            let server = start(&data);
            if !rewritten(&data).is_empty() {
                break server;
            }
            stop(server);
        };
        put(&server, "orders", NEW, |_| None);
        put_values(&server, "clicks", [(Some("late"), "count")]);
        server.run(&["handler", "wait", "counts"]);
        server.kill();
        dir
    });
    Box::leak(Box::new(dir.path().join("data")))
}

/// The same, stopped cleanly.
fn stopped() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = copy(killed());
        stop(start(dir.path()));
        dir
    });
    dir.path()
}

/// Segments that compaction has written: their names tell how often.
fn rewritten(dir: &Path) -> Vec<PathBuf> {
    let mut found = find(dir, ".log");
    found.retain(|path| {
        path.file_stem()
            .is_some_and(|stem| stem.to_string_lossy().contains('.'))
    });
    found
}

fn start(data: &Path) -> Server {
    let often = ["--set", "log.cleaner.backoff.ms=50"];
    Server::start_with(data, &[&FREE_PORTS[..], &often].concat())
}

fn stop(mut server: Server) {
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
}

fn put(server: &Server, topic: &str, count: usize, key: impl Fn(usize) -> Option<String>) {
    let records: Vec<_> = (0..count)
        .map(|index| (key(index), format!("{index:01000}")))
        .collect();
    let records = records
        .iter()
        .map(|(key, value)| (key.as_deref(), value.as_str()));
    put_values(server, topic, records);
}

fn put_values<'a>(
    server: &Server,
    topic: &str,
    records: impl IntoIterator<Item = (Option<&'a str>, &'a str)>,
) {
    block_on(async {
        let options = ClientOptions::new(server.address("grpc"));
        let client = Client::connect(options).await.unwrap();
        // Small batches, so that there are many.
        let options = ProducerOptions {
            max_batch_bytes: 20_000,
            ..ProducerOptions::default()
        };
        let producer = client.producer(options).await.unwrap();
        for (key, value) in records {
            let mut record = ProducerRecord::new(topic).value(value.to_owned());
            if let Some(key) = key {
                record = record.key(key.to_owned());
            }
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await.unwrap();
    });
}

fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(60), "it does not come");
        std::thread::yield_now();
    }
}

/// The component of one of the runtime's guests, built by the binary once a process.
fn guest(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
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

/// A copy to damage. Journal files and ballast are mostly zeros.
fn copy(data: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-r", "--sparse=always"])
        .arg(data.join("."))
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(copied.success());
    dir
}

/// Every file below a directory whose name ends so, in order.
fn find(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(find(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    /// One bit of the byte at this position.
    Flip(u64),
    /// Everything from here on is gone.
    Cut(u64),
    Remove,
    Append,
}

fn harm(file: &Path, harm: Harm) {
    match harm {
        Harm::Flip(position) => {
            use std::os::unix::fs::FileExt;
            let open = fs::File::options().read(true).write(true).open(file);
            let open = open.unwrap();
            let mut byte = [0];
            open.read_exact_at(&mut byte, position).unwrap();
            open.write_all_at(&[byte[0] ^ 1], position).unwrap();
        }
        Harm::Cut(length) => {
            let open = fs::File::options().write(true).open(file).unwrap();
            assert!(open.metadata().unwrap().len() > length);
            open.set_len(length).unwrap();
        }
        Harm::Remove => fs::remove_file(file).unwrap(),
        Harm::Append => {
            let mut open = fs::File::options().append(true).open(file).unwrap();
            open.write_all(b"bytes of somebody else").unwrap();
        }
    }
}

fn check_output(data: &Path, more: &[&str]) -> Output {
    let mut command = mainstem();
    command.arg("check").arg("--data-dir").arg(data);
    command.args(more).output().unwrap()
}

/// A check that finds something: its report, having told on standard error how many damages there are.
fn damaged(data: &Path, more: &[&str]) -> Value {
    let output = check_output(data, &[&["--output", "json"], more].concat());
    let error = error_of(&output);
    assert_error(&error, "damage_found", 1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["clean"], false);
    report
}

/// A check that finds no damage, or builds it again.
fn clean(data: &Path, more: &[&str]) -> Value {
    let output = check_output(data, &[&["--output", "json"], more].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(output.status.success(), "{said} {report:#}");
    assert_eq!(report["clean"], true, "{report:#}");
    report
}

/// What is damaged, by file relative to the directory.
fn damages(report: &Value) -> Vec<&Value> {
    graded(report, "damage")
}

fn graded<'a>(report: &'a Value, grade: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().unwrap();
    let graded = findings.iter().filter(|finding| finding["grade"] == grade);
    graded.collect()
}

/// The one finding about a file.
fn about<'a>(report: &'a Value, file: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    let mut found = findings.iter().filter(|finding| finding["file"] == file);
    match (found.next(), found.next()) {
        (Some(finding), None) => finding,
        _ => panic!("not one finding about {file}: {report:#}"),
    }
}

fn text<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field}: {finding}"))
}

/// A server that starts, or what it says instead.
fn serve(data: &Path) -> Result<Server, (Value, i32)> {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut child = mainstem()
        .arg("serve")
        .arg("--data-dir")
        .arg(data)
        .args(FREE_PORTS)
        .args(["--log", "off"])
        .stdout(Stdio::piped())
        .stderr(said.reopen().unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    match line.strip_prefix("ready ") {
        Some(json) => Ok(Server {
            ready: serde_json::from_str(json).unwrap(),
            child,
        }),
        None => {
            let status = child.wait().unwrap();
            let stderr = fs::read(said.path()).unwrap();
            let stdout = Vec::new();
            Err(error_of(&Output {
                status,
                stdout,
                stderr,
            }))
        }
    }
}

/// It does not start, and its message has these words.
fn assert_refused(data: &Path, code: &str, words: &[&str]) {
    let error = match serve(data) {
        Ok(_) => panic!("the server starts where {words:?} is damaged"),
        Err(error) => error,
    };
    assert_error(&error, code, 1);
    let message = error.0["message"].as_str().unwrap();
    for word in words {
        assert!(
            message.contains(word),
            "the message lacks {word:?}: {message}"
        );
    }
}

fn assert_starts(data: &Path) -> Server {
    serve(data).unwrap_or_else(|error| panic!("the server does not start: {error:?}"))
}

fn relative<'a>(data: &Path, file: &'a Path) -> &'a str {
    file.strip_prefix(data).unwrap().to_str().unwrap()
}

fn orders(server: &Server) -> Vec<Value> {
    server.run(&["consume", "orders"])
}

/// Everything below a directory with its bytes hashed, to see that nothing was changed.
fn contents(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let files = find(dir, "").into_iter();
    files
        .filter(|path| path.file_name().unwrap() != "LOCK")
        .map(|path| {
            let mut hasher = DefaultHasher::new();
            fs::read(&path).unwrap().hash(&mut hasher);
            (path, hasher.finish())
        })
        .collect()
}

#[test]
fn a_sound_directory_is_clean_and_stays_as_it_is() {
    for (data, unflushed) in [(killed(), true), (stopped(), false)] {
        let data = copy(data);
        let before = contents(data.path());
        let report = clean(data.path(), &[]);
        assert_eq!(
            report["findings"].as_array().unwrap().len(),
            graded(&report, "note").len()
        );
        assert_eq!(contents(data.path()), before);
        let checked = &report["checked"];
        for (count, least) in [
            ("topics", 4),
            ("handlers", 1),
            ("segments", 6),
            ("batches", 200),
            ("store_keys", 200),
            ("module_files", 2),
            ("journal_groups", 1),
        ] {
            assert!(
                checked[count].as_u64().unwrap() >= least,
                "{count}: {report:#}"
            );
        }
        let beyond = report["last_lsn"].as_u64() > report["checkpoint_lsn"].as_u64();
        assert_eq!(beyond, unflushed, "{report:#}");
        let server = assert_starts(data.path());
        assert_eq!(orders(&server).len(), OLD + NEW);
    }
    let shown = check_output(stopped(), &[]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("clean: "), "{shown}");
}

#[test]
fn a_directory_that_is_in_use_or_is_none_is_refused() {
    let data = copy(stopped());
    let server = assert_starts(data.path());
    let found = error_of(&check_output(data.path(), &[]));
    assert_error(&found, "data_dir_in_use", 1);
    let holder = format!("process {}", server.child.id());
    assert!(found.0["message"].as_str().unwrap().contains(&holder));

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.tex"), "x").unwrap();
    for dir in [other.path(), &other.path().join("nowhere")] {
        let found = error_of(&check_output(dir, &[]));
        assert_error(&found, "not_a_data_dir", 1);
    }
    assert!(!other.path().join("LOCK").exists());
}

#[test]
fn what_stands_at_the_top() {
    for harm_done in [Harm::Flip(45), Harm::Cut(20), Harm::Append, Harm::Remove] {
        let data = copy(stopped());
        harm(&data.path().join("meta.json"), harm_done);
        let report = damaged(data.path(), &[]);
        let [finding] = damages(&report)[..] else {
            panic!("{harm_done:?}: {report:#}")
        };
        assert_eq!(finding["file"], "meta.json");
        assert!(text(finding, "affects").contains("the server does not start"));
        let code = match harm_done {
            Harm::Remove => "not_a_data_dir",
            _ => "data_dir_damaged",
        };
        assert_refused(data.path(), code, &["meta.json"]);
    }
    // Nothing depends on these.
    let data = copy(killed());
    for name in ["endpoints.json", "ballast", "LOCK"] {
        harm(&data.path().join(name), Harm::Remove);
    }
    fs::write(data.path().join("notes.txt"), "mine").unwrap();
    let report = clean(data.path(), &[]);
    let notes = graded(&report, "note");
    assert!(
        notes.iter().any(|note| note["file"] == "notes.txt"),
        "{report:#}"
    );
    assert_starts(data.path());
}

#[test]
fn the_journal() {
    let newest = |data: &Path| -> PathBuf {
        // The one that is written to lies before the one that is ready to follow it.
        let files = find(&data.join("journal"), ".journal");
        let groups = |file: &&PathBuf| fs::read(file).unwrap()[4096..4100] == *b"MSJG";
        files.iter().rfind(groups).unwrap().clone()
    };
    for (harm_done, position) in [
        (Harm::Flip(4096 + 100), 4096),
        (Harm::Flip(4096 + 20), 4096),
        (Harm::Flip(30), 0),
        (Harm::Cut(4096 + 500), 4096 + 500),
        (Harm::Cut(100), 0),
        (Harm::Remove, 0),
    ] {
        let data = copy(killed());
        let file = newest(data.path());
        harm(&file, harm_done);
        let report = damaged(data.path(), &[]);
        let [finding] = damages(&report)[..] else {
            panic!("{harm_done:?}: {report:#}")
        };
        assert_eq!(
            finding["file"],
            relative(data.path(), &file),
            "{harm_done:?}"
        );
        assert_eq!(finding["position"], position, "{harm_done:?}: {finding}");
        let lsn = finding["lsn"].as_u64().unwrap();
        let first = report["checkpoint_lsn"].as_u64().unwrap() + 1;
        assert_eq!(lsn, first, "{harm_done:?}: {finding}");
        let affects = text(finding, "affects");
        assert!(affects.contains(&format!("LSN {lsn}")), "{affects}");
        let path = file.to_str().unwrap();
        let position = format!("position {position}");
        assert_refused(
            data.path(),
            "engine",
            &[path, &position, &format!("LSN {lsn}")],
        );
    }
    // What lies behind is looked at all the same: offsets that the next frames tell are gone.
    let data = copy(killed());
    harm(&newest(data.path()), Harm::Flip(4096 + 100));
    let report = damaged(data.path(), &[]);
    let affects = text(damages(&report)[0], "affects");
    assert!(affects.contains("and everything since"), "{affects}");
    assert!(report["last_lsn"].as_u64() > damages(&report)[0]["lsn"].as_u64());

    // Nobody reads behind a file's length, and what is not listed is nobody's.
    let data = copy(killed());
    harm(&newest(data.path()), Harm::Append);
    fs::write(data.path().join("journal/copy.txt"), "mine").unwrap();
    let report = clean(data.path(), &[]);
    // The kill may have cut a compaction short: that is noted, too.
    let mut notes = graded(&report, "note");
    notes.retain(|note| text(note, "file").starts_with("journal/"));
    assert_eq!(notes.len(), 2, "{report:#}");
    let server = assert_starts(data.path());
    assert_eq!(orders(&server).len(), OLD + NEW);
}

/// The directory of a topic's only partition, found by what its first segment holds.
fn partition_of(data: &Path, topic: &str) -> PathBuf {
    let report = {
        let mut server = assert_starts(copy(data).path());
        let described = server.run(&["topic", "describe", topic]).remove(0);
        server.kill();
        described
    };
    let id = report["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {report}"));
    data.join("topics").join(id).join("0")
}

#[test]
fn segments() {
    let place = partition_of(stopped(), "orders");
    let place = place.strip_prefix(stopped()).unwrap();
    let segments = find(&stopped().join(place), ".log");
    assert!(segments.len() >= 3, "{segments:?}");
    for (index, harm_done) in [
        (0, Harm::Flip(5_000)),
        (0, Harm::Flip(12)),
        (1, Harm::Cut(70_000)),
        (1, Harm::Remove),
        (segments.len() - 1, Harm::Flip(100)),
        (segments.len() - 1, Harm::Cut(10)),
        (segments.len() - 1, Harm::Remove),
    ] {
        let data = copy(stopped());
        let file = data
            .path()
            .join(segments[index].strip_prefix(stopped()).unwrap());
        harm(&file, harm_done);
        let report = damaged(data.path(), &[]);
        let [finding] = damages(&report)[..] else {
            panic!("{harm_done:?}: {report:#}")
        };
        assert_eq!(finding["file"], relative(data.path(), &file), "{finding}");
        assert_eq!(
            (&finding["topic"], &finding["partition"]),
            (&"orders".into(), &0.into())
        );
        let (from, to) = (&finding["from_offset"], &finding["to_offset"]);
        let (from, to) = (from.as_u64().unwrap(), to.as_u64().unwrap());
        assert!(from < to && to <= (OLD + NEW) as u64, "{finding}");
        assert!(
            text(finding, "affects").contains("of orders/0"),
            "{finding}"
        );
        match harm_done {
            Harm::Flip(position) => {
                assert!(
                    finding["position"].as_u64().unwrap() <= position,
                    "{finding}"
                );
            }
            Harm::Cut(length) => assert_eq!(finding["position"], length, "{finding}"),
            _ => assert!(text(finding, "what").contains("missing"), "{finding}"),
        }
        let named = file.to_str().unwrap();
        // The one that would be written on is looked at when the log is opened, the others when they are read.
        let last = index + 1 == segments.len();
        if last && !matches!(harm_done, Harm::Flip(_)) {
            assert_refused(data.path(), "engine", &[named]);
            continue;
        }
        let server = assert_starts(data.path());
        let (error, _) = server.fail(&["consume", "orders"]);
        assert_eq!(error["code"], "damaged", "{error}");
        assert!(
            error["message"].as_str().unwrap().contains(named),
            "{error}"
        );
        // The other topics are as they were.
        assert!(!server.run(&["consume", "latest"]).is_empty());
    }
    for file in [&segments[0], &segments[segments.len() - 1]] {
        let data = copy(stopped());
        let file = data.path().join(file.strip_prefix(stopped()).unwrap());
        harm(&file, Harm::Append);
        let report = clean(data.path(), &[]);
        let notes = graded(&report, "note");
        let name = relative(data.path(), &file);
        assert!(notes.iter().any(|note| note["file"] == name), "{report:#}");
        assert_eq!(orders(&assert_starts(data.path())).len(), OLD + NEW);
    }
    // What belongs to nobody goes with the next start.
    let data = copy(stopped());
    let stray = data.path().join(place).join("00000000000000999999.log");
    fs::write(&stray, "x").unwrap();
    let report = clean(data.path(), &[]);
    let name = relative(data.path(), &stray);
    assert!(
        graded(&report, "note")
            .iter()
            .any(|note| note["file"] == name)
    );
    drop(assert_starts(data.path()));
    assert!(!stray.exists());
}

#[test]
fn indexes_are_built_again() {
    let place = partition_of(stopped(), "orders");
    let index = find(&place, ".index").remove(0);
    let place = index.strip_prefix(stopped()).unwrap();
    let original = fs::read(&index).unwrap();
    for harm_done in [Harm::Flip(40), Harm::Cut(60), Harm::Append, Harm::Remove] {
        let data = copy(stopped());
        let file = data.path().join(place);
        harm(&file, harm_done);
        let report = match harm_done {
            // Where there is none yet, nothing was damaged.
            Harm::Remove => clean(data.path(), &[]),
            _ => damaged(data.path(), &[]),
        };
        let finding = about(&report, relative(data.path(), &file));
        assert_eq!(
            (&finding["derived"], &finding["rebuilt"]),
            (&true.into(), &false.into())
        );
        assert!(text(finding, "affects").starts_with("nothing"), "{finding}");
        // The server starts and reads all the same.
        let again = copy(data.path());
        assert_eq!(orders(&assert_starts(again.path())).len(), OLD + NEW);

        let report = clean(data.path(), &["--rebuild"]);
        let finding = about(&report, relative(data.path(), &file));
        assert_eq!(finding["rebuilt"], true, "{finding}");
        let again = clean(data.path(), &[]);
        assert_eq!(again["findings"].as_array().unwrap().len(), 0, "{again:#}");
        assert_eq!(fs::read(&file).unwrap(), original, "{harm_done:?}");
        assert_eq!(orders(&assert_starts(data.path())).len(), OLD + NEW);
    }
}

#[test]
fn a_compacted_topic() {
    let place = partition_of(stopped(), "latest");
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let rewritten = rewritten(&place).into_iter().max_by_key(length).unwrap();
    let data = copy(stopped());
    let file = data.path().join(rewritten.strip_prefix(stopped()).unwrap());
    harm(&file, Harm::Flip(length(&file) / 2));
    let report = damaged(data.path(), &[]);
    let [finding] = damages(&report)[..] else {
        panic!("{report:#}")
    };
    assert_eq!(finding["file"], relative(data.path(), &file));
    assert_eq!(finding["topic"], "latest");
    let server = assert_starts(data.path());
    let (error, _) = server.fail(&["consume", "latest"]);
    assert_eq!(error["code"], "damaged", "{error}");
}

#[test]
fn the_store() {
    let tables = find(&stopped().join("store"), ".sst");
    assert!(tables.len() >= 3, "{tables:?}");
    let mut affected = Vec::new();
    for table in &tables {
        let name = table.file_name().unwrap().to_str().unwrap();
        let half = fs::metadata(table).unwrap().len() / 2;
        for harm_done in [Harm::Flip(10), Harm::Cut(half), Harm::Append, Harm::Remove] {
            let data = copy(stopped());
            let file = data.path().join("store").join(name);
            harm(&file, harm_done);
            let report = damaged(data.path(), &[]);
            let found = damages(&report);
            let here = format!("store/{name}");
            assert!(
                found.iter().any(|finding| finding["file"] == *here),
                "{harm_done:?} of {name}: {report:#}"
            );
            let elsewhere: Vec<_> = found
                .iter()
                .filter(|finding| finding["file"] != *here && finding["file"] != "store")
                .filter(|finding| !text(finding, "file").starts_with("topics"))
                .collect();
            assert!(
                elsewhere.is_empty(),
                "{harm_done:?} of {name}: {elsewhere:#?}"
            );
            affected.push(text(found[0], "affects").to_owned());
            match serve(data.path()) {
                // Refused by name.
                Err((error, _)) => {
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains("store"), "{error}");
                    assert!(
                        ["store", "engine", "broker", "damaged", "damaged_catalog"]
                            .contains(&error["code"].as_str().unwrap()),
                        "{error}"
                    );
                }
                // Or nothing of it was needed to start: who reads it is told.
                Ok(server) => {
                    assert_eq!(harm_done, Harm::Flip(10), "{name}");
                    let output = server
                        .command(&["sql", "SELECT * FROM state.counts"])
                        .output()
                        .unwrap();
                    if affected.last().unwrap().contains("the state of") {
                        let error = error_of(&output);
                        let message = error.0["message"].as_str().unwrap();
                        assert!(message.contains(name), "{name}: {message}");
                    }
                }
            }
        }
    }
    let names_it = |text: &String| text.contains("the state of counts (partitions 0)");
    assert!(affected.iter().any(names_it), "{affected:?}");
    for name in ["CURRENT", "MANIFEST"] {
        for harm_done in [Harm::Flip(3), Harm::Cut(5), Harm::Remove] {
            let data = copy(stopped());
            let files = fs::read_dir(data.path().join("store")).unwrap().flatten();
            let mut files = files.map(|entry| entry.path()).filter(|path| {
                let file = path.file_name().unwrap().to_str().unwrap();
                file.starts_with(name)
            });
            let file = files.next().unwrap();
            harm(&file, harm_done);
            let report = damaged(data.path(), &[]);
            let found = damages(&report);
            let file_name = relative(data.path(), &file);
            let named = found.iter().any(|finding| {
                finding["file"] == file_name || text(finding, "what").contains(name)
            });
            assert!(named, "{harm_done:?} of {name}: {report:#}");
            let error = serve(data.path()).err();
            let error = error.unwrap_or_else(|| panic!("{harm_done:?} of {name}: it starts"));
            assert!(
                error.0["message"].as_str().unwrap().contains("store"),
                "{error:?}"
            );
            // A second look finds the same: the refusal has destroyed nothing.
            assert_eq!(damages(&damaged(data.path(), &[])).len(), found.len());
        }
    }
}

#[test]
fn what_the_store_can_do_without() {
    for name in ["OPTIONS", "IDENTITY"] {
        for harm_done in [Harm::Flip(3), Harm::Cut(5), Harm::Append, Harm::Remove] {
            let data = copy(stopped());
            let files = fs::read_dir(data.path().join("store")).unwrap().flatten();
            let files: Vec<PathBuf> = files
                .map(|entry| entry.path())
                .filter(|path| {
                    path.file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .starts_with(name)
                })
                .collect();
            assert!(!files.is_empty(), "RocksDB writes no {name}");
            files.iter().for_each(|file| harm(file, harm_done));
            let before = contents(data.path());
            clean(data.path(), &[]);
            assert_eq!(contents(data.path()), before, "a check writes nothing");
            let server = assert_starts(data.path());
            assert!(!orders(&server).is_empty(), "{harm_done:?} of {name}");
            stop(server);
            clean(data.path(), &[]);
        }
    }
}

#[test]
fn modules() {
    let component = find(&stopped().join("modules"), ".wasm").remove(0);
    let compiled = find(&stopped().join("modules"), ".cwasm").remove(0);
    for harm_done in [
        Harm::Flip(2_000),
        Harm::Cut(500),
        Harm::Append,
        Harm::Remove,
    ] {
        let data = copy(stopped());
        let file = data.path().join(component.strip_prefix(stopped()).unwrap());
        harm(&file, harm_done);
        let report = damaged(data.path(), &[]);
        let [finding] = damages(&report)[..] else {
            panic!("{harm_done:?}: {report:#}")
        };
        assert_eq!(finding["file"], relative(data.path(), &file));
        assert_eq!(finding["handlers"][0], "counts");
        // It runs on from what was compiled; without that, the handler says what is wrong and everything else runs.
        drop(assert_starts(data.path()));
        harm(
            &data.path().join(compiled.strip_prefix(stopped()).unwrap()),
            Harm::Remove,
        );
        let server = assert_starts(data.path());
        assert_eq!(orders(&server).len(), OLD + NEW);
        let status = until(|| {
            let status = server.run(&["handler", "status", "counts"]).remove(0);
            status.to_string().contains(".wasm").then_some(status)
        });
        assert!(
            status
                .to_string()
                .contains(file.file_name().unwrap().to_str().unwrap())
        );
    }
    for harm_done in [Harm::Flip(2_000), Harm::Cut(500), Harm::Append] {
        let data = copy(stopped());
        let file = data.path().join(compiled.strip_prefix(stopped()).unwrap());
        harm(&file, harm_done);
        let report = damaged(data.path(), &[]);
        let [finding] = damages(&report)[..] else {
            panic!("{harm_done:?}: {report:#}")
        };
        assert_eq!(finding["file"], relative(data.path(), &file));
        assert_eq!(finding["derived"], true);
        let again = copy(data.path());
        let server = assert_starts(again.path());
        put_values(&server, "clicks", [(Some("x"), "count")]);
        server.run(&["handler", "wait", "counts"]);
        drop(server);
        let report = clean(data.path(), &["--rebuild"]);
        let finding = about(&report, relative(data.path(), &file));
        assert_eq!(finding["rebuilt"], true, "{finding}");
        let again = clean(data.path(), &[]);
        assert_eq!(again["findings"].as_array().unwrap().len(), 0, "{again:#}");
        assert!(file.exists(), "made again");
        drop(assert_starts(data.path()));
    }
}

#[test]
fn many_damages_are_all_named_and_told_as_a_table() {
    let data = copy(killed());
    let orders = partition_of(stopped(), "orders");
    let orders = data.path().join(orders.strip_prefix(stopped()).unwrap());
    let segment = find(&orders, ".log").remove(0);
    let index = find(&orders, ".index").remove(0);
    let component = find(&data.path().join("modules"), ".wasm").remove(0);
    for (file, position) in [
        (&segment, 5_000),
        (&segment, 600_000),
        (&index, 40),
        (&component, 99),
    ] {
        harm(file, Harm::Flip(position));
    }
    harm(&data.path().join("meta.json"), Harm::Append);
    let output = check_output(data.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines = shown
        .lines()
        .filter(|line| line.starts_with("damage "))
        .count();
    assert_eq!(lines, 5, "{shown}");
    for word in [
        "meta.json",
        ".log",
        ".index",
        ".wasm",
        "orders/0",
        "--rebuild",
        "counts",
    ] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    let error = error_of(&check_output(data.path(), &[]));
    assert!(
        error.0["message"]
            .as_str()
            .unwrap()
            .starts_with("5 damages"),
        "{error:?}"
    );
}
