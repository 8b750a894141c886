//! From bytes to columns: declared and inferred schemas, values that do not fit, tombstones.

use crate::bench::Bench;

#[test]
fn malformed_values_are_null_and_counted_and_the_query_goes_on() {
    let mut bench = Bench::new();
    bench.topic("mixed", 1, Some("n:int, name:text"));
    bench.produce(
        "mixed",
        0,
        &[
            (0, None, Some(r#"{"n": 1, "name": "a"}"#)),
            (0, None, Some("not json at all")),
            (0, None, Some(r#"{"n": 2"#)),
            (0, None, None),
            (0, None, Some(r#"{"n": 3, "name": "c", "more": [1, 2]}"#)),
        ],
    );
    let answer = bench.ask("SELECT n, name, _offset FROM mixed ORDER BY _offset");
    let firsts: Vec<&str> = answer.rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(firsts, ["1", "NULL", "NULL", "NULL", "3"]);
    assert_eq!(answer.notices.len(), 1);
    assert_eq!(
        (answer.notices[0].code, answer.notices[0].count),
        ("malformed_values", 2)
    );
    assert!(
        answer.notices[0].message.contains("mixed"),
        "{}",
        answer.notices[0].message
    );
    // A tombstone has no value: nothing is malformed about it.
    assert_eq!(
        bench.value("SELECT count(*) FROM mixed WHERE _value IS NULL"),
        "1"
    );
    assert!(bench.ask("SELECT count(*) FROM mixed").notices.is_empty());
    assert_eq!(bench.value("SELECT sum(n) FROM mixed"), "4");
}

#[test]
fn without_a_declared_schema_a_sample_shows_the_columns() {
    let mut bench = Bench::new();
    bench.topic("inferred", 2, None);
    bench.produce(
        "inferred",
        0,
        &[
            (0, None, Some(r#"{"a": 1, "b": "x", "c": true}"#)),
            (0, None, None),
        ],
    );
    bench.produce(
        "inferred",
        1,
        &[(0, None, Some(r#"{"a": 2.5, "_offset": 7}"#))],
    );
    let described = bench.ask("DESCRIBE inferred");
    let columns: Vec<(&str, &str)> = described
        .rows
        .iter()
        .map(|row| (row[0].as_str(), row[1].as_str()))
        .collect();
    assert_eq!(
        columns[..3],
        [("a", "Float64"), ("b", "Utf8"), ("c", "Boolean")]
    );
    assert_eq!(
        columns.len(),
        9,
        "the value's _offset gives way to the record's: {columns:?}"
    );
    assert_eq!(bench.value("SELECT sum(a) FROM inferred"), "3.5");
    // The sample follows the topic.
    bench.produce("inferred", 1, &[(0, None, Some(r#"{"later": "z"}"#))]);
    assert_eq!(
        bench.value("SELECT later FROM inferred WHERE later IS NOT NULL"),
        "z"
    );
    let (query, caller) = (bench.query.clone(), bench.caller.clone());
    let schema = bench
        .drive(async move { query.infer_topic_schema(&caller, "inferred").await })
        .unwrap();
    assert!(schema.index_of("later").is_some());
}

#[test]
fn values_outside_the_sample_are_still_values() {
    let mut bench = Bench::new();
    bench.topic("grows", 1, None);
    bench.numbers("grows", 0, 12, 100);
    bench.produce(
        "grows",
        0,
        &[(0, None, Some(r#"{"n": "many", "extra": 1}"#))],
    );
    let answer = bench.ask("SELECT n, CAST(_value AS VARCHAR) FROM grows WHERE _offset = 1200");
    assert_eq!(answer.rows, [["NULL", r#"{"n": "many", "extra": 1}"#]]);
    assert_eq!(answer.notices[0].count, 1);
}

#[test]
fn large_values_come_in_bounded_batches() {
    let mut bench = Bench::new();
    bench.topic("large", 1, None);
    let text = "x".repeat(100_000);
    for _ in 0..50 {
        bench.produce("large", 0, &[(0, None, Some(&text))]);
    }
    let result = bench.start("SELECT _value FROM large").unwrap();
    let batches: Vec<_> = bench
        .block_on(futures::TryStreamExt::try_collect::<Vec<_>>(result.stream))
        .unwrap();
    assert_eq!(
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>(),
        50
    );
    assert!(
        batches.iter().all(|batch| batch.num_rows() <= 22),
        "about 2 MiB each"
    );
}
