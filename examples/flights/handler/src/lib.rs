//! The handler `flights`: departures in, running totals and alerts out.
//!
//! Topic `flights` is keyed by carrier, so each carrier is on one partition, and so are its totals.

use mainstem_sdk::prelude::*;

/// A departure counts as badly late when it is later than this.
const ALERT_ABOVE_MIN: i64 = 120;

/// The running totals of a carrier's day. The fields are SQL's columns of `state.flights`.
const DAYS: Table<str, Day> = Table::new("days");

#[derive(Serialize, Deserialize, Default)]
struct Day {
    carrier: String,
    date: String,
    flights: i64,
    departed: i64,
    cancelled: i64,
    /// Minutes, over departed flights; early ones count as negative.
    dep_delay_sum: i64,
}

/// What the handler needs of a departure; null where the flight was cancelled.
#[derive(Deserialize)]
struct Departure {
    year: i64,
    month: i64,
    day: i64,
    carrier: String,
    flight: i64,
    origin: String,
    dest: String,
    sched_dep_time: i64,
    dep_delay: Option<Minutes>,
}

#[derive(Serialize)]
struct Alert<'a> {
    carrier: &'a str,
    flight: i64,
    origin: &'a str,
    dest: &'a str,
    date: &'a str,
    sched_dep_time: i64,
    dep_delay: i64,
}

/// Whole minutes, written as 12 or as 12.0. Sums of them are exact.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Minutes(i64);

impl TryFrom<f64> for Minutes {
    type Error = String;

    fn try_from(minutes: f64) -> std::result::Result<Minutes, String> {
        // Up to 2^53 every whole number has its own floating-point number.
        if minutes.fract() == 0.0 && minutes.abs() < (1u64 << 53) as f64 {
            Ok(Minutes(minutes as i64))
        } else {
            Err(format!("{minutes} is no whole number of minutes"))
        }
    }
}

#[mainstem_sdk::handler]
fn flights(event: &Event, ctx: &mut Context) -> Result<()> {
    let departure: Departure = event.json()?;
    let date = format!(
        "{:04}-{:02}-{:02}",
        departure.year, departure.month, departure.day
    );
    let key = format!("{} {date}", departure.carrier);

    let day = DAYS.update(ctx, &key, |day| {
        if day.flights == 0 {
            day.carrier.clone_from(&departure.carrier);
            day.date.clone_from(&date);
        }
        day.flights += 1;
        match departure.dep_delay {
            Some(Minutes(delay)) => {
                day.departed += 1;
                day.dep_delay_sum += delay;
            }
            None => day.cancelled += 1,
        }
    })?;
    ctx.emit("daily", &key, &day)?;

    match departure.dep_delay {
        Some(Minutes(dep_delay)) if dep_delay > ALERT_ABOVE_MIN => {
            let Departure {
                carrier,
                flight,
                origin,
                dest,
                sched_dep_time,
                ..
            } = &departure;
            let alert = Alert {
                carrier,
                flight: *flight,
                origin,
                dest,
                date: &date,
                sched_dep_time: *sched_dep_time,
                dep_delay,
            };
            ctx.emit("alerts", carrier, &alert)
        }
        _ => Ok(()),
    }
}
