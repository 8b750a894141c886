//! `mainstem handler`: from nothing to a component, and from a component to a handler that runs.

mod show;

use super::connect::connect;
use super::consume::position;
use super::output::document;
use super::{Common, Output, block_on};
use crate::failure::Failure;
use crate::guest;
use clap::{Args, Subcommand, ValueEnum};
use mainstem_client::proto::error_policy::{DeadLetter, Halt, Policy};
use mainstem_client::proto::{
    self, ErrorPolicy, Handler, HandlerState, TaskState, position as proto_position,
};
use mainstem_client::{Client, Deployment, Position};
use serde_json::json;
use show::{list, show, to_json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const EXAMPLES: &str = "From nothing to a handler that runs:
  mainstem handler new totals && cd totals
  mainstem handler build
  mainstem handler deploy totals --from orders --to totals-out --create-topics
  mainstem handler wait totals
  mainstem handler status totals
  mainstem sql 'SELECT * FROM state.totals'";

#[derive(Subcommand, Debug)]
pub enum HandlerCommand {
    /// Make a folder with a handler to start from; needs no server
    #[command(after_help = "Example:
  mainstem handler new totals && cd totals && mainstem handler build

The folder holds a small handler that counts events by key, the SDK, and a README.")]
    New {
        /// Its name, and the folder's
        name: String,
        /// Make it here instead of in ./NAME
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Build a handler's component; needs no server
    #[command(after_help = "Examples:
  mainstem handler build
  mainstem handler build ./totals

It needs Rust with the target wasm32-unknown-unknown, which it adds where rustup is there, and prints where the \
component is.")]
    Build {
        /// The handler's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Deploy a component, or a new version of it; state is kept
    Deploy(Box<DeployArguments>),
    /// Wait until a handler has processed everything that is there
    #[command(after_help = "Example:
  mainstem handler wait totals --timeout 5m

It fails when the time is over, and when the handler is paused or has halted.")]
    Wait {
        /// Its name
        name: String,
        /// Give up after this time, as 30s or 5m
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time_span)]
        timeout: Duration,
    },
    /// One handler with its tasks, or all handlers
    #[command(after_help = "Examples:
  mainstem handler status
  mainstem handler status totals --output json")]
    Status {
        /// Its name
        name: Option<String>,
    },
    /// All handlers
    List,
    /// Stop a handler's tasks between two steps
    #[command(after_help = "Example:
  mainstem handler pause totals")]
    Pause {
        /// Its name
        name: String,
    },
    /// Let a paused or halted handler go on
    #[command(after_help = "Example:
  mainstem handler resume totals")]
    Resume {
        /// Its name
        name: String,
    },
    /// Remove a handler with its state and offsets; its topics stay
    #[command(after_help = "Example:
  mainstem handler remove totals")]
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  mainstem handler deploy totals --from orders --to totals-out --create-topics
  mainstem handler deploy audit --component audit.wasm --from orders --on-error halt

Without --component the handler in this folder is built first.")]
pub struct DeployArguments {
    /// Its name
    pub name: String,
    /// The component, as `mainstem handler build` makes it
    #[arg(long, value_name = "FILE")]
    pub component: Option<PathBuf>,
    /// A topic it reads; repeatable
    #[arg(
        long = "from",
        visible_alias = "input",
        value_name = "TOPIC",
        required = true
    )]
    pub inputs: Vec<String>,
    /// A topic it may write to; repeatable
    #[arg(long = "to", visible_alias = "output-topic", value_name = "TOPIC")]
    pub outputs: Vec<String>,
    /// Create output topics that are missing
    #[arg(long)]
    pub create_topics: bool,
    /// Where a new handler begins: earliest, latest, or a time
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = position)]
    pub start: Position,
    /// What becomes of an event that fails again and again: dead-letter (to topic NAME.dlq), or halt before it
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "dead-letter",
        hide_possible_values = true
    )]
    pub on_error: OnError,
    /// How often a failing event is tried
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub attempts: u32,
    /// How much one event may compute, in about as many instructions [default: the server's]
    #[arg(
        long,
        value_name = "FUEL",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub fuel_per_event: u64,
    /// How much memory an instance may have [default: the server's]
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub memory_bytes: u64,
}

/// What becomes of an event that fails again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// It goes to the topic `<handler>.dlq`.
    DeadLetter,
    /// The task stops before it.
    Halt,
}

pub fn run(common: &Common, command: HandlerCommand) -> Result<(), Failure> {
    match command {
        HandlerCommand::New { name, dir } => new(common.output, &name, dir),
        HandlerCommand::Build { dir } => {
            let component = build(&dir)?;
            let bytes = std::fs::metadata(&component).map_or(0, |file| file.len());
            document(
                common.output,
                &json!({ "component": component, "bytes": bytes }),
                || component.display().to_string(),
            )
        }
        HandlerCommand::Deploy(arguments) => deploy(common, *arguments),
        other => block_on(ask(common, other)),
    }
}

fn new(output: Output, name: &str, dir: Option<PathBuf>) -> Result<(), Failure> {
    let dir = dir.unwrap_or_else(|| name.into());
    guest::new(&dir, name)?;
    document(output, &json!({ "handler": name, "dir": dir }), || {
        format!(
            "the handler {name} is in the folder {}\n\nNext:\n  cd {}\n  mainstem handler build\n  \
             mainstem handler deploy {name} --from TOPIC --to {name}-out --create-topics",
            dir.display(),
            dir.display()
        )
    })
}

