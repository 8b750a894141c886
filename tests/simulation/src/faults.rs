//! What goes wrong in a life, and when: chosen when the life begins.

use std::io::ErrorKind;

use mainstem_journal::disk::Op;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::disk::{Class, Fault, What};

/// Another process takes the space of the disk.
pub const SQUEEZED: &str = "space taken by another process";
/// It gives it back.
pub const RELEASED: &str = "space given back";

const OPS: [Op; 14] = [
    Op::Open,
    Op::Create,
    Op::Read,
    Op::Write,
    Op::Sync,
    Op::SetLen,
    Op::Allocate,
    Op::Rename,
    Op::Remove,
    Op::CreateDir,
    Op::List,
    Op::SyncDir,
    Op::Len,
    Op::FreeBytes,
];

/// The plan of one life.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Faults of the disk.
    pub faults: Vec<Fault>,
    /// The store fails after so many calls.
    pub store_fails_after: Option<u64>,
    /// And that for want of space.
    pub store_is_full: bool,
    /// One read of the store fails, after so many others.
    pub store_read_fails_after: Option<u64>,
    /// From which turn to which so many bytes are left on the disk.
    pub squeezes: Vec<(u64, u64, u64)>,
    /// How many of a hundred writes and syncs stand still for a while.
    pub slow_percent: u32,
}

/// A plan for a life of so many turns.
pub fn plan(rng: &mut SmallRng, turns: u64) -> Plan {
    let mut plan = Plan {
        slow_percent: [0, 20, 60][rng.random_range(0..3)],
        ..Plan::default()
    };
    if rng.random_bool(0.4) {
        plan.faults.push(failure(rng, turns / 4 + 1));
    }
    if rng.random_bool(0.15) {
        plan.faults.push(halt(rng, turns / 4 + 1));
    }
    if rng.random_bool(0.06) {
        plan.store_fails_after = Some(rng.random_range(0..turns / 20 + 1));
        plan.store_is_full = rng.random_bool(0.3);
    }
    if rng.random_bool(0.1) {
        plan.store_read_fails_after = Some(rng.random_range(0..turns / 40 + 2));
    }
    if rng.random_bool(0.2) {
        for _ in 0..rng.random_range(1..4) {
            let from = rng.random_range(0..turns + 1);
            let to = from + rng.random_range(1..400);
            let left = if rng.random_bool(0.4) {
                0
            } else {
                rng.random_range(0..128 << 10)
            };
            plan.squeezes.push((from, to, left));
        }
    }
    plan
}

/// A call that fails, some time within the next `calls`.
pub fn failure(rng: &mut SmallRng, calls: u64) -> Fault {
    // Most calls are writes and syncs; of the others there are few, so they fail soon or never.
    let op = if rng.random_bool(0.5) {
        [Op::Write, Op::Sync][rng.random_range(0..2)]
    } else {
        OPS[rng.random_range(0..OPS.len())]
    };
    let common = matches!(op, Op::Write | Op::Sync | Op::Read);
    let class = [None, None, Some(Class::Journal), Some(Class::Segment)][rng.random_range(0..4)];
    let full =
        matches!(op, Op::Write | Op::Allocate | Op::Create | Op::CreateDir) && rng.random_bool(0.3);
    Fault {
        op: Some(op),
        class: class.filter(|_| common),
        after: if common {
            rng.random_range(0..calls / 2 + 1)
        } else {
            rng.random_range(0..6)
        },
        what: What::Fail(if full {
            ErrorKind::StorageFull
        } else {
            ErrorKind::Other
        }),
    }
}

/// Death in the middle of one of the next `calls`.
pub fn halt(rng: &mut SmallRng, calls: u64) -> Fault {
    Fault {
        op: None,
        class: None,
        after: rng.random_range(0..calls),
        what: What::Halt,
    }
}

/// The next call of a kind fails.
pub fn next(op: Op) -> Fault {
    Fault {
        op: Some(op),
        class: None,
        after: 0,
        what: What::Fail(ErrorKind::Other),
    }
}
