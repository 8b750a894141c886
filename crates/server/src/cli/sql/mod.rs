//! `mainstem sql`: a statement, a file, or a prompt.

mod print;
mod prompt;
mod split;

use super::connect::connect;
use super::{Common, Output};
use crate::failure::Failure;
use clap::Args;
use mainstem_client::Client;
use print::Printer;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

/// `mainstem sql`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  mainstem sql 'SELECT count(*) FROM orders'
  mainstem sql 'SELECT * FROM orders WHERE _partition = 0 AND _offset >= 100 LIMIT 5'
  mainstem sql 'SELECT * FROM state.totals' --output json
  mainstem sql 'SELECT * FROM system.lag'
  mainstem sql -f report.sql
  mainstem sql                                 a prompt

Topics are tables, with _partition, _offset, _timestamp, _key, _value and _headers beside their own columns; a \
handler's state is state.<handler>; system.topics, system.handlers and system.lag say what there is. One query \
sees one moment of everything. With --output json each row is one line.")]
pub struct SqlArguments {
    /// The statement; several are separated by `;`. Without one, and without --file, a prompt
    pub statement: Option<String>,
    /// Read the statements from a file; `-` is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with = "statement")]
    pub file: Option<PathBuf>,
}

pub async fn run(common: &Common, arguments: SqlArguments) -> Result<(), Failure> {
    let client = connect(common).await?;
    let text = match (arguments.statement, arguments.file) {
        (Some(statement), _) => statement,
        (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(&file)
            .map_err(|error| Failure::io("read", file.display(), &error))?,
        (None, None) if std::io::stdin().is_terminal() => {
            return prompt::run(&client, common.output).await;
        }
        _ => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::io("read", "standard input", &error))?;
            text
        }
    };
    let statements = split::statements(&text);
    if statements.is_empty() {
        return Err(Failure::usage(
            "there is no statement",
            "write one, as in mainstem sql 'SELECT 1'",
        ));
    }
    for statement in statements {
        ask(&client, common.output, statement).await?;
    }
    Ok(())
}

/// Runs one statement and prints its rows as they come.
async fn ask(client: &Client, output: Output, statement: &str) -> Result<(), Failure> {
    let mut answer = client.sql(statement).await?;
    let mut printer = Printer::new(output);
    while let Some(chunk) = answer.next().await {
        printer.chunk(chunk?)?;
    }
    printer.end()?;
    for notice in answer.notices() {
        match output {
            Output::Table => eprintln!("notice: {}", notice.message),
            Output::Json => {
                let value = serde_json::json!({ "code": notice.code, "message": notice.message, "count": notice.count });
                eprintln!("{}", serde_json::json!({ "notice": value }));
            }
        }
    }
    Ok(())
}
