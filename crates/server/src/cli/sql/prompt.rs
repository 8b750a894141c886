//! The prompt: statements over several lines, with history.

use super::{Output, ask, split};
use crate::failure::Failure;
use mainstem_client::Client;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::path::PathBuf;

const HELP: &str = "\
A statement ends with `;` and may go over several lines. Besides SQL:
  \\t          the tables           \\d TABLE    a table's columns
  \\h          this                 \\q          leave (or ctrl-d)";

/// What there is to ask about, without what describes it.
const TABLES: &str = "SELECT table_schema, table_name FROM information_schema.tables \
    WHERE table_schema <> 'information_schema' ORDER BY 1, 2";

/// Asks until the end of input.
pub async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let broken = |error: ReadlineError| {
        Failure::new(
            "io",
            format!("the prompt failed: {error}"),
            "give the statement on the command line",
        )
    };
    let mut editor = DefaultEditor::new().map_err(broken)?;
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    println!(
        "Connected to {}. A statement ends with `;`, \\h helps, \\q leaves.",
        client.server()
    );
    let mut statement = String::new();
    loop {
        let mark = if statement.is_empty() {
            "mainstem> "
        } else {
            "     ...> "
        };
        // Blocks this thread; the connection is kept alive by the others.
        let line = tokio::task::block_in_place(|| editor.readline(mark));
        match line {
            Ok(line) => {
                if statement.is_empty() && line.trim().is_empty() {
                    continue;
                }
                if !statement.is_empty() {
                    statement.push('\n');
                }
                statement.push_str(&line);
            }
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        }
        let text = match Entry::of(&statement) {
            Entry::Unfinished => continue,
            Entry::Quit => break,
            Entry::Help => {
                println!("{HELP}");
                statement.clear();
                continue;
            }
            Entry::Unknown(word) => {
                eprintln!("there is no {word}; \\h lists what there is");
                statement.clear();
                continue;
            }
            Entry::Sql(text) => text,
        };
        let _ = editor.add_history_entry(&statement);
        statement.clear();
        for one in split::statements(&text) {
            // A failed statement is told; the prompt goes on.
            if let Err(failure) = ask(client, output, one).await {
                failure.report(output == Output::Json);
                break;
            }
        }
    }
    if let Some(file) = &history {
        if let Some(folder) = file.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = editor.save_history(file);
    }
    Ok(())
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Unfinished,
    Quit,
    Help,
    Unknown(String),
    Sql(String),
}

impl Entry {
    fn of(text: &str) -> Entry {
        let mut words = text.trim().trim_end_matches(';').split_whitespace();
        match words.next() {
            Some("\\q" | "quit" | "exit") => Entry::Quit,
            Some("\\h" | "\\?" | "help") => Entry::Help,
            Some("\\t" | "\\dt") => Entry::Sql(TABLES.into()),
            Some("\\d") => match words.next() {
                Some(table) => Entry::Sql(format!("DESCRIBE {}", quoted(table))),
                None => Entry::Sql(TABLES.into()),
            },
            Some(word) if word.starts_with('\\') => Entry::Unknown(word.into()),
            _ if split::is_complete(text) => Entry::Sql(text.into()),
            _ => Entry::Unfinished,
        }
    }
}

/// A table's name as SQL wants it: what the list of tables shows need not be a name without quotes.
fn quoted(table: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let (schema, name) = match table.split_once('.') {
        Some((schema @ ("public" | "state" | "system" | "information_schema"), name)) => {
            (format!("{schema}."), name)
        }
        _ => (String::new(), table),
    };
    match name.contains('"') || name.chars().all(plain) {
        true => table.into(),
        false => format!("{schema}\"{name}\""),
    }
}

/// `~/.local/state/mainstem/sql_history`, or where XDG says.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    state.map(|folder| folder.join("mainstem").join("sql_history"))
}

#[cfg(test)]
mod tests {
    use super::{Entry, TABLES};

    #[test]
    fn entries_are_told_apart() {
        assert_eq!(Entry::of("SELECT 1"), Entry::Unfinished);
        assert_eq!(Entry::of("SELECT\n1;"), Entry::Sql("SELECT\n1;".into()));
        assert_eq!(
            Entry::of("\\d flights"),
            Entry::Sql("DESCRIBE flights".into())
        );
        for (table, described) in [
            ("totals.dlq", r#"DESCRIBE "totals.dlq""#),
            ("state.my-totals", r#"DESCRIBE state."my-totals""#),
            (r#""Flights""#, r#"DESCRIBE "Flights""#),
            ("state.flights;", "DESCRIBE state.flights"),
        ] {
            let entry = Entry::of(&format!("\\d {table}"));
            assert_eq!(entry, Entry::Sql(described.into()));
        }
        assert_eq!(Entry::of("\\q"), Entry::Quit);
        assert_eq!(Entry::of("help"), Entry::Help);
        assert_eq!(Entry::of("exit;"), Entry::Quit);
        assert_eq!(Entry::of("\\dt"), Entry::Sql(TABLES.into()));
        assert_eq!(Entry::of("\\x on"), Entry::Unknown("\\x".into()));
    }
}
