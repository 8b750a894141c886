//! Bytes cut into rows: a row has a line, perhaps a key, and a value; a broken row has a line and a reason.

use super::csv::read_csv;
use crate::failure::Failure;
use clap::ValueEnum;
use mainstem_proto::MAX_MESSAGE_BYTES;
use mainstem_schema::TopicSchema;
use std::collections::HashSet;
use std::io::{BufRead, Read};

/// How the input is cut into rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Each line is a value.
    Lines,
    /// Each line is a JSON value.
    Jsonl,
    /// A heading, then rows that become JSON objects.
    Csv,
}

impl Format {
    /// By the ending of a file's name.
    pub fn by_name(name: &str) -> Format {
        let ending = name
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        match ending.as_str() {
            "csv" => Format::Csv,
            "jsonl" | "ndjson" | "json" => Format::Jsonl,
            _ => Format::Lines,
        }
    }
}

/// How rows are read.
#[derive(Clone, Debug)]
pub struct RowOptions {
    /// The format; without it, by the name of the file.
    pub format: Option<Format>,
    /// The field whose value is the record's key.
    pub key: Option<String>,
    /// Fields of a CSV with one of these texts are null, as empty ones are.
    pub nulls: HashSet<String>,
    /// The topic's columns, which type the fields of a CSV.
    pub schema: Option<TopicSchema>,
    /// The longest row, in bytes. A longer line is a broken row; a longer row of a CSV, whose end may never come, ends
    /// the reading.
    pub max_row_bytes: usize,
}

/// No record is larger than a message to the server.
pub const MAX_ROW_BYTES: usize = MAX_MESSAGE_BYTES;
/// What a broken row that is too long keeps of its text.
const KEPT_BYTES: usize = 1024;

impl Default for RowOptions {
    fn default() -> RowOptions {
        RowOptions {
            format: None,
            key: None,
            nulls: HashSet::new(),
            schema: None,
            max_row_bytes: MAX_ROW_BYTES,
        }
    }
}

/// A row to produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its line in the input, from 1.
    pub line: u64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Vec<u8>,
}

/// A row that cannot be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its line in the input, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
    /// The row as it stands in the input.
    pub text: String,
}

/// Takes rows; `false` stops reading.
pub type Sink<'a> = &'a mut dyn FnMut(Result<Row, Broken>) -> bool;

/// Reads every row. Fails where there are none to be had: an input that cannot be read, a heading without the key.
pub fn read_rows(
    reader: &mut dyn BufRead,
    format: Format,
    options: &RowOptions,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    match format {
        Format::Csv => read_csv(reader, options, sink),
        Format::Lines if options.key.is_some() => Err(Failure::usage(
            "--key names a field, and plain lines have none",
            "add --format jsonl or --format csv",
        )),
        Format::Lines => lines(reader, options.max_row_bytes, sink, |line, text| {
            Ok(Row {
                line,
                key: None,
                value: text.to_vec(),
            })
        }),
        Format::Jsonl => lines(reader, options.max_row_bytes, sink, |line, text| {
            json_row(line, text, options.key.as_deref())
        }),
    }
}

fn lines(
    reader: &mut dyn BufRead,
    max_row_bytes: usize,
    sink: Sink<'_>,
    row: impl Fn(u64, &[u8]) -> Result<Row, String>,
) -> Result<(), Failure> {
    // With the end of the line, of one byte or two: a line that fills this is too long.
    let most_bytes = max_row_bytes.saturating_add(2);
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let failed = |error| {
            let hint = "check that the input was copied whole";
            Failure::new("io", format!("cannot read line {line}: {error}"), hint)
        };
        let mut bounded = Read::take(&mut *reader, most_bytes as u64);
        if bounded.read_until(b'\n', &mut text).map_err(failed)? == 0 {
            break;
        }
        if text.len() >= most_bytes && !text.ends_with(b"\n") {
            reader.skip_until(b'\n').map_err(failed)?;
        }
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        let broken = |why, text| Broken {
            line,
            why,
            text: String::from_utf8_lossy(text).into_owned(),
        };
        let row = if text.len() > max_row_bytes {
            let kept = text.get(..KEPT_BYTES).unwrap_or(text);
            Err(broken(too_long(max_row_bytes), kept))
        } else {
            row(line, text).map_err(|why| broken(why, text))
        };
        if !sink(row) {
            break;
        }
    }
    Ok(())
}

