//! Deliberate faults, so that a test that guards a promise can be shown to be able to fail.
//!
//! Code asks `mutation::active(mutation::NO_JOURNAL_SYNC)` at the place where a promise is kept. Without the
//! feature `mutations` the answer is `false` at compile time and nothing of this is in the binary. With it, one
//! mutation at a time is active in the process: the one named by the environment variable `MAINSTEM_MUTATION`, or
//! by [`set`].

/// A committed group is not synced before it is reported durable.
pub const NO_JOURNAL_SYNC: &str = "no_journal_sync";
/// Directories are not synced after files are created, renamed or removed.
pub const NO_DIRECTORY_SYNC: &str = "no_directory_sync";
/// A group goes on to the views and to those who wait as soon as it is written; it is synced with the next.
pub const APPLY_BEFORE_SYNC: &str = "apply_before_sync";
/// Readers are shown a group before it is written; answers wait for the sync.
pub const HIGH_WATERMARK_BEFORE_DURABLE: &str = "high_watermark_before_durable";
/// The checksum over a group's payload is not looked at.
pub const TORN_TAIL_ACCEPTED: &str = "torn_tail_accepted";
/// Where the chain of groups ends, no later header is looked for that records the missing one as durable.
pub const BIT_FLIP_CUT_AS_TORN_TAIL: &str = "bit_flip_cut_as_torn_tail";
/// Recovery shows frames that it has not made durable first.
pub const PUBLISH_WITHOUT_SYNC_ON_RECOVERY: &str = "publish_without_sync_on_recovery";
/// Recovery syncs the last file that it found and writes on behind its last sound group.
pub const RECOVERY_WRITES_ON_IN_OLD_FILE: &str = "recovery_writes_on_in_old_file";
/// The file that recovery builds has its name before the frames are in it.
pub const HALF_BUILT_FILE_TRUSTED: &str = "half_built_file_trusted";
/// Recovery cuts the frames that it does not know to be durable, though readers may have seen them: their offsets are
/// given again.
pub const SEEN_OFFSET_NAMES_ANOTHER_RECORD: &str = "seen_offset_names_another_record";
/// A checkpoint gives journal files back when its record is on the way to the store, not when it is on disk.
pub const JOURNAL_RECYCLED_BEFORE_RECORD_FLUSHED: &str = "journal_recycled_before_record_flushed";
/// Segments that a checkpoint is about to forget are removed before it is on disk.
pub const SEGMENT_REMOVED_BEFORE_CHECKPOINT: &str = "segment_removed_before_checkpoint";
/// A checkpoint records what admission knows of producers, which is ahead of what is durable.
pub const CHECKPOINT_SAVES_ADMITTING_PRODUCERS: &str = "checkpoint_saves_admitting_producers";
/// A checkpoint records the old start of a partition.
pub const DELETED_RANGE_COMES_BACK: &str = "deleted_range_comes_back";
/// A handler's step commits its input offset in another frame than its state and outputs.
pub const STEP_OFFSET_OUTSIDE_FRAME: &str = "step_offset_outside_frame";
/// A frame that refers to bytes in a segment is made when they are written, not when they are synced.
pub const REFERENCE_BEFORE_SYNC: &str = "reference_before_sync";
/// Readers of committed records are shown all that is durable.
pub const LAST_STABLE_IS_HIGH_WATERMARK: &str = "last_stable_is_high_watermark";
/// The end of a transaction is a frame for each marker, and one for the rest.
pub const MARKER_OUTSIDE_FRAME: &str = "marker_outside_frame";
/// A duplicate is answered before the batch that it repeats is durable.
pub const DUPLICATE_BEFORE_DURABLE: &str = "duplicate_before_durable";
/// A commit of a group's offsets is answered before its frame is durable.
pub const COMMIT_ANSWERED_BEFORE_DURABLE: &str = "commit_answered_before_durable";
/// A restart forgets which generation or epoch a group was in.
pub const GROUP_EPOCH_NOT_RESTORED: &str = "group_epoch_not_restored";
/// A partition is given to a member while another may still have it.
pub const PARTITION_GIVEN_BEFORE_REVOKED: &str = "partition_given_before_revoked";

