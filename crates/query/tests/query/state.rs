//! The state of handlers as tables.

use crate::bench::Bench;

fn with_state() -> Bench {
    let mut bench = Bench::new();
    bench.handler("flights", 4, 3);
    bench.put_state(
        4,
        &[
            (0, "days", "UA 01-01", r#"{"carrier": "UA", "flights": 3}"#),
            (0, "days", "UA 01-02", r#"{"carrier": "UA", "flights": 4}"#),
            (0, "seen", "x", "raw bytes"),
            (2, "days", "AA 01-01", r#"{"carrier": "AA", "flights": 5}"#),
        ],
    );
    // The neighbours' keys must not be read.
    bench.put_state(
        3,
        &[(0, "days", "z", r#"{"carrier": "ZZ", "flights": 100}"#)],
    );
    bench.put_state(
        5,
        &[(0, "days", "z", r#"{"carrier": "ZZ", "flights": 100}"#)],
    );
    bench
}

#[test]
fn a_handlers_state_is_a_table() {
    let mut bench = with_state();
    let answer = bench.ask("SELECT * FROM state.flights ORDER BY _partition, _table, _key");
    assert_eq!(
        answer.columns,
        [
            "_partition",
            "_table",
            "_key",
            "_value",
            "carrier",
            "flights"
        ]
    );
    assert_eq!(answer.rows.len(), 4);
    assert_eq!(answer.rows[3][..2], ["2", "days"]);
    assert_eq!(answer.rows[3][4..], ["AA", "5"]);
    assert_eq!(answer.notices[0].count, 1, "{:?}", answer.notices);
    let answer = bench.ask("SELECT carrier, sum(flights) FROM state.flights WHERE _table = 'days' GROUP BY carrier ORDER BY carrier");
    assert_eq!(answer.rows, [["AA", "5"], ["UA", "7"]]);
    assert!(answer.notices.is_empty());
}

#[test]
fn partitions_and_tables_are_read_alone() {
    let mut bench = with_state();
    for (filter, rows) in [
        ("_partition = 0", 3),
        ("_partition = 1", 0),
        ("_table = 'days'", 3),
        ("_table IN ('seen', 'none')", 1),
        ("_table = 'days' AND _partition <> 0", 1),
        ("_table = 'days' AND _table = 'seen'", 0),
    ] {
        let answer = bench.ask(&format!("SELECT _key FROM state.flights WHERE {filter}"));
        assert_eq!(answer.rows.len(), rows, "{filter}");
        assert_eq!(answer.counts.records_walked, rows as u64, "{filter}");
    }
    assert_eq!(bench.value("SELECT count(*) FROM state.flights"), "4");
}

#[test]
fn large_state_is_read_in_chunks() {
    let mut bench = Bench::new();
    bench.handler("big", 1, 2);
    for partition in 0..2 {
        for part in 0..10 {
            let keys: Vec<String> = (0..1_000)
                .map(|key| format!("{:05}", part * 1_000 + key))
                .collect();
            let entries: Vec<_> = keys
                .iter()
                .map(|key| (partition, "t", key.as_str(), r#"{"one": 1}"#))
                .collect();
            bench.put_state(1, &entries);
        }
    }
    let answer = bench.ask("SELECT sum(one), count(DISTINCT _key), count(*) FROM state.big");
    assert_eq!(answer.rows, [["20000", "10000", "20000"]]);
}

#[test]
fn every_table_of_a_handler_shows_its_columns() {
    let mut bench = Bench::new();
    bench.handler("many", 1, 1);
    for part in 0..3 {
        let keys: Vec<String> = (0..1_000)
            .map(|key| format!("{:05}", part * 1_000 + key))
            .collect();
        let entries: Vec<_> = keys
            .iter()
            .map(|key| (0, "a", key.as_str(), r#"{"one": 1}"#))
            .collect();
        bench.put_state(1, &entries);
    }
    bench.put_state(1, &[(0, "b", "k", r#"{"two": 2}"#)]);
    let answer = bench.ask("SELECT sum(one), sum(two) FROM state.many");
    assert_eq!(answer.rows, [["3000", "2"]]);
}

#[test]
fn an_unknown_handler_is_told_from_a_near_one() {
    let mut bench = with_state();
    let error = bench.try_ask("SELECT * FROM state.flight").unwrap_err();
    assert_eq!(error.code(), "sql_unknown_table");
    assert_eq!(error.hint(), "did you mean state.flights?");
}
