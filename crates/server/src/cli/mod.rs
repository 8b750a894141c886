//! The command line: what it understands, and which file does it.

mod bench;
mod check;
mod connect;
mod consume;
mod handler;
mod input;
mod output;
mod produce;
mod progress;
mod sql;
mod status;
mod topic;

use crate::failure::Failure;
use crate::serve;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::process::ExitCode;

/// One durable, replayable log for all messaging, with handlers that process exactly once and SQL over
/// everything that is retained.
#[derive(Parser, Debug)]
#[command(name = "mainstem", version, help_template = HELP, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

const HELP: &str = "\
{about-with-newline}
{usage-heading} {usage}

Run it:
  serve     Run the server on a data directory
  status    What the server is doing
  check     Look a data directory through for damage, while no server has it

Topics and records:
  topic     Create, list, describe, alter and delete topics
  produce   Write records: lines, JSON lines or CSV, from a file or standard input
  consume   Read records: a range, or follow as they come

Handlers:
  handler   Make, build, deploy and watch WASM components that process topics exactly once

SQL:
  sql       Ask: a statement, a file, or a prompt with history

How fast:
  bench     Measure throughput and latency from producer to reader, against what the machine can do

Options:
{options}{after-help}";

const EXAMPLES: &str = "\
Ten lines to start with:
  mainstem serve --data-dir ./data &
  mainstem topic create orders --schema 'id:int, customer:text'
  echo '{\"id\":1,\"customer\":\"ada\"}' | mainstem produce orders --format jsonl --key customer
  mainstem consume orders
  mainstem sql 'SELECT customer, count(*) FROM orders GROUP BY customer'
  mainstem handler new totals && cd totals
  mainstem handler build
  mainstem handler deploy totals --from orders --to totals-out --create-topics
  mainstem handler wait totals
  mainstem sql 'SELECT * FROM state.totals'

`mainstem help COMMAND` shows a command with its own examples.";

/// Where the help puts what every command takes: after the command's own.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Address of the server's gRPC listener [default: 127.0.0.1:7400]
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MAINSTEM_SERVER",
        hide_env_values = true,
        value_name = "ADDR"
    )]
    pub server: Option<String>,
    /// The tenant whose topics and handlers are meant
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MAINSTEM_TENANT",
        hide_env_values = true,
        default_value = "default",
        value_name = "NAME"
    )]
    pub tenant: String,
    /// How results are printed: table for people, json for machines
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        hide_possible_values = true,
        env = "MAINSTEM_OUTPUT",
        hide_env_values = true,
        default_value = "table",
        value_name = "FORM"
    )]
    pub output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines: one object a line for records and rows, else one document.
    Json,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the server on a data directory
    Serve(Box<serve::config::ServeArguments>),
    /// What the server is doing
    #[command(after_help = "Examples:
  mainstem status
  mainstem status --output json

Metrics for Prometheus and health are on the server's HTTP address: /metrics, /health/live, /health/ready.")]
    Status,
    /// Look a data directory through for damage, while no server has it
    Check(check::CheckArguments),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand, after_help = topic::EXAMPLES)]
    Topic(topic::TopicCommand),
    /// Write records: lines, JSON lines or CSV, from a file or standard input
    Produce(produce::ProduceArguments),
    /// Read records: a range, or follow as they come
    Consume(consume::ConsumeArguments),
    /// Make, build, deploy and watch handlers
    #[command(subcommand, after_help = handler::EXAMPLES)]
    Handler(handler::HandlerCommand),
    /// Ask: a statement, a file, or a prompt with history
    Sql(sql::SqlArguments),
    /// Measure throughput and latency from producer to reader, against what the machine can do
    Bench(Box<bench::BenchArguments>),
}

impl Arguments {
    /// Whether errors are to be JSON even at a terminal.
    pub fn wants_json(&self) -> bool {
        self.common.output == Output::Json
    }
}

/// Reads the command line; help and wrong usage are answered here.
pub fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let text = error.to_string();
            // A script needs what is wrong, not the usage that a person is shown.
            let what = text.split("\n\nUsage:").next().unwrap_or(&text);
            let what = what.split("\n\nFor more information").next();
            let message = what.unwrap_or(&text).trim().trim_start_matches("error: ");
            // The form of every other error: JSON for scripts, text for a person at a terminal.
            let asked = std::env::args().any(|word| word == "json" || word == "--output=json");
            if asked || !std::io::stderr().is_terminal() {
                Failure::usage(message, format!("see `{} --help`", command_of(&text))).report(true);
            } else {
                let _ = error.print();
            }
            ExitCode::from(2)
        }
    })
}

/// Which command a message of the parser is about, by the usage it shows.
fn command_of(text: &str) -> String {
    let usage = text.split("\n\nUsage:").nth(1).unwrap_or("mainstem");
    let words = usage.split_whitespace();
    let names = words.take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
    names.collect::<Vec<_>>().join(" ")
}

/// Does what was asked.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    // A reader that goes away (`mainstem consume … | head`) ends a command quietly, as it does everywhere else:
    // see `output::Out`.
    match command {
        Command::Serve(serve) => serve::run(*serve),
        Command::Status => block_on(status::run(&common)),
        Command::Check(arguments) => check::run(&common, arguments),
        Command::Topic(command) => block_on(topic::run(&common, command)),
        Command::Produce(produce) => block_on(produce::run(&common, produce)),
        Command::Consume(consume) => block_on(consume::run(&common, consume)),
        Command::Handler(command) => handler::run(&common, command),
        Command::Sql(sql) => block_on(sql::run(&common, sql)),
        Command::Bench(bench) => block_on(bench::run(&common, &bench)),
    }
}

/// Runs a command that talks to the server.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                "io",
                format!("cannot start threads: {error}"),
                "check the limits (`ulimit -u`)",
            )
        })?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::command_of;

    #[test]
    fn a_usage_error_leads_to_the_help_of_its_command() {
        let text = "error: unexpected argument 'b'\n\nUsage: mainstem topic create [OPTIONS] <NAME>\n\nFor more";
        assert_eq!(command_of(text), "mainstem topic create");
        assert_eq!(command_of("error: no usage"), "mainstem");
    }
}
