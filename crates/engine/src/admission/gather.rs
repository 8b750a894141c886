//! Small batches that wait together go to their segment together.
//!
//! A small batch is quickest in the journal, with one sync; many of them are written twice there. So it is looked at how much
//! of a partition waits: in the open group, where the journal has yet to take it, and in the queue. Nobody waits for company:
//! what counts is there already, because the disk is behind. Once something is under way to a segment, what follows on the
//! same partition stands in the line behind it, and is counted again when that comes to its end: so a partition goes by
//! reference for as long as enough of it comes meanwhile, and by the journal again when it is less.

use mainstem_log::PartitionId;

use super::Admission;
use crate::submission::{Append, Submission};

/// Who writes to more partitions than this at once has little for each of them.
const MAX_PARTITIONS: usize = 16;

/// How much of one partition waits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Company {
    /// The open group of this number holds so many bytes.
    group: u64,
    group_bytes: usize,
    /// At this look, so many bytes stood in the queue; those among them that have gone to the group are taken off.
    look: u64,
    queued_bytes: usize,
}

impl Company {
    fn queued(&mut self, look: u64, bytes: usize) {
        if self.look != look {
            (self.look, self.queued_bytes) = (look, 0);
        }
        self.queued_bytes += bytes;
    }

    /// A batch goes to the open group.
    pub(super) fn grouped(&mut self, group: u64, bytes: usize) {
        if self.group != group {
            (self.group, self.group_bytes) = (group, 0);
        }
        self.group_bytes += bytes;
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
    }

    fn bytes(&self, group: u64, look: u64) -> usize {
        let of_group = if self.group == group {
            self.group_bytes
        } else {
            0
        };
        let of_queue = if self.look == look {
            self.queued_bytes
        } else {
            0
        };
        of_group + of_queue
    }
}

/// What a submission has for one partition in a row.
pub(super) fn runs_of(submission: &Submission) -> impl Iterator<Item = (PartitionId, &[Append])> {
    let same = |a: &Append, b: &Append| a.partition == b.partition;
    let runs = submission.appends.chunk_by(same);
    runs.filter_map(|run| Some((run.first()?.partition, run)))
}

pub(super) fn bytes_of(run: &[Append]) -> usize {
    run.iter().map(|append| append.batch.bytes().len()).sum()
}

impl Admission {
    fn may_gather(&self, submission: &Submission) -> bool {
        let least_bytes = self.shared.options.gathered_batch_bytes;
        let dense = |(_, run): (_, &[Append])| bytes_of(run) >= run.len() * least_bytes;
        let few = || runs_of(submission).nth(MAX_PARTITIONS).is_none();
        self.may_refer(submission) && few() && runs_of(submission).all(dense)
    }

    /// Counts what stands in the queue: whenever something has come to it.
    pub(super) fn look_around(&mut self) {
        self.look += 1;
        if self.shared.options.reference_bytes == usize::MAX {
            return;
        }
        let taken = std::mem::take(&mut self.taken);
        for pending in &taken {
            if !self.may_gather(&pending.submission) {
                continue;
            }
            for (partition, run) in runs_of(&pending.submission) {
                if let Some(known) = self.partitions.get_mut(&partition) {
                    known.company.queued(self.look, bytes_of(run));
                }
            }
        }
        self.taken = taken;
    }

    /// Whether so much waits of each of its partitions that it goes by reference, though it has less itself.
    pub(super) fn has_company(&self, submission: &Submission, group: u64) -> bool {
        let least_bytes = self.shared.options.reference_bytes;
        least_bytes != usize::MAX
            && self.may_gather(submission)
            && runs_of(submission).all(|(partition, _)| {
                let known = self.partitions.get(&partition);
                known.is_some_and(|known| known.company.bytes(group, self.look) >= least_bytes)
            })
    }
}
