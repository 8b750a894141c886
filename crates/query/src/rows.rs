//! From records, or entries of a handler's state, to Arrow: only the columns that are asked for are made, and nothing at all where rows are only
//! counted.

use crate::QueryError;
use crate::columns::{Pseudo, Source, header_fields, header_item, timestamp_type};
use crate::notices::ScanCounts;
use crate::scan::{BATCH_BYTES, BATCH_ROWS};
use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListArray, RecordBatchOptions, StringBuilder,
    StructArray, TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use mainstem_record::HeaderViews;
use mainstem_schema::{Decoder, TopicSchema};
use std::collections::VecDeque;
use std::sync::Arc;

/// One column in the making.
enum Column {
    /// The value's field at this place in the decoder's projection.
    Decoded(usize),
    Partition(Vec<i32>),
    Offset(Vec<i64>),
    Timestamp(Vec<i64>),
    Table(StringBuilder),
    Key(BinaryBuilder),
    Value(BinaryBuilder),
    Headers(HeadersBuilder),
}

#[derive(Default)]
struct HeadersBuilder {
    /// Where each record's headers end.
    ends: Vec<usize>,
    keys: StringBuilder,
    values: BinaryBuilder,
    count: usize,
}

/// What a row is made of; a column that is not asked for is not looked at.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) table: &'a str,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Option<HeaderViews<'a>>,
}

/// Collects rows for one batch.
pub(crate) struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// There when a field of the values is asked for.
    decoder: Option<Decoder>,
    rows: usize,
    /// Bytes of keys, values and headers copied so far; the decoder counts its own.
    bytes: usize,
}

impl RowBuilder {
    pub(crate) fn new(
        schema: SchemaRef,
        sources: &[Source],
        value_schema: &TopicSchema,
    ) -> RowBuilder {
        let mut decoded = Vec::new();
        let columns = sources
            .iter()
            .map(|source| match source {
                Source::Value(index) => {
                    decoded.push(*index);
                    Column::Decoded(decoded.len() - 1)
                }
                Source::Pseudo(pseudo) => Column::new(*pseudo),
            })
            .collect();
        let decoder = (!decoded.is_empty()).then(|| Decoder::new(value_schema, &decoded));
        RowBuilder {
            schema,
            columns,
            decoder,
            rows: 0,
            bytes: 0,
        }
    }

    /// Whether the rows have no columns.
    pub(crate) fn only_counts(&self) -> bool {
        self.columns.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS
            || self.bytes >= BATCH_BYTES
            || self.decoder.as_ref().is_some_and(Decoder::is_full)
    }

    #[inline]
    pub(crate) fn add(&mut self, row: Row<'_>) {
        self.rows += 1;
        if let Some(decoder) = &mut self.decoder {
            decoder.push(row.value);
        }
        for column in &mut self.columns {
            match column {
                Column::Decoded(_) => {}
                // Partitions are numbered from 0 and few.
                Column::Partition(numbers) => numbers.push(row.partition as i32),
                Column::Offset(offsets) => offsets.push(row.offset),
                Column::Timestamp(times) => times.push(row.timestamp_ms),
                Column::Table(tables) => {
                    self.bytes += row.table.len();
                    tables.append_value(row.table);
                }
                Column::Key(keys) => {
                    self.bytes += row.key.map_or(0, <[u8]>::len);
                    keys.append_option(row.key);
                }
                Column::Value(values) => {
                    self.bytes += row.value.map_or(0, <[u8]>::len);
                    values.append_option(row.value);
                }
                Column::Headers(headers) => self.bytes += headers.add(row.headers),
            }
        }
    }

    /// Adds rows that have no columns, in batches of at most [`BATCH_ROWS`].
    pub(crate) fn add_counted(
        &mut self,
        rows: usize,
        ready: &mut VecDeque<RecordBatch>,
    ) -> Result<(), QueryError> {
        self.rows += rows;
        while self.rows >= BATCH_ROWS {
            self.rows -= BATCH_ROWS;
            ready.push_back(self.batch(Vec::new(), BATCH_ROWS)?);
        }
        Ok(())
    }

    /// The rows so far as a batch; begins afresh. Tells how many values were malformed.
    pub(crate) fn finish(
        &mut self,
        counts: &mut ScanCounts,
        malformed: impl FnOnce(u64),
    ) -> Result<RecordBatch, QueryError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let decoded = self.decoder.as_mut().map(|decoder| {
            let (batch, bad) = decoder.finish();
            counts.values_decoded += rows as u64;
            malformed(bad);
            batch
        });
        let arrays = self
            .columns
            .iter_mut()
            .map(|column| column.finish(decoded.as_ref()))
            .collect();
        self.batch(arrays, rows)
    }

    fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, QueryError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|error| {
            QueryError::Failed {
                message: error.to_string(),
            }
        })
    }
}

impl Column {
    fn new(pseudo: Pseudo) -> Column {
        match pseudo {
            Pseudo::Partition => Column::Partition(Vec::with_capacity(BATCH_ROWS)),
            Pseudo::Offset => Column::Offset(Vec::with_capacity(BATCH_ROWS)),
            Pseudo::Timestamp => Column::Timestamp(Vec::with_capacity(BATCH_ROWS)),
            Pseudo::Table => Column::Table(StringBuilder::new()),
            Pseudo::Key => Column::Key(BinaryBuilder::new()),
            Pseudo::Value => Column::Value(BinaryBuilder::new()),
            Pseudo::Headers => Column::Headers(HeadersBuilder::default()),
        }
    }

    fn finish(&mut self, decoded: Option<&RecordBatch>) -> ArrayRef {
        match self {
            // A decoder exists exactly when a column of it does.
            Column::Decoded(index) => match decoded {
                Some(batch) => batch.column(*index).clone(),
                None => Arc::new(arrow::array::NullArray::new(0)),
            },
            Column::Partition(numbers) => Arc::new(Int32Array::from(std::mem::take(numbers))),
            Column::Offset(offsets) => Arc::new(Int64Array::from(std::mem::take(offsets))),
            Column::Timestamp(times) => Arc::new(
                TimestampMillisecondArray::from(std::mem::take(times))
                    .with_data_type(timestamp_type()),
            ),
            Column::Table(tables) => Arc::new(tables.finish()),
            Column::Key(bytes) | Column::Value(bytes) => Arc::new(bytes.finish()),
            Column::Headers(headers) => headers.finish(),
        }
    }
}

impl HeadersBuilder {
    /// Returns the bytes it copied.
    fn add(&mut self, headers: Option<HeaderViews<'_>>) -> usize {
        let mut bytes = 0;
        for header in headers.into_iter().flatten() {
            // Names are UTF-8 by convention only.
            self.keys.append_value(String::from_utf8_lossy(header.name));
            self.values.append_option(header.value);
            self.count += 1;
            bytes += header.name.len() + header.value.map_or(0, <[u8]>::len);
        }
        self.ends.push(self.count);
        bytes
    }

    fn finish(&mut self) -> ArrayRef {
        let ends = std::mem::take(&mut self.ends);
        self.count = 0;
        let mut last = 0;
        let lengths = ends
            .into_iter()
            .map(|end| end - std::mem::replace(&mut last, end));
        let offsets = OffsetBuffer::from_lengths(lengths);
        let items = StructArray::new(
            header_fields(),
            vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())],
            None,
        );
        Arc::new(ListArray::new(
            header_item(),
            offsets,
            Arc::new(items),
            None,
        ))
    }
}
