//! One produce stream: requests are submitted as they come and answered in the same order.
//!
//! What is under way is bounded, for this stream and for all of them together; beyond that the stream is not read, and
//! HTTP/2 holds the client back. What is under way is always moved on, also while the client does not read its answers,
//! and gives its room back as soon as it is done: a client that stalls holds up nobody else.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use mainstem::Caller;
use mainstem_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Status, Streaming};

use crate::call::Platform;
use crate::{errors, produce};

/// Bytes of requests that are not answered at most, before the one that goes beyond.
const MAX_BYTES: usize = 8 << 20;
/// Requests that are not answered at most.
const MAX_REQUESTS: usize = 64;

type Answer = Result<v1::ProduceResponse, Status>;

/// Starts the work of a stream; it ends when the client has ended its requests and has every answer, when the client goes
/// away, or when the server stops.
pub(crate) fn start(
    platform: &Platform,
    caller: Caller,
    requests: Streaming<v1::ProduceRequest>,
) -> mpsc::Receiver<Answer> {
    let (answers, receiver) = mpsc::channel(1);
    tokio::spawn(run(platform.clone(), caller, requests, answers));
    receiver
}

async fn run(
    platform: Platform,
    caller: Caller,
    mut requests: Streaming<v1::ProduceRequest>,
    answers: mpsc::Sender<Answer>,
) {
    let (platform, caller) = (&platform, &caller);
    // Received, and waiting for room; it keeps its place in the queue.
    let mut next: Option<BoxFuture<'static, Option<(OwnedSemaphorePermit, v1::ProduceRequest)>>> =
        None;
    let mut under_way = FuturesOrdered::new();
    let mut answered: VecDeque<v1::ProduceResponse> = VecDeque::new();
    let mut bytes = 0;
    let (mut open, mut stopped) = (true, false);
    let stopping = platform.stopping();
    tokio::pin!(stopping);
    while open || next.is_some() || !under_way.is_empty() || !answered.is_empty() {
        let may_read = open && next.is_none() && bytes < MAX_BYTES;
        let may_read = may_read && under_way.len() + answered.len() < MAX_REQUESTS;
        tokio::select! {
            request = requests.message(), if may_read => match request {
                Ok(Some(request)) => {
                    if let Err(status) = produce::check(&request) {
                        let _ = answers.try_send(Err(status));
                        return;
                    }
                    let room = Arc::clone(&platform.room);
                    next = Some(async move {
                        let permits = u32::try_from(produce::size(&request)).unwrap_or(u32::MAX);
                        Some((room.acquire_many_owned(permits).await.ok()?, request))
                    }.boxed());
                }
                Ok(None) => open = false,
                // The client is gone, or sent what cannot be read: what is under way has its effect, and nobody to tell.
                Err(status) => {
                    let _ = answers.try_send(Err(status));
                    return;
                }
            },
            Some(admitted) = OptionFuture::from(next.as_mut()), if next.is_some() => {
                next = None;
                let Some((room, request)) = admitted else { return };
                let size = produce::size(&request);
                bytes += size;
                under_way.push_back(async move {
                    let answer = produce::append(platform, caller, request).await;
                    drop(room);
                    (answer, size)
                });
            }
            Some((answer, size)) = under_way.next(), if !under_way.is_empty() => {
                bytes -= size;
                answered.push_back(answer);
            }
            place = answers.reserve(), if !answered.is_empty() => {
                let Ok(place) = place else { return };
                if let Some(answer) = answered.pop_front() {
                    place.send(Ok(answer));
                }
            }
            () = answers.closed() => return,
            () = &mut stopping, if open => {
                open = false;
                stopped = true;
            }
        }
    }
    if stopped {
        // After the answers to all that was under way.
        let _ = answers.send(Err(errors::stopping())).await;
    }
}
