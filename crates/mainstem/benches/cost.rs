//! What a record costs in process: processor time, and allocations of a client-built batch on its way in and out.
//!
//! Allocations are counted over all threads of the process. Batches of 1 and of 1,000 records have the same size, so
//! that what differs is what a record costs: the aim is nothing.
//!
//! `cargo bench -p mainstem --bench cost` prints the table and leaves `target/bench/cost.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::read::{COLD_BYTES, TAIL_BYTES, fill, whole};
use common::write::{ONE, create, flat_out, with_fresh};
use common::{RECORD_BYTES, Row, batch, cpu_seconds, out_dir, report};
use mainstem::broker::{FetchRequest, Isolation, ProduceBatch};
use mainstem::{Caller, Mainstem, now_ms};
use mainstem_record::{Batch, RecordError};

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCHES: usize = 4_000;
/// Records of the large batch.
const MANY: usize = 1_000;
/// Bytes of either batch, about.
const BATCH_BYTES: usize = 16 << 10;
/// So many allocations for a record count as none: what goes on in the background allocates too.
const NONE: f64 = 0.01;
/// A count of nothing has no ratio.
const LEAST: f64 = 1e-6;

fn main() {
    let dir = tempfile::tempdir_in(out_dir()).unwrap();
    let produce_us = with_fresh(dir.path(), |mainstem| flat_out(mainstem, ONE)).cpu_us_per_record;
    let fetch_us = with_fresh(dir.path(), fetch_us);
    let single = allocations(dir.path(), batch(1, BATCH_BYTES));
    let many = allocations(dir.path(), batch(MANY, BATCH_BYTES / MANY - 7));
    let mut rows = vec![
        Row::new(
            "processor time of a durable 1 KiB record, produce, in process",
            "us/record",
            produce_us,
        ),
        Row::new(
            "processor time of a 1 KiB record, tail fetch, in process",
            "us/record",
            fetch_us,
        ),
    ];
    for (path, single, many) in [("produce", single.0, many.0), ("fetch", single.1, many.1)] {
        let more = ((many - single) / (MANY - 1) as f64).max(LEAST);
        rows.push(Row::new(
            format!("allocations, {path}, a batch of 1"),
            "allocations",
            single,
        ));
        rows.push(Row::new(
            format!("allocations, {path}, a batch of 1,000"),
            "allocations",
            many,
        ));
        let name = format!("allocations, {path}, each further record of a batch");
        rows.push(
            Row::new(name, "allocations/record", more)
                .limit(NONE)
                .aim(1.0),
        );
    }
    report("broker", "cost", &rows);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work)
}

fn fetch_us(mainstem: &Mainstem) -> f64 {
    let topic = block_on(async {
        let topic = create(mainstem, "tail", 1).await;
        fill(mainstem, &topic, TAIL_BYTES).await;
        topic
    });
    let runs = COLD_BYTES / TAIL_BYTES;
    let before = cpu_seconds();
    for _ in 0..runs {
        whole(mainstem, &topic);
    }
    (cpu_seconds() - before) * 1e6 / (runs * TAIL_BYTES / RECORD_BYTES) as f64
}

/// Allocations for each batch, on its way in and on its way out.
fn allocations(dir: &Path, batch: Batch) -> (f64, f64) {
    with_fresh(dir, |mainstem| {
        let topic = block_on(create(mainstem, "counted", 1));
        // Everything that is there after the first batches is made by them.
        produce(mainstem, &topic, &batch, BATCHES / 4);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        produce(mainstem, &topic, &batch, BATCHES);
        let produced = ALLOCATIONS.load(Ordering::Relaxed) - before;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let batches = fetch(mainstem, &topic);
        let fetched = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(batches, BATCHES + BATCHES / 4);
        (
            produced as f64 / BATCHES as f64,
            fetched as f64 / batches as f64,
        )
    })
}

/// As a gateway does it: parsed and checked, then appended.
fn produce(mainstem: &Mainstem, topic: &Arc<str>, batch: &Batch, batches: usize) {
    block_on(async {
        for _ in 0..batches {
            let batch = Batch::parse(batch.bytes().clone()).unwrap();
            let call = vec![ProduceBatch {
                topic: topic.clone(),
                partition: 0,
                batch,
            }];
            let results = mainstem
                .broker()
                .produce(&Caller::anonymous(), call, now_ms())
                .await
                .unwrap();
            assert!(results.iter().all(Result::is_ok));
        }
    });
}

/// Every record is looked at.
fn fetch(mainstem: &Mainstem, topic: &Arc<str>) -> usize {
    let caller = Caller::anonymous();
    let mut request = FetchRequest {
        topic: topic.clone(),
        partition: 0,
        offset: 0,
        max_bytes: 1 << 20,
        isolation: Isolation::ReadUncommitted,
    };
    let mut batches = 0;
    loop {
        let fetched = mainstem.broker().fetch(&caller, &request).unwrap();
        if fetched.batches.is_empty() {
            return batches;
        }
        for mut piece in fetched.batches {
            while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                request.offset = batch.next_offset();
                batches += 1;
                let mut seen = 0;
                batch
                    .for_each(|record| {
                        seen += record.value.map_or(0, <[u8]>::len);
                        Ok::<_, RecordError>(())
                    })
                    .unwrap();
                assert!(seen > 0);
            }
        }
    }
}
