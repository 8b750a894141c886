//! The families of keys. Few, fixed, and never one per partition or handler.

use std::fmt;

/// A family of keys: one RocksDB column family, tuned for how its keys are read.
///
/// The numbers are written into journal frames and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Topics, handlers, groups: what exists, by tenant and name.
    Catalog = 1,
    /// Positions of consumers and handlers.
    Offsets = 2,
    /// Handler state.
    State = 3,
    /// Timers of handlers, by due time.
    Timers = 4,
    /// Work queues: what is in flight.
    Queues = 5,
    /// Delayed messages, by due time.
    Delays = 6,
    /// Identifiers seen before.
    Dedupe = 7,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Family; 7] = [
        Family::Catalog,
        Family::Offsets,
        Family::State,
        Family::Timers,
        Family::Queues,
        Family::Delays,
        Family::Dedupe,
    ];

    /// The column family's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::Catalog => "catalog",
            Family::Offsets => "offsets",
            Family::State => "state",
            Family::Timers => "timers",
            Family::Queues => "queues",
            Family::Delays => "delays",
            Family::Dedupe => "dedupe",
        }
    }

    /// The family of a number found in a frame.
    pub fn from_code(code: u8) -> Option<Family> {
        Family::ALL.get(usize::from(code).wrapping_sub(1)).copied()
    }

    /// The number that frames carry.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Position in [`Family::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize - 1
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
