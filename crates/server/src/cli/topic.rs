//! `mainstem topic`: create, list, describe, alter, delete.

use super::connect::{connect, setting};
use super::output::{document, fields, table, time};
use super::{Common, Output};
use crate::failure::Failure;
use clap::Subcommand;
use mainstem_client::ClientError;
use mainstem_client::proto::{
    AlterTopicRequest, Column as ProtoColumn, ColumnKind as ProtoKind, ConfigEntry, ConfigSource,
    CreateTopicRequest, Schema, Topic,
};
use mainstem_schema::{Column, ColumnKind, TopicSchema};
use serde_json::{Value, json};

const SCHEMA_HELP: &str = "The columns of its JSON values, as in 'id:int, name:text'. Types: bool, int, float, text, timestamp. \
    Without it they are inferred from a sample of the records";

pub const EXAMPLES: &str = "Examples:
  mainstem topic create orders --partitions 8 --schema 'id:int, customer:text'
  mainstem topic list
  mainstem topic describe orders
  mainstem topic alter orders --set retention.ms=86400000
  mainstem topic delete orders";

#[derive(Subcommand, Debug)]
pub enum TopicCommand {
    /// Create a topic
    #[command(after_help = "Examples:
  mainstem topic create orders
  mainstem topic create orders --partitions 8 --schema 'id:int, customer:text'
  mainstem topic create logs --set retention.ms=86400000

`mainstem topic describe NAME --all` lists every setting with its meaning.")]
    Create {
        /// Its name: up to 249 of a-z A-Z 0-9 . _ -
        name: String,
        /// How many partitions [default: the server's num.partitions]
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// A setting under Kafka's name; repeatable
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
        #[arg(long, value_name = "COLUMNS", help = SCHEMA_HELP)]
        schema: Option<String>,
    },
    /// List the topics
    #[command(after_help = "Examples:
  mainstem topic list
  mainstem topic list --output json")]
    List,
    /// Show a topic: partitions with their offsets, columns, settings
    #[command(after_help = "Examples:
  mainstem topic describe orders
  mainstem topic describe orders --all
  mainstem topic describe orders --output json")]
    Describe {
        /// Its name
        name: String,
        /// Every setting with its value and meaning, not only those that were set here
        #[arg(long)]
        all: bool,
    },
    /// Change settings, columns or the number of partitions
    #[command(after_help = "Examples:
  mainstem topic alter orders --set retention.ms=-1
  mainstem topic alter orders --unset retention.ms --partitions 16
  mainstem topic alter orders --schema 'id:int, customer:text, amount:float'")]
    Alter {
        /// Its name
        name: String,
        /// A setting under Kafka's name; repeatable
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
        /// A setting to put back to its default; repeatable
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        /// The new number of partitions, not less than now
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        #[arg(long, value_name = "COLUMNS", help = SCHEMA_HELP)]
        schema: Option<String>,
    },
    /// Delete a topic and all of its records
    #[command(after_help = "Example:
  mainstem topic delete orders")]
    Delete {
        /// Its name
        name: String,
    },
    /// Delete the oldest records of a partition
    #[command(after_help = "Examples:
  mainstem topic delete-records orders --partition 0 --before 1000
  mainstem topic delete-records orders --partition 0 --before latest    all there are now")]
    DeleteRecords {
        /// The topic's name
        name: String,
        /// Which partition
        #[arg(long, value_name = "N")]
        partition: u32,
        /// The offset before which all records go: the first that stays; or latest
        #[arg(long, value_name = "OFFSET", value_parser = cut)]
        before: Cut,
    },
}

/// Whoever deletes a topic that is not there does not want it made.
fn not_there(error: ClientError) -> Failure {
    let failure = Failure::from(error);
    match failure.hint.starts_with("create") {
        true => Failure {
            hint: "'mainstem topic list' shows the topics that there are".into(),
            ..failure
        },
        false => failure,
    }
}

/// Where the records that stay begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Offset(i64),
    Latest,
}

