//! When records are due, and how late their answers are: an open loop. A record is due at its time whatever became of those
//! before it, and its latency counts from there. So a server that stalls once is seen in every record that was due
//! meanwhile, and not in the one that happened to be under way: what is known as coordinated omission does not happen.
//!
//! There is no clock here: every time is given, in nanoseconds since the phase began.

use super::latencies::Latencies;
use crate::failure::Failure;
use std::ops::Range;

/// A record that is still not sent so long after the end is counted as not sent.
const GRACE_NS: u64 = 1_000_000_000;

/// When the records of one producer are due.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Records due in it are measured.
    pub window: Range<u64>,
    /// Between two records of all producers together; none: as fast as it goes.
    pub gap_ns: Option<f64>,
    /// Which of the producers this is.
    pub producer: u64,
    /// How many there are: they take turns.
    pub producers: u64,
}

/// What is to be done about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To be sent when it is due, or now if that has passed.
    Send { due_ns: u64 },
    /// The server has not kept up, and nobody waits any longer.
    Unsent { due_ns: u64 },
    /// It would be due after the end, as every one after it.
    Over,
}

impl Schedule {
    /// The number of this producer's `index`th record among those of all.
    pub fn number(&self, index: u64) -> u64 {
        self.producer + index * self.producers
    }

    /// What is to be done about the record of this number.
    pub fn turn(&self, number: u64, now_ns: u64) -> Turn {
        let due_ns = self
            .gap_ns
            .map_or(now_ns, |gap_ns| (number as f64 * gap_ns) as u64);
        if due_ns >= self.window.end {
            Turn::Over
        } else if now_ns >= self.window.end + GRACE_NS {
            Turn::Unsent { due_ns }
        } else {
            Turn::Send { due_ns }
        }
    }
}

/// What came of the records.
#[derive(Debug)]
pub struct Acknowledged {
    /// Records handed to the client, warm-up included.
    pub sent: u64,
    /// Acknowledged within the window, whenever they were due.
    pub in_time: u64,
    /// Due within the window and acknowledged.
    pub acknowledged: u64,
    /// Due within the window and not sent by its end: the server did not keep up.
    pub unsent: u64,
    /// Of those that were due within the window; what was not sent counts with how long it had waited.
    pub latencies: Latencies,
}

impl Acknowledged {
    pub fn new() -> Result<Acknowledged, Failure> {
        Ok(Acknowledged {
            sent: 0,
            in_time: 0,
            acknowledged: 0,
            unsent: 0,
            latencies: Latencies::new()?,
        })
    }

    /// A record was acknowledged.
    pub fn record(&mut self, window: &Range<u64>, due_ns: u64, now_ns: u64) {
        self.in_time += u64::from(window.contains(&now_ns));
        if window.contains(&due_ns) {
            self.acknowledged += 1;
            self.latencies.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    /// A record was given up.
    pub fn record_unsent(&mut self, window: &Range<u64>, due_ns: u64, now_ns: u64) {
        if window.contains(&due_ns) {
            self.unsent += 1;
            self.latencies.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    pub fn add(&mut self, other: &Acknowledged) {
        self.sent += other.sent;
        self.in_time += other.in_time;
        self.acknowledged += other.acknowledged;
        self.unsent += other.unsent;
        self.latencies.add(&other.latencies);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    /// What the server takes when nothing is wrong.
    const SERVED_NS: u64 = MS / 2;

    fn schedule() -> Schedule {
        Schedule {
            window: 100 * MS..1_100 * MS,
            gap_ns: Some(MS as f64),
            producer: 0,
            producers: 1,
        }
    }

    /// Runs a schedule against a server that does nothing from `stall.start` to `stall.end`, in times that are made up.
    /// Nothing can be handed to it meanwhile, as when a client's buffer is full: so the sender stalls with it.
    fn run(schedule: &Schedule, stall: &Range<u64>) -> Acknowledged {
        let mut outcome = Acknowledged::new().unwrap();
        let mut now_ns = 0;
        for index in 0.. {
            match schedule.turn(schedule.number(index), now_ns) {
                Turn::Over => break,
                Turn::Unsent { due_ns } => {
                    outcome.record_unsent(&schedule.window, due_ns, now_ns);
                }
                Turn::Send { due_ns } => {
                    now_ns = now_ns.max(due_ns);
                    if stall.contains(&now_ns) {
                        now_ns = stall.end;
                    }
                    outcome.sent += 1;
                    outcome.record(&schedule.window, due_ns, now_ns + SERVED_NS);
                }
            }
        }
        outcome
    }

    #[test]
    fn a_stall_is_seen_in_every_record_that_was_due_meanwhile() {
        let outcome = run(&schedule(), &(400 * MS..600 * MS));
        assert_eq!((outcome.sent, outcome.unsent), (1_100, 0));
        assert_eq!(outcome.acknowledged, 1_000);
        // Of 1,000 records 200 were due in the stall, and waited from 200 ms down to 1 ms for its end.
        for (part, expected_ms) in [
            (0.5, 0.5),
            (0.8, 0.5),
            (0.85, 50.5),
            (0.9, 100.5),
            (0.99, 190.5),
            (1.0, 200.5),
        ] {
            let found = outcome.latencies.quantile_ms(part);
            assert!(
                (found / expected_ms - 1.0).abs() < 0.002,
                "{part}: {found} ms, and not {expected_ms} ms"
            );
        }
    }

    #[test]
    fn what_a_stall_leaves_unsent_counts_with_how_long_it_waited() {
        let end_ns = schedule().window.end + GRACE_NS;
        let outcome = run(&schedule(), &(600 * MS..end_ns));
        // The one that was being handed over came through after all.
        assert_eq!((outcome.acknowledged, outcome.unsent), (501, 499));
        assert_eq!(outcome.latencies.count(), 1_000);
        // From 1,500 ms, of the first that was due in the stall, down to 1,001 ms.
        for (part, expected_ms) in [(0.5, 0.5), (0.75, 1_250.0), (1.0, 1_500.5)] {
            let found = outcome.latencies.quantile_ms(part);
            assert!((found / expected_ms - 1.0).abs() < 0.002, "{part}: {found}");
        }
    }

    #[test]
    fn producers_take_turns_and_miss_nothing() {
        let mut due: Vec<u64> = (0..3)
            .flat_map(|producer| {
                let schedule = Schedule {
                    producer,
                    producers: 3,
                    ..schedule()
                };
                (0..)
                    .map(move |index| schedule.turn(schedule.number(index), 0))
                    .map_while(|turn| match turn {
                        Turn::Send { due_ns } => Some(due_ns),
                        _ => None,
                    })
            })
            .collect();
        due.sort_unstable();
        assert!(due.into_iter().eq((0..1_100).map(|index| index * MS)));
    }

    #[test]
    fn a_closed_loop_is_due_when_it_comes_to_it() {
        let schedule = Schedule {
            gap_ns: None,
            ..schedule()
        };
        assert_eq!(schedule.turn(9, 7 * MS), Turn::Send { due_ns: 7 * MS });
        assert_eq!(schedule.turn(9, 1_100 * MS), Turn::Over);
    }
}
