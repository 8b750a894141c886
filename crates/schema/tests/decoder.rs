//! The decoder against a slow reference on `serde_json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use mainstem_schema::{Column, ColumnKind, Decoder, TopicSchema, parse_rfc3339_ms};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// A cell in a form that both sides can be brought to.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Time(i64),
}

fn cell(batch: &RecordBatch, column: usize, row: usize, kind: ColumnKind) -> Cell {
    let array = batch.column(column);
    if array.is_null(row) {
        return Cell::Null;
    }
    match kind {
        ColumnKind::Boolean => Cell::Bool(array.as_boolean().value(row)),
        ColumnKind::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        ColumnKind::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
        ColumnKind::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        ColumnKind::Timestamp => {
            Cell::Time(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
    }
}

/// The rules of the crate's first page, written down as plainly as possible.
fn reference(value: &Value, kind: ColumnKind) -> Option<Cell> {
    let whole = || {
        let exact = |float: &f64| float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
        value.as_i64().or_else(|| {
            value
                .as_f64()
                .filter(|_| value.is_f64())
                .filter(exact)
                .map(|float| float as i64)
        })
    };
    match (kind, value) {
        (_, Value::Null) => Some(Cell::Null),
        (ColumnKind::Boolean, value) => value.as_bool().map(Cell::Bool),
        (ColumnKind::Int64, _) => whole().map(Cell::Int),
        (ColumnKind::Float64, value) => value.as_f64().map(Cell::Float),
        (ColumnKind::Utf8, Value::String(text)) => Some(Cell::Text(text.clone())),
        (ColumnKind::Utf8, value) => Some(Cell::Text(value.to_string())),
        (ColumnKind::Timestamp, Value::String(text)) => parse_rfc3339_ms(text).map(Cell::Time),
        (ColumnKind::Timestamp, _) => whole().map(Cell::Time),
    }
}

fn decode_slowly(
    schema: &TopicSchema,
    projection: &[usize],
    values: &[Option<Vec<u8>>],
) -> (Vec<Vec<Cell>>, u64) {
    let mut malformed = 0;
    let mut rows = Vec::new();
    for value in values {
        let object = match value {
            None => Map::new(),
            Some(value) => match serde_json::from_slice(value) {
                Ok(Value::Object(object)) => object,
                _ => {
                    malformed += 1;
                    Map::new()
                }
            },
        };
        let mut right = true;
        let cell = |index: &usize| {
            let Column { name, kind } = &schema.columns[*index];
            reference(object.get(name).unwrap_or(&Value::Null), *kind).unwrap_or_else(|| {
                right = false;
                Cell::Null
            })
        };
        rows.push(projection.iter().map(cell).collect());
        malformed += u64::from(!right);
    }
    (rows, malformed)
}

fn decode(
    schema: &TopicSchema,
    projection: &[usize],
    values: &[Option<Vec<u8>>],
) -> (Vec<Vec<Cell>>, u64) {
    let mut decoder = Decoder::new(schema, projection);
    values
        .iter()
        .for_each(|value| decoder.push(value.as_deref()));
    assert_eq!(decoder.rows(), values.len());
    let (batch, malformed) = decoder.finish();
    assert_eq!((batch.num_rows(), decoder.rows()), (values.len(), 0));
    let row = |row| {
        projection
            .iter()
            .enumerate()
            .map(|(at, index)| cell(&batch, at, row, schema.columns[*index].kind))
            .collect()
    };
    ((0..values.len()).map(row).collect(), malformed)
}

const NAMES: [&str; 8] = ["a", "b", "carrier", "dep_delay", "é\n\"", "aa", "ab", "a b"];

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000i64..1_000).prop_map(Value::from),
        // Halves are exact in every parser.
        (-100_000i64..100_000).prop_map(|halves| Value::from(halves as f64 / 2.0)),
        ".{0,20}".prop_map(Value::from),
        "[\\\\\"\u{0}-\u{1f}a😀]{0,20}".prop_map(Value::from),
        Just(json!("2013-01-01T05:00:00-05:00")),
        Just(json!("2013-01-01 05:00:00")),
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[a-c]", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Vec<u8>> {
    btree_map(select(NAMES.to_vec()), value(), 0..8).prop_map(|fields| {
        let fields: Map<String, Value> = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Value::Object(fields).to_string().into_bytes()
    })
}

