//! What the hot paths allocate: nothing; and what hostile bytes can make the reader allocate: little
//! more than its limit. (Zstd's own memory is C's and not counted here; it bounds its windows itself.)
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use mainstem_record::{BATCH_HEADER_BYTES, Batch, BatchBuilder, Compression};
use proptest::collection::vec;
use proptest::prelude::*;

thread_local! {
    /// Calls, and bytes asked for, of this thread alone: tests run side by side.
    static ASKED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ =
            ASKED.try_with(|asked| asked.set((asked.get().0 + 1, asked.get().1 + layout.size())));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls to the allocator and bytes asked for, in all, while `work` runs.
fn allocated<T>(work: impl FnOnce() -> T) -> (usize, usize) {
    let before = ASKED.get();
    let result = work();
    let after = ASKED.get();
    drop(result);
    (after.0 - before.0, after.1 - before.1)
}

fn batch(codec: Compression, value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new(codec, 64 << 20);
    for _ in 0..1_000 {
        builder
            .append(
                1_000,
                Some(b"key"),
                Some(value),
                &[("name", Some(b"value"))],
            )
            .unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn checking_and_viewing_plain_batches_allocates_nothing() {
    let bytes = batch(Compression::None, &[7; 100]).into_bytes();
    // A first clone of bytes that came from a vector makes their reference count.
    let shared = bytes.clone();
    let (calls, _) = allocated(|| {
        let batch = Batch::parse(shared).unwrap();
        let payload = batch.payload().unwrap();
        let headers: usize = payload
            .views()
            .map(|view| view.unwrap().headers().count())
            .sum();
        assert_eq!(headers, 1_000);
    });
    assert_eq!(calls, 0);
}

#[test]
fn appending_within_the_reserve_allocates_nothing() {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder.reserve(1 << 20);
    let (calls, _) = allocated(|| {
        while builder
            .append(1_000, Some(b"key"), Some(&[7; 100]), &[])
            .is_ok()
        {}
    });
    assert_eq!(calls, 0);
    assert!(builder.len_bytes() > (1 << 20) - 200);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading doubles its buffer as it goes, so that all buffers together take twice the limit, plus
    /// what the codecs need for themselves.
    #[test]
    fn hostile_payloads_cost_little_more_than_the_limit(
        codec in prop::sample::select(Compression::ALL.to_vec()), bomb in any::<bool>(), noise in vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(),
    ) {
        const LIMIT_BYTES: usize = 1 << 20;
        let mut bytes = batch(codec, &vec![0; if bomb { 10_000 } else { 10 }]).bytes().to_vec();
        // Sizes that codecs believe stand near the front.
        let from = BATCH_HEADER_BYTES + at.index((bytes.len() - BATCH_HEADER_BYTES).min(64));
        for (byte, noise) in bytes[from..].iter_mut().zip(&noise) {
            *byte = *noise;
        }
        let batch = Batch::trusted(Bytes::from(bytes)).unwrap();
        let _first_clone = batch.bytes().clone();
        let (_, asked_bytes) = allocated(|| batch.payload_within(LIMIT_BYTES).map(|payload| payload.size_bytes()));
        prop_assert!(asked_bytes < 4 * LIMIT_BYTES + (9 << 20), "{} bytes", asked_bytes);
    }
}
