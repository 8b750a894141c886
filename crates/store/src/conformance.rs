//! What every [`Store`] must pass. A test hands in a [`Subject`]; each check panics where the contract is broken.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Applied, Family, Store, StoreError, StoreOp, StoreSnapshot};

/// A store under test, with the disk it lies on.
pub trait Subject {
    /// The store, open.
    fn store(&self) -> Arc<dyn Store>;
    /// The process dies; the store is opened again from what the disk holds. Handles from before are not used again.
    fn crash(&mut self);
}

/// Runs every check, each on a subject of its own.
pub fn run(fresh: &mut dyn FnMut() -> Box<dyn Subject>) {
    starts_empty(&*fresh());
    later_operations_win(&*fresh());
    families_are_apart(&*fresh());
    many_are_answered_in_order(&*fresh());
    scans_keep_their_bounds(&*fresh());
    snapshots_stand_still(&*fresh());
    snapshots_outlive_their_store(fresh());
    positions_only_move_on(&*fresh());
    flushed_is_kept(&mut *fresh());
    a_crash_leaves_whole_writes_of_all_families(&mut *fresh());
}

const JOURNAL: u128 = 0xfeed_0000_0000_0000_0000_0000_0000_0001;

fn at(lsn: u64) -> Applied {
    Applied {
        journal_id: JOURNAL,
        lsn,
    }
}

