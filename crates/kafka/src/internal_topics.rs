//! Kafka's internal topics, `__consumer_offsets` and `__transaction_state`.
//!
//! What Kafka keeps in them lies in the store here. Tools look for them all the same, so they are listed and described, as
//! internal and as Kafka makes them, and are found empty by whoever reads them; nobody writes to them or changes them.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use mainstem::broker::configs::{self, ConfigValue};
use mainstem::broker::{INTERNAL_TOPICS, TopicDefaults};

use crate::codes::Refusal;
use crate::topic_ref::TopicRef;

/// What groups have committed, and transactions.
pub(crate) const OFFSETS: &str = INTERNAL_TOPICS[0];
const TRANSACTIONS: &str = INTERNAL_TOPICS[1];

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InternalTopic {
    pub(crate) name: &'static str,
    /// The same everywhere: there is nothing in them to tell apart.
    pub(crate) id: u128,
}

impl InternalTopic {
    /// Kafka's default, of `offsets.topic.num.partitions` and `transaction.state.log.num.partitions`.
    pub(crate) const PARTITIONS: u32 = 50;

    pub(crate) fn has(index: i32) -> bool {
        u32::try_from(index).is_ok_and(|index| index < InternalTopic::PARTITIONS)
    }

    /// What becomes of who writes to it, or changes it.
    pub(crate) fn refusal(&self) -> Refusal {
        let why = format!(
            "'{}' is an internal topic; it is not written to or changed",
            self.name
        );
        Refusal::new(ResponseError::InvalidTopicException, why)
    }
}

/// All of them, by name.
pub(crate) static ALL: [InternalTopic; 2] = [
    InternalTopic {
        name: OFFSETS,
        id: 0x5f5f_636f_6e73_4f6d_8f66_6673_6574_735f,
    },
    InternalTopic {
        name: TRANSACTIONS,
        id: 0x5f5f_7472_616e_4163_8169_6f6e_5f73_7461,
    },
];

pub(crate) fn by_name(name: &str) -> Option<&'static InternalTopic> {
    ALL.iter().find(|topic| topic.name == name)
}

pub(crate) fn by_id(id: u128) -> Option<&'static InternalTopic> {
    ALL.iter().find(|topic| topic.id == id)
}

pub(crate) fn find(topic: &TopicRef) -> Option<&'static InternalTopic> {
    match topic {
        TopicRef::Name(name) => by_name(name),
        TopicRef::Id(id) => by_id(*id),
    }
}

/// Refuses to change one.
pub(crate) fn refuse(name: &str) -> Result<(), Refusal> {
    by_name(name).map_or(Ok(()), |topic| Err(topic.refusal()))
}

/// Their settings: those that Kafka gives them.
pub(crate) fn settings() -> Vec<ConfigValue> {
    let given = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "104857600"),
    ];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    configs::effective(&BTreeMap::from(given), &TopicDefaults::default())
}

/// The partition of [`OFFSETS`] in which Kafka keeps a group's.
pub(crate) fn partition_of(group: &str) -> i32 {
    // `String.hashCode` of Java, and `Utils.abs` of Kafka.
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let positive = hash.checked_abs().unwrap_or(0).unsigned_abs();
    i32::try_from(positive % InternalTopic::PARTITIONS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_kept_where_kafka_keeps_it() {
        // `Utils.abs("…".hashCode()) % 50`, as Java says; the last one's hash is the smallest number there is.
        let groups = ["", "g", "my-group", "ü", "polygenelubricants"];
        assert_eq!(groups.map(partition_of), [0, 3, 12, 2, 0]);
    }
}
