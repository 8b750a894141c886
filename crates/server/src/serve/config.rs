//! Configuration: each setting is a flag, then `MAINSTEM_*`, then TOML, in that order, then its default.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use mainstem::Options;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `mainstem serve`.
#[derive(Args, Debug, Default)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArguments {
    /// A TOML file with the same settings
    #[arg(long, env = "MAINSTEM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything is kept; made if it is not there [default: ./mainstem-data]
    #[arg(long, env = "MAINSTEM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for gRPC; port 0 picks one [default: 127.0.0.1:7400]
    #[arg(long, env = "MAINSTEM_LISTEN_GRPC", value_name = "ADDR")]
    pub listen_grpc: Option<String>,
    /// Address for metrics and health over HTTP; port 0 picks one [default: 127.0.0.1:7480]
    #[arg(long, env = "MAINSTEM_LISTEN_HTTP", value_name = "ADDR")]
    pub listen_http: Option<String>,
    /// Address for Kafka clients; port 0 picks one [default: 127.0.0.1:9092]
    #[arg(long, env = "MAINSTEM_LISTEN_KAFKA", value_name = "ADDR")]
    pub listen_kafka: Option<String>,
    /// Listen beyond loopback although nobody is asked who they are
    #[arg(long, env = "MAINSTEM_INSECURE_LISTEN", num_args = 0..=1, default_missing_value = "true",
          value_name = "BOOL", hide_possible_values = true)]
    pub insecure_listen: Option<bool>,
    /// What all parts together keep to, as 512MiB or 4GiB [default: 1GiB]
    #[arg(long, env = "MAINSTEM_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<String>,
    /// Journal after which a checkpoint is taken, about what a restart reads at most [default: 512MiB]
    #[arg(long, env = "MAINSTEM_CHECKPOINT_BYTES", value_name = "BYTES")]
    pub checkpoint_bytes: Option<String>,
    /// Milliseconds after which a checkpoint is taken, however little was written [default: 60000]
    #[arg(long, env = "MAINSTEM_CHECKPOINT_INTERVAL_MS", value_name = "MS")]
    pub checkpoint_interval_ms: Option<u64>,
    /// Free space on the disk below which records are refused until there is more [default: 256MiB]
    #[arg(long, env = "MAINSTEM_MIN_FREE_BYTES", value_name = "BYTES")]
    pub min_free_bytes: Option<String>,
    /// Files that topics and the store keep open, at most; connections are beside them [default: 7000]
    #[arg(long, env = "MAINSTEM_MAX_OPEN_FILES", value_name = "N")]
    pub max_open_files: Option<u64>,
    /// Threads for handlers [default: one per core]
    #[arg(long, env = "MAINSTEM_TASK_WORKERS", value_name = "N")]
    pub task_workers: Option<usize>,
    /// Threads for SQL [default: one per core]
    #[arg(long, env = "MAINSTEM_SQL_THREADS", value_name = "N")]
    pub sql_threads: Option<usize>,
    /// What is logged: error, warn, info, debug, trace, or per module as in `info,mainstem_engine=debug` [default: info]
    #[arg(long, env = "MAINSTEM_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How it is logged, on standard error: text, or json with one object a line [default: text]
    #[arg(
        long,
        env = "MAINSTEM_LOG_FORMAT",
        value_name = "FORM",
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,
    /// A broker setting under Kafka's name, as in `log.retention.ms=86400000`; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Stop, as at SIGTERM, once standard input ends: for a program that has started this server and takes it along,
    /// however that program ends
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  mainstem serve --data-dir ./data
  mainstem serve --data-dir /tmp/try --listen-grpc 127.0.0.1:0 --listen-http 127.0.0.1:0 --listen-kafka 127.0.0.1:0
  mainstem serve --config mainstem.toml --set log.retention.ms=86400000

When it serves, it prints one line `ready {...}` with every address; the same JSON stands in \
endpoints.json in the data directory. SIGTERM or ctrl-c stops it cleanly; kill -9 loses nothing \
that was acknowledged.

