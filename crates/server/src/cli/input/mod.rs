//! What `produce` reads: rows of lines, JSON lines or CSV, plain or packed, from a file or standard input.
//!
//! `source.rs` finds the bytes, `rows.rs` cuts them into rows, `csv.rs` turns a CSV row into a JSON object. Reading
//! blocks, so it has a thread of its own; rows reach the producer in chunks through a short channel.

mod csv;
mod rows;
mod source;

pub use rows::{Broken, Format, MAX_ROW_BYTES, Row, RowOptions};

use crate::failure::Failure;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Rows that travel together.
const CHUNK_ROWS: usize = 256;
/// And their bytes: one that is larger travels alone.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks the reader may be ahead of the producer.
const AHEAD: usize = 8;

/// A part of the input: rows, and those that are broken, in the input's order.
pub type Chunk = Vec<Result<Row, Broken>>;

/// Reads in the background. An error (not a broken row) is the last thing that comes.
pub fn read(file: Option<PathBuf>, options: RowOptions) -> mpsc::Receiver<Result<Chunk, Failure>> {
    let (send, receive) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let outgoing = Outgoing {
            chunk: RefCell::default(),
            bytes: Cell::new(0),
            send,
        };
        // A pipe that trickles is passed on as it comes: more is asked for when all that came is rows.
        let before_read = || {
            outgoing.pass_on();
        };
        let read = source::with_reader(file.as_deref(), &before_read, |reader, name| {
            let format = options.format.unwrap_or_else(|| Format::by_name(name));
            rows::read_rows(reader, format, &options, &mut |row| outgoing.add(row))
        });
        if outgoing.pass_on()
            && let Err(failure) = read
        {
            let _ = outgoing.send.blocking_send(Err(failure));
        }
    });
    receive
}

/// Rows on their way. The channel is what holds the reader back.
struct Outgoing {
    chunk: RefCell<Chunk>,
    /// What its rows have.
    bytes: Cell<usize>,
    send: mpsc::Sender<Result<Chunk, Failure>>,
}

impl Outgoing {
    /// Whether there is anybody who takes rows.
    fn add(&self, row: Result<Row, Broken>) -> bool {
        let bytes = self.bytes.get() + row.as_ref().map_or(0, |row| row.value.len());
        self.bytes.set(bytes);
        let mut chunk = self.chunk.borrow_mut();
        chunk.push(row);
        let is_full = chunk.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES;
        drop(chunk);
        !is_full || self.pass_on()
    }

    /// Hands over what there is; whether there is anybody who takes it.
    fn pass_on(&self) -> bool {
        let chunk = self.chunk.take();
        self.bytes.set(0);
        match chunk.is_empty() {
            true => !self.send.is_closed(),
            false => self.send.blocking_send(Ok(chunk)).is_ok(),
        }
    }
}
