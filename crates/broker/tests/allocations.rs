//! A batch that a client has built is allocated for, its records are not: neither on their way in nor on their way out.
//!
//! One thread, everything in memory, one seed: the counts are the same each time. Batches of 1 and of 1,000 records have
//! about the same size, so that what differs is what the records cost.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use common::TestBroker;
use mainstem_broker::{FetchRequest, Isolation, NewTopic, ProduceBatch};
use mainstem_record::{Batch, BatchBuilder, Compression, RecordError};

/// Counts, for each thread by itself, what is asked of the system's allocator.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // A thread that ends has nothing to count any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

/// Records of the large batch; so many allocations more would be one for each.
const RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 20_000;
const BATCHES: usize = 20;
/// What a batch may cost, however many records it has, with all that a node in memory does for it (files, flushes,
/// checkpoints): generous, and far from one for each record.
const MOST_PER_BATCH: u64 = 400;
/// What 1,000 records may cost more than one: nothing but chance.
const MOST_MORE_PER_BATCH: u64 = 10;

fn batch(records: usize) -> Bytes {
    let value = vec![b'x'; BATCH_BYTES / records - 8];
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for _ in 0..records {
        builder.append(1_000, None, Some(&value), &[]).unwrap();
    }
    builder.build().unwrap().into_bytes()
}

/// Allocations for each batch of so many records: parsed and produced, fetched and read.
fn costs(records: usize) -> (u64, u64) {
    let mut test = TestBroker::open(2013);
    test.run(|broker, caller| async move {
        broker.create_topic(&caller, NewTopic::named("t"), 0).await
    })
    .unwrap();
    let bytes = batch(records);
    let produce = |test: &mut TestBroker| {
        for _ in 0..BATCHES {
            let bytes = bytes.clone();
            let call = |broker: mainstem_broker::Broker, caller| async move {
                let batch = Batch::parse(bytes).unwrap();
                let batches = vec![ProduceBatch {
                    topic: "t".into(),
                    partition: 0,
                    batch,
                }];
                broker.produce(&caller, batches, 0).await
            };
            test.run(call).unwrap().pop().unwrap().unwrap();
        }
    };
    // What grows once grows here.
    produce(&mut test);
    let ((), produced) = counted(|| produce(&mut test));
    let (seen, fetched) = counted(|| read_all(&test));
    assert_eq!(seen, 2 * BATCHES * records);
    (produced / BATCHES as u64, fetched / (2 * BATCHES) as u64)
}

/// Fetches everything and looks at each record.
fn read_all(test: &TestBroker) -> usize {
    let mut request = FetchRequest {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        max_bytes: 1 << 20,
        isolation: Isolation::ReadUncommitted,
    };
    let mut seen = 0;
    loop {
        let fetched = test.broker.fetch(&test.caller, &request).unwrap();
        if fetched.batches.is_empty() {
            return seen;
        }
        for mut piece in fetched.batches {
            while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                request.offset = batch.next_offset();
                batch
                    .for_each(|record| {
                        seen += usize::from(record.value.is_some());
                        Ok::<_, RecordError>(())
                    })
                    .unwrap();
            }
        }
    }
}

#[test]
fn no_record_is_allocated_for() {
    let (single, many) = (costs(1), costs(RECORDS));
    for (path, single, many) in [("produce", single.0, many.0), ("fetch", single.1, many.1)] {
        println!("{path}: {single} allocations for a batch of 1, {many} for one of {RECORDS}");
        assert!(
            many <= MOST_PER_BATCH,
            "{path}: {many} allocations for a batch"
        );
        assert!(
            many <= single + MOST_MORE_PER_BATCH,
            "{path}: {single} for 1 record, {many} for {RECORDS}"
        );
    }
}

#[test]
fn an_allocation_for_each_record_would_be_seen() {
    let batch = Batch::parse(batch(RECORDS)).unwrap();
    let (_, count) = counted(|| {
        let mut copies = Vec::new();
        let copied = batch.for_each(|record| {
            copies.push(record.value.map(<[u8]>::to_vec));
            Ok::<_, RecordError>(())
        });
        copied.unwrap();
        copies
    });
    assert!(count >= RECORDS as u64, "{count}");
}
