//! How answers go out: what lies in memory in few large writes, what stands in a segment from its file by `sendfile(2)`.
//!
//! The operating system copies such bytes from its page cache, or fetches them from the disk first. They were read a moment
//! ago, to be checked, or are on their way; but memory can be short, so this is done beside the network all the same.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;

use bytes::Buf;
use mainstem::beside;
use mainstem::broker::{FileSlice, Piece};
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::call::Answer;
use crate::connection::{Outcome, STALLED, stalled};
use crate::error::KafkaError;

/// Pieces that one call of the system takes.
const MAX_SLICES: usize = 64;
/// More follows at once: do not send a small packet. The same number on every Linux.
const MSG_MORE: std::ffi::c_int = 0x8000;

/// Answers on their way out, one after another.
#[derive(Default)]
pub(crate) struct Outgoing {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// How many of the pieces stand in files.
    files: usize,
    /// What they hold of the room for answers, until all are written.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Adds an answer, if there is one.
    pub(crate) fn add(&mut self, outcome: Outcome) -> Result<(), KafkaError> {
        let Some(Answer { pieces, room }) = outcome? else {
            return Ok(());
        };
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            self.bytes += piece.len();
            self.files += usize::from(Outgoing::is_file(&piece));
            self.pieces.push_back(piece);
        }
        self.rooms.extend(room);
        Ok(())
    }

    fn is_file(piece: &Piece) -> bool {
        matches!(piece, Piece::File(_))
    }

    fn is_at_file(&self) -> bool {
        self.pieces.front().is_some_and(Outgoing::is_file)
    }

    /// The pieces in memory that come next, and how many there are.
    fn next_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            let Piece::Memory(bytes) = piece else {
                break;
            };
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Sends as much as the socket takes; `WouldBlock` says that it takes no more for now, an `Ok` that all is sent.
    fn send_by_system(&mut self, socket: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(socket);
        loop {
            let sent = match self.pieces.front() {
                None => return Ok(()),
                Some(Piece::File(slice)) => send_file(&socket, slice),
                Some(Piece::Memory(_)) => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let filled = self.next_slices(&mut slices);
                    let more = match filled < self.pieces.len() {
                        true => MSG_MORE,
                        false => 0,
                    };
                    let slices = slices.get(..filled).unwrap_or_default();
                    socket.send_vectored_with_flags(slices, more)
                }
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What lies in memory, for `write_buf`: valid only while no piece in front stands in a file, since such a piece counts as
/// remaining and has no bytes to show. [`send`] asks for it once no piece does.
impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        debug_assert!(!self.is_at_file(), "a file's bytes are not in memory");
        match self.pieces.front() {
            Some(Piece::Memory(bytes)) => bytes,
            _ => &[],
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        debug_assert!(!self.is_at_file(), "a file's bytes are not in memory");
        self.next_slices(slices)
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count.min(self.bytes);
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                match piece {
                    Piece::Memory(bytes) => bytes.advance(count),
                    Piece::File(slice) => slice.advance(count),
                }
                return;
            }
            count -= piece.len();
            self.files -= usize::from(Outgoing::is_file(piece));
            self.pieces.pop_front();
        }
    }
}

/// Sends all of it. A client that takes nothing for a while is left.
pub(crate) async fn send(
    write: &mut OwnedWriteHalf,
    outgoing: &mut Outgoing,
) -> Result<(), KafkaError> {
    while outgoing.has_remaining() {
        if outgoing.files == 0 {
            match timeout(STALLED, write.write_buf(outgoing)).await {
                Ok(written) => written?,
                Err(_) => return Err(stalled()),
            };
            continue;
        }
        timeout(STALLED, write.writable())
            .await
            .map_err(|_| stalled())??;
        let socket: &TcpStream = write.as_ref();
        let send = || beside(|| outgoing.send_by_system(socket));
        match socket.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => sent?,
        }
    }
    outgoing.rooms.clear();
    Ok(())
}

/// Sends a part of what is left of a slice. What a disk refuses to give is named: the client sees no more than a connection
/// that ends.
fn send_file(socket: &SockRef<'_>, slice: &FileSlice) -> io::Result<usize> {
    let (Some(file), Ok(position)) = (slice.os_file(), usize::try_from(slice.position())) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let sent = socket.sendfile(&file, position, NonZeroUsize::new(slice.len()));
    let why = match &sent {
        Ok(0) => "the file ends before what its index says",
        Err(error) if !is_of_socket(error) => "it cannot be read",
        _ => return sent,
    };
    let (file, position) = (slice.path().display(), slice.position());
    tracing::error!(%file, position, ?sent, "a segment cannot be sent: {why}; run `mainstem check`");
    // Whoever asks again is told which partition it is.
    slice.distrust();
    sent
}

/// Whether it tells of the socket, and not of the file.
fn is_of_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted,
        NetworkUnreachable, NotConnected, TimedOut, WouldBlock,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkUnreachable
            | NotConnected
            | TimedOut
            | WouldBlock
    )
}
