//! Rows of a benchmark: how they are printed and where they are left; and the clocks of processor time.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each benchmark uses a part.

use std::path::{Path, PathBuf};

/// One row; see docs/benchmarks.md.
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub value: f64,
    pub limit: Option<f64>,
    pub aim: Option<f64>,
}

impl Row {
    pub fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Row {
        Row {
            name: name.into(),
            unit,
            value,
            limit: None,
            aim: None,
        }
    }

    pub fn limit(self, limit: f64) -> Row {
        Row {
            limit: Some(limit),
            ..self
        }
    }

    pub fn aim(self, aim: f64) -> Row {
        Row {
            aim: Some(aim),
            ..self
        }
    }

    /// More is better: of times and of what is counted for a record, less is.
    fn ratio(&self) -> Option<f64> {
        let limit = self.limit?;
        match self.unit {
            "ms" | "us/record" | "allocations/record" => Some(limit / self.value),
            _ => Some(self.value / limit),
        }
    }
}

/// Prints the rows and leaves them in `target/bench/<file>.json`.
pub fn report(layer: &str, file: &str, rows: &[Row]) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    println!(
        "{:width$} {:>12} {:>12} {:>7} {:>5}  unit",
        "", "value", "limit", "ratio", "aim"
    );
    for row in rows {
        let (scale, unit) = match row.unit {
            "bytes/s" => (1e6, "MB/s"),
            unit => (1.0, unit),
        };
        let show = |value: Option<f64>| value.map_or(String::new(), |value| shown(value / scale));
        let two_digits =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        println!(
            "{:width$} {:>12} {:>12} {:>7} {:>5}  {unit}",
            row.name,
            show(Some(row.value)),
            show(row.limit),
            two_digits(row.ratio()),
            two_digits(row.aim),
        );
    }
    let json: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name, "layer": layer, "value": row.value, "unit": row.unit,
                "limit": row.limit, "ratio": row.ratio(), "aim": row.aim,
            })
        })
        .collect();
    let path = out_dir().join(format!("{file}.json"));
    std::fs::write(path, serde_json::to_vec_pretty(&json).unwrap()).unwrap();
}

/// With as many digits as say something.
fn shown(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Where rows go, and data while they are measured.
pub fn out_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let out = target.join("bench");
    std::fs::create_dir_all(&out).unwrap();
    out
}

/// User and system time of the whole process.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<f64>().unwrap();
    (ticks() + ticks()) / 100.0
}

/// What this thread has spent on a processor: other work on the machine hardly shows in it. The kernel counts it a few
/// milliseconds at a time, so what is measured has to take longer than that by far.
pub fn thread_cpu_seconds() -> f64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    line.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
