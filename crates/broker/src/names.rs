//! Which names are names, and which names are near another.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::BrokerError;

const MAX_NAME_BYTES: usize = 249;

/// Kafka's rule for topic names.
pub fn check_topic(name: &str) -> Result<(), BrokerError> {
    check(name).map_err(|why| BrokerError::InvalidTopicName {
        topic: shorten(name),
        why,
    })
}

/// What Kafka keeps in topics of these names (what groups have committed, and transactions) lies in the store here.
pub const INTERNAL_TOPICS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// Nobody creates a topic of such a name, or writes to one.
pub(crate) fn check_not_internal(name: &str) -> Result<(), BrokerError> {
    if name.starts_with("__") && INTERNAL_TOPICS.contains(&name) {
        return Err(BrokerError::InternalTopic {
            topic: name.to_owned(),
        });
    }
    Ok(())
}

/// A name that is `wanted` but for '.' and '_'. It follows what names begin with, and so looks at few of them.
pub(crate) fn colliding<T>(names: &BTreeMap<Arc<str>, T>, wanted: &str) -> Option<String> {
    const EITHER: [char; 2] = ['.', '_'];
    let is_begun = |start: &String| {
        let from = (Bound::Included(start.as_str()), Bound::<&str>::Unbounded);
        let next = names.range::<str, _>(from).next();
        next.is_some_and(|(name, _)| name.starts_with(start.as_str()))
    };
    let mut starts = vec![String::new()];
    for part in wanted.split_inclusive(EITHER) {
        let longer = |start: &String| match part.strip_suffix(EITHER) {
            Some(part) => EITHER
                .map(|either| format!("{start}{part}{either}"))
                .to_vec(),
            None => vec![format!("{start}{part}")],
        };
        starts = starts.iter().flat_map(longer).filter(is_begun).collect();
    }
    let mut found = starts.into_iter();
    found.find(|name| name != wanted && names.contains_key(name.as_str()))
}

/// The same rule for tenants.
pub(crate) fn check_tenant(name: &str) -> Result<(), BrokerError> {
    check(name).map_err(|why| BrokerError::InvalidTenant {
        tenant: shorten(name),
        why,
    })
}

fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > MAX_NAME_BYTES {
        return Err("it is longer than 249 characters");
    }
    if name == "." || name == ".." {
        return Err("'.' and '..' are no names");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        return Err("only letters, digits, '.', '_' and '-' are allowed");
    }
    Ok(())
}

/// The longest name of a group. Kafka has no rule for them; whatever is longer is no name but a mistake.
const MAX_GROUP_BYTES: usize = 1_024;

/// The rule for groups: any text. Who only commits or looks may also name the group without a name, as old clients do.
pub(crate) fn check_group(name: &str, may_be_empty: bool) -> Result<(), BrokerError> {
    let why = match name.len() {
        0 if !may_be_empty => "it is empty",
        0..=MAX_GROUP_BYTES => return Ok(()),
        _ => "it is longer than 1024 bytes",
    };
    Err(BrokerError::InvalidGroup {
        group: shorten(name),
        why,
    })
}

/// The rule for transactional ids: any text, but not none.
pub(crate) fn check_transactional_id(id: &str) -> Result<(), BrokerError> {
    let why = match id.len() {
        0 => "it is empty",
        1..=MAX_GROUP_BYTES => return Ok(()),
        _ => "it is longer than 1024 bytes",
    };
    let id = shorten(id);
    Err(BrokerError::InvalidTransactionalId { id, why })
}

/// A name from outside, short enough for an error message.
pub(crate) fn shorten(name: &str) -> String {
    if name.chars().count() <= 60 {
        name.to_owned()
    } else {
        format!("{}…", name.chars().take(60).collect::<String>())
    }
}

/// Up to three of `names` that somebody who wrote `wanted` may have meant, nearest first.
pub(crate) fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    if wanted.len() > MAX_NAME_BYTES {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let distance = distance(&wanted.to_lowercase(), &name.to_lowercase());
            let contains = wanted.len() >= 4 && name.contains(wanted);
            (distance <= 1 + wanted.len() / 5 || contains).then_some((distance, name))
        })
        .collect();
    found.sort();
    found
        .into_iter()
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Levenshtein's distance in bytes.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, b) in row.iter_mut().skip(1).zip(to.bytes()) {
            let cost = (diagonal + usize::from(a != b))
                .min(left + 1)
                .min(*slot + 1);
            diagonal = std::mem::replace(slot, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// `a`, `b` or `c`, for a message.
pub(crate) fn one_of(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "flights.dlq", "A_b-9", &"x".repeat(249)] {
            check_topic(good).unwrap();
        }
        for bad in ["", ".", "..", "a b", "ü", "a/b", &"x".repeat(250)] {
            let error = check_topic(bad).unwrap_err();
            assert_eq!(error.code(), "invalid_topic_name", "{bad}");
        }
    }

    #[test]
    fn names_that_differ_in_dots_and_underscores_alone_collide() {
        let taken = ["a", "a.b", "a_bc", "x_y.z", "x.y", "x", "...", "q-r"];
        let names: BTreeMap<Arc<str>, ()> =
            taken.into_iter().map(|name| (name.into(), ())).collect();
        for (wanted, expected) in [
            ("a_b", Some("a.b")),
            ("a.b", None),
            ("a.bc", Some("a_bc")),
            ("x.y_z", Some("x_y.z")),
            ("x_y_z", Some("x_y.z")),
            ("x_y", Some("x.y")),
            ("x_y.", None),
            ("_._", Some("...")),
            ("__", None),
            ("a", None),
            ("q.r", None),
            ("b", None),
        ] {
            assert_eq!(colliding(&names, wanted).as_deref(), expected, "{wanted}");
        }
    }

    #[test]
    fn distances() {
        for (from, to, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn near_names_come_nearest_first() {
        let names = ["retention.ms", "retention.bytes", "segment.ms", "flights"];
        assert_eq!(near("retension.ms", names.into_iter()), ["retention.ms"]);
        assert_eq!(
            near("retention", names.into_iter()),
            ["retention.ms", "retention.bytes"]
        );
        assert!(near("zzz", names.into_iter()).is_empty());
    }
}
