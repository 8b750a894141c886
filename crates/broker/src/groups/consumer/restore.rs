//! A group as it is kept, and back.

use std::sync::Arc;

use mainstem_journal::mutation;

use super::member::Member;
use super::record::{ConsumerMemberRecord, ConsumerRecord};
use super::{Consumer, Timing};
use crate::groups::settings::GroupSettings;

impl Consumer {
    /// The group as it would be found after a restart.
    pub(crate) fn record(&self) -> ConsumerRecord {
        let member = |(id, member): (&Arc<str>, &Member)| ConsumerMemberRecord {
            id: id.to_string(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            names: member.names.iter().cloned().collect(),
            pattern: member.pattern.clone(),
            assignor: member.assignor,
            state: member.state,
            epoch: member.epoch,
            previous_epoch: member.previous_epoch,
            assigned: member.assigned.clone(),
            revoking: member.revoking.clone(),
            target: self.target.get(id).cloned().unwrap_or_default(),
        };
        ConsumerRecord {
            epoch: self.epoch,
            since_ms: self.since_ms,
            target_epoch: self.target_epoch,
            topics: self
                .topics
                .iter()
                .map(|(name, size)| (name.to_string(), *size))
                .collect(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// A group after a restart; sessions begin anew with [`Consumer::resume`].
    pub(crate) fn restore(
        name: Arc<str>,
        settings: GroupSettings,
        record: ConsumerRecord,
    ) -> Consumer {
        let mut group = Consumer::new(name, settings, record.epoch, record.since_ms);
        if mutation::active(mutation::GROUP_EPOCH_NOT_RESTORED) {
            group.epoch = 0;
        }
        group.target_epoch = record.target_epoch;
        group.topics = record
            .topics
            .into_iter()
            .map(|(name, size)| (name.into(), size))
            .collect();
        for kept in record.members {
            let id: Arc<str> = kept.id.into();
            if let Some(instance_id) = &kept.instance_id {
                group.statics.insert(instance_id.clone(), id.clone());
            }
            group.target.insert(id.clone(), kept.target);
            group.members.insert(id.clone(), Member::default());
            let member = Member {
                instance_id: kept.instance_id,
                rack_id: kept.rack_id,
                client_id: kept.client_id,
                client_host: kept.client_host,
                rebalance_timeout_ms: kept.rebalance_timeout_ms,
                names: kept.names.into_iter().collect(),
                pattern: kept.pattern,
                assignor: kept.assignor,
                state: kept.state,
                epoch: kept.epoch,
                previous_epoch: kept.previous_epoch,
                assigned: kept.assigned,
                revoking: kept.revoking,
                // Until the time is known.
                expires_ms: i64::MAX,
                ..Member::default()
            };
            group.replace(&id, member);
        }
        group
    }

    /// The time is known: from now on silence counts, and so does keeping what must be given up.
    pub(crate) fn resume(&mut self, now_ms: i64, timing: Timing) {
        for member in self.members.values_mut() {
            member.heard(now_ms, timing.session_timeout_ms);
            if !member.revoking.is_empty() {
                let until_ms = now_ms.saturating_add(member.rebalance_timeout_ms);
                member.revoke_by_ms = Some(until_ms);
            }
        }
    }
}
