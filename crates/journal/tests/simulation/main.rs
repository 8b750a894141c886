//! Crashes of both kinds, in any sequence, against a model. A failing seed is printed; `MAINSTEM_SEED=n` runs it alone,
//! `MAINSTEM_SEEDS=n` runs that many.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod model;

use std::panic::{catch_unwind, resume_unwind};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn for_seeds(default: u64, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let seeds = match number("MAINSTEM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MAINSTEM_SEEDS").unwrap_or(default),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(|| run(seed)) {
            eprintln!("failing seed: run it again with MAINSTEM_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[cfg(not(feature = "mutations"))]
mod sound {
    use super::*;

    #[test]
    fn what_was_durable_or_shown_is_there_after_any_crashes() {
        for_seeds(200, |seed| drop(model::run(seed)));
    }

    #[test]
    fn damage_is_found_and_named() {
        for_seeds(400, model::run_with_damage);
    }

    #[test]
    fn a_seed_replays_exactly() {
        for_seeds(20, |seed| assert_eq!(model::run(seed), model::run(seed)));
    }
}

/// Each mutation breaks a promise, and the tests above notice.
#[cfg(feature = "mutations")]
mod mutated {
    use super::*;
    use mainstem_journal::mutation;

    #[test]
    fn each_mutation_is_noticed() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let of_the_journal = [
            mutation::NO_JOURNAL_SYNC,
            mutation::NO_DIRECTORY_SYNC,
            mutation::APPLY_BEFORE_SYNC,
            mutation::TORN_TAIL_ACCEPTED,
            mutation::BIT_FLIP_CUT_AS_TORN_TAIL,
            mutation::PUBLISH_WITHOUT_SYNC_ON_RECOVERY,
            mutation::RECOVERY_WRITES_ON_IN_OLD_FILE,
            mutation::HALF_BUILT_FILE_TRUSTED,
            mutation::SEEN_OFFSET_NAMES_ANOTHER_RECORD,
        ];
        let mut unnoticed = Vec::new();
        for name in of_the_journal {
            mutation::set(Some(name));
            let seeds = number("MAINSTEM_SEEDS").unwrap_or(300);
            let told = |seed| {
                catch_unwind(|| (model::run(seed), model::run_with_damage(seed)))
                    .err()
                    .map(|panic| (seed, panic))
            };
            match (0..seeds).find_map(told) {
                Some((seed, panic)) => {
                    let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    println!("{name}: noticed by seed {seed}: {why}");
                }
                None => unnoticed.push(name),
            }
        }
        mutation::set(None);
        std::panic::set_hook(hook);
        for_seeds(50, |seed| drop(model::run(seed)));
        for_seeds(50, model::run_with_damage);
        assert!(unnoticed.is_empty(), "nobody notices {unnoticed:?}");
    }
}
