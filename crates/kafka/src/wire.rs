//! The primitive types of Kafka's protocol, read and written without trusting a length.
//!
//! Versions of a message from its first flexible one on (KIP-482) write lengths as varints, one more than they are, and
//! end each structure with tagged fields; earlier ones write fixed lengths, -1 for none.

use bytes::{BufMut, Bytes, BytesMut};

use crate::piece::Piece;

/// Why bytes are not what a message's version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("it ends in the middle of a field")]
    Short,
    #[error("a length is negative")]
    Negative,
    #[error("a varint is longer than five bytes")]
    Varint,
    #[error("an array says it has more items than there are bytes left")]
    Count,
    #[error("it has more than {0} items")]
    Items(usize),
    #[error("a name is not UTF-8")]
    Text,
    #[error("a field that may not be null is")]
    Null,
}

/// Reads from a frame's bytes. Nothing is copied, and nothing is allocated by what a length says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(whole: &'a Bytes, flexible: bool) -> Reader<'a> {
        Reader {
            whole,
            rest: whole,
            flexible,
        }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// What is left.
    pub(crate) fn into_rest(self) -> Bytes {
        self.whole.slice_ref(self.rest)
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, WireError> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, WireError> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, WireError> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, WireError> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self) -> Result<u128, WireError> {
        self.fixed().map(u128::from_be_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    /// A length written `fixed` bytes wide where it is not a varint; none for null.
    fn length(
        &mut self,
        fixed: impl Fn(&mut Self) -> Result<i64, WireError>,
    ) -> Result<Option<usize>, WireError> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else {
            fixed(self)?
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| WireError::Negative),
        }
    }

    /// A text, or null. Its bytes alone: see [`text`](Self::text).
    pub(crate) fn nullable_text_bytes(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        match self.length(|reader| reader.i16().map(i64::from))? {
            Some(bytes) => self.take(bytes).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn nullable_text(&mut self) -> Result<Option<&'a str>, WireError> {
        let text = self.nullable_text_bytes()?.map(std::str::from_utf8);
        text.transpose().map_err(|_| WireError::Text)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, WireError> {
        self.nullable_text()?.ok_or(WireError::Null)
    }

    /// Bytes, or null, as a slice of the frame.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<Bytes>, WireError> {
        match self.length(|reader| reader.i32().map(i64::from))? {
            Some(bytes) => self
                .take(bytes)
                .map(|slice| Some(self.whole.slice_ref(slice))),
            None => Ok(None),
        }
    }

    /// How many items an array has; none for null. Each item has `least_bytes`, one at the least, so that no count can
    /// ask for more memory than the frame already took.
    pub(crate) fn nullable_count(
        &mut self,
        least_bytes: usize,
    ) -> Result<Option<usize>, WireError> {
        let count = self.length(|reader| reader.i32().map(i64::from))?;
        if count.is_some_and(|count| count > self.rest.len() / least_bytes.max(1)) {
            return Err(WireError::Count);
        }
        Ok(count)
    }

    pub(crate) fn count(&mut self, least_bytes: usize) -> Result<usize, WireError> {
        self.nullable_count(least_bytes)?.ok_or(WireError::Null)
    }

    /// Passes the tagged fields that end a structure, where there are any; how many there were.
    pub(crate) fn tags(&mut self) -> Result<usize, WireError> {
        if !self.flexible {
            return Ok(0);
        }
        let count = self.varint()? as usize;
        // A number and a length at the least.
        if count > self.left() / 2 {
            return Err(WireError::Count);
        }
        for _ in 0..count {
            let _tag = self.varint()?;
            let bytes = self.varint()?;
            self.take(bytes as usize)?;
        }
        Ok(count)
    }
}

/// Writes an answer as pieces: what is written here, and bytes that go out as they are.
#[derive(Debug)]
pub(crate) struct Writer {
    buffer: BytesMut,
    pieces: Vec<Piece>,
    flexible: bool,
}

impl Writer {
    pub(crate) fn new(flexible: bool) -> Writer {
        Writer {
            buffer: BytesMut::new(),
            pieces: Vec::new(),
            flexible,
        }
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    pub(crate) fn uuid(&mut self, value: u128) {
        self.buffer.put_u128(value);
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.buffer.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// How many items follow; none for null.
    pub(crate) fn count(&mut self, count: Option<usize>) {
        if self.flexible {
            self.varint(count.map_or(0, |count| count + 1));
        } else {
            self.i32(count.map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX)));
        }
    }

    /// A text of at most 32,767 bytes; a longer one is cut.
    pub(crate) fn text(&mut self, text: Option<&str>) {
        let text = text.map(|text| {
            text.get(..text.floor_char_boundary(i16::MAX as usize))
                .unwrap_or(text)
        });
        if self.flexible {
            self.varint(text.map_or(0, |text| text.len() + 1));
        } else {
            self.i16(text.map_or(-1, |text| i16::try_from(text.len()).unwrap_or(i16::MAX)));
        }
        self.buffer.put_slice(text.unwrap_or_default().as_bytes());
    }

    /// Bytes in pieces, none of which is copied.
    pub(crate) fn pieces(&mut self, pieces: Vec<Piece>) {
        self.count(Some(pieces.iter().map(Piece::len).sum()));
        if !pieces.is_empty() {
            self.pieces.push(self.buffer.split().freeze().into());
            self.pieces.extend(pieces);
        }
    }

    /// Ends a structure: no tagged fields.
    pub(crate) fn tags(&mut self) {
        if self.flexible {
            self.i8(0);
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Piece> {
        if !self.buffer.is_empty() {
            self.pieces.push(self.buffer.freeze().into());
        }
        self.pieces
    }
}
