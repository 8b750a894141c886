//! Producing in process: as fast as it goes, or when it is due.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstem::broker::{NewTopic, ProduceBatch};
use mainstem::{Caller, Mainstem, Options, now_ms};
use mainstem_record::Batch;
use parking_lot::Mutex;

use super::{RECORD_BYTES, batch};

/// Records in one call: 2 MiB.
const CALL_RECORDS: usize = 2 * 1024;
/// Calls under way at a time: 32 MiB together, what Kafka's producer buffers (`buffer.memory`).
const CALLS_IN_FLIGHT: usize = 16;
const WARM_UP: Duration = Duration::from_secs(2);
/// From the second checkpoint on the journal's files are used again. Before that each is written through once more, as the
/// file of which the disk's limit is taken was before it was measured.
const WARM_CHECKPOINTS: usize = 2;
/// Where checkpoints do not come.
const LONGEST_WARM_UP: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(6);

/// What is produced to.
#[derive(Clone, Copy)]
pub struct Shape {
    pub partitions: usize,
    pub batch_records: usize,
}

/// 64 KiB batches.
pub const ONE: Shape = Shape {
    partitions: 1,
    batch_records: 64,
};
/// 64 KiB batches: 32 MiB under way leave more than that for each.
pub const HUNDRED: Shape = Shape {
    partitions: 100,
    batch_records: 64,
};
/// Two records for each partition in a call.
pub const THOUSAND: Shape = Shape {
    partitions: 1_000,
    batch_records: 2,
};
/// What 32 MiB under way leave for each.
pub const TEN_THOUSAND: Shape = Shape {
    partitions: 10_000,
    batch_records: 3,
};

/// What came of it.
pub struct Produced {
    /// Bytes of values a second, durable.
    pub bytes_per_second: f64,
    /// Processor time of the whole process.
    pub cpu_us_per_record: f64,
}

/// Opens a platform in a fresh directory, which goes with it.
pub fn with_fresh<T>(dir: &Path, work: impl FnOnce(&Mainstem) -> T) -> T {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let mainstem = Mainstem::open(dir.path(), Options::default()).unwrap();
    let result = work(&mainstem);
    mainstem.shutdown().unwrap();
    result
}

pub async fn create(mainstem: &Mainstem, topic: &str, partitions: usize) -> Arc<str> {
    let new = NewTopic::named(topic)
        .partitions(partitions as u32)
        .config("retention.bytes", "67108864");
    mainstem
        .broker()
        .create_topic(&Caller::anonymous(), new, now_ms())
        .await
        .unwrap();
    topic.into()
}

/// Every call from where the one before ended, so that all partitions get as much.
fn call(topic: &Arc<str>, shape: Shape, batch: &Batch, next: &mut usize) -> Vec<ProduceBatch> {
    let batches = CALL_RECORDS / shape.batch_records;
    let from = *next;
    *next += batches;
    (from..from + batches)
        .map(|index| ProduceBatch {
            topic: topic.clone(),
            partition: (index % shape.partitions) as u32,
            batch: batch.clone(),
        })
        .collect()
}

/// Until the server is as it will stay, while somebody produces as fast as it goes.
pub async fn warm_up(mainstem: &Mainstem) {
    let begun = Instant::now();
    let (mut checkpoints, mut last) = (0, mainstem.status().checkpoint_lsn);
    while begun.elapsed() < WARM_UP
        || (checkpoints < WARM_CHECKPOINTS && begun.elapsed() < LONGEST_WARM_UP)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let checkpoint = mainstem.status().checkpoint_lsn;
        checkpoints += usize::from(checkpoint != last);
        last = checkpoint;
    }
}

/// As fast as it goes.
pub fn flat_out(mainstem: &Mainstem, shape: Shape) -> Produced {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let caller = Caller::anonymous();
    runtime.block_on(async {
        let topic = create(
            mainstem,
            &format!("bench-{}", shape.partitions),
            shape.partitions,
        )
        .await;
        let batch = batch(shape.batch_records, RECORD_BYTES);
        let next = Mutex::new(0);
        let measured_from = OnceCell::new();
        let one = |_| async {
            let mut counted = 0u64;
            let is_over = |from: &Instant| from.elapsed() >= MEASURED;
            while !measured_from.get().is_some_and(is_over) {
                let call = call(&topic, shape, &batch, &mut next.lock());
                let records = (call.len() * shape.batch_records) as u64;
                let results = mainstem
                    .broker()
                    .produce(&caller, call, now_ms())
                    .await
                    .unwrap();
                assert!(results.iter().all(Result::is_ok));
                if measured_from.get().is_some() {
                    counted += records;
                }
            }
            counted
        };
        let cpu = async {
            warm_up(mainstem).await;
            measured_from.set(Instant::now()).unwrap();
            let before = super::cpu_seconds();
            tokio::time::sleep(MEASURED).await;
            super::cpu_seconds() - before
        };
        let (counted, cpu) = futures::join!(
            futures::future::join_all((0..CALLS_IN_FLIGHT).map(one)),
            cpu
        );
        let counted = counted.into_iter().sum::<u64>() as f64;
        Produced {
            bytes_per_second: counted * RECORD_BYTES as f64 / MEASURED.as_secs_f64(),
            cpu_us_per_record: cpu * 1e6 / counted,
        }
    })
}

/// One batch each time it is due, whatever became of those before. The times from due to durable, of those due after the
/// warm-up.
pub fn when_due(
    mainstem: &Mainstem,
    topic: &Arc<str>,
    batch: &Batch,
    per_second: f64,
    measured: Duration,
) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let begun = Instant::now();
    let mut calls = Vec::new();
    for index in 0.. {
        let due = Duration::from_secs_f64(f64::from(index) / per_second);
        if due >= WARM_UP + measured {
            break;
        }
        // The kernel's clock is finer than the runtime's.
        std::thread::sleep((begun + due).saturating_duration_since(Instant::now()));
        let (mainstem, times) = (mainstem.clone(), Arc::clone(&times));
        let call = vec![ProduceBatch {
            topic: topic.clone(),
            partition: 0,
            batch: batch.clone(),
        }];
        calls.push(runtime.spawn(async move {
            let results = mainstem
                .broker()
                .produce(&Caller::anonymous(), call, now_ms())
                .await
                .unwrap();
            let took = begun.elapsed() - due;
            assert!(results.iter().all(Result::is_ok));
            if due >= WARM_UP {
                times.lock().push(took);
            }
        }));
    }
    runtime.block_on(async {
        for call in calls {
            call.await.unwrap();
        }
    });
    std::mem::take(&mut *times.lock())
}
