//! CSV rows to JSON objects, typed by a schema, and schemas from sampled rows.

use std::io::Write;

use crate::infer::Evidence;
use crate::scan::{self, Token};
use crate::{ColumnKind, SchemaError, TopicSchema, number, parse_rfc3339_ms};

/// How much of a refused field an error shows.
const SHOWN_CHARS: usize = 40;

/// Turns the rows of one CSV file into JSON objects. Empty fields and null tokens become null; other
/// fields become what their column says; columns that the schema does not know stay text.
///
/// - `bool` takes true, false, t, f, yes, no, 1 and 0, in any case;
/// - `int` takes whole numbers, also with leading zeros, a plus, or as `3.0`;
/// - `float` takes finite decimal numbers;
/// - `timestamp` takes RFC 3339 with a zone, or whole milliseconds since 1970;
/// - `text` takes the field as it stands. The others ignore space around it.
#[derive(Debug, Clone)]
pub struct CsvCoercer {
    columns: Vec<CsvColumn>,
    null_tokens: Vec<String>,
}

#[derive(Debug, Clone)]
struct CsvColumn {
    name: String,
    /// The name as a JSON string, with its colon.
    json_name: Vec<u8>,
    kind: ColumnKind,
}

impl CsvCoercer {
    /// Prepares for rows under that header.
    pub fn new<S: AsRef<str>, N: AsRef<str>>(
        schema: &TopicSchema,
        headers: &[S],
        null_tokens: &[N],
    ) -> Result<CsvCoercer, SchemaError> {
        let mut columns: Vec<CsvColumn> = Vec::with_capacity(headers.len());
        for (index, header) in headers.iter().enumerate() {
            let name = header_name(header.as_ref());
            if name.is_empty() {
                return Err(SchemaError::EmptyName {
                    position: index + 1,
                });
            }
            if columns.iter().any(|column| column.name == name) {
                return Err(SchemaError::DuplicateName {
                    name: name.to_owned(),
                });
            }
            let mut json_name = Vec::new();
            put_string(&mut json_name, name);
            json_name.push(b':');
            let kind = schema
                .index_of(name)
                .map_or(ColumnKind::Utf8, |index| schema.columns[index].kind);
            columns.push(CsvColumn {
                name: name.to_owned(),
                json_name,
                kind,
            });
        }
        let null_tokens = null_tokens
            .iter()
            .map(|token| token.as_ref().to_owned())
            .collect();
        Ok(CsvCoercer {
            columns,
            null_tokens,
        })
    }

    /// Appends a row's JSON object to `out`. On an error `out` stays as it was.
    pub fn row<'a>(
        &self,
        fields: impl IntoIterator<Item = &'a str>,
        out: &mut Vec<u8>,
    ) -> Result<(), SchemaError> {
        let before = out.len();
        let written = self.write_row(fields, out);
        if written.is_err() {
            out.truncate(before);
        }
        written
    }

    fn write_row<'a>(
        &self,
        fields: impl IntoIterator<Item = &'a str>,
        out: &mut Vec<u8>,
    ) -> Result<(), SchemaError> {
        out.push(b'{');
        let mut fields = fields.into_iter();
        for (index, column) in self.columns.iter().enumerate() {
            let Some(field) = fields.next() else {
                return Err(SchemaError::FieldCount {
                    expected: self.columns.len(),
                    got: index,
                });
            };
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.json_name);
            if is_null(field, &self.null_tokens) {
                out.extend_from_slice(b"null");
            } else if put_field(out, column.kind, field).is_none() {
                return Err(SchemaError::Field {
                    column: column.name.clone(),
                    kind: column.kind,
                    field: field.chars().take(SHOWN_CHARS).collect(),
                });
            }
        }
        let extra = fields.count();
        if extra > 0 {
            let expected = self.columns.len();
            return Err(SchemaError::FieldCount {
                expected,
                got: expected + extra,
            });
        }
        out.push(b'}');
        Ok(())
    }
}

/// One row alone; many rows of one file go through [`CsvCoercer`].
pub fn coerce_csv<'a, S: AsRef<str>, N: AsRef<str>>(
    schema: &TopicSchema,
    headers: &[S],
    fields: impl IntoIterator<Item = &'a str>,
    null_tokens: &[N],
) -> Result<Vec<u8>, SchemaError> {
    let mut out = Vec::new();
    CsvCoercer::new(schema, headers, null_tokens)?.row(fields, &mut out)?;
    Ok(out)
}