A configuration file holds the same names:
  data_dir = \"/var/lib/mainstem\"
  listen_grpc = \"127.0.0.1:7400\"
  memory.limit = \"4GiB\"
  [kafka]
  \"log.retention.ms\" = 86400000";

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The TOML file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen_grpc: Option<String>,
    listen_http: Option<String>,
    listen_kafka: Option<String>,
    insecure_listen: Option<bool>,
    #[serde(default)]
    memory: Memory,
    checkpoint_bytes: Option<toml::Value>,
    checkpoint_interval_ms: Option<u64>,
    min_free_bytes: Option<toml::Value>,
    max_open_files: Option<u64>,
    task_workers: Option<usize>,
    sql_threads: Option<usize>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    #[serde(default)]
    kafka: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    limit: Option<toml::Value>,
}

/// What the server runs with.
#[derive(Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen_grpc: SocketAddr,
    pub listen_http: SocketAddr,
    pub listen_kafka: SocketAddr,
    pub log: String,
    pub log_format: LogFormat,
    pub until_stdin_ends: bool,
    pub options: Options,
}

impl Config {
    /// Puts flags and environment (clap has merged the two), the file and the defaults together.
    pub fn resolve(flags: ServeArguments) -> Result<Config, Failure> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let mut options = Options::default();
        let sizes = [
            (
                "memory.limit",
                flags.memory_limit,
                file.memory.limit,
                &mut options.memory_limit_bytes,
            ),
            (
                "checkpoint_bytes",
                flags.checkpoint_bytes,
                file.checkpoint_bytes,
                &mut options.checkpoint_bytes,
            ),
            (
                "min_free_bytes",
                flags.min_free_bytes,
                file.min_free_bytes,
                &mut options.min_free_bytes,
            ),
        ];
        for (name, flag, in_file, option) in sizes {
            if let Some(text) = flag.or_else(|| in_file.as_ref().map(plain)) {
                *option = bytes(name, &text)?;
            }
        }
        options.checkpoint_interval_ms = flags
            .checkpoint_interval_ms
            .or(file.checkpoint_interval_ms)
            .unwrap_or(options.checkpoint_interval_ms);
        options.max_open_files = flags
            .max_open_files
            .or(file.max_open_files)
            .unwrap_or(options.max_open_files);
        options.task_workers = flags
            .task_workers
            .or(file.task_workers)
            .unwrap_or(options.task_workers);
        options.sql_threads = flags
            .sql_threads
            .or(file.sql_threads)
            .unwrap_or(options.sql_threads);
        options.broker = flatten(&file.kafka);
        for setting in &flags.set {
            let (name, value) = setting.split_once('=').ok_or_else(|| {
                Failure::usage(
                    format!("--set {setting} has no `=`"),
                    "write --set name=value, as in --set num.partitions=4",
                )
            })?;
            options
                .broker
                .insert(name.trim().into(), value.trim().into());
        }
        let insecure = flags
            .insecure_listen
            .or(file.insecure_listen)
            .unwrap_or(false);
        let listen = |name, flag: Option<String>, file: Option<String>, default: &str| {
            address(
                name,
                &flag.or(file).unwrap_or_else(|| default.into()),
                insecure,
            )
        };
        let data_dir = flags
            .data_dir
            .or(file.data_dir)
            .unwrap_or_else(|| "mainstem-data".into());
        Ok(Config {
            // What the server says of itself is read in other folders.
            data_dir: std::path::absolute(&data_dir)
                .map_err(|error| Failure::io("find", data_dir.display(), &error))?,
            listen_grpc: listen(
                "--listen-grpc",
                flags.listen_grpc,
                file.listen_grpc,
                "127.0.0.1:7400",
            )?,
            listen_http: listen(
                "--listen-http",
                flags.listen_http,
                file.listen_http,
                "127.0.0.1:7480",
            )?,
            listen_kafka: listen(
                "--listen-kafka",
                flags.listen_kafka,
                file.listen_kafka,
                "127.0.0.1:9092",
            )?,
            log: flags.log.or(file.log).unwrap_or_else(|| "info".into()),
            log_format: flags
                .log_format
                .or(file.log_format)
                .unwrap_or(LogFormat::Text),
            until_stdin_ends: flags.until_stdin_ends,
            options,
        })
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::io("read", path.display(), &error))?;
    toml::from_str(&text).map_err(|error| {
        let hint = "`mainstem serve --help` lists the settings";
        Failure {
            exit: 2,
            ..Failure::new(
                "bad_config",
                format!("{}: {}", path.display(), error.to_string().trim()),
                hint,
            )
        }
    })
}

