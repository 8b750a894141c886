//! What stands in the topics and tables at the end, against what was acknowledged and what the input amounts to.

use std::collections::{BTreeMap, HashSet};

use mainstem_client::{Client, FetchOptions};
use serde_json::Value;

use super::departures::{Recount, departure, producer_of};
use super::run::{Acknowledged, PARTITIONS, id_of, said};
use super::sql::{self, NoRows};
use crate::{Failure, Tally, ensure};

pub(super) async fn check(
    client: &Client,
    acknowledged: &Acknowledged,
    seen: &BTreeMap<(u32, i64), u64>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let input = read(client, "flights").await?;
    let mut ids = HashSet::new();
    let mut places = BTreeMap::new();
    for (partition, values) in input.iter().enumerate() {
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, value) in values.iter().enumerate() {
            let id = id_of(Some(value.to_string().as_bytes()))?;
            ensure!(
                departure(id).1 == *value,
                "flights/{partition}: offset {offset} is not what was sent: {value}"
            );
            places.insert((partition as u32, offset as i64), id);
            if !ids.insert(id) {
                tally.doubled += 1;
            } else if let Some(before) = newest
                .insert(producer_of(id), id)
                .filter(|before| *before > id)
            {
                return Err(Failure::new(format!(
                    "flights/{partition}: {id} stands behind {before}"
                )));
            }
        }
    }
    for (partition, offset, id) in acknowledged {
        tally.lost += u64::from(places.get(&(*partition, *offset)) != Some(id));
    }
    ensure!(
        tally.lost == 0,
        "{} acknowledged records are not where they were acknowledged",
        tally.lost
    );
    ensure!(
        tally.doubled == 0,
        "{} records are there twice",
        tally.doubled
    );
    // All producers have had all their answers.
    let total = acknowledged.len();
    ensure!(
        ids.len() == total,
        "{} records are there, {total} were sent",
        ids.len()
    );
    if let Some((place, id)) = seen
        .iter()
        .find(|(place, id)| places.get(place) != Some(id))
    {
        return Err(Failure::new(format!(
            "a reader saw record {id} at {place:?}, where it is no more"
        )));
    }

    let (daily, alerts) = (read(client, "daily").await?, read(client, "alerts").await?);
    let (mut state, mut totals) = (BTreeMap::new(), BTreeMap::new());
    for (partition, events) in input.iter().enumerate() {
        let mut recount = Recount::default();
        events.iter().for_each(|event| recount.add(event));
        tally.handled += events.len() as u64;
        let found = &alerts[partition];
        ensure!(
            *found == recount.alerts,
            "alerts/{partition}: {} records differ from the recount's {}",
            found.len(),
            recount.alerts.len()
        );
        totals.extend(by_day(&recount.daily));
        state.extend(recount.state().map(|(key, value)| (key.clone(), value)));
    }
    // Each carrier's day is on one partition, by its own key: in order there.
    let found: Vec<Value> = daily.into_iter().flatten().collect();
    let found = by_day(&found);
    ensure!(
        found.len() == totals.len(),
        "daily has {} days, the recount {}",
        found.len(),
        totals.len()
    );
    if let Some((day, _)) = totals
        .iter()
        .find(|(day, expected)| found.get(*day) != Some(*expected))
    {
        return Err(Failure::new(format!(
            "daily: the running totals of {day} differ from the recount"
        )));
    }
    check_state(client, &state).await
}

/// Running totals by carrier and day, each in order.
fn by_day(totals: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut days: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for total in totals {
        let day = format!("{} {}", total["carrier"], total["date"]);
        days.entry(day).or_default().push(total.clone());
    }
    days
}

async fn check_state(client: &Client, expected: &BTreeMap<String, Value>) -> Result<(), Failure> {
    let statement =
        "SELECT carrier, date, flights, departed, cancelled, dep_delay_sum FROM state.flights";
    let rows = match sql::rows(client, statement).await {
        Ok(rows) => rows,
        Err(NoRows::Client(error)) => return Err(said(error)),
        Err(NoRows::Unreadable(why)) => return Err(Failure::new(why)),
    };
    ensure!(
        rows.len() == expected.len(),
        "the state has {} rows, the recount {}",
        rows.len(),
        expected.len()
    );
    for row in rows {
        let key = format!(
            "{} {}",
            row["carrier"].as_str().unwrap_or_default(),
            row["date"].as_str().unwrap_or_default()
        );
        ensure!(
            expected.get(&key) == Some(&row),
            "the state of `{key}` is {row}, the recount says {:?}",
            expected.get(&key)
        );
    }
    Ok(())
}

/// A whole topic as JSON, partition by partition; offsets must be dense from 0 on.
async fn read(client: &Client, topic: &str) -> Result<Vec<Vec<Value>>, Failure> {
    let mut stream = client.fetch(FetchOptions::new(topic)).await.map_err(said)?;
    let mut values: Vec<Vec<Value>> = vec![Vec::new(); PARTITIONS as usize];
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(said)?;
        let partition = &mut values[batch.partition as usize];
        for record in batch.records().map_err(said)? {
            let record = record.map_err(|error| Failure::new(error.to_string()))?;
            ensure!(
                record.offset == partition.len() as i64,
                "{topic}/{}: offset {} where {} must follow",
                batch.partition,
                record.offset,
                partition.len()
            );
            let value = serde_json::from_slice(record.value.as_deref().unwrap_or_default());
            partition.push(value.map_err(|error| Failure::new(format!("{topic}: {error}")))?);
        }
    }
    Ok(values)
}
