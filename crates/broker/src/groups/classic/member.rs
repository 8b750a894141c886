//! One member of a group.

use bytes::Bytes;

use crate::groups::effects::WaitId;
use crate::groups::types::{JoinGroup, Protocol};

#[derive(Debug)]
pub(super) struct Member {
    /// The order of joining: of those who can lead, the one that has been here longest does.
    pub(super) place: u64,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i64,
    pub(super) rebalance_timeout_ms: i64,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// It waits for its first generation, and does not know its id yet.
    pub(super) is_new: bool,
    pub(super) join_wait: Option<WaitId>,
    pub(super) sync_wait: Option<WaitId>,
    /// It is removed if nothing is heard of it until then.
    pub(super) expires_ms: i64,
}

impl Member {
    pub(super) fn new(request: &JoinGroup, place: u64) -> Member {
        let mut member = Member {
            place,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            is_new: true,
            join_wait: None,
            sync_wait: None,
            expires_ms: i64::MAX,
        };
        member.update(request);
        member
    }

    /// Takes over what a join says anew.
    pub(super) fn update(&mut self, request: &JoinGroup) {
        self.client_id.clone_from(&request.client_id);
        self.client_host.clone_from(&request.client_host);
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = request.rebalance_timeout_ms.max(0);
        self.protocols.clone_from(&request.protocols);
    }

    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|one| one.name == protocol)
    }

    /// What it says in a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|one| one.name == protocol)
            .map(|one| one.metadata.clone())
            .unwrap_or_default()
    }

    /// Something was heard of it.
    pub(super) fn heard(&mut self, now_ms: i64) {
        self.expires_ms = now_ms.saturating_add(self.session_timeout_ms);
    }

    /// Ends its waiting for an assignment, if it waits. Its session begins anew: it sent no heartbeat meanwhile.
    pub(super) fn end_sync_wait(&mut self, now_ms: i64) -> Option<WaitId> {
        let wait = self.sync_wait.take()?;
        self.heard(now_ms);
        Some(wait)
    }

    /// Whether it waits for an answer, and so can send no heartbeat.
    fn is_waiting(&self) -> bool {
        self.join_wait.is_some() || self.sync_wait.is_some()
    }

    /// When it is removed for silence; a member that waits for an answer is not, unless it is new.
    pub(super) fn expires_ms(&self) -> Option<i64> {
        (self.is_new || !self.is_waiting()).then_some(self.expires_ms)
    }
}
