//! The other end of a connection, and what all connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstem::{Broker, Caller, Mainstem, MemorySplit};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::fetch_session::FetchSession;
use crate::room::RequestRoom;
use crate::settings::Settings;

/// What one answer to a fetch takes of the room for answers at most.
const MOST_ANSWER_SHARE: usize = 8;
/// How long a client may be silent in the middle of a request; and after how long it is asked again and again whether others
/// need what a client holds that takes nothing of its answer.
const STALLED: Duration = Duration::from_secs(30);

/// What all connections share.
pub(crate) struct Gateway {
    pub(crate) mainstem: Mainstem,
    pub(crate) settings: Settings,
    /// Bytes that all requests together may have under way.
    pub(crate) requests: RequestRoom,
    /// Bytes of memory that all fetched answers together may hold.
    answers: Arc<Semaphore>,
    answer_room: usize,
    /// How long a client may be silent in the middle of a request; and how often it is looked at that takes nothing of its
    /// answer.
    pub(crate) stalled: Duration,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Gateway {
    pub(crate) fn new(
        mainstem: Mainstem,
        settings: Settings,
        stopping: watch::Receiver<bool>,
    ) -> Gateway {
        let split = MemorySplit::of(mainstem.status().memory_limit_bytes);
        let half = usize::try_from(split.gateways_bytes / 2).unwrap_or(usize::MAX);
        let half = half.clamp(1 << 20, u32::MAX as usize);
        Gateway {
            mainstem,
            settings,
            requests: RequestRoom::new(half),
            answers: Arc::new(Semaphore::new(half)),
            answer_room: half,
            stalled: STALLED,
            stopping,
        }
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.mainstem.broker()
    }

    /// Room for an answer that holds up to `bytes` of memory, as much as one may have; `None` where others have taken it all. Never waits:
    /// whoever does not read their answers slows others down and does not stop them.
    pub(crate) fn room_for_answer(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = bytes.min(self.answer_room / MOST_ANSWER_SHARE);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        Arc::clone(&self.answers)
            .try_acquire_many_owned(permits)
            .ok()
    }

    /// Whether what lies in answers that nobody takes is to be given back: others lack the room, or the server stops.
    pub(crate) fn needs_back(&self, holds_room: bool) -> bool {
        let is_short = self.answers.available_permits() < self.answer_room / MOST_ANSWER_SHARE;
        *self.stopping.borrow() || holds_room && is_short
    }
}

/// The other end of one connection.
///
/// Who it is, is settled before its first request: nobody is asked for a name yet. Authentication will come between the
/// connection's start and this.
pub(crate) struct Client {
    pub(crate) gateway: Arc<Gateway>,
    /// In whose name every request is made.
    pub(crate) caller: Caller,
    /// The address here that the connection arrived at.
    pub(crate) local: SocketAddr,
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// What it reads, if it keeps a fetch session (KIP-227). A connection has one at most, and it ends with it.
    pub(crate) fetch_session: Mutex<Option<FetchSession>>,
    /// Becomes true when nothing more will be asked: the client has closed its side, or the server stops.
    pub(crate) ending: watch::Sender<bool>,
}

impl Client {
    pub(crate) fn new(gateway: Arc<Gateway>, local: SocketAddr, peer: SocketAddr) -> Client {
        Client {
            gateway,
            caller: Caller::anonymous(),
            local,
            peer,
            fetch_session: Mutex::new(None),
            ending: watch::Sender::new(false),
        }
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.gateway.broker()
    }

    /// Where it comes from, as groups show it.
    pub(crate) fn host(&self) -> String {
        format!("/{}", self.peer.ip().to_canonical())
    }

    /// Where this client is told to find the broker.
    pub(crate) fn advertised(&self) -> (String, i32) {
        match &self.gateway.settings.advertised {
            Some((host, port)) => (host.clone(), i32::from(*port)),
            None => (
                self.local.ip().to_canonical().to_string(),
                i32::from(self.local.port()),
            ),
        }
    }

    /// Resolves when nothing more will be asked: no answer is held back any longer.
    pub(crate) async fn ended(&self) {
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }
}
