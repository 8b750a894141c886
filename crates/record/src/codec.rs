//! The four codecs, framed as Kafka's Java client frames them.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::RecordError;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in xerial's framing; raw snappy is read too.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of its code.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The name that Kafka's settings use.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    #[inline]
    pub(crate) fn code(self) -> i16 {
        self as i16
    }

    #[inline]
    pub(crate) fn from_code(code: i16) -> Result<Compression, RecordError> {
        usize::try_from(code)
            .ok()
            .and_then(|code| Self::ALL.get(code).copied())
            .ok_or(RecordError::UnknownCompression { code: code as u8 })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| {
                format!("compression `{name}` is unknown; use none, gzip, snappy, lz4 or zstd")
            })
    }
}

/// A codec, and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// The codec.
    pub compression: Compression,
    /// Its level (KIP-390): gzip's are 1 to 9, zstd's from -131,072 to 22. `None` is the codec's own default; the others
    /// have one level, and a number beyond a codec's range is its nearest.
    pub level: Option<i32>,
}

impl From<Compression> for Codec {
    /// With its default level.
    fn from(compression: Compression) -> Codec {
        Codec {
            compression,
            level: None,
        }
    }
}

/// The largest window that zstd compresses with, as a power of two: its highest levels take hundreds of megabytes for more.
/// RFC 8878 recommends that readers support 8 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;
/// The levels up to this one have no larger window.
const MAX_SMALL_WINDOW_LEVEL: i32 = 19;

/// Xerial's stream header: magic, version 1, oldest compatible version 1.
const XERIAL_HEADER: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];
const XERIAL_MAGIC_BYTES: usize = 8;
/// What xerial puts into one block; readers rely on no particular size.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Appends `records`, compressed, to `out`.
pub(crate) fn compress(codec: Codec, records: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
    let failed = |why: &dyn fmt::Display| RecordError::Compress {
        codec: codec.compression,
        why: why.to_string(),
    };
    match codec.compression {
        Compression::None => out.extend_from_slice(records),
        Compression::Gzip => {
            let level = codec
                .level
                .map_or_else(flate2::Compression::default, |level| {
                    flate2::Compression::new(level.clamp(1, 9).unsigned_abs())
                });
            let mut writer = flate2::write::GzEncoder::new(out, level);
            writer
                .write_all(records)
                .and_then(|()| writer.finish())
                .map_err(|error| failed(&error))?;
        }
        Compression::Snappy => {
            out.extend_from_slice(&XERIAL_HEADER);
            let mut encoder = snap::raw::Encoder::new();
            for block in records.chunks(XERIAL_BLOCK_BYTES) {
                let length_at = out.len();
                let data_at = length_at + 4;
                out.resize(data_at + snap::raw::max_compress_len(block.len()), 0);
                let len = encoder
                    .compress(block, &mut out[data_at..])
                    .map_err(|error| failed(&error))?;
                out[length_at..data_at].copy_from_slice(&(len as u32).to_be_bytes());
                out.truncate(data_at + len);
            }
        }
        Compression::Lz4 => {
            // Java's reader takes independent blocks alone.
            let info = FrameInfo::new()
                .block_mode(BlockMode::Independent)
                .block_size(BlockSize::Max64KB);
            let mut writer = FrameEncoder::with_frame_info(info, out);
            writer.write_all(records).map_err(|error| failed(&error))?;
            writer.finish().map_err(|error| failed(&error))?;
        }
        Compression::Zstd => {
            let level = codec.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let compressed = compress_zstd(level, records).map_err(|error| failed(&error))?;
            out.extend_from_slice(&compressed);
        }
    }
    Ok(())
}

fn compress_zstd(level: i32, records: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    if level > MAX_SMALL_WINDOW_LEVEL {
        let window = zstd::zstd_safe::CParameter::WindowLog(MAX_ZSTD_WINDOW_LOG);
        compressor.set_parameter(window)?;
    }
    compressor.compress(records)
}

/// Decompresses to at most `limit_bytes`.
pub(crate) fn decompress(
    codec: Compression,
    data: &[u8],
    limit_bytes: usize,
) -> Result<Vec<u8>, RecordError> {
    match codec {
        Compression::None => Ok(data.to_vec()),
        Compression::Gzip => read_all(codec, flate2::read::MultiGzDecoder::new(data), limit_bytes),
        Compression::Snappy => snappy(data, limit_bytes),
        Compression::Lz4 => read_all(codec, FrameDecoder::new(data), limit_bytes),
        Compression::Zstd => {
            let failed = |error: std::io::Error| RecordError::Decompress {
                codec,
                why: error.to_string(),
            };
            let reader = zstd::stream::read::Decoder::with_buffer(data).map_err(failed)?;
            // Zstd itself refuses windows above 128 MiB, and touches no more of one than it writes.
            read_all(codec, reader, limit_bytes)
        }
    }
}

fn read_all(
    codec: Compression,
    reader: impl Read,
    limit_bytes: usize,
) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    let read = reader.take(limit_bytes as u64 + 1).read_to_end(&mut out);
    if out.len() > limit_bytes {
        return Err(RecordError::DecompressedTooLarge { limit_bytes });
    }
    read.map_err(|error| RecordError::Decompress {
        codec,
        why: error.to_string(),
    })?;
    Ok(out)
}

fn snappy(data: &[u8], limit_bytes: usize) -> Result<Vec<u8>, RecordError> {
    let failed = |why: String| RecordError::Decompress {
        codec: Compression::Snappy,
        why,
    };
    let mut out = Vec::new();
    let mut decoder = snap::raw::Decoder::new();
    let mut block = |block: &[u8], out: &mut Vec<u8>| {
        let len = snap::raw::decompress_len(block).map_err(|error| failed(error.to_string()))?;
        let at = out.len();
        if len > limit_bytes.saturating_sub(at) {
            return Err(RecordError::DecompressedTooLarge { limit_bytes });
        }
        // Snappy's densest element makes 64 bytes of 3: what claims more is not worth allocating for.
        if len > block.len().saturating_mul(22) {
            return Err(failed("a block claims more than it can hold".to_owned()));
        }
        out.resize(at + len, 0);
        decoder
            .decompress(block, &mut out[at..])
            .map_err(|error| failed(error.to_string()))?;
        Ok(())
    };
    if !data.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
        block(data, &mut out)?;
        return Ok(out);
    }
    let mut rest = data
        .get(XERIAL_HEADER.len()..)
        .ok_or_else(|| failed("the stream ends in its header".to_owned()))?;
    while !rest.is_empty() {
        let cut = || failed("the stream ends inside a block".to_owned());
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let data = after.get(..length).ok_or_else(cut)?;
        block(data, &mut out)?;
        rest = &after[length..];
    }
    Ok(out)
}
