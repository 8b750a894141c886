//! Latencies in a histogram: three digits from a microsecond to an hour, a few hundred kilobytes.

use crate::failure::Failure;
use hdrhistogram::Histogram;

/// From nanoseconds in to milliseconds out.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// The quantiles that are told, by name.
pub const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

const LEAST_NS: u64 = 1_000;
const MOST_NS: u64 = 3_600_000_000_000;
/// Where the first bar of a picture ends: doubled a few times it is a millisecond.
const FIRST_BAR_NS: u64 = 62_500;
/// Bars of a picture at most.
const BARS: usize = 14;
const BAR_WIDTH: f64 = 40.0;

impl Latencies {
    pub fn new() -> Result<Latencies, Failure> {
        let histogram = Histogram::new_with_bounds(LEAST_NS, MOST_NS, 3).map_err(|error| {
            Failure::new("internal", format!("cannot make a histogram: {error}"), "")
        })?;
        Ok(Latencies { histogram })
    }

    pub fn record_ns(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns);
    }

    pub fn add(&mut self, other: &Latencies) {
        // Both have the same bounds: it cannot fail.
        let _ = self.histogram.add(&other.histogram);
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub fn quantile_ms(&self, part: f64) -> f64 {
        if self.histogram.is_empty() {
            return 0.0;
        }
        self.histogram.value_at_quantile(part) as f64 / 1e6
    }

    /// How they are spread: a line for each doubling, from the smallest to the largest; what lies far out on either side
    /// is told together.
    pub fn picture(&self) -> String {
        let count = self.count().max(1) as f64;
        let mut bars: Vec<(u64, u64)> = self
            .histogram
            .iter_log(FIRST_BAR_NS, 2.0)
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .skip_while(|(_, count)| *count == 0)
            .collect();
        while bars.last().is_some_and(|(_, count)| *count == 0) {
            bars.pop();
        }
        while bars.len() > BARS {
            let first = bars.remove(0);
            if let Some(next) = bars.first_mut() {
                next.1 += first.1;
            }
        }
        let highest = bars
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(1)
            .max(1) as f64;
        bars.iter()
            .map(|(to_ns, part)| {
                let part = *part as f64;
                // What is there is seen, however little it is.
                let width = (part / highest * BAR_WIDTH).ceil() as usize;
                let bar = "#".repeat(width);
                format!(
                    "  up to {:>10.4} ms {:>9.4} %  {bar}\n",
                    *to_ns as f64 / 1e6,
                    part / count * 100.0
                )
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        for ms in 1..=1000u64 {
            latencies.record_ns(ms * 1_000_000);
        }
        for (part, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latencies.quantile_ms(part);
            assert!((found / expected - 1.0).abs() < 0.002, "{part}: {found}");
        }
        let mut other = Latencies::new().unwrap();
        other.record_ns(u64::MAX);
        latencies.add(&other);
        assert_eq!(latencies.count(), 1001);
        assert!(latencies.quantile_ms(1.0) > 3_000_000.0);
    }

    #[test]
    fn a_picture_accounts_for_everything() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.picture(), "");
        for ns in [1, 100_000, 100_000, 900_000, 30_000_000_000] {
            latencies.record_ns(ns);
        }
        let picture = latencies.picture();
        assert!(picture.lines().count() <= BARS, "{picture}");
        let percents = picture.lines().map(|line| {
            line.split_whitespace()
                .nth(4)
                .unwrap()
                .parse::<f64>()
                .unwrap()
        });
        assert!((percents.sum::<f64>() - 100.0).abs() < 0.01, "{picture}");
    }
}
