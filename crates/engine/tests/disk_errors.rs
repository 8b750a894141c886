//! A write, sync or name that fails on the disk, and a store that fails: whoever waits is told that the outcome is
//! unknown, nobody writes any more, everybody reads on; and once the disk is well again, opening it loses nothing that
//! was acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io;
use std::path::PathBuf;
use std::task::Poll;

use bytes::Bytes;
use mainstem_engine::testing::{Crash, TestNode, poll_once, small_options};
use mainstem_engine::{Append, Committed, EngineError, EngineOptions, Submission, Ticket};
use mainstem_journal::disk::Op;
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::{Batch, BatchBuilder, Compression};
use mainstem_store::{Family, StoreError, StoreOp, StoreSnapshot};

const VALUE_BYTES: usize = 6 << 10;
/// More than a journal file, so that others are made ready; with the flushes and checkpoints that this comes to.
const MANY: u64 = 120;

const PARTITION: PartitionId = PartitionId {
    topic: TopicId(7),
    index: 0,
};

fn options() -> EngineOptions {
    EngineOptions {
        memory_bytes: 8 << 20,
        checkpoint_bytes: 128 << 10,
        ..small_options()
    }
}

fn counter_key() -> Bytes {
    Bytes::from_static(b"\x00\x04counter")
}

/// A record, and its number in the store, in one frame.
fn numbered(number: u64) -> Submission {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    let value = format!("{number:0VALUE_BYTES$}");
    let value = Some(value.as_bytes());
    builder.append(1, None, value, &[]).unwrap();
    let number = number.to_string().into_bytes();
    Submission {
        appends: vec![Append {
            partition: PARTITION,
            batch: builder.build().unwrap(),
        }],
        store_ops: vec![StoreOp::put(Family::State, counter_key(), number)],
        all_or_nothing: true,
        ..Submission::default()
    }
}

struct Node {
    node: TestNode,
    /// Records that are acknowledged: their numbers are 0 and on.
    acknowledged: u64,
    sent: u64,
    waiting: Vec<std::pin::Pin<Box<Ticket<Committed>>>>,
}

impl Node {
    fn open(seed: u64) -> Node {
        let mut node = TestNode::open_with(seed, options()).unwrap();
        let create = Submission {
            log_ops: vec![(
                0,
                LogOp::CreatePartition {
                    partition: PARTITION,
                },
            )],
            ..Submission::default()
        };
        let created = node.engine.submit_in_turn(create);
        node.driver.block_on(created).unwrap();
        Node {
            node,
            acknowledged: 0,
            sent: 0,
            waiting: Vec::new(),
        }
    }

    fn send(&mut self) {
        let ticket = self.node.engine.submit_in_turn(numbered(self.sent));
        self.waiting.push(Box::pin(ticket));
        self.sent += 1;
    }

    /// Takes the answers that are there. Each is an acknowledgement, or says that the outcome is unknown.
    fn collect(&mut self) {
        let mut open = Vec::new();
        for mut ticket in std::mem::take(&mut self.waiting) {
            match poll_once(ticket.as_mut()) {
                Poll::Pending => open.push(ticket),
                Poll::Ready(Ok(committed)) => {
                    let appended = committed.appends[0].clone().unwrap();
                    assert_eq!(appended.base_offset as u64, self.acknowledged);
                    self.acknowledged += 1;
                }
                Poll::Ready(Err(error)) => assert_unknown(&error),
            }
        }
        self.waiting = open;
    }

    /// Moves only some of the workers: whatever the disk does meanwhile, it does for them.
    fn only(&mut self, workers: &[&str]) {
        self.node.driver.settle_only(workers);
        self.collect();
    }

    fn is_poisoned(&self) -> bool {
        self.node.engine.status().poisoned.is_some()
    }

    /// What holds from the failure on, until the node ends.
    fn check_poisoned(&mut self, what: &str) {
        assert!(self.is_poisoned(), "{what} went unnoticed");
        self.node.driver.settle();
        self.collect();
        assert_eq!(self.waiting.len(), 0, "{what}: somebody still waits");
        let engine = self.node.engine.clone();
        assert_unknown(&engine.reserve(10).wait().err().unwrap());
        assert_unknown(&engine.submit_in_turn(numbered(0)).wait().unwrap_err());
        assert_unknown(&engine.snapshot().wait().err().unwrap());
        self.check_content(what);
    }

