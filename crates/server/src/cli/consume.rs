//! `mainstem consume`: records out.

use super::connect::connect;
use super::output::{Out, bytes_to_text, record_to_json, time};
use super::{Common, Output};
use crate::failure::Failure;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use clap::Args;
use mainstem_client::proto::Partition;
use mainstem_client::record::Record;
use mainstem_client::{FetchOptions, Position, Start};
use std::collections::BTreeMap;

/// `mainstem consume`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  mainstem consume orders                                  everything there is, then stop
  mainstem consume orders --from latest --follow           what comes from now on
  mainstem consume orders --partition 2 --from 100 --to 200
  mainstem consume orders --from 2026-01-31T12:00:00Z --max 10
  mainstem consume orders --raw > values.txt

With --output json each record is one line: {topic, partition, offset, timestamp_ms, key, value, headers}; \
bytes that are not UTF-8 stand as {\"base64\": ...}. Records of a partition come in order; partitions mix.")]
pub struct ConsumeArguments {
    /// The topic
    pub topic: String,
    /// Only this partition; repeatable
    #[arg(long = "partition", value_name = "N")]
    pub partitions: Vec<u32>,
    /// Where to begin: earliest, latest, an offset, a time as in 2026-01-31T12:00:00Z, or @ and milliseconds since 1970
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = position)]
    pub from: Position,
    /// Stop before this offset in each partition
    #[arg(long, value_name = "OFFSET", conflicts_with = "follow")]
    pub to: Option<i64>,
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub max: Option<u64>,
    /// Values alone, as they are, one a line
    #[arg(long)]
    pub raw: bool,
}

/// Reads a position as people write it.
pub fn position(text: &str) -> Result<Position, String> {
    if let Some(ms) = text.strip_prefix('@') {
        return ms
            .parse()
            .map(Position::Timestamp)
            .map_err(|_| "after @ come milliseconds since 1970".into());
    }
    match text {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        _ => match text.parse() {
            Ok(offset) if offset >= 0 => Ok(Position::Offset(offset)),
            Ok(_) => Err("offsets begin at 0".into()),
            Err(_) => match string_to_timestamp_nanos(text) {
                Ok(ns) => Ok(Position::Timestamp(ns.div_euclid(1_000_000))),
                Err(_) => Err("give earliest, latest, an offset, a time as in 2026-01-31T12:00:00Z, or @ and milliseconds".into()),
            },
        },
    }
}

pub async fn run(common: &Common, arguments: ConsumeArguments) -> Result<(), Failure> {
    let client = connect(common).await?;
    let mut options = FetchOptions::new(arguments.topic.as_str()).start(arguments.from);
    options.follow = arguments.follow;
    let mut partitions = arguments.partitions.clone();
    let mut ends = BTreeMap::new();
    if let Some(to) = arguments.to {
        let topic = client.describe_topic(&arguments.topic).await?;
        // A range ends where the records end: who waits for more follows.
        let end = |one: &Partition| (one.index, to.min(one.high_watermark));
        ends = topic.partitions.iter().map(end).collect();
        if partitions.is_empty() {
            partitions = ends.keys().copied().collect();
        }
    }
    let start = |partition: &u32| Start {
        partition: *partition,
        at: arguments.from,
        end_offset: ends.get(partition).copied(),
    };
    options.partitions = partitions.iter().map(start).collect();

    let mut out = Out::new();
    let mut left = arguments.max.unwrap_or(u64::MAX);
    let mut heading = !arguments.raw && common.output == Output::Table;
    let mut stream = client.fetch(options).await?;
    while left > 0 {
        let batch = stream.next().await.transpose()?;
        // Once it is known that there is something to read: an error stands alone.
        if std::mem::take(&mut heading) {
            out.line(&format!(
                "{:>9}  {:>10}  {:<24}  {:<16}  VALUE",
                "PARTITION", "OFFSET", "TIME", "KEY"
            ))?;
        }
        let Some(batch) = batch else {
            break;
        };
        for record in batch.records()? {
            if left == 0 {
                break;
            }
            left -= 1;
            let record =
                record.map_err(|error| damaged(&arguments.topic, batch.partition, &error))?;
            print(
                &mut out,
                common.output,
                arguments.raw,
                &arguments.topic,
                batch.partition,
                &record,
            )?;
        }
        // Whoever follows sees a record when it comes.
        out.flush()?;
    }
    out.flush()
}

fn damaged(topic: &str, partition: u32, error: &impl std::fmt::Display) -> Failure {
    Failure::new(
        "damaged",
        format!("{topic}/{partition}: a record cannot be read: {error}"),
        "read around it with --from and --to",
    )
}

fn print(
    out: &mut Out,
    form: Output,
    raw: bool,
    topic: &str,
    partition: u32,
    record: &Record,
) -> Result<(), Failure> {
    if raw {
        out.bytes(record.value.as_deref().unwrap_or_default())?;
        return out.bytes(b"\n");
    }
    match form {
        Output::Json => out.line(&record_to_json(topic, partition, record)),
        Output::Table => {
            let (key, value) = (
                bytes_to_text(record.key.as_deref()),
                bytes_to_text(record.value.as_deref()),
            );
            let at = time(record.timestamp_ms);
            out.line(&format!(
                "{partition:>9}  {:>10}  {at:<24}  {key:<16}  {value}",
                record.offset
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_people_write_them() {
        assert_eq!(position("earliest").unwrap(), Position::Earliest);
        assert_eq!(position("latest").unwrap(), Position::Latest);
        assert_eq!(position("17").unwrap(), Position::Offset(17));
        assert_eq!(position("@17").unwrap(), Position::Timestamp(17));
        assert_eq!(
            position("2013-01-01T10:00:00Z").unwrap(),
            Position::Timestamp(1_357_034_400_000)
        );
        assert!(position("-1").is_err() && position("soon").is_err());
    }
}
