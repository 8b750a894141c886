//! What is said: rows for machines, tables for people. Both are made of the same figures.

use super::latencies::{Latencies, QUANTILES};
use super::limits::Limits;
use super::load::Outcome;
use super::plan::grouped;
use crate::cli::output::table;
use serde_json::{Value, json};

/// What a fetch phase has read.
#[derive(Debug)]
pub struct Fetched {
    pub readers: usize,
    pub records: u64,
    pub bytes: u64,
    pub seconds: f64,
}

impl Fetched {
    fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    pub limits: Limits,
    pub record_bytes: usize,
    pub seconds: f64,
    pub phases: Vec<Outcome>,
    pub fetched: Vec<Fetched>,
}

/// What part of a loopback copy reading should reach.
const FETCH_AIM: f64 = 0.7;

/// One row; see docs/benchmarks.md.
#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    limit: Option<f64>,
    aim: Option<f64>,
}

impl Row {
    fn new(name: String, value: f64, unit: &'static str) -> Row {
        Row {
            name,
            value,
            unit,
            limit: None,
            aim: None,
        }
    }

    fn limit(self, limit: Option<f64>, aim: Option<f64>) -> Row {
        Row { limit, aim, ..self }
    }

    /// More is better: a latency's is the limit by the value.
    fn ratio(&self) -> Option<f64> {
        let limit = self.limit?;
        let (over, under) = if self.unit == "ms" {
            (limit, self.value)
        } else {
            (self.value, limit)
        };
        (under > 0.0).then(|| over / under)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "layer": "end to end", "value": self.value, "unit": self.unit,
            "limit": self.limit, "ratio": self.ratio(), "aim": self.aim,
        })
    }
}

impl Report {
    /// The rows, in the order in which they were measured.
    pub fn rows(&self) -> Vec<Value> {
        let phases = self.phases.iter().flat_map(|phase| self.phase_rows(phase));
        let rows = phases.chain(
            self.fetched
                .iter()
                .flat_map(|fetched| self.fetch_rows(fetched)),
        );
        rows.chain(self.limit_rows())
            .map(|row| row.json())
            .collect()
    }

    fn phase_rows(&self, outcome: &Outcome) -> Vec<Row> {
        let name = &outcome.phase.name;
        let disk = self.limits.disk.as_ref();
        let per_second = outcome.records_per_second();
        let mut rows = vec![
            Row::new(
                format!("{name}: acknowledged"),
                outcome.produced.acknowledged as f64,
                "records",
            ),
            Row::new(
                format!("{name}: not sent in time"),
                outcome.produced.unsent as f64,
                "records",
            ),
            Row::new(format!("{name}: records"), per_second, "records/s")
                .limit(outcome.due_per_second, None),
            Row::new(
                format!("{name}: bytes"),
                per_second * self.record_bytes as f64,
                "bytes/s",
            )
            .limit(disk.map(|disk| disk.bytes_per_second), None),
        ];
        let mut latencies = |what: &str, latencies: &Latencies, aim: Option<f64>| {
            for (quantile, part) in QUANTILES {
                let row = Row::new(
                    format!("{name}: {what} {quantile}"),
                    latencies.quantile_ms(part),
                    "ms",
                );
                // As fast as it goes, a latency is the length of the queue.
                let limit = disk
                    .filter(|_| !outcome.is_closed())
                    .map(|disk| disk.sync_ms(part));
                rows.push(row.limit(limit, aim.filter(|_| quantile == "p99" && limit.is_some())));
            }
        };
        latencies(
            "acknowledged",
            &outcome.produced.latencies,
            outcome.phase.aim,
        );
        if let Some(read) = &outcome.read {
            latencies("read", read, None);
            rows.push(Row::new(
                format!("{name}: read by those who follow"),
                read.count() as f64,
                "records",
            ));
        }
        if let Some(cpu_seconds) = outcome.cpu_seconds.filter(|_| outcome.produced.in_time > 0) {
            let per_record_us = cpu_seconds * 1e6 / outcome.produced.in_time as f64;
            rows.push(Row::new(
                format!("{name}: server's processor time per record"),
                per_record_us,
                "us",
            ));
        }
        rows
    }

    fn fetch_rows(&self, fetched: &Fetched) -> Vec<Row> {
        let name = format!("fetch, {}", readers(fetched.readers));
        let limit = self.loopback(fetched);
        vec![
            Row::new(
                format!("{name}: records"),
                fetched.records as f64 / fetched.seconds,
                "records/s",
            ),
            Row::new(
                format!("{name}: bytes"),
                fetched.bytes_per_second(),
                "bytes/s",
            )
            .limit(Some(limit), Some(FETCH_AIM)),
        ]
    }

