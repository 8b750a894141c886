//! Which topics the members of a consumer group read: the one thing that the broker reads in what they say to each
//! other. `ConsumerProtocolSubscription` in Kafka: version i16, then an array of topic names, then more.

use std::collections::BTreeSet;

use bytes::Buf;

/// The protocol type of Kafka's consumers.
pub(crate) const CONSUMER: &str = "consumer";

/// Adds a subscription's topics; `None` where it is not of this form.
pub(crate) fn add_topics(mut metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let version = metadata.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = u32::try_from(metadata.try_get_i32().ok()?).ok()?;
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        let (name, rest) = metadata.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        metadata = rest;
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_nonsense_is_not() {
        let sound = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\0\0\0\0";
        let mut topics = BTreeSet::new();
        add_topics(sound, &mut topics).unwrap();
        assert_eq!(topics.iter().collect::<Vec<_>>(), ["a", "bc"]);
        for cut in 0..13 {
            let read = add_topics(sound.get(..cut).unwrap(), &mut BTreeSet::new());
            assert_eq!(read, None, "{cut}");
        }
        // More topics than there are bytes, fewer than none, a negative version, and a name that is no text.
        for nonsense in [
            &b"\0\0\x7f\xff\xff\xff"[..],
            b"\0\0\xff\xff\xff\xff",
            b"\xff\xff\0\0\0\0",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ] {
            let read = add_topics(nonsense, &mut BTreeSet::new());
            assert_eq!(read, None, "{nonsense:?}");
        }
    }
}