    /// Everything acknowledged is there, what was not is there whole or not at all, and nothing else is.
    fn check_content(&mut self, what: &str) {
        let numbers = self.read();
        assert!(
            (self.acknowledged..=self.sent).contains(&numbers),
            "{what}: of {} acknowledged and {} sent, {numbers} are there",
            self.acknowledged,
            self.sent
        );
    }

    /// How many records there are. They are numbered without gaps.
    fn read(&self) -> u64 {
        let log = self.node.engine.log();
        let end = log.bounds(PARTITION).unwrap().high_watermark as u64;
        let mut next = 0;
        while next < end {
            let read = log.read(PARTITION, next as i64, 256 << 10, None).unwrap();
            for mut piece in read.batches {
                while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                    for record in batch.records().unwrap() {
                        let value = format!("{next:0VALUE_BYTES$}");
                        assert_eq!(record.unwrap().value.unwrap(), value.as_bytes());
                        next += 1;
                    }
                }
            }
        }
        next
    }

    /// Whether opening the directory again is said to help, without anybody looking after the disk.
    fn check_says_when(&self, full: bool, what: &str) {
        let engine = &self.node.engine;
        let poison = engine.status().poisoned.unwrap();
        assert_eq!(poison.is_full(), full, "{what}: {poison}");
        assert_eq!(engine.has_space_again(), full, "{what}: {poison}");
    }

    /// The node ends in order although it is poisoned, and comes back on a disk that is well: in the same process, or
    /// after a crash.
    fn come_back(mut self, crash: Option<Crash>, what: &str) {
        self.node.engine.close();
        self.node.driver.settle();
        assert!(
            self.node.driver.stopped(),
            "{what}: a poisoned engine does not end"
        );
        self.node = match crash {
            Some(crash) => self.node.crash(crash).unwrap(),
            None => self.node.restart().unwrap(),
        };
        self.check_content(what);
        let numbers = self.read();
        self.node.driver.settle();
        let store = self.node.engine.store();
        let counter = StoreSnapshot::get(&**store, Family::State, &counter_key()).unwrap();
        let last = (numbers > 0).then(|| Bytes::from((numbers - 1).to_string()));
        assert_eq!(counter, last, "{what}: a record and its state disagree");
        // And it writes again.
        (self.acknowledged, self.sent) = (numbers, numbers);
        self.send();
        self.node.driver.settle();
        self.collect();
        assert_eq!(self.read(), numbers + 1);
    }
}

#[track_caller]
fn assert_unknown(error: &EngineError) {
    assert!(matches!(error, EngineError::Poisoned { .. }), "{error}");
    assert!(error.to_string().contains("unknown"), "{error}");
}

const WAYS_BACK: [Option<Crash>; 3] = [Some(Crash::Process), Some(Crash::Power), None];

const KINDS: [io::ErrorKind; 2] = [io::ErrorKind::Other, io::ErrorKind::StorageFull];

/// What fails, for both kinds of errors, the first or a later one, before either kind of crash.
fn each(ops: &[Op], run: impl Fn(Node, Op, io::ErrorKind, u64) -> Node) {
    for (seed, op) in (0..).zip(ops) {
        for kind in KINDS {
            for after in [0, 1, 5] {
                for crash in WAYS_BACK {
                    let what = format!("{op:?} number {after} that fails with {kind:?}");
                    let mut node = run(Node::open(seed), *op, kind, after);
                    node.check_poisoned(&what);
                    node.check_says_when(kind == io::ErrorKind::StorageFull, &what);
                    node.come_back(crash, &what);
                }
            }
        }
    }
}

#[test]
fn a_journal_that_cannot_be_written_or_synced_stops_writes_and_loses_nothing() {
    // Its files, and the names of those that it makes ready.
    each(
        &[Op::Write, Op::Sync, Op::Create, Op::Rename, Op::SyncDir],
        |mut node, op, kind, after| {
            for _ in 0..5 {
                node.send();
            }
            node.only(&["admission", "journal", "store"]);
            assert_eq!(node.acknowledged, 5);
            node.node.disk.inject(op, after, 1, kind);
            while !node.is_poisoned() {
                node.send();
                node.send();
                // Without the background: what fails is the journal's.
                node.only(&["admission", "journal", "store"]);
                assert!(node.sent < 10 * MANY, "{op:?} never happens");
            }
            node
        },
    );
}

