//! World `handler`: events and outputs as values of the component model.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{ComponentType, Func, Lift, Lower};
use wasmtime::{AsContext, Result, Store};

use super::host::Host;
use crate::{Event, OutputRecord, StepFailure, StepLimits, StepOutput};

pub(super) struct TypedInstance {
    pub(super) store: Store<Host>,
    pub(super) function: Func,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct TypedHeader<'a> {
    name: &'a str,
    value: Option<&'a [u8]>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct TypedEvent<'a> {
    topic: &'a str,
    partition: u32,
    offset: i64,
    #[component(name = "timestamp-ms")]
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<TypedHeader<'a>>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct OwnedHeader {
    name: String,
    value: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct TypedOutput {
    topic: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
    #[component(name = "timestamp-ms")]
    timestamp_ms: Option<i64>,
    partition: Option<u32>,
}

type Parameters<'a> = (Vec<TypedEvent<'a>>,);
type Results = (Result<Vec<TypedOutput>, String>,);

pub(super) fn check(function: &Func, store: impl AsContext) -> Result<()> {
    function.typed::<Parameters<'_>, Results>(store).map(|_| ())
}

pub(super) async fn call(
    store: &mut Store<Host>,
    function: Func,
    events: &[Event],
) -> Result<std::result::Result<Vec<TypedOutput>, String>> {
    let events: Vec<TypedEvent<'_>> = events
        .iter()
        .map(|event| TypedEvent {
            topic: &event.topic,
            partition: event.partition,
            offset: event.offset,
            timestamp_ms: event.timestamp_ms,
            key: event.key.as_deref(),
            value: event.value.as_deref(),
            headers: event
                .headers
                .iter()
                .map(|(name, value)| TypedHeader {
                    name: std::str::from_utf8(name).unwrap_or_default(),
                    value: value.as_deref(),
                })
                .collect(),
        })
        .collect();
    let typed = function.typed::<Parameters<'_>, Results>(&*store)?;
    let (result,) = typed.call_async(store, (events,)).await?;
    Ok(result)
}

pub(super) fn outputs(
    outputs: Vec<TypedOutput>,
    limits: StepLimits,
) -> Result<StepOutput, StepFailure> {
    let mut topics: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let mut records = Vec::with_capacity(outputs.len());
    let mut bytes = 0;
    for output in outputs {
        let topic = match topics.get(&output.topic) {
            Some(known) => known.clone(),
            None => {
                let topic: Arc<str> = output.topic.as_str().into();
                topics.insert(output.topic, topic.clone());
                topic
            }
        };
        let record = OutputRecord {
            topic,
            key: output.key.map(Bytes::from),
            value: output.value.map(Bytes::from),
            headers: output
                .headers
                .into_iter()
                .map(|header| (Bytes::from(header.name), header.value.map(Bytes::from)))
                .collect(),
            timestamp_ms: output.timestamp_ms,
            partition: output.partition,
        };
        bytes += record.size_bytes();
        if bytes > limits.output_bytes {
            return Err(limits.too_much_output());
        }
        records.push(record);
    }
    Ok(StepOutput { records })
}
