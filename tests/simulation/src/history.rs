//! The journal as it was written: every frame that ever went to a journal file, taken from the disk calls themselves and
//! read by the format alone (`docs/formats.md`).

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use mainstem_log::{AppendReference, LogOp, PartitionId};
use mainstem_record::BatchHeader;
use mainstem_store::StoreOp;

const GROUP_HEADER_BYTES: usize = 64;

/// One frame, taken apart.
pub struct Frame {
    /// Changes of the log; what it refers to stands in it.
    pub log_ops: Vec<LogOp>,
    /// Changes of the store.
    pub store_ops: Vec<StoreOp>,
}

/// All frames by LSN, the first is 1.
#[derive(Default)]
pub struct History {
    frames: Vec<Bytes>,
    /// The batches that frames refer to, as they stood in their segments when the frames were written.
    referenced: BTreeMap<(PartitionId, i64), Bytes>,
    /// Frames up to here can never change: they were shown, acknowledged or recovered.
    certain: u64,
}

/// The header of a group, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct GroupHeader {
    /// The LSN of the first frame, or of the next one where there is none.
    pub first_lsn: u64,
    /// The last LSN known durable when it was written.
    pub durable: u64,
    /// Bytes of all frames.
    pub payload_bytes: usize,
    /// How many there are.
    pub frames: u32,
}

impl GroupHeader {
    /// The header at the front of `bytes`, if there is a sound one.
    pub fn read(bytes: &[u8]) -> Option<GroupHeader> {
        let head = bytes.get(..GROUP_HEADER_BYTES)?;
        let (mut fields, checked) = (head, head.get(..60)?);
        if fields.get_u32_le() != u32::from_le_bytes(*b"MSJG") {
            return None;
        }
        fields.advance(20);
        let header = GroupHeader {
            first_lsn: fields.get_u64_le(),
            durable: fields.get_u64_le(),
            payload_bytes: fields.get_u32_le() as usize,
            frames: fields.get_u32_le(),
        };
        fields.advance(12);
        (crc32c::crc32c(checked) == fields.get_u32_le()).then_some(header)
    }
}

impl History {
    /// Something is being written to a journal file. `read` reads so many bytes that a frame refers to.
    pub fn written(&mut self, bytes: &[u8], read: &dyn Fn(&AppendReference, usize) -> Bytes) {
        let Some(header) = GroupHeader::read(bytes) else {
            return;
        };
        let end = GROUP_HEADER_BYTES + header.payload_bytes;
        let mut payload = Bytes::copy_from_slice(&bytes[GROUP_HEADER_BYTES..end]);
        for lsn in header.first_lsn..header.first_lsn + u64::from(header.frames) {
            let length = payload.get_u32_le() as usize;
            self.put(lsn, payload.split_to(length), read);
        }
        assert!(payload.is_empty(), "a group is as many frames as it says");
    }

    fn put(&mut self, lsn: u64, frame: Bytes, read: &dyn Fn(&AppendReference, usize) -> Bytes) {
        let index = (lsn - 1) as usize;
        let mut is_known = false;
        match self.frames.get(index) {
            Some(known) if *known == frame => is_known = true,
            Some(_) => {
                assert!(
                    lsn > self.certain,
                    "frame {lsn} is written with another content than it was shown with"
                );
                self.frames.truncate(index);
                self.frames.push(frame);
            }
            None => {
                assert_eq!(index, self.frames.len(), "LSNs are dense: {lsn}");
                self.frames.push(frame);
            }
        }
        for op in self.take_apart(lsn).log_ops {
            if let LogOp::AppendReference(reference) = op {
                let header = header(&reference, lsn);
                let key = (reference.partition, header.base_offset);
                if is_known && self.referenced.contains_key(&key) {
                    continue;
                }
                let batch = read(&reference, header.size_bytes());
                assert!(
                    batch.starts_with(&reference.header),
                    "frame {lsn} refers to another batch than stands there"
                );
                self.referenced.insert(key, batch);
            }
        }
    }

    /// Frames up to `lsn` were shown to somebody.
    pub fn shown(&mut self, lsn: u64) {
        assert!(
            lsn as usize <= self.frames.len(),
            "LSN {lsn} is shown, but only {} were ever written",
            self.frames.len()
        );
        self.certain = self.certain.max(lsn);
    }

    /// The last frame that was shown to somebody.
    pub fn certain(&self) -> u64 {
        self.certain
    }

    /// Recovery ended at `lsn`: what was beyond it is gone for good.
    pub fn recovered(&mut self, lsn: u64) {
        assert!(
            lsn >= self.certain,
            "frames up to {} were acknowledged or shown, but recovery ends at {lsn}",
            self.certain
        );
        self.shown(lsn);
        self.frames.truncate(lsn as usize);
    }

    /// Only after damage that nothing could tell from a torn write: frames beyond `lsn` are lost.
    pub fn forget_beyond(&mut self, lsn: u64) {
        self.certain = self.certain.min(lsn);
        self.frames.truncate(lsn as usize);
    }

    /// A frame, taken apart, with the batches that it refers to as if they stood in it.
    pub fn frame(&self, lsn: u64) -> Frame {
        let mut frame = self.take_apart(lsn);
        for op in &mut frame.log_ops {
            if let LogOp::AppendReference(reference) = op {
                let base_offset = header(reference, lsn).base_offset;
                *op = LogOp::Append {
                    partition: reference.partition,
                    batch: self.referenced[&(reference.partition, base_offset)].clone(),
                    begins_segment: reference.segment_base_offset == base_offset,
                };
            }
        }
        frame
    }

    fn take_apart(&self, lsn: u64) -> Frame {
        let mut rest = self.frames[(lsn - 1) as usize].clone();
        let mut frame = Frame {
            log_ops: Vec::new(),
            store_ops: Vec::new(),
        };
        while !rest.is_empty() {
            let _shard = rest.get_u16_le();
            let view = rest.get_u8();
            let length = rest.get_u32_le() as usize;
            let body = rest.split_to(length);
            match view {
                1 => frame.log_ops.extend(
                    LogOp::decode_all(&body).map(|op| op.expect("a log operation of a frame")),
                ),
                2 => frame.store_ops.extend(
                    StoreOp::decode_all(&body).map(|op| op.expect("a store operation of a frame")),
                ),
                other => panic!("frame {lsn} has a section for view {other}"),
            }
        }
        frame
    }
}

fn header(reference: &AppendReference, lsn: u64) -> BatchHeader {
    BatchHeader::read(&reference.header)
        .unwrap_or_else(|error| panic!("frame {lsn} has a bad header: {error}"))
}
