//! How a request names a topic: by its name or, in later versions, by its id.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use mainstem::broker::{Topic, TopicId};

use crate::client::Client;
use crate::codes::Refusal;
use crate::wire::{Reader, WireError, Writer};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicRef {
    Name(Arc<str>),
    Id(u128),
}

impl TopicRef {
    pub(crate) fn read(reader: &mut Reader<'_>, by_id: bool) -> Result<TopicRef, WireError> {
        if by_id {
            reader.uuid().map(TopicRef::Id)
        } else {
            reader.text().map(|name| TopicRef::Name(name.into()))
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            TopicRef::Name(name) => writer.text(Some(name)),
            TopicRef::Id(id) => writer.uuid(*id),
        }
    }

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
