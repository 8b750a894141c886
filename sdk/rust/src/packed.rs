//! The buffers of world `packed-handler`: the layout is described in `handler.wit`.

use crate::Event;

/// Reads a buffer from its front; `None` where it ends too early.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    pub(crate) fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match i32::from_le_bytes(self.array()?) {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }
}

/// A batch of events, still packed.
pub(crate) struct Batch<'a> {
    topics: Vec<&'a str>,
    count: u32,
    events: Reader<'a>,
}

impl<'a> Batch<'a> {
    pub(crate) fn read(buffer: &'a [u8]) -> Option<Batch<'a>> {
        let mut reader = Reader::new(buffer);
        let topics = (0..reader.u16()?)
            .map(|_| reader.text())
            .collect::<Option<Vec<_>>>()?;
        Some(Batch {
            topics,
            count: reader.u32()?,
            events: reader,
        })
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = Event<'a>> {
        let mut reader = self.events.clone();
        (0..self.count).map_while(move |_| self.event(&mut reader))
    }

    fn event(&self, reader: &mut Reader<'a>) -> Option<Event<'a>> {
        let topic = self.topics.get(usize::from(reader.u16()?))?;
        let (partition, offset, timestamp_ms) = (reader.u32()?, reader.i64()?, reader.i64()?);
        let (key, value, header_count) = (reader.bytes()?, reader.bytes()?, reader.u16()?);
        let headers = reader.rest;
        for _ in 0..header_count {
            reader.text()?;
            reader.bytes()?;
        }
        Some(Event {
            topic,
            partition,
            offset,
            timestamp_ms,
            key,
            value,
            headers,
            header_count,
        })
    }
}

/// Packs outputs.
pub(crate) struct Writer {
    buffer: Vec<u8>,
    topics: Vec<String>,
}

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Writer {
        Writer {
            buffer: Vec::with_capacity(bytes),
            topics: Vec::new(),
        }
    }

    pub(crate) fn output(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp_ms: i64,
        partition: Option<u32>,
    ) {
        let known = self.topics.iter().position(|known| known == topic);
        let place = known.unwrap_or(self.topics.len());
        self.buffer.extend_from_slice(&(place as u16).to_le_bytes());
        if known.is_none() {
            self.text(topic);
            self.topics.push(topic.to_owned());
        }
        self.buffer.push(if partition.is_some() { 3 } else { 1 });
        self.buffer.extend_from_slice(&timestamp_ms.to_le_bytes());
        if let Some(partition) = partition {
            self.buffer.extend_from_slice(&partition.to_le_bytes());
        }
        self.bytes(key);
        self.bytes(value);
        self.buffer
            .extend_from_slice(&(headers.len() as u16).to_le_bytes());
        for (name, value) in headers {
            self.text(name);
            self.bytes(*value);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.buffer
    }

    fn text(&mut self, text: &str) {
        // What is too long for its length field is cut where it becomes invalid anyway: no topic or header is 64 KiB.
        let text = text
            .get(..text.floor_char_boundary(usize::from(u16::MAX)))
            .unwrap_or(text);
        self.buffer
            .extend_from_slice(&(text.len() as u16).to_le_bytes());
        self.buffer.extend_from_slice(text.as_bytes());
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.buffer.extend_from_slice(&(-1i32).to_le_bytes()),
            Some(bytes) => {
                self.buffer
                    .extend_from_slice(&(bytes.len() as i32).to_le_bytes());
                self.buffer.extend_from_slice(bytes);
            }
        }
    }
}
