//! A look over a control request before it is decoded: no count in it exceeds what the frame can hold.
//!
//! `kafka-protocol` allocates for an array what the wire says it has. So each request's shape stands here once more, by
//! the sizes of its fields alone, and a request is walked along it first. A test holds each shape, in every version that is
//! served, against what `kafka-protocol` itself writes.
//!
//! Source: the message definitions of Kafka 4.1 (`clients/src/main/resources/common/message`).

use crate::wire::{Reader, WireError};

/// Items of all arrays and tagged fields of one request at most: more than any client names topics and partitions in one, and little enough
/// that what they decode to is bounded.
pub(crate) const MAX_ITEMS: usize = 200_000;

/// What a request consists of.
pub(crate) type Shape = &'static [Field];

/// A field, and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A text, or null.
    Text,
    /// Bytes, or null.
    Blob,
    /// An array of structures, or null.
    Structs(Shape),
    /// An array of numbers of so many bytes, or null.
    Numbers(usize),
    /// An array of texts, or null.
    Texts,
    /// One structure, or null: a byte says which.
    Maybe(Shape),
}

const fn field(kind: Kind) -> Field {
    Field {
        kind,
        from: 0,
        to: i16::MAX,
    }
}

pub(crate) const fn fixed(bytes: usize) -> Field {
    field(Kind::Fixed(bytes))
}

pub(crate) const fn text() -> Field {
    field(Kind::Text)
}

pub(crate) const fn blob() -> Field {
    field(Kind::Blob)
}

pub(crate) const fn structs(shape: Shape) -> Field {
    field(Kind::Structs(shape))
}

pub(crate) const fn numbers(bytes: usize) -> Field {
    field(Kind::Numbers(bytes))
}

pub(crate) const fn texts() -> Field {
    field(Kind::Texts)
}

pub(crate) const fn maybe(shape: Shape) -> Field {
    field(Kind::Maybe(shape))
}

impl Field {
    /// From this version on.
    pub(crate) const fn since(self, from: i16) -> Field {
        Field { from, ..self }
    }

    /// Up to this version.
    pub(crate) const fn until(self, to: i16) -> Field {
        Field { to, ..self }
    }
}

/// Walks a request's body along its shape; an error where it does not fit, or has too many items. Answers how many bytes
/// come after it: librdkafka sends some behind a Metadata request for all topics, and Kafka passes over them.
pub(crate) fn check(body: Reader<'_>, shape: Shape, version: i16) -> Result<usize, WireError> {
    let mut walk = Walk {
        reader: body,
        version,
        items: 0,
    };
    walk.structure(shape)?;
    Ok(walk.reader.left())
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    /// So far.
    items: usize,
}

impl Walk<'_> {
    fn structure(&mut self, shape: Shape) -> Result<(), WireError> {
        for field in shape {
            if (field.from..=field.to).contains(&self.version) {
                self.field(field.kind)?;
            }
        }
        let tags = self.reader.tags()?;
        self.counted(tags).map(drop)
    }

    fn field(&mut self, kind: Kind) -> Result<(), WireError> {
        match kind {
            Kind::Fixed(bytes) => self.reader.take(bytes).map(drop),
            Kind::Text => self.reader.nullable_text_bytes().map(drop),
            Kind::Blob => self.reader.nullable_bytes().map(drop),
            Kind::Numbers(bytes) => {
                let count = self.count(bytes)?;
                self.reader.take(count * bytes).map(drop)
            }
            Kind::Texts => {
                (0..self.count(1)?).try_for_each(|_| self.reader.nullable_text_bytes().map(drop))
            }
            Kind::Structs(shape) => (0..self.count(1)?).try_for_each(|_| self.structure(shape)),
            Kind::Maybe(shape) if self.reader.i8()? >= 0 => self.structure(shape),
            Kind::Maybe(_) => Ok(()),
        }
    }

    fn count(&mut self, least_bytes: usize) -> Result<usize, WireError> {
        let count = self.reader.nullable_count(least_bytes)?.unwrap_or(0);
        self.counted(count)
    }

    fn counted(&mut self, count: usize) -> Result<usize, WireError> {
        self.items += count;
        if self.items > MAX_ITEMS {
            return Err(WireError::Items(MAX_ITEMS));
        }
        Ok(count)
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
