//! Settings of topics, of groups and of the broker: described, set, put back.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
    incremental_alter_configs_request, incremental_alter_configs_response,
};
use mainstem::broker::configs::{self, ConfigValue, Kind, Source, Synonym};
use mainstem::broker::{BrokerError, BrokerScope, GroupConfig, TopicChange};
use mainstem::{BrokerConfig, broker_configs};

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::internal_topics;
use crate::metadata::text;
use crate::topics::change_topic;

/// What a resource is (`ConfigResource.java`).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

/// Where a value comes from (`DescribeConfigsResponse.java`).
const OF_TOPIC: i8 = 1;
const SET_FOR_NODE: i8 = 2;
const SET_FOR_ALL: i8 = 3;
const OF_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
const OF_GROUP: i8 = 8;

pub(crate) fn source_code(source: Source) -> i8 {
    match source {
        Source::Topic => OF_TOPIC,
        Source::DynamicNode => SET_FOR_NODE,
        Source::DynamicCluster => SET_FOR_ALL,
        Source::Broker => OF_BROKER,
        Source::Default => DEFAULT,
    }
}

/// Kafka's types of settings: of numbers, the largest value tells.
fn type_code(kind: Kind) -> i8 {
    const SHORT: i64 = i16::MAX as i64;
    const INT: i64 = i32::MAX as i64;
    match kind {
        Kind::Flag => 1,
        Kind::Text | Kind::Word(_) => 2,
        Kind::Number { max: SHORT, .. } => 4,
        Kind::Number { max, .. }
        | Kind::NumberOr { max, .. }
        | Kind::Bytes { max, .. }
        | Kind::Millis { max, .. } => match max <= INT {
            true => 3,
            false => 5,
        },
        Kind::Share => 6,
        Kind::Words(_) | Kind::Replicas => 7,
    }
}

pub(crate) async fn describe(
    client: &Client,
    _call: &Call,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (synonyms, docs) = (request.include_synonyms, request.include_documentation);
    let describe = |resource: DescribeConfigsResource| {
        let keys = resource.configuration_keys.as_ref();
        let is_wanted = |name: &str| {
            keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key.as_str() == name))
        };
        let entry = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match values(client, resource.resource_type, &resource.resource_name) {
            Ok(values) => {
                let values = values.into_iter().filter(|value| is_wanted(value.name));
                let configs = values.map(|value| value.tell(synonyms, docs)).collect();
                entry.with_error_message(None).with_configs(configs)
            }
            Err(refusal) => entry
                .with_error_code(refusal.code())
                .with_error_message(refusal.text()),
        }
    };
    let results = request.resources.into_iter().map(describe).collect();
    DescribeConfigsResponse::default().with_results(results)
}

/// A setting of a topic, a group or the broker, as it is described.
struct Described {
    name: &'static str,
    kind: Kind,
    value: String,
    source: i8,
    read_only: bool,
    doc: String,
    /// Where the value could come from: those that have one, the first that holds first.
    synonyms: Vec<(&'static str, String, i8)>,
}

impl Described {
    fn topic(value: &ConfigValue) -> Described {
        let key = value.key;
        let synonym = |one: &Synonym| (one.name, one.value.clone(), source_code(one.source));
        let synonyms = value.synonyms.iter().map(synonym).collect();
        Described {
            name: key.name,
            kind: key.kind,
            value: value.value.clone(),
            source: source_code(value.source),
            read_only: false,
            doc: key.description(),
            synonyms,
        }
    }

    fn broker(config: BrokerConfig) -> Described {
        let synonym = |(value, source)| (config.name, value, source_code(source));
        let synonyms: Vec<_> = config.values.into_iter().map(synonym).collect();
        let first = synonyms.first();
        let (_, value, source) = first
            .cloned()
            .unwrap_or((config.name, String::new(), DEFAULT));
        Described {
            name: config.name,
            kind: config.kind,
            value,
            source,
            read_only: !config.is_dynamic,
            doc: config.doc,
            synonyms,
        }
    }

    fn group(config: GroupConfig) -> Described {
        let source = if config.is_set { OF_GROUP } else { DEFAULT };
        let mut synonyms = vec![(config.name, config.value.clone(), source)];
        if config.is_set {
            synonyms.push((config.name, config.default, DEFAULT));
        }
        Described {
            name: config.name,
            kind: config.kind,
            value: config.value,
            source,
            read_only: false,
            doc: config.doc.to_owned(),
            synonyms,
        }
    }

