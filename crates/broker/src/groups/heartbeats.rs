//! What members of the consumer protocol call: a heartbeat, for everything (KIP-848).

use super::commits::not_found;
use super::consumer::Moment;
use super::consumer::assignor::Assignor;
use super::consumer::types::{
    ConsumerBeat, ConsumerGroupDescription, ConsumerHeartbeat, JOIN_EPOCH, LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
};
use super::coordinator::GroupKey;
use super::members::Members;
use super::types::GroupType;
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::coordinator::answered;
use crate::{BrokerError, Caller, names};

/// The longest id, static name or rack of a member, in bytes.
const MAX_NAME_BYTES: usize = 249;
/// The most topics that a member may name.
const MAX_TOPICS: usize = 10_000;

impl Broker {
    /// A heartbeat: joins a group, made if it is not there, goes on in it, or leaves it. The answer says which partitions
    /// the member may have now, where that has changed; it comes once it is durable.
    pub async fn consumer_heartbeat(
        &self,
        caller: &Caller,
        request: ConsumerHeartbeat,
        now_ms: i64,
    ) -> Result<ConsumerBeat, BrokerError> {
        self.check_reader(caller, &request.group)?;
        check(&request)?;
        let key = GroupKey::new(caller, &request.group);
        let topics = self.topic_view(&caller.tenant)?;
        let random = (self.inner.random.lock())();
        let groups = &self.inner.groups;
        let answer = groups.with(Some(now_ms), |state| {
            if state.slot(&key).is_none() && request.member_epoch != JOIN_EPOCH {
                return Err(not_found(&request.group));
            }
            // Under the lock, so that no group sees an older picture after a newer one.
            let topics = groups.views.newest(&key.tenant).unwrap_or(topics);
            let (wait, answer) = state.wait_for_beat();
            let moment = Moment {
                now_ms,
                topics: &topics,
                timing: state.timing(&key),
                random,
            };
            state.event(&key, now_ms, |members, effects| {
                let settings = groups.settings;
                members.consumer_heartbeat(&request, &moment, wait, settings, effects);
            });
            Ok(answer)
        })?;
        answered(answer).await
    }

    /// A group of the consumer protocol with its members.
    pub fn describe_consumer_group(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<ConsumerGroupDescription, BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        names::check_group(group, true)?;
        let key = GroupKey::new(caller, group);
        let topics = self.topic_view(&caller.tenant)?;
        self.inner.groups.with(None, |state| {
            let slot = state.slot(&key).ok_or_else(|| not_found(group))?;
            match &slot.members {
                Members::Consumer(members) => Ok(members.describe(&topics)),
                Members::Classic(_) => Err(BrokerError::OtherProtocol {
                    group: group.to_owned(),
                    protocol: GroupType::Classic,
                }),
            }
        })
    }

    /// Whether a member that names its epoch may read what its group has committed; where the group is of the classic
    /// protocol, or there is none, everybody may.
    pub fn check_member_epoch(
        &self,
        caller: &Caller,
        group: &str,
        member_id: &str,
        epoch: i32,
    ) -> Result<(), BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        let key = GroupKey::new(caller, group);
        self.inner.groups.with(None, |state| {
            match state.slot(&key).map(|slot| &slot.members) {
                Some(Members::Consumer(members)) => members.check_member(member_id, epoch),
                Some(Members::Classic(_)) | None => Ok(()),
            }
        })
    }
}

/// Whether a heartbeat makes sense by itself.
fn check(request: &ConsumerHeartbeat) -> Result<(), BrokerError> {
    let refuse = |why| Err(BrokerError::InvalidHeartbeat { why });
    let texts = [&request.instance_id, &request.rack_id];
    if texts.into_iter().flatten().any(String::is_empty) {
        return refuse("a static name or rack is empty; leave it out instead");
    }
    let is_long = |text: &String| text.len() > MAX_NAME_BYTES;
    if texts.into_iter().flatten().any(is_long) || is_long(&request.member_id) {
        return refuse("a member id, static name or rack is longer than 249 bytes");
    }
    match request.member_epoch {
        JOIN_EPOCH => {
            if request.rebalance_timeout_ms.is_none() {
                return refuse("who joins says its rebalance timeout");
            }
            if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return refuse("who joins has no partitions, and says so");
            }
            if request.topics.is_none() && request.pattern.is_none() {
                return refuse("who joins says which topics it reads, by names or by a pattern");
            }
        }
        STATIC_LEAVE_EPOCH if request.instance_id.is_none() => {
            return refuse("only a static member leaves for a while");
        }
        ..STATIC_LEAVE_EPOCH => return refuse("there is no such member epoch"),
        STATIC_LEAVE_EPOCH | LEAVE_EPOCH | 1.. => {}
    }
    if request.member_id.is_empty() && request.member_epoch != JOIN_EPOCH {
        return refuse("it names no member");
    }
    let topics = request.topics.as_deref().unwrap_or_default();
    if topics.len() > MAX_TOPICS {
        return refuse("it names more than 10000 topics; use a pattern");
    }
    topics
        .iter()
        .try_for_each(|name| names::check_topic(name))?;
    match request.assignor.as_deref() {
        Some(name) if Assignor::find(name).is_none() => Err(BrokerError::UnsupportedAssignor {
            assignor: name.chars().take(60).collect(),
        }),
        _ => Ok(()),
    }
}
