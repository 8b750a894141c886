//! One member of a group.

use std::collections::BTreeSet;

use super::assignor::{Assignor, Partitions};
use super::types::{ConsumerHeartbeat, STATIC_LEAVE_EPOCH};

/// How far a member is on its way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable,
    /// It has been told to give partitions up, and has not said yet that it has.
    Revoking,
    /// Some of what it is to have is still with others.
    Waiting,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i64,
    /// The topics it names.
    pub(super) names: BTreeSet<String>,
    pub(super) pattern: Option<String>,
    pub(super) assignor: Option<Assignor>,
    pub(super) state: MemberState,
    /// What it has been told, or is about to be.
    pub(super) epoch: i32,
    /// The one before, which it may still know: the answer that told it the next may be lost.
    pub(super) previous_epoch: i32,
    /// What it may have and will have.
    pub(super) assigned: Partitions,
    /// What it must give up, and may still have.
    pub(super) revoking: Partitions,
    /// It is removed if nothing is heard of it until then.
    pub(super) expires_ms: i64,
    /// It is removed if it has not given up until then what it must.
    pub(super) revoke_by_ms: Option<i64>,
    /// The last answer may not have reached it: the next one says everything.
    pub(super) tell_all: bool,
}

impl Member {
    /// Takes over what a heartbeat says; whether that is another subscription than before.
    pub(super) fn update(&mut self, request: &ConsumerHeartbeat) -> Changed {
        let before = self.clone();
        self.client_id.clone_from(&request.client_id);
        self.client_host.clone_from(&request.client_host);
        if let Some(instance_id) = &request.instance_id {
            self.instance_id = Some(instance_id.clone());
        }
        if let Some(rack_id) = &request.rack_id {
            self.rack_id = Some(rack_id.clone());
        }
        if let Some(timeout_ms) = request.rebalance_timeout_ms {
            self.rebalance_timeout_ms = timeout_ms;
        }
        if let Some(topics) = &request.topics {
            self.names = topics.iter().cloned().collect();
        }
        if let Some(pattern) = &request.pattern {
            self.pattern = Some(pattern.clone()).filter(|pattern| !pattern.is_empty());
        }
        if let Some(assignor) = request.assignor.as_deref() {
            self.assignor = Assignor::find(assignor);
        }
        Changed {
            anything: *self != before,
            subscription: self.names != before.names
                || self.pattern != before.pattern
                || self.assignor != before.assignor,
        }
    }

    /// The next epoch, if it is another.
    pub(super) fn move_to(&mut self, epoch: i32) {
        if epoch != self.epoch {
            self.previous_epoch = self.epoch;
            self.epoch = epoch;
        }
    }

    /// Whether it is a static member that has left and may come back.
    pub(super) fn is_away(&self) -> bool {
        self.epoch == STATIC_LEAVE_EPOCH
    }

    /// Whether it has everything that the target of this epoch gives it.
    pub(super) fn has_reached(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// When it is removed, unless it is heard of.
    pub(super) fn deadline_ms(&self) -> i64 {
        let revoke_by_ms = self.revoke_by_ms.unwrap_or(i64::MAX);
        self.expires_ms.min(revoke_by_ms)
    }

    pub(super) fn heard(&mut self, now_ms: i64, session_timeout_ms: i64) {
        self.expires_ms = now_ms.saturating_add(session_timeout_ms);
    }
}

/// What of a member a heartbeat has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    pub(super) anything: bool,
    pub(super) subscription: bool,
}