fn cut(text: &str) -> Result<Cut, String> {
    match text.parse() {
        Ok(offset) if offset >= 0 => Ok(Cut::Offset(offset)),
        _ if text == "latest" => Ok(Cut::Latest),
        _ => Err("give an offset, from 0 on, or latest".into()),
    }
}

pub async fn run(common: &Common, command: TopicCommand) -> Result<(), Failure> {
    let client = connect(common).await?;
    match command {
        TopicCommand::Create {
            name,
            partitions,
            set,
            schema,
        } => {
            let schema = schema.as_deref().map(parse_schema).transpose()?;
            let request = CreateTopicRequest {
                name,
                partitions,
                configs: set.into_iter().collect(),
                schema,
            };
            let topic = client.create_topic(request).await?;
            show(common.output, &topic, false)
        }
        TopicCommand::List => {
            let topics = client.list_topics().await?;
            let all: Vec<Value> = topics.iter().map(to_json).collect();
            document(common.output, &json!({ "topics": all }), || {
                let rows = topics.iter().map(|topic| {
                    vec![
                        topic.name.clone(),
                        topic.partition_count.to_string(),
                        records(topic).to_string(),
                        columns(topic),
                    ]
                });
                table(&["name", "partitions", "records", "columns"], rows)
            })
        }
        TopicCommand::Describe { name, all } => {
            show(common.output, &client.describe_topic(&name).await?, all)
        }
        TopicCommand::Alter {
            name,
            set,
            unset,
            partitions,
            schema,
        } => {
            let schema = schema.as_deref().map(parse_schema).transpose()?;
            let request = AlterTopicRequest {
                name,
                set: set.into_iter().collect(),
                unset,
                partitions,
                schema,
            };
            show(common.output, &client.alter_topic(request).await?, false)
        }
        TopicCommand::Delete { name } => {
            client.delete_topic(&name).await.map_err(not_there)?;
            document(common.output, &json!({ "deleted": name }), || {
                format!("{name} is deleted")
            })
        }
        TopicCommand::DeleteRecords {
            name,
            partition,
            before,
        } => {
            let before = match before {
                Cut::Offset(offset) => Some(offset),
                Cut::Latest => None,
            };
            let now = client.delete_records(&name, partition, before).await?;
            let value = json!({
                "topic": name,
                "partition": now.index,
                "start_offset": now.start_offset,
                "high_watermark": now.high_watermark,
            });
            document(common.output, &value, || {
                format!(
                    "{name}/{} now begins at offset {}",
                    now.index, now.start_offset
                )
            })
        }
    }
}

fn parse_schema(text: &str) -> Result<Schema, Failure> {
    let schema = TopicSchema::parse(text).map_err(|error| {
        Failure::usage(
            format!("--schema: {error}"),
            "write it as 'id:int, name:text, paid:bool, at:timestamp, amount:float'",
        )
    })?;
    let column = |column: Column| {
        let kind = match column.kind {
            ColumnKind::Boolean => ProtoKind::Boolean,
            ColumnKind::Int64 => ProtoKind::Int64,
            ColumnKind::Float64 => ProtoKind::Float64,
            ColumnKind::Utf8 => ProtoKind::Utf8,
            ColumnKind::Timestamp => ProtoKind::Timestamp,
        };
        ProtoColumn {
            name: column.name,
            kind: kind.into(),
        }
    };
    Ok(Schema {
        columns: schema.columns.into_iter().map(column).collect(),
    })
}

/// The columns that were declared or inferred, as this side reads them.
pub fn schema_of(topic: &Topic) -> Option<TopicSchema> {
    let column = |column: &ProtoColumn| {
        let kind = match column.kind() {
            ProtoKind::Boolean => ColumnKind::Boolean,
            ProtoKind::Int64 => ColumnKind::Int64,
            ProtoKind::Float64 => ColumnKind::Float64,
            ProtoKind::Timestamp => ColumnKind::Timestamp,
            ProtoKind::Utf8 | ProtoKind::Unspecified => ColumnKind::Utf8,
        };
        Column {
            name: column.name.clone(),
            kind,
        }
    };
    topic.schema.as_ref().map(|schema| TopicSchema {
        columns: schema.columns.iter().map(column).collect(),
    })
}

