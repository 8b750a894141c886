//! Batches as a client builds them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each benchmark uses a part.

use mainstem_record::{Batch, BatchBuilder, Compression};

pub const RECORD_BYTES: usize = 1024;

/// A batch as a client builds it.
pub fn batch(records: usize, record_bytes: usize) -> Batch {
    let value = vec![b'x'; record_bytes];
    let mut builder = BatchBuilder::new(Compression::None, 8 << 20);
    for _ in 0..records {
        builder.append(0, None, Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}
