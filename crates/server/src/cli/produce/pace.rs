//! No faster than asked for.

use crate::failure::Failure;
use std::time::{Duration, Instant};

/// Keeps to a rate. Time that was lost is not made up for.
pub struct Pace {
    gap: Duration,
    due: Instant,
}

/// How far the pace may be behind before the loss is forgotten.
const PACE_SLACK: Duration = Duration::from_millis(20);

impl Pace {
    pub fn new(rate: f64) -> Result<Pace, Failure> {
        if !rate.is_finite() || rate <= 0.0 {
            return Err(Failure::usage(
                format!("--rate {rate} is no rate"),
                "give records per second, as in --rate 2000",
            ));
        }
        Ok(Pace {
            gap: Duration::from_secs_f64(1.0 / rate),
            due: Instant::now(),
        })
    }

    pub async fn wait(&mut self) {
        let now = Instant::now();
        // A timer is about a millisecond late: below that, several records share a tick.
        if self.due > now + Duration::from_millis(1) {
            tokio::time::sleep_until(self.due.into()).await;
        }
        self.due = self.due.max(now.checked_sub(PACE_SLACK).unwrap_or(now)) + self.gap;
    }
}
