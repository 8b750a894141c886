//! A group as it is kept, and back.

use mainstem_journal::mutation;

use super::member::Member;
use super::{Classic, Phase};
use crate::groups::record::{GroupRecord, MemberRecord};
use crate::groups::settings::GroupSettings;
use crate::groups::types::{JoinGroup, Protocol};
use std::sync::Arc;

impl Classic {
    /// The group as it would be found after a restart.
    pub(crate) fn record(&self) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberRecord {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        GroupRecord {
            generation: self.generation,
            since_ms: self.since_ms,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
        }
    }

    /// The group as a restart is to find it that comes now. What has not been kept of a rebalance is then as if it had not
    /// been: there are no members, so that whoever comes back joins again. A member that took its generation for one with an
    /// assignment would have none, and wait for ever.
    pub(crate) fn record_between(&self) -> GroupRecord {
        let mut record = self.record();
        if !matches!(self.state, Phase::Empty | Phase::Stable) {
            record.members.clear();
            record.protocol = None;
            record.leader = None;
        }
        record
    }

    /// A group after a restart: stable if it had members, whose sessions begin anew with [`Classic::resume`].
    pub(crate) fn restore(name: Arc<str>, settings: GroupSettings, record: GroupRecord) -> Classic {
        let mut group = Classic::new(name, settings, record.since_ms);
        if !mutation::active(mutation::GROUP_EPOCH_NOT_RESTORED) {
            group.generation = record.generation;
        }
        group.protocol_type = record.protocol_type;
        group.protocol = record.protocol;
        group.leader = record.leader;
        for (place, kept) in record.members.into_iter().enumerate() {
            let request = JoinGroup {
                instance_id: kept.instance_id.clone(),
                client_id: kept.client_id,
                client_host: kept.client_host,
                session_timeout_ms: kept.session_timeout_ms,
                rebalance_timeout_ms: kept.rebalance_timeout_ms,
                protocols: vec![Protocol {
                    name: group.protocol.clone().unwrap_or_default(),
                    metadata: kept.metadata,
                }],
                ..JoinGroup::default()
            };
            let mut member = Member::new(&request, place as u64);
            member.is_new = false;
            member.assignment = kept.assignment;
            if let Some(instance_id) = kept.instance_id {
                group.statics.insert(instance_id, kept.member_id.clone());
            }
            group.members.insert(kept.member_id, member);
        }
        group.next_place = group.members.len() as u64;
        if !group.members.is_empty() {
            group.state = Phase::Stable;
        }
        group.find_topics();
        group
    }

    /// The time is known: from now on silence counts.
    pub(crate) fn resume(&mut self, now_ms: i64) {
        for member in self.members.values_mut() {
            member.heard(now_ms);
        }
    }
}
