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
/// Recovery shows frames that it has not made durable first.
pub const PUBLISH_WITHOUT_SYNC_ON_RECOVERY: &str = "publish_without_sync_on_recovery";
/// A handler's step commits its input offset in another frame than its state and outputs.
pub const STEP_OFFSET_OUTSIDE_FRAME: &str = "step_offset_outside_frame";
/// A duplicate is answered before the batch that it repeats is durable.
pub const DUPLICATE_BEFORE_DURABLE: &str = "duplicate_before_durable";

/// Every mutation there is, with what it breaks.
pub const ALL: &[(&str, &str)] = &[
    (
        NO_JOURNAL_SYNC,
        "groups are reported durable without a sync",
    ),
    (NO_DIRECTORY_SYNC, "directories are never synced"),
    (
        PUBLISH_WITHOUT_SYNC_ON_RECOVERY,
        "recovery shows frames before it has made them durable",
    ),
    (
        STEP_OFFSET_OUTSIDE_FRAME,
        "a handler's step commits its input offset in a frame of its own",
    ),
    (
        DUPLICATE_BEFORE_DURABLE,
        "a duplicate is answered before its original is durable",
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
