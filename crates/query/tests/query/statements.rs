//! What may be said, and what is answered to the rest.

use crate::bench::Bench;
use mainstem_query::QueryOptions;

#[test]
fn the_catalogue_can_be_asked() {
    let mut bench = Bench::new();
    bench.topic("flights", 3, Some("carrier:text"));
    bench.topic("my-topic", 1, None);
    bench.handler("flights", 1, 3);
    let tables = bench.ask("SHOW TABLES");
    let has = |schema: &str, name: &str| {
        tables
            .rows
            .iter()
            .any(|row| row[1] == schema && row[2] == name)
    };
    assert!(
        has("public", "flights")
            && has("public", "my-topic")
            && has("state", "flights")
            && has("system", "topics"),
        "{tables:?}"
    );
    let columns = bench.ask("SHOW COLUMNS FROM flights");
    assert!(
        columns
            .rows
            .iter()
            .any(|row| row.contains(&"carrier".to_owned())),
        "{columns:?}"
    );
    let described = bench.ask("DESCRIBE state.flights");
    assert_eq!(described.rows[0][0], "_partition");
    assert_eq!(bench.value(r#"SELECT count(*) FROM "my-topic""#), "0");
}

#[test]
fn the_systems_tables_tell_of_topics_and_partitions() {
    let mut bench = Bench::new();
    bench.topic("flights", 3, Some("carrier:text"));
    bench.numbers("flights", 1, 2, 5);
    let answer =
        bench.ask("SELECT name, partitions, records, bytes > 0, schema FROM system.topics");
    assert_eq!(answer.rows[0][..4], ["flights", "3", "10", "true"]);
    assert!(answer.rows[0][4].contains("carrier"), "{answer:?}");
    let answer = bench.ask(
        "SELECT partition, start_offset, end_offset FROM system.partitions ORDER BY partition",
    );
    assert_eq!(
        answer.rows,
        [["0", "0", "0"], ["1", "0", "10"], ["2", "0", "0"]]
    );
}

#[test]
fn every_error_has_a_code_and_says_what_to_do() {
    let mut bench = Bench::new();
    bench.topic("flights", 1, Some("carrier:text, dep_delay:int"));
    bench.topic("Flights.Raw", 1, None);
    bench.numbers("flights", 0, 1, 5);
    for (sql, code, hint) in [
        ("SELECT * FORM flights", "sql_syntax", "FROM"),
        (
            "SELECT * FROM flihgts",
            "sql_unknown_table",
            "did you mean flights?",
        ),
        (
            "SELECT * FROM nothing_like_it",
            "sql_unknown_table",
            "SHOW TABLES",
        ),
        ("SELECT * FROM flights.raw", "sql_unknown_table", "schema"),
        (
            "SELECT * FROM system.topic",
            "sql_unknown_table",
            "system.topics",
        ),
        (
            "SELECT carier FROM flights",
            "sql_unknown_column",
            "did you mean carrier?",
        ),
        (
            "SELECT carrier, count(*) FROM flights",
            "sql_invalid",
            "DESCRIBE",
        ),
        ("SELECT nonsense(1)", "sql_invalid", "DESCRIBE"),
        (
            "INSERT INTO flights VALUES (1)",
            "sql_refused",
            "mainstem produce",
        ),
        ("SELECT * INTO copy FROM flights", "sql_refused", "mainstem"),
        ("CREATE TABLE a AS SELECT 1", "sql_refused", "topic create"),
        (
            "SELECT CAST('x' AS INT) FROM flights",
            "sql_failed",
            "TRY_CAST",
        ),
    ] {
        let error = bench.try_ask(sql).unwrap_err();
        assert_eq!(error.code(), code, "{sql}: {error:?}");
        assert!(
            error.hint().contains(hint),
            "{sql}: {} / {}",
            error,
            error.hint()
        );
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn a_query_beyond_its_memory_fails_alone() {
    let mut bench = Bench::with(QueryOptions {
        memory_bytes: 12 << 20,
        threads: 2,
    });
    bench.topic("numbers", 1, None);
    bench.numbers("numbers", 0, 300, 1_000);
    let error = bench
        .try_ask("SELECT name, count(*) FROM numbers GROUP BY name ORDER BY name")
        .unwrap_err();
    assert_eq!(error.code(), "sql_out_of_memory", "{error}");
    assert!(error.hint().contains("memory.limit"));
    // Those of its threads that did not fail may hold what they have for a moment.
    let sums = || bench.try_ask("SELECT sum(n) FROM numbers").ok();
    let sum = std::iter::repeat_with(sums).take(1_000).flatten().next();
    assert_eq!(sum.unwrap().rows, [["44999850000"]]);
}

/// A statement, by how many times something stands in it.
type Shape = Box<dyn Fn(usize) -> String>;

/// Statements that recursion goes deep into.
fn deep_shapes() -> Vec<(&'static str, Shape)> {
    let repeated = |first: &'static str, again: &'static str, last: &'static str| {
        Box::new(move |count: usize| format!("{first}{}{last}", again.repeat(count))) as Shape
    };
    vec![
        ("a sum", repeated("SELECT 1", " + 1", "")),
        (
            "a condition over offsets",
            repeated(
                "SELECT count(*) FROM numbers WHERE _offset = 1",
                " OR (_offset = 2 AND _partition = 0)",
                "",
            ),
        ),
        (
            "a condition over values",
            repeated(
                "SELECT count(*) FROM numbers WHERE n = 1",
                " OR n + 1 = n",
                "",
            ),
        ),
        ("casts", repeated("SELECT 1", "::int", "")),
        ("postfix", repeated("SELECT 1", " IS NULL", "")),
        ("not", repeated("SELECT ", "NOT ", "true")),
        (
            "unions",
            repeated("SELECT 1 AS a", " UNION ALL SELECT 2", ""),
        ),
        ("text", repeated("SELECT 'a'", " || 'a'", "")),
        (
            "case",
            repeated("SELECT CASE n", " WHEN 1 THEN 2", " END FROM numbers"),
        ),
        (
            "parentheses",
            Box::new(|count| format!("SELECT {}1{}", "(".repeat(count), ")".repeat(count))),
        ),
        (
            "queries in queries",
            Box::new(|count| {
                let (open, close) = ("SELECT * FROM (".repeat(count), ") AS q".repeat(count));
                format!("{open}SELECT 1{close}")
            }),
        ),
        (
            "queries by name",
            Box::new(|count| {
                let more: String = (1..count)
                    .map(|n| format!(", q{n} AS (SELECT a + 1 AS a FROM q{})", n - 1))
                    .collect();
                format!(
                    "WITH q0 AS (SELECT 1 AS a){more} SELECT a FROM q{}",
                    count.max(1) - 1
                )
            }),
        ),
    ]
}

/// A stack overflow would end this process: what is let through is let through for the stack that it gets.
#[test]
fn a_statement_is_as_deep_as_the_stack_carries_or_refused() {
    let run = || {
        let mut bench = Bench::new();
        bench.topic("numbers", 1, Some("n:int"));
        bench.numbers("numbers", 0, 1, 5);
        for (what, shape) in deep_shapes() {
            let error = bench.try_ask(&shape(100_000)).unwrap_err();
            assert!(
                error.to_string().contains("nested too deeply")
                    || error.to_string().contains("bytes"),
                "{what}: {error}"
            );
            // The deepest that is let through, whatever comes of it then.
            let mut count = 2_000;
            while let Err(error) = bench.try_ask(&shape(count))
                && error.to_string().contains("nested too deeply")
                && count > 1
            {
                count -= count.div_ceil(50);
            }
            // The parser itself lets few queries in each other through.
            assert!(count > 20, "{what}: {count}");
        }
        assert_eq!(
            bench.value(&format!("SELECT 1{}", " + 1".repeat(1_000))),
            "1001"
        );
    };
    let thread = std::thread::Builder::new().stack_size(mainstem_query::SQL_STACK_BYTES);
    thread.spawn(run).unwrap().join().unwrap();
}
