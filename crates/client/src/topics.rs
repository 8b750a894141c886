//! Topics: create, list, describe, alter, delete; offsets of positions.

use mainstem_proto::v1::fetch_client::FetchClient;
use mainstem_proto::v1::topics_client::TopicsClient;
use mainstem_proto::v1::{
    AlterTopicRequest, CreateTopicRequest, DeleteTopicRequest, DescribeTopicRequest,
    ListTopicsRequest, PartitionPosition, ResolveOffsetsRequest, Topic,
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
