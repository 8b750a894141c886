//! What a run has met: each fault that was injected, each path that recovery and its like have taken. A simulation that
//! never met something shows nothing about it.
//!
//! Paths inside the product are told by its own log: an event with the field `case` counts under the field's value.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// How often each thing was met. Clones are the same counts.
#[derive(Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    /// Everything met so far.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }

    fn add(&self, name: &'static str) {
        *self.0.lock().entry(name).or_default() += 1;
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Counts>> = const { RefCell::new(None) };
}

/// What this thread meets counts in `counts` from now on.
pub fn count_in(counts: Counts) {
    CURRENT.set(Some(counts));
}

/// Counts something that was met.
pub fn met(name: &'static str) {
    CURRENT.with_borrow(|current| {
        if let Some(counts) = current {
            counts.add(name);
        }
    });
}

/// Listens to the product's log. Once a process.
pub fn listen() {
    // Somebody listens already: a test before this one.
    let _ = tracing::subscriber::set_global_default(Listener);
}

struct Listener;

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.fields().field("case").is_some()
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Case);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Case;

impl Visit for Case {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "case" {
            let known = expected()
                .chain(RARE.iter().copied())
                .find(|name| *name == value);
            let name = known
                .unwrap_or_else(|| panic!("the log tells of a case that nobody expects: {value}"));
            met(name);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Everything that a simulation must meet, in groups.
pub const EXPECTED: &[(&str, &[&str])] = &[
    (
        "how it went down, and what failed",
        &[
            crate::run::PROCESS_CRASH,
            crate::run::POWER_LOSS,
            crate::run::LOST_WRITES,
            crate::run::TORN_WRITES,
            crate::run::REORDERED_WRITES,
            crate::run::LOST_LENGTHS,
            crate::run::LOST_NAMES,
            crate::run::CLEAN_STOP,
            crate::disk::HALTED,
            crate::disk::SLOW_CALL,
            crate::disk::SLOW_SYNC,
            crate::medium::OUT_OF_ORDER,
            "EIO on open",
            "EIO on create",
            "EIO on read",
            "EIO on write",
            "EIO on fsync",
            "EIO on truncate",
            "EIO on allocate",
            "EIO on rename",
            "EIO on remove",
            "EIO on mkdir",
            "EIO on readdir",
            "EIO on fsync of a directory",
            "EIO on stat",
            "EIO on statfs",
            "ENOSPC in a write",
            crate::faults::SQUEEZED,
            crate::faults::RELEASED,
            crate::store::FAILED,
            crate::store::READ_FAILED,
        ],
    ),
    (
        "damage, and what became of it",
        &[
            crate::damage::FLIPPED,
            crate::damage::TRUNCATED,
            crate::damage::MISSING,
            crate::damage::STORE_LOST,
            crate::damage::REFUSED,
            crate::damage::READ_REFUSED,
            crate::damage::EXCUSED,
            crate::damage::HARMLESS,
        ],
    ),
    (
        "what clients met",
        &[
            crate::actors::DUPLICATE,
            crate::actors::BEHIND_REFUSED,
            crate::actors::ZOMBIE_FENCED,
            crate::actors::OUT_OF_RANGE,
            crate::actors::CONFLICT,
            crate::actors::TOO_LATE,
            crate::actors::PIPELINED,
            crate::actors::STEP_FENCED,
            crate::actors::EXPIRED,
            crate::actors::DELETED,
            crate::actors::COMPACTED_ASKED,
            crate::views::KEY_GONE,
            crate::actors::SNAPSHOT,
            crate::actors::transactor::COMMITTED,
            crate::actors::transactor::ABORTED,
            crate::actors::transactor::FENCED,
            crate::actors::transactor::OPEN_OVER_CRASH,
            crate::actors::transactor::CRASHED_COMMIT,
            crate::actors::transactor::TOO_LATE,
            crate::actors::members::COMMITTED,
            crate::actors::members::COMMITTED_WITH_TRANSACTION,
            crate::actors::members::REPLACED,
            crate::actors::members::UNSTABLE,
            crate::actors::members::LEFT,
            crate::actors::members::DIED,
            crate::actors::members::REMOVED,
            crate::actors::members::FENCED,
            crate::actors::members::ZOMBIE_FENCED,
            crate::actors::members::BY_PATTERN,
            crate::actors::members::BY_RANGE,
            crate::actors::members::GIVEN_ON,
            crate::actors::members::UNRELEASED,
            crate::actors::members::DELETED_OFFSETS,
            crate::actors::members::DELETED_GROUP,
            crate::actors::members::SUBSCRIBED,
            crate::actors::members::NOT_EMPTY,
            crate::groups::CRASHED,
            crate::groups::FOUND,
            crate::world::REFUSED_FULL,
            crate::actors::SHORTAGE_ENDED,
            crate::run::POISONED,
        ],
    ),
    (
        "paths taken",
        &[
            "checkpoint",
            "journal file full",
            "journal file recycled",
            "a flush goes on in portions",
            "batches written ahead",
            "small batches gathered",
            "submission behind a batch written ahead",
            "reference replayed",
            crate::life::DIED_AHEAD,
            "compacted",
            "compaction ended early",
            "compaction leaves space to writers",
            "ballast taken",
            "ballast given up",
            "index built again",
            crate::run::RECOVERY_CRASHED,
            crate::run::RECOVERY_FULL,
            crate::run::HALF_BUILT,
            "torn tail cut",
            "groups made durable again",
            crate::run::REPLAYED,
            crate::run::OPENED_AGAIN,
            "store further than the checkpoint",
            "journal file recycled at the start",
            "journal file without a known group left out",
            "unfinished journal file removed",
            "segment longer than recorded",
            "file that no record names removed",
            "directory of no partition removed",
            "transaction or its id expired",
        ],
    ),
];

/// The names of all of it.
pub fn expected() -> impl Iterator<Item = &'static str> {
    EXPECTED.iter().flat_map(|(_, names)| names.iter().copied())
}

/// What is counted where it happens, and need not: damage of a kind that a seed meets once in many thousands.
const RARE: &[&str] = &["index that does not fit built again"];
