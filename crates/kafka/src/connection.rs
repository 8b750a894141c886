//! A connection: requests come in one after the other, and are answered in that order.
//!
//! One half reads requests, the other answers them; both are one task. Kafka's promise is that a request sees what those
//! before it did, so a request is begun when all before it have been answered, and the next is not read before that. Only
//! produces are begun behind one another: the order of their records is settled by then, and many of them share a sync.
//!
//! What is under way is bounded, in requests here and in bytes by [`Gateway::room_for_request`]; beyond that the socket is
//! not read, and TCP holds the client back.
//!
//! [`Gateway::room_for_request`]: crate::client::Gateway::room_for_request

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::api::{Handler, InTurn};
use crate::call::{Answer, Call};
use crate::client::Client;
use crate::error::KafkaError;
use crate::frame;
use crate::produce;

/// Requests of one connection that are not answered yet, at most.
const MAX_UNDER_WAY: usize = 32;
/// How long a client may be silent in the middle of a request, or not take an answer.
const STALLED: Duration = Duration::from_secs(30);

type Outcome = Result<Option<Answer>, KafkaError>;

/// A request on its way to its answer.
struct Pending {
    /// What it holds of the room for requests, until it is answered.
    room: Option<OwnedSemaphorePermit>,
    work: Work,
}

enum Work {
    /// Begun already.
    Begun(BoxFuture<'static, Outcome>),
    /// To be begun when everything before it has been answered. It holds the connection's turn.
    InTurn(InTurn, Call, OwnedSemaphorePermit),
}

/// Serves one connection until it ends.
pub(crate) async fn run(stream: TcpStream, client: Arc<Client>) -> Result<(), KafkaError> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let (queue, pending) = mpsc::channel(MAX_UNDER_WAY);
    tokio::try_join!(ask(read, &client, queue), answer(write, &client, pending))?;
    Ok(())
}

/// Reads requests until the client has no more, or the server stops.
async fn ask(
    mut read: OwnedReadHalf,
    client: &Arc<Client>,
    queue: mpsc::Sender<Pending>,
) -> Result<(), KafkaError> {
    let mut stopping = client.gateway.stopping.clone();
    let turns = Arc::new(Semaphore::new(1));
    loop {
        let next = tokio::select! {
            next = next_frame(&mut read, client, &turns) => next?,
            _ = stopping.wait_for(|stop| *stop) => None,
        };
        let Some(Frame { bytes, room, turn }) = next else {
            client.ending.send_replace(true);
            return Ok(());
        };
        let call = Call::read(&bytes)?;
        drop(bytes);
        let work = match call.api.handler {
            Handler::Produce => {
                drop(turn);
                let mut outcome = produce::begin(Arc::clone(client), call).await?;
                match futures::poll!(&mut outcome) {
                    Poll::Ready(outcome) => Work::Begun(std::future::ready(outcome).boxed()),
                    Poll::Pending => Work::Begun(outcome),
                }
            }
            Handler::Own(handle) | Handler::Control(_, handle) => Work::InTurn(handle, call, turn),
        };
        if queue.send(Pending { room, work }).await.is_err() {
            return Ok(());
        }
    }
}

/// Answers requests in their order.
async fn answer(
    mut write: OwnedWriteHalf,
    client: &Arc<Client>,
    mut pending: mpsc::Receiver<Pending>,
) -> Result<(), KafkaError> {
    while let Some(Pending { room, work }) = pending.recv().await {
        let outcome = match work {
            Work::Begun(outcome) => outcome.await,
            Work::InTurn(handle, call, _turn) => handle(client, call).await,
        };
        drop(room);
        if let Some(answer) = outcome? {
            let mut pieces = Pieces::of(answer);
            while pieces.has_remaining() {
                match timeout(STALLED, write.write_buf(&mut pieces)).await {
                    Ok(written) => written?,
                    Err(_) => return Err(stalled()),
                };
            }
        }
    }
    write.shutdown().await?;
    Ok(())
}

fn stalled() -> KafkaError {
    KafkaError::Stalled {
        silent_ms: u64::try_from(STALLED.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A request's bytes.
struct Frame {
    bytes: Bytes,
    /// What they hold of the room for requests.
    room: Option<OwnedSemaphorePermit>,
    /// Nothing but produces is under way before it.
    turn: OwnedSemaphorePermit,
}

/// The next request; none at the end. An idle connection holds no buffer.
async fn next_frame(
    read: &mut OwnedReadHalf,
    client: &Client,
    turns: &Arc<Semaphore>,
) -> Result<Option<Frame>, KafkaError> {
    let settings = &client.gateway.settings;
    let mut prefix = [0; 4];
    let Ok(first) = timeout(settings.max_idle, read.read(&mut prefix)).await else {
        // As Kafka does it: without a word.
        return Ok(None);
    };
    let got = first?;
    if got == 0 {
        return Ok(None);
    }
    let rest = prefix.get_mut(got..).unwrap_or_default();
    timeout(STALLED, read.read_exact(rest))
        .await
        .map_err(|_| stalled())??;
    let length =
        frame::length(prefix, settings.max_request_bytes).ok_or(KafkaError::FrameSize {
            bytes: i32::from_be_bytes(prefix).into(),
            limit_bytes: settings.max_request_bytes,
        })?;
    // Nobody closes it.
    let Ok(turn) = Arc::clone(turns).acquire_owned().await else {
        return Ok(None);
    };
    let room = client.gateway.room_for_request(length).await;
    let mut bytes = frame::buffer(length);
    while bytes.len() < length {
        frame::make_room(&mut bytes, length);
        let mut limited = (&mut *read).take((length - bytes.len()) as u64);
        let got = timeout(STALLED, limited.read_buf(&mut bytes)).await;
        if got.map_err(|_| stalled())?? == 0 {
            return Err(KafkaError::Connection(
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
    }
    Ok(Some(Frame {
        bytes: bytes.freeze(),
        room,
        turn,
    }))
}

/// The pieces of an answer, written together and without being put together.
struct Pieces {
    pieces: VecDeque<Bytes>,
    left: usize,
    _room: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    fn of(answer: Answer) -> Pieces {
        let pieces = VecDeque::from(answer.pieces);
        Pieces {
            left: pieces.iter().map(Bytes::len).sum(),
            pieces,
            _room: answer.room,
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count.min(self.left);
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}