/// What is said of a row that is too long.
pub fn too_long(max_row_bytes: usize) -> String {
    format!(
        "it is longer than {max_row_bytes} bytes, and no record may be, whatever its topic takes"
    )
}

fn json_row(line: u64, text: &[u8], key: Option<&str>) -> Result<Row, String> {
    // Without a key only the form is checked: the value goes out byte for byte either way.
    let Some(field) = key else {
        serde_json::from_slice::<serde::de::IgnoredAny>(text)
            .map_err(|error| format!("not JSON: {error}"))?;
        return Ok(Row {
            line,
            key: None,
            value: text.to_vec(),
        });
    };
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let object = value
        .as_object()
        .ok_or("not a JSON object, so it has no field for the key")?;
    let key = match object.get(field) {
        None => return Err(format!("it has no field `{field}` for the key")),
        Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) => Some(text.clone().into_bytes()),
        Some(other) => Some(other.to_string().into_bytes()),
    };
    Ok(Row {
        line,
        key,
        value: text.to_vec(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn read(text: &str, format: Format, options: &RowOptions) -> Vec<Result<Row, Broken>> {
        let mut rows = Vec::new();
        read_rows(&mut text.as_bytes(), format, options, &mut |row| {
            rows.push(row);
            true
        })
        .unwrap();
        rows
    }

    fn keyed(key: &str) -> RowOptions {
        RowOptions {
            key: Some(key.into()),
            ..RowOptions::default()
        }
    }

    #[test]
    fn lines_are_values_and_empty_ones_are_none() {
        let rows = read("a\r\n\nb", Format::Lines, &RowOptions::default());
        assert_eq!(
            rows[0],
            Ok(Row {
                line: 1,
                key: None,
                value: b"a".to_vec()
            })
        );
        assert_eq!(
            rows[1],
            Ok(Row {
                line: 3,
                key: None,
                value: b"b".to_vec()
            })
        );
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_line_that_is_too_long_is_broken_and_the_next_ones_are_read() {
        let options = RowOptions {
            max_row_bytes: 4,
            ..RowOptions::default()
        };
        for (text, fits) in [
            ("abcd\nx", true),
            ("abcd\r\nx", true),
            ("abcde\nx", false),
            ("abcde\r\nx", false),
            ("abcdef\nx", false),
            ("abcdefghijklmnop\nx", false),
        ] {
            let rows = read(text, Format::Lines, &options);
            assert_eq!(rows[0].is_ok(), fits, "{text:?}");
            if let Err(broken) = &rows[0] {
                assert_eq!(broken.line, 1);
                assert!(broken.why.contains("longer than 4 bytes"), "{}", broken.why);
            }
            let next = rows[1].as_ref().unwrap();
            assert_eq!((next.line, &next.value[..]), (2, &b"x"[..]), "{text:?}");
            assert_eq!(rows.len(), 2);
        }
        assert!(read("abcdef", Format::Lines, &options)[0].is_err());
    }

    #[test]
    fn a_row_of_a_csv_without_end_is_not_read_to_its_end() {
        let options = RowOptions {
            max_row_bytes: 100,
            ..RowOptions::default()
        };
        let endless = std::io::repeat(b'x');
        let text = std::io::Cursor::new(&b"id,name\n1,a\n2,\"b\n"[..]);
        let mut reader = std::io::BufReader::new(text.chain(endless));
        let failure = read_rows(&mut reader, Format::Csv, &options, &mut |_| true).unwrap_err();
        assert!(
            failure.message.contains("the row after line 2")
                && failure.message.contains("100 bytes"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn json_lines_keep_their_bytes_and_give_their_key() {
        let rows = read(
            "{\"k\": \"x\",  \"n\":1}\n{\"k\":7}\n{\"k\":null}\n",
            Format::Jsonl,
            &keyed("k"),
        );
        let keys: Vec<_> = rows
            .iter()
            .map(|row| row.as_ref().unwrap().key.clone())
            .collect();
        assert_eq!(keys, [Some(b"x".to_vec()), Some(b"7".to_vec()), None]);
        assert_eq!(rows[0].as_ref().unwrap().value, b"{\"k\": \"x\",  \"n\":1}");
    }

    #[test]
    fn a_broken_line_is_told_with_its_number_and_text() {
        let rows = read("{}\n{oops\n{\"k\":1}\n", Format::Jsonl, &keyed("k"));
        assert!(rows[0].as_ref().unwrap_err().why.contains("no field `k`"));
        let broken = rows[1].as_ref().unwrap_err();
        assert_eq!((broken.line, broken.text.as_str()), (2, "{oops"));
        assert!(rows[2].is_ok());
    }

    #[test]
    fn a_csv_is_typed_by_the_schema_and_else_by_a_sample() {
        let text = "id,name,late\n1,\"a, b\",NA\n2,,3\n";
        let options = RowOptions {
            nulls: HashSet::from(["NA".to_string()]),
            ..keyed("id")
        };
        let rows = read(text, Format::Csv, &options);
        let row = rows[0].as_ref().unwrap();
        assert_eq!(
            String::from_utf8(row.value.clone()).unwrap(),
            r#"{"id":1,"name":"a, b","late":null}"#
        );
        assert_eq!((row.line, row.key.clone()), (2, Some(b"1".to_vec())));
        let typed = RowOptions {
            schema: Some(TopicSchema::parse("id:text").unwrap()),
            ..options
        };
        let rows = read(text, Format::Csv, &typed);
        assert!(
            rows[0]
                .as_ref()
                .unwrap()
                .value
                .starts_with(br#"{"id":"1","#)
        );
    }

    #[test]
    fn a_broken_csv_row_is_told_with_its_line_and_the_rest_goes_on() {
        let typed = RowOptions {
            schema: Some(TopicSchema::parse("a:int").unwrap()),
            ..RowOptions::default()
        };
        let rows = read("a,b\n1,\"x\ny\"\n1,2,3\nz,1\n2,2\n", Format::Csv, &typed);
        let broken: Vec<_> = rows
            .iter()
            .filter_map(|row| row.as_ref().err())
            .map(|broken| broken.line)
            .collect();
        assert_eq!(broken, [4, 5]);
        assert_eq!(rows.len(), 4);
        assert!(
            rows[2].as_ref().unwrap_err().why.contains('a'),
            "the column is named"
        );
    }

    #[test]
    fn an_input_that_breaks_off_is_no_broken_row() {
        struct BreaksOff;
        impl std::io::Read for BreaksOff {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
        }
        let (csv, typed) = ("a\n1\n2\n", Some(TopicSchema::parse("a:int").unwrap()));
        for (format, text, schema) in [
            (Format::Csv, csv, None),
            (Format::Csv, csv, typed),
            (Format::Lines, "1\n2\n", None),
        ] {
            let options = RowOptions {
                schema,
                ..RowOptions::default()
            };
            let whole = std::io::Read::chain(text.as_bytes(), BreaksOff);
            let mut rows = Vec::new();
            let failure = read_rows(
                &mut std::io::BufReader::new(whole),
                format,
                &options,
                &mut |row| {
                    rows.push(row);
                    true
                },
            )
            .unwrap_err();
            assert_eq!(failure.code, "io");
            // What came before it is passed on.
            assert_eq!(rows.iter().flatten().count(), 2, "{format:?}: {rows:?}");
            assert_eq!(rows.len(), 2);
        }
    }

    #[test]
    fn a_csv_row_that_is_not_utf_8_is_put_aside_as_it_is() {
        let mut rows = Vec::new();
        let bytes = b"a,b\n1,\xff!\n2,x\n";
        read_rows(
            &mut &bytes[..],
            Format::Csv,
            &RowOptions::default(),
            &mut |row| {
                rows.push(row);
                true
            },
        )
        .unwrap();
        let broken = rows[0].as_ref().unwrap_err();
        assert_eq!((broken.line, &*broken.text), (2, "1,\u{fffd}!"));
        assert!(broken.why.contains("not UTF-8"), "{}", broken.why);
        assert!(rows[1].is_ok());
    }

    #[test]
    fn a_csv_without_the_key_is_refused_with_its_columns() {
        let failure = read_rows(
            &mut "a,b\n1,2\n".as_bytes(),
            Format::Csv,
            &keyed("c"),
            &mut |_| true,
        )
        .unwrap_err();
        assert!(failure.hint.contains("a, b"), "{}", failure.hint);
    }
}
