//! A batch that a frame refers to, checked where it stands.

use mainstem_journal::DiskFile;
use mainstem_record::{BATCH_HEADER_BYTES, BatchHeader};

use crate::AppendReference;
use crate::files::SegmentName;
use crate::segment::CRC_FROM;

/// What is known of it without the frame.
pub(crate) struct Referenced {
    segment_base_offset: i64,
    pub(crate) position: u64,
    pub(crate) size_bytes: usize,
    /// Its first offset, and the one after its last.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Of what follows the fields that it leaves out.
    crc: u32,
    /// CRC-32C of the header as the frame has it.
    header_crc: u32,
}

impl Referenced {
    pub(crate) fn new(reference: &AppendReference, header: &BatchHeader) -> Self {
        Self {
            segment_base_offset: reference.segment_base_offset,
            position: reference.position,
            size_bytes: header.size_bytes(),
            from: header.base_offset,
            to: header.next_offset(),
            crc: header.crc,
            header_crc: crc32c::crc32c(&reference.header),
        }
    }

    /// The segment that it stands in.
    pub(crate) fn segment(&self) -> SegmentName {
        SegmentName {
            base_offset: self.segment_base_offset,
            generation: 0,
        }
    }

    /// Whether it stands there as it was written; else what is wrong.
    pub(crate) fn verify(&self, file: &dyn DiskFile) -> Result<(), String> {
        let offset = self.from;
        let length = file.len().map_err(|error| error.to_string())?;
        // Before memory is taken for it.
        if length < self.position + self.size_bytes as u64 {
            return Err(format!(
                "the file ends at {length}, within or before the batch of offset {offset} that the journal names"
            ));
        }
        let mut bytes = vec![0; self.size_bytes];
        let read = file.read_at(&mut bytes, self.position);
        read.map_err(|error| error.to_string())?;
        let header = bytes.get(..BATCH_HEADER_BYTES).map(crc32c::crc32c);
        let covered = bytes.get(CRC_FROM..).map(crc32c::crc32c);
        if header != Some(self.header_crc) {
            return Err(format!(
                "the batch of offset {offset} has another header than the journal says"
            ));
        }
        if covered != Some(self.crc) {
            return Err(format!(
                "the batch of offset {offset} does not match its CRC"
            ));
        }
        Ok(())
    }
}
