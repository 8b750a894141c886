//! Service `Topics`.

use std::collections::BTreeMap;

use mainstem::broker::configs::Source;
use mainstem::broker::{BrokerError, NewTopic, PartitionBounds, Topic, TopicChange};
use mainstem::schema::{Column, ColumnKind, TopicSchema};
use mainstem_proto::v1;
use tonic::{Request, Response, Status};

use crate::call::{Platform, now_ms};
use crate::errors;

/// The service.
pub(crate) struct Topics {
    pub(crate) platform: Platform,
}

#[tonic::async_trait]
impl v1::topics_server::Topics for Topics {
    async fn create(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::Topic>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let v1::CreateTopicRequest {
            name,
            partitions,
            configs,
            schema,
        } = request.into_inner();
        let schema = schema.map(to_schema).transpose()?;
        let new = NewTopic {
            name: name.clone(),
            partitions,
            configs: configs.into_iter().collect(),
            schema,
        };
        let created = self
            .platform
            .broker()
            .create_topic(&caller, new, now_ms())
            .await;
        created.map_err(|error| errors::broker(&error))?;
        self.describe_as(&caller, &name).await
    }

    async fn list(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let broker = self.platform.broker();
        let topics = broker
            .list_topics(&caller)
            .map_err(|error| errors::broker(&error))?;
        let mut listed = Vec::with_capacity(topics.len());
        for topic in topics {
            let bounds = (0..topic.partitions)
                .map(|index| broker.partition_bounds(&caller, &topic.name, index));
            match bounds.collect::<Result<Vec<_>, _>>() {
                Ok(bounds) => listed.push(v1::Topic {
                    partitions: from_bounds(&bounds),
                    ..from_topic(&topic)
                }),
                // Deleted in this very moment.
                Err(BrokerError::TopicNotFound { .. }) => {}
                Err(error) => return Err(errors::broker(&error)),
            }
        }
        Ok(Response::new(v1::ListTopicsResponse { topics: listed }))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::Topic>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        self.describe_as(&caller, &request.into_inner().name).await
    }

    async fn alter(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::Topic>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let v1::AlterTopicRequest {
            name,
            set,
            unset,
            schema,
            partitions,
        } = request.into_inner();
        let mut changes: BTreeMap<String, Option<String>> = set
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        for config in unset {
            if changes.insert(config.clone(), None).is_some() {
                return Err(errors::invalid(
                    format!("{config} is both set and unset"),
                    "name each setting once",
                ));
            }
        }
        let schema = schema.map(to_schema).transpose()?.map(Some);
        let change = TopicChange {
            set: changes,
            schema,
            partitions,
        };
        let altered = self
            .platform
            .broker()
            .alter_topic(&caller, &name, change)
            .await;
        altered.map_err(|error| errors::broker(&error))?;
        self.describe_as(&caller, &name).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let name = request.into_inner().name;
        let deleted = self.platform.broker().delete_topic(&caller, &name).await;
        deleted.map_err(|error| errors::broker(&error))?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let v1::DeleteRecordsRequest { topic, partitions } = request.into_inner();
        if partitions.is_empty() {
            return Err(errors::invalid(
                "no partition is named",
                "name each partition, with the offset before which its records go",
            ));
        }
        let before: Vec<_> = partitions
            .iter()
            .map(|cut| (cut.partition, cut.before_offset))
            .collect();
        let broker = self.platform.broker();
        let bounds = broker.delete_records(&caller, &topic, &before).await;
        let bounds = bounds.map_err(|error| errors::broker(&error))?;
        Ok(Response::new(v1::DeleteRecordsResponse {
            partitions: from_bounds(&bounds),
        }))
    }
}

impl Topics {
    async fn describe_as(
        &self,
        caller: &mainstem::Caller,
        name: &str,
    ) -> Result<Response<v1::Topic>, Status> {
        let described = self.platform.broker().describe_topic(caller, name);
        let described = described.map_err(|error| errors::broker(&error))?;
        let configs = described.configs.iter().map(|config| v1::ConfigEntry {
            name: config.key.name.to_owned(),
            value: config.value.clone(),
            default_value: config.key.default.to_owned(),
            doc: config.key.description(),
            source: match config.source {
                Source::Default => v1::ConfigSource::Default,
                Source::DynamicNode | Source::DynamicCluster | Source::Broker => {
                    v1::ConfigSource::Server
                }
                Source::Topic => v1::ConfigSource::Topic,
            }
            .into(),
        });
        let mut topic = v1::Topic {
            partitions: from_bounds(&described.bounds),
            configs: configs.collect(),
            ..from_topic(&described.topic)
        };
        if topic.schema.is_none() {
            // What queries will see. A topic whose sample cannot be read is described without it.
            let inferred = self
                .platform
                .mainstem
                .infer_topic_schema(caller, name)
                .await;
            if let Ok(inferred) = inferred
                && !inferred.is_empty()
            {
                topic.schema = Some(from_schema(&inferred));
                topic.schema_inferred = true;
            }
        }
        Ok(Response::new(topic))
    }
}

fn from_topic(topic: &Topic) -> v1::Topic {
    v1::Topic {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        partition_count: topic.partitions,
        created_ms: topic.created_ms,
        schema: topic.schema.as_ref().map(from_schema),
        ..v1::Topic::default()
    }
}

fn from_bounds(bounds: &[PartitionBounds]) -> Vec<v1::Partition> {
    let partition = |bounds: &PartitionBounds| v1::Partition {
        index: bounds.partition,
        start_offset: bounds.log_start,
        high_watermark: bounds.high_watermark,
        last_stable_offset: bounds.last_stable,
        size_bytes: bounds.size_bytes,
    };
    bounds.iter().map(partition).collect()
}

fn from_schema(schema: &TopicSchema) -> v1::Schema {
    let column = |column: &Column| v1::Column {
        name: column.name.clone(),
        kind: match column.kind {
            ColumnKind::Boolean => v1::ColumnKind::Boolean,
            ColumnKind::Int64 => v1::ColumnKind::Int64,
            ColumnKind::Float64 => v1::ColumnKind::Float64,
            ColumnKind::Utf8 => v1::ColumnKind::Utf8,
            ColumnKind::Timestamp => v1::ColumnKind::Timestamp,
        }
        .into(),
    };
    v1::Schema {
        columns: schema.columns.iter().map(column).collect(),
    }
}

fn to_schema(schema: v1::Schema) -> Result<TopicSchema, Status> {
    let column = |column: v1::Column| {
        let kind = match column.kind() {
            v1::ColumnKind::Boolean => ColumnKind::Boolean,
            v1::ColumnKind::Int64 => ColumnKind::Int64,
            v1::ColumnKind::Float64 => ColumnKind::Float64,
            v1::ColumnKind::Utf8 => ColumnKind::Utf8,
            v1::ColumnKind::Timestamp => ColumnKind::Timestamp,
            v1::ColumnKind::Unspecified => {
                let message = format!("column '{}' has no kind that is known here", column.name);
                return Err(errors::invalid(
                    message,
                    "use bool, int, float, text or timestamp",
                ));
            }
        };
        Ok(Column {
            name: column.name,
            kind,
        })
    };
    let columns = schema
        .columns
        .into_iter()
        .map(column)
        .collect::<Result<Vec<_>, _>>()?;
    TopicSchema::new(columns).map_err(|error| {
        errors::status(
            tonic::Code::InvalidArgument,
            "invalid_schema",
            error.to_string(),
            None,
        )
    })
}
