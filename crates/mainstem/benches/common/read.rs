//! Reading in process, from the tail and from segments, and the files themselves.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstem::broker::{FetchRequest, Isolation, ProduceBatch};
use mainstem::{Caller, Mainstem, now_ms};
use mainstem_record::Batch;

use super::{RECORD_BYTES, batch};

/// What stands in the tail when it is read.
pub const TAIL_BYTES: usize = 128 << 20;
/// What is read from segments.
pub const COLD_BYTES: usize = 1 << 30;
const READ_BYTES: usize = 1 << 20;
const MEASURED: Duration = Duration::from_secs(3);

/// Fills partition 0 with so much, in 64 KiB batches.
pub async fn fill(mainstem: &Mainstem, topic: &Arc<str>, bytes: usize) {
    let batch = batch(64, RECORD_BYTES);
    for _ in 0..bytes / RECORD_BYTES / 64 / 16 {
        let one = ProduceBatch {
            topic: topic.clone(),
            partition: 0,
            batch: batch.clone(),
        };
        let results = mainstem
            .broker()
            .produce(&Caller::anonymous(), vec![one; 16], now_ms())
            .await
            .unwrap();
        assert!(results.iter().all(Result::is_ok));
    }
}

/// Reads partition 0 from its start to its end, each batch checked as a client does; the bytes.
pub fn whole(mainstem: &Mainstem, topic: &Arc<str>) -> u64 {
    let caller = Caller::anonymous();
    let mut request = FetchRequest {
        topic: topic.clone(),
        partition: 0,
        offset: 0,
        max_bytes: READ_BYTES,
        isolation: Isolation::ReadUncommitted,
    };
    let mut bytes = 0;
    loop {
        let fetched = mainstem.broker().fetch(&caller, &request).unwrap();
        if fetched.batches.is_empty() {
            return bytes;
        }
        for mut piece in fetched.batches {
            bytes += piece.len() as u64;
            while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                request.offset = batch.next_offset();
            }
        }
    }
}

/// So many readers read all of it again and again; bytes a second of all together.
pub fn many(mainstem: &Mainstem, topic: &Arc<str>, readers: usize) -> f64 {
    let begun = Instant::now();
    let read = || {
        let mut bytes = 0;
        while begun.elapsed() < MEASURED {
            bytes += whole(mainstem, topic);
        }
        bytes
    };
    let bytes: u64 = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..readers).map(|_| scope.spawn(read)).collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// The segment files of a data directory, in order.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data.join("topics")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|kind| kind == "log") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Has the kernel forget what it holds of these files.
pub fn evict(files: &[PathBuf]) {
    for path in files {
        let file = File::open(path).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// Reads the files one after another, 1 MiB at a time; bytes a second.
pub fn files_in_order(files: &[PathBuf]) -> f64 {
    use std::io::Read;
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    let begun = Instant::now();
    for path in files {
        let mut file = File::open(path).unwrap();
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                count => bytes += count,
            }
            black_box(&buffer);
        }
    }
    bytes as f64 / begun.elapsed().as_secs_f64()
}