#[test]
fn a_segment_that_cannot_be_written_or_synced_stops_writes_and_loses_nothing() {
    each(
        &[Op::CreateDir, Op::Create, Op::Write, Op::Sync, Op::SyncDir],
        |mut node, op, kind, after| {
            // Of segments there are many, of directories only a few.
            let few = matches!(op, Op::CreateDir | Op::SyncDir);
            let after = if few { 0 } else { after };
            for _ in 0..MANY {
                node.send();
                node.only(&["admission", "journal", "store"]);
            }
            assert_eq!(node.acknowledged, MANY);
            (0..3).for_each(|_| node.send());
            node.node.disk.inject(op, after, 1, kind);
            // The tail goes to segments in portions.
            for _ in 0..MANY {
                node.only(&["background", "sync", "store"]);
            }
            node
        },
    );
}

#[test]
fn opening_again_helps_as_soon_as_there_is_space_and_not_before() {
    let mut node = Node::open(1);
    let disk = node.node.disk.clone();
    disk.set_capacity(disk.used_bytes());
    while !node.is_poisoned() {
        node.send();
        // Without the background, which looks for space: the journal is the one to find none.
        node.only(&["admission", "journal", "store"]);
        assert!(node.sent < 10 * MANY, "the journal needs no space");
    }
    node.check_poisoned("a full disk");
    let engine = node.node.engine.clone();
    for left in [0, 100 << 10] {
        disk.set_capacity(disk.used_bytes() + left);
        assert!(!engine.has_space_again(), "{left} bytes are enough");
    }
    disk.set_capacity(u64::MAX);
    node.check_says_when(true, "a full disk");
    node.come_back(None, "a full disk");
}

#[test]
fn a_store_that_fails_on_a_full_disk_is_opened_again_when_there_is_space() {
    for crash in WAYS_BACK {
        let mut node = Node::open(1);
        let what = "a store on a full disk";
        (0..3).for_each(|_| node.send());
        node.only(&["admission", "journal"]);
        let [_, unnamed] = store_errors();
        node.node.store.fail(unnamed);
        let disk = node.node.disk.clone();
        disk.set_capacity(disk.used_bytes());
        node.only(&["store"]);
        node.check_poisoned(what);
        assert!(!node.node.engine.has_space_again());
        disk.set_capacity(u64::MAX);
        node.check_says_when(true, what);
        node.come_back(crash, what);
    }
}

fn store_errors() -> [StoreError; 2] {
    let (dir, what) = (PathBuf::from("store"), "flush");
    let no_space = StoreError::NoSpace {
        what,
        dir: dir.clone(),
    };
    let message = "an error".to_owned();
    [no_space, StoreError::Backend { what, dir, message }]
}

/// When the store fails.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As changes are applied to it.
    Apply,
    /// As a checkpoint's records are written.
    Record,
    /// As a checkpoint flushes it.
    Flush,
    /// By itself, while nothing is written.
    Background,
}

#[test]
fn a_store_that_fails_stops_writes_and_loses_nothing() {
    for moment in [
        Moment::Apply,
        Moment::Record,
        Moment::Flush,
        Moment::Background,
    ] {
        for (seed, error) in (0..).zip(store_errors()) {
            for crash in WAYS_BACK {
                let mut node = Node::open(seed);
                let fails = |node: &Node| node.node.store.fail(error.clone());
                for _ in 0..MANY {
                    node.send();
                    node.only(&["admission", "journal", "store"]);
                }
                assert_eq!(node.acknowledged, MANY);
                match moment {
                    Moment::Apply => {
                        (0..3).for_each(|_| node.send());
                        fails(&node);
                        node.only(&["admission", "journal", "store"]);
                        assert_eq!(node.acknowledged, MANY);
                    }
                    Moment::Record => {
                        fails(&node);
                        node.only(&["background", "sync", "store"]);
                    }
                    Moment::Flush => {
                        node.only(&["background", "sync"]);
                        node.only(&["store"]);
                        fails(&node);
                        node.only(&["background", "sync"]);
                    }
                    Moment::Background => {
                        node.node.driver.settle();
                        assert!(!node.is_poisoned());
                        fails(&node);
                        // Nobody touches the store; that a while passes is enough.
                        node.node.driver.tick();
                    }
                }
                let what = format!("a store that fails at {moment:?}");
                node.check_poisoned(&what);
                node.check_says_when(matches!(error, StoreError::NoSpace { .. }), &what);
                node.come_back(crash, &what);
            }
        }
    }
}
