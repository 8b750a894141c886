//! Both stores against the contract, and against each other.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstem_store::conformance::{self, Subject};
use mainstem_store::{
    Applied, Family, MemoryStore, RocksStore, Store, StoreError, StoreOp, StoreOptions,
    StoreSnapshot,
};
use proptest::prelude::*;

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn crash(&mut self) {
        self.0.crash();
    }
}

#[test]
fn memory_keeps_the_contract() {
    for seed in 0..20 {
        conformance::run(&mut || Box::new(Memory(MemoryStore::new(seed))));
    }
    conformance::run(&mut || Box::new(Memory(MemoryStore::without_own_flushes())));
}

fn options() -> StoreOptions {
    StoreOptions {
        memory_bytes: 16 << 20,
        ..StoreOptions::default()
    }
}

/// A store whose crash is a copy of its files as they are at that moment: what a killed process leaves.
struct Rocks {
    root: tempfile::TempDir,
    lives: u32,
    store: RocksStore,
}

impl Rocks {
    fn new() -> Rocks {
        let root = tempfile::tempdir().unwrap();
        let store = RocksStore::open(&root.path().join("0"), options()).unwrap();
        Rocks {
            root,
            lives: 0,
            store,
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.lives.to_string())
    }
}

impl Subject for Rocks {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn crash(&mut self) {
        let from = self.dir();
        self.lives += 1;
        copy_files(&from, &self.dir());
        self.store = RocksStore::open(&self.dir(), options()).unwrap();
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn rocksdb_keeps_the_contract() {
    conformance::run(&mut || Box::new(Rocks::new()));
}

#[test]
fn a_directory_in_use_is_refused() {
    let rocks = Rocks::new();
    let error = RocksStore::open(&rocks.dir(), options()).err().unwrap();
    assert_eq!(error, StoreError::InUse { dir: rocks.dir() });
    assert!(error.to_string().contains("stop that one"), "{error}");
}

#[test]
fn a_directory_of_a_newer_release_is_refused_and_left_alone() {
    for family in [None, Some("of-the-future")] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        drop(RocksStore::open(&dir, options()).unwrap());
        let names: Vec<&str> = Family::ALL
            .iter()
            .map(|family| family.name())
            .chain(["default"])
            .collect();
        let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &dir, names).unwrap();
        db.put("format", 2u32.to_be_bytes()).unwrap();
        if let Some(name) = family {
            db.create_cf(name, &rocksdb::Options::default()).unwrap();
        }
        drop(db);
        let error = RocksStore::open(&dir, options()).err().unwrap();
        assert_eq!(
            error,
            StoreError::NewerVersion {
                dir: dir.clone(),
                found: 2,
                known: 1
            }
        );
    }
}

#[test]
fn memory_stays_within_its_limit() {
    let root = tempfile::tempdir().unwrap();
    let memory_bytes = 16 << 20;
    let store = RocksStore::open(&root.path().join("store"), options()).unwrap();
    let mut most = 0;
    for lsn in 1..=400u64 {
        let ops: Vec<StoreOp> = (0..100u64)
            .map(|n| {
                let key = (lsn * 100 + n)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .to_be_bytes()
                    .to_vec();
                StoreOp::put(Family::ALL[n as usize % 7], key, vec![lsn as u8; 2_000])
            })
            .collect();
        store.write(&ops, Applied { journal_id: 1, lsn }).unwrap();
        most = most.max(store.stats().memory_bytes);
    }
    assert!(store.stats().disk_bytes > 0, "it flushes by itself");
    // 80 MB were written. The manager acts when buffers are nearly full, and a flush needs time.
    assert!(most < 3 * memory_bytes, "{most} bytes in memory");
}

