//! Kafka's variable-length integers: zigzag, then seven bits a byte, lowest first.

/// Folds the sign into the lowest bit, so that small negative numbers stay short.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Bytes that `value` takes.
#[inline]
pub(crate) fn size(value: i64) -> usize {
    // 9/64 is close enough to 1/7 for up to 64 bits, and needs no division.
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Writes `value` at the front of `out` and returns how many bytes it took.
#[inline]
pub(crate) fn put(out: &mut [u8], value: i64) -> usize {
    let mut rest = zigzag(value);
    let mut at = 0;
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

/// Reads forward over bytes from outside; every read says `None` rather than go past the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Cursor { bytes, at }
    }

    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// Up to 64 bits. `None` when the bytes end or the number does not fit.
    #[inline]
    pub(crate) fn varlong(&mut self) -> Option<i64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(unzigzag(u64::from(first)));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(unzigzag(value));
            }
            shift += 7;
        }
    }

    /// Up to 32 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<i32> {
        i32::try_from(self.varlong()?).ok()
    }

    /// A length and as many bytes; a length of -1 is null, any other negative one an error (`None`).
    #[inline]
    pub(crate) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            len => Some(Some(self.take(usize::try_from(len).ok()?)?)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        // From Kafka's ByteUtilsTest.
        for (value, bytes) in [
            (0i64, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (-8193, &[0x81, 0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MAX,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ] {
            let mut out = [0; 10];
            let len = put(&mut out, value);
            assert_eq!(&out[..len], bytes, "{value}");
            assert_eq!(size(value), bytes.len(), "{value}");
            assert_eq!(Cursor::new(bytes, 0).varlong(), Some(value));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Cursor::new(&[0xff; 11], 0).varlong(), None);
        assert_eq!(Cursor::new(&[0x80], 0).varlong(), None);
        assert_eq!(
            Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x10], 0).varint(),
            None
        );
        assert_eq!(Cursor::new(&[0x03], 0).nullable(), None, "a length of -2");
    }

    proptest! {
        #[test]
        fn round_trip(value in prop_oneof![any::<i64>(), -70_000i64..70_000]) {
            let mut out = [0; 10];
            let len = put(&mut out, value);
            prop_assert_eq!(len, size(value));
            let mut cursor = Cursor::new(&out[..len], 0);
            prop_assert_eq!(cursor.varlong(), Some(value));
            prop_assert_eq!(cursor.left(), 0);
        }
    }
}