fn records(topic: &Topic) -> i64 {
    topic
        .partitions
        .iter()
        .map(|partition| partition.high_watermark - partition.start_offset)
        .sum()
}

fn columns(topic: &Topic) -> String {
    let columns = schema_of(topic).unwrap_or_default().columns;
    let mut text: Vec<String> = columns
        .iter()
        .take(4)
        .map(|column| format!("{}:{}", column.name, column.kind.name()))
        .collect();
    if columns.len() > text.len() {
        text.push(format!("… {} in all", columns.len()));
    }
    text.join(", ")
}

fn to_json(topic: &Topic) -> Value {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|one| {
            json!({
                "partition": one.index,
                "start_offset": one.start_offset,
                "high_watermark": one.high_watermark,
                "last_stable_offset": one.last_stable_offset,
            })
        })
        .collect();
    let columns: Option<Vec<Value>> = schema_of(topic).map(|schema| {
        schema
            .columns
            .iter()
            .map(|column| json!({ "name": column.name, "type": column.kind.name() }))
            .collect()
    });
    json!({
        "name": topic.name,
        "id": topic.id,
        "partition_count": topic.partition_count,
        "created_ms": topic.created_ms,
        "records": records(topic),
        "columns": columns,
        "columns_inferred": topic.schema_inferred,
        "partitions": partitions,
    })
}

fn show(output: Output, topic: &Topic, all: bool) -> Result<(), Failure> {
    let mut value = to_json(topic);
    let configs: serde_json::Map<String, Value> = topic
        .configs
        .iter()
        .map(|one| (one.name.clone(), json!({ "value": one.value, "default": one.default_value, "set": is_set(one), "doc": one.doc })))
        .collect();
    if let Some(object) = value.as_object_mut() {
        object.insert("configs".into(), configs.into());
    }
    document(output, &value, || describe(topic, all))
}

/// For people; of the settings only those that were set here, unless all are asked for.
fn describe(topic: &Topic, all: bool) -> String {
    let mut text = fields([
        ("topic", topic.name.clone()),
        ("id", topic.id.clone()),
        ("created", time(topic.created_ms)),
        ("records", records(topic).to_string()),
    ]);
    text += "\n";
    text += &table(
        &["partition", "start offset", "high watermark"],
        topic.partitions.iter().map(|one| {
            vec![
                one.index.to_string(),
                one.start_offset.to_string(),
                one.high_watermark.to_string(),
            ]
        }),
    );
    if let Some(schema) = schema_of(topic).filter(|schema| !schema.is_empty()) {
        text += if topic.schema_inferred {
            "\ncolumns, inferred from a sample of its records:\n"
        } else {
            "\ncolumns, as declared:\n"
        };
        text += &table(
            &["column", "type"],
            schema
                .columns
                .iter()
                .map(|column| vec![column.name.clone(), column.kind.name().to_string()]),
        );
    }
    text += "\n";
    let shown = topic.configs.iter().filter(|one| all || is_set(one));
    let rows: Vec<Vec<String>> = shown
        .map(|one| {
            let mark = if all && is_set(one) { " *" } else { "" };
            let value = format!("{}{mark}", one.value);
            vec![one.name.clone(), value, one.doc.clone()]
        })
        .collect();
    let heading = if all {
        "setting (* set here)"
    } else {
        "setting"
    };
    if rows.is_empty() {
        let name = &topic.name;
        text += &format!(
            "every setting has its default; `mainstem topic describe {name} --all` lists them\n"
        );
    } else {
        text += &table(&[heading, "value", "meaning"], rows);
    }
    text
}

/// Whether the setting is the topic's own.
fn is_set(one: &ConfigEntry) -> bool {
    one.source == ConfigSource::Topic as i32
}
