//! The example's handler: exact totals, alerts above two hours, and what is no departure goes to the dead letters.

use mainstem_runtime::Deployment;

use crate::support::{Bed, component};

fn departure(carrier: &str, day: u32, delay: &str) -> String {
    format!(
        r#"{{"year":2013,"month":1,"day":{day},"dep_time":517,"sched_dep_time":515,"dep_delay":{delay},"arr_time":830,"sched_arr_time":819,"arr_delay":11,"carrier":"{carrier}","flight":1545,"tailnum":"N14228","origin":"EWR","dest":"IAH","air_time":227,"distance":1400,"hour":5,"minute":15,"time_hour":"2013-01-01T10:00:00Z"}}"#
    )
}

#[test]
fn departures_become_totals_and_alerts() {
    let mut bed = Bed::new(1);
    for (topic, partitions) in [("flights", 2), ("alerts", 1), ("daily", 2)] {
        bed.topic(topic, partitions);
    }
    let code = component("examples/flights/handler");
    bed.deploy(
        Deployment::new("flights", code)
            .input("flights")
            .output("alerts")
            .output("daily"),
    );
    let rows = [
        ("UA", 1, "2"),
        ("UA", 1, "-4.0"),
        ("UA", 1, "null"),
        ("UA", 1, "121"),
        ("AA", 2, "120.0"),
    ];
    let values: Vec<String> = rows
        .iter()
        .map(|(carrier, day, delay)| departure(carrier, *day, delay))
        .collect();
    let mut records: Vec<(&str, &str)> = rows
        .iter()
        .zip(&values)
        .map(|((carrier, ..), value)| (*carrier, value.as_str()))
        .collect();
    let half = departure("UA", 1, "0.5");
    records.extend([("UA", half.as_str()), ("UA", "no JSON")]);
    bed.produce("flights", &records);
    bed.pass(10_000);

    let state: Vec<(String, String)> = bed
        .state("flights")
        .into_iter()
        .map(|((_, table, key), value)| {
            (
                table + "/" + &String::from_utf8(key).unwrap(),
                String::from_utf8(value).unwrap(),
            )
        })
        .collect();
    let aa = r#"{"carrier":"AA","date":"2013-01-02","flights":1,"departed":1,"cancelled":0,"dep_delay_sum":120}"#;
    let ua = r#"{"carrier":"UA","date":"2013-01-01","flights":4,"departed":3,"cancelled":1,"dep_delay_sum":119}"#;
    let mut expected = [("days/AA 2013-01-02", aa), ("days/UA 2013-01-01", ua)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut found = state;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    let alert = r#"{"carrier":"UA","flight":1545,"origin":"EWR","dest":"IAH","date":"2013-01-01","sched_dep_time":515,"dep_delay":121}"#;
    assert_eq!(bed.values("alerts"), [("UA".to_owned(), alert.to_owned())]);
    let daily = bed.values("daily");
    assert_eq!(daily.len(), rows.len(), "one running total a departure");
    assert_eq!(
        daily
            .iter()
            .rfind(|(key, _)| key == "UA 2013-01-01")
            .unwrap()
            .1,
        ua
    );
    assert_eq!(bed.read("flights.dlq").into_iter().flatten().count(), 2);
}
