//! From record values to Arrow columns: one scan a value, which decodes only what is projected.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions,
    StringBuilder, TimestampMillisecondBuilder,
};
use arrow::datatypes::{Schema, SchemaRef};

use crate::scan::{self, Span, Token};
use crate::{Column, ColumnKind, TopicSchema, number, parse_rfc3339_ms};

/// Rows and bytes of text from which on [`Decoder::is_full`] says so.
const FULL_ROWS: usize = 8_192;
const FULL_TEXT_BYTES: usize = 8 << 20;
/// Arrow's `Utf8` has offsets of 31 bits.
const MAX_TEXT_BYTES: usize = i32::MAX as usize;

/// Decodes values into the projected columns of a schema.
///
/// ```
/// # use mainstem_schema::{Decoder, TopicSchema};
/// let schema = TopicSchema::parse("carrier:text, dep_delay:float")?;
/// let mut decoder = Decoder::new(&schema, &[1]);
/// decoder.push(Some(br#"{"carrier": "UA", "dep_delay": 2.5}"#));
/// decoder.push(Some(b"not JSON"));
/// let (columns, malformed) = decoder.finish();
/// assert_eq!((columns.num_rows(), columns.num_columns(), malformed), (2, 1, 1));
/// # Ok::<(), mainstem_schema::SchemaError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    lookup: Lookup,
    /// Where each distinct projected column stands in the value at hand.
    spans: Vec<Span>,
    /// In projection order: which span, and where its values go.
    columns: Vec<(usize, Builder)>,
    rows: usize,
    text_bytes: usize,
    malformed: u64,
    scratch: String,
}

impl Decoder {
    /// A decoder of the columns at those positions of the schema, in that order.
    ///
    /// # Panics
    /// When a position is not in the schema.
    pub fn new(schema: &TopicSchema, projection: &[usize]) -> Decoder {
        let projected: Vec<&Column> = projection
            .iter()
            .map(|index| &schema.columns[*index])
            .collect();
        let mut names: Vec<&str> = Vec::new();
        let mut columns = Vec::new();
        for column in &projected {
            let span = names
                .iter()
                .position(|name| *name == column.name)
                .unwrap_or_else(|| {
                    names.push(&column.name);
                    names.len() - 1
                });
            columns.push((span, Builder::new(column.kind)));
        }
        Decoder {
            schema: Arc::new(Schema::new(
                projected
                    .iter()
                    .map(|column| column.arrow_field())
                    .collect::<Vec<_>>(),
            )),
            spans: vec![Span::MISSING; names.len()],
            lookup: Lookup::new(&names),
            columns,
            rows: 0,
            text_bytes: 0,
            malformed: 0,
            scratch: String::new(),
        }
    }

    /// The schema of what [`finish`](Self::finish) returns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds a row: a record's value, or `None` for a tombstone, whose columns are NULL.
    #[inline]
    pub fn push(&mut self, value: Option<&[u8]>) {
        self.rows += 1;
        if self.columns.is_empty() {
            return;
        }
        let Some(value) = value else {
            self.columns
                .iter_mut()
                .for_each(|(_, builder)| builder.append_null());
            return;
        };
        let Decoder {
            lookup,
            spans,
            scratch,
            ..
        } = self;
        spans.fill(Span::MISSING);
        let text = scan::object(value, |text, key, span| {
            let found = if key.token == Token::Plain {
                lookup.find(&text.as_bytes()[key.start..key.end])
            } else {
                scratch.clear();
                scan::unescape(key.text(text), scratch);
                lookup.find(scratch.as_bytes())
            };
            if let Some(slot) = found.and_then(|index| spans.get_mut(index)) {
                *slot = span;
            }
        });
        let Some(text) = text else {
            self.malformed += 1;
            self.columns
                .iter_mut()
                .for_each(|(_, builder)| builder.append_null());
            return;
        };
        let mut right = true;
        for (span, builder) in &mut self.columns {
            let span = spans.get(*span).copied().unwrap_or(Span::MISSING);
            right &= builder.append(text, span, scratch, &mut self.text_bytes);
        }
        self.malformed += u64::from(!right);
    }

    /// Rows since the last [`finish`](Self::finish).
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether enough has come together for one Arrow batch. A caller who asks after every row keeps
    /// batches small; one who never asks loses text beyond 2 GiB, which is NULL and malformed then.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.rows >= FULL_ROWS || self.text_bytes >= FULL_TEXT_BYTES
    }

    /// The columns in the order of the projection, and how many of the rows' values were malformed.
    /// The decoder starts afresh.
    #[expect(
        clippy::expect_used,
        reason = "every column got one entry for every row, of its field's type"
    )]
    pub fn finish(&mut self) -> (RecordBatch, u64) {
        let arrays = self
            .columns
            .iter_mut()
            .map(|(_, builder)| builder.finish())
            .collect();
        // With no column projected the number of rows is all there is.
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .expect("columns agree with their schema");
        self.rows = 0;
        self.text_bytes = 0;
        (batch, std::mem::take(&mut self.malformed))
    }
}

