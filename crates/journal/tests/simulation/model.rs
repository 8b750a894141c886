//! A journal on a faulty disk, driven by a seed, against a model of what must still be there.

use mainstem_journal::disk::{Op, OpCounts};
use mainstem_journal::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One run. Panics when the journal breaks a promise; returns everything that happened, to compare two runs.
pub fn run(seed: u64) -> String {
    let mut world = World::new(seed);
    world.reopen();
    for _ in 0..world.rng.random_range(20..160) {
        world.step();
    }
    world.crash();
    world.reopen();
    std::mem::take(&mut world.trace)
}

/// Like [`run`], then damages one durable group and expects to be told.
pub fn run_with_damage(seed: u64) {
    let mut world = World::new(seed);
    world.reopen();
    for _ in 0..world.rng.random_range(5..60) {
        world.step();
    }
    world.damage();
}

struct World {
    rng: SmallRng,
    disk: MemoryDisk,
    dir: PathBuf,
    file_bytes: u64,
    builder: GroupBuilder,
    medium: Option<FileMedium>,
    /// What the checkpoint and the views have on their own disk.
    known: Known,
    /// Everything up to here was returned as durable, or stood in the journal when recovery had succeeded.
    durable: Lsn,
    /// What headers on disk are sure to say.
    recorded: Lsn,
    /// The frames that were made; above `durable` only those that may still turn up.
    bodies: BTreeMap<Lsn, Vec<u8>>,
    /// A fault has been asked for, and no crash has ended it yet.
    faulty: bool,
    trace: String,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let file_bytes = rng.random_range(8..24) * 4096;
        World {
            disk: MemoryDisk::new(rng.random()),
            rng,
            dir: PathBuf::from("/data/journal"),
            file_bytes,
            builder: GroupBuilder::new(),
            medium: None,
            known: Known::default(),
            durable: Lsn(0),
            recorded: Lsn(0),
            bodies: BTreeMap::new(),
            faulty: false,
            trace: String::new(),
        }
    }

    fn note(&mut self, what: std::fmt::Arguments) {
        let _ = self.trace.write_fmt(what);
        self.trace.push('\n');
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..45 => self.commit(),
            45..55 => self.quiet(),
            55..65 => self.checkpoint(),
            65..72 => {
                self.halt(40);
                self.commit();
            }
            72..78 => self.fail(),
            78..82 => self.fill_disk(),
            82..86 => {
                self.medium = None;
                self.reopen();
            }
            _ => {
                self.submit_some();
                self.crash();
                self.reopen();
            }
        }
    }

    /// Groups are written and synced, all of them or not, as far as the disk lets it happen.
    fn commit(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            self.submit_some();
            let before = self.durable;
            let Some(medium) = &mut self.medium else {
                return;
            };
            match medium.drive() {
                Ok(groups) => {
                    for group in &groups {
                        assert_eq!(
                            group.first_lsn(),
                            self.durable.next(),
                            "durable groups come in order"
                        );
                        for frame in group.frames() {
                            assert_eq!(
                                self.bodies.get(&frame.lsn),
                                Some(&flatten(&frame)),
                                "frame {}",
                                frame.lsn
                            );
                        }
                        self.durable = group.last_lsn();
                    }
                    if !groups.is_empty() {
                        self.recorded = before;
                    }
                    assert_eq!(medium.durable_lsn(), self.durable);
                    let durable = self.durable;
                    self.note(format_args!("durable {durable}"));
                }
                Err(error) => return self.broken(error),
            }
        }
    }

    fn submit_some(&mut self) {
        let mut next = self
            .bodies
            .last_key_value()
            .map_or(Lsn(0), |(lsn, _)| *lsn)
            .max(self.durable)
            .next();
        for _ in 0..self.rng.random_range(1..5) {
            let Some(medium) = &mut self.medium else {
                return;
            };
            let frames = self.rng.random_range(1..4);
            let room = medium.max_payload_bytes() / 4;
            for _ in 0..frames {
                self.builder.begin_frame(next);
                if self.rng.random_bool(0.1) {
                    self.builder.section(9, View::Log, |out| out.push(1));
                    self.builder.rollback_frame();
                    self.builder.begin_frame(next);
                }
                let mut body = Vec::new();
                for _ in 0..self.rng.random_range(0..3) {
                    let (shard, view) = (
                        self.rng.random(),
                        if self.rng.random() {
                            View::Log
                        } else {
                            View::Store
                        },
                    );
                    let most = if self.rng.random_bool(0.2) {
                        room / 2
                    } else {
                        300
                    };
                    let mut bytes = vec![0; self.rng.random_range(0..most)];
                    self.rng.fill(&mut bytes[..]);
                    self.builder
                        .section(shard, view, |out| out.extend_from_slice(&bytes));
                    body.extend(bytes);
                }
                // Tells this use of the LSN from any other.
                let mark: [u8; 16] = self.rng.random();
                self.builder
                    .section(1, View::Store, |out| out.extend_from_slice(&mark));
                body.extend(mark);
                self.builder.end_frame();
                self.bodies.insert(next, body);
                next = next.next();
            }
            if let Err(error) = medium.submit(self.builder.seal()) {
                panic!("submitting: {error}");
            }
        }
    }

    fn quiet(&mut self) {
        for _ in 0..self.rng.random_range(0..40) {
            let Some(medium) = &mut self.medium else {
                return;
            };
            match medium.drive() {
                Ok(groups) => assert!(groups.is_empty()),
                Err(error) => return self.broken(error),
            }
        }
        let Some(medium) = &mut self.medium else {
            return;
        };
        match medium.mark_idle() {
            Ok(()) => self.recorded = self.durable,
            Err(error) => self.broken(error),
        }
    }

    fn checkpoint(&mut self) {
        // The views move on by themselves; the checkpoint is on their disk before files are recycled.
        self.known.views = Lsn(self.rng.random_range(self.known.views.0..=self.durable.0));
        self.known.checkpoint = Lsn(self
            .rng
            .random_range(self.known.checkpoint.0..=self.durable.0));
        let known = self.known;
        self.note(format_args!("{known:?}"));
        let Some(medium) = &mut self.medium else {
            return;
        };
        if let Err(error) = medium.recycle(known.checkpoint) {
            self.broken(error);
        }
    }

    fn halt(&mut self, within: u64) {
        let ops = self.rng.random_range(0..within);
        self.disk.halt_after(ops);
        self.faulty = true;
    }

    /// The n-th write or sync fails: the medium says so, for good, and opens again only through recovery.
    fn fail(&mut self) {
        let op =
            [Op::Write, Op::Sync, Op::SyncDir, Op::Rename, Op::Create][self.rng.random_range(0..5)];
        let kind = [io::ErrorKind::Other, io::ErrorKind::StorageFull][self.rng.random_range(0..2)];
        self.disk.inject(op, self.rng.random_range(0..3), 1, kind);
        self.faulty = true;
        self.commit();
        self.quiet();
    }

    fn fill_disk(&mut self) {
        self.disk
            .set_capacity(self.disk.used_bytes() + self.rng.random_range(0..self.file_bytes));
        for _ in 0..4 {
            self.commit();
        }
        self.disk.set_capacity(u64::MAX);
    }

    /// An error came back: it stays, and the way on is recovery, in this process or the next.
    fn broken(&mut self, error: JournalError) {
        self.note(format_args!("{error}"));
        if let Some(medium) = &mut self.medium {
            let again = medium.drive().map(|_| ()).unwrap_err();
            assert_eq!(
                again.to_string(),
                error.to_string(),
                "a poisoned medium stays so"
            );
            assert!(
                medium.mark_idle().is_err()
                    && medium.recycle(Lsn(0)).is_err()
                    && !medium.has_background_work()
            );
        }
        self.disk.set_capacity(u64::MAX);
        self.crash();
        self.reopen();
    }

    fn crash(&mut self) {
        self.medium = None;
        self.faulty = false;
        if self.rng.random() {
            self.note(format_args!("process crash"));
            self.disk.crash_process();
        } else {
            self.note(format_args!("power loss"));
            self.disk.crash_power(self.rng.random());
        }
    }

    fn open(&mut self) -> Result<(FileMedium, Replay), JournalError> {
        let options = JournalOptions {
            file_bytes: self.file_bytes,
            max_spare_files: 3,
            entropy: self.rng.random(),
        };
        FileMedium::open(Arc::new(self.disk.clone()), &self.dir, options, self.known)
    }

    /// What recovery will say, without changing anything: the last LSN, or the first refusal. Nothing while the disk has
    /// faults that would end it.
    fn check(&mut self) -> Option<Result<Lsn, String>> {
        if self.faulty {
            return None;
        }
        if !self.disk.exists(&self.dir) {
            return Some(Ok(Lsn::ZERO));
        }
        let changes = |counts: OpCounts| {
            let ops = [Op::Create, Op::Write, Op::Rename, Op::Remove, Op::Sync];
            ops.map(|op| counts.of(op))
        };
        let before = changes(self.disk.counts());
        let (mut refusal, mut seen) = (None, Lsn::ZERO);
        let known = Some(self.known);
        let verified = verify::verify(&self.disk, &self.dir, known, &mut |found| match found {
            verify::Seen::Damage(error) => {
                refusal.get_or_insert(error.to_string());
            }
            verify::Seen::Group { group, .. } if group.frame_count() > 0 => {
                assert!(
                    group.first_lsn() > seen,
                    "groups are told once and in order"
                );
                seen = group.last_lsn();
            }
            _ => {}
        });
        let verified = verified.unwrap_or_else(|error| panic!("the check fails: {error}"));
        assert_eq!(
            changes(self.disk.counts()),
            before,
            "a check changes nothing"
        );
        Some(refusal.map_or(Ok(verified.last_lsn), Err))
    }

    /// Recovers, however often it is interrupted, and compares what comes back with the model.
    fn reopen(&mut self) {
        while self.medium.is_none() {
            let checked = self.check();
            if self.rng.random_bool(0.4) {
                self.halt(60);
            }
            match self.open() {
                Ok((medium, replay)) => {
                    if let Some(checked) = checked {
                        assert_eq!(checked, Ok(medium.durable_lsn()), "a check says it before");
                    }
                    self.take_over(medium, replay);
                }
                Err(JournalError::Io { .. }) if self.faulty => self.crash(),
                Err(error) => panic!("recovery refuses a journal that is not damaged: {error}"),
            }
        }
    }

    fn take_over(&mut self, medium: FileMedium, mut replay: Replay) {
        let last = medium.durable_lsn();
        self.note(format_args!("recovered {last}"));
        assert_eq!(replay.last_lsn(), last);
        let id = medium.journal_id();
        assert_eq!(*self.known.journal_id.get_or_insert(id), id);
        assert!(
            last >= self.durable,
            "durable up to {}, but recovery ends at {last}",
            self.durable
        );
        // From here on a reader may see all of it.
        self.durable = last;
        self.recorded = last;
        self.bodies.retain(|lsn, _| *lsn <= last);
        let mut seen = self.known.checkpoint;
        loop {
            match replay.next_group() {
                Ok(Some(group)) => {
                    assert!(
                        group.first_lsn() <= seen.next() && group.last_lsn() > seen,
                        "replay is dense"
                    );
                    for frame in group.frames() {
                        assert_eq!(
                            self.bodies.get(&frame.lsn),
                            Some(&flatten(&frame)),
                            "frame {}",
                            frame.lsn
                        );
                    }
                    seen = group.last_lsn();
                }
                Ok(None) => break,
                Err(JournalError::Io { .. }) if self.faulty => return self.crash(),
                Err(error) => panic!("replay: {error}"),
            }
        }
        assert_eq!(seen, last, "replay ends where the journal does");
        self.medium = Some(medium);
    }

    /// Opens a journal that may be damaged; a check has said the same before.
    fn checked_open(&mut self) -> Result<Lsn, JournalError> {
        let checked = self.check();
        let opened = self.open().map(|(medium, _)| medium.durable_lsn());
        let told = opened.as_ref().copied().map_err(ToString::to_string);
        if let Some(checked) = checked {
            assert_eq!(told, checked, "a check says what recovery says");
        }
        opened
    }

    /// Flips bits of a frame that is durable and not behind the checkpoint.
    fn damage(&mut self) {
        if self.rng.random() {
            self.quiet();
        }
        self.medium = None;
        self.disk.crash_process();
        if self.rng.random_bool(0.3) {
            return self.damage_header();
        }
        if self.durable == self.known.checkpoint {
            return;
        }
        let target = Lsn(self
            .rng
            .random_range(self.known.checkpoint.0 + 1..=self.durable.0));
        let body = self.bodies[&target].clone();
        let mark = &body[body.len() - 16..];
        let mut flipped = 0;
        for name in self.disk.list(&self.dir).unwrap_or_default() {
            let path = self.dir.join(name);
            for position in find(&self.disk, &path, mark) {
                let mask = 1 << self.rng.random_range(0..8);
                let at = position + self.rng.random_range(0..16);
                self.disk
                    .flip_bits(&path, at, mask)
                    .unwrap_or_else(|error| panic!("{error}"));
                flipped += 1;
            }
        }
        assert!(
            flipped > 0,
            "frame {target} is durable, but nowhere on the disk"
        );
        let sure = self.recorded.max(self.known.views);
        match self.checked_open() {
            Err(JournalError::Damaged {
                lsn,
                position,
                file,
                ..
            }) => {
                assert!(
                    lsn <= target && position % 4096 == 0,
                    "{file:?} at {position}"
                );
            }
            Err(error) => panic!("damage of frame {target} is told as: {error}"),
            Ok(last) => {
                // Only in the newest groups can it not be told from a tear.
                assert!(
                    target > sure && last < target,
                    "damage of frame {target} goes unnoticed, {sure} is on record"
                );
            }
        }
    }

    /// Flips a bit in the header of some file: damage, unless nothing needs that file.
    fn damage_header(&mut self) {
        let mut names = self.disk.list(&self.dir).unwrap_or_default();
        names.retain(|name| name.ends_with(".journal"));
        let name = &names[self.rng.random_range(0..names.len())];
        let position = self.rng.random_range(12..60);
        self.disk
            .flip_bits(&self.dir.join(name), position, 1)
            .unwrap_or_else(|error| panic!("{error}"));
        match self.checked_open() {
            Err(JournalError::Damaged { .. }) => {}
            Err(error) => panic!("a damaged header of {name} is told as: {error}"),
            Ok(last) => assert!(
                last >= self.durable,
                "with a damaged header of {name} the journal ends at {last}, not at {}",
                self.durable
            ),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("MAINSTEM_SEED").is_some() {
            eprintln!("{}", self.trace);
        }
    }
}

fn flatten(frame: &Frame) -> Vec<u8> {
    frame.sections().fold(Vec::new(), |mut all, section| {
        all.extend_from_slice(&section.body);
        all
    })
}

fn find(disk: &MemoryDisk, path: &Path, wanted: &[u8]) -> Vec<u64> {
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    bytes
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, part)| *part == wanted)
        .map(|(at, _)| at as u64)
        .collect()
}
