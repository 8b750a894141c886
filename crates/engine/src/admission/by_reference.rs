//! Admission of what goes to its segments first: offsets at once, the LSN when the bytes are synced.

use mainstem_journal::{Lsn, View};
use mainstem_log::{AheadBatch, LogOp};
use std::sync::atomic::Ordering;

use super::gather::{bytes_of, runs_of};
use super::{Admission, LEADER_EPOCH};
use crate::ahead::{Ahead, Synced};
use crate::budget::Permit;
use crate::shared::{Answer, OpenGroup, Pending};
use crate::submission::{Committed, Submission};
use crate::waiting::keys_of;

impl Admission {
    /// Whether a frame may refer to what a submission brings: it is nothing but batches.
    pub(super) fn may_refer(&self, submission: &Submission) -> bool {
        let is_plain = submission.store_ops.is_empty()
            && submission.log_ops.is_empty()
            && submission.checks.is_empty()
            && submission.transaction_end.is_none()
            && submission.producers_of.is_none()
            && !submission.all_or_nothing;
        self.refers && is_plain && !submission.appends.is_empty()
    }

    /// Whether a submission goes to its segments first: it has enough for each of its partitions, or company. `group` is
    /// the open group.
    pub(super) fn goes_ahead(&self, submission: &Submission, group: u64) -> bool {
        if !self.may_refer(submission) {
            return false;
        }
        self.is_large(submission) || self.has_company(submission, group)
    }

    fn is_large(&self, submission: &Submission) -> bool {
        // What counts is what one file gets: each costs a sync of its own.
        let least_bytes = self.shared.options.reference_bytes;
        runs_of(submission).all(|(_, run)| bytes_of(run) >= least_bytes)
    }

    /// Gives offsets and places, and hands the batches on. Where none is left to be written, and nothing is under way
    /// that the answer has seen, it waits in the open group like any other, and its permit comes back.
    pub(super) fn send_ahead(&mut self, pending: Pending, open: &mut OpenGroup) -> Option<Permit> {
        let Pending {
            submission,
            permit,
            promise,
        } = pending;
        if !self.is_large(&submission) {
            tracing::debug!(case = "small batches gathered");
        }
        let keys = keys_of(&submission);
        let (mut batches, mut shards, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut appends = Vec::with_capacity(submission.appends.len());
        for append in submission.appends {
            let accepted = self.accept(&append, submission.transaction.as_ref(), None);
            if let Ok(accepted) = &accepted
                && let Some((shard, placement)) = accepted.place
            {
                bytes += append.batch.bytes().len();
                shards.push(shard);
                batches.push(AheadBatch {
                    partition: append.partition,
                    placement,
                    base_offset: accepted.appended.base_offset,
                    leader_epoch: LEADER_EPOCH,
                    bytes: append.batch.into_bytes(),
                });
            }
            appends.push(accepted.map(|accepted| accepted.appended));
        }
        if batches.is_empty() && self.waiting.is_empty() {
            let lsn = Lsn(self.next_lsn.0.saturating_sub(1));
            open.answers.push(Answer {
                promise,
                outcome: Ok(Committed {
                    lsn,
                    appends,
                    producers: Vec::new(),
                }),
                needs_store: false,
            });
            return Some(permit);
        }
        self.waiting.begin(&keys);
        self.shared.ahead.lock().ahead.push_back(Ahead {
            batches,
            shards,
            bytes,
            appends,
            keys,
            permit,
            promise,
        });
        self.shared.signals.ahead.notify();
        None
    }

    /// Makes the frames of what is synced, as far as the group has room, and has those who waited for it looked at again.
    pub(super) fn refer_to_synced(&mut self, open: &mut OpenGroup, spent: &mut Vec<Permit>) {
        let mut released = false;
        while open.builder.payload_bytes() < self.shared.options.group_bytes
            && let Some(synced) = self.synced.pop_front()
        {
            released = true;
            self.waiting.end(&synced.ahead.keys);
            spent.push(self.refer(synced, open));
        }
        if released {
            let mut line = self.waiting.take_line();
            line.append(&mut self.taken);
            self.taken = line;
        }
    }

    fn refer(&mut self, synced: Synced, open: &mut OpenGroup) -> Permit {
        let Synced { ahead, written } = synced;
        let mut lsn = self.next_lsn;
        if written.is_empty() {
            lsn = Lsn(lsn.0.saturating_sub(1));
        } else {
            let bytes = ahead.bytes as u64;
            open.builder.begin_frame(lsn);
            for ((reference, batch), shard) in written.into_iter().zip(ahead.shards) {
                let op = LogOp::AppendReference(reference);
                open.builder.section(shard, View::Log, |out| op.encode(out));
                open.referenced.push(batch);
            }
            open.builder.end_frame();
            open.append_bytes += bytes;
            self.shared.budget.admitted(bytes);
            let at = &self.shared.positions;
            at.admitted.store(lsn.0, Ordering::Release);
            self.next_lsn = Lsn(lsn.0 + 1);
        }
        open.answers.push(Answer {
            promise: ahead.promise,
            outcome: Ok(Committed {
                lsn,
                appends: ahead.appends,
                producers: Vec::new(),
            }),
            needs_store: false,
        });
        ahead.permit
    }
}