fn put(family: Family, key: &str, value: &str) -> StoreOp {
    StoreOp::put(family, key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn keys(view: &dyn StoreSnapshot, family: Family, from: &str, to: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    view.scan(
        family,
        from.as_bytes(),
        to.map(str::as_bytes),
        &mut |key, _| {
            found.push(String::from_utf8(key.to_vec()).unwrap());
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    found
}

fn starts_empty(subject: &dyn Subject) {
    let store = subject.store();
    assert_eq!(store.applied().unwrap(), None);
    assert_eq!(store.get(Family::State, b"a").unwrap(), None);
    assert!(keys(&*store, Family::Catalog, "", None).is_empty());
    store.flush().unwrap();
    assert_eq!(store.applied().unwrap(), None);
    store.check().unwrap();
}

fn later_operations_win(subject: &dyn Subject) {
    let store = subject.store();
    let family = Family::State;
    store
        .write(
            &[
                put(family, "a", "1"),
                put(family, "a", "2"),
                put(family, "b", ""),
            ],
            at(1),
        )
        .unwrap();
    assert_eq!(store.get(family, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(
        store.get(family, b"b").unwrap().as_deref(),
        Some(&b""[..]),
        "empty is not missing"
    );
    store
        .write(
            &[
                StoreOp::delete(family, "a"),
                put(family, "a", "3"),
                StoreOp::delete(family, "b"),
            ],
            at(2),
        )
        .unwrap();
    assert_eq!(store.get(family, b"a").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(store.get(family, b"b").unwrap(), None);
    store
        .write(
            &[
                put(family, "c", "1"),
                StoreOp::delete(family, "c"),
                StoreOp::delete(family, "never"),
            ],
            at(3),
        )
        .unwrap();
    assert_eq!(store.get(family, b"c").unwrap(), None);
    assert_eq!(store.applied().unwrap(), Some(at(3)));
}

fn families_are_apart(subject: &dyn Subject) {
    let store = subject.store();
    let ops: Vec<StoreOp> = Family::ALL
        .into_iter()
        .map(|family| put(family, "k", family.name()))
        .collect();
    store.write(&ops, at(1)).unwrap();
    for family in Family::ALL {
        assert_eq!(
            store.get(family, b"k").unwrap().as_deref(),
            Some(family.name().as_bytes())
        );
        assert_eq!(keys(&*store, family, "", None), ["k"]);
    }
    store
        .write(&[StoreOp::delete(Family::Timers, "k")], at(2))
        .unwrap();
    assert!(keys(&*store, Family::Timers, "", None).is_empty());
    assert_eq!(keys(&*store, Family::Queues, "", None), ["k"]);
}

fn many_are_answered_in_order(subject: &dyn Subject) {
    let store = subject.store();
    let ops: Vec<StoreOp> = (0..100)
        .map(|n| put(Family::State, &format!("{n:03}"), &n.to_string()))
        .collect();
    store.write(&ops, at(1)).unwrap();
    let wanted: [&[u8]; 5] = [b"099", b"x", b"000", b"099", b"050"];
    let expected: Vec<Option<Bytes>> = [Some("99"), None, Some("0"), Some("99"), Some("50")]
        .into_iter()
        .map(|value| value.map(|value| Bytes::copy_from_slice(value.as_bytes())))
        .collect();
    assert_eq!(store.get_many(Family::State, &wanted).unwrap(), expected);
    assert_eq!(
        store
            .snapshot()
            .unwrap()
            .get_many(Family::State, &wanted)
            .unwrap(),
        expected
    );
    assert!(store.get_many(Family::State, &[]).unwrap().is_empty());
}

fn scans_keep_their_bounds(subject: &dyn Subject) {
    let store = subject.store();
    let family = Family::Timers;
    let ops: Vec<StoreOp> = ["a", "b", "ba", "bb", "c"]
        .iter()
        .map(|key| put(family, key, key))
        .collect();
    store.write(&ops, at(1)).unwrap();
    let views: [Arc<dyn StoreSnapshot>; 2] = [store.snapshot().unwrap(), store];
    for view in &views {
        assert_eq!(keys(&**view, family, "", None), ["a", "b", "ba", "bb", "c"]);
        assert_eq!(
            keys(&**view, family, "b", Some("c")),
            ["b", "ba", "bb"],
            "from is in, to is out"
        );
        assert_eq!(keys(&**view, family, "ba", Some("ba")), [""; 0]);
        assert_eq!(
            keys(&**view, family, "c", Some("a")),
            [""; 0],
            "bounds that cross hold nothing"
        );
        assert_eq!(keys(&**view, family, "bbb", None), ["c"]);
        let mut seen = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            assert_eq!(key, value);
            seen.push(key.to_vec());
            if seen.len() == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        view.scan_prefix(family, b"b", visit).unwrap();
        assert_eq!(
            seen,
            [b"b".to_vec(), b"ba".to_vec()],
            "a visit can end the scan"
        );
    }
}

fn snapshots_stand_still(subject: &dyn Subject) {
    let store = subject.store();
    let before = store.snapshot().unwrap();
    store
        .write(
            &[put(Family::State, "a", "1"), put(Family::Offsets, "a", "1")],
            at(1),
        )
        .unwrap();
    let first = store.snapshot().unwrap();
    store
        .write(
            &[
                put(Family::State, "a", "2"),
                StoreOp::delete(Family::Offsets, "a"),
            ],
            at(2),
        )
        .unwrap();
    store.write(&[put(Family::State, "b", "2")], at(3)).unwrap();
    store.flush().unwrap();
    assert_eq!(before.applied().unwrap(), None);
    assert_eq!(before.get(Family::State, b"a").unwrap(), None);
    assert_eq!(first.applied().unwrap(), Some(at(1)));
    assert_eq!(
        first.get(Family::State, b"a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(keys(&*first, Family::Offsets, "", None), ["a"]);
    assert_eq!(keys(&*first, Family::State, "", None), ["a"]);
    drop(before);
    assert_eq!(
        first.get(Family::State, b"a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    let last = store.snapshot().unwrap();
    assert_eq!(last.applied().unwrap(), Some(at(3)));
    assert_eq!(keys(&*last, Family::State, "", None), ["a", "b"]);
}

fn snapshots_outlive_their_store(subject: Box<dyn Subject>) {
    let store = subject.store();
    store.write(&[put(Family::State, "a", "1")], at(1)).unwrap();
    let snapshot = store.snapshot().unwrap();
    drop(store);
    drop(subject);
    assert_eq!(
        snapshot.get(Family::State, b"a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(snapshot.applied().unwrap(), Some(at(1)));
}

fn positions_only_move_on(subject: &dyn Subject) {
    let store = subject.store();
    store.write(&[put(Family::State, "a", "1")], at(5)).unwrap();
    let backwards = store
        .write(&[put(Family::State, "a", "2")], at(4))
        .unwrap_err();
    assert!(matches!(backwards, StoreError::OutOfOrder { lsn: 4, .. }));
    let elsewhere = store
        .write(
            &[put(Family::State, "a", "2")],
            Applied {
                journal_id: 1,
                lsn: 6,
            },
        )
        .unwrap_err();
    assert!(matches!(
        elsewhere,
        StoreError::OutOfOrder { journal_id: 1, .. }
    ));
    assert_eq!(
        store.get(Family::State, b"a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    store
        .write(&[put(Family::Catalog, "checkpoint", "5")], at(5))
        .unwrap();
    store.write(&[], at(9)).unwrap();
    assert_eq!(
        store.applied().unwrap(),
        Some(at(9)),
        "a refusal is no failure, and gaps are none"
    );
}

fn flushed_is_kept(subject: &mut dyn Subject) {
    let ops: Vec<StoreOp> = Family::ALL
        .into_iter()
        .map(|family| put(family, "k", "1"))
        .collect();
    subject.store().write(&ops, at(1)).unwrap();
    subject.store().flush().unwrap();
    for lsn in 2..5 {
        subject.crash();
        let store = subject.store();
        assert_eq!(store.applied().unwrap(), Some(at(lsn - 1)));
        for family in Family::ALL {
            assert_eq!(store.get(family, b"k").unwrap().as_deref(), Some(&b"1"[..]));
        }
        store.write(&[], at(lsn)).unwrap();
        store.flush().unwrap();
    }
}

fn a_crash_leaves_whole_writes_of_all_families(subject: &mut dyn Subject) {
    let mut next = 1;
    for round in 0..6 {
        for lsn in next..next + 3 + round {
            let ops: Vec<StoreOp> = Family::ALL
                .into_iter()
                .map(|family| put(family, "k", &lsn.to_string()))
                .collect();
            subject.store().write(&ops, at(lsn)).unwrap();
            if lsn == next + round / 2 {
                subject.store().flush().unwrap();
            }
        }
        subject.crash();
        let store = subject.store();
        let applied = store
            .applied()
            .unwrap()
            .expect("the flushed write is there")
            .lsn;
        assert!((next + round / 2..next + 3 + round).contains(&applied));
        for family in Family::ALL {
            let value = store
                .get(family, b"k")
                .unwrap()
                .expect("flushed with the others");
            assert_eq!(
                value.as_ref(),
                applied.to_string().as_bytes(),
                "{family} is at the position that is written"
            );
        }
        next = applied + 1;
    }
}