fn build(dir: &Path) -> Result<PathBuf, Failure> {
    Ok(guest::build(dir, &mut |line| eprintln!("{line}"))?)
}

fn deploy(common: &Common, arguments: DeployArguments) -> Result<(), Failure> {
    let component = match arguments.component {
        Some(file) => file,
        None => build(Path::new("."))?,
    };
    let bytes = std::fs::read(&component)
        .map_err(|error| Failure::io("read", component.display(), &error))?;
    let policy = match arguments.on_error {
        OnError::DeadLetter => Policy::DeadLetter(DeadLetter {
            attempts: arguments.attempts,
        }),
        OnError::Halt => Policy::Halt(Halt {
            attempts: arguments.attempts,
        }),
    };
    let deployment = Deployment {
        name: arguments.name,
        inputs: arguments.inputs,
        outputs: arguments.outputs,
        start: Some(start_of(arguments.start)?),
        on_error: Some(ErrorPolicy {
            policy: Some(policy),
        }),
        fuel_per_event: arguments.fuel_per_event,
        memory_bytes: arguments.memory_bytes,
        create_topics: arguments.create_topics,
        component_bytes: 0,
    };
    block_on(async {
        let handler = connect(common)
            .await?
            .deploy(deployment, bytes.into())
            .await?;
        show(common.output, &handler)
    })
}

fn start_of(position: Position) -> Result<proto::Position, Failure> {
    let at = match position {
        Position::Earliest => proto_position::At::Earliest(proto_position::Earliest {}),
        Position::Latest => proto_position::At::Latest(proto_position::Latest {}),
        Position::Timestamp(ms) => proto_position::At::TimestampMs(ms),
        Position::Offset(_) => {
            let message = "--start: an offset means another record in every partition";
            return Err(Failure::usage(message, "give earliest, latest, or a time"));
        }
    };
    Ok(proto::Position { at: Some(at) })
}

async fn ask(common: &Common, command: HandlerCommand) -> Result<(), Failure> {
    let client = connect(common).await?;
    match command {
        HandlerCommand::Wait { name, timeout } => {
            show(common.output, &wait(&client, &name, timeout).await?)
        }
        HandlerCommand::Status { name: Some(name) } => {
            show(common.output, &client.handler_status(&name).await?)
        }
        HandlerCommand::Status { name: None } | HandlerCommand::List => {
            list(common.output, &client.list_handlers().await?)
        }
        // The tasks follow a moment later: an answer with their states would look as if nothing had happened.
        HandlerCommand::Pause { name } => {
            let handler = client.pause_handler(&name).await?;
            document(common.output, &to_json(&handler), || {
                format!("{name} is paused; `mainstem handler resume {name}` lets it go on")
            })
        }
        HandlerCommand::Resume { name } => {
            let handler = client.resume_handler(&name).await?;
            document(common.output, &to_json(&handler), || {
                format!("{name} runs again; `mainstem handler status {name}` shows its tasks")
            })
        }
        HandlerCommand::Remove { name } => {
            client.remove_handler(&name).await?;
            document(common.output, &json!({ "removed": name }), || {
                format!("{name} is removed; its topics are as they were")
            })
        }
        HandlerCommand::New { .. } | HandlerCommand::Build { .. } | HandlerCommand::Deploy(_) => {
            Ok(())
        }
    }
}

/// Asks again and again, until nothing is left to process.
async fn wait(client: &Client, name: &str, timeout: Duration) -> Result<Handler, Failure> {
    let until = Instant::now() + timeout;
    loop {
        let handler = client.handler_status(name).await?;
        let hint = || match handler.last_error.as_str() {
            "" => format!("`mainstem handler status {name}` shows its tasks"),
            error => format!("its last error: {error}"),
        };
        match handler.state() {
            HandlerState::Halted => {
                let hint = format!(
                    "{}; mend the handler and deploy it again, or try the event again: mainstem handler resume {name}",
                    hint()
                );
                let message = format!("{name} has halted at an event that fails");
                return Err(Failure::new("handler_halted", message, hint));
            }
            HandlerState::Paused => {
                let hint = format!("`mainstem handler resume {name}` lets it go on");
                return Err(Failure::new(
                    "handler_paused",
                    format!("{name} is paused"),
                    hint,
                ));
            }
            _ => {}
        }
        // A task that has not found its offsets yet cannot say how far it is.
        let started = handler
            .tasks
            .iter()
            .all(|task| task.state() == TaskState::Running && !task.inputs.is_empty());
        if started && !handler.tasks.is_empty() && handler.lag_events == 0 {
            return Ok(handler);
        }
        if Instant::now() >= until {
            let message = match handler.lag_events {
                0 => format!("{name} has tasks that do not run, still after {timeout:?}"),
                lag => format!("{name} still lags by {lag} events after {timeout:?}"),
            };
            return Err(Failure::new("timeout", message, hint()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `30s`, `5m`, `500ms`.
fn time_span(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write it as 30s, 5m or 500ms")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("write it as 30s, 5m or 500ms".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(time_span("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(time_span("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(time_span("5").unwrap(), Duration::from_secs(5));
        assert!(time_span("soon").is_err());
    }
}
