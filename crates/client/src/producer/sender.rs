//! The producer's task: takes what has gathered, sends it, matches answers, connects again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use mainstem_proto::v1::ProduceRequest;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::gather::{Gather, Gathered, Limits};
use super::tracker::{Identity, MAX_IN_FLIGHT, Tracker};
use super::transport::Transport;
use crate::ClientError;
use crate::backoff::Backoff;
use crate::client::millis;

/// What the producer's handles and its task share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) gather: Mutex<Gather>,
    /// Bytes that may still be buffered.
    pub(crate) room: Semaphore,
    /// There is something for the task.
    pub(crate) wake: Notify,
    /// Batches got their outcome.
    pub(crate) settled: Notify,
    /// The first failure since the last flush.
    pub(crate) first_error: Mutex<Option<ClientError>>,
    /// Why nothing goes on at the moment.
    pub(crate) trouble: Mutex<Option<Arc<ClientError>>>,
    topics: Mutex<Vec<Arc<str>>>,
    closed: AtomicBool,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(limits: Limits, buffer_bytes: usize) -> Shared {
        Shared {
            gather: Mutex::new(Gather::new(limits)),
            room: Semaphore::new(buffer_bytes.min(Semaphore::MAX_PERMITS)),
            wake: Notify::new(),
            settled: Notify::new(),
            first_error: Mutex::new(None),
            trouble: Mutex::new(None),
            topics: Mutex::default(),
            closed: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the producer was started.
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// Gives a topic its number.
    pub(crate) fn number_topic(&self, name: &Arc<str>) -> u32 {
        let mut topics = self.topics.lock();
        topics.push(name.clone());
        (topics.len() - 1) as u32
    }

    /// Ends the task; what has no outcome fails.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.close();
        self.wake.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// The task.
pub(crate) struct Sender<T> {
    shared: Arc<Shared>,
    transport: T,
    tracker: Tracker,
    max_in_flight: usize,
    backoff: Backoff,
    /// Nothing is sent before this time: the server asked for patience.
    patience_until_ms: u64,
    /// How often it is looked whose time is up, since that means to look at everything.
    expiry_every_ms: u64,
    /// When it is looked next.
    expiry_at_ms: u64,
}

impl<T: Transport> Sender<T> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        transport: T,
        limits: Limits,
        max_in_flight: usize,
        identity: Option<Identity>,
    ) -> Sender<T> {
        let mut tracker = Tracker::new(&limits);
        if let Some(identity) = identity {
            tracker.identify(identity);
        }
        Sender {
            shared,
            transport,
            tracker,
            max_in_flight: max_in_flight.clamp(1, MAX_IN_FLIGHT),
            backoff: Backoff::default(),
            patience_until_ms: 0,
            expiry_every_ms: (limits.delivery_timeout_ms / 10).clamp(1, 1_000),
            expiry_at_ms: 0,
        }
    }

    /// Runs until the producer is closed.
    pub(crate) async fn run(mut self) {
        while !self.shared.is_closed() {
            if self.is_idle() {
                self.shared.wake.notified().await;
                continue;
            }
            let Err(error) = self.exchange().await else {
                break;
            };
            self.tracker.disconnected();
            if error.is_connection() || error.is_retriable() {
                tracing::debug!(%error, "producing stopped; trying again");
                self.tracker.trouble(error);
                *self.shared.trouble.lock() = self.tracker.last_trouble();
            } else {
                // Nothing that waiting could mend.
                self.fail_all(&error);
            }
            let until_ms = self.shared.now_ms() + millis(self.backoff.next());
            self.pause(until_ms).await;
        }
        self.fail_all(&ClientError::Closed);
    }

    fn is_idle(&self) -> bool {
        self.tracker.is_empty() && self.shared.gather.lock().is_empty()
    }

    /// Connects and exchanges requests and answers, until the connection fails or the producer is closed.
    async fn exchange(&mut self) -> Result<(), ClientError> {
        let mut wire = self.transport.open().await?;
        loop {
            self.expire();
            self.hand_out();
            if self.shared.is_closed() {
                return Ok(());
            }
            if self.tracker.needs_identity() {
                let identity = self.transport.init_producer().await?;
                self.tracker.identify(identity);
            }
            let now_ms = self.shared.now_ms();
            let patient = now_ms < self.patience_until_ms;
            while !patient && let Some(request) = self.next_request(now_ms) {
                // There is room for all that may be under way, so a full channel is a broken one too.
                wire.requests
                    .try_send(request)
                    .map_err(|error| broken(&error.to_string()))?;
            }
            let deadline_ms = self.deadline_ms(patient.then_some(self.patience_until_ms));
            tokio::select! {
                answer = wire.answers.next() => {
                    self.tracker.answer(answer.ok_or_else(|| broken("the server ended the stream"))??)?;
                    if self.tracker.take_troubled() {
                        self.patience_until_ms = self.shared.now_ms() + millis(self.backoff.next());
                        *self.shared.trouble.lock() = self.tracker.last_trouble();
                    } else {
                        *self.shared.trouble.lock() = None;
                        self.backoff.reset();
                    }
                }
                () = self.shared.wake.notified() => {}
                () = self.sleep_until(deadline_ms) => {}
            }
        }
    }

    /// What goes out now. While something is under way, only what is worth a request of its own: so a batch grows while
    /// the one before it is being made durable.
    fn next_request(&mut self, now_ms: u64) -> Option<ProduceRequest> {
        let in_flight = self.tracker.requests_in_flight();
        if in_flight >= self.max_in_flight {
            return None;
        }
        let taken = {
            let mut gather = self.shared.gather.lock();
            let worthwhile = in_flight == 0 || gather.is_plenty();
            if worthwhile {
                gather.take(now_ms, |lane| self.tracker.allows(lane))
            } else {
                Vec::new()
            }
        };
        for (lane, gathered) in taken {
            if !self.tracker.knows_topic(lane.topic) {
                self.tracker.set_topics(self.shared.topics.lock().clone());
            }
            self.tracker.stamp(lane, gathered);
        }
        self.tracker.request()
    }

    /// Waits, and meanwhile gives up what is not acknowledged in time.
    async fn pause(&mut self, until_ms: u64) {
        loop {
            self.expire();
            self.hand_out();
            if self.shared.is_closed() || self.shared.now_ms() >= until_ms {
                return;
            }
            let deadline_ms = self.deadline_ms(Some(until_ms));
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = self.sleep_until(deadline_ms) => {}
            }
        }
    }

    /// When to look again, if nothing happens: at `other`, when a linger ends, or when time may be up for something.
    fn deadline_ms(&self, other: Option<u64>) -> Option<u64> {
        let lingers = self.shared.gather.lock().next_linger_ms();
        // An idle connection is left alone.
        let expiry = (!self.is_idle()).then_some(self.expiry_at_ms);
        [lingers, expiry, other].into_iter().flatten().min()
    }

    async fn sleep_until(&self, deadline_ms: Option<u64>) {
        match deadline_ms {
            // At least a millisecond, so that a deadline which cannot be met never spins.
            Some(deadline_ms) => {
                let wait_ms = deadline_ms.saturating_sub(self.shared.now_ms()).max(1);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            None => std::future::pending().await,
        }
    }

    fn expire(&mut self) {
        let now_ms = self.shared.now_ms();
        if now_ms < self.expiry_at_ms {
            return;
        }
        self.expiry_at_ms = now_ms + self.expiry_every_ms;
        self.tracker.expire(now_ms);
        let expired = self.shared.gather.lock().expired(now_ms);
        if !expired.is_empty() {
            let error = self.tracker.not_sent();
            self.fail(expired, &error);
        }
    }

    fn fail_all(&mut self, error: &ClientError) {
        self.tracker.fail_all(error);
        let gathered = self.shared.gather.lock().drain();
        self.fail(gathered, error);
        self.hand_out();
    }

    fn fail(&self, gathered: Vec<Gathered>, error: &ClientError) {
        if gathered.is_empty() {
            return;
        }
        self.shared
            .first_error
            .lock()
            .get_or_insert_with(|| error.clone());
        for batch in gathered {
            batch.outcome.settle(Err(error.clone()));
            self.release(batch.buffered_bytes, batch.epoch);
        }
        self.shared.settled.notify_waiters();
    }

    /// Gives room back, and tells those who wait for a flush.
    fn hand_out(&mut self) {
        if let Some(error) = self.tracker.take_first_error() {
            self.shared.first_error.lock().get_or_insert(error);
        }
        let settled = self.tracker.take_settled();
        if settled.is_empty() {
            return;
        }
        for batch in settled {
            self.release(batch.buffered_bytes, batch.epoch);
        }
        self.shared.settled.notify_waiters();
    }

    fn release(&self, buffered_bytes: usize, epoch: u64) {
        self.shared.room.add_permits(buffered_bytes);
        self.shared.gather.lock().settled(epoch);
    }
}

fn broken(why: &str) -> ClientError {
    ClientError::Unreachable {
        server: "the server".into(),
        why: why.into(),
    }
}
