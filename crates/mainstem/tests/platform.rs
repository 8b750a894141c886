//! The whole platform in one process: opened, used, closed, opened again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use mainstem::broker::{BrokerError, NewRecord, NewTopic, PlacedBatch, Topic};
use mainstem::record::{BatchBuilder, Compression};
use mainstem::runtime::{Code, Deployment, NativeHandler, OutputRecord};
use mainstem::{Caller, Mainstem, Options, now_ms};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(dir: &Path) -> Mainstem {
    Mainstem::open(
        dir,
        Options {
            sql_threads: 1,
            task_workers: 1,
            ..Options::default()
        },
    )
    .unwrap()
}

fn echo() -> Deployment {
    let handler = NativeHandler::new(|event, state, out| {
        let key = event.key.clone().unwrap_or_default();
        let seen = state.get("seen", &key)?.map_or(0, |bytes| bytes.len());
        state.put("seen", &key, vec![b'x'; seen + 1])?;
        out.push(OutputRecord {
            topic: "out".into(),
            key: event.key.clone(),
            value: event.value.clone(),
            ..Default::default()
        });
        Ok(())
    });
    Deployment::new(
        "echo",
        Code::Native {
            version: "1".into(),
            module: Arc::new(handler),
        },
    )
    .input("in")
    .output("out")
}

async fn produce(mainstem: &Mainstem, count: usize) {
    let records = (0..count)
        .map(|n| NewRecord {
            key: Some(format!("k{}", n % 7).into()),
            value: Some(format!("{n}").into()),
            ..Default::default()
        })
        .collect();
    mainstem
        .broker()
        .produce_records(&Caller::anonymous(), "in", records, now_ms())
        .await
        .unwrap();
}

async fn caught_up(mainstem: &Mainstem) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let status = mainstem
            .runtime()
            .status(&Caller::anonymous(), "echo")
            .unwrap();
        let started = status.tasks.iter().all(|task| !task.inputs.is_empty());
        if started && status.lag() == 0 {
            return;
        }
        assert!(Instant::now() < until, "{status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn number(mainstem: &Mainstem, sql: &str) -> i64 {
    let batches = mainstem.sql_all(&Caller::anonymous(), sql).await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[test]
fn the_endpoints_of_a_server_that_was_killed_go_with_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = dir.path().join("endpoints.json");
    let running = open(dir.path());
    std::fs::write(&endpoints, "{}").unwrap();
    // Whoever finds the directory taken leaves it as it is.
    let refused = Mainstem::open(dir.path(), Options::default());
    assert!(refused.is_err_and(|error| error.is_in_use()));
    assert!(endpoints.exists());
    running.shutdown().unwrap();
    drop(running);
    let running = open(dir.path());
    assert!(!endpoints.exists());
    running.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_topics_and_state_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::anonymous();
    let mut produced = 0;
    for round in 0..3 {
        let mainstem = open(dir.path());
        if round == 0 {
            for topic in ["in", "out"] {
                mainstem
                    .broker()
                    .create_topic(&caller, NewTopic::named(topic).partitions(3), now_ms())
                    .await
                    .unwrap();
            }
        }
        mainstem
            .runtime()
            .deploy(&caller, echo(), now_ms())
            .await
            .unwrap();
        produce(&mainstem, 500).await;
        produced += 500;
        caught_up(&mainstem).await;
        assert_eq!(
            number(&mainstem, "SELECT count(*) FROM \"in\"").await,
            produced
        );
        assert_eq!(
            number(&mainstem, "SELECT count(*) FROM \"out\"").await,
            produced
        );
        let seen = "SELECT CAST(sum(octet_length(CAST(_value AS VARCHAR))) AS BIGINT) FROM state.echo WHERE _table = 'seen'";
        assert_eq!(number(&mainstem, seen).await, produced);
        assert_eq!(
            number(&mainstem, "SELECT CAST(sum(lag) AS BIGINT) FROM system.lag").await,
            0
        );
        assert_eq!(
            number(
                &mainstem,
                "SELECT count(*) FROM system.handlers WHERE name = 'echo'"
            )
            .await,
            1
        );
        // `in`, `out`, and the handler's own `echo.dlq`.
        let status = mainstem.status();
        assert_eq!(
            (status.topics, status.partitions, status.handlers),
            (3, 9, 1)
        );
        if round > 0 {
            let handler = &status.recovery.handlers[0];
            assert_eq!(
                (handler.committed_events, handler.lag_events),
                (produced as u64 - 500, 0)
            );
        }
        // Once asked to stop, and twice simply let go.
        if round == 0 {
            mainstem.shutdown().unwrap();
            mainstem.shutdown().unwrap();
        }
    }
}

