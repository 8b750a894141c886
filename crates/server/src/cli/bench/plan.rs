//! Which phases a run has.

use super::BenchArguments;
use crate::failure::Failure;

/// How records come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the producers' buffers let.
    Closed,
    /// So many are due each second.
    Rate(f64),
    /// The same as a part of what a closed phase has given.
    Load(f64),
}

/// One phase: what it is called, and how its records come.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    pub pace: Pace,
    /// What part of the p99 the p99 of a plain sync should be, where something is promised.
    pub aim: Option<f64>,
}

/// What a durable produce should keep to at 1,000 records a second and at half load: at most 3 times the disk's p99.
const AIM: f64 = 0.33;

impl Phase {
    fn new(pace: Pace) -> Phase {
        let (name, aim) = match pace {
            Pace::Closed => ("produce, as fast as it goes".into(), None),
            Pace::Rate(rate) => (
                format!("produce, {} records/s", rate_text(rate)),
                (rate == 1000.0).then_some(AIM),
            ),
            Pace::Load(0.5) => ("produce, half load".into(), Some(AIM)),
            Pace::Load(part) => (format!("produce, {part} of the most"), None),
        };
        Phase { name, pace, aim }
    }
}

/// Every phase of a run.
#[derive(Debug)]
pub struct Plan {
    pub phases: Vec<Phase>,
}

impl Plan {
    /// What the command line asks for, or what is wrong with it.
    pub fn of(arguments: &BenchArguments) -> Result<Plan, Failure> {
        check(arguments)?;
        let paces = match (arguments.max, arguments.rate, arguments.load) {
            (true, ..) => vec![Pace::Closed],
            (_, Some(rate), _) => vec![Pace::Rate(rate)],
            (_, _, Some(part)) => vec![Pace::Closed, Pace::Load(part)],
            _ => vec![Pace::Closed, Pace::Rate(1000.0), Pace::Load(0.5)],
        };
        Ok(Plan {
            phases: paces.into_iter().map(Phase::new).collect(),
        })
    }
}

fn check(arguments: &BenchArguments) -> Result<(), Failure> {
    let BenchArguments {
        seconds,
        warm_up,
        record_bytes,
        producers,
        tail_readers,
        readers,
        ..
    } = *arguments;
    let refuse = |what: String, hint: &str| Err(Failure::usage(what, hint));
    let positive = |value: f64| value.is_finite() && value > 0.0;
    if let Some(rate) = arguments.rate.filter(|rate| !positive(*rate)) {
        return refuse(
            format!("--rate {rate} is no rate"),
            "give records per second, as in --rate 1000",
        );
    }
    if let Some(part) = arguments.load.filter(|part| !positive(*part)) {
        return refuse(
            format!("--load {part} is no part"),
            "give a part of the most, as in --load 0.5",
        );
    }
    if !positive(seconds) || seconds > MAX_SECONDS {
        return refuse(
            format!("--seconds {seconds} is no time to measure"),
            "give up to 86400 seconds, as in --seconds 10",
        );
    }
    if !(0.0..=MAX_SECONDS).contains(&warm_up) {
        return refuse(
            format!("--warm-up {warm_up} is no time"),
            "give up to 86400 seconds, as in --warm-up 2",
        );
    }
    if record_bytes < super::produce::LEAST_RECORD_BYTES {
        return refuse(
            format!("--record-bytes {record_bytes} is too small"),
            "give 8 at least: a record carries its time",
        );
    }
    for (name, count) in [
        ("--producers", producers),
        ("--tail-readers", tail_readers),
        ("--readers", readers),
    ] {
        if count > MAX_SIDE {
            return refuse(format!("{name} {count} is too many"), "give 1000 at most");
        }
    }
    if producers == 0 {
        return refuse("--producers 0 produce nothing".into(), "give 1 at least");
    }
    Ok(())
}

const MAX_SECONDS: f64 = 86_400.0;
const MAX_SIDE: usize = 1000;

fn rate_text(rate: f64) -> String {
    match rate.fract() == 0.0 {
        true => grouped(rate),
        false => rate.to_string(),
    }
}

/// A number as people read it: 12,345.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn plan(words: &[&str]) -> Result<Vec<Pace>, Failure> {
        let line = Line::try_parse_from([&["bench"], words].concat()).unwrap();
        Ok(Plan::of(&line.bench)?
            .phases
            .into_iter()
            .map(|phase| phase.pace)
            .collect())
    }

    #[test]
    fn the_load_decides_the_phases() {
        assert_eq!(plan(&["--max"]).unwrap(), [Pace::Closed]);
        assert_eq!(plan(&["--rate", "20"]).unwrap(), [Pace::Rate(20.0)]);
        assert_eq!(
            plan(&["--load", "0.8"]).unwrap(),
            [Pace::Closed, Pace::Load(0.8)]
        );
        assert_eq!(
            plan(&[]).unwrap(),
            [Pace::Closed, Pace::Rate(1000.0), Pace::Load(0.5)]
        );
        assert!(Line::try_parse_from(["bench", "--max", "--rate", "1"]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for words in [
            ["--rate", "0"],
            ["--rate", "NaN"],
            ["--load", "-1"],
            ["--seconds", "0"],
            ["--seconds", "inf"],
            ["--warm-up", "-1"],
            ["--record-bytes", "7"],
            ["--producers", "0"],
            ["--readers", "1001"],
        ] {
            let words: Vec<String> = vec![words.join("=")];
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let failure = plan(&words).unwrap_err();
            assert_eq!(failure.exit, 2, "{words:?}");
            assert!(!failure.hint.is_empty(), "{words:?}");
        }
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1000.0), "1,000");
        assert_eq!(grouped(1_234_567.4), "1,234,567");
    }
}
