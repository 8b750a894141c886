//! From one generation to the next: waiting for members, then making the generation.

use super::Classic;
use crate::groups::effects::{Effect, Storing};
use crate::groups::types::GroupState;

/// How long a group waits for its members to join.
#[derive(Clone, Copy, Debug)]
pub(super) enum JoinPhase {
    /// The first members of an empty group: they wait a while for company, again and again while more come.
    Initial {
        until_ms: i64,
        /// What may still be waited for after that.
        remaining_ms: i64,
        /// Somebody has come since it last began to wait.
        somebody_new: bool,
    },
    /// Members that are there join again, until all have, or the time is up.
    Again { until_ms: i64 },
}

impl JoinPhase {
    pub(super) fn until_ms(self) -> i64 {
        match self {
            JoinPhase::Initial { until_ms, .. } | JoinPhase::Again { until_ms } => until_ms,
        }
    }
}

impl Classic {
    /// Begins a rebalance, unless one has begun.
    pub(super) fn rebalance(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if self.state == GroupState::PreparingRebalance {
            return;
        }
        if self.state == GroupState::CompletingRebalance {
            self.refuse_syncs(now_ms, effects);
        }
        self.sync_deadline_ms = None;
        self.unsynced.clear();
        self.assigning = None;
        let timeout_ms = self.rebalance_timeout_ms();
        let delay_ms = self.settings.initial_rebalance_delay_ms;
        self.joining = Some(match self.state {
            GroupState::Empty => JoinPhase::Initial {
                until_ms: now_ms.saturating_add(delay_ms),
                remaining_ms: timeout_ms.saturating_sub(delay_ms).max(0),
                somebody_new: false,
            },
            _ => JoinPhase::Again {
                until_ms: now_ms.saturating_add(timeout_ms),
            },
        });
        self.move_to(GroupState::PreparingRebalance, now_ms);
    }

    /// The longest that any member may take.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
    }

    /// Before the first generation, who comes has the others wait for more.
    pub(super) fn somebody_new_has_joined(&mut self) {
        if self.generation == 0
            && let Some(JoinPhase::Initial { somebody_new, .. }) = &mut self.joining
        {
            *somebody_new = true;
        }
    }

    fn refuse_syncs(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let rebalancing = self.rebalancing();
        for member in self.members.values_mut() {
            member.assignment.clear();
            if let Some(wait) = member.end_sync_wait(now_ms) {
                effects.push(Effect::Synced(wait, Err(rebalancing.clone())));
            }
        }
    }

    /// Makes the generation if everybody has joined again; the first members of an empty group wait for their time.
    pub(super) fn finish_joining_if_complete(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let complete = self.pending.is_empty() && self.waiting_to_join() == self.members.len();
        match self.joining {
            Some(JoinPhase::Again { .. }) if complete => self.finish_joining(now_ms, effects),
            // All have left before the first generation.
            Some(JoinPhase::Initial { .. }) if complete && self.members.is_empty() => {
                self.finish_joining(now_ms, effects);
            }
            _ => {}
        }
    }

    /// The time to wait for members is up.
    pub(super) fn joining_is_up(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        match self.joining {
            Some(JoinPhase::Initial {
                remaining_ms,
                somebody_new: true,
                ..
            }) if remaining_ms > 0 => {
                let delay_ms = self.settings.initial_rebalance_delay_ms.min(remaining_ms);
                self.joining = Some(JoinPhase::Initial {
                    until_ms: now_ms.saturating_add(delay_ms.max(1)),
                    remaining_ms: remaining_ms - delay_ms.max(1),
                    somebody_new: false,
                });
            }
            _ => self.finish_joining(now_ms, effects),
        }
    }

    /// Makes the next generation of those who have joined. Dynamic members that have not are gone; static ones may
    /// still come back within their session.
    fn finish_joining(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        self.members
            .retain(|_, member| member.join_wait.is_some() || member.instance_id.is_some());
        let leads = |id: &String| {
            self.members
                .get(id)
                .is_some_and(|member| member.join_wait.is_some())
        };
        if !self.leader.as_ref().is_some_and(leads) {
            let joined = self
                .members
                .iter()
                .filter(|(_, member)| member.join_wait.is_some());
            let next = joined
                .min_by_key(|(_, member)| member.place)
                .map(|(id, _)| id.clone());
            if next.is_none() && !self.members.is_empty() {
                // Nobody who could lead: wait on until somebody comes, or their sessions end.
                let until_ms = now_ms.saturating_add(self.rebalance_timeout_ms().max(1));
                self.joining = Some(JoinPhase::Again { until_ms });
                return;
            }
            self.leader = next;
        }
        self.joining = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        match self.members.is_empty() {
            true => self.become_empty(now_ms, effects),
            false => self.begin_generation(now_ms, effects),
        }
    }

    fn become_empty(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        self.protocol = None;
        self.statics.clear();
        self.find_topics();
        self.move_to(GroupState::Empty, now_ms);
        effects.push(Effect::Store(Box::new(self.record()), Storing::Empty));
    }

    fn begin_generation(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        self.protocol = self.chosen_protocol();
        self.find_topics();
        self.move_to(GroupState::CompletingRebalance, now_ms);
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline_ms = Some(now_ms.saturating_add(self.rebalance_timeout_ms()));
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            member.is_new = false;
            if let Some(wait) = member.join_wait.take() {
                member.heard(now_ms);
                answers.push((wait, id.clone()));
            }
        }
        for (wait, id) in answers {
            effects.push(Effect::Joined(wait, Ok(self.joined(&id))));
        }
    }
}