fn record() -> impl Strategy<Value = Option<Vec<u8>>> {
    let damaged =
        (object(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
    let cut = (object(), any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| {
        bytes.truncate(at.index(bytes.len()));
        bytes
    });
    prop_oneof![
        8 => object().prop_map(Some),
        1 => Just(None),
        1 => cut.prop_map(Some),
        2 => damaged.prop_map(Some),
        1 => value().prop_map(|value| Some(value.to_string().into_bytes())),
        1 => vec(any::<u8>(), 0..20).prop_map(Some),
    ]
    .prop_filter(
        "too large a number damages the whole value there, and one field here",
        |value| {
            let parsed = serde_json::from_slice::<Value>(value.as_deref().unwrap_or_default());
            !parsed.is_err_and(|error| error.to_string().contains("out of range"))
        },
    )
}

fn schema() -> impl Strategy<Value = TopicSchema> {
    btree_map(
        select(NAMES.to_vec()),
        select(ColumnKind::ALL.to_vec()),
        1..8,
    )
    .prop_map(|columns| {
        let columns = columns
            .into_iter()
            .map(|(name, kind)| Column {
                name: name.to_owned(),
                kind,
            })
            .collect();
        TopicSchema::new(columns).unwrap()
    })
}

/// Text kept of a damaged value may be spelled in another way than `serde_json` would write it.
fn same(left: &Cell, right: &Cell) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    match (left, right) {
        (Cell::Text(left), Cell::Text(right)) => {
            left == right || (parsed(left).is_some() && parsed(left) == parsed(right))
        }
        (Cell::Float(left), Cell::Float(right)) => (left - right).abs() <= left.abs() * 1e-15,
        _ => left == right,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        schema in schema(), picks in vec(any::<prop::sample::Index>(), 1..5), values in vec(record(), 0..20),
    ) {
        let projection: Vec<usize> = picks.iter().map(|pick| pick.index(schema.columns.len())).collect();
        let (rows, malformed) = decode(&schema, &projection, &values);
        let (expected, expected_malformed) = decode_slowly(&schema, &projection, &values);
        for ((row, expected), value) in rows.iter().zip(&expected).zip(&values) {
            let text = String::from_utf8_lossy(value.as_deref().unwrap_or_default());
            for (cell, expected) in row.iter().zip(expected) {
                prop_assert!(same(cell, expected), "{:?} instead of {:?} in {}", cell, expected, text);
            }
        }
        prop_assert_eq!(malformed, expected_malformed);
    }
}

fn bytes(values: &[&str]) -> Vec<Option<Vec<u8>>> {
    values
        .iter()
        .map(|value| Some(value.as_bytes().to_vec()))
        .collect()
}

#[test]
fn coercions_column_by_column() {
    let schema = TopicSchema::parse("i:int, f:float, b:bool, t:text, at:timestamp").unwrap();
    let one = |index: usize, json: &str| {
        let (rows, malformed) = decode(
            &schema,
            &[index],
            &bytes(&[&format!("{{\"{}\": {json}}}", schema.columns[index].name)]),
        );
        (rows[0][0].clone(), malformed)
    };
    assert_eq!(one(0, "3.0"), (Cell::Int(3), 0));
    assert_eq!(one(0, "3.5"), (Cell::Null, 1));
    assert_eq!(one(0, "\"3\""), (Cell::Null, 1));
    assert_eq!(one(0, "9223372036854775808"), (Cell::Null, 1));
    assert_eq!(one(1, "3"), (Cell::Float(3.0), 0));
    assert_eq!(one(1, "1e999"), (Cell::Null, 1));
    assert_eq!(one(2, "1"), (Cell::Null, 1));
    assert_eq!(one(3, "1.50"), (Cell::Text("1.50".into()), 0));
    assert_eq!(
        one(3, "[1, {\"a\": \"\\n\"}]"),
        (Cell::Text("[1, {\"a\": \"\\n\"}]".into()), 0)
    );
    assert_eq!(
        one(3, "\"\\u00e9\\ud83d\\ude00\""),
        (Cell::Text("é😀".into()), 0)
    );
    assert_eq!(one(3, "true"), (Cell::Text("true".into()), 0));
    assert_eq!(one(4, "\"1970-01-01T00:00:01Z\""), (Cell::Time(1_000), 0));
    assert_eq!(one(4, "1000"), (Cell::Time(1_000), 0));
    assert_eq!(one(4, "\"yesterday\""), (Cell::Null, 1));
}

#[test]
fn what_counts_as_malformed() {
    let schema = TopicSchema::parse("a:int, b:int").unwrap();
    let mut values = bytes(&[
        "{\"a\":\"x\",\"b\":\"y\"}",
        "[]",
        "",
        "{\"a\":1",
        "{\"a\":1,\"a\":2}",
        "{\"b\":null}",
    ]);
    values.push(None);
    let (rows, malformed) = decode(&schema, &[0, 1], &values);
    assert_eq!(
        malformed, 4,
        "one a record, however many of its fields are wrong"
    );
    assert_eq!(
        rows[4],
        [Cell::Int(2), Cell::Null],
        "a field given twice counts as given last"
    );
    let (_, malformed) = decode(&schema, &[1], &bytes(&["{\"a\":\"x\",\"b\":1}"]));
    assert_eq!(
        malformed, 0,
        "a column that nobody asks for is nobody's fault"
    );
}

#[test]
fn no_columns_still_count_rows() {
    let schema = TopicSchema::parse("a:int").unwrap();
    let (rows, malformed) = decode(&schema, &[], &bytes(&["{}", "x"]));
    assert_eq!((rows.len(), malformed), (2, 0));
}

#[test]
fn large_texts_fill_a_decoder_before_many_rows_do() {
    let schema = TopicSchema::parse("t:text").unwrap();
    let mut decoder = Decoder::new(&schema, &[0]);
    let value = format!("{{\"t\":\"{}\"}}", "x".repeat(1 << 20)).into_bytes();
    let mut rows = 0;
    while !decoder.is_full() {
        decoder.push(Some(&value));
        rows += 1;
    }
    assert_eq!(rows, 8);
    decoder.finish();
    assert!(!decoder.is_full());
}