/// `[kafka]` may be written with quoted names or, as TOML reads `log.retention.ms = 1`, as nested tables.
fn flatten(table: &BTreeMap<String, toml::Value>) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    walk(&format!("{prefix}.{name}"), value, out);
                }
            }
            value => {
                out.insert(prefix.to_string(), plain(value));
            }
        }
    }
    let mut out = BTreeMap::new();
    for (name, value) in table {
        walk(name, value, &mut out);
    }
    out
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `512MiB`, `4GiB`, `1GB` or a plain number of bytes.
fn bytes(name: &str, text: &str) -> Result<u64, Failure> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" | "K" | "k" => Some(1 << 10),
        "MiB" | "M" | "m" => Some(1 << 20),
        "GiB" | "G" | "g" => Some(1 << 30),
        "KB" | "kB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        _ => None,
    };
    let value = number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    value.ok_or_else(|| {
        Failure::usage(
            format!("{name}: `{text}` is not a size"),
            "write it as 512MiB, 4GiB or a number of bytes",
        )
    })
}

/// An address this server may listen on: loopback, unless the risk was accepted by name.
fn address(name: &str, text: &str, insecure: bool) -> Result<SocketAddr, Failure> {
    let named = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = named.as_deref().unwrap_or(text).parse().map_err(|_| {
        Failure::usage(
            format!("{name}: `{text}` is not an address"),
            "write it as 127.0.0.1:7400, [::1]:7400, or with port 0 to have one picked",
        )
    })?;
    if !address.ip().is_loopback() && !insecure {
        return Err(Failure::usage(
            format!(
                "{name} {address} can be reached from other machines, and this server asks nobody who they are"
            ),
            "listen on 127.0.0.1, or add --insecure-listen where the network itself keeps strangers out",
        ));
    }
    Ok(address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        let text = "data_dir = '/d'\nlisten_grpc = '127.0.0.1:1'\nmemory.limit = '2GiB'\nmin_free_bytes = 1000\ncheckpoint_bytes = '1MiB'\n[kafka]\nlog.retention.ms = 5\n'num.partitions' = 3\n";
        std::fs::write(&path, text).unwrap();
        let flags = ServeArguments {
            config: Some(path),
            listen_grpc: Some("127.0.0.1:2".into()),
            checkpoint_bytes: Some("2MiB".into()),
            set: vec!["num.partitions=7".into()],
            ..Default::default()
        };
        let config = Config::resolve(flags).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.listen_grpc.port(), 2);
        assert_eq!(config.listen_http.port(), 7480);
        assert_eq!(config.options.memory_limit_bytes, 2 << 30);
        assert_eq!(config.options.min_free_bytes, 1000);
        assert_eq!(config.options.checkpoint_bytes, 2 << 20);
        assert_eq!(config.options.broker["log.retention.ms"], "5");
        assert_eq!(config.options.broker["num.partitions"], "7");
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        std::fs::write(&path, "datadir = '/d'\n").unwrap();
        let failure = Config::resolve(ServeArguments {
            config: Some(path),
            ..Default::default()
        })
        .unwrap_err();
        assert!(failure.message.contains("datadir"), "{}", failure.message);
        assert_eq!(failure.exit, 2);
    }

    #[test]
    fn beyond_loopback_needs_a_word() {
        let open = |insecure| {
            Config::resolve(ServeArguments {
                listen_grpc: Some("0.0.0.0:7400".into()),
                insecure_listen: insecure,
                ..Default::default()
            })
        };
        let failure = open(None).unwrap_err();
        assert!(failure.hint.contains("--insecure-listen"));
        assert!(open(Some(true)).is_ok());
        assert!(address("x", "[::1]:1", false).is_ok());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("x", "512MiB").unwrap(), 512 << 20);
        assert_eq!(bytes("x", "1 GiB").unwrap(), 1 << 30);
        assert_eq!(bytes("x", "123").unwrap(), 123);
        assert!(bytes("x", "many").is_err() && bytes("x", "").is_err());
    }
}
