//! How results are printed: tables for people, JSON for machines.
//!
//! Everything a command prints as its result goes through [`Out`], which ends the command quietly when the reader has
//! gone away (`mainstem consume … | head`), as every tool in a pipe does.

use super::Output;
use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use comfy_table::{CellAlignment, Table};
use mainstem_record::Record;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{BufWriter, ErrorKind, StdoutLock, Write};

/// Standard output.
pub struct Out {
    out: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub fn new() -> Out {
        Out {
            out: BufWriter::with_capacity(1 << 16, std::io::stdout().lock()),
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(bytes);
        Self::checked(written)
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let written = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.write_all(b"\n"));
        Self::checked(written)
    }

    pub fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document).map_err(|error| {
            Failure::new("internal", format!("cannot print the result: {error}"), "")
        })?;
        self.line(&text)
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        Self::checked(flushed)
    }

    fn checked(result: std::io::Result<()>) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(Failure::new(
                "io",
                format!("cannot write to standard output: {error}"),
                "",
            )),
        }
    }
}

/// Prints one document: as JSON, or with `table` for people.
pub fn document(
    output: Output,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let mut out = Out::new();
    match output {
        Output::Json => out.json(value)?,
        Output::Table => out.line(table().trim_end())?,
    }
    out.flush()
}

/// A table without frames: a heading in capitals, then rows.
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let heading: Vec<String> = heading.iter().map(|name| name.to_uppercase()).collect();
    plain_table(&heading, rows)
}

/// The same with a heading as it is, as for names that a user has given.
pub fn plain_table(heading: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(heading);
    for index in 0..heading.len() {
        let cells = || {
            rows.iter()
                .filter_map(|row| row.get(index))
                .filter(|cell| !cell.is_empty())
        };
        let numeric = cells().next().is_some() && cells().all(|cell| cell.parse::<f64>().is_ok());
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    for row in rows {
        table.add_row(row);
    }
    trimmed(&table.to_string())
}

/// Names and values, one a line.
pub fn fields(rows: impl IntoIterator<Item = (impl Into<String>, String)>) -> String {
    let rows: Vec<(String, String)> = rows
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

fn trimmed(text: &str) -> String {
    text.lines()
        .map(|line| line.trim_end().to_string() + "\n")
        .collect()
}

/// Bytes in JSON: text where they are UTF-8, else `{"base64": …}`.
pub fn bytes_to_json(bytes: Option<&[u8]>) -> Value {
    match bytes {
        None => Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::String(text.to_string()),
            Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
        },
    }
}

/// Bytes in a table: text where they are UTF-8, else Base64.
pub fn bytes_to_text(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => String::new(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_string(),
            Err(_) => format!("base64:{}", STANDARD.encode(bytes)),
        },
    }
}

/// A record as one JSON object.
pub fn record_to_json(topic: &str, partition: u32, record: &Record) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        topic: &'a str,
        partition: u32,
        offset: i64,
        timestamp_ms: i64,
        key: Value,
        value: Value,
        headers: Vec<(Value, Value)>,
    }
    let shown = Shown {
        topic,
        partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: bytes_to_json(record.key.as_deref()),
        value: bytes_to_json(record.value.as_deref()),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (bytes_to_json(Some(name)), bytes_to_json(value.as_deref())))
            .collect(),
    };
    serde_json::to_string(&shown).unwrap_or_default()
}

/// Milliseconds since 1970 as `2013-01-01T10:00:00.000Z`.
pub fn time(timestamp_ms: i64) -> String {
    let value = arrow::temporal_conversions::timestamp_ms_to_datetime(timestamp_ms);
    value.map_or_else(
        || timestamp_ms.to_string(),
        |time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A time span as people read it.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_record_has_its_fixed_names() {
        let record = Record {
            offset: 7,
            timestamp_ms: 9,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(&[0xff])),
            headers: vec![(Bytes::from_static(b"h"), None)],
        };
        let value: Value = serde_json::from_str(&record_to_json("t", 3, &record)).unwrap();
        assert_eq!(
            value,
            json!({"topic": "t", "partition": 3, "offset": 7, "timestamp_ms": 9, "key": "k",
                   "value": {"base64": "/w=="}, "headers": [["h", null]]})
        );
    }

    #[test]
    fn times_and_sizes_are_readable() {
        assert_eq!(time(1_357_034_400_000), "2013-01-01T10:00:00.000Z");
        assert_eq!(size(5), "5 B");
        assert_eq!(size(3 << 20), "3.0 MiB");
        assert_eq!(span(61_000), "1 min 1 s");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text = table(
            &["name", "count"],
            [
                vec!["a".to_string(), "1".to_string()],
                vec!["bcd".into(), "20".into()],
            ],
        );
        assert!(text.lines().all(|line| line.trim_end() == line));
        assert!(text.starts_with("NAME"));
    }
}
