//! `simulate [--seeds N] [--first N] [--jobs N] [--keep-going]`, or `--seed N` for one seed with its trace. See
//! `make simulate`. Built with the feature `mutations`: `--mutation NAME`, `list` or `all`.

use std::process::ExitCode;
use std::time::Instant;

use mainstem_simulation::coverage::EXPECTED;
use mainstem_simulation::runner::{self, Summary};

/// So many seeds meet everything there is.
const ENOUGH: u64 = 200;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut seeds, mut first, mut jobs, mut seed, mut keep_going) = (200, 0, 0, None, false);
    while let Some(name) = arguments.next() {
        let mut number = || {
            let value = arguments.next().unwrap_or_default();
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} takes a number, not '{value}'"))
        };
        match name.as_str() {
            "--seeds" => seeds = number(),
            "--first" => first = number(),
            "--jobs" => jobs = number() as usize,
            "--seed" => seed = Some(number()),
            "--keep-going" => keep_going = true,
            "--mutation" => return mutation(&arguments.next().unwrap_or_default(), seeds, jobs),
            _ => {
                eprintln!("unknown argument {name}");
                return ExitCode::from(2);
            }
        }
    }
    if let Some(seed) = seed {
        return one(seed);
    }
    let jobs = cores_or(jobs);
    // What broke is told below, in one line.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let summary = runner::run_many(first, seeds, jobs, keep_going);
    print(&summary, begun.elapsed().as_secs_f64());
    let mut never = summary.never_met();
    if seeds < ENOUGH {
        never.clear();
    }
    if !never.is_empty() {
        println!("NEVER MET: {}", never.join(", "));
    }
    for failure in &summary.failures {
        println!("FAILED     seed {}: {}", failure.seed, failure.what);
        println!("           replay: make simulate SEED={}", failure.seed);
    }
    if summary.failures.is_empty() && never.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn cores_or(jobs: usize) -> usize {
    match jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    }
}

#[cfg(feature = "mutations")]
fn mutation(name: &str, seeds: u64, jobs: usize) -> ExitCode {
    use mainstem_simulation::mutations;

    let all = mutations::list();
    let names: Vec<&str> = match name {
        "list" => {
            all.iter()
                .for_each(|(name, what)| println!("{name:<34} {what}"));
            return ExitCode::SUCCESS;
        }
        "all" => all.iter().map(|(name, _)| *name).collect(),
        one if all.iter().any(|(known, _)| *known == one) => vec![one],
        other => {
            eprintln!("there is no mutation `{other}`; `list` names them");
            return ExitCode::from(2);
        }
    };
    // What a mutated engine panics with is told below, in one line.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = false;
    for name in names {
        match mutations::find(name, seeds, cores_or(jobs)) {
            Some(found) => println!(
                "  found   {name:<34} by seed {}: {}",
                found.seed, found.what
            ),
            None => {
                missed = true;
                println!("  MISSED  {name:<34} with {seeds} seeds");
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
fn mutation(_: &str, _: u64, _: usize) -> ExitCode {
    eprintln!("this build has no mutations; run `make simulate MUTATE=NAME`");
    ExitCode::from(2)
}

fn one(seed: u64) -> ExitCode {
    match runner::printed(seed) {
        Ok(report) => {
            println!("seed {seed}: {report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("FAILED     seed {seed}: {}", failure.what);
            ExitCode::FAILURE
        }
    }
}

fn print(summary: &Summary, seconds: f64) {
    println!(
        "{} seeds in {seconds:.1} s, {:.1} a second · {} operations · {} crashes",
        summary.seeds,
        summary.seeds as f64 / seconds.max(1e-9),
        summary.operations,
        summary.crashes
    );
    for (title, names) in EXPECTED {
        println!("{title}");
        for name in *names {
            println!("{:>12}  {name}", summary.met.get(name).unwrap_or(&0));
        }
    }
}
