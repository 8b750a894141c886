//! Each deliberate fault must be found by the simulation: a test that cannot fail shows nothing.

use mainstem_journal::mutation;

use crate::simulation::{self, Length};
use crate::{Failure, ensure};

/// Seeds that a mutation may survive.
const SEEDS: u64 = 400;

/// How a mutation was found.
pub struct Found {
    /// The seed that found it.
    pub seed: u64,
    /// What it found.
    pub failure: Failure,
}

/// What is to be found here. Other suites look for others.
const FOUND_HERE: [&str; 5] = [
    mutation::NO_JOURNAL_SYNC,
    mutation::NO_DIRECTORY_SYNC,
    mutation::PUBLISH_WITHOUT_SYNC_ON_RECOVERY,
    mutation::STEP_OFFSET_OUTSIDE_FRAME,
    mutation::DUPLICATE_BEFORE_DURABLE,
];

/// The names, with what each breaks.
pub fn list() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    mutation::ALL
        .iter()
        .filter(|(name, _)| FOUND_HERE.contains(name))
}

/// Runs seeds under the mutation until one fails. The mutation holds for the whole process: one at a time.
pub fn find(name: &str) -> Result<Found, Failure> {
    ensure!(
        list().any(|(known, _)| *known == name),
        "there is no mutation `{name}`"
    );
    mutation::set(Some(name));
    let found = (0..SEEDS).find_map(|seed| {
        Some(Found {
            seed,
            failure: simulation::run(seed, Length::SHORT).err()?,
        })
    });
    mutation::set(None);
    found.ok_or_else(|| {
        Failure::new(format!(
            "the mutation `{name}` was not found with {SEEDS} seeds"
        ))
    })
}
