//! Many seeds, on several threads.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::coverage::{self, Counts};
use crate::fiber::Fiber;
use crate::life::Fibers;
use crate::run::{self, Report};
use crate::trace::Trace;

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What broke.
    pub what: String,
}

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Calls of clients.
    pub operations: u64,
    /// Crashes of both kinds.
    pub crashes: u64,
    /// How often each thing was met.
    pub met: BTreeMap<&'static str, u64>,
    /// Those that failed.
    pub failures: Vec<Failure>,
}

/// A thread's own: what its seeds meet, and the threads that stand still for them.
struct Bench {
    counts: Counts,
    fibers: Fibers,
}

impl Bench {
    fn new() -> Bench {
        coverage::listen();
        let counts = Counts::default();
        coverage::count_in(counts.clone());
        Bench {
            fibers: fibers(&counts),
            counts,
        }
    }

    fn run(&mut self, seed: u64, trace: Arc<Trace>) -> Result<Report, Failure> {
        let fibers = self.fibers.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| run::run(seed, trace, fibers)));
        outcome.map_err(|panic| {
            // One of them may stand still for ever.
            self.fibers = self::fibers(&self.counts);
            Failure {
                seed,
                what: message(&*panic),
            }
        })
    }
}

fn fibers(counts: &Counts) -> Fibers {
    Fibers(Arc::new([
        Fiber::new(counts.clone()),
        Fiber::new(counts.clone()),
        Fiber::new(counts.clone()),
        Fiber::new(counts.clone()),
    ]))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

/// Runs one seed and returns its trace.
pub fn traced(seed: u64) -> (Result<Report, Failure>, String) {
    let trace = Arc::new(Trace::kept());
    let outcome = Bench::new().run(seed, trace.clone());
    (outcome, trace.take())
}

/// Runs one seed and prints its trace.
pub fn printed(seed: u64) -> Result<Report, Failure> {
    let trace = Arc::new(Trace::printed());
    let outcome = Bench::new().run(seed, trace.clone());
    trace.flush();
    outcome
}

/// Runs `count` seeds from `first` on, with `jobs` threads. After a failure no further seeds are begun, unless all
/// failures are wanted.
pub fn run_many(first: u64, count: u64, jobs: usize, keep_going: bool) -> Summary {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut bench = Bench::new();
                let mut mine = Summary::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    mine.seeds += 1;
                    match bench.run(seed, Arc::new(Trace::Off)) {
                        Ok(report) => {
                            mine.operations += report.operations;
                            mine.crashes += u64::from(report.crashes);
                        }
                        Err(failure) => {
                            stop.store(!keep_going, Ordering::Relaxed);
                            mine.failures.push(failure);
                        }
                    }
                }
                mine.met = bench.counts.all();
                summary.lock().add(mine);
            });
        }
    });
    let mut summary = summary.into_inner();
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}

impl Summary {
    fn add(&mut self, other: Summary) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.crashes += other.crashes;
        for (name, count) in other.met {
            *self.met.entry(name).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    /// What was never met, and should have been.
    pub fn never_met(&self) -> Vec<&'static str> {
        coverage::expected()
            .filter(|name| !self.met.contains_key(name))
            .collect()
    }
}
