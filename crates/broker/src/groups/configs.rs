//! Settings of single groups: how often the members of one are heard, where that is to differ from the others. They may be
//! there before the group is, and stay when it goes.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstem_store::StoreOp;
use serde::{Deserialize, Serialize};

use super::consumer::Timing;
use super::coordinator::GroupKey;
use super::settings::GroupSettings;
use crate::access::{self, Access};
use crate::broker::Broker;
use crate::configs::Kind;
use crate::coordinator::answered;
use crate::{BrokerError, Caller, keys, names};

const STORED_VERSION: u32 = 1;
const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";
const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";

/// A setting of a group, with the value that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value that holds.
    pub value: String,
    /// Whether it was set for this group.
    pub is_set: bool,
    /// The value where none is set: the broker's.
    pub default: String,
    /// What it does.
    pub doc: &'static str,
}

/// A setting there is.
struct Key {
    name: &'static str,
    doc: &'static str,
    /// The broker's value, the least and the most that a group may have.
    bounds: fn(&GroupSettings) -> (i64, i64, i64),
}

/// In the order of names.
const KEYS: [Key; 2] = [
    Key {
        name: HEARTBEAT_INTERVAL,
        doc: "How often a member of the consumer protocol is asked to be heard.",
        bounds: |settings| {
            (
                settings.consumer_heartbeat_interval_ms,
                settings.consumer_min_heartbeat_interval_ms,
                settings.consumer_max_heartbeat_interval_ms,
            )
        },
    },
    Key {
        name: SESSION_TIMEOUT,
        doc: "A member of the consumer protocol that is silent for so long is removed.",
        bounds: |settings| {
            (
                settings.consumer_session_timeout_ms,
                settings.consumer_min_session_timeout_ms,
                settings.consumer_max_session_timeout_ms,
            )
        },
    },
];

/// What was set for one group.
pub(crate) type GroupConfigs = BTreeMap<String, String>;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    configs: GroupConfigs,
}

/// The value in the store: JSON, because it is small, rare, and read by people in trouble.
pub(crate) fn encode(configs: &GroupConfigs) -> Result<Bytes, BrokerError> {
    let stored = Stored {
        version: STORED_VERSION,
        configs: configs.clone(),
    };
    serde_json::to_vec(&stored)
        .map(Bytes::from)
        .map_err(|error| damaged("settings of a group", error.to_string()))
}

/// Reads a value of the store; fails where it is damaged or of a newer version.
pub(crate) fn decode(group: &str, value: &[u8]) -> Result<GroupConfigs, BrokerError> {
    let what = format!("the settings of group '{group}'");
    let stored: Stored =
        serde_json::from_slice(value).map_err(|error| damaged(&what, error.to_string()))?;
    match stored.version {
        STORED_VERSION => Ok(stored.configs),
        _ => Err(damaged(
            &what,
            "it has another version; use a newer release".into(),
        )),
    }
}

fn damaged(what: &str, why: String) -> BrokerError {
    BrokerError::DamagedCatalog {
        what: what.to_owned(),
        why,
    }
}

/// How often the members of a group with these settings are heard.
pub(crate) fn timing(settings: &GroupSettings, configs: Option<&GroupConfigs>) -> Timing {
    let given = |name: &str| configs?.get(name)?.parse().ok();
    Timing {
        session_timeout_ms: given(SESSION_TIMEOUT).unwrap_or(settings.consumer_session_timeout_ms),
        heartbeat_interval_ms: given(HEARTBEAT_INTERVAL)
            .unwrap_or(settings.consumer_heartbeat_interval_ms),
    }
}

fn find(name: &str) -> Result<&'static Key, BrokerError> {
    let found = KEYS.iter().find(|key| key.name == name);
    found.ok_or_else(|| BrokerError::UnknownConfig {
        name: name.chars().take(250).collect(),
        near: names::near(name, KEYS.iter().map(|key| key.name)),
    })
}

/// A value as it is kept.
fn parse(key: &Key, value: &str, settings: &GroupSettings) -> Result<String, BrokerError> {
    let (_, min, max) = (key.bounds)(settings);
    match value.trim().parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
        _ => Err(BrokerError::InvalidConfig {
            name: key.name.to_owned(),
            value: value.chars().take(250).collect(),
            why: format!(
                "it takes {min} to {max} milliseconds, as group.consumer.min.* and group.consumer.max.* of the broker say"
            ),
        }),
    }
}

