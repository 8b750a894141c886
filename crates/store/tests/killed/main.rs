//! The store on disk, killed: it runs in a child process that ends by kill -9, at rest and in the middle of writes,
//! flushes and openings.
//!
//! A failing seed is printed; `MAINSTEM_SEED=n` runs it alone. What the child does is the same each time, how far it
//! comes is not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod child;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use child::{ChildStore, Process, flush_request, read_answer, receive, send, write_request};
use mainstem_store::conformance::{self, Subject};
use mainstem_store::{Applied, Family, Store, StoreOp, StoreSnapshot};

#[test]
#[ignore = "what the children of the other tests run"]
fn child_process() {
    child::serve();
}

/// A store whose crash is the death of its process.
struct Killed {
    root: tempfile::TempDir,
    store: ChildStore,
}

impl Killed {
    fn new() -> Killed {
        let root = tempfile::tempdir().unwrap();
        let store = ChildStore::open(&root.path().join("store"));
        Killed { root, store }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("store")
    }
}

impl Subject for Killed {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn crash(&mut self) {
        self.store.process().lock().kill();
        self.store = ChildStore::open(&self.dir());
    }
}

#[test]
fn a_store_that_is_killed_keeps_the_contract() {
    conformance::run(&mut || Box::new(Killed::new()));
}

const JOURNAL: u128 = 7;
const LIVES: u32 = 6;
/// Enough of them fill a write buffer, so that the store flushes by itself meanwhile.
const WRITES_A_LIFE: u64 = 1_000;
const KEYS: u64 = 300;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }
}

fn random(seed: u64, what: u64) -> Random {
    Random((seed << 32 | what).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

/// What the write at `lsn` does: the same in every life, as a replayed frame is.
fn write_at(seed: u64, lsn: u64) -> Vec<StoreOp> {
    let mut random = random(seed, lsn);
    (0..=random.below(12))
        .map(|_| {
            let family = Family::ALL[random.below(7) as usize];
            let key = random.below(KEYS).to_be_bytes().to_vec();
            if random.below(5) == 0 {
                return StoreOp::delete(family, key);
            }
            let mut value = lsn.to_string().into_bytes();
            value.resize(value.len() + random.below(5_000) as usize, lsn as u8);
            StoreOp::put(family, key, value)
        })
        .collect()
}

type Content = BTreeMap<(Family, Bytes), Bytes>;

/// What the writes up to `lsn` come to.
fn content_at(seed: u64, lsn: u64) -> Content {
    let mut content = Content::new();
    for op in (1..=lsn).flat_map(|lsn| write_at(seed, lsn)) {
        let key = (op.family, op.key);
        match op.value {
            Some(value) => content.insert(key, value),
            None => content.remove(&key),
        };
    }
    content
}

fn content_of(store: &dyn StoreSnapshot) -> Content {
    let mut content = Content::new();
    for family in Family::ALL {
        let visit = &mut |key: &[u8], value: &[u8]| {
            let key = (family, Bytes::copy_from_slice(key));
            content.insert(key, Bytes::copy_from_slice(value));
            ControlFlow::Continue(())
        };
        store.scan(family, &[], None, visit).unwrap();
    }
    content
}

fn applied(store: &dyn StoreSnapshot) -> u64 {
    store.applied().unwrap().map_or(0, |applied| applied.lsn)
}

/// What is known of a life that has ended.
struct Lived {
    /// A flush has covered everything up to here.
    flushed: u64,
    /// The last write that was answered.
    answered: u64,
    /// The last that may have been done.
    sent: u64,
}

/// Sends writes and flushes without waiting for answers, and kills the child at some answer.
fn one_life(seed: u64, life: u32, store: &ChildStore) -> Lived {
    let mut random = random(seed, u64::from(life) << 24);
    let begin = applied(store);
    let mut lived = Lived {
        flushed: begin,
        answered: begin,
        sent: begin + WRITES_A_LIFE,
    };
    // What each asks for, with whether that is a flush of everything up to the position.
    let mut requests = Vec::new();
    for lsn in begin + 1..=lived.sent {
        let applied = Applied {
            journal_id: JOURNAL,
            lsn,
        };
        let write = write_request(&write_at(seed, lsn), applied);
        requests.push((write, lsn, false));
        if random.below(300) == 0 {
            requests.push((flush_request(), lsn, true));
        }
    }
    let dies_at = random.below(requests.len() as u64) as usize;
    let mut process = store.process().lock();
    let Process {
        child,
        requests: pipe,
        answers,
    } = &mut *process;
    std::thread::scope(|scope| {
        let sent = &requests;
        // Ends when the pipe breaks.
        scope.spawn(move || sent.iter().all(|(request, ..)| send(pipe, request).is_ok()));
        for (at, (_, lsn, is_flush)) in requests.iter().enumerate() {
            if at == dies_at {
                child.kill().unwrap();
            }
            // What it had answered until then counts as well.
            let Some(answer) = receive(answers) else {
                break;
            };
            read_answer(&answer).unwrap();
            lived.answered = *lsn;
            if *is_flush {
                lived.flushed = *lsn;
            }
        }
    });
    child.wait().unwrap();
    lived
}

#[test]
fn a_store_that_is_killed_at_any_moment_holds_whole_writes_up_to_its_position() {
    let named = std::env::var("MAINSTEM_SEED")
        .ok()
        .map(|seed| seed.parse::<u64>().expect("MAINSTEM_SEED is a number"));
    let seeds = named.map_or(1..7, |seed| seed..seed + 1);
    // Deaths that took a write which was answered, and deaths that left one which nobody had asked to flush.
    let (mut lost, mut kept) = (0, 0);
    for seed in seeds {
        let guard = PrintSeed(seed);
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let mut store = ChildStore::open(&dir);
        let mut random = random(seed, 1 << 40);
        for life in 0..LIVES {
            let Lived {
                flushed,
                answered,
                sent,
            } = one_life(seed, life, &store);
            while random.below(3) == 0 {
                // Recovery can be killed too.
                Process::start(&dir).kill();
            }
            store = ChildStore::open(&dir);
            let at = applied(&store);
            assert!(
                at >= flushed,
                "life {life}: flushed up to {flushed}, but only {at} is there"
            );
            assert!(at <= sent, "life {life}: {at} was never written");
            assert!(
                content_of(&store) == content_at(seed, at),
                "life {life}: the content is not that of position {at}"
            );
            lost += u32::from(at < answered);
            kept += u32::from(at > flushed);
        }
        std::mem::forget(guard);
    }
    println!("{lost} deaths lost something, {kept} kept more than was asked for");
    assert!(lost > 0, "nothing was ever lost: the test shows nothing");
}

/// Says how to run a failing seed again.
struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        eprintln!(
            "replay with: MAINSTEM_SEED={} cargo test --release -p mainstem-store --test killed",
            self.0
        );
    }
}
