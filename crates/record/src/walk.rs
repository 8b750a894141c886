//! From a batch's payload to records: one walk, with a borrowed and an owning iterator over it.
//!
//! ```text
//! record: length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!         | key length varint, key | value length varint, value | header count varint, headers
//! header: name length varint, name | value length varint, value          (a length of -1 is null)
//! ```

use bytes::Bytes;

use crate::RecordError;
use crate::header::{BatchHeader, TimestampType};
use crate::varint::Cursor;

/// The shortest record: its length, attributes, two deltas, two lengths and a header count.
const MIN_RECORD_BYTES: usize = 7;

/// A record that owns slices of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order: a name, by convention UTF-8, and a value.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// A record borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: HeaderViews<'a>,
}

impl<'a> RecordView<'a> {
    /// The headers, in order.
    #[inline]
    pub fn headers(&self) -> HeaderViews<'a> {
        self.headers
    }
}

/// A header borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Its name, by convention UTF-8.
    pub name: &'a [u8],
    /// Its value, if any.
    pub value: Option<&'a [u8]>,
}

/// The headers of a [`RecordView`]; they were checked when the record was read.
#[derive(Debug, Clone, Copy)]
pub struct HeaderViews<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for HeaderViews<'a> {
    type Item = HeaderView<'a>;

    #[inline]
    fn next(&mut self) -> Option<HeaderView<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        read_header(&mut self.cursor)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for HeaderViews<'_> {}

#[inline]
fn read_header<'a>(cursor: &mut Cursor<'a>) -> Option<HeaderView<'a>> {
    let name = cursor.nullable()??;
    Some(HeaderView {
        name,
        value: cursor.nullable()?,
    })
}

/// Where a walk over a payload stands. It holds no bytes, so that both iterators can share it.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    at: usize,
    index: i32,
    count: i32,
    base_offset: i64,
    base_timestamp_ms: i64,
    /// Set where the log gave one time to the whole batch.
    append_time_ms: Option<i64>,
    /// The offset delta of the record before, -1 at the start.
    last_delta: i32,
    max_delta: i32,
    /// Batches from producers have no gaps; those that compaction rewrote may.
    dense: bool,
}

impl Walk {
    #[inline]
    pub(crate) fn new(header: &BatchHeader) -> Walk {
        Walk {
            at: 0,
            index: 0,
            count: header.record_count,
            base_offset: header.base_offset,
            base_timestamp_ms: header.base_timestamp_ms,
            append_time_ms: (header.timestamp_type() == TimestampType::LogAppendTime)
                .then_some(header.max_timestamp_ms),
            last_delta: -1,
            max_delta: header.last_offset_delta,
            dense: false,
        }
    }

    /// The next record. After an error there is none.
    #[inline]
    fn next<'a>(&mut self, payload: &'a [u8]) -> Option<Result<RecordView<'a>, RecordError>> {
        if self.index >= self.count {
            if self.at != payload.len() && self.index == self.count {
                // Said once: the index moves past the count.
                self.count = -1;
                return Some(Err(RecordError::BadRecord {
                    index: self.index,
                    why: "bytes follow the last record",
                }));
            }
            return None;
        }
        match self.read(payload) {
            Ok(view) => {
                self.index += 1;
                Some(Ok(view))
            }
            Err(why) => {
                self.count = -1;
                Some(Err(RecordError::BadRecord {
                    index: self.index,
                    why,
                }))
            }
        }
    }

    #[inline]
    fn read<'a>(&mut self, payload: &'a [u8]) -> Result<RecordView<'a>, &'static str> {
        let mut cursor = Cursor::new(payload, self.at);
        let length = cursor.varint().ok_or("it has no length")?;
        let body = usize::try_from(length)
            .ok()
            .and_then(|length| cursor.take(length))
            .ok_or("it is longer than the batch")?;
        self.at = cursor.at;

        const SHORT: &str = "it is shorter than its fields";
        let mut cursor = Cursor::new(body, 0);
        // Record attributes: Kafka has defined none so far, and ignores them.
        cursor.byte().ok_or(SHORT)?;
        let timestamp_delta = cursor.varlong().ok_or(SHORT)?;
        let offset_delta = cursor.varint().ok_or(SHORT)?;
        if offset_delta <= self.last_delta || offset_delta > self.max_delta {
            return Err("its offset is out of order");
        }
        if self.dense && offset_delta != self.last_delta + 1 {
            return Err("its offset leaves a gap");
        }
        self.last_delta = offset_delta;
        let key = cursor.nullable().ok_or("its key is longer than it")?;
        let value = cursor.nullable().ok_or("its value is longer than it")?;
        let headers = match cursor.varint().ok_or(SHORT)? {
            0 => HeaderViews { cursor, left: 0 },
            count => {
                // A header takes two bytes or more, which bounds the loop by the record's own size.
                let left = usize::try_from(count)
                    .ok()
                    .filter(|left| *left <= cursor.left() / 2)
                    .ok_or("its header count is out of range")?;
                let headers = HeaderViews { cursor, left };
                for _ in 0..left {
                    read_header(&mut cursor).ok_or("a header is longer than it")?;
                }
                headers
            }
        };
        if cursor.left() != 0 {
            return Err("it is longer than its fields");
        }
        Ok(RecordView {
            offset: self.base_offset.wrapping_add(i64::from(offset_delta)),
            // As in Java: a delta was made by a subtraction that may have wrapped.
            timestamp_ms: self
                .append_time_ms
                .unwrap_or(self.base_timestamp_ms.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }
}

/// Walks all records of a payload; if they are to be `dense`, as a producer sends them, insists on offsets without a gap and
/// on the header's newest time. Allocates nothing.
pub(crate) fn check(header: &BatchHeader, payload: &[u8], dense: bool) -> Result<(), RecordError> {
    // Said early, so that a wrong count is not a record's fault.
    if header.record_count as usize > payload.len() / MIN_RECORD_BYTES {
        return Err(RecordError::BadHeader {
            why: "it has fewer records than it says",
        });
    }
    let mut walk = Walk {
        dense,
        ..Walk::new(header)
    };
    let mut newest_ms = i64::MIN;
    while let Some(record) = walk.next(payload) {
        newest_ms = newest_ms.max(record?.timestamp_ms);
    }
    // Retention, lookups by time and queries go by what the header says.
    if dense && newest_ms != header.max_timestamp_ms {
        return Err(RecordError::BadHeader {
            why: "its newest time is not that of its newest record",
        });
    }
    Ok(())
}

/// The records of a payload, borrowed. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Views<'a> {
    walk: Walk,
    payload: &'a [u8],
}

impl<'a> Views<'a> {
    pub(crate) fn new(walk: Walk, payload: &'a [u8]) -> Self {
        Views { walk, payload }
    }

    /// Where the next record begins.
    pub(crate) fn position(&self) -> usize {
        self.walk.at
    }
}

impl<'a> Iterator for Views<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.payload)
    }
}

/// The records of a payload, owning slices of it. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    walk: Walk,
    payload: Bytes,
}

impl Records {
    pub(crate) fn new(walk: Walk, payload: Bytes) -> Self {
        Records { walk, payload }
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Records { walk, payload } = self;
        let own = |slice: &[u8]| payload.slice_ref(slice);
        Some(walk.next(payload)?.map(|view| {
            Record {
                offset: view.offset,
                timestamp_ms: view.timestamp_ms,
                key: view.key.map(own),
                value: view.value.map(own),
                headers: view
                    .headers
                    .map(|header| (own(header.name), header.value.map(own)))
                    .collect(),
            }
        }))
    }
}
