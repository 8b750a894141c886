//! Short runs in process. `MAINSTEM_SEED=n` runs one seed alone; `make guarantees` runs many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[cfg(not(feature = "mutations"))]
mod honest {
    use mainstem_guarantees::Tally;
    use mainstem_guarantees::simulation::{self, Length};

    const SEEDS: usize = 10;

    #[test]
    fn acknowledged_once_in_order_and_every_step_whole() {
        let mut tally = Tally::default();
        for seed in simulation::seeds(0).take(SEEDS) {
            let run = simulation::run(seed, Length::SHORT);
            let one = run.unwrap_or_else(|failure| {
                panic!(
                    "{failure}\n{}",
                    simulation::replay_command("simulation", seed)
                )
            });
            tally.add(&one);
        }
        println!("{tally}");
        tally.verdict().unwrap();
        assert_eq!(tally.lost + tally.doubled, 0);
    }

    #[test]
    fn one_poison_event_among_ten_thousand_is_dead_lettered_once() {
        let mut tally = Tally::default();
        for seed in simulation::seeds(0).take(6) {
            let run = simulation::poison(seed);
            let one = run.unwrap_or_else(|failure| {
                panic!(
                    "{failure}\n{}",
                    simulation::replay_command("simulation", seed)
                )
            });
            assert_eq!((one.handled, one.dead_letters), (10_000, 1));
            tally.add(&one);
        }
        println!("{tally}");
        tally.verdict().unwrap();
    }

    #[test]
    fn a_seed_replays_exactly() {
        for seed in [3, 4] {
            let [first, second] =
                [(); 2].map(|()| simulation::digest(seed, Length::SHORT).unwrap());
            assert_eq!(first, second, "seed {seed} did two different things");
        }
    }
}

#[cfg(feature = "mutations")]
#[test]
fn each_mutation_is_found() {
    for (name, what) in mainstem_guarantees::mutations::list() {
        let found = mainstem_guarantees::mutations::find(name)
            .unwrap_or_else(|failure| panic!("{failure}"));
        println!(
            "{name} ({what}): found by seed {}: {}",
            found.seed, found.failure
        );
    }
}
