//! What a topic's table has, what is read of it, and at which moment.

use crate::bench::Bench;
use mainstem_broker::{BrokerError, ProduceBatch};
use mainstem_record::{BatchBuilder, Compression};

#[test]
fn a_topic_has_the_columns_of_its_values_and_its_own() {
    let mut bench = Bench::new();
    bench.topic("flights", 2, Some("carrier:text, dep_delay:int"));
    bench.produce(
        "flights",
        1,
        &[(
            1_000,
            Some("k"),
            Some(r#"{"carrier": "UA", "dep_delay": 5}"#),
        )],
    );
    let answer = bench.ask("SELECT * FROM flights");
    assert_eq!(
        answer.columns,
        [
            "carrier",
            "dep_delay",
            "_partition",
            "_offset",
            "_timestamp",
            "_key",
            "_value",
            "_headers"
        ]
    );
    assert_eq!(
        answer.rows[0][..5],
        ["UA", "5", "1", "0", "1970-01-01T00:00:01Z"]
    );
    assert_eq!(answer.rows[0][5], "6b");
    assert_eq!(answer.rows[0][7], "[{key: source, value: 74657374}]");
}

#[test]
fn records_of_committed_transactions_alone_are_rows() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    bench.numbers("numbers", 0, 1, 2);
    bench.transaction(
        "a",
        "numbers",
        &[r#"{"n": 100}"#, r#"{"n": 101}"#],
        Some(false),
    );
    bench.transaction("b", "numbers", &[r#"{"n": 200}"#], Some(true));
    assert_eq!(bench.value("SELECT count(*) FROM numbers"), "3");
    assert_eq!(bench.value("SELECT max(n) FROM numbers"), "200");
    assert_eq!(
        bench.value("SELECT count(*) FROM numbers WHERE n = 100"),
        "0"
    );
    assert_eq!(
        bench.value("SELECT count(*) FROM numbers WHERE _offset = 2"),
        "0"
    );
    // Nothing is read beyond what is open.
    bench.transaction("c", "numbers", &[r#"{"n": 300}"#], None);
    bench.numbers("numbers", 0, 1, 2);
    assert_eq!(bench.value("SELECT count(*) FROM numbers"), "3");
    assert_eq!(bench.value("SELECT max(n) FROM numbers"), "200");
}

#[test]
fn an_empty_topic_is_an_empty_table() {
    let mut bench = Bench::new();
    bench.topic("nothing", 3, None);
    assert_eq!(bench.value("SELECT count(*) FROM nothing"), "0");
    let answer = bench.ask("SELECT * FROM nothing");
    assert_eq!((answer.columns.len(), answer.rows.len()), (6, 0));
}

#[test]
fn counting_reads_no_value() {
    let mut bench = Bench::new();
    bench.topic("numbers", 2, None);
    bench.numbers("numbers", 0, 3, 100);
    bench.numbers("numbers", 1, 2, 50);
    let counted = bench.ask("SELECT count(*) FROM numbers");
    assert_eq!(counted.rows, [["400"]]);
    assert_eq!(counted.counts.values_decoded, 0);
    // Where the offsets alone do not say it, batch headers do: no record is looked at.
    let some = bench.ask("SELECT count(*) FROM (SELECT 1 FROM numbers LIMIT 250)");
    assert_eq!(some.rows, [["250"]]);
    assert_eq!(
        (some.counts.records_walked, some.counts.values_decoded),
        (0, 0)
    );
}

#[test]
fn the_place_of_a_record_needs_no_value() {
    let mut bench = Bench::new();
    bench.topic("numbers", 2, None);
    bench.numbers("numbers", 0, 3, 100);
    let answer = bench.ask("SELECT max(_offset), min(_timestamp), count(_key) FROM numbers");
    assert_eq!(answer.rows, [["299", "1970-01-01T00:00:00Z", "0"]]);
    assert_eq!(answer.counts.values_decoded, 0);
    let answer = bench.ask("SELECT sum(n) FROM numbers");
    assert_eq!(answer.rows, [["44850"]]);
    assert_eq!(answer.counts.values_decoded, 300);
}

#[test]
fn partition_and_offset_predicates_read_only_their_batches() {
    let mut bench = Bench::new();
    bench.topic("numbers", 4, None);
    for partition in 0..4 {
        bench.numbers("numbers", partition, 20, 10);
    }
    for (filter, rows, at_most) in [
        ("_partition = 2", 200, 20),
        ("_partition IN (1, 3) AND _offset < 20", 40, 4),
        ("_offset = 55", 4, 4),
        ("_offset BETWEEN 95 AND 104", 40, 8),
        ("_offset >= 195", 20, 4),
        ("_offset > 1000", 0, 0),
        (
            "(_partition = 0 AND _offset < 5) OR (_partition = 3 AND _offset >= 190)",
            15,
            2,
        ),
        ("NOT (_partition < 3) AND _offset IN (1, 2, 199)", 3, 2),
    ] {
        let answer = bench.ask(&format!(
            "SELECT _partition, _offset, n FROM numbers WHERE {filter}"
        ));
        assert_eq!(answer.rows.len(), rows, "{filter}");
        assert!(
            answer.rows.iter().all(|row| row[1] == row[2]),
            "{filter}: n is the offset"
        );
        assert!(
            answer.counts.batches_read <= at_most,
            "{filter}: {:?}",
            answer.counts
        );
        assert_eq!(answer.counts.values_decoded, rows as u64, "{filter}");
        let plan = bench.ask(&format!("EXPLAIN SELECT n FROM numbers WHERE {filter}"));
        assert!(
            !format!("{:?}", plan.rows.last()).contains("FilterExec"),
            "{filter}: {:?}",
            plan.rows
        );
    }
}

#[test]
fn timestamp_predicates_prune_through_the_index() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    bench.numbers("numbers", 0, 100, 10);
    let answer = bench.ask("SELECT n FROM numbers WHERE _timestamp >= to_timestamp_millis(955)");
    assert_eq!(answer.rows.len(), 45);
    assert!(answer.counts.batches_read <= 5, "{:?}", answer.counts);
    assert_eq!(answer.counts.values_decoded, 45);
    let answer =
        bench.ask("SELECT count(*) FROM numbers WHERE _timestamp > '1970-01-01T00:00:00.100Z' AND _timestamp <= '1970-01-01T00:00:00.105Z'");
    assert_eq!(answer.rows, [["5"]]);
    assert_eq!(answer.counts.values_decoded, 0);
    assert_eq!(
        bench.value("SELECT count(*) FROM numbers WHERE _timestamp > now()"),
        "0"
    );
}

#[test]
fn times_out_of_order_are_found_all_the_same() {
    let mut bench = Bench::new();
    bench.topic("late", 1, None);
    for times in [[50, 10], [20, 90], [5, 60], [95, 30]] {
        bench.produce("late", 0, &times.map(|time| (time, None, Some("{}"))));
    }
    for (from, count) in [(0, 8), (55, 3), (91, 1), (96, 0)] {
        assert_eq!(
            bench.value(&format!(
                "SELECT count(*) FROM late WHERE _timestamp >= to_timestamp_millis({from})"
            )),
            count.to_string()
        );
    }
}

#[test]
fn compressed_batches_and_large_results_are_read_alike() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    for (index, compression) in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]
    .into_iter()
    .enumerate()
    {
        let values: Vec<(i64, String)> = (0..2_000)
            .map(|n| (n, format!(r#"{{"n": {}}}"#, n + 2_000 * index as i64)))
            .collect();
        let records: Vec<_> = values
            .iter()
            .map(|(time, value)| (*time, None, Some(value.as_str())))
            .collect();
        bench.produce_compressed("numbers", 0, compression, &records);
    }
    let answer = bench.ask("SELECT n, _offset FROM numbers ORDER BY n");
    assert_eq!(answer.rows.len(), 10_000);
    assert!(
        answer
            .rows
            .iter()
            .enumerate()
            .all(|(index, row)| row[0] == index.to_string() && row[1] == row[0])
    );
    assert_eq!(bench.ask("SELECT n FROM numbers LIMIT 7").rows.len(), 7);
}

#[test]
fn a_query_reads_one_moment() {
    let mut bench = Bench::new();
    bench.topic("numbers", 2, None);
    bench.handler("counter", 9, 1);
    bench.numbers("numbers", 0, 2, 10);
    bench.put_state(9, &[(0, "totals", "all", r#"{"count": 20}"#)]);
    let sql = "SELECT (SELECT count(n) FROM numbers), (SELECT count FROM state.counter)";
    let before = bench.start(sql).unwrap();
    bench.numbers("numbers", 0, 1, 10);
    bench.numbers("numbers", 1, 1, 10);
    bench.put_state(9, &[(0, "totals", "all", r#"{"count": 40}"#)]);
    let after = bench.start(sql).unwrap();
    assert!(before.lsn < after.lsn);
    assert_eq!(bench.finish(before).unwrap().rows, [["20", "20"]]);
    assert_eq!(bench.finish(after).unwrap().rows, [["40", "40"]]);
}

#[test]
fn a_topic_deleted_under_a_query_is_read_to_its_end() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    bench.numbers("numbers", 0, 5, 100);
    let running = bench.start("SELECT sum(n) FROM numbers").unwrap();
    let (broker, caller) = (bench.broker.clone(), bench.caller.clone());
    bench
        .drive(async move { broker.delete_topic(&caller, "numbers").await })
        .unwrap();
    assert_eq!(bench.finish(running).unwrap().rows, [["124750"]]);
    assert_eq!(
        bench.try_ask("SELECT * FROM numbers").unwrap_err().code(),
        "sql_unknown_table"
    );
}

/// Row counts come from offsets, which is right as long as every offset is a record. The day the broker takes
/// transactions, the scan's statistics must ask the log whether a partition holds markers.
#[test]
fn no_offset_is_anything_but_a_record() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    for attribute in [0x10u8, 0x20] {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        builder
            .producer(1, 0, 0)
            .append(0, None, Some(b"1"), &[])
            .unwrap();
        let mut bytes = builder.build().unwrap().bytes().to_vec();
        bytes[22] |= attribute;
        let batch = mainstem_record::Batch::trusted(bytes.into()).unwrap();
        assert!(batch.header().is_transactional() || batch.header().is_control());
        let (broker, caller) = (bench.broker.clone(), bench.caller.clone());
        let batch = ProduceBatch {
            topic: "numbers".into(),
            partition: 0,
            batch,
        };
        let outcomes = bench
            .drive(async move { broker.produce(&caller, vec![batch], 0).await })
            .unwrap();
        assert!(
            matches!(outcomes[0], Err(BrokerError::InvalidBatch { .. })),
            "{outcomes:?}"
        );
    }
}

#[test]
fn a_topic_of_one_partition_is_read_by_several_streams() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    bench.numbers("numbers", 0, 30, 1_000);
    let plan = format!("{:?}", bench.ask("EXPLAIN SELECT sum(n) FROM numbers").rows);
    assert!(plan.contains("streams=2"), "{plan}");
    assert_eq!(
        bench.value("SELECT sum(n) FROM numbers"),
        (29_999i64 * 30_000 / 2).to_string()
    );
}

#[test]
fn tenants_see_their_own_topics() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    bench.caller = mainstem_broker::Caller::new("other", "somebody").unwrap();
    assert_eq!(
        bench.try_ask("SELECT * FROM numbers").unwrap_err().code(),
        "sql_unknown_table"
    );
    assert_eq!(bench.value("SELECT count(*) FROM system.topics"), "0");
}
