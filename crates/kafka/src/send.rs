//! How answers go out: what lies in memory in few large writes, what stands in a segment from its file by `sendfile(2)`.
//!
//! The operating system copies such bytes from its page cache, or fetches them from the disk first. They were read a moment
//! ago, to be checked, or are on their way; but memory can be short, so this is done beside the network all the same.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::{Buf, Bytes};
use mainstem::beside;
use mainstem::broker::{FileSlice, Piece};
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::call::Answer;
use crate::connection::{Outcome, stalled};
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

    /// Has what lies in memory there by itself. Records share their memory with others that came at the same time, which
    /// nobody counts for as long as it is a moment.
    fn keep_apart(&mut self) {
        for piece in &mut self.pieces {
            if let Piece::Memory(bytes) = piece {
                *bytes = Bytes::copy_from_slice(bytes);
            }
        }
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

/// How long a client may take nothing of its answers. In Kafka a consumer that does not poll for a while, and so does not
/// read what it has asked for, keeps its connection; but an answer that lies in memory holds a part of what there is for the
/// answers of all. So it is left early where others lack that.
pub(crate) struct Patience<'a> {
    /// For so long, whatever it holds.
    pub(crate) longest: Duration,
    /// How often it is looked whether others need what it holds.
    pub(crate) step: Duration,
    /// Whether they do, where it has some of the room for answers or has none.
    pub(crate) is_needed: &'a (dyn Fn(bool) -> bool + Send + Sync),
}

impl Patience<'_> {
    /// How long to wait on, after so long.
    fn next_step(&self, silent: Duration) -> Duration {
        self.step.min(self.longest.saturating_sub(silent))
    }

    fn check(&self, silent: Duration, outgoing: &Outgoing) -> Result<(), KafkaError> {
        let holds_room = !outgoing.rooms.is_empty();
        match silent >= self.longest || (self.is_needed)(holds_room) {
            true => Err(stalled(silent)),
            false => Ok(()),
        }
    }
}

/// Sends all of it. A client that takes nothing for too long is left.
pub(crate) async fn send(
    write: &mut OwnedWriteHalf,
    outgoing: &mut Outgoing,
    patience: &Patience<'_>,
) -> Result<(), KafkaError> {
    let mut silent = Duration::ZERO;
    while outgoing.has_remaining() {
        let (left, step) = (outgoing.len(), patience.next_step(silent));
        let is_memory = outgoing.files == 0;
        let waited = match is_memory {
            true => timeout(step, write.write_buf(outgoing))
                .await
                .map(|written| written.map(drop)),
            false => timeout(step, write.writable()).await,
        };
        let Ok(ready) = waited else {
            if silent.is_zero() {
                outgoing.keep_apart();
            }
            silent += step;
            patience.check(silent, outgoing)?;
            continue;
        };
        ready?;
        if !is_memory {
            let socket: &TcpStream = write.as_ref();
            let send = || beside(|| outgoing.send_by_system(socket));
            match socket.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => sent?,
            }
        }
        if outgoing.len() < left {
            silent = Duration::ZERO;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream as Client};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tokio::sync::Semaphore;

    use super::*;

    /// More than sockets keep.
    const BYTES: usize = 32 << 20;
    const HOUR: Duration = Duration::from_secs(3_600);
    const MOMENT: Duration = Duration::from_millis(1);

    /// Both ends of a connection.
    fn connected() -> (Client, OwnedWriteHalf) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let (_, write) = TcpStream::from_std(server).unwrap().into_split();
        (client, write)
    }

    fn outgoing(room: Option<OwnedSemaphorePermit>) -> Outgoing {
        let pieces = vec![Bytes::from(vec![7; BYTES]).into()];
        let mut outgoing = Outgoing::default();
        outgoing.add(Ok(Some(Answer { pieces, room }))).unwrap();
        outgoing
    }

    fn some_room() -> Option<OwnedSemaphorePermit> {
        let room = std::sync::Arc::new(Semaphore::new(1));
        Some(room.try_acquire_owned().unwrap())
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work)
    }

    /// For how long the client was silent that took nothing.
    fn silent_ms(sent: Result<(), KafkaError>) -> u64 {
        match sent {
            Err(KafkaError::Stalled { silent_ms }) => silent_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_that_takes_nothing_for_a_while_has_all_of_it_later() {
        block_on(async {
            let (mut client, mut write) = connected();
            let (begin, begun) = mpsc::channel();
            let reading = std::thread::spawn(move || {
                begun.recv().unwrap();
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).unwrap();
                bytes
            });
            let looks = AtomicUsize::new(0);
            let is_needed = |holds_room: bool| {
                assert!(holds_room);
                if looks.fetch_add(1, Ordering::Relaxed) == 2 {
                    begin.send(()).unwrap();
                }
                false
            };
            let patience = Patience {
                longest: HOUR,
                step: MOMENT,
                is_needed: &is_needed,
            };
            let mut outgoing = outgoing(some_room());
            send(&mut write, &mut outgoing, &patience).await.unwrap();
            assert!(outgoing.rooms.is_empty(), "the room is given back");
            drop(write);
            assert!(reading.join().unwrap() == vec![7; BYTES]);
            assert!(looks.into_inner() >= 3);
        });
    }

    #[test]
    fn one_that_holds_what_others_need_is_left() {
        block_on(async {
            let (_client, mut write) = connected();
            let patience = Patience {
                longest: HOUR,
                step: MOMENT,
                is_needed: &|holds_room| holds_room,
            };
            let sent = send(&mut write, &mut outgoing(some_room()), &patience).await;
            assert_eq!(silent_ms(sent), 1);
        });
    }

    #[test]
    fn one_that_holds_nothing_of_others_is_left_in_the_end() {
        block_on(async {
            let (_client, mut write) = connected();
            let patience = Patience {
                longest: 3 * MOMENT,
                step: 2 * MOMENT,
                is_needed: &|holds_room| holds_room,
            };
            let sent = send(&mut write, &mut outgoing(None), &patience).await;
            assert_eq!(silent_ms(sent), 3);
        });
    }
}
