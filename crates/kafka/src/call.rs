//! One request as it came, and its answer as it goes out.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::{self, API_VERSIONS, Api, Handler};
use crate::error::KafkaError;
use crate::frame::Header;
use crate::piece::Piece;
use crate::shape;
use crate::wire::{Reader, WireError, Writer};

/// A request: its header, and its body still to be read.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) api: &'static Api,
    /// One that the table serves; but for ApiVersions, whose answer to another is a version of its own.
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// What the client calls itself; empty where it does not say.
    pub(crate) client_id: StrBytes,
    pub(crate) body: Bytes,
}

/// The bytes of an answer, length and header included, in pieces that go out as they are.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) pieces: Vec<Piece>,
    /// What it holds of the room for answers, until it is written.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// Reads the header of a frame, which stands before its body. Kafka's request header v1 or, where the API's version is
    /// flexible, v2.
    pub(crate) fn read(frame: &Bytes) -> Result<Call, KafkaError> {
        let malformed = |error: WireError| KafkaError::malformed("request header of a", error);
        let header = Header::read(frame).map_err(malformed)?;
        let (key, version) = (header.api_key, header.version);
        let unsupported = KafkaError::Unsupported {
            api_key: key,
            version,
        };
        let Some(api) = api::find(key) else {
            return Err(unsupported);
        };
        // Whoever asks for a version that is not there is told by an answer that everybody can read.
        if !api.serves(version) && key != API_VERSIONS {
            return Err(unsupported);
        }
        let flexible = api.serves(version) && api.is_flexible(version);
        Ok(Call {
            api,
            version,
            correlation_id: header.correlation_id,
            client_id: StrBytes::from_string(header.client_id.to_owned()),
            body: header.body(frame, flexible).map_err(malformed)?,
        })
    }

    fn malformed(&self, why: impl ToString) -> KafkaError {
        KafkaError::malformed(self.api.name, why)
    }

    /// A reader of the body, for our own codecs.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.body, self.api.is_flexible(self.version))
    }

    /// What our own codecs read.
    pub(crate) fn own<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, WireError>,
    ) -> Result<T, KafkaError> {
        let mut reader = self.reader();
        read(&mut reader, self.version).map_err(|error| self.malformed(error))
    }

    /// The body as `kafka-protocol` decodes it, once no count in it is larger than what is there.
    pub(crate) fn request<R: Decodable + Default>(&self) -> Result<R, KafkaError> {
        if !self.api.serves(self.version) {
            return Ok(R::default());
        }
        if let Handler::Control(shape, _) = self.api.handler {
            shape::check(self.reader(), shape, self.version)
                .map_err(|error| self.malformed(error))?;
        }
        let mut body = self.body.clone();
        R::decode(&mut body, self.version).map_err(|error| self.malformed(error))
    }

    /// The version that the answer is written in: the request's, but for an ApiVersions of an unknown one.
    pub(crate) fn answer_version(&self) -> i16 {
        if self.api.serves(self.version) {
            self.version
        } else {
            0
        }
    }

    /// The answer's header comes after its length: the correlation id and, from response header v1 on, tagged fields. That
    /// of ApiVersions is v0 always, so that it can be read by whoever does not know its version yet.
    fn header_has_tags(&self) -> bool {
        self.api.key != API_VERSIONS && self.api.is_flexible(self.version)
    }

    /// An answer that `kafka-protocol` encodes.
    pub(crate) fn answer<R: Encodable>(&self, response: &R) -> Result<Answer, KafkaError> {
        let fault = |why: String| KafkaError::Answer {
            api: self.api.name,
            why,
        };
        let version = self.answer_version();
        let body = response
            .compute_size(version)
            .map_err(|error| fault(error.to_string()))?;
        let header = 4 + usize::from(self.header_has_tags());
        let length =
            i32::try_from(header + body).map_err(|_| fault("it is above 2 GiB".to_string()))?;
        let mut bytes = BytesMut::with_capacity(4 + header + body);
        bytes.put_i32(length);
        bytes.put_i32(self.correlation_id);
        if self.header_has_tags() {
            bytes.put_u8(0);
        }
        response
            .encode(&mut bytes, version)
            .map_err(|error| fault(error.to_string()))?;
        Ok(Answer {
            pieces: vec![bytes.freeze().into()],
            room: None,
        })
    }

    /// An answer that one of our own codecs writes.
    pub(crate) fn own_answer(
        &self,
        write: impl FnOnce(&mut Writer, i16),
    ) -> Result<Answer, KafkaError> {
        let mut writer = Writer::new(self.api.is_flexible(self.version));
        writer.i32(self.correlation_id);
        if self.header_has_tags() {
            writer.tags();
        }
        write(&mut writer, self.version);
        let mut pieces = writer.finish();
        let bytes: usize = pieces.iter().map(Piece::len).sum();
        let length = i32::try_from(bytes).map_err(|_| KafkaError::Answer {
            api: self.api.name,
            why: "it is above 2 GiB".into(),
        })?;
        pieces.insert(0, Bytes::copy_from_slice(&length.to_be_bytes()).into());
        Ok(Answer { pieces, room: None })
    }
}