    fn tell(self, synonyms: bool, docs: bool) -> DescribeConfigsResourceResult {
        let synonym = |(name, value, source): (&str, String, i8)| {
            DescribeConfigsSynonym::default()
                .with_name(text(name))
                .with_value(Some(text(&value)))
                .with_source(source)
        };
        let told = if synonyms { self.synonyms } else { Vec::new() };
        DescribeConfigsResourceResult::default()
            .with_name(text(self.name))
            .with_value(Some(text(&self.value)))
            .with_read_only(self.read_only)
            .with_config_source(self.source)
            .with_config_type(type_code(self.kind))
            .with_documentation(docs.then(|| text(&self.doc)))
            .with_synonyms(told.into_iter().map(synonym).collect())
    }
}

fn values(client: &Client, resource: i8, name: &str) -> Result<Vec<Described>, Refusal> {
    match resource {
        TOPIC => {
            let configs = match internal_topics::by_name(name) {
                Some(_) => internal_topics::settings(),
                None => {
                    client
                        .broker()
                        .describe_topic(&client.caller, name)?
                        .configs
                }
            };
            Ok(configs.iter().map(Described::topic).collect())
        }
        BROKER => {
            let scope = broker_scope(client, name)?;
            let mut configs = of_broker(client, scope)?;
            if scope == BrokerScope::Cluster {
                // As in Kafka: what was set for all, and nothing else.
                configs.retain(|config| config.source == SET_FOR_ALL);
            }
            Ok(configs)
        }
        GROUP => {
            let configs = client.broker().group_configs(&client.caller, name)?;
            Ok(configs.into_iter().map(Described::group).collect())
        }
        other => Err(unknown_resource(other)),
    }
}

/// Whose settings a resource of that name has: this broker's, or without a name those of all.
fn broker_scope(client: &Client, name: &str) -> Result<BrokerScope, Refusal> {
    let node_id = client.gateway.settings.node_id;
    match name {
        "" => Ok(BrokerScope::Cluster),
        name if name == node_id.to_string() => Ok(BrokerScope::Node),
        name => {
            let why = format!("there is no broker {name}; there is {node_id}");
            Err(Refusal::new(ResponseError::InvalidRequest, why))
        }
    }
}

/// Every setting of the broker, as it holds for it or for all.
fn of_broker(client: &Client, scope: BrokerScope) -> Result<Vec<Described>, Refusal> {
    let defaults = client.broker().topic_defaults(&client.caller)?;
    let configs = broker_configs(&client.gateway.settings.given, &defaults);
    let described = configs.into_iter().map(|mut config| {
        if scope == BrokerScope::Cluster {
            config
                .values
                .retain(|(_, source)| *source != Source::DynamicNode);
        }
        Described::broker(config)
    });
    Ok(described.collect())
}

fn unknown_resource(resource: i8) -> Refusal {
    Refusal::new(
        ResponseError::InvalidRequest,
        format!(
            "resources of type {resource} have no settings here; topics (2), brokers (4) and groups (32) have"
        ),
    )
}

/// Sets and puts back settings of a topic, a group or the broker, all of a resource's or none.
pub(crate) async fn alter(
    client: &Client,
    _call: &Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let name = resource.resource_name.as_str();
        let altered = match changes(client, resource.resource_type, name, &resource.configs) {
            Ok(set) => {
                let resource = (resource.resource_type, name);
                change(client, resource, set, request.validate_only).await
            }
            Err(refusal) => Err(refusal),
        };
        let entry = incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match altered {
            Ok(()) => entry.with_error_message(None),
            Err(refusal) => entry
                .with_error_code(refusal.code())
                .with_error_message(refusal.text()),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

type Changes = BTreeMap<String, Option<String>>;

async fn change(
    client: &Client,
    (resource, name): (i8, &str),
    set: Changes,
    validate_only: bool,
) -> Result<(), Refusal> {
    if resource == GROUP {
        let (broker, caller) = (client.broker(), &client.caller);
        let altered = broker.alter_group_configs(caller, name, &set, validate_only);
        return Ok(altered.await?);
    }
    if resource == BROKER {
        let scope = broker_scope(client, name)?;
        check_dynamic(client, scope, &set)?;
        let (broker, caller) = (client.broker(), &client.caller);
        let altered = broker.alter_broker_configs(caller, scope, &set, validate_only);
        return altered.await.map_err(|error| Refusal {
            // What Kafka says of any value that is wrong here (KAFKA-13609).
            error: match &error {
                BrokerError::InvalidConfig { .. } | BrokerError::RefusedConfig { .. } => {
                    ResponseError::InvalidRequest
                }
                other => crate::codes::of_broker(other),
            },
            ..error.into()
        });
    }
    let change = TopicChange {
        set,
        ..TopicChange::default()
    };
    change_topic(client, name, change, validate_only).await
}

/// Refuses what is given when the broker starts, in Kafka's words, which tools look for.
fn check_dynamic(client: &Client, scope: BrokerScope, set: &Changes) -> Result<(), Refusal> {
    let all = of_broker(client, scope)?;
    let mut fixed = Vec::new();
    for name in set.keys() {
        let found = all.iter().find(|config| config.name == name);
        match found {
            None => return Err(unknown_config(BROKER, name)),
            Some(config) if config.read_only => fixed.push(config.name),
            Some(_) => {}
        }
    }
    if fixed.is_empty() {
        return Ok(());
    }
    let why = format!(
        "Cannot update these configs dynamically: [{}]; they are given when the server starts: mainstem serve --set name=value",
        fixed.join(", ")
    );
    Err(Refusal::new(ResponseError::InvalidRequest, why))
}

/// What the operations of a resource come to. Those on lists begin with the value that holds.
fn changes(
    client: &Client,
    resource: i8,
    name: &str,
    configs: &[incremental_alter_configs_request::AlterableConfig],
) -> Result<Changes, Refusal> {
    // SET, DELETE, APPEND, SUBTRACT (`AlterConfigOp.java`).
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    check_alterable(resource, name)?;
    let mut changes = Changes::new();
    let now = match resource {
        BROKER => of_broker(client, broker_scope(client, name)?)?,
        _ => values(client, resource, name)?,
    };
    for config in configs {
        let key = now.iter().find(|one| one.name == config.name.as_str());
        let key = key.ok_or_else(|| unknown_config(resource, config.name.as_str()))?;
        let invalid = |why: String| Refusal::new(ResponseError::InvalidConfig, why);
        let given = || {
            let value = config.value.as_ref().map(|value| value.as_str());
            value.ok_or_else(|| {
                let why = format!("{} has no value; DELETE puts the default back", key.name);
                Refusal::new(ResponseError::InvalidRequest, why)
            })
        };
        let operation = config.config_operation;
        let value = match operation {
            SET => Some(given()?.to_owned()),
            DELETE => None,
            APPEND | SUBTRACT => {
                if !key.kind.is_list() {
                    let why = format!("{} is no list, so nothing is added or taken away", key.name);
                    return Err(invalid(why));
                }
                let mut items: Vec<&str> = key
                    .value
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .collect();
                for item in given()?.split(',').map(str::trim) {
                    if operation == SUBTRACT {
                        items.retain(|there| *there != item);
                    } else if !items.contains(&item) {
                        items.push(item);
                    }
                }
                Some(items.join(","))
            }
            other => {
                let why = format!("operation {other} does not exist; there are 0 to 3");
                return Err(Refusal::new(ResponseError::InvalidRequest, why));
            }
        };
        if changes.insert(key.name.to_owned(), value).is_some() {
            let why = format!("{} is named twice", key.name);
            return Err(Refusal::new(ResponseError::InvalidRequest, why));
        }
    }
    Ok(changes)
}

/// Why a resource has no such setting.
fn unknown_config(resource: i8, name: &str) -> Refusal {
    match configs::find(name) {
        Err(error) if resource == TOPIC => error.into(),
        _ => {
            let whose = if resource == GROUP {
                "groups"
            } else {
                "brokers"
            };
            let why = format!("there is no setting '{name}' of {whose}");
            Refusal::new(ResponseError::InvalidConfig, why)
        }
    }
}

fn check_alterable(resource: i8, name: &str) -> Result<(), Refusal> {
    match resource {
        TOPIC => internal_topics::refuse(name),
        GROUP | BROKER => Ok(()),
        other => Err(unknown_resource(other)),
    }
}

/// Replaces all settings of a topic, of a group, or of what was set of the broker: those not named go back to their
/// defaults (KIP-133; deprecated there, and used still).
pub(crate) async fn replace(
    client: &Client,
    _call: &Call,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let name = resource.resource_name.as_str();
        let replaced = async {
            check_alterable(resource.resource_type, name)?;
            let mut set: Changes = match resource.resource_type {
                GROUP => {
                    let all = client.broker().group_configs(&client.caller, name)?;
                    let all = all.into_iter();
                    all.map(|config| (config.name.to_owned(), None)).collect()
                }
                BROKER => {
                    let scope = broker_scope(client, name)?;
                    let defaults = client.broker().topic_defaults(&client.caller)?;
                    let set = defaults.set(scope).keys();
                    set.map(|name| (name.clone(), None)).collect()
                }
                _ => {
                    let topic = client.broker().topic(&client.caller, name)?;
                    let set = topic.configs.keys();
                    set.map(|name| (name.clone(), None)).collect()
                }
            };
            for config in &resource.configs {
                let value = config.value.as_ref().map(ToString::to_string);
                set.insert(config.name.to_string(), value);
            }
            let resource = (resource.resource_type, name);
            change(client, resource, set, request.validate_only).await
        };
        let entry = alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match replaced.await {
            Ok(()) => entry.with_error_message(None),
            Err(refusal) => entry
                .with_error_code(refusal.code())
                .with_error_message(refusal.text()),
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}
