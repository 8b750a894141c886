//! A connection: requests come in one after the other, and are answered in that order.
//!
//! One half reads requests, the other answers them; both are one task. Kafka's promise is that a request sees what those
//! before it did, so a request is begun when all before it have been answered, and the next is not read before that. Only
//! produces are begun behind one another: the order of their records is settled by then, and many of them share a sync.
//!
//! What is under way is bounded, in requests here and in bytes by the gateway's room for requests; beyond that the socket is
//! not read, and TCP holds the client back.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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
use crate::room::HeldRoom;
use crate::send::{Outgoing, Patience, send};

/// Requests of one connection that are not answered yet, at most.
const MAX_UNDER_WAY: usize = 32;
/// Answers that are ready at the same time go out together, up to so many bytes.
const TOGETHER_BYTES: usize = 64 << 10;

pub(crate) type Outcome = Result<Option<Answer>, KafkaError>;

/// A request on its way to its answer.
struct Pending {
    /// What it holds of the room for requests, until it is answered.
    room: HeldRoom,
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
    let gateway = &client.gateway;
    let patience = Patience {
        longest: gateway.settings.max_idle,
        step: gateway.stalled,
        is_needed: &|holds_room| gateway.needs_back(holds_room),
    };
    let mut outgoing = Outgoing::default();
    let mut next = None;
    while let Some(Pending { room, work }) = match next.take() {
        Some(next) => Some(next),
        None => pending.recv().await,
    } {
        let outcome = match work {
            Work::Begun(outcome) => outcome.await,
            Work::InTurn(handle, call, _turn) => handle(client, call).await,
        };
        drop(room);
        let mut failed = outgoing.add(outcome).err();
        // Many produces are durable with one sync.
        while failed.is_none() && outgoing.len() < TOGETHER_BYTES {
            match pending.try_recv() {
                Ok(Pending {
                    room,
                    work: Work::Begun(mut outcome),
                }) => match futures::poll!(&mut outcome) {
                    Poll::Ready(outcome) => failed = outgoing.add(outcome).err(),
                    Poll::Pending => {
                        let work = Work::Begun(outcome);
                        next = Some(Pending { room, work });
                        break;
                    }
                },
                Ok(in_turn) => {
                    next = Some(in_turn);
                    break;
                }
                Err(_) => break,
            }
        }
        send(&mut write, &mut outgoing, &patience).await?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    write.shutdown().await?;
    Ok(())
}

/// Waits for a client in the middle of a request. One that stalls is left.
async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, KafkaError> {
    match timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(stalled(limit)),
    }
}

pub(crate) fn stalled(silent: Duration) -> KafkaError {
    KafkaError::Stalled {
        silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A request's bytes.
struct Frame {
    bytes: Bytes,
    /// What they hold of the room for requests.
    room: HeldRoom,
    /// Nothing but produces is under way before it.
    turn: OwnedSemaphorePermit,
}

/// The next request; none at the end. An idle connection holds no buffer.
async fn next_frame(
    read: &mut OwnedReadHalf,
    client: &Client,
    turns: &Arc<Semaphore>,
) -> Result<Option<Frame>, KafkaError> {
    let (settings, limit) = (&client.gateway.settings, client.gateway.stalled);
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
    in_time(limit, read.read_exact(rest)).await?;
    let length =
        frame::length(prefix, settings.max_request_bytes).ok_or(KafkaError::FrameSize {
            bytes: i32::from_be_bytes(prefix).into(),
            limit_bytes: settings.max_request_bytes,
        })?;
    // Nobody closes it.
    let Ok(turn) = Arc::clone(turns).acquire_owned().await else {
        return Ok(None);
    };
    let (mut bytes, mut room, mut upto) = (BytesMut::new(), HeldRoom::default(), 0);
    while upto < length {
        let more = frame::next_step(upto, length) - upto;
        client.gateway.requests.grow(&mut room, more).await;
        bytes.reserve(more);
        upto += more;
        while bytes.len() < upto {
            let mut limited = (&mut *read).take((upto - bytes.len()) as u64);
            if in_time(limit, limited.read_buf(&mut bytes)).await? == 0 {
                return Err(KafkaError::Connection(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
    Ok(Some(Frame {
        bytes: bytes.freeze(),
        room,
        turn,
    }))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
