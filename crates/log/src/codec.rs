//! Reading our own encodings: big-endian, bounds-checked, with the position in the error.

use bytes::Bytes;

use crate::{LogError, PartitionId, TopicId};

/// A cursor over bytes that may be damaged.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

macro_rules! integer {
    ($($name:ident: $type:ty),*) => {$(
        pub(crate) fn $name(&mut self) -> Result<$type, LogError> {
            let mut raw = [0; size_of::<$type>()];
            raw.copy_from_slice(self.take(size_of::<$type>())?);
            Ok(<$type>::from_be_bytes(raw))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which should be a `what`.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, what }
    }

    /// Continues at `at`.
    pub(crate) fn at(what: &'static str, bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, what }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], LogError> {
        let end = self
            .at
            .checked_add(count)
            .filter(|end| *end <= self.bytes.len());
        let found = end.and_then(|end| self.bytes.get(self.at..end));
        let Some(found) = found else {
            return Err(self.bad("it ends too early"));
        };
        self.at += count;
        Ok(found)
    }

    integer!(u8: u8, i16: i16, u32: u32, u64: u64, u128: u128, i64: i64);

    pub(crate) fn partition(&mut self) -> Result<PartitionId, LogError> {
        Ok(PartitionId {
            topic: TopicId(self.u128()?),
            index: self.u32()?,
        })
    }

    pub(crate) fn bool(&mut self) -> Result<bool, LogError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad("a flag is neither 0 nor 1")),
        }
    }

    /// `whole` are the bytes this reader stands on: the slice shares them.
    pub(crate) fn slice_of(&mut self, whole: &Bytes, count: usize) -> Result<Bytes, LogError> {
        let from = self.at;
        self.take(count)?;
        Ok(whole.slice(from..from + count))
    }

    pub(crate) fn end(&self) -> Result<(), LogError> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.bad("bytes are left over"))
        }
    }

    pub(crate) fn bad(&self, why: &'static str) -> LogError {
        LogError::Malformed {
            what: self.what,
            position: self.at,
            why,
        }
    }
}

/// Appends a partition's id.
pub(crate) fn put_partition(out: &mut Vec<u8>, partition: PartitionId) {
    out.extend_from_slice(&partition.topic.0.to_be_bytes());
    out.extend_from_slice(&partition.index.to_be_bytes());
}
