//! Topics: create, list, describe, alter, delete, all of it or records from the front; offsets of positions.

use mainstem_proto::v1::fetch_client::FetchClient;
use mainstem_proto::v1::topics_client::TopicsClient;
use mainstem_proto::v1::{
    AlterTopicRequest, CreateTopicRequest, DeleteRecordsRequest, DeleteTopicRequest,
    DescribeTopicRequest, ListTopicsRequest, Partition, PartitionCut, PartitionPosition,
    ResolveOffsetsRequest, Topic,
};

use crate::{Client, ClientError, Position};

impl Client {
    /// Creates a topic.
    pub async fn create_topic(&self, topic: CreateTopicRequest) -> Result<Topic, ClientError> {
        self.write(TopicsClient::new(self.channel()).create(self.request(topic)))
            .await
    }

    /// The tenant's topics, ordered by name.
    pub async fn list_topics(&self) -> Result<Vec<Topic>, ClientError> {
        let call = |request| async { TopicsClient::new(self.channel()).list(request).await };
        Ok(self.read(call, ListTopicsRequest {}).await?.topics)
    }

    /// One topic, with its partitions and settings.
    pub async fn describe_topic(&self, name: &str) -> Result<Topic, ClientError> {
        let call = |request| async { TopicsClient::new(self.channel()).describe(request).await };
        self.read(
            call,
            DescribeTopicRequest {
                name: name.to_owned(),
            },
        )
        .await
    }

    /// Changes a topic. The same change may be made twice, so it is retried.
    pub async fn alter_topic(&self, change: AlterTopicRequest) -> Result<Topic, ClientError> {
        self.read(
            |request| async { TopicsClient::new(self.channel()).alter(request).await },
            change,
        )
        .await
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let request = self.request(DeleteTopicRequest {
            name: name.to_owned(),
        });
        self.write(TopicsClient::new(self.channel()).delete(request))
            .await?;
        Ok(())
    }

    /// Deletes the records of a partition below an offset, or all that can be read now where none is given. Returns
    /// what the partition holds afterwards.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: u32,
        before_offset: Option<i64>,
    ) -> Result<Partition, ClientError> {
        let cut = PartitionCut {
            partition,
            before_offset,
        };
        let request = self.request(DeleteRecordsRequest {
            topic: topic.to_owned(),
            partitions: vec![cut],
        });
        let answer = self
            .write(TopicsClient::new(self.channel()).delete_records(request))
            .await?;
        Ok(answer.partitions.into_iter().next().unwrap_or_default())
    }

    /// The offset of a position in a partition.
    pub async fn resolve_offset(
        &self,
        topic: &str,
        partition: u32,
        position: Position,
    ) -> Result<i64, ClientError> {
        let request = ResolveOffsetsRequest {
            topic: topic.to_owned(),
            positions: vec![PartitionPosition {
                partition,
                position: Some(position.to_proto()),
            }],
        };
        let call = |request| async {
            FetchClient::new(self.channel())
                .resolve_offsets(request)
                .await
        };
        let answer = self.read(call, request).await?;
        let offset = answer.offsets.first().map(|found| found.offset);
        offset.ok_or_else(|| ClientError::protocol("no offset for the position asked for"))
    }
}
