//! Each deliberate fault must be found: a simulation that cannot fail shows nothing.

use mainstem_journal::mutation;

use crate::runner::{self, Failure};

/// Faults of what lies above the broker: `make guarantees` finds them.
const ELSEWHERE: &[&str] = &[mutation::STEP_OFFSET_OUTSIDE_FRAME];

/// The names, with what each breaks.
pub fn list() -> Vec<(&'static str, &'static str)> {
    let all = mutation::ALL.iter().copied();
    all.filter(|(name, _)| !ELSEWHERE.contains(name)).collect()
}

/// Runs seeds under the mutation until one fails. The mutation holds for the whole process: one at a time.
pub fn find(name: &str, seeds: u64, jobs: usize) -> Option<Failure> {
    mutation::set(Some(name));
    let summary = runner::run_many(0, seeds, jobs, false);
    mutation::set(None);
    summary.failures.into_iter().next()
}
