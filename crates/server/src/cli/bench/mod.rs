//! `mainstem bench`: from producer to reader, against a running server or one of its own.
//!
//! One run is a few *phases* on one topic. In a closed phase producers send as fast as they can; in an open one each
//! record is **due** at a time that does not depend on how the server does, and its latency counts from there: a server
//! that stalls is charged for every record that had to wait, not only for those that were on their way. `plan.rs` says
//! which phases there are, `load.rs` runs one, `produce.rs` and `read.rs` are its two sides, `server.rs` is the server of
//! its own, `limits.rs` what the machine can do, `report.rs` what is said about it.

mod latencies;
mod limits;
mod load;
mod plan;
mod produce;
mod read;
mod report;
mod schedule;
mod server;

use super::Common;
use super::connect::{connect, setting};
use super::output::document;
use super::produce::Codec;
use crate::failure::Failure;
use clap::Args;
use limits::Limits;
use load::Load;
use mainstem_client::proto::CreateTopicRequest;
use mainstem_client::{Client, ProducerOptions};
use plan::Plan;
use report::{Fetched, Report};
use server::OwnServer;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `mainstem bench`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  mainstem bench                        all there is: the most, 1,000/s, half load, reading
  mainstem bench --rate 20000 --record-bytes 200 --keys 100000 --partitions 12
  mainstem bench --max --producers 4 --tail-readers 0 --dir /var/lib
  mainstem bench --load 0.8 --seconds 60
  mainstem bench --server 127.0.0.1:7400 --rate 1000 --dir /var/lib/mainstem --output json

What is measured:
  acknowledged  from the moment a record was due until it was durable and its producer knew
  read          from the moment a record was due until a reader that follows the topic had it
  due           with --rate and --load by the clock, whatever the server does, so that a stall
                counts for every record that came during it; with --max when sending began
  limits        in the same run, before and after: overwrites with fdatasync on the disk of
                --dir, and plain copies over loopback

Without --server (or MAINSTEM_SERVER) it starts a server with a fresh data directory under --dir, and removes it. With \
--server the topic is made there and deleted afterwards; for the disk's limits name a folder on the server's disk with \
--dir. At the most it takes, a run writes several gigabytes. Producers and readers share the processors of this machine \
with a server that runs on it. --output json prints a list of {name, layer, value, unit, limit, ratio, aim}; a ratio is \
more-is-better (limit/value for a latency).")]
pub struct BenchArguments {
    /// Open loop: so many records are due each second, all producers together
    #[arg(long, value_name = "RECORDS/S", help_heading = LOAD, conflicts_with_all = ["max", "load"])]
    pub rate: Option<f64>,
    /// A closed loop: as fast as the producers' buffers let
    #[arg(long, help_heading = LOAD, conflicts_with = "load")]
    pub max: bool,
    /// First --max, then an open loop at this part of what that gave, as in 0.5
    #[arg(long, value_name = "PART", help_heading = LOAD)]
    pub load: Option<f64>,
    /// How long each phase is measured
    #[arg(long, value_name = "S", help_heading = LOAD, default_value_t = 10.0)]
    pub seconds: f64,
    /// How long each phase runs before that
    #[arg(long, value_name = "S", help_heading = LOAD, default_value_t = 2.0)]
    pub warm_up: f64,

    /// Size of a record's value, 8 at least
    #[arg(long, value_name = "BYTES", help_heading = RECORDS, default_value_t = 1024)]
    pub record_bytes: usize,
    /// How many different keys; 0: records without a key, which go where the client likes
    #[arg(long, value_name = "N", help_heading = RECORDS, default_value_t = 0)]
    pub keys: u64,
    /// Partitions of the topic
    #[arg(long, value_name = "N", help_heading = RECORDS, default_value_t = 1)]
    pub partitions: u32,
    /// The topic; it must not be there yet
    #[arg(long, value_name = "NAME", help_heading = RECORDS, default_value = "mainstem-bench")]
    pub topic: String,
    /// A setting of the topic under Kafka's name; repeatable
    #[arg(long, value_name = "NAME=VALUE", help_heading = RECORDS, value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// Leave the topic there
    #[arg(long, help_heading = RECORDS)]
    pub keep: bool,

    /// Producers, each with an identity, a thread and a buffer of its own
    #[arg(long, value_name = "N", help_heading = PRODUCERS, default_value_t = 1)]
    pub producers: usize,
    /// How long a batch that is not full waits for more; 0: only while others are under way
    #[arg(long, value_name = "MS", help_heading = PRODUCERS, default_value_t = 0)]
    pub linger_ms: u64,
    /// The most bytes in a batch, before compression
    #[arg(long, value_name = "BYTES", help_heading = PRODUCERS, default_value_t = ProducerOptions::default().max_batch_bytes)]
    pub batch_bytes: usize,
    /// Bytes that may wait for their acknowledgement; beyond it sending waits
    #[arg(long, value_name = "BYTES", help_heading = PRODUCERS, default_value_t = ProducerOptions::default().buffer_bytes)]
    pub buffer_bytes: usize,
    /// Requests under way at most, 1 to 5
    #[arg(long, value_name = "N", help_heading = PRODUCERS, default_value_t = ProducerOptions::default().max_in_flight)]
    pub in_flight: usize,
    /// How batches are compressed
    #[arg(long, value_name = "CODEC", help_heading = PRODUCERS, default_value = "none")]
    pub compression: Codec,

