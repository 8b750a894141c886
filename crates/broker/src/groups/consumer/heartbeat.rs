//! Joining, going on, leaving: all of it is a heartbeat.

use std::sync::Arc;

use uuid::Uuid;

use super::assignor::Partitions;
use super::member::{Member, MemberState};
use super::pattern::Pattern;
use super::types::{ConsumerBeat, ConsumerHeartbeat, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH};
use super::{Consumer, Moment};
use crate::BrokerError;
use crate::groups::effects::{Effect, WaitId};

impl Consumer {
    /// A member's heartbeat. `wait` is answered once everything that the answer has seen is durable.
    pub(crate) fn heartbeat(
        &mut self,
        request: &ConsumerHeartbeat,
        moment: &Moment<'_>,
        wait: WaitId,
        effects: &mut Vec<Effect>,
    ) {
        let answer = match request.member_epoch {
            LEAVE_EPOCH | STATIC_LEAVE_EPOCH => self.leave(request, moment),
            _ => self.go_on(request, moment),
        };
        self.answer(wait, answer, effects);
        self.keep(effects);
    }

    fn go_on(
        &mut self,
        request: &ConsumerHeartbeat,
        moment: &Moment<'_>,
    ) -> Result<ConsumerBeat, BrokerError> {
        let pattern = request.pattern.as_deref();
        if let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty())
            && !self.patterns.contains_key(pattern)
        {
            Pattern::new(pattern)?;
        }
        let joins = request.member_epoch == JOIN_EPOCH;
        let owned: Option<Partitions> = request
            .owned
            .as_ref()
            .map(|owned| owned.iter().copied().collect());
        let id = match joins {
            true => self.admit(request, owned.as_ref(), moment.random)?,
            false => self.known(request, owned.as_ref())?,
        };
        let mut subscription = false;
        if let Some(member) = self.members.get_mut(&id) {
            let changed = member.update(request);
            subscription = changed.subscription;
            self.changed |= changed.anything;
        }
        self.retarget(subscription, moment.topics);
        let before = self.members.get(&id).map(|member| member.assigned.clone());
        self.changed |= self.reconcile(&id, owned.as_ref(), moment.now_ms);
        let Some(member) = self.members.get_mut(&id) else {
            return Err(self.unknown_member(&id));
        };
        member.heard(moment.now_ms, moment.timing.session_timeout_ms);
        let says_all = request.rebalance_timeout_ms.is_some()
            && (request.topics.is_some() || request.pattern.is_some())
            && request.owned.is_some();
        // One that is to give partitions up and has not is told again: its client may have taken a late answer for lost, and
        // asked again as if nothing had been said (librdkafka).
        let tells_all =
            std::mem::take(&mut member.tell_all) || member.state == MemberState::Revoking;
        let tells = joins
            || says_all
            || tells_all
            || before.is_some_and(|before| before != member.assigned);
        Ok(ConsumerBeat {
            member_id: id.to_string(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: moment.timing.heartbeat_interval_ms,
            assignment: tells.then(|| member.assigned.iter().copied().collect()),
        })
    }

    /// Who joins: a new member, one whose join was answered but did not hear it, or a static one that comes back.
    fn admit(
        &mut self,
        request: &ConsumerHeartbeat,
        owned: Option<&Partitions>,
        random: u128,
    ) -> Result<Arc<str>, BrokerError> {
        let id: Arc<str> = match request.member_id.as_str() {
            "" => Uuid::from_u128(random).to_string().into(),
            id => id.into(),
        };
        let holder = request
            .instance_id
            .as_ref()
            .and_then(|instance_id| self.statics.get(instance_id).cloned());
        if let Some(holder) = &holder
            && let Some(member) = self.members.get(holder)
            && (member.is_away() || *holder != id)
        {
            return self.come_back(request, holder.clone(), id);
        }
        if let Some(member) = self.members.get(&id) {
            self.check_epoch(member, request.member_epoch, owned)?;
            self.check_name(request, &id)?;
            return Ok(id);
        }
        if self.members.len() >= self.settings.consumer_max_size {
            return Err(BrokerError::GroupFull {
                group: self.name.to_string(),
                setting: "group.consumer.max.size",
                limit: self.settings.consumer_max_size,
            });
        }
        tracing::info!(group = %self.name, member = %id, "member joined");
        if let Some(instance_id) = &request.instance_id {
            self.statics.insert(instance_id.clone(), id.clone());
        }
        self.members.insert(id.clone(), Member::default());
        self.changed = true;
        // Whatever it reads: it is one more to share with.
        self.bump();
        Ok(id)
    }

