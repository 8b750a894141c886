//! A request's frame: four bytes of length, a header, and its body. What comes over the socket is read by `connection.rs`.

use bytes::{Bytes, BytesMut};

use crate::wire::{Reader, WireError};

/// What is allocated before the bytes come; a larger request grows as it does.
pub(crate) const FIRST_BYTES: usize = 1 << 20;

/// The length that a frame begins with; none where it is negative or above the limit.
pub(crate) fn length(prefix: [u8; 4], limit_bytes: usize) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(prefix))
        .ok()
        .filter(|length| *length <= limit_bytes)
}

/// Where a frame of `length` bytes is read to.
pub(crate) fn buffer(length: usize) -> BytesMut {
    BytesMut::with_capacity(length.min(FIRST_BYTES))
}

/// Makes room for more of a frame of `length` bytes, where there is none: as much again as has come.
pub(crate) fn make_room(frame: &mut BytesMut, length: usize) {
    if frame.len() == frame.capacity() {
        let left = length.saturating_sub(frame.len());
        frame.reserve(left.min(frame.len()));
    }
}

/// Kafka's request header v1 or, with tagged fields behind it, v2.
pub(crate) struct Header<'a> {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// What the client calls itself; empty where it does not say.
    pub(crate) client_id: &'a str,
    read_bytes: usize,
}

impl<'a> Header<'a> {
    pub(crate) fn read(frame: &'a Bytes) -> Result<Header<'a>, WireError> {
        let mut reader = Reader::new(frame, false);
        Ok(Header {
            api_key: reader.i16()?,
            version: reader.i16()?,
            correlation_id: reader.i32()?,
            client_id: reader.nullable_text()?.unwrap_or_default(),
            read_bytes: frame.len() - reader.left(),
        })
    }

    /// What comes after it; `flexible` says that the header is v2.
    pub(crate) fn body(&self, frame: &Bytes, flexible: bool) -> Result<Bytes, WireError> {
        let mut reader = Reader::new(frame, flexible);
        reader.take(self.read_bytes)?;
        reader.tags()?;
        Ok(reader.into_rest())
    }
}
