//! The workload in process, on a disk and a store in memory: losses of power and process crashes in any sequence.

mod check;
mod handler;
mod node;
mod poison;
mod producer;
mod world;

use crate::{Failure, Tally};

/// How long a run of one seed is.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Moves of the scheduler.
    pub moves: u32,
}

impl Length {
    /// For `cargo test`.
    pub const SHORT: Length = Length { moves: 12_000 };
    /// For `make guarantees`. Every crash reads everything anew, so many seeds show more than long ones.
    pub const LONG: Length = Length { moves: 16_000 };
}

/// Runs one seed to its end.
pub fn run(seed: u64, length: Length) -> Result<Tally, Failure> {
    caught(|| world::World::new(seed)?.run(length))
}

/// Runs one seed and returns a digest of everything that happened in it.
pub fn digest(seed: u64, length: Length) -> Result<u64, Failure> {
    let mut world = world::World::new(seed)?;
    world.play(length)?;
    Ok(world.digest())
}

/// One poison event in a batch of 10,000, with crashes while it is being looked for.
pub fn poison(seed: u64) -> Result<Tally, Failure> {
    caught(|| poison::run(seed))
}

/// Where the seed is named by `MAINSTEM_SEED`, that one; else those from `first` on.
pub fn seeds(first: u64) -> Box<dyn Iterator<Item = u64> + Send> {
    match std::env::var("MAINSTEM_SEED") {
        Ok(seed) => Box::new(std::iter::once(
            seed.parse().expect("MAINSTEM_SEED is a number"),
        )),
        Err(_) => Box::new(first..),
    }
}

/// How to run a seed again.
pub fn replay_command(test: &str, seed: u64) -> String {
    format!("MAINSTEM_SEED={seed} cargo test --release -p mainstem-guarantees --test {test}")
}

/// A panic in a room of the house breaks a promise, too.
fn caught(run: impl FnOnce() -> Result<Tally, Failure>) -> Result<Tally, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure::new(format!(
            "panic: {}",
            text.unwrap_or_else(|| "of unknown kind".to_owned())
        )))
    })
}
