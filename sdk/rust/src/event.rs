use serde::Deserialize;

use crate::packed::Reader;
use crate::{Error, Result};

/// One record of an input topic.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: i64,
    /// The record's time, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub(crate) headers: &'a [u8],
    pub(crate) header_count: u16,
}

impl<'a> Event<'a> {
    /// The value as JSON.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T> {
        let value = self
            .value
            .ok_or_else(|| Error::new("the event has no value"))?;
        serde_json::from_slice(value).map_err(|error| {
            Error::new(format!(
                "the event's value is not the expected JSON: {error}"
            ))
        })
    }

    /// The key as text.
    pub fn key_str(&self) -> Result<&'a str> {
        let key = self.key.ok_or_else(|| Error::new("the event has no key"))?;
        std::str::from_utf8(key).map_err(|_| Error::new("the event's key is not UTF-8"))
    }

    /// The value as text.
    pub fn value_str(&self) -> Result<&'a str> {
        let value = self
            .value
            .ok_or_else(|| Error::new("the event has no value"))?;
        std::str::from_utf8(value).map_err(|_| Error::new("the event's value is not UTF-8"))
    }

    /// The headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            reader: Reader::new(self.headers),
            left: self.header_count,
        }
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .find(|header| header.0 == name)
            .and_then(|header| header.1)
    }
}

/// The headers of an event: name and value.
#[derive(Clone)]
pub struct Headers<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.reader.text()?, self.reader.bytes()?))
    }
}
