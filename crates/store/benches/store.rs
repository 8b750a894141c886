//! What RocksDB costs. Writing what an apply batch holds and getting it back are held against the same on the store in
//! memory, an ordered map; a flush against a plain write of the same bytes and a sync; a scan against reading as many bytes
//! of a file in order. All but the flush is this thread's processor time.
//!
//! `cargo bench -p mainstem-store` prints the table and leaves `target/bench/store.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../mainstem/benches/common/rows.rs"]
mod rows;

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use mainstem_store::{Applied, Family, MemoryStore, RocksStore, Store, StoreOp, StoreOptions};
use rows::{Row, out_dir, report, thread_cpu_seconds};

/// What an applier writes at a time: a run of small changes.
const WRITE_OPS: usize = 1_000;
const VALUE_BYTES: usize = 100;
const KEY_BYTES: usize = 18;
/// Writes between two flushes: about 9 MB, below what the write buffers hold, so that nothing is flushed unasked.
const WRITES: usize = 80;
const KEYS: usize = WRITE_OPS * WRITES;
/// Each round overwrites every key, as state and offsets are.
const ROUNDS: usize = 4;
/// One scan or reading of the file is over too soon to be measured.
const PASSES: usize = 20;
/// Keys that one `get_many` asks for.
const MANY: usize = 100;
/// Steps over the keys so that neighbours in time are far apart in order; coprime to their number.
const STRIDE: usize = 7_919;

fn main() {
    let out = out_dir();
    let dir = tempfile::tempdir_in(&out).unwrap();
    let rocks = RocksStore::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let memory = MemoryStore::without_own_flushes();
    let writes = writes();
    let (mut of_rocks, mut of_memory) = (Rates::default(), Rates::default());
    let (mut flush, mut plain) = (0.0_f64, 0.0_f64);
    for round in 0..ROUNDS {
        of_rocks.write = of_rocks.write.max(write_rate(&rocks, &writes, round));
        of_memory.write = of_memory.write.max(write_rate(&memory, &writes, round));
        flush = flush.max(flush_rate(&rocks));
        plain = plain.max(plain_write_rate(dir.path()));
        memory.flush().unwrap();
    }
    let (mut scan, mut read) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        of_rocks.get(&rocks);
        of_memory.get(&memory);
        scan = scan.max(scan_rate(&rocks));
        read = read.max(plain_read_rate(dir.path()));
    }
    let row = |name: &str, unit, value, limit| Row::new(name, unit, value).limit(limit);
    let (rocks, memory) = (of_rocks, of_memory);
    report(
        "store",
        "store",
        &[
            row(
                "write, 1,000 puts of 100 bytes at a time (limit: in memory)",
                "puts/s",
                rocks.write,
                memory.write,
            ),
            row(
                "flush of 9 MB (limit: written in order and synced)",
                "bytes/s",
                flush,
                plain,
            ),
            row("get (limit: in memory)", "keys/s", rocks.get, memory.get),
            row(
                "get_many, 100 keys at a time (limit: in memory)",
                "keys/s",
                rocks.get_many,
                memory.get_many,
            ),
            row(
                "get_many against get, of the same store",
                "keys/s",
                rocks.get_many,
                rocks.get,
            ),
            row(
                "scan of 80,000 keys (limit: a file in order)",
                "bytes/s",
                scan,
                read,
            ),
        ],
    );
}

/// The best of all rounds, each in this thread's processor time.
#[derive(Default)]
struct Rates {
    write: f64,
    get: f64,
    get_many: f64,
}

impl Rates {
    fn get(&mut self, store: &dyn Store) {
        self.get = self.get.max(get_rate(store));
        self.get_many = self.get_many.max(get_many_rate(store));
    }
}

/// The key's shard, its owner and a number, spread over all keys.
fn key(index: usize) -> Bytes {
    let number = (index * STRIDE % KEYS) as u64;
    let mut key = Vec::with_capacity(KEY_BYTES);
    key.extend_from_slice(&((number % 16) as u16).to_be_bytes());
    key.extend_from_slice(&7_u64.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    Bytes::from(key)
}

/// Made before anything is measured, as an applier gets them: slices of a frame.
fn writes() -> Vec<Vec<StoreOp>> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    (0..WRITES)
        .map(|write| {
            (write * WRITE_OPS..(write + 1) * WRITE_OPS)
                .map(|index| StoreOp::put(Family::State, key(index), value.clone()))
                .collect()
        })
        .collect()
}

fn write_rate(store: &dyn Store, writes: &[Vec<StoreOp>], round: usize) -> f64 {
    let begun = thread_cpu_seconds();
    for (index, ops) in writes.iter().enumerate() {
        let applied = Applied {
            journal_id: 1,
            lsn: (round * WRITES + index + 1) as u64,
        };
        store.write(ops, applied).unwrap();
    }
    KEYS as f64 / (thread_cpu_seconds() - begun)
}

/// Bytes of keys and values, by the clock: it is the disk and RocksDB's own threads that work.
fn flush_rate(store: &dyn Store) -> f64 {
    let begun = Instant::now();
    store.flush().unwrap();
    bytes() as f64 / begun.elapsed().as_secs_f64()
}

fn plain_write_rate(dir: &Path) -> f64 {
    let block = vec![b'x'; 1 << 20];
    let begun = Instant::now();
    let mut file = File::create(dir.join("plain")).unwrap();
    let mut left = bytes();
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block[..part]).unwrap();
        left -= part;
    }
    file.sync_data().unwrap();
    bytes() as f64 / begun.elapsed().as_secs_f64()
}

/// The file that was written last, from the kernel's memory: what is scanned is in memory too.
fn plain_read_rate(dir: &Path) -> f64 {
    let mut file = File::open(dir.join("plain")).unwrap();
    let mut block = vec![0; 1 << 20];
    let mut read = 0;
    let begun = thread_cpu_seconds();
    for _ in 0..PASSES {
        file.rewind().unwrap();
        loop {
            match file.read(&mut block).unwrap() {
                0 => break,
                count => read += count,
            }
            black_box(&block);
        }
    }
    let rate = read as f64 / (thread_cpu_seconds() - begun);
    assert_eq!(read, PASSES * bytes());
    rate
}

fn bytes() -> usize {
    KEYS * (KEY_BYTES + VALUE_BYTES)
}

fn get_rate(store: &dyn Store) -> f64 {
    let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
    let begun = thread_cpu_seconds();
    for key in &keys {
        let value = store.get(Family::State, key).unwrap().unwrap();
        assert_eq!(value.len(), VALUE_BYTES);
    }
    KEYS as f64 / (thread_cpu_seconds() - begun)
}

fn get_many_rate(store: &dyn Store) -> f64 {
    let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
    let calls: Vec<Vec<&[u8]>> = keys
        .chunks(MANY)
        .map(|keys| keys.iter().map(Bytes::as_ref).collect())
        .collect();
    let begun = thread_cpu_seconds();
    for keys in &calls {
        let values = store.get_many(Family::State, keys).unwrap();
        assert!(values.iter().all(Option::is_some));
    }
    KEYS as f64 / (thread_cpu_seconds() - begun)
}

fn scan_rate(store: &dyn Store) -> f64 {
    let mut found = 0;
    let begun = thread_cpu_seconds();
    for _ in 0..PASSES {
        let mut visit = |key: &[u8], value: &[u8]| {
            found += key.len() + value.len();
            ControlFlow::Continue(())
        };
        store.scan(Family::State, &[], None, &mut visit).unwrap();
    }
    let rate = found as f64 / (thread_cpu_seconds() - begun);
    assert_eq!(found, PASSES * bytes());
    rate
}