#[test]
fn a_directory_is_free_once_the_last_handle_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = first.clone();
    drop(first);
    assert_eq!(
        Mainstem::open(dir.path(), Options::default())
            .unwrap_err()
            .code(),
        "data_dir_in_use"
    );
    drop(second);
    drop(open(dir.path()));
}

#[test]
fn after_shutdown_calls_are_refused_and_not_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let mainstem = open(dir.path());
    mainstem.shutdown().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let caller = Caller::anonymous();
        assert!(
            mainstem
                .broker()
                .create_topic(&caller, NewTopic::named("t"), now_ms())
                .await
                .is_err()
        );
        assert!(mainstem.sql(&caller, "SELECT 1").await.is_err());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_the_end_cuts_short_does_not_look_like_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let mainstem = open(dir.path());
    let ten = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))";
    let tables = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{ten} AS {name}"));
    let statement = format!("SELECT * FROM {}", tables.join(" CROSS JOIN "));
    let caller = Caller::anonymous();
    let mut rows = mainstem.sql(&caller, &statement).await.unwrap().stream;
    rows.next().await.unwrap().unwrap();
    mainstem.shutdown().unwrap();
    let rest: Vec<_> = rows.collect().await;
    let error = rest.into_iter().last().unwrap().unwrap_err();
    assert!(error.to_string().contains("shutting down"), "{error}");
}

#[test]
fn too_little_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        memory_limit_bytes: 1 << 20,
        ..Options::default()
    };
    let error = Mainstem::open(dir.path().join("d"), options).unwrap_err();
    assert_eq!(error.code(), "bad_setting");
    assert!(!dir.path().join("d").exists());
}

/// Zeros, compressed, for a topic that takes them uncompressed.
fn zeros(topic: &Arc<Topic>, bytes: usize) -> PlacedBatch {
    let mut builder = BatchBuilder::new(Compression::Zstd, 16 << 20);
    builder.append(1, None, Some(&vec![0; bytes]), &[]).unwrap();
    PlacedBatch {
        topic: Arc::clone(topic),
        partition: 0,
        batch: builder.build().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decompressed_waits_for_what_was_and_is_not_appended_yet() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        // 4 MiB of them for what batches become larger by.
        memory_limit_bytes: 256 << 20,
        sql_threads: 1,
        task_workers: 1,
        ..Options::default()
    };
    let mainstem = Mainstem::open(dir.path(), options).unwrap();
    let new = NewTopic::named("t")
        .config("compression.type", "uncompressed")
        .config("max.message.bytes", "3000000");
    let caller = Caller::anonymous();
    let created = mainstem.broker().create_topic(&caller, new, now_ms());
    let topic = created.await.unwrap();
    let mut batches = vec![
        zeros(&topic, 2_900_000),
        zeros(&topic, 3_000_001),
        zeros(&topic, 10),
    ];
    let mut places = vec!["a", "b", "c"];
    let mut first = mainstem.unpack::<BrokerError>(&mut batches).await;
    let mut refused = Vec::new();
    first.sort_out(&mut batches, &mut places, |place, error: BrokerError| {
        refused.push((place, error.code()));
    });
    assert_eq!(refused, [("b", "invalid_batch")]);
    assert_eq!(places, ["a", "c"]);
    let sizes: Vec<usize> = batches.iter().map(|one| one.batch.size_bytes()).collect();
    assert!(sizes[0] > 2_900_000 && sizes[1] < 200, "{sizes:?}");

    let mut more = vec![zeros(&topic, 2_900_000)];
    let mut second = Box::pin(mainstem.unpack::<BrokerError>(&mut more));
    assert!(futures::poll!(second.as_mut()).is_pending());
    // What needs no room goes on.
    let mut plain = batches.clone();
    let third = mainstem.unpack::<BrokerError>(&mut plain).await;
    assert!(third.room.is_none());
    assert!(futures::poll!(second.as_mut()).is_pending());
    drop(first);
    let second = second.await;
    assert!(
        second
            .room
            .is_some_and(|room| room.num_permits() > 2_800_000)
    );
    mainstem.shutdown().unwrap();
}
