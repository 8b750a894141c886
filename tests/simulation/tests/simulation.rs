//! Short runs of the simulation. `make simulate SEEDS=n` runs more, `make simulate SEED=n` one with its trace.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[cfg(not(feature = "mutations"))]
mod honest {
    use mainstem_simulation::runner;

    #[test]
    fn promises_hold_through_faults_and_crashes_in_any_sequence() {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let summary = runner::run_many(0, 200, jobs, false);
        for failure in &summary.failures {
            let (seed, what) = (failure.seed, &failure.what);
            println!("seed {seed}: {what}; replay: make simulate SEED={seed}");
        }
        assert!(summary.failures.is_empty());
        let never: Vec<&str> = summary.never_met();
        assert!(
            never.is_empty(),
            "a run that never meets {never:?} shows nothing of it"
        );
    }

    #[test]
    fn a_seed_replays_exactly() {
        for seed in [1, 2, 3] {
            let (first, second) = (runner::traced(seed), runner::traced(seed));
            assert!(first.0.is_ok());
            let differs = first
                .1
                .lines()
                .zip(second.1.lines())
                .find(|(one, two)| one != two);
            assert_eq!(differs, None, "seed {seed} did two different things");
            assert_eq!(first.1.len(), second.1.len());
        }
    }
}

/// Each mutation breaks a promise, and the simulation notices.
#[cfg(feature = "mutations")]
#[test]
fn each_mutation_is_found() {
    use mainstem_simulation::mutations;

    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, what) in mutations::list() {
        let found = mutations::find(name, 2_000, jobs);
        let found = found.unwrap_or_else(|| panic!("nobody notices {name}: {what}"));
        println!(
            "{name} ({what}): found by seed {}: {}",
            found.seed, found.what
        );
    }
}
