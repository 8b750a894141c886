//! Mainstem inside a program: a directory, no server, no network, and the same promises.
//!
//! `cargo run --release -p mainstem-example-embedded [DIR]`. Run it twice: the second run goes on where the first
//! ended, with the counts it left.

use mainstem::broker::{NewRecord, NewTopic};
use mainstem::runtime::{Code, Deployment, Event, NativeHandler, OutputRecord, StepState};
use mainstem::{Caller, Mainstem, Options, now_ms};
use std::sync::Arc;
use std::time::Duration;

/// Counts words per word, and tells `counts` each new total. Each event counts exactly once, whatever happens.
fn count(event: &Event, state: &mut StepState, out: &mut Vec<OutputRecord>) -> Result<(), String> {
    let word = event.key.clone().ok_or("a word has no key")?;
    let before = state.get("words", &word)?;
    let before: u64 = before
        .and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok())
        .unwrap_or(0);
    let total = (before + 1).to_string();
    state.put("words", &word, total.clone())?;
    out.push(OutputRecord {
        topic: "counts".into(),
        key: Some(word),
        value: Some(total.into()),
        ..Default::default()
    });
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "target/embedded-data".into());
    let mainstem = Mainstem::open(&dir, Options::default())?;
    let (broker, caller) = (mainstem.broker(), Caller::anonymous());

    for topic in ["words", "counts"] {
        if broker.topic(&caller, topic).is_err() {
            broker
                .create_topic(&caller, NewTopic::named(topic).partitions(2), now_ms())
                .await?;
        }
    }

    // A handler written in the program itself; a WebAssembly component is deployed the same way.
    let code = Code::Native {
        version: "1".into(),
        module: Arc::new(NativeHandler::new(count)),
    };
    let deployment = Deployment::new("counter", code)
        .input("words")
        .output("counts");
    mainstem
        .runtime()
        .deploy(&caller, deployment, now_ms())
        .await?;

    let text = "the quick brown fox jumps over the lazy dog and the dog sleeps on";
    let records: Vec<NewRecord> = text
        .split(' ')
        .map(|word| NewRecord {
            key: Some(word.into()),
            value: Some(word.into()),
            ..Default::default()
        })
        .collect();
    let places = broker
        .produce_records(&caller, "words", records, now_ms())
        .await?;
    println!("{} words are durable", places.len());

    while mainstem.runtime().status(&caller, "counter")?.lag() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // One query over the handler's state and the topic, at one moment: the two always agree.
    let query = "
        SELECT CAST(_key AS VARCHAR) AS word, CAST(_value AS VARCHAR) AS counted,
               (SELECT count(*) FROM words WHERE words._key = s._key) AS in_topic
        FROM state.counter s ORDER BY CAST(counted AS INT) DESC, word LIMIT 5";
    let batches = mainstem.sql_all(&caller, query).await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&batches)?);
    mainstem.shutdown()?;
    Ok(())
}