    fn limit_rows(&self) -> Vec<Row> {
        let Some(disk) = &self.limits.disk else {
            return Vec::new();
        };
        let syncs = QUANTILES.map(|(quantile, part)| {
            Row::new(
                format!("the disk: 4 KiB and fdatasync {quantile}"),
                disk.sync_ms(part),
                "ms",
            )
        });
        let most = Row::new(
            "the disk: overwrites and fdatasync".into(),
            disk.bytes_per_second,
            "bytes/s",
        );
        std::iter::once(most).chain(syncs).collect()
    }

    fn loopback(&self, fetched: &Fetched) -> f64 {
        let [one, many] = self.limits.loopback;
        if fetched.readers == 1 { one } else { many }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for outcome in &self.phases {
            text += &self.phase_text(outcome);
            text += "\n";
        }
        for fetched in &self.fetched {
            text += &format!(
                "fetch, {}: {} records/s, {}\n",
                readers(fetched.readers),
                grouped(fetched.records as f64 / fetched.seconds),
                self.rate(
                    fetched.bytes_per_second(),
                    Some(self.loopback(fetched)),
                    "a loopback copy"
                ),
            );
        }
        if let Some(disk) = &self.limits.disk {
            let quantiles =
                QUANTILES.map(|(quantile, part)| format!("{quantile} {}", ms(disk.sync_ms(part))));
            text += &format!(
                "the disk itself: {} of overwrites and fdatasync; 4 KiB and fdatasync, ms: {}\n",
                megabytes(disk.bytes_per_second),
                quantiles.join(", "),
            );
        }
        text
    }

    fn phase_text(&self, outcome: &Outcome) -> String {
        let disk = self.limits.disk.as_ref();
        let per_second = outcome.records_per_second();
        let mut text = format!(
            "{}: {} records/s, {}\n",
            outcome.phase.name,
            grouped(per_second),
            self.rate(
                per_second * self.record_bytes as f64,
                disk.map(|disk| disk.bytes_per_second),
                "the disk's limit"
            ),
        );
        if let Some(due) = outcome
            .due_per_second
            .filter(|_| outcome.produced.unsent > 0)
        {
            text += &format!(
                "  {} records a second were due, and {} could not be sent in time: choose a lower --rate\n",
                grouped(due),
                grouped(outcome.produced.unsent as f64),
            );
        }
        let line = |what: String, latencies: &Latencies| {
            let quantiles = QUANTILES
                .iter()
                .map(|(_, part)| ms(latencies.quantile_ms(*part)));
            std::iter::once(what).chain(quantiles).collect::<Vec<_>>()
        };
        let mut lines = vec![line("acknowledged".into(), &outcome.produced.latencies)];
        if let Some(read) = &outcome.read {
            lines.push(line(
                format!("read by {}", readers(outcome.tail_readers)),
                read,
            ));
        }
        if let Some(disk) = disk.filter(|_| !outcome.is_closed()) {
            let quantiles = QUANTILES.iter().map(|(_, part)| ms(disk.sync_ms(*part)));
            lines.push(
                std::iter::once("fdatasync alone".into())
                    .chain(quantiles)
                    .collect(),
            );
        }
        let heading = ["ms", "p50", "p90", "p99", "p99.9", "max"];
        text += &table(&heading, lines);
        text += &outcome.produced.latencies.picture();
        if let Some(cpu_seconds) = outcome.cpu_seconds.filter(|_| outcome.produced.in_time > 0) {
            let per_record_us = cpu_seconds * 1e6 / outcome.produced.in_time as f64;
            text += &format!(
                "  the server used {:.0} % of a core, {per_record_us:.2} us for each record\n",
                cpu_seconds / self.seconds * 100.0
            );
        }
        text
    }

    fn rate(&self, bytes_per_second: f64, limit: Option<f64>, of: &str) -> String {
        let rate = megabytes(bytes_per_second);
        limit
            .filter(|limit| *limit > 0.0)
            .map_or(rate.clone(), |limit| {
                format!(
                    "{rate}, {:.2} of {of} ({})",
                    bytes_per_second / limit,
                    megabytes(limit)
                )
            })
    }
}

fn readers(count: usize) -> String {
    match count {
        1 => "1 reader".into(),
        _ => format!("{count} readers"),
    }
}

fn megabytes(bytes_per_second: f64) -> String {
    format!("{} MB/s", grouped(bytes_per_second / 1e6))
}

/// Milliseconds with as many digits as say something.
fn ms(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.3}"),
        _ if value < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_more_is_better() {
        let latency = Row::new("p99".into(), 4.0, "ms").limit(Some(2.0), Some(0.33));
        assert_eq!(latency.ratio(), Some(0.5));
        let rate = Row::new("bytes".into(), 4.0, "bytes/s").limit(Some(2.0), None);
        assert_eq!(rate.ratio(), Some(2.0));
        assert_eq!(
            Row::new("count".into(), 4.0, "records").json()["ratio"],
            Value::Null
        );
    }
}
