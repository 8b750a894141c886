//! Store operations, as frames carry them.
//!
//! One operation is a tag byte (low four bits the family, `0x10` put or `0x20` delete), the key's length as a LEB128
//! number, the key, and for a put the value's length and the value. A section is operations one after another.

use bytes::{Buf, Bytes};

use crate::{Family, StoreError};

const PUT: u8 = 0x10;
const DELETE: u8 = 0x20;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOp {
    /// The family the key lives in.
    pub family: Family,
    /// The key; it starts with its shard, big-endian.
    pub key: Bytes,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
}

impl StoreOp {
    /// Sets a key.
    pub fn put(family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) -> StoreOp {
        StoreOp {
            family,
            key: key.into(),
            value: Some(value.into()),
        }
    }

    /// Deletes a key.
    pub fn delete(family: Family, key: impl Into<Bytes>) -> StoreOp {
        StoreOp {
            family,
            key: key.into(),
            value: None,
        }
    }

    /// The shard that the key starts with (0 for a key shorter than a shard, which nothing here writes).
    pub fn shard(&self) -> u16 {
        match self.key.as_ref() {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        }
    }

    /// Bytes of the key and value: what the operation costs in memory.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// Appends the operation to a section.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.value {
            Some(value) => encode_put(out, self.family, &self.key, value),
            None => encode_delete(out, self.family, &self.key),
        }
    }

    /// The operations of a section, as slices of it.
    pub fn decode_all(section: &Bytes) -> StoreOps {
        StoreOps {
            rest: section.clone(),
            position: 0,
            failed: false,
        }
    }
}

/// Appends a put to a section.
pub fn encode_put(out: &mut Vec<u8>, family: Family, key: &[u8], value: &[u8]) {
    out.reserve(key.len() + value.len() + 11);
    out.push(PUT | family.code());
    put_length(out, key.len());
    out.extend_from_slice(key);
    put_length(out, value.len());
    out.extend_from_slice(value);
}

/// Appends a delete to a section.
pub fn encode_delete(out: &mut Vec<u8>, family: Family, key: &[u8]) {
    out.reserve(key.len() + 6);
    out.push(DELETE | family.code());
    put_length(out, key.len());
    out.extend_from_slice(key);
}

/// The operations of a section; after an error it ends.
#[derive(Clone, Debug)]
pub struct StoreOps {
    rest: Bytes,
    position: usize,
    failed: bool,
}

impl StoreOps {
    fn take_op(&mut self) -> Result<StoreOp, &'static str> {
        let tag = self.take(1)?[0];
        let family = Family::from_code(tag & 0x0f).ok_or("unknown family")?;
        let length = self.take_length()?;
        let key = self.take(length)?;
        let value = match tag & 0xf0 {
            PUT => {
                let length = self.take_length()?;
                Some(self.take(length)?)
            }
            DELETE => None,
            _ => return Err("unknown kind of operation"),
        };
        Ok(StoreOp { family, key, value })
    }

    fn take(&mut self, length: usize) -> Result<Bytes, &'static str> {
        if length > self.rest.len() {
            return Err("it ends before its content does");
        }
        self.position += length;
        Ok(self.rest.split_to(length))
    }

    fn take_length(&mut self) -> Result<usize, &'static str> {
        let mut length = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            if self.rest.is_empty() {
                return Err("it ends inside a length");
            }
            let byte = self.rest.get_u8();
            self.position += 1;
            if shift == 28 && byte > 0x0f {
                return Err("a length does not fit 32 bits");
            }
            length |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(length as usize);
            }
        }
        Err("a length does not fit 32 bits")
    }
}

impl Iterator for StoreOps {
    type Item = Result<StoreOp, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let start = self.position;
        Some(self.take_op().map_err(|what| {
            self.failed = true;
            StoreError::Malformed {
                position: start,
                what,
            }
        }))
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Keys and values are bounded by the frame, which is far below 4 GiB.
    debug_assert!(length <= u32::MAX as usize);
    let mut rest = length;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_op() -> impl Strategy<Value = StoreOp> {
        let bytes = |n| proptest::collection::vec(any::<u8>(), 0..n).prop_map(Bytes::from);
        (0usize..7, bytes(300), proptest::option::of(bytes(20_000))).prop_map(
            |(family, key, value)| StoreOp {
                family: Family::ALL[family],
                key,
                value,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_encoded_is_decoded_without_a_copy(ops in proptest::collection::vec(any_op(), 0..20)) {
            let mut out = Vec::new();
            ops.iter().for_each(|op| op.encode(&mut out));
            let section = Bytes::from(out);
            let decoded: Vec<StoreOp> = StoreOp::decode_all(&section).collect::<Result<_, _>>().unwrap();
            for op in decoded.iter().filter(|op| !op.key.is_empty()) {
                prop_assert!(section.as_ptr_range().contains(&op.key.as_ptr()));
            }
            prop_assert_eq!(decoded, ops);
        }

        #[test]
        fn any_bytes_decode_or_fail_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let results: Vec<_> = StoreOp::decode_all(&Bytes::from(bytes)).collect();
            prop_assert!(results.iter().rev().skip(1).all(Result::is_ok), "nothing follows an error");
        }
    }

    #[test]
    fn a_cut_section_names_the_operation_that_is_cut() {
        let mut out = Vec::new();
        encode_put(&mut out, Family::State, b"k", b"v");
        let second = out.len();
        encode_put(&mut out, Family::State, b"key", b"value");
        let section = Bytes::from(out).slice(..second + 6);
        let error = StoreOp::decode_all(&section).last().unwrap().unwrap_err();
        assert!(
            matches!(error, StoreError::Malformed { position, .. } if position == second),
            "{error}"
        );
    }
}
