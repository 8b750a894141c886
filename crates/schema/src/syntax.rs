//! Schemas as text: `carrier:text, dep_delay:float`. A name with commas, colons or spaces at its ends
//! is written as a JSON string: `"a, b":int`.

use std::fmt;
use std::str::FromStr;

use crate::{Column, ColumnKind, SchemaError, TopicSchema};

impl TopicSchema {
    /// Reads the text form, or the JSON form where the text begins with `{` or `[` (columns alone).
    pub fn parse(text: &str) -> Result<TopicSchema, SchemaError> {
        let text = text.trim();
        let json = |error: serde_json::Error| SchemaError::Json {
            why: error.to_string(),
        };
        if text.starts_with('{') {
            return serde_json::from_str(text).map_err(json);
        }
        if text.starts_with('[') {
            return TopicSchema::new(serde_json::from_str(text).map_err(json)?);
        }
        let mut columns = Vec::new();
        let mut rest = text;
        loop {
            let position = columns.len() + 1;
            let (name, after_name) = split_name(rest, position)?;
            let (kind, next) = after_name
                .split_once(',')
                .map_or((after_name, None), |(kind, next)| (kind, Some(next)));
            columns.push(Column {
                name,
                kind: kind.trim().parse()?,
            });
            match next {
                // A comma at the end is forgiven.
                Some(next) if !next.trim().is_empty() => rest = next.trim_start(),
                _ => return TopicSchema::new(columns),
            }
        }
    }
}

/// A column's name, and what follows its colon.
fn split_name(text: &str, position: usize) -> Result<(String, &str), SchemaError> {
    if text.is_empty() {
        return Err(SchemaError::NoColumns);
    }
    let wrong = || SchemaError::Syntax {
        position,
        text: text.split(',').next().unwrap_or(text).trim().to_owned(),
    };
    if text.starts_with('"') {
        let mut names = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = names.next().and_then(Result::ok).ok_or_else(wrong)?;
        let after = text.get(names.byte_offset()..).ok_or_else(wrong)?;
        return Ok((
            name,
            after.trim_start().strip_prefix(':').ok_or_else(wrong)?,
        ));
    }
    let (name, after) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim();
    if name.contains(',') {
        return Err(wrong());
    }
    if name.is_empty() {
        return Err(SchemaError::EmptyName { position });
    }
    Ok((name.to_owned(), after))
}

impl FromStr for TopicSchema {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        TopicSchema::parse(text)
    }
}

impl fmt::Display for TopicSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Column { name, kind }) in self.columns.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            let bare = name.trim() == name
                && !name.contains([',', ':', '"', '{', '['])
                && !name.contains(char::is_control);
            if bare {
                write!(f, "{name}:{kind}")?;
            } else {
                let quoted = serde_json::to_string(name).map_err(|_| fmt::Error)?;
                write!(f, "{quoted}:{kind}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ColumnKind {
    type Err = SchemaError;

    fn from_str(kind: &str) -> Result<Self, SchemaError> {
        match kind.to_ascii_lowercase().as_str() {
            "bool" | "boolean" => Ok(ColumnKind::Boolean),
            "int" | "integer" | "bigint" | "int8" | "int64" | "long" => Ok(ColumnKind::Int64),
            "float" | "double" | "double precision" | "float8" | "float64" | "real" => {
                Ok(ColumnKind::Float64)
            }
            "text" | "string" | "varchar" | "utf8" => Ok(ColumnKind::Utf8),
            "timestamp" | "timestamptz" | "datetime" => Ok(ColumnKind::Timestamp),
            _ => Err(SchemaError::UnknownKind {
                kind: kind.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for ColumnKind {
    type Error = SchemaError;

    fn try_from(kind: String) -> Result<Self, SchemaError> {
        kind.parse()
    }
}

impl From<ColumnKind> for &'static str {
    fn from(kind: ColumnKind) -> Self {
        kind.name()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_with_aliases() {
        let schema = TopicSchema::parse(
            " carrier:text , dep_delay : DOUBLE,\n n:bigint, ok:boolean, at:timestamptz,",
        )
        .unwrap();
        assert_eq!(
            schema.to_string(),
            "carrier:text, dep_delay:float, n:int, ok:bool, at:timestamp"
        );
        assert_eq!(schema.index_of("n"), Some(2));
    }

    #[test]
    fn json_forms() {
        let schema = TopicSchema::parse("a:int, b:text").unwrap();
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(
            json,
            r#"{"columns":[{"name":"a","kind":"int"},{"name":"b","kind":"text"}]}"#
        );
        assert_eq!(TopicSchema::parse(&json).unwrap(), schema);
        assert_eq!(
            TopicSchema::parse(r#"[{"name":"a","kind":"bigint"},{"name":"b","kind":"string"}]"#)
                .unwrap(),
            schema
        );
        assert!(
            serde_json::from_str::<TopicSchema>(
                r#"{"columns":[{"name":"a","kind":"int"},{"name":"a","kind":"int"}]}"#
            )
            .is_err()
        );
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, message) in [
            ("", "at least one column"),
            ("a", "column 1 of the schema (`a`)"),
            ("a:int, b", "column 2 of the schema (`b`)"),
            ("a, b:int", "column 1 of the schema (`a`)"),
            ("a:money", "`money` is unknown"),
            (":int", "column 1 has no name"),
            ("a:int, a:text", "`a` is there twice"),
            ("_offset:int", "`_offset` is a column of every topic"),
            ("{", "JSON cannot be read"),
            ("\"a:int", "not of the form"),
        ] {
            let error = TopicSchema::parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_json_round_trip(columns in prop::collection::btree_map(".{1,6}", prop::sample::select(ColumnKind::ALL.to_vec()), 1..6)) {
            let schema = TopicSchema::new(columns.into_iter().map(|(name, kind)| Column { name, kind }).collect()).unwrap();
            prop_assert_eq!(&TopicSchema::parse(&schema.to_string()).unwrap(), &schema);
            prop_assert_eq!(&TopicSchema::parse(&serde_json::to_string(&schema).unwrap()).unwrap(), &schema);
        }

        #[test]
        fn any_text_is_met_calmly(text in ".*") {
            let _ = TopicSchema::parse(&text);
        }
    }
}
