//! What the simulation's handler must have made of its input, computed anew from the input alone. It shares no code with
//! the handler in `simulation/handler.rs`.

use std::collections::{BTreeMap, BTreeSet};

/// Each so many events of a key make an alert.
pub const ALERT_EVERY: u64 = 7;

/// Values that begin so cannot be handled.
pub const POISON: &str = "poison";

/// A record's key and value as text.
pub type Pair = (String, String);

/// One input partition, as far as it has been recounted.
#[derive(Clone, Debug, Default)]
pub struct Recount {
    /// The next input offset.
    pub offset: i64,
    /// Events by key.
    pub counts: BTreeMap<String, u64>,
    /// Records in the output partition of the same number.
    pub outputs: i64,
    /// Records in the dead-letter partition of the same number.
    pub dead_letters: i64,
}

/// What one more event leads to.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Records for the output partition of the same number, in order.
    pub outputs: Vec<Pair>,
    /// Records for `alerts`, in whatever partition.
    pub alerts: BTreeSet<Pair>,
    /// Offset, key and value of what is dead-lettered, in order.
    pub dead_letters: Vec<(i64, Pair)>,
}

impl Recount {
    /// Recounts the next events of partition `partition`.
    pub fn advance(&mut self, partition: u32, events: &[Pair]) -> Expected {
        let mut expected = Expected::default();
        for (key, value) in events {
            let offset = self.offset;
            self.offset += 1;
            if value.starts_with(POISON) {
                self.dead_letters += 1;
                expected
                    .dead_letters
                    .push((offset, (key.clone(), value.clone())));
                continue;
            }
            let count = self.counts.entry(key.clone()).or_default();
            *count += 1;
            self.outputs += 1;
            expected
                .outputs
                .push((key.clone(), format!("{count}|{partition}|{offset}|{value}")));
            if count.is_multiple_of(ALERT_EVERY) {
                expected
                    .alerts
                    .insert((key.clone(), format!("{partition}|{count}")));
            }
        }
        expected
    }
}
