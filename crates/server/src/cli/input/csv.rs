//! CSV rows as JSON objects: typed by the topic's schema, and where that does not name a column, by a sample.

use super::rows::{Broken, Row, RowOptions, Sink, too_long};
use crate::failure::Failure;
use csv::{ByteRecord, ReaderBuilder, StringRecord};
use mainstem_schema::{CsvCoercer, infer_csv};
use std::cell::Cell;
use std::io::{self, BufRead};

/// Rows looked at before the first is passed on, where columns have no declared type.
const SAMPLE_ROWS: usize = 1000;
/// What is asked for at a time.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// One row as the file has it, with its line.
type Read = Result<(u64, StringRecord), Unread>;

/// Why there is no row.
enum Unread {
    /// It is broken; the next one may be whole.
    Row(Broken),
    /// The input cannot be read on.
    Input(Failure),
}

/// Bytes of rows, as long as each row has an end.
struct Bounded<'a> {
    reader: &'a mut dyn BufRead,
    /// What may still be read before the row that is being read has its end.
    left_bytes: &'a Cell<usize>,
    max_bytes: usize,
    /// The line of the last row.
    line: &'a Cell<u64>,
}

impl io::Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left_bytes = self.left_bytes.get();
        if left_bytes == 0 {
            let (line, why) = (self.line.get(), too_long(self.max_bytes));
            return Err(io::Error::other(format!(
                "the row after line {line}: {why}"
            )));
        }
        let most = into.len().min(left_bytes);
        let into = into.get_mut(..most).unwrap_or_default();
        let read = io::Read::read(&mut *self.reader, into)?;
        self.left_bytes.set(left_bytes.saturating_sub(read));
        Ok(read)
    }
}

/// Reads a CSV with a heading.
pub fn read_csv(
    reader: &mut dyn BufRead,
    options: &RowOptions,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    // Flexible, so that a row of the wrong width is one broken row and not the end of reading.
    // What the reader has read ahead counts for the row that it is at: so much more may stand there.
    let max_bytes = options.max_row_bytes.saturating_add(READ_AHEAD_BYTES);
    let (left_bytes, line) = (Cell::new(max_bytes), Cell::new(0));
    let bounded = Bounded {
        reader,
        left_bytes: &left_bytes,
        max_bytes: options.max_row_bytes,
        line: &line,
    };
    let mut csv = ReaderBuilder::new()
        .flexible(true)
        .buffer_capacity(READ_AHEAD_BYTES)
        .from_reader(bounded);
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
    let ended = |row: &csv::Result<ByteRecord>| {
        left_bytes.set(max_bytes);
        if let Some(position) = row.as_ref().ok().and_then(ByteRecord::position) {
            line.set(position.line());
        }
    };
    let rows = csv.byte_records().inspect(ended);
    let mut rows = rows.map(|row| checked(row, names.len()));

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

    let to_row = |line, fields: StringRecord| {
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
                text: as_text(fields.as_byte_record()),
            }),
        }
    };
    for read in sample.into_iter().chain(rows) {
        let row = match read {
            Ok((line, fields)) => to_row(line, fields),
            Err(Unread::Row(broken)) => Err(broken),
            Err(Unread::Input(failure)) => return Err(failure),
        };
        if !sink(row) {
            break;
        }
    }
    Ok(())
}

fn checked(row: csv::Result<ByteRecord>, columns: usize) -> Read {
    let fields = row.map_err(|error| {
        Unread::Input(Failure::new(
            "io",
            format!("the rows cannot be read to their end: {error}"),
            "check that the input was copied whole",
        ))
    })?;
    let line = fields.position().map_or(0, csv::Position::line);
    let broken = |why, fields: &ByteRecord| {
        Err(Unread::Row(Broken {
            line,
            why,
            text: as_text(fields),
        }))
    };
    if fields.len() != columns {
        let why = format!("it has {} fields, the heading {columns}", fields.len());
        return broken(why, &fields);
    }
    match StringRecord::from_byte_record(fields) {
        Ok(fields) => Ok((line, fields)),
        Err(error) => {
            let why = format!("it is not UTF-8: {}", error.utf8_error());
            broken(why, &error.into_byte_record())
        }
    }
}

/// The row again as CSV.
fn as_text(fields: &ByteRecord) -> String {
    let mut writer = csv::WriterBuilder::new()
        .flexible(true)
        .from_writer(Vec::new());
    let written = writer
        .write_byte_record(fields)
        .ok()
        .and_then(|()| writer.into_inner().ok());
    String::from_utf8_lossy(&written.unwrap_or_default())
        .trim_end_matches('\n')
        .to_string()
}
