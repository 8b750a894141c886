//! What the model tests share: which seeds they run, the lives of their node, and calls under way.
#![allow(unused_imports, unused_macros)]

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use mainstem_broker::BrokerError;
use mainstem_engine::testing::{Crash, poll_once};
use rand::Rng;
use rand::rngs::SmallRng;

use super::TestBroker;

pub type Call<T> = Pin<Box<dyn Future<Output = Result<T, BrokerError>>>>;

/// Calls reach the broker in the order in which they are made.
pub fn first_poll<T: 'static>(mut call: Call<T>) -> Call<T> {
    match poll_once(call.as_mut()) {
        Poll::Ready(outcome) => Box::pin(std::future::ready(outcome)),
        Poll::Pending => call,
    }
}

/// A world with one node in it.
pub trait World: Sized {
    fn rng(&mut self) -> &mut SmallRng;
    /// Something happens.
    fn turn(&mut self);
    /// The node goes down and comes back; every call under way is lost.
    fn crash(self) -> Self;
    /// What must hold at any time; asked every thousand turns.
    fn check(&mut self) {}
}

/// So many lives of at most so many turns, and a crash between them.
pub fn live<W: World>(mut world: W, lives: u32, turns: u32) -> W {
    for life in 0..lives {
        let turns = world.rng().random_range(turns / 4..turns);
        for turn in 0..turns {
            world.turn();
            if turn % 1_000 == 0 {
                world.check();
            }
        }
        if life + 1 < lives {
            world = world.crash();
        }
    }
    world
}

impl TestBroker {
    /// Goes down and comes back: stopped, killed, or without power.
    pub fn crash_somehow(self, rng: &mut SmallRng) -> TestBroker {
        match rng.random_range(0..3) {
            0 => self.restart(),
            1 => self.crash(Crash::Process),
            _ => self.crash(Crash::Power),
        }
    }
}

/// What a run counts, and a name for it.
pub type Count<C> = (&'static str, fn(&C) -> u64);

/// These fields of what a run counts.
macro_rules! counts {
    ($counted:ty: $($name:ident),* $(,)?) => {
        &[$((stringify!($name), |one: &$counted| one.$name)),*]
    };
}
pub(crate) use counts;

/// Runs the seeds that are wanted: `SEED=n` is one, `SEEDS=n` so many, and `default` without a word. Each of `counts`
/// must be met by one of them, if it is not one alone.
pub fn run_seeds<C: Debug>(default: u64, run: impl Fn(u64) -> C, counts: &[Count<C>]) {
    let number = |name: &str| -> Option<u64> {
        let value = std::env::var(name).ok()?;
        Some(value.parse().expect("a number"))
    };
    let seeds = match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SEEDS").unwrap_or(default),
    };
    let is_one = seeds.start() == seeds.end();
    let mut all = Vec::new();
    for seed in seeds {
        eprintln!("SEED={seed}");
        let counted = run(seed);
        eprintln!("{counted:?}");
        all.push(counted);
    }
    for (name, count) in counts {
        let met: u64 = all.iter().map(count).sum();
        assert!(
            met > 0 || is_one,
            "the test must meet what it is about: {name}"
        );
    }
}