    /// A static member comes back, mostly under another id: it takes over what was kept for it, if it had left.
    fn come_back(
        &mut self,
        request: &ConsumerHeartbeat,
        holder: Arc<str>,
        id: Arc<str>,
    ) -> Result<Arc<str>, BrokerError> {
        let instance_id = request.instance_id.clone().unwrap_or_default();
        let away = self
            .members
            .get(&holder)
            .is_some_and(|member| member.is_away());
        // The id may be that of another member.
        if !away || (id != holder && self.members.contains_key(&id)) {
            return Err(BrokerError::UnreleasedInstance {
                group: self.name.to_string(),
                instance_id: instance_id.chars().take(250).collect(),
            });
        }
        tracing::info!(group = %self.name, member = %id, "static member came back");
        self.release(&holder);
        let member = self.members.remove(&holder).unwrap_or_default();
        let target = self.target.remove(&holder).unwrap_or_default();
        let next = Member {
            epoch: JOIN_EPOCH,
            previous_epoch: JOIN_EPOCH,
            ..member
        };
        self.statics.insert(instance_id, id.clone());
        self.target.insert(id.clone(), target);
        self.members.insert(id.clone(), Member::default());
        self.replace(&id, next);
        self.changed = true;
        Ok(id)
    }

    /// A member that goes on.
    fn known(
        &self,
        request: &ConsumerHeartbeat,
        owned: Option<&Partitions>,
    ) -> Result<Arc<str>, BrokerError> {
        let id = &request.member_id;
        self.check_name(request, id)?;
        let (id, member) = self
            .members
            .get_key_value(id.as_str())
            .ok_or_else(|| self.unknown_member(id))?;
        self.check_epoch(member, request.member_epoch, owned)?;
        Ok(id.clone())
    }

    /// Whether the static name, where one is given, is this member's.
    fn check_name(&self, request: &ConsumerHeartbeat, id: &str) -> Result<(), BrokerError> {
        let Some(instance_id) = &request.instance_id else {
            return Ok(());
        };
        match self.statics.get(instance_id) {
            None => Err(self.unknown_member(instance_id)),
            Some(holder) if **holder != *id => Err(BrokerError::FencedInstance {
                group: self.name.to_string(),
                instance_id: instance_id.chars().take(250).collect(),
            }),
            Some(_) => Ok(()),
        }
    }

    /// Whether a member may go on with the epoch it names: the one that it was told last, or the one before if that
    /// answer may have been lost, which shows in that it has nothing that is not its own.
    fn check_epoch(
        &self,
        member: &Member,
        epoch: i32,
        owned: Option<&Partitions>,
    ) -> Result<(), BrokerError> {
        let missed_one = epoch < member.epoch
            && epoch == member.previous_epoch
            && owned.is_some_and(|owned| owned.is_subset(&member.assigned));
        match epoch == member.epoch || missed_one {
            true => Ok(()),
            false => Err(BrokerError::FencedEpoch {
                group: self.name.to_string(),
                got: epoch,
                current: member.epoch,
            }),
        }
    }

    /// A member leaves: for good, or, a static one, for a while.
    fn leave(
        &mut self,
        request: &ConsumerHeartbeat,
        moment: &Moment<'_>,
    ) -> Result<ConsumerBeat, BrokerError> {
        self.check_name(request, &request.member_id)?;
        let Some(member) = self.members.get(request.member_id.as_str()) else {
            return Err(self.unknown_member(&request.member_id));
        };
        match request.member_epoch {
            STATIC_LEAVE_EPOCH if member.instance_id.is_some() => {
                let mut next = Member {
                    revoking: Partitions::new(),
                    revoke_by_ms: None,
                    epoch: STATIC_LEAVE_EPOCH,
                    ..member.clone()
                };
                next.heard(moment.now_ms, moment.timing.session_timeout_ms);
                self.replace(&request.member_id, next);
                self.changed = true;
            }
            _ => self.remove(&request.member_id, moment.now_ms),
        }
        Ok(ConsumerBeat {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }
}
