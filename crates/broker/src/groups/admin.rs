//! What administrators ask: which groups there are, what they are made of, and that they go.

use mainstem_store::StoreOp;

use super::commits::not_found;
use super::coordinator::{GroupKey, Slot};
use super::fetch::scan;
use super::members::Members;
use super::types::{GroupDescription, GroupListing, GroupState, GroupType};
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::coordinator::answered;
use crate::topics::MAX_TRIES;
use crate::{BrokerError, Caller, keys, names};

impl Broker {
    /// The tenant's groups, by name: those in one of `states` and of one of `types`, where any are named.
    pub fn list_groups(
        &self,
        caller: &Caller,
        states: &[GroupState],
        types: &[GroupType],
    ) -> Result<Vec<GroupListing>, BrokerError> {
        access::check(caller, Access::DescribeGroup { group: "*" })?;
        let first = GroupKey::new(caller, "");
        Ok(self.inner.groups.with(None, |state| {
            state
                .groups()
                .range(first..)
                .take_while(|(key, _)| key.tenant == caller.tenant)
                .map(|(_, slot)| slot.members.listing())
                .filter(|one| states.is_empty() || states.contains(&one.state))
                .filter(|one| types.is_empty() || types.contains(&one.group_type))
                .collect()
        }))
    }

    /// A group of the classic protocol with its members.
    pub fn describe_group(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<GroupDescription, BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        names::check_group(group, true)?;
        let key = GroupKey::new(caller, group);
        self.inner.groups.with(None, |state| {
            let slot = state.slot(&key).ok_or_else(|| not_found(group))?;
            match &slot.members {
                Members::Classic(members) => Ok(members.describe()),
                Members::Consumer(_) => Err(BrokerError::OtherProtocol {
                    group: group.to_owned(),
                    protocol: GroupType::Consumer,
                }),
            }
        })
    }

    /// Deletes a group that has no members, with everything it has committed, in one frame.
    pub async fn delete_group(
        &self,
        caller: &Caller,
        group: &str,
        now_ms: i64,
    ) -> Result<(), BrokerError> {
        access::check(caller, Access::DeleteGroup { group })?;
        names::check_group(group, true)?;
        let key = GroupKey::new(caller, group);
        let groups = &self.inner.groups;
        let removable = |slot: Option<&Slot>| match slot {
            None => Err(not_found(group)),
            Some(slot) if !slot.members.is_vacant() => Err(BrokerError::GroupNotEmpty {
                group: group.to_owned(),
            }),
            Some(slot) => Ok((slot.commits, slot.in_flight.clone())),
        };
        for _ in 0..MAX_TRIES {
            let (commits, in_flight) =
                groups.with(Some(now_ms), |state| removable(state.slot(&key)))?;
            let prefix = keys::group_offsets(&caller.tenant, group);
            // What is under way now may be applied before the scan or after it.
            let mut committed: Vec<_> = in_flight.into_values().flatten().collect();
            scan(self.engine().store().as_ref(), &prefix, |key, _| {
                committed.push(keys::group_offset(key.tenant, key.group, key.partition));
            })?;
            committed.sort();
            committed.dedup();
            let answer = groups.with(Some(now_ms), |state| {
                // Since the scan somebody has committed: that is not to stay behind.
                if removable(state.slot(&key))?.0 != commits {
                    return Ok::<_, BrokerError>(None);
                }
                let ops = committed
                    .into_iter()
                    .map(|key| StoreOp::delete(keys::OFFSETS, key));
                Ok(Some(state.remove(&key, ops.collect())))
            })?;
            if let Some(answer) = answer {
                answered(answer).await?;
                tracing::info!(tenant = %caller.tenant, principal = %caller.principal, group, "group deleted");
                return Ok(());
            }
        }
        Err(BrokerError::Contended {
            what: format!("group '{group}'"),
        })
    }
}
