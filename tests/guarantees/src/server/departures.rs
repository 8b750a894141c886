//! Departures as the producers make them, and what the handler must have made of them, written down a second time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A departure later than this makes an alert.
const ALERT_ABOVE_MIN: i64 = 120;

/// Ids of one producer begin at a multiple of this.
const IDS_A_PRODUCER: u64 = 100_000_000;

const CARRIERS: [&str; 11] = [
    "9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "UA",
];

/// The columns of the topic.
pub(super) const COLUMNS: [(&str, i32); 10] = {
    use mainstem_client::proto::ColumnKind::{Int64, Utf8};
    [
        ("year", Int64 as i32),
        ("month", Int64 as i32),
        ("day", Int64 as i32),
        ("carrier", Utf8 as i32),
        ("flight", Int64 as i32),
        ("origin", Utf8 as i32),
        ("dest", Utf8 as i32),
        ("sched_dep_time", Int64 as i32),
        ("dep_delay", Int64 as i32),
        ("producer", Int64 as i32),
    ]
};

/// The id of a producer's n-th departure: no two are the same.
pub(super) fn id(producer: u64, number: u64) -> u64 {
    producer * IDS_A_PRODUCER + number
}

/// Who made it.
pub(super) fn producer_of(id: u64) -> u64 {
    id / IDS_A_PRODUCER
}

/// Key and value.
pub(super) fn departure(id: u64) -> (&'static str, Value) {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let carrier = CARRIERS[(mixed % CARRIERS.len() as u64) as usize];
    let delay = match (mixed >> 8) % 40 {
        0 => Value::Null,
        _ => json!((mixed >> 16) % 200),
    };
    let value = json!({
        "year": 2013, "month": 1 + (mixed >> 5) % 3, "day": 1 + (mixed >> 12) % 28, "carrier": carrier, "flight": id,
        "origin": "JFK", "dest": "LAX", "sched_dep_time": 900, "dep_delay": delay, "producer": producer_of(id),
    });
    (carrier, value)
}

/// The recount of one partition.
#[derive(Default)]
pub(super) struct Recount {
    days: BTreeMap<String, Day>,
    /// What `daily` must hold, in order.
    pub(super) daily: Vec<Value>,
    /// What `alerts` must hold, in order.
    pub(super) alerts: Vec<Value>,
}

#[derive(Clone, Default)]
struct Day {
    carrier: String,
    date: String,
    flights: i64,
    cancelled: i64,
    delays: i64,
}

impl Day {
    fn json(&self) -> Value {
        json!({
            "carrier": self.carrier, "date": self.date, "flights": self.flights,
            "departed": self.flights - self.cancelled, "cancelled": self.cancelled, "dep_delay_sum": self.delays,
        })
    }
}

impl Recount {
    /// One more departure, as it stands in the topic.
    pub(super) fn add(&mut self, departure: &Value) {
        let text = |name: &str| departure[name].as_str().unwrap_or_default();
        let number = |name: &str| departure[name].as_i64().unwrap_or_default();
        let date = format!(
            "{}-{:02}-{:02}",
            number("year"),
            number("month"),
            number("day")
        );
        let day = self
            .days
            .entry(format!("{} {date}", text("carrier")))
            .or_default();
        (day.carrier, day.date) = (text("carrier").to_owned(), date.clone());
        day.flights += 1;
        match departure["dep_delay"].as_i64() {
            None => day.cancelled += 1,
            Some(minutes) => day.delays += minutes,
        }
        self.daily.push(day.json());
        if let Some(minutes) = departure["dep_delay"]
            .as_i64()
            .filter(|minutes| *minutes > ALERT_ABOVE_MIN)
        {
            self.alerts.push(json!({
                "carrier": text("carrier"), "flight": number("flight"), "origin": text("origin"), "dest": text("dest"),
                "date": date, "sched_dep_time": number("sched_dep_time"), "dep_delay": minutes,
            }));
        }
    }

    /// The state there must be: values by key.
    pub(super) fn state(&self) -> impl Iterator<Item = (&String, Value)> {
        self.days.iter().map(|(key, day)| (key, day.json()))
    }
}