#[test]
fn an_error_in_the_background_stops_writes_and_is_told_without_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let store = RocksStore::open(&dir, options()).unwrap();
    let at = |lsn: u64| Applied { journal_id: 1, lsn };
    let put = |lsn: u64| {
        let key = lsn.to_be_bytes().to_vec();
        [StoreOp::put(Family::State, key, vec![lsn as u8; 100_000])]
    };
    store.write(&put(1), at(1)).unwrap();
    store.flush().unwrap();
    store.check().unwrap();

    // New files have no place any more; and so much is written that the store flushes by itself.
    std::fs::rename(&dir, root.path().join("elsewhere")).unwrap();
    let _ = (2..400).try_for_each(|lsn| store.write(&put(lsn), at(lsn)));
    let begun = Instant::now();
    let error = loop {
        match store.check() {
            Err(error) => break error,
            Ok(()) => assert!(begun.elapsed() < Duration::from_secs(60), "nobody is told"),
        }
        std::thread::yield_now();
    };
    assert!(error.to_string().contains("restart"), "{error}");
    assert_eq!(store.write(&[], at(500)).unwrap_err(), error);
    assert_eq!(store.flush().unwrap_err(), error);
    assert_eq!(store.check().unwrap_err(), error);
    // Reads go on, of what is on disk and of what is not.
    for lsn in [1, 2_u64] {
        let value = store.get(Family::State, &lsn.to_be_bytes()).unwrap();
        assert_eq!(value.unwrap(), vec![lsn as u8; 100_000]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, u8, Option<u8>)>),
    Flush,
    Snapshot,
    Compare { from: u8, to: Option<u8> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = (
        0..7u8,
        0..12u8,
        proptest::option::weighted(0.7, any::<u8>()),
    );
    let step = prop_oneof![
        5 => proptest::collection::vec(op, 0..8).prop_map(Step::Write),
        1 => Just(Step::Flush),
        1 => Just(Step::Snapshot),
        2 => (0..12u8, proptest::option::of(0..12u8)).prop_map(|(from, to)| Step::Compare { from, to }),
    ];
    proptest::collection::vec(step, 1..60)
}

type Model = BTreeMap<(Family, Vec<u8>), Bytes>;

/// What a view shows must be what the model holds.
fn compare(view: &dyn StoreSnapshot, model: &Model, from: u8, to: Option<u8>) {
    for family in Family::ALL {
        let mut found = Vec::new();
        let to_key = to.map(|to| vec![to]);
        view.scan(family, &[from], to_key.as_deref(), &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        let expected: Vec<(Vec<u8>, Vec<u8>)> = model
            .iter()
            .filter(|((of, key), _)| {
                *of == family && key[0] >= from && to.is_none_or(|to| key[0] < to)
            })
            .map(|((_, key), value)| (key.clone(), value.to_vec()))
            .collect();
        assert_eq!(found, expected);
        let keys: Vec<[u8; 1]> = (0..12).map(|key| [key]).collect();
        let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let expected: Vec<Option<Bytes>> = keys
            .iter()
            .map(|key| model.get(&(family, key.to_vec())).cloned())
            .collect();
        assert_eq!(view.get_many(family, &slices).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn both_do_what_a_map_does(steps in steps(), seed in any::<u64>()) {
        let root = tempfile::tempdir().unwrap();
        let stores: [Arc<dyn Store>; 2] = [
            Arc::new(MemoryStore::new(seed)),
            Arc::new(RocksStore::open(&root.path().join("store"), options()).unwrap()),
        ];
        let mut model = Model::new();
        let mut snapshots: Vec<(Model, Vec<Arc<dyn StoreSnapshot>>)> = Vec::new();
        let mut lsn = 0;
        for step in steps {
            match step {
                Step::Write(ops) => {
                    lsn += 1;
                    let ops: Vec<StoreOp> = ops
                        .into_iter()
                        .map(|(family, key, value)| StoreOp {
                            family: Family::ALL[usize::from(family)],
                            key: vec![key].into(),
                            value: value.map(|value| vec![value].into()),
                        })
                        .collect();
                    for op in &ops {
                        let key = (op.family, op.key.to_vec());
                        match &op.value {
                            Some(value) => model.insert(key, value.clone()),
                            None => model.remove(&key),
                        };
                    }
                    stores.iter().for_each(|store| store.write(&ops, Applied { journal_id: 9, lsn }).unwrap());
                }
                Step::Flush => stores.iter().for_each(|store| store.flush().unwrap()),
                Step::Snapshot => {
                    let views = stores.iter().map(|store| store.snapshot().unwrap()).collect();
                    snapshots.push((model.clone(), views));
                }
                Step::Compare { from, to } => {
                    stores.iter().for_each(|store| compare(&**store, &model, from, to));
                    for (model, views) in &snapshots {
                        views.iter().for_each(|view| compare(&**view, model, from, to));
                    }
                }
            }
        }
    }
}
