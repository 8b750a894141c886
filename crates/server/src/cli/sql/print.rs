//! Rows as they come: an Arrow IPC stream in, tables or JSON lines out.

use super::Output;
use crate::cli::output::{Out, bytes_to_json, bytes_to_text, plain_table};
use crate::failure::Failure;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::json::writer::LineDelimited;
use arrow::json::writer::NullableEncoder;
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use std::sync::Arc;

/// Rows of one table: a longer result is printed as several, so that it need not be held.
const TABLE_ROWS: usize = 10_000;

/// Prints a result.
pub struct Printer {
    output: Output,
    out: Out,
    decoder: StreamDecoder,
    gathered: Vec<RecordBatch>,
    gathered_rows: usize,
    rows: usize,
}

impl Printer {
    pub fn new(output: Output) -> Printer {
        Printer {
            output,
            out: Out::new(),
            decoder: StreamDecoder::new(),
            gathered: Vec::new(),
            gathered_rows: 0,
            rows: 0,
        }
    }

    /// The next bytes of the stream, cut anywhere.
    pub fn chunk(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            let Some(batch) = self.decoder.decode(&mut buffer).map_err(unreadable)? else {
                break;
            };
            self.rows += batch.num_rows();
            match self.output {
                Output::Json => self.json(&batch)?,
                Output::Table => {
                    self.gathered_rows += batch.num_rows();
                    self.gathered.push(batch);
                    if self.gathered_rows >= TABLE_ROWS {
                        self.table()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The end of the stream.
    pub fn end(mut self) -> Result<(), Failure> {
        self.decoder.finish().map_err(unreadable)?;
        if self.output == Output::Table {
            if !self.gathered.is_empty() || self.rows == 0 {
                self.table()?;
            }
            let s = if self.rows == 1 { "" } else { "s" };
            self.out.line(&format!("({} row{s})", self.rows))?;
        }
        self.out.flush()
    }

    fn json(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let mut lines = Vec::new();
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_encoder_factory(Arc::new(BytesAsText))
            .build::<_, LineDelimited>(&mut lines);
        writer
            .write(batch)
            .and_then(|()| writer.finish())
            .map_err(unreadable)?;
        drop(writer);
        self.out.bytes(&lines)
    }

    fn table(&mut self) -> Result<(), Failure> {
        let Some(schema) = self.decoder.schema() else {
            return Ok(());
        };
        let names: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let mut rows: Vec<Vec<String>> = Vec::with_capacity(self.gathered_rows);
        for batch in self.gathered.drain(..) {
            let columns = batch
                .columns()
                .iter()
                .map(|column| texts(column.as_ref()))
                .collect::<Result<Vec<_>, _>>();
            let columns = columns.map_err(unreadable)?;
            rows.extend(
                (0..batch.num_rows())
                    .map(|row| columns.iter().map(|column| column[row].clone()).collect()),
            );
        }
        self.gathered_rows = 0;
        self.out.line(plain_table(&names, rows).trim_end())
    }
}

fn unreadable(error: ArrowError) -> Failure {
    Failure::new(
        "protocol",
        format!("the result cannot be read: {error}"),
        "check that client and server are of the same version",
    )
}

/// A column as people read it.
fn texts(column: &dyn Array) -> Result<Vec<String>, ArrowError> {
    if let Some(bytes) = BytesColumn::of(column) {
        return Ok((0..column.len())
            .map(|row| bytes_to_text(column.is_valid(row).then(|| bytes.value(row))))
            .collect());
    }
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
    (0..column.len())
        .map(|row| formatter.value(row).try_to_string())
        .collect()
}

/// A column of bytes, however Arrow keeps it.
enum BytesColumn<'a> {
    Small(&'a arrow::array::BinaryArray),
    Large(&'a arrow::array::LargeBinaryArray),
    View(&'a arrow::array::BinaryViewArray),
}

impl<'a> BytesColumn<'a> {
    fn of(column: &'a dyn Array) -> Option<BytesColumn<'a>> {
        match column.data_type() {
            DataType::Binary => column.as_binary_opt().map(BytesColumn::Small),
            DataType::LargeBinary => column.as_binary_opt().map(BytesColumn::Large),
            DataType::BinaryView => column.as_binary_view_opt().map(BytesColumn::View),
            _ => None,
        }
    }

    fn value(&self, row: usize) -> &'a [u8] {
        match self {
            BytesColumn::Small(array) => array.value(row),
            BytesColumn::Large(array) => array.value(row),
            BytesColumn::View(array) => array.value(row),
        }
    }
}

/// Bytes are text where they are UTF-8, else `{"base64": …}`, as everywhere on the command line.
#[derive(Debug)]
struct BytesAsText;

impl EncoderFactory for BytesAsText {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls: Option<NullBuffer> = array.nulls().cloned();
        Ok(BytesColumn::of(array).map(|column| NullableEncoder::new(Box::new(column), nulls)))
    }
}

impl Encoder for BytesColumn<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(bytes_to_json(Some(self.value(row))).to_string().as_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, BinaryArray, Int64Array};

    fn batch() -> RecordBatch {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![
            Some(b"text".as_slice()),
            Some(&[0xff]),
            None,
        ]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        RecordBatch::try_from_iter([("b", bytes), ("n", numbers)]).unwrap()
    }

    #[test]
    fn json_rows_show_bytes_as_records_do() {
        let mut lines = Vec::new();
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_encoder_factory(Arc::new(BytesAsText))
            .build::<_, LineDelimited>(&mut lines);
        writer.write(&batch()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(
            text,
            "{\"b\":\"text\",\"n\":1}\n{\"b\":{\"base64\":\"/w==\"},\"n\":null}\n{\"b\":null,\"n\":3}\n"
        );
    }

    #[test]
    fn tables_show_bytes_as_text() {
        assert_eq!(
            texts(batch().column(0).as_ref()).unwrap(),
            ["text", "base64:/w==", ""]
        );
    }
}