/// Finds a projected name among a few. Most fields of an object are not projected, so that a miss has
/// to be cheap: length, first and last byte decide nearly always.
#[derive(Debug)]
struct Lookup {
    names: Vec<Box<[u8]>>,
    /// The first name of a bucket, and after each name the next in its bucket; `NONE` ends.
    first: Box<[u16; 256]>,
    next: Vec<u16>,
}

const NONE: u16 = u16::MAX;

impl Lookup {
    fn new(names: &[&str]) -> Lookup {
        let mut lookup = Lookup {
            names: names.iter().map(|name| name.as_bytes().into()).collect(),
            first: Box::new([NONE; 256]),
            next: vec![NONE; names.len()],
        };
        for (index, name) in names.iter().enumerate() {
            // A schema has at most 1,000 columns.
            let index_u16 = u16::try_from(index).unwrap_or(NONE);
            lookup.next[index] =
                std::mem::replace(&mut lookup.first[bucket(name.as_bytes())], index_u16);
        }
        lookup
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<usize> {
        let mut index = usize::from(self.first[bucket(name)]);
        loop {
            // `NONE` is no name's index.
            let candidate = self.names.get(index)?;
            if **candidate == *name {
                return Some(index);
            }
            index = usize::from(*self.next.get(index)?);
        }
    }
}

#[inline]
fn bucket(name: &[u8]) -> usize {
    let first = name.first().copied().unwrap_or(0);
    let last = name.last().copied().unwrap_or(0);
    usize::from((name.len() as u8).wrapping_mul(37) ^ first.wrapping_mul(3) ^ last.wrapping_mul(11))
}

/// A column in the making.
#[derive(Debug)]
enum Builder {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Timestamp(TimestampMillisecondBuilder),
}

impl Builder {
    fn new(kind: ColumnKind) -> Builder {
        match kind {
            ColumnKind::Boolean => Builder::Boolean(BooleanBuilder::new()),
            ColumnKind::Int64 => Builder::Int64(Int64Builder::new()),
            ColumnKind::Float64 => Builder::Float64(Float64Builder::new()),
            ColumnKind::Utf8 => Builder::Utf8(StringBuilder::new()),
            ColumnKind::Timestamp => Builder::Timestamp(
                TimestampMillisecondBuilder::new().with_data_type(kind.arrow_type()),
            ),
        }
    }

    /// Appends what stands at `span`, or NULL. `false` when something stands there that is not of this
    /// column's kind.
    #[inline]
    fn append(
        &mut self,
        text: &str,
        span: Span,
        scratch: &mut String,
        text_bytes: &mut usize,
    ) -> bool {
        use Token::{Decimal, Escaped, False, Integer, Missing, Null, Plain, True};
        if matches!(span.token, Missing | Null) {
            self.append_null();
            return true;
        }
        let text = span.text(text);
        match self {
            Builder::Boolean(builder) => {
                let value = match span.token {
                    True => Some(true),
                    False => Some(false),
                    _ => None,
                };
                builder.append_option(value);
                value.is_some()
            }
            Builder::Int64(builder) => {
                let value = number::int(text, span.token);
                builder.append_option(value);
                value.is_some()
            }
            Builder::Float64(builder) => {
                let value = match span.token {
                    Integer | Decimal => number::float(text),
                    _ => None,
                };
                builder.append_option(value);
                value.is_some()
            }
            Builder::Utf8(builder) => {
                let text = if span.token == Escaped {
                    scratch.clear();
                    scan::unescape(text, scratch);
                    scratch.as_str()
                } else {
                    text
                };
                *text_bytes += text.len();
                if builder.values_slice().len() > MAX_TEXT_BYTES.saturating_sub(text.len()) {
                    builder.append_null();
                    return false;
                }
                builder.append_value(text);
                true
            }
            Builder::Timestamp(builder) => {
                let value = match span.token {
                    Plain => parse_rfc3339_ms(text),
                    // Nobody escapes a time, but somebody may.
                    Escaped => {
                        scratch.clear();
                        scan::unescape(text, scratch);
                        parse_rfc3339_ms(scratch)
                    }
                    token => number::int(text, token),
                };
                builder.append_option(value);
                value.is_some()
            }
        }
    }

    fn append_null(&mut self) {
        match self {
            Builder::Boolean(builder) => builder.append_null(),
            Builder::Int64(builder) => builder.append_null(),
            Builder::Float64(builder) => builder.append_null(),
            Builder::Utf8(builder) => builder.append_null(),
            Builder::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::Int64(builder) => Arc::new(builder.finish()),
            Builder::Float64(builder) => Arc::new(builder.finish()),
            Builder::Utf8(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}