    /// Readers that follow the topic while it is written
    #[arg(long, value_name = "N", help_heading = READERS, default_value_t = 1)]
    pub tail_readers: usize,
    /// Afterwards the newest 128 MiB are read by 1 and by so many readers; 0: they are not
    #[arg(long, value_name = "N", help_heading = READERS, default_value_t = 10)]
    pub readers: usize,

    /// A folder on the disk that is meant: its limits are measured there, and a server of its own keeps its data there
    /// [default: the system's folder for temporary files; with --server none]
    #[arg(long, value_name = "DIR", help_heading = MACHINE)]
    pub dir: Option<PathBuf>,
    /// Milliseconds between two lines of progress where standard error is no terminal
    #[arg(long, value_name = "MS", help_heading = MACHINE, default_value_t = 1000)]
    pub progress_ms: u64,
}

const LOAD: &str = "Load";
const RECORDS: &str = "Records";
const PRODUCERS: &str = "Producers";
const READERS: &str = "Readers";
const MACHINE: &str = "Machine";

/// Measures, cleans up, and says what it found.
pub async fn run(common: &Common, arguments: &BenchArguments) -> Result<(), Failure> {
    let plan = Plan::of(arguments)?;
    if arguments.keep && common.server.is_none() {
        return Err(Failure::usage(
            "--keep has nothing to keep: a server of its own goes with its data",
            "name a server with --server, or leave --keep out",
        ));
    }
    let mut interrupted = Interrupted::listen()?;
    let dir = match (&arguments.dir, &common.server) {
        (Some(dir), _) => Some(dir.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(std::env::temp_dir()),
    };
    note(dir.as_deref());
    // The longer the run, the better the limits are known; short ones stay short.
    let patience = Duration::from_secs_f64((arguments.seconds / 2.0).min(3.0));
    let before = Limits::measure(dir.clone(), arguments.readers, patience).await?;

    let own = match (&common.server, &dir) {
        (None, Some(dir)) => Some(OwnServer::start(dir).await?),
        _ => None,
    };
    let common = Common {
        server: own
            .as_ref()
            .map(|own| own.address().to_owned())
            .or_else(|| common.server.clone()),
        ..common.clone()
    };
    let client = connect(&common).await?;
    let new = CreateTopicRequest {
        name: arguments.topic.clone(),
        partitions: Some(arguments.partitions),
        configs: arguments.set.iter().cloned().collect(),
        ..CreateTopicRequest::default()
    };
    client.create_topic(new).await.map_err(|error| match error.code() {
        "topic_exists" => Failure::new(
            "topic_exists",
            format!("there is a topic '{}' already, and the benchmark makes its own", arguments.topic),
            "give it another name with --topic, or delete that one if a benchmark left it: `mainstem topic delete`",
        ),
        _ => error.into(),
    })?;
    let measured = tokio::select! {
        measured = measure(&client, arguments, &plan, own.as_ref()) => measured,
        () = interrupted.wait() => Err(Failure::new("interrupted", "interrupted before the end", "")),
    };
    // Whatever happened, what was made is taken away; what went wrong first is what is told.
    let deleted = match arguments.keep || own.is_some() {
        true => Ok(()),
        false => client
            .delete_topic(&arguments.topic)
            .await
            .map_err(Failure::from),
    };
    drop(own);
    let (phases, fetched) = measured?;
    deleted?;
    let after = Limits::measure(dir, arguments.readers, patience).await?;
    let report = Report {
        limits: before.with(after),
        record_bytes: arguments.record_bytes,
        seconds: arguments.seconds,
        phases,
        fetched,
    };
    document(common.output, &report.rows(), || report.table())
}

/// Every phase, one after another, then the reading.
async fn measure(
    client: &Client,
    arguments: &BenchArguments,
    plan: &Plan,
    own: Option<&OwnServer>,
) -> Result<(Vec<load::Outcome>, Vec<Fetched>), Failure> {
    let topic: Arc<str> = arguments.topic.as_str().into();
    let load = Load {
        client,
        topic: &topic,
        arguments,
        own,
    };
    let mut phases = Vec::new();
    let mut most = None;
    for phase in &plan.phases {
        let outcome = load.run(phase, most).await?;
        if outcome.is_closed() {
            most = Some(outcome.records_per_second());
        }
        phases.push(outcome);
    }
    let mut fetched = Vec::new();
    let mut counts = vec![1, arguments.readers];
    counts.dedup();
    for readers in counts.into_iter().filter(|_| arguments.readers > 0) {
        say(&format!("{readers} reading the newest records"));
        fetched.push(read::fetch(client, &topic, arguments, readers).await?);
    }
    Ok((phases, fetched))
}

/// What the user should know about where the limits come from.
fn note(dir: Option<&Path>) {
    match dir {
        None => {
            say("the disk's limits are left out: name a folder on the server's disk with --dir")
        }
        Some(dir) if limits::is_in_memory(dir) => say(&format!(
            "{} is in memory, not on a disk: latencies and limits say nothing about one; choose a folder with --dir",
            dir.display()
        )),
        Some(_) => {}
    }
}

/// A line for whoever waits.
fn say(text: &str) {
    // Nobody reading it is no reason to stop.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// SIGINT and SIGTERM, from the start on, so that what was made is removed.
struct Interrupted {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupted {
    fn listen() -> Result<Interrupted, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new("io", format!("cannot listen to signals: {error}"), "")
        };
        Ok(Interrupted {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
