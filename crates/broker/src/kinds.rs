//! What values settings take, and how values are read: as Kafka's `ConfigDef` does it.

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Milliseconds; -1 is without limit where the minimum allows it.
    Millis {
        /// The least value allowed.
        min: i64,
        /// The largest value allowed.
        max: i64,
    },
    /// Bytes; -1 is without limit where the minimum allows it.
    Bytes {
        /// The least value allowed.
        min: i64,
        /// The largest value allowed.
        max: i64,
    },
    /// A number from a range.
    Number {
        /// The least value allowed.
        min: i64,
        /// The largest value allowed.
        max: i64,
    },
    /// A number from a range, or that one which stands for the default.
    NumberOr {
        /// What stands for the default.
        default: i64,
        /// The least value allowed else.
        min: i64,
        /// The largest value allowed else.
        max: i64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words, with commas in between.
    Words(&'static [&'static str]),
    /// Replicas as partition:broker, with commas in between; `*` is all of them.
    Replicas,
    /// A number from 0 to 1.
    Share,
    /// Any text.
    Text,
}

impl Kind {
    /// Whether values can be added to it and taken away.
    pub fn is_list(&self) -> bool {
        matches!(self, Kind::Words(_) | Kind::Replicas)
    }

    /// A value as it is kept, or why it is none. As in Kafka, space around a value and around what is in a list does not
    /// count, nor do capitals where it is true or false.
    pub fn parse(&self, value: &str) -> Result<String, String> {
        let value = value.trim();
        let number = |min: i64, max: i64, unit: &str| match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
            _ if max == i64::MAX => Err(format!("it takes {unit}, at least {min}")),
            _ => Err(format!("it takes {unit}, from {min} to {max}")),
        };
        let list = |is_item: &dyn Fn(&str) -> bool| {
            let items: Vec<&str> = value.split(',').map(str::trim).collect();
            let are_items = items.iter().all(|item| is_item(item));
            are_items.then(|| items.join(","))
        };
        match *self {
            Kind::Millis { min, max } => number(min, max, "a number of milliseconds"),
            Kind::Bytes { min, max } => number(min, max, "a number of bytes"),
            Kind::Number { min, max } => number(min, max, "a whole number"),
            Kind::NumberOr { default, .. } if value.parse() == Ok(default) => {
                Ok(default.to_string())
            }
            Kind::NumberOr { default, min, max } => {
                number(min, max, "a whole number").map_err(|why| format!("{why}, or {default}"))
            }
            Kind::Flag => ["true", "false"]
                .into_iter()
                .find(|flag| value.eq_ignore_ascii_case(flag))
                .map(str::to_owned)
                .ok_or_else(|| "it takes 'true' or 'false'".into()),
            Kind::Word(words) if words.contains(&value) => Ok(value.to_owned()),
            Kind::Word(words) => Err(format!("it takes one of {}", words.join(", "))),
            Kind::Words(words) => list(&|item| words.contains(&item))
                .ok_or_else(|| format!("it takes a list of {}", words.join(", "))),
            Kind::Share => match value.parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) => Ok(value.to_owned()),
                _ => Err("it takes a number from 0 to 1".into()),
            },
            Kind::Replicas | Kind::Text if value.len() > 4096 => {
                Err("it is longer than 4096 bytes".into())
            }
            Kind::Replicas if value == "*" => Ok(value.to_owned()),
            Kind::Replicas => list(&|item| item.is_empty() || is_replica(item))
                .ok_or_else(|| "it takes '*', or a list of partition:broker".into()),
            Kind::Text => Ok(value.to_owned()),
        }
    }
}

/// `partition:broker`.
fn is_replica(item: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    item.split_once(':')
        .is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_kafka_reads_them() {
        let number = Kind::NumberOr {
            default: -1,
            min: 1,
            max: 9,
        };
        let policies = Kind::Words(&["compact", "delete"]);
        for (kind, value, kept) in [
            (Kind::Millis { min: 0, max: 9 }, " 7 ", "7"),
            (Kind::Bytes { min: 0, max: 9 }, "+5", "5"),
            (number, " -1", "-1"),
            (Kind::Flag, "True", "true"),
            (Kind::Flag, " FALSE", "false"),
            (policies, " compact , delete ", "compact,delete"),
            (Kind::Word(&["lz4"]), " lz4\n", "lz4"),
            (Kind::Share, " 0.25", "0.25"),
            (Kind::Replicas, "0:1 , 12:1", "0:1,12:1"),
            (Kind::Replicas, " * ", "*"),
            (Kind::Replicas, "  ", ""),
            (Kind::Text, " as it is ", "as it is"),
        ] {
            assert_eq!(kind.parse(value).unwrap(), kept, "{kind:?}: {value}");
        }
        for (kind, value) in [
            (Kind::Millis { min: 0, max: 9 }, "10"),
            (Kind::Bytes { min: 0, max: 9 }, "1 0"),
            (number, "0"),
            (Kind::Flag, "yes"),
            (policies, "compact,,delete"),
            (policies, ""),
            (Kind::Word(&["lz4"]), "LZ4"),
            (Kind::Share, "1.1"),
            (Kind::Replicas, "0:1,all"),
            (Kind::Replicas, "0:1,*"),
            (Kind::Replicas, "0:"),
        ] {
            kind.parse(value).unwrap_err();
        }
    }
}
