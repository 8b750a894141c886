//! World `packed-handler`: one buffer in, one out, as `sdk/wit/handler.wit` describes them.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use wasmtime::component::Func;
use wasmtime::{AsContext, Result, Store};

use super::host::Host;
use crate::{Event, OutputRecord, StepFailure, StepLimits, StepOutput};

const HAS_TIMESTAMP: u8 = 1;
const HAS_PARTITION: u8 = 2;

pub(super) struct PackedInstance {
    pub(super) store: Store<Host>,
    pub(super) function: Func,
    pub(super) buffer: Vec<u8>,
}

type Parameters<'a> = (&'a [u8],);
type Results = (Result<Vec<u8>, String>,);

pub(super) fn check(function: &Func, store: impl AsContext) -> Result<()> {
    function.typed::<Parameters<'_>, Results>(store).map(|_| ())
}

pub(super) async fn call(
    store: &mut Store<Host>,
    function: Func,
    events: &[u8],
) -> Result<std::result::Result<Vec<u8>, String>> {
    let typed = function.typed::<Parameters<'_>, Results>(&*store)?;
    let (result,) = typed.call_async(store, (events,)).await?;
    Ok(result)
}

impl PackedInstance {
    pub(super) fn new(store: Store<Host>, function: Func) -> PackedInstance {
        PackedInstance {
            store,
            function,
            buffer: Vec::new(),
        }
    }

    pub(super) fn pack(&mut self, events: &[Event]) {
        pack(&mut self.buffer, events);
    }
}

fn pack(out: &mut Vec<u8>, events: &[Event]) {
    out.clear();
    let mut topics: Vec<&Arc<str>> = Vec::new();
    for event in events {
        // Events of one topic share its name, so almost always one comparison of pointers is enough.
        if !topics
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, &event.topic))
            && place(&topics, &event.topic).is_none()
        {
            topics.push(&event.topic);
        }
    }
    out.extend_from_slice(&(topics.len() as u16).to_le_bytes());
    for topic in &topics {
        put_text(out, topic.as_bytes());
    }
    out.extend_from_slice(&(events.len() as u32).to_le_bytes());
    let mut last: Option<(&Arc<str>, u16)> = None;
    for event in events {
        let topic = match last {
            Some((topic, place)) if Arc::ptr_eq(topic, &event.topic) => place,
            _ => place(&topics, &event.topic).unwrap_or_default() as u16,
        };
        last = Some((&event.topic, topic));
        let mut head = [0u8; 22];
        head[..2].copy_from_slice(&topic.to_le_bytes());
        head[2..6].copy_from_slice(&event.partition.to_le_bytes());
        head[6..14].copy_from_slice(&event.offset.to_le_bytes());
        head[14..].copy_from_slice(&event.timestamp_ms.to_le_bytes());
        out.extend_from_slice(&head);
        put_bytes(out, event.key.as_deref());
        put_bytes(out, event.value.as_deref());
        out.extend_from_slice(&(event.headers.len() as u16).to_le_bytes());
        for (name, value) in &event.headers {
            put_text(out, name);
            put_bytes(out, value.as_deref());
        }
    }
}

fn place(topics: &[&Arc<str>], topic: &Arc<str>) -> Option<usize> {
    topics.iter().position(|known| *known == topic)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..usize::from(u16::MAX)).unwrap_or(text);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.extend_from_slice(&(-1i32).to_le_bytes()),
        Some(bytes) => {
            out.extend_from_slice(&(bytes.len() as i32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

pub(super) fn unpack(buffer: Bytes, limits: StepLimits) -> Result<StepOutput, StepFailure> {
    if buffer.len() > limits.output_bytes {
        return Err(limits.too_much_output());
    }
    let mut reader = Unpacker {
        rest: buffer,
        topics: Vec::new(),
    };
    let mut records = Vec::new();
    while reader.rest.has_remaining() {
        match reader.output() {
            Some(record) => records.push(record),
            None => {
                return Err(StepFailure::Output(
                    "the handler's packed outputs are malformed".to_owned(),
                ));
            }
        }
    }
    Ok(StepOutput { records })
}

struct Unpacker {
    rest: Bytes,
    topics: Vec<Arc<str>>,
}

impl Unpacker {
    fn output(&mut self) -> Option<OutputRecord> {
        let place = usize::from(self.rest.try_get_u16_le().ok()?);
        if place == self.topics.len() {
            let name = self.text()?;
            self.topics.push(std::str::from_utf8(&name).ok()?.into());
        }
        let topic = self.topics.get(place)?.clone();
        let flags = self.rest.try_get_u8().ok()?;
        let timestamp_ms = match flags & HAS_TIMESTAMP {
            0 => None,
            _ => Some(self.rest.try_get_i64_le().ok()?),
        };
        let partition = match flags & HAS_PARTITION {
            0 => None,
            _ => Some(self.rest.try_get_u32_le().ok()?),
        };
        let (key, value) = (self.bytes()?, self.bytes()?);
        let mut headers = Vec::new();
        for _ in 0..self.rest.try_get_u16_le().ok()? {
            let name = self.text()?;
            std::str::from_utf8(&name).ok()?;
            headers.push((name, self.bytes()?));
        }
        Some(OutputRecord {
            topic,
            key,
            value,
            headers,
            timestamp_ms,
            partition,
        })
    }

    fn text(&mut self) -> Option<Bytes> {
        let length = self.rest.try_get_u16_le().ok()?;
        self.take(length.into())
    }

    fn bytes(&mut self) -> Option<Option<Bytes>> {
        match self.rest.try_get_i32_le().ok()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.rest.len()).then(|| self.rest.split_to(length))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: StepLimits = StepLimits {
        fuel: 0,
        output_bytes: 1 << 20,
    };

    #[test]
    fn outputs_are_read_as_the_contract_says() {
        let mut buffer = vec![0, 0, 1, 0, b't', 3];
        buffer.extend_from_slice(&7i64.to_le_bytes());
        buffer.extend_from_slice(&2u32.to_le_bytes());
        put_bytes(&mut buffer, Some(b"k"));
        put_bytes(&mut buffer, None);
        buffer.extend_from_slice(&[1, 0]);
        put_text(&mut buffer, b"h");
        put_bytes(&mut buffer, Some(b"v"));
        buffer.extend_from_slice(&[0, 0, 0]);
        put_bytes(&mut buffer, None);
        put_bytes(&mut buffer, Some(b""));
        buffer.extend_from_slice(&[0, 0]);
        let records = unpack(buffer.into(), LIMITS).unwrap().records;
        let first = OutputRecord {
            topic: "t".into(),
            key: Some("k".into()),
            value: None,
            headers: vec![("h".into(), Some("v".into()))],
            timestamp_ms: Some(7),
            partition: Some(2),
        };
        let second = OutputRecord {
            topic: "t".into(),
            value: Some("".into()),
            ..OutputRecord::default()
        };
        assert_eq!(records, [first, second]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_outputs_or_a_failure(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(bytes.into(), LIMITS);
        }
    }
}