/// A schema that fits the sampled rows. Numbers are `int` or `float` when JSON writes them so (a
/// leading zero makes them text: postal codes and phone numbers are no numbers), `true` and `false`
/// are `bool`, RFC 3339 times `timestamp`. Columns without any value are text.
pub fn infer_csv<'a, S: AsRef<str>, N: AsRef<str>, R: IntoIterator<Item = &'a str>>(
    headers: &[S],
    rows: impl IntoIterator<Item = R>,
    null_tokens: &[N],
) -> TopicSchema {
    let null_tokens: Vec<String> = null_tokens
        .iter()
        .map(|token| token.as_ref().to_owned())
        .collect();
    let names = || {
        headers
            .iter()
            .map(|header| header_name(header.as_ref()).to_owned())
    };
    let mut evidence = Evidence::default();
    names().for_each(|name| evidence.add(name, None));
    for row in rows {
        for (name, field) in names().zip(row) {
            let kind = (!is_null(field, &null_tokens)).then(|| kind_of(field));
            evidence.add(name, kind);
        }
    }
    evidence.into_schema()
}

/// Spreadsheets put a byte order mark before the first name.
fn header_name(header: &str) -> &str {
    header.trim_start_matches('\u{feff}').trim()
}

fn is_null(field: &str, null_tokens: &[String]) -> bool {
    field.is_empty() || null_tokens.iter().any(|token| token == field)
}

fn kind_of(field: &str) -> ColumnKind {
    let field = field.trim();
    match scan::number(field) {
        Some(Token::Integer) if number::int(field, Token::Integer).is_some() => ColumnKind::Int64,
        Some(_) if number::float(field).is_some() => ColumnKind::Float64,
        _ if field.eq_ignore_ascii_case("true") || field.eq_ignore_ascii_case("false") => {
            ColumnKind::Boolean
        }
        _ if parse_rfc3339_ms(field).is_some() => ColumnKind::Timestamp,
        _ => ColumnKind::Utf8,
    }
}

/// Appends the field as JSON; `None` when it is not of that kind.
fn put_field(out: &mut Vec<u8>, kind: ColumnKind, field: &str) -> Option<()> {
    let trimmed = field.trim();
    match kind {
        ColumnKind::Utf8 => put_string(out, field),
        ColumnKind::Boolean => out.extend_from_slice(match trimmed.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "1" => b"true",
            "false" | "f" | "no" | "0" => b"false",
            _ => return None,
        }),
        ColumnKind::Int64 => put_int(out, trimmed)?,
        ColumnKind::Float64 if scan::number(trimmed).is_some() => {
            number::float(trimmed)?;
            out.extend_from_slice(trimmed.as_bytes());
        }
        ColumnKind::Float64 => {
            let value = decimal(trimmed)?;
            write!(out, "{}", serde_json::Number::from_f64(value)?).ok()?;
        }
        ColumnKind::Timestamp if parse_rfc3339_ms(trimmed).is_some() => put_string(out, trimmed),
        ColumnKind::Timestamp => put_int(out, trimmed)?,
    }
    Some(())
}

fn put_int(out: &mut Vec<u8>, field: &str) -> Option<()> {
    let value = match field.parse::<i64>() {
        Ok(value) => value,
        // `3.0` and `3e2`, by the same rule as in JSON.
        Err(_) => number::int(
            field,
            scan::number(field).filter(|token| *token == Token::Decimal)?,
        )?,
    };
    write!(out, "{value}").ok()
}

