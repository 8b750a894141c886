//! A schema from samples.
//!
//! Columns stand in the order in which their fields first appear. Numbers with and without fraction
//! together are `float`; strings that are all RFC 3339 times are `timestamp`; objects, arrays and
//! whatever does not agree are `text`; so is a field that is null in every sample.

use std::collections::BTreeMap;

use crate::scan::{self, Token};
use crate::topic_schema::{MAX_COLUMNS, RESERVED_COLUMNS};
use crate::{Column, ColumnKind, TopicSchema, number, parse_rfc3339_ms};

/// A schema that fits the sampled values. What is not a JSON object says nothing, nor do fields with
/// a reserved name, nor fields beyond the first [`MAX_COLUMNS`].
pub fn infer<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> TopicSchema {
    let mut evidence = Evidence::default();
    let mut fields: Vec<(String, Option<ColumnKind>)> = Vec::new();
    for value in values {
        fields.clear();
        let whole = scan::object(value, |text, key, span| {
            let mut name = String::new();
            scan::unescape(key.text(text), &mut name);
            let text = span.text(text);
            let kind = match span.token {
                Token::Missing | Token::Null => None,
                Token::True | Token::False => Some(ColumnKind::Boolean),
                Token::Integer if number::int(text, Token::Integer).is_some() => {
                    Some(ColumnKind::Int64)
                }
                Token::Integer | Token::Decimal => Some(ColumnKind::Float64),
                Token::Plain if parse_rfc3339_ms(text).is_some() => Some(ColumnKind::Timestamp),
                Token::Plain | Token::Escaped | Token::Nested => Some(ColumnKind::Utf8),
            };
            fields.push((name, kind));
        });
        if whole.is_some() {
            fields
                .drain(..)
                .for_each(|(name, kind)| evidence.add(name, kind));
        }
    }
    evidence.into_schema()
}

/// What was seen of each field so far.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    columns: Vec<(String, Option<ColumnKind>)>,
    index: BTreeMap<String, usize>,
}

impl Evidence {
    /// Takes note of a field and of what it was; `None` is null.
    pub(crate) fn add(&mut self, name: String, kind: Option<ColumnKind>) {
        if let Some((_, so_far)) = self
            .index
            .get(&name)
            .and_then(|index| self.columns.get_mut(*index))
        {
            *so_far = join(*so_far, kind);
        } else if self.columns.len() < MAX_COLUMNS
            && !name.is_empty()
            && !RESERVED_COLUMNS.contains(&name.as_str())
        {
            self.index.insert(name.clone(), self.columns.len());
            self.columns.push((name, kind));
        }
    }

    pub(crate) fn into_schema(self) -> TopicSchema {
        let column = |(name, kind): (String, Option<_>)| Column {
            name,
            kind: kind.unwrap_or(ColumnKind::Utf8),
        };
        TopicSchema {
            columns: self.columns.into_iter().map(column).collect(),
        }
    }
}

/// The narrowest kind that holds both.
fn join(left: Option<ColumnKind>, right: Option<ColumnKind>) -> Option<ColumnKind> {
    use ColumnKind::{Float64, Int64, Utf8};
    match (left, right) {
        (None, kind) | (kind, None) => kind,
        (Some(left), Some(right)) if left == right => Some(left),
        (Some(Int64 | Float64), Some(Int64 | Float64)) => Some(Float64),
        _ => Some(Utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(values: &[&str]) -> String {
        infer(values.iter().map(|value| value.as_bytes())).to_string()
    }

    #[test]
    fn kinds_are_joined_over_the_samples() {
        let samples = [
            r#"{"i": 1, "f": 1, "b": true, "t": "x", "at": "2013-01-01T10:00:00Z", "n": null, "o": {"a": 1}, "m": 1}"#,
            "not an object",
            r#"{"late": 1.5, "i": null, "f": 0.5, "b": false, "at": "2013-01-01T10:00:00Z", "o": 3, "m": "1"}"#,
        ];
        let expected =
            "i:int, f:float, b:bool, t:text, at:timestamp, n:text, o:text, m:text, late:float";
        assert_eq!(inferred(&samples), expected);
    }

    #[test]
    fn odd_fields() {
        assert_eq!(
            inferred(&[r#"{"_offset": 1, "": 2, "\u0061": 3}"#]),
            "a:int"
        );
        assert_eq!(
            inferred(&[r#"{"large": 9223372036854775808}"#]),
            "large:float"
        );
        assert_eq!(
            inferred(&[r#"{"at": "2013-01-01T10:00:00Z"}"#, r#"{"at": "soon"}"#]),
            "at:text"
        );
        assert_eq!(inferred(&[]), "");
        assert_eq!(inferred(&[r#"{"half": 1"#]), "");
    }
}
