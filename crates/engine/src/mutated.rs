//! What two deliberate faults need and honest code has no use for. Without the feature `mutations` all of it is nothing.

use bytes::Bytes;
use mainstem_journal::SealedGroup;
#[cfg(feature = "mutations")]
use mainstem_journal::mutation;
use mainstem_log::PartitionId;
use mainstem_record::BatchHeader;

use crate::EngineError;
use crate::producers::{ProducerState, Producers};
use crate::shared::Shared;

/// Shows a group to readers before it is durable, if that is the mutation; says whether it did.
#[cfg_attr(not(feature = "mutations"), allow(unused_variables))]
pub(crate) fn show_early(
    shared: &Shared,
    group: &SealedGroup,
    referenced: Option<&[Bytes]>,
) -> Result<bool, EngineError> {
    #[cfg(feature = "mutations")]
    if mutation::active(mutation::HIGH_WATERMARK_BEFORE_DURABLE) {
        let group = group.preview();
        let referenced = referenced.unwrap_or_default().to_vec();
        crate::commit::apply_to_log(shared, &group, referenced)?;
        shared.log.finish_group(group.last_lsn());
        return Ok(true);
    }
    Ok(false)
}

/// Admission's copy of the producers, for the mutation that lets a checkpoint save it.
#[derive(Default)]
pub(crate) struct Admitting(#[cfg(feature = "mutations")] parking_lot::Mutex<Producers>);

#[cfg_attr(not(feature = "mutations"), allow(unused_variables))]
impl Admitting {
    pub(crate) fn begin(&self, producers: &Producers) {
        #[cfg(feature = "mutations")]
        self.0.lock().clone_from(producers);
    }

    pub(crate) fn observe(&self, partition: PartitionId, header: &BatchHeader) {
        #[cfg(feature = "mutations")]
        self.0.lock().observe(partition, header);
    }

    /// What a checkpoint records: what changed in the copy that follows what is flushed, but for the mutation.
    pub(crate) fn instead_of(&self, changes: Changes) -> Changes {
        #[cfg(feature = "mutations")]
        if mutation::active(mutation::CHECKPOINT_SAVES_ADMITTING_PRODUCERS) {
            return self.0.lock().take_changes();
        }
        changes
    }
}

type Changes = Vec<(PartitionId, i64, Option<ProducerState>)>;