/// Every mutation there is, with what it breaks. A suite that shows that it can fail names those that it is to find.
pub const ALL: &[(&str, &str)] = &[
    (
        NO_JOURNAL_SYNC,
        "groups are reported durable without a sync",
    ),
    (NO_DIRECTORY_SYNC, "directories are never synced"),
    (
        APPLY_BEFORE_SYNC,
        "groups are applied and answered once written, and synced with the next",
    ),
    (
        HIGH_WATERMARK_BEFORE_DURABLE,
        "the high watermark moves before the group is durable",
    ),
    (
        TORN_TAIL_ACCEPTED,
        "a group of which a part was never written passes for sound",
    ),
    (
        BIT_FLIP_CUT_AS_TORN_TAIL,
        "damage in the last recorded group is cut as a torn tail",
    ),
    (
        PUBLISH_WITHOUT_SYNC_ON_RECOVERY,
        "recovery shows frames before it has made them durable",
    ),
    (
        RECOVERY_WRITES_ON_IN_OLD_FILE,
        "recovery builds no new file, it writes on in the old one",
    ),
    (
        HALF_BUILT_FILE_TRUSTED,
        "recovery takes a file that an earlier one did not finish for the journal",
    ),
    (
        SEEN_OFFSET_NAMES_ANOTHER_RECORD,
        "recovery cuts what no later header records, and its offsets are given again",
    ),
    (
        JOURNAL_RECYCLED_BEFORE_RECORD_FLUSHED,
        "a checkpoint recycles the journal before its record is flushed",
    ),
    (
        SEGMENT_REMOVED_BEFORE_CHECKPOINT,
        "segments are removed while the last checkpoint on disk still names them",
    ),
    (
        CHECKPOINT_SAVES_ADMITTING_PRODUCERS,
        "a checkpoint saves the admitting copy of producer state",
    ),
    (
        DELETED_RANGE_COMES_BACK,
        "a checkpoint forgets that records were deleted",
    ),
    (
        STEP_OFFSET_OUTSIDE_FRAME,
        "a handler's step commits its input offset in a frame of its own",
    ),
    (
        REFERENCE_BEFORE_SYNC,
        "frames refer to bytes in segments that are written and not synced",
    ),
    (
        LAST_STABLE_IS_HIGH_WATERMARK,
        "the last stable offset is the high watermark",
    ),
    (
        MARKER_OUTSIDE_FRAME,
        "the markers of a transaction's end are not in one frame with the rest",
    ),
    (
        DUPLICATE_BEFORE_DURABLE,
        "a duplicate is answered before its original is durable",
    ),
    (
        COMMIT_ANSWERED_BEFORE_DURABLE,
        "a commit of a group's offsets is answered before its frame is durable",
    ),
    (
        GROUP_EPOCH_NOT_RESTORED,
        "a restart forgets a group's generation or epoch",
    ),
    (
        PARTITION_GIVEN_BEFORE_REVOKED,
        "a partition is given to a member while another may still have it",
    ),
];

/// Whether the mutation `name` is active. Constant `false` without the feature `mutations`.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn active(_name: &str) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub use switch::{active, set};

#[cfg(feature = "mutations")]
mod switch {
    use parking_lot::RwLock;
    use std::sync::LazyLock;

    static ACTIVE: LazyLock<RwLock<Option<String>>> = LazyLock::new(|| {
        let named = std::env::var("MAINSTEM_MUTATION")
            .ok()
            .filter(|name| !name.is_empty());
        if let Some(name) = &named {
            assert!(
                super::ALL.iter().any(|(known, _)| known == name),
                "MAINSTEM_MUTATION={name} is not a mutation; there are {:?}",
                super::ALL
            );
        }
        RwLock::new(named)
    });

    /// Whether the mutation `name` is active.
    pub fn active(name: &str) -> bool {
        ACTIVE.read().as_deref() == Some(name)
    }

    /// Makes `name` the active mutation of this process, or none.
    pub fn set(name: Option<&str>) {
        *ACTIVE.write() = name.map(str::to_owned);
    }
}