/// What Rust reads as a number, less the words that it reads as well.
fn decimal(field: &str) -> Option<f64> {
    let digits_alone = field
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    field
        .parse()
        .ok()
        .filter(|value: &f64| digits_alone && value.is_finite())
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing text into memory cannot fail.
        let _ = serde_json::to_writer(out, text);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NA: &[&str] = &["NA"];

    fn typed(kind: &str, field: &str) -> Option<String> {
        let schema = TopicSchema::parse(&format!("c:{kind}")).unwrap();
        let json = coerce_csv(&schema, &["c"], [field], NA).ok()?;
        Some(
            String::from_utf8(json)
                .unwrap()
                .strip_prefix("{\"c\":")?
                .strip_suffix('}')?
                .to_owned(),
        )
    }

    #[test]
    fn fields_become_what_their_column_says() {
        for (kind, field, json) in [
            ("text", "UA", Some("\"UA\"")),
            ("text", " say \"hi\"\n", Some(r#"" say \"hi\"\n""#)),
            ("text", "", Some("null")),
            ("text", "NA", Some("null")),
            ("int", "NA", Some("null")),
            ("int", "007", Some("7")),
            ("int", " +5 ", Some("5")),
            ("int", "3.0", Some("3")),
            ("int", "3.5", None),
            ("int", "x", None),
            ("int", "9223372036854775808", None),
            ("float", "1.50", Some("1.50")),
            ("float", ".5", Some("0.5")),
            ("float", "007", Some("7.0")),
            ("float", "1e999", None),
            ("float", "nan", None),
            ("float", "inf", None),
            ("bool", "TRUE", Some("true")),
            ("bool", "0", Some("false")),
            ("bool", "2", None),
            (
                "timestamp",
                "2013-01-01T10:00:00Z",
                Some("\"2013-01-01T10:00:00Z\""),
            ),
            ("timestamp", "1357034400000", Some("1357034400000")),
            ("timestamp", "2013-01-01", None),
        ] {
            assert_eq!(typed(kind, field).as_deref(), json, "{kind}: {field}");
        }
    }

    #[test]
    fn rows_and_headers_that_do_not_fit() {
        let schema = TopicSchema::parse("a:int").unwrap();
        let coercer = CsvCoercer::new(&schema, &["\u{feff}a", " b "], NA).unwrap();
        let mut out = b"kept".to_vec();
        assert_eq!(
            coercer.row(["1"], &mut out),
            Err(SchemaError::FieldCount {
                expected: 2,
                got: 1
            })
        );
        assert_eq!(
            coercer.row(["1", "2", "3"], &mut out),
            Err(SchemaError::FieldCount {
                expected: 2,
                got: 3
            })
        );
        let error = coercer.row(["x", "2"], &mut out).unwrap_err().to_string();
        assert!(
            error.contains("column `a` wants int, the field is `x`"),
            "{error}"
        );
        assert_eq!(out, b"kept");
        coercer.row(["1", "2"], &mut out).unwrap();
        assert_eq!(out, br#"kept{"a":1,"b":"2"}"#);
        assert!(CsvCoercer::new(&schema, &["a", "a"], NA).is_err());
        assert!(CsvCoercer::new(&schema, &["a", ""], NA).is_err());
    }

    #[test]
    fn kinds_from_sampled_rows() {
        let rows = [
            vec![
                "1",
                "2",
                "x",
                "true",
                "2013-01-01T10:00:00Z",
                "",
                "01234",
                "1",
            ],
            vec![
                "NA",
                "2.5",
                "3",
                "FALSE",
                "2013-01-01T11:00:00Z",
                "NA",
                "56789",
                "NA",
            ],
        ];
        let headers = ["i", "f", "t", "b", "at", "none", "zip", "n"];
        let schema = infer_csv(&headers, rows, NA);
        assert_eq!(
            schema.to_string(),
            "i:int, f:float, t:text, b:bool, at:timestamp, none:text, zip:text, n:int"
        );
    }

    proptest! {
        /// A sampled row is never refused by the schema it led to, and the result is a JSON object.
        #[test]
        fn sampled_rows_fit_their_schema(rows in prop::collection::vec(
            prop::collection::vec(prop_oneof!["-?[0-9]{1,20}", "[0-9]{0,3}\\.?[0-9]{0,3}(e[0-9]{1,3})?", "true|False|NA|", ".{0,10}"], 3), 1..6)) {
            let headers = ["a", "b", "c \"quoted\""];
            let schema = infer_csv(&headers, rows.iter().map(|row| row.iter().map(String::as_str)), NA);
            let coercer = CsvCoercer::new(&schema, &headers, NA).unwrap();
            for row in &rows {
                let mut out = Vec::new();
                coercer.row(row.iter().map(String::as_str), &mut out).unwrap();
                let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
                prop_assert_eq!(object.len(), 3);
                for ((header, field), column) in headers.iter().zip(row).zip(&schema.columns) {
                    if column.kind == ColumnKind::Utf8 && !field.is_empty() && field != "NA" {
                        prop_assert_eq!(object[*header].as_str(), Some(field.as_str()));
                    }
                }
            }
        }
    }
}
