//! A request's frame: four bytes of length, a header, and its body. What comes over the socket is read by `connection.rs`.

use bytes::Bytes;

use crate::wire::{Reader, WireError};

/// What is allocated before the bytes come; a larger request grows as it does.
pub(crate) const FIRST_BYTES: usize = 16 << 10;
/// So many times what has come is allocated at most.
const GROWTH: usize = 4;

/// The length that a frame begins with; none where it is negative or above the limit.
pub(crate) fn length(prefix: [u8; 4], limit_bytes: usize) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(prefix))
        .ok()
        .filter(|length| *length <= limit_bytes)
}

/// How many bytes of a frame of `length` there is to be room for when so many have come, and all of the room is used: a few
/// times as much. Nothing larger is taken on the length's word.
pub(crate) fn next_step(come: usize, length: usize) -> usize {
    come.saturating_mul(GROWTH).max(FIRST_BYTES).min(length)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_what_has_come() {
        assert_eq!(next_step(0, 100), 100);
        assert_eq!(next_step(0, usize::MAX), FIRST_BYTES);
        let mut come = 0;
        while come < 5_000_000 {
            let next = next_step(come, 5_000_000);
            assert!(come < next && next <= FIRST_BYTES.max(4 * come));
            come = next;
        }
        assert_eq!(come, 5_000_000);
    }
}