impl Broker {
    /// Every setting of a group, by name, whether the group is there or not.
    pub fn group_configs(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<Vec<GroupConfig>, BrokerError> {
        access::check(caller, Access::DescribeGroup { group })?;
        names::check_group(group, false)?;
        let groups = &self.inner.groups;
        let set = groups.with(None, |state| {
            state.configs_of(&GroupKey::new(caller, group)).cloned()
        });
        let config = |key: &Key| {
            let (default, min, max) = (key.bounds)(&groups.settings);
            let set = set.as_ref().and_then(|set| set.get(key.name));
            GroupConfig {
                name: key.name,
                kind: Kind::Millis { min, max },
                value: set.cloned().unwrap_or_else(|| default.to_string()),
                is_set: set.is_some(),
                default: default.to_string(),
                doc: key.doc,
            }
        };
        Ok(KEYS.iter().map(config).collect())
    }

    /// Sets settings of a group, or with `None` puts them back to the broker's; all of them or none, in one frame. With
    /// `only_checks` it only says whether that could be done.
    pub async fn alter_group_configs(
        &self,
        caller: &Caller,
        group: &str,
        changes: &BTreeMap<String, Option<String>>,
        only_checks: bool,
    ) -> Result<(), BrokerError> {
        access::check(caller, Access::AlterGroup { group })?;
        names::check_group(group, false)?;
        let groups = &self.inner.groups;
        let parsed = |(name, value): (&String, &Option<String>)| {
            let key = find(name)?;
            let value = value
                .as_ref()
                .map(|value| parse(key, value, &groups.settings));
            Ok((name.clone(), value.transpose()?))
        };
        let changes = changes
            .iter()
            .map(parsed)
            .collect::<Result<BTreeMap<_, _>, BrokerError>>()?;
        let key = GroupKey::new(caller, group);
        let answer = groups.with(None, |state| {
            let mut configs = state.configs_of(&key).cloned().unwrap_or_default();
            for (name, value) in &changes {
                match value {
                    Some(value) => configs.insert(name.clone(), value.clone()),
                    None => configs.remove(name),
                };
            }
            let timing = timing(&groups.settings, Some(&configs));
            if timing.heartbeat_interval_ms >= timing.session_timeout_ms {
                return Err(BrokerError::InvalidConfig {
                    name: HEARTBEAT_INTERVAL.into(),
                    value: timing.heartbeat_interval_ms.to_string(),
                    why: format!(
                        "it is not below {SESSION_TIMEOUT}, which is {}",
                        timing.session_timeout_ms
                    ),
                });
            }
            if only_checks {
                return Ok(None);
            }
            let at = keys::group_configs(&key.tenant, &key.name);
            let op = match configs.is_empty() {
                true => StoreOp::delete(keys::FAMILY, at),
                false => StoreOp::put(keys::FAMILY, at, encode(&configs)?),
            };
            Ok(Some(state.configure(&key, configs, op)))
        })?;
        if let Some(answer) = answer {
            answered(answer).await?;
            tracing::info!(tenant = %caller.tenant, principal = %caller.principal, group, ?changes, "settings of a group changed");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_part_of_the_format() {
        let configs = GroupConfigs::from([(SESSION_TIMEOUT.to_owned(), "50000".to_owned())]);
        let value = encode(&configs).unwrap();
        assert_eq!(
            value.as_ref(),
            br#"{"version":1,"configs":{"consumer.session.timeout.ms":"50000"}}"#
        );
        assert_eq!(decode("g", &value).unwrap(), configs);
        for damaged in [&b"{}"[..], br#"{"version":2,"configs":{}}"#, &value[1..]] {
            assert_eq!(decode("g", damaged).unwrap_err().code(), "damaged_catalog");
        }
        let timing = timing(&GroupSettings::default(), Some(&configs));
        assert_eq!(
            (timing.session_timeout_ms, timing.heartbeat_interval_ms),
            (50_000, 5_000)
        );
    }
}
