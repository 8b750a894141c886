//! A store looked through offline: what is damaged is named by file, what can be read is read, and nothing is changed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mainstem_store::{
    Applied, Family, Holds, RocksStore, Store, StoreError, StoreFinding, StoreOp, StoreOptions,
    StoreReader, StoreSnapshot,
};

const KEYS: u32 = 3_000;

fn options() -> StoreOptions {
    StoreOptions {
        memory_bytes: 16 << 20,
        ..StoreOptions::default()
    }
}

fn key(index: u32) -> Vec<u8> {
    [&[0, 7][..], &index.to_be_bytes()].concat()
}

/// A store with two files of state and one of the catalogue.
fn filled(dir: &Path) {
    let store = RocksStore::open(dir, options()).unwrap();
    for half in 0..2 {
        let mut ops: Vec<_> = (0..KEYS)
            .filter(|index| index % 2 == half)
            .map(|index| {
                // Not to be compressed away.
                let mut random = u64::from(index) + 1;
                let byte = |_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (random >> 56) as u8
                };
                let value: Vec<u8> = (0..100).map(byte).collect();
                StoreOp::put(Family::State, key(index), value)
            })
            .collect();
        ops.push(StoreOp::put(Family::Catalog, key(half), &b"entry"[..]));
        let lsn = u64::from(half) + 5;
        let applied = Applied { journal_id: 9, lsn };
        store.write(&ops, applied).unwrap();
        store.flush().unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut tables: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    tables.sort();
    tables
}

fn findings(dir: &Path) -> (Vec<StoreFinding>, u64) {
    let (reader, error) = StoreReader::open(dir);
    let mut found = Vec::new();
    let keys = reader.map_or(0, |reader| {
        reader
            .verify(&mut |_| {}, &mut |finding| found.push(finding))
            .keys
    });
    // What keeps a store from being opened may be one of the damages found in it.
    if found.is_empty() {
        found.extend(error.map(|error| StoreFinding::of(dir, &error)));
    }
    (found, keys)
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap();
    let mut all: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_sound_store_is_read_whole_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    assert!(matches!(StoreReader::open(&dir), (None, None)), "none yet");
    filled(&dir);
    let before = contents(&dir);
    let (found, keys) = findings(&dir);
    assert_eq!(found, []);
    // Beside its families, the format and the position.
    assert_eq!(keys, u64::from(KEYS) + 2 + 2);
    let (reader, _) = StoreReader::open(&dir);
    let reader = reader.unwrap();
    assert_eq!(reader.applied().unwrap().unwrap().lsn, 6);
    let value = reader.get(Family::Catalog, &key(1)).unwrap();
    assert_eq!(value.as_deref(), Some(&b"entry"[..]));
    drop(reader);
    assert_eq!(contents(&dir), before);
}

#[test]
fn a_changed_bit_of_a_table_is_named_or_nothing_depends_on_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    filled(&dir);
    let (mut named, mut unneeded) = (0, 0);
    for table in tables(&dir) {
        let whole = fs::read(&table).unwrap();
        let step = whole.len() / 20 + 1;
        for position in (3..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[position] ^= 4;
            fs::write(&table, bytes).unwrap();
            let (found, keys) = findings(&dir);
            if found.is_empty() {
                assert_eq!(keys, u64::from(KEYS) + 4, "at {position} of {table:?}");
                unneeded += 1;
                continue;
            }
            named += 1;
            assert!(
                found.iter().all(|finding| finding.file == table),
                "at {position} of {table:?}: {found:?}"
            );
            let places = found.iter().filter_map(|finding| finding.position);
            assert!(places.max().unwrap_or(0) <= position as u64);
        }
        fs::write(&table, whole).unwrap();
    }
    assert!(named > 3 * unneeded, "{named} named, {unneeded} not");
    assert_eq!(findings(&dir).0, []);
}

#[test]
fn every_damaged_table_is_named_with_what_it_holds() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    filled(&dir);
    let all = tables(&dir);
    for table in &all {
        let mut bytes = fs::read(table).unwrap();
        bytes[10] ^= 1;
        fs::write(table, bytes).unwrap();
    }
    let (found, _) = findings(&dir);
    for table in &all {
        let of_it: Vec<_> = found
            .iter()
            .filter(|finding| finding.file == *table)
            .collect();
        assert!(!of_it.is_empty(), "{table:?} is not named: {found:#?}");
    }
    let state = |finding: &&StoreFinding| matches!(&finding.holds, Holds::Keys(Family::State, from, to) if from < to);
    assert!(found.iter().filter(state).count() >= 2, "{found:#?}");
}

#[test]
fn a_table_that_is_missing_or_of_another_length_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    filled(&dir);
    for table in tables(&dir) {
        let copied = tempfile::tempdir().unwrap();
        let here = copied.path().join("store");
        let name = table.file_name().unwrap();
        for harm in ["remove", "cut", "append"] {
            let _ = fs::remove_dir_all(&here);
            copy(&dir, &here);
            let file = here.join(name);
            let bytes = fs::read(&file).unwrap();
            match harm {
                "remove" => fs::remove_file(&file).unwrap(),
                "cut" => fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
                _ => fs::write(&file, [&bytes[..], b"appended"].concat()).unwrap(),
            }
            let (found, _) = findings(&here);
            let named = found.iter().any(|finding| finding.file == file);
            assert!(named, "{harm} {name:?}: {found:#?}");
            let elsewhere = found
                .iter()
                .filter(|finding| finding.file != file && finding.file != here);
            assert_eq!(elsewhere.count(), 0, "{harm} {name:?}: {found:#?}");
        }
    }
}

#[test]
fn without_the_names_of_its_files_a_store_is_refused_and_kept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    filled(&dir);
    fs::remove_file(dir.join("CURRENT")).unwrap();
    let before = contents(&dir);
    let refused = RocksStore::open(&dir, options()).err().unwrap();
    assert!(
        matches!(&refused, StoreError::Damaged { what, .. } if what.contains("CURRENT")),
        "{refused}"
    );
    let (found, _) = findings(&dir);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].file, dir.join("CURRENT"));
    assert_eq!(found[0].holds, Holds::Everything);
    assert_eq!(contents(&dir), before);
}

#[test]
fn a_table_of_nobody_costs_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    filled(&dir);
    let stray = dir.join("999999.sst");
    fs::write(&stray, "x").unwrap();
    let (found, _) = findings(&dir);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].file, &found[0].holds), (&stray, &Holds::Nothing));
    let (reader, _) = StoreReader::open(&dir);
    let mut count = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        count += 1;
        ControlFlow::Continue(())
    };
    reader
        .unwrap()
        .scan(Family::State, &[], None, visit)
        .unwrap();
    assert_eq!(count, KEYS);
}
