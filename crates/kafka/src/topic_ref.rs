//! The topic that a request names.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use mainstem::broker::{Topic, TopicId};

use crate::client::Client;
pub(crate) use crate::codec::topic::TopicRef;
use crate::codes::Refusal;

impl TopicRef {
    pub(crate) fn find(&self, client: &Client) -> Result<Arc<Topic>, Refusal> {
        let broker = client.broker();
        let found = match self {
            TopicRef::Name(name) => broker.topic(&client.caller, name),
            TopicRef::Id(id) => broker.topic_by_id(&client.caller, TopicId(*id)),
        };
        Ok(found?)
    }
}

/// A partition's number as the broker has it.
pub(crate) fn partition_number(index: i32) -> Result<u32, Refusal> {
    u32::try_from(index).map_err(|_| {
        Refusal::new(
            ResponseError::UnknownTopicOrPartition,
            format!("partition {index} does not exist"),
        )
    })
}
