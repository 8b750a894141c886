//! How a request names a topic: by its name or, in later versions, by its id.

use std::sync::Arc;

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
}
