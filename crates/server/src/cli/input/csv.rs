//! CSV rows as JSON objects: typed by the topic's schema, and where that does not name a column, by a sample.

use super::rows::{Broken, Row, RowOptions, Sink};
use crate::failure::Failure;
use csv::{ReaderBuilder, StringRecord};
use mainstem_schema::{CsvCoercer, infer_csv};
use std::io::BufRead;

/// Rows looked at before the first is passed on, where columns have no declared type.
const SAMPLE_ROWS: usize = 1000;

/// One row as the file has it, or why it cannot be read.
type Read = Result<(u64, StringRecord), Broken>;

/// Reads a CSV with a heading.
pub fn read_csv(
    reader: &mut dyn BufRead,
    options: &RowOptions,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    // Flexible, so that a row of the wrong width is one broken row and not the end of reading.
    let mut csv = ReaderBuilder::new().flexible(true).from_reader(reader);
    let heading = csv.headers().map_err(|error| {
        Failure::new(
            "bad_input",
            format!("the heading cannot be read: {error}"),
            "",
        )
    })?;
    let names: Vec<String> = heading
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_string())
        .collect();
    let key = match &options.key {
        None => None,
        Some(field) => Some(names.iter().position(|name| name == field).ok_or_else(|| {
            Failure::new(
                "bad_input",
                format!("there is no column `{field}` for the key"),
                format!("there are {}", names.join(", ")),
            )
        })?),
    };
    let mut rows = csv.records().map(|row| checked(row, names.len()));

    let schema = options.schema.clone().unwrap_or_default();
    let is_typed = names.iter().all(|name| schema.index_of(name).is_some());
    let sample: Vec<Read> = if is_typed {
        Vec::new()
    } else {
        rows.by_ref().take(SAMPLE_ROWS).collect()
    };
    let nulls: Vec<String> = options.nulls.iter().cloned().collect();
    let sampled = infer_csv(
        &names,
        sample.iter().flatten().map(|(_, row)| row.iter()),
        &nulls,
    );
    let coercer =
        CsvCoercer::new(&schema.extended_with(&sampled), &names, &nulls).map_err(|error| {
            Failure::new(
                "bad_input",
                format!("the heading cannot be used: {error}"),
                "mend the heading",
            )
        })?;

    for read in sample.into_iter().chain(rows) {
        let row = read.and_then(|(line, fields)| {
            let mut value = Vec::with_capacity(256);
            match coercer.row(fields.iter(), &mut value) {
                Ok(()) => {
                    let key = key
                        .and_then(|index| fields.get(index))
                        .filter(|text| !text.is_empty());
                    let key = key
                        .filter(|text| !options.nulls.contains(*text))
                        .map(|text| text.as_bytes().to_vec());
                    Ok(Row { line, key, value })
                }
                Err(error) => Err(Broken {
                    line,
                    why: error.to_string(),
                    text: as_text(&fields),
                }),
            }
        });
        if !sink(row) {
            break;
        }
    }
    Ok(())
}

fn checked(row: csv::Result<StringRecord>, columns: usize) -> Read {
    match row {
        Ok(fields) => {
            let line = fields.position().map_or(0, csv::Position::line);
            if fields.len() == columns {
                return Ok((line, fields));
            }
            let why = format!("it has {} fields, the heading {columns}", fields.len());
            Err(Broken {
                line,
                why,
                text: as_text(&fields),
            })
        }
        Err(error) => {
            let line = error.position().map_or(0, csv::Position::line);
            Err(Broken {
                line,
                why: error.to_string(),
                text: String::new(),
            })
        }
    }
}

/// The row again as CSV.
fn as_text(fields: &StringRecord) -> String {
    let mut writer = csv::WriterBuilder::new()
        .flexible(true)
        .from_writer(Vec::new());
    let written = writer
        .write_record(fields)
        .ok()
        .and_then(|()| writer.into_inner().ok());
    String::from_utf8_lossy(&written.unwrap_or_default())
        .trim_end_matches('\n')
        .to_string()
}
