//! What `produce` reads: rows of lines, JSON lines or CSV, plain or packed, from a file or standard input.
//!
//! `source.rs` finds the bytes, `rows.rs` cuts them into rows, `csv.rs` turns a CSV row into a JSON object. Reading
//! blocks, so it has a thread of its own; rows reach the producer in chunks through a short channel.

mod csv;
mod rows;
mod source;

pub use rows::{Broken, Format, Row, RowOptions};

use crate::failure::Failure;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Rows that travel together.
const CHUNK_ROWS: usize = 256;
/// Chunks the reader may be ahead of the producer.
const AHEAD: usize = 8;

/// A part of the input: rows, and those that are broken, in the input's order.
pub type Chunk = Vec<Result<Row, Broken>>;

/// Reads in the background. An error (not a broken row) is the last thing that comes.
pub fn read(file: Option<PathBuf>, options: RowOptions) -> mpsc::Receiver<Result<Chunk, Failure>> {
    let (send, receive) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut chunk = Chunk::with_capacity(CHUNK_ROWS);
        let read = source::with_reader(file.as_deref(), |reader, name| {
            let format = options.format.unwrap_or_else(|| Format::by_name(name));
            rows::read_rows(reader, format, &options, &mut |row| {
                chunk.push(row);
                // A pipe that trickles is passed on as it comes; the channel is what holds back.
                if chunk.len() >= CHUNK_ROWS
                    && send.blocking_send(Ok(std::mem::take(&mut chunk))).is_err()
                {
                    return false;
                }
                true
            })
        });
        if !chunk.is_empty() && send.blocking_send(Ok(chunk)).is_err() {
            return;
        }
        if let Err(failure) = read {
            let _ = send.blocking_send(Err(failure));
        }
    });
    receive
}
