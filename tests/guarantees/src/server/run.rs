//! One run against the real binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstem_client::proto::{Column, CreateTopicRequest, Schema};
use mainstem_client::{
    Client, ClientError, ClientOptions, Deployment, FetchOptions, ProducerOptions, ProducerRecord,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::departures::{self, COLUMNS};
use super::process::{Server, component};
use super::sql::{self, NoRows};
use super::verdict;
use crate::{Failure, Tally, ensure};

pub(super) const HANDLER: &str = "flights";
pub(super) const INPUT: &str = "flights";
pub(super) const PARTITIONS: u32 = 4;

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the server is killed.
    pub kills: u64,
    /// Decides when.
    pub seed: u64,
    /// Producers, each with an identity of its own.
    pub producers: u64,
    /// What one of them sends, about.
    pub records_per_second: u64,
    /// The longest time between a start and the next kill.
    pub up_ms: u64,
    /// The server's memory between checkpoints; small, so that kills fall into checkpoints too.
    pub memory: &'static str,
}

impl Plan {
    /// For `cargo test`.
    pub fn short() -> Plan {
        Plan {
            kills: 6,
            seed: 1,
            producers: 3,
            records_per_second: 3_000,
            up_ms: 1_200,
            memory: "256MiB",
        }
    }

    /// For `make guarantees`.
    pub fn long(kills: u64, seed: u64) -> Plan {
        Plan {
            kills,
            seed,
            up_ms: 2_000,
            ..Plan::short()
        }
    }
}

/// What an acknowledgement said: partition, offset, id.
pub(super) type Acknowledged = Vec<(u32, i64, u64)>;

/// What everybody shares while the server comes and goes.
struct Shared {
    stop: AtomicBool,
    handled: AtomicU64,
    agreed: AtomicU64,
}

/// Runs a plan. What the server leaves is kept where the run fails.
pub fn run(plan: Plan) -> Result<Tally, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    let dir = tempfile::tempdir().map_err(|error| Failure::new(error.to_string()))?;
    match runtime.block_on(play(plan, dir.path())) {
        Ok(tally) => Ok(tally),
        Err(failure) => {
            let kept = dir.keep();
            Err(Failure {
                what: format!("{}\nkept in {}", failure.what, kept.display()),
                ..failure
            })
        }
    }
}

async fn play(plan: Plan, dir: &Path) -> Result<Tally, Failure> {
    let data_dir = dir.join("data");
    std::fs::create_dir_all(&data_dir).map_err(|error| Failure::new(error.to_string()))?;
    let arguments = ["--memory-limit", plan.memory];
    let component = component()?;
    let mut server = Server::start(&data_dir, &arguments)?;
    let options = ClientOptions::new(server.grpc());
    let client = Client::connect(options.clone()).await.map_err(said)?;
    prepare(&client, component).await?;

    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        handled: AtomicU64::new(0),
        agreed: AtomicU64::new(0),
    });
    let mut producers = Vec::new();
    for number in 0..plan.producers {
        // Each on a connection of its own.
        let client = Client::connect(options.clone()).await.map_err(said)?;
        producers.push(tokio::spawn(produce(
            client,
            shared.clone(),
            number,
            plan.records_per_second,
        )));
    }
    let reader = tokio::spawn(follow(client.clone(), shared.clone()));
    let querier = tokio::spawn(compare(client.clone(), shared.clone()));

    let mut tally = Tally::default();
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    for _ in 0..plan.kills {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..=plan.up_ms))).await;
        server = server.kill_and_restart(&data_dir, &arguments)?;
        tally.kills += 1;
        tally.replayed += server.replayed;
        if querier.is_finished()
            || reader.is_finished()
            || producers.iter().any(|one| one.is_finished())
        {
            break;
        }
    }
    // The last life is long enough to compare something in it, on the slowest machine.
    let patience = Instant::now() + Duration::from_secs(60);
    while shared.agreed.load(Ordering::Acquire) == 0
        && !querier.is_finished()
        && Instant::now() < patience
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shared.stop.store(true, Ordering::Release);
    let mut acknowledged = Vec::new();
    for producer in producers {
        acknowledged.extend(producer.await.map_err(joined)??);
    }
    tally.acknowledged = acknowledged.len() as u64;
    let total = acknowledged.len() as u64;
    wait_until_handled(&client, total).await?;
    querier.await.map_err(joined)??;
    tally.snapshots = shared.agreed.load(Ordering::Acquire);
    let seen = reader.await.map_err(joined)??;
    ensure!(total > 0, "nothing was acknowledged");

    // Once more from disk.
    let server = server.kill_and_restart(&data_dir, &arguments)?;
    tally.kills += 1;
    tally.replayed += server.replayed;
    let checked = verdict::check(&client, &acknowledged, &seen, &mut tally).await;
    match checked {
        Ok(()) => Ok(tally),
        Err(failure) => Err(Failure { tally, ..failure }),
    }
}

