//! Looking into batches that clients have compressed, and compressing them as their topic wants it (`compression.type`).
//!
//! It is done before a batch is handed to the engine, once: what is appended is trusted for ever. What it takes is bounded
//! for a request, so that a small one cannot ask for a large memory.

use mainstem_record::{Batch, Codec, Compression, DEFAULT_DECOMPRESSED_LIMIT_BYTES, RecordError};

use crate::{BrokerError, Topic};

/// What the compressed batches of one request may take when they are decompressed, all together.
#[derive(Debug)]
pub struct Unpacking {
    left_bytes: usize,
}

impl Default for Unpacking {
    fn default() -> Unpacking {
        Unpacking {
            left_bytes: Unpacking::MAX_BYTES,
        }
    }
}

impl Unpacking {
    /// The most that the batches of one request may have when they are decompressed.
    pub const MAX_BYTES: usize = 256 << 20;

    /// Whether there is anything to do for a batch: a look into it, or to compress it.
    pub fn is_needed(topic: &Topic, batch: &Batch) -> bool {
        batch.header().compression() != Compression::None || Unpacking::compresses(topic, batch)
    }

    /// Whether a batch is compressed anew.
    pub fn compresses(topic: &Topic, batch: &Batch) -> bool {
        let codec = batch.header().compression();
        wanted(topic, codec).compression != codec
    }

    /// The bytes that a batch may become larger by: room for it is taken before [`take`](Self::take), and given back when
    /// the batch is appended.
    pub fn growth_bytes(topic: &Topic, batch: &Batch) -> usize {
        let codec = batch.header().compression();
        if codec == Compression::None || !Unpacking::compresses(topic, batch) {
            // What is compressed hardly grows, whatever its bytes are.
            return 0;
        }
        let most = topic.limits.max_message_bytes;
        most.min(DEFAULT_DECOMPRESSED_LIMIT_BYTES)
            .saturating_sub(batch.size_bytes())
    }

    /// Checks every record of a compressed batch, and has them in the topic's codec. A batch that is in it already is kept
    /// byte for byte. Nothing is decompressed that the topic refuses anyway.
    pub fn take<E: From<RecordError> + From<BrokerError>>(
        &mut self,
        topic: &Topic,
        batch: Batch,
    ) -> Result<Batch, E> {
        if !Unpacking::is_needed(topic, &batch) {
            return Ok(batch);
        }
        check_size(topic, &batch)?;
        let codec = batch.header().compression();
        let wanted = wanted(topic, codec);
        let mut limit_bytes = DEFAULT_DECOMPRESSED_LIMIT_BYTES.min(self.left_bytes);
        if wanted.compression == Compression::None {
            limit_bytes = limit_bytes.min(topic.limits.max_message_bytes);
        }
        match batch.recompress(wanted, limit_bytes) {
            Ok((batch, plain_bytes)) => {
                if codec != Compression::None {
                    self.left_bytes = self.left_bytes.saturating_sub(plain_bytes);
                }
                check_size(topic, &batch)?;
                Ok(batch)
            }
            Err(RecordError::DecompressedTooLarge { .. }) if limit_bytes == self.left_bytes => {
                self.left_bytes = 0;
                Err(BrokerError::TooMuchDecompressed {
                    limit_bytes: Unpacking::MAX_BYTES,
                }
                .into())
            }
            Err(error) => {
                // So much may have been decompressed before it was found to be bad.
                if codec != Compression::None {
                    self.left_bytes -= limit_bytes;
                }
                Err(error.into())
            }
        }
    }
}

/// The codec that a batch is to have that came in this one.
fn wanted(topic: &Topic, codec: Compression) -> Codec {
    topic.limits.codec.unwrap_or(codec.into())
}

/// Refuses a batch that is larger than its topic allows.
pub(crate) fn check_size(topic: &Topic, batch: &Batch) -> Result<(), BrokerError> {
    let (bytes, limit_bytes) = (batch.size_bytes(), topic.limits.max_message_bytes);
    if bytes <= limit_bytes {
        return Ok(());
    }
    Err(BrokerError::RecordTooLarge {
        topic: topic.name.to_string(),
        what: "a batch",
        bytes,
        limit_bytes,
    })
}
