//! The long forms: `guarantees [--kills N] [--only NAME] [--memory] [--mutation NAME]`.
#![allow(clippy::expect_used)]

use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use mainstem_guarantees::server::{self, MemoryPlan, Plan};
use mainstem_guarantees::simulation::{self, Length};
use mainstem_guarantees::{Failure, Tally};
use parking_lot::Mutex;

const USAGE: &str =
    "guarantees [--kills N] [--only simulation|poison|server|memory] [--mutation NAME|list]

  --kills N        kill -9 of the real binary so often, and 400 times that in process (default 50)
  --only NAME      one part alone; `memory` is in no other run: 4 GiB through a server of 1 GiB
  --memory         the same as --only memory
  --mutation NAME  show that this deliberate fault is found (a build with the feature `mutations`)

MAINSTEM_SEED=n runs one seed alone in process.";

/// Kills in process, for one of the real binary.
const SIMULATED: u64 = 400;

struct Arguments {
    kills: u64,
    only: Option<String>,
    mutation: Option<String>,
}

/// Runs one part, as long as so many kills ask for, and says what it counted.
type Part = fn(u64) -> Result<String, Failure>;

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(name) = &arguments.mutation {
        return mutation(name);
    }
    let parts: [(&str, &str, Part); 4] = [
        ("simulation", "in process, power and process", simulated),
        ("poison", "one poison event in 10,000", poison),
        ("server", "the real binary, kill -9", real),
        ("memory", "4 GiB through 1 GiB", memory),
    ];
    let mut failed = false;
    let mut table = Vec::new();
    for (name, what, run) in parts {
        let wanted = match arguments.only.as_deref() {
            Some(only) => only == name,
            None => name != "memory",
        };
        if !wanted {
            continue;
        }
        eprintln!("{name}: {what} …");
        let began = Instant::now();
        let outcome = run(arguments.kills);
        let took = began.elapsed().as_secs();
        failed |= outcome.is_err();
        table.push(match outcome {
            Ok(counts) => format!("  holds   {name:<11} {took:>4} s  {counts}"),
            Err(failure) => format!(
                "  FAILED  {name:<11} {took:>4} s  {failure}\n          until then: {}",
                failure.tally
            ),
        });
    }
    println!("{}", table.join("\n"));
    if failed || table.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        kills: 50,
        only: None,
        mutation: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--kills" => {
                arguments.kills = value()?
                    .parse()
                    .map_err(|_| "--kills needs a number".to_owned())?
            }
            "--only" => arguments.only = Some(value()?),
            "--memory" => arguments.only = Some("memory".to_owned()),
            "--mutation" => arguments.mutation = Some(value()?),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(arguments)
}

fn simulated(kills: u64) -> Result<String, Failure> {
    let run = |seed| simulation::run(seed, Length::LONG);
    on_all_cores("simulation", kills * SIMULATED, run)
}

fn poison(kills: u64) -> Result<String, Failure> {
    on_all_cores("poison", kills * 2, simulation::poison)
}

/// Runs seed after seed until so often was killed, or one fails.
fn on_all_cores(
    part: &str,
    kills: u64,
    run: impl Fn(u64) -> Result<Tally, Failure> + Sync,
) -> Result<String, Failure> {
    let seeds = Mutex::new(simulation::seeds(1_000));
    let outcome: Mutex<Result<Tally, Failure>> = Mutex::new(Ok(Tally::default()));
    let is_done = || !matches!(&*outcome.lock(), Ok(tally) if tally.kills < kills);
    let work = || {
        while !is_done()
            && let Some(seed) = { seeds.lock().next() }
        {
            let run = run(seed);
            let mut outcome = outcome.lock();
            match (run, &mut *outcome) {
                (Ok(counted), Ok(tally)) => tally.add(&counted),
                (Err(failure), Ok(_)) => *outcome = Err(at_seed(failure, seed, part)),
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let tally = outcome.into_inner()?;
    tally.verdict()?;
    Ok(tally.to_string())
}

/// With the command that runs this seed again.
fn at_seed(failure: Failure, seed: u64, part: &str) -> Failure {
    let again =
        format!("MAINSTEM_SEED={seed} cargo run --release -p mainstem-guarantees -- --only {part}");
    Failure {
        what: format!("{}\n          again: {again}", failure.what),
        ..failure
    }
}

fn real(kills: u64) -> Result<String, Failure> {
    let tally = server::run(Plan::long(kills, 1))?;
    tally.verdict()?;
    Ok(tally.to_string())
}

fn memory(_: u64) -> Result<String, Failure> {
    let plan = MemoryPlan::default();
    let report = server::memory(plan)?;
    Ok(format!(
        "peak {} MiB resident ({} MiB of it not files) of {} MiB · {} records at {} MiB/s · {} scans · nothing refused or lost",
        report.peak_resident_bytes >> 20,
        report.peak_anonymous_bytes >> 20,
        plan.limit_bytes >> 20,
        report.records,
        report.bytes_per_second >> 20,
        report.scans,
    ))
}

#[cfg(feature = "mutations")]
fn mutation(name: &str) -> ExitCode {
    use mainstem_guarantees::mutations;

    let names: Vec<&str> = match name {
        "all" => mutations::list().map(|(name, _)| *name).collect(),
        "list" => {
            mutations::list().for_each(|(name, what)| println!("{name:<34} {what}"));
            return ExitCode::SUCCESS;
        }
        one => vec![one],
    };
    // What a mutated engine panics with is told below, in one line.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = false;
    for name in names {
        match mutations::find(name) {
            Ok(found) => println!(
                "  found   {name:<34} by seed {}: {}",
                found.seed, found.failure
            ),
            Err(failure) => {
                missed = true;
                println!("  MISSED  {name:<34} {failure}");
            }
        }
    }
    if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(not(feature = "mutations"))]
fn mutation(_: &str) -> ExitCode {
    eprintln!("this build has no mutations; run `make guarantees MUTATE=NAME`");
    ExitCode::from(2)
}