pub(super) async fn prepare(client: &Client, component: Vec<u8>) -> Result<(), Failure> {
    let columns = COLUMNS.map(|(name, kind)| Column {
        name: name.to_owned(),
        kind,
    });
    for (name, columns) in [
        (INPUT, columns.to_vec()),
        ("alerts", Vec::new()),
        ("daily", Vec::new()),
    ] {
        let schema = (!columns.is_empty()).then_some(Schema { columns });
        let topic = CreateTopicRequest {
            name: name.into(),
            partitions: Some(PARTITIONS),
            schema,
            ..Default::default()
        };
        client.create_topic(topic).await.map_err(said)?;
    }
    let deployment = Deployment {
        name: HANDLER.into(),
        inputs: vec![INPUT.into()],
        outputs: vec!["alerts".into(), "daily".into()],
        ..Deployment::default()
    };
    client
        .deploy(deployment, component.into())
        .await
        .map_err(said)?;
    Ok(())
}

/// Sends until told to stop, with a good part always unacknowledged; then waits for every answer.
async fn produce(
    client: Client,
    shared: Arc<Shared>,
    number: u64,
    per_second: u64,
) -> Result<Acknowledged, Failure> {
    let producer = client
        .producer(ProducerOptions::default())
        .await
        .map_err(said)?;
    let mut waiting = Vec::new();
    let mut acknowledged = Vec::new();
    let mut next = 1;
    while !shared.stop.load(Ordering::Acquire) {
        for _ in 0..per_second / 50 {
            let id = departures::id(number, next);
            next += 1;
            let (key, value) = departures::departure(id);
            let record = ProducerRecord::new(INPUT).key(key).value(value.to_string());
            let delivery = producer
                .send(record)
                .await
                .map_err(|error| Failure::new(format!("send: {error}")))?;
            waiting.push((id, delivery));
        }
        // Those that are answered.
        let mut left = Vec::with_capacity(waiting.len());
        for (id, delivery) in waiting {
            match delivery.result() {
                Some(result) => acknowledged.push(delivered(id, result)?),
                None => left.push((id, delivery)),
            }
        }
        waiting = left;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (id, delivery) in waiting {
        acknowledged.push(delivered(id, delivery.await)?);
    }
    Ok(acknowledged)
}

fn delivered(
    id: u64,
    result: Result<mainstem_client::Delivered, ClientError>,
) -> Result<(u32, i64, u64), Failure> {
    let delivered =
        result.map_err(|error| Failure::new(format!("record {id} was refused: {error}")))?;
    ensure!(
        delivered.offset >= 0,
        "record {id} was acknowledged without an offset"
    );
    Ok((delivered.partition, delivered.offset, id))
}

/// Reads all that arrives: what it has seen may not vanish, by offset.
async fn follow(client: Client, shared: Arc<Shared>) -> Result<BTreeMap<(u32, i64), u64>, Failure> {
    let mut stream = client
        .fetch(FetchOptions::new(INPUT).follow())
        .await
        .map_err(said)?;
    let mut seen = BTreeMap::new();
    loop {
        let next = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
        let batch = match next {
            Err(_) if shared.stop.load(Ordering::Acquire) => return Ok(seen),
            Err(_) => continue,
            Ok(None) => return Err(Failure::new("a stream that follows has ended")),
            Ok(Some(batch)) => {
                batch.map_err(|error| Failure::new(format!("the reader: {error}")))?
            }
        };
        for record in batch.records().map_err(said)? {
            let record = record.map_err(|error| Failure::new(error.to_string()))?;
            let id = id_of(record.value.as_deref())?;
            let before = seen.insert((batch.partition, record.offset), id);
            ensure!(
                before.is_none(),
                "the reader saw offset {} of partition {} twice",
                record.offset,
                batch.partition
            );
        }
    }
}

pub(super) fn id_of(value: Option<&[u8]>) -> Result<u64, Failure> {
    let value: Value = serde_json::from_slice(value.unwrap_or_default())
        .map_err(|error| Failure::new(error.to_string()))?;
    value["flight"]
        .as_u64()
        .ok_or_else(|| Failure::new(format!("a record that nobody sent: {value}")))
}

/// Input offsets, handler state, both outputs and the raw topic up to those offsets, in one statement.
const JOIN: &str = "
    SELECT l.partition, l.next_offset, coalesce(s.flights, 0) AS in_state, coalesce(d.n, 0) AS daily,
           coalesce(a.n, 0) AS alerts, coalesce(i.n, 0) AS events, coalesce(i.late, 0) AS late
    FROM system.lag l
    LEFT JOIN (SELECT _partition AS p, sum(flights) AS flights FROM state.flights GROUP BY 1) s ON s.p = l.partition
    LEFT JOIN (SELECT _partition AS p, count(*) AS n FROM daily GROUP BY 1) d ON d.p = l.partition
    LEFT JOIN (SELECT _partition AS p, count(*) AS n FROM alerts GROUP BY 1) a ON a.p = l.partition
    LEFT JOIN (SELECT f._partition AS p, count(*) AS n, sum(CASE WHEN f.dep_delay > 120 THEN 1 ELSE 0 END) AS late
               FROM flights f JOIN system.lag g ON g.partition = f._partition AND f._offset < g.next_offset
               WHERE g.handler = 'flights' GROUP BY 1) i ON i.p = l.partition
    WHERE l.handler = 'flights' ORDER BY 1";

/// Asks over and over, under load and kills: all that the answer says must fit together exactly.
async fn compare(client: Client, shared: Arc<Shared>) -> Result<(), Failure> {
    // The columns of a state are known once there is some.
    let some = |rows: Vec<Value>| rows.first().and_then(|row| row["n"].as_i64()).unwrap_or(0) > 0;
    while !shared.stop.load(Ordering::Acquire)
        && !ask(&client, "SELECT count(*) AS n FROM state.flights")
            .await?
            .is_some_and(some)
    {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    while !shared.stop.load(Ordering::Acquire) {
        if let Some(rows) = ask(&client, JOIN).await? {
            ensure!(
                rows.len() == PARTITIONS as usize,
                "the query tells of {} partitions",
                rows.len()
            );
            for row in &rows {
                let number = |name: &str| row[name].as_i64().unwrap_or(-1);
                let events = number("next_offset");
                let agree = number("in_state") == events && number("events") == events;
                ensure!(
                    agree && number("alerts") == number("late"),
                    "one query's rows do not fit together: {row}"
                );
            }
            // Keyed by carrier and day, so not on the input's partition: only the sum must fit.
            let sum = |name: &str| {
                rows.iter()
                    .filter_map(|row| row[name].as_i64())
                    .sum::<i64>()
            };
            let (daily, passed) = (sum("daily"), sum("next_offset"));
            ensure!(
                daily == passed,
                "{daily} running totals, but {passed} events passed"
            );
            let handled: i64 = rows
                .iter()
                .filter_map(|row| row["next_offset"].as_i64())
                .sum();
            if handled > 0 {
                shared.handled.store(handled as u64, Ordering::Release);
                shared.agreed.fetch_add(1, Ordering::AcqRel);
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

/// The rows; none where the server was killed under the query.
async fn ask(client: &Client, statement: &str) -> Result<Option<Vec<Value>>, Failure> {
    match sql::rows(client, statement).await {
        Ok(rows) => Ok(Some(rows)),
        Err(NoRows::Client(error)) if is_loss(&error) => Ok(None),
        Err(NoRows::Client(error)) => Err(Failure::new(format!("the query: {error}"))),
        Err(NoRows::Unreadable(why)) => Err(Failure::new(format!("the query's result: {why}"))),
    }
}

/// Whether the connection is lost: the server was killed, or is just starting.
fn is_loss(error: &ClientError) -> bool {
    // A result that breaks off is told as a breach of protocol.
    error.is_retriable() || matches!(error, ClientError::Protocol(_))
}

/// Waits until the handler has passed all `total` records.
async fn wait_until_handled(client: &Client, total: u64) -> Result<(), Failure> {
    let patience = Instant::now() + Duration::from_secs(180);
    loop {
        let state = match client.handler_status(HANDLER).await {
            Ok(handler) => {
                let inputs = handler.tasks.iter().flat_map(|task| &task.inputs);
                let passed: i64 = inputs.map(|input| input.next_offset).sum();
                if passed == total as i64 {
                    return Ok(());
                }
                format!("{passed} of {total} passed; {}", handler.last_error)
            }
            Err(error) => error.to_string(),
        };
        ensure!(
            Instant::now() < patience,
            "the handler does not catch up: {state}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn said(error: ClientError) -> Failure {
    Failure::new(match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    })
}

fn joined(error: tokio::task::JoinError) -> Failure {
    Failure::new(format!("panic: {error}"))
}
