//! The broker settings that concern this gateway, under Kafka's names and with Kafka's defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::KafkaError;

/// How the gateway behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `auto.create.topics.enable`: whether asking for the metadata of a topic creates it.
    pub auto_create_topics: bool,
    /// `advertised.listeners`: the host and port that clients are told to connect to. Without it, it is the address that
    /// their connection arrived at.
    pub advertised: Option<(String, u16)>,
    /// `socket.request.max.bytes`: the largest request.
    pub max_request_bytes: usize,
    /// `connections.max.idle.ms`: how long a connection may be silent, or take nothing of an answer.
    pub max_idle: Duration,
    /// `fetch.max.bytes`: the most that one fetch returns, beyond one whole batch.
    pub max_fetch_bytes: usize,
    /// `node.id`: this node's number.
    pub node_id: i32,
    /// Every broker setting that was given, as it was given.
    pub given: BTreeMap<String, String>,
}

impl Settings {
    /// Reads them out of all broker settings that were given; names were checked before. Space around a value does not
    /// count, nor do capitals in `true` and `false`, as in Kafka.
    pub fn read(given: &BTreeMap<String, String>) -> Result<Settings, KafkaError> {
        let text = |name: &'static str| given.get(name).map(|value| value.trim());
        let refuse = |name: &'static str, why: &'static str| KafkaError::Setting {
            name,
            value: given.get(name).cloned().unwrap_or_default(),
            why,
        };
        let number = |name: &'static str, default: u64, most: u64| match text(name).map(str::parse)
        {
            None => Ok(default),
            Some(Ok(number)) if number <= most => Ok(number),
            Some(_) => Err(refuse(name, "it is no whole number in range")),
        };
        let auto_create_topics = match text("auto.create.topics.enable") {
            None => true,
            Some(flag) if flag.eq_ignore_ascii_case("true") => true,
            Some(flag) if flag.eq_ignore_ascii_case("false") => false,
            Some(_) => {
                return Err(refuse(
                    "auto.create.topics.enable",
                    "it takes 'true' or 'false'",
                ));
            }
        };
        let advertised = match text("advertised.listeners") {
            None | Some("") => None,
            Some(listener) => Some(advertised(listener).ok_or_else(|| {
                refuse(
                    "advertised.listeners",
                    "it takes one listener, as in PLAINTEXT://host:9092",
                )
            })?),
        };
        let largest = i32::MAX as u64;
        let bytes = |name, default| {
            number(name, default, largest).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        Ok(Settings {
            auto_create_topics,
            advertised,
            max_request_bytes: bytes("socket.request.max.bytes", 104_857_600)?,
            max_idle: Duration::from_millis(number("connections.max.idle.ms", 600_000, u64::MAX)?),
            max_fetch_bytes: bytes("fetch.max.bytes", 57_671_680)?,
            node_id: i32::try_from(number("node.id", 1, largest)?).unwrap_or(1),
            given: given.clone(),
        })
    }

    /// The same where this address is listened at and this directory served: `listeners` and `log.dirs` are shown as that,
    /// and who gave them gave that.
    pub fn serving(mut self, address: SocketAddr, data_dir: &str) -> Result<Settings, KafkaError> {
        let facts = [
            (
                "listeners",
                format!("PLAINTEXT://{address}"),
                "it is not where this server listens, which --listen-kafka says",
            ),
            (
                "log.dirs",
                data_dir.to_owned(),
                "it is not the data directory, which --data-dir says",
            ),
        ];
        for (name, fact, why) in facts {
            let given = self.given.insert(name.to_owned(), fact.clone());
            if let Some(value) = given.filter(|given| given.trim() != fact) {
                return Err(KafkaError::Setting { name, value, why });
            }
        }
        Ok(self)
    }
}

impl Default for Settings {
    /// Kafka's defaults.
    fn default() -> Settings {
        Settings {
            auto_create_topics: true,
            advertised: None,
            max_request_bytes: 104_857_600,
            max_idle: Duration::from_millis(600_000),
            max_fetch_bytes: 57_671_680,
            node_id: 1,
            given: BTreeMap::new(),
        }
    }
}

/// `PLAINTEXT://host:port`, or `host:port`.
fn advertised(listener: &str) -> Option<(String, u16)> {
    let address = listener
        .rsplit_once("://")
        .map_or(listener, |(_, address)| address);
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || listener.contains(',') {
        return None;
    }
    Some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Settings, KafkaError> {
        let given = given
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        Settings::read(&given.collect())
    }

    #[test]
    fn without_any_they_are_kafkas_defaults() {
        assert_eq!(read(&[]).unwrap(), Settings::default());
    }

    #[test]
    fn values_are_read_or_refused_by_name() {
        let settings = read(&[
            ("auto.create.topics.enable", "false"),
            ("advertised.listeners", "PLAINTEXT://broker.example:19092"),
            ("socket.request.max.bytes", "1000"),
            ("fetch.max.bytes", " 7 "),
            ("num.partitions", "3"),
        ])
        .unwrap();
        assert!(!settings.auto_create_topics);
        assert_eq!(settings.max_fetch_bytes, 7);
        let created = |flag| read(&[("auto.create.topics.enable", flag)]);
        let created = [" True", "FALSE"].map(|flag| created(flag).unwrap().auto_create_topics);
        assert_eq!(created, [true, false]);
        assert_eq!(settings.advertised, Some(("broker.example".into(), 19092)));
        assert_eq!(settings.max_request_bytes, 1000);
        let [one, two] = ["[::1]:9", "h:1"].map(|listener| advertised(listener).unwrap());
        assert_eq!((one, two), (("::1".into(), 9), ("h".into(), 1)));
        for (name, value) in [
            ("auto.create.topics.enable", "yes"),
            ("advertised.listeners", "PLAINTEXT://:9092"),
            ("advertised.listeners", "A://a:1,B://b:2"),
            ("advertised.listeners", "host"),
            ("socket.request.max.bytes", "-1"),
            ("fetch.max.bytes", "3000000000"),
            ("connections.max.idle.ms", "soon"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn where_it_listens_and_what_it_serves_is_told_and_not_chosen() {
        let serving = |given: &[(&str, &str)]| {
            let address = "[::1]:9092".parse().unwrap();
            read(given).unwrap().serving(address, "/data")
        };
        let (listeners, dirs) = ("PLAINTEXT://[::1]:9092", "/data");
        let shown = serving(&[]).unwrap();
        assert_eq!(shown.given["listeners"], listeners);
        assert_eq!(shown.given["log.dirs"], dirs);
        let given = [("listeners", listeners), ("log.dirs", " /data")];
        assert_eq!(serving(&given).unwrap(), shown);
        for (name, value) in [
            ("listeners", "PLAINTEXT://:9092"),
            ("log.dirs", "/data,/more"),
        ] {
            let error = serving(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
