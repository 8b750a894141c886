//! Frames as they are read: slices of the group that holds them.
//!
//! ```text
//! payload = frame*            their LSNs follow from the group's first one, densely
//! frame   = length u32 | section*
//! section = shard u16 | view u8 | length u32 | body
//! ```
//! All numbers are little-endian.

use crate::Lsn;
use bytes::{Buf, Bytes};

pub(crate) const FRAME_HEADER_BYTES: usize = 4;
pub(crate) const SECTION_HEADER_BYTES: usize = 7;

/// The view that a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum View {
    /// Partitions' records.
    Log = 1,
    /// The key-value store.
    Store = 2,
}

impl View {
    fn from_byte(byte: u8) -> Option<View> {
        match byte {
            1 => Some(View::Log),
            2 => Some(View::Store),
            _ => None,
        }
    }
}

/// One change, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame's number.
    pub lsn: Lsn,
    body: Bytes,
}

impl Frame {
    /// The frame's sections, in the order they were written.
    pub fn sections(&self) -> Sections {
        Sections {
            rest: self.body.clone(),
        }
    }

    /// The size of all sections with their headers.
    pub fn len_bytes(&self) -> usize {
        self.body.len()
    }
}

/// A part of a frame: what one view is to do in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The shard that it belongs to.
    pub shard: u16,
    /// The view that it is for.
    pub view: View,
    /// What the view is to do, in the view's own encoding; a slice of the group's buffer.
    pub body: Bytes,
}

/// The frames of a group, in order.
#[derive(Clone, Debug)]
pub struct Frames {
    pub(crate) next: Lsn,
    pub(crate) rest: Bytes,
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let body = take_prefixed(&mut self.rest, 0)?;
        let lsn = self.next;
        self.next = lsn.next();
        Some(Frame { lsn, body })
    }
}

/// The sections of a frame, in order.
#[derive(Clone, Debug)]
pub struct Sections {
    rest: Bytes,
}

impl Iterator for Sections {
    type Item = Section;

    fn next(&mut self) -> Option<Section> {
        let head = self.rest.get(..3)?;
        let shard = u16::from_le_bytes([head[0], head[1]]);
        let view = View::from_byte(head[2])?;
        let body = take_prefixed(&mut self.rest, 3)?;
        Some(Section { shard, view, body })
    }
}

/// Takes `skip` bytes, a length and as many bytes off the front; `None`, and nothing taken, if they are not there.
fn take_prefixed(rest: &mut Bytes, skip: usize) -> Option<Bytes> {
    let length = u32::from_le_bytes(rest.get(skip..skip + 4)?.try_into().ok()?) as usize;
    if rest.len() - skip - 4 < length {
        return None;
    }
    rest.advance(skip + 4);
    Some(rest.split_to(length))
}

/// Whether a payload is made of exactly `frames` whole frames of whole sections. Payloads from disk pass here once, so
/// that the iterators above never meet anything else.
pub(crate) fn is_well_formed(payload: &Bytes, frames: u32) -> bool {
    let mut all = Frames {
        next: Lsn::ZERO,
        rest: payload.clone(),
    };
    let mut count = 0u32;
    for frame in all.by_ref() {
        count = count.wrapping_add(1);
        let mut sections = frame.sections();
        sections.by_ref().for_each(drop);
        if !sections.rest.is_empty() {
            return false;
        }
    }
    all.rest.is_empty() && count == frames
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::GroupBuilder;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written(
            first in 1..u64::MAX / 2,
            frames in prop::collection::vec(
                prop::collection::vec((any::<u16>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..4),
                1..20,
            ),
            dropped in any::<u32>(),
        ) {
            let mut builder = GroupBuilder::new();
            for round in 0..2 {
                for (index, sections) in frames.iter().enumerate() {
                    let lsn = Lsn(first + index as u64);
                    if dropped & (1 << (index % 32)) != 0 {
                        builder.begin_frame(lsn);
                        builder.section(1, View::Store, |out| out.extend_from_slice(b"not kept"));
                        builder.rollback_frame();
                    }
                    builder.begin_frame(lsn);
                    for (shard, log, body) in sections {
                        let view = if *log { View::Log } else { View::Store };
                        builder.section(*shard, view, |out| out.extend_from_slice(body));
                    }
                    builder.end_frame();
                }
                prop_assert_eq!(builder.frames() as usize, frames.len());
                let sealed = builder.seal();
                prop_assert!(builder.is_empty() && builder.payload_bytes() == 0, "round {}", round);
                let group = sealed.into_durable();
                prop_assert!(is_well_formed(&group.payload, group.frames));
                prop_assert!(!is_well_formed(&group.payload, group.frames + 1));
                prop_assert!(!is_well_formed(&group.payload.slice(..group.payload.len() - 1), group.frames));
                let read: Vec<Vec<_>> = group
                    .frames()
                    .map(|frame| {
                        let sections = frame.sections();
                        sections.map(|s| (s.shard, s.view == View::Log, s.body.to_vec())).collect()
                    })
                    .collect();
                prop_assert_eq!(&read, &frames);
                let lsns: Vec<u64> = group.frames().map(|frame| frame.lsn.0).collect();
                prop_assert_eq!(lsns, (first..first + frames.len() as u64).collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), frames in 0..4u32) {
            let payload = Bytes::from(bytes);
            is_well_formed(&payload, frames);
            Frames { next: Lsn(1), rest: payload }.for_each(|frame| frame.sections().for_each(drop));
        }
    }
}
