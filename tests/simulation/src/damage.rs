//! Damage: bits that change, files that are cut or gone. It must be named, or have done no harm; never skipped. The only
//! excuse is the one of `docs/guarantees.md`, "Damage in the newest groups".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_engine::EngineError;
use mainstem_journal::{Disk, OpenMode};
use mainstem_log::LogError;
use mainstem_store::{Family, MemoryStore, StoreSnapshot};
use rand::Rng;

use crate::coverage::met;
use crate::disk::Class;
use crate::history::GroupHeader;
use crate::node::{self, Node};
use crate::note;
use crate::run::{Run, is_damage};
use crate::views::Views;

/// Bits of a file were changed.
pub const FLIPPED: &str = "bits flipped in a file";
/// A file was cut.
pub const TRUNCATED: &str = "file truncated";
/// A file was removed.
pub const MISSING: &str = "file missing";
/// The store was lost as a whole.
pub const STORE_LOST: &str = "store lost";
/// The node refused to open, and named the damage.
pub const REFUSED: &str = "damage refused at the start";
/// A read named the damage.
pub const READ_REFUSED: &str = "damage refused by a read";
/// What was damaged could not be told from a torn write.
pub const EXCUSED: &str = "damage in the newest groups cut as a torn tail";
/// Everything is there all the same.
pub const HARMLESS: &str = "damage without harm";

const BLOCK_BYTES: usize = 4096;

/// What became of damage.
enum Verdict {
    Named,
    Harmless,
    /// Frames were cut, with an excuse: nothing that was known before can be checked any more.
    Lost,
}

/// A file as it was before.
struct Damaged {
    path: PathBuf,
    before: Vec<u8>,
    /// It is whole but for a bit.
    flipped: bool,
}

impl Run {
    /// Damages what the last life has left, in several ways one after the other, and looks at what the node says.
    pub(crate) fn damage(&mut self) {
        self.machine.disk.set_capacity(u64::MAX);
        self.machine.control.begin_life();
        // What did no harm stays as it is, and may come to light with what is damaged later.
        let mut earlier = Vec::new();
        for _ in 0..4 {
            if self.rng.random_bool(0.1) {
                self.lose_store();
                return;
            }
            let Some(damaged) = self.damage_something() else {
                continue;
            };
            match self.judge(&damaged, &earlier) {
                Verdict::Named => self.undo(&damaged),
                Verdict::Harmless => earlier.push(damaged.path),
                Verdict::Lost => return,
            }
        }
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        let file = self.machine.disk.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn files(&self, dir: &Path, found: &mut Vec<PathBuf>) {
        for name in self.machine.disk.list(dir).unwrap_or_default() {
            let path = dir.join(name);
            if self.machine.disk.list(&path).is_ok() {
                self.files(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    fn damage_something(&mut self) -> Option<Damaged> {
        let mut files = Vec::new();
        self.files(&node::dir(), &mut files);
        let wanted = [
            Class::Journal,
            Class::Journal,
            Class::Journal,
            Class::Segment,
            Class::Segment,
            Class::Index,
            Class::Other,
        ];
        let wanted = wanted[self.rng.random_range(0..wanted.len())];
        files.retain(|path| Class::of(path) == wanted);
        if files.is_empty() {
            return None;
        }
        // Where the newest frames are, for only there is an excuse; where replay begins; or anywhere.
        let aim = match self.rng.random_range(0..10) {
            0..4 => files
                .iter()
                .flat_map(|path| groups(&self.read(path)).map(|group| group.last_lsn).max())
                .max(),
            4..7 => Some(self.checkpoint() + 1),
            _ => None,
        };
        let holds = |path: &PathBuf| {
            aim.is_some_and(|aim| groups(&self.read(path)).any(|group| group.holds(aim)))
        };
        let at = files.iter().position(holds);
        let at = at.unwrap_or_else(|| self.rng.random_range(0..files.len()));
        let path = files.swap_remove(at);
        let before = self.read(&path);
        let disk = &self.machine.disk;
        let mut flipped = false;
        match self.rng.random_range(0..10) {
            0 => {
                met(MISSING);
                note!(self.trace, "{} is gone", path.display());
                disk.remove_file(&path).unwrap();
                disk.sync_dir(path.parent().unwrap()).unwrap();
            }
            1 if !before.is_empty() => {
                met(TRUNCATED);
                let length = self.rng.random_range(0..before.len()) as u64;
                note!(self.trace, "{} is cut to {length}", path.display());
                let file = disk.open(&path, OpenMode::Write).unwrap();
                file.set_len(length).unwrap();
                file.sync_data().unwrap();
            }
            _ if !before.is_empty() => {
                met(FLIPPED);
                flipped = true;
                let position = self.place(&before, aim);
                let mask = 1 << self.rng.random_range(0..8);
                note!(self.trace, "{} is changed at {position}", path.display());
                self.machine.disk.flip_bits(&path, position, mask).unwrap();
            }
            _ => return None,
        }
        Some(Damaged {
            path,
            before,
            flipped,
        })
    }

    /// Somewhere in a file: mostly in the group that holds the frame aimed at, or in any.
    fn place(&mut self, bytes: &[u8], aim: Option<u64>) -> u64 {
        let groups: Vec<FoundGroup> = groups(bytes).collect();
        let position = match self.rng.random_range(0..10) {
            0..7 if !groups.is_empty() => {
                let aimed = groups
                    .iter()
                    .find(|group| aim.is_some_and(|aim| group.holds(aim)));
                let group = aimed.unwrap_or(&groups[self.rng.random_range(0..groups.len())]);
                group.position + self.rng.random_range(0..group.length)
            }
            7 => self.rng.random_range(0..bytes.len().min(100)),
            _ => self.rng.random_range(0..bytes.len()),
        };
        position.min(bytes.len() - 1) as u64
    }

    /// Opens the node and looks what becomes of the damage.
    fn judge(&mut self, damaged: &Damaged, earlier: &[PathBuf]) -> Verdict {
        let class = Class::of(&damaged.path);
        let name = damaged
            .path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let sure = self.recorded();
        let opened = self.machine.open(&mut self.rng);
        let verdict = match opened {
            Err(error) => {
                note!(self.trace, "refused: {error}");
                assert!(
                    is_damage(&error),
                    "{name} is damaged, which is told as: {error}"
                );
                let told = error.to_string();
                let names = |path: &PathBuf| told.contains(&*path.to_string_lossy());
                assert!(
                    told.contains(&name)
                        || earlier.iter().any(names)
                        || (!damaged.flipped && names_journal(&error, class)),
                    "{name} is damaged, but what is named is: {error}"
                );
                met(REFUSED);
                Verdict::Named
            }
            Ok(node) => {
                let last = node.recovery.last.0;
                let verdict = self.judge_open(&node, damaged, earlier, sure, last);
                node.disk.kill();
                node.store.kill();
                verdict
            }
        };
        self.lose(false);
        verdict
    }

    fn judge_open(
        &mut self,
        node: &Node,
        damaged: &Damaged,
        earlier: &[PathBuf],
        sure: u64,
        last: u64,
    ) -> Verdict {
        let mut world = self.world.borrow_mut();
        let control = self.machine.control.clone();
        let mut history = control.history.lock();
        let lost = last < history.certain();
        if lost {
            assert!(
                Class::of(&damaged.path) == Class::Journal && last >= sure,
                "{} is damaged, and frames after {last} are skipped, although {sure} is on record",
                damaged.path.display()
            );
            history.forget_beyond(last);
            world.views = Views::default();
        } else {
            history.recovered(last);
        }
        let rules = world.rules.clone();
        world.views.apply_to(last, &history, &rules);
        drop(history);
        let compared = world.views.compare_store(&**node.broker.engine().store());
        compared.unwrap_or_else(|error| panic!("{error}"));
        match world.views.compare_log(node.broker.engine().log(), 1_000) {
            Ok(()) if lost => {
                met(EXCUSED);
                Verdict::Lost
            }
            Ok(()) => {
                met(HARMLESS);
                Verdict::Harmless
            }
            Err(LogError::Damaged { file, .. }) => {
                assert!(
                    file == damaged.path || earlier.contains(&file),
                    "{} is named, and {} is damaged",
                    file.display(),
                    damaged.path.display()
                );
                met(READ_REFUSED);
                Verdict::Named
            }
            Err(error) => panic!(
                "{} is damaged, which is told as: {error}",
                damaged.path.display()
            ),
        }
    }

    /// The last LSN that something on the disk says was durable.
    fn recorded(&self) -> u64 {
        let mut files = Vec::new();
        self.files(&node::dir(), &mut files);
        let mut recorded = 0;
        for path in files.iter().filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "journal")
        }) {
            let bytes = self.read(path);
            let headers = bytes.chunks(BLOCK_BYTES).filter_map(GroupHeader::read);
            recorded = headers
                .map(|header| header.durable)
                .chain([recorded])
                .max()
                .unwrap_or(0);
        }
        let store = &self.machine.store;
        let applied = store.applied().unwrap().map_or(0, |applied| applied.lsn);
        recorded.max(applied).max(self.checkpoint())
    }

    /// What the last checkpoint has passed.
    fn checkpoint(&self) -> u64 {
        let mark = self
            .machine
            .store
            .get(Family::Catalog, &[0xff, 0xff, b'C'])
            .unwrap();
        mark.map_or(0, |mark| {
            u64::from_be_bytes(mark[17..25].try_into().unwrap())
        })
    }

    fn undo(&self, damaged: &Damaged) {
        let disk = &self.machine.disk;
        let file = disk.open(&damaged.path, OpenMode::Create).unwrap();
        file.write_all_at(&damaged.before, 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(damaged.path.parent().unwrap()).unwrap();
    }

    /// The store is gone as a whole: what it knew must come back from the journal, or be missed.
    fn lose_store(&mut self) {
        met(STORE_LOST);
        note!(self.trace, "the store is gone");
        self.machine.store = Arc::new(MemoryStore::new(self.rng.random()));
        match self.machine.open(&mut self.rng) {
            Ok(node) => {
                let last = node.recovery.last.0;
                let mut world = self.world.borrow_mut();
                let control = self.machine.control.clone();
                control.history.lock().recovered(last);
                world.look_at(last);
                let compared = world.views.compare_store(&**node.broker.engine().store());
                compared.unwrap_or_else(|error| panic!("{error}"));
                let compared = world.views.compare_log(node.broker.engine().log(), 1_000);
                compared.unwrap_or_else(|error| panic!("{error}"));
                met(HARMLESS);
            }
            Err(error) => {
                note!(self.trace, "refused: {error}");
                assert!(
                    is_damage(&error),
                    "the store is gone, which is told as: {error}"
                );
                met(REFUSED);
            }
        }
    }
}

/// A group with frames, found in a file.
struct FoundGroup {
    position: usize,
    length: usize,
    first_lsn: u64,
    last_lsn: u64,
}

impl FoundGroup {
    fn holds(&self, lsn: u64) -> bool {
        (self.first_lsn..=self.last_lsn).contains(&lsn)
    }
}

fn groups(bytes: &[u8]) -> impl Iterator<Item = FoundGroup> + '_ {
    let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
    blocks.filter_map(|(block, bytes)| {
        let header = GroupHeader::read(bytes).filter(|header| header.frames > 0)?;
        Some(FoundGroup {
            position: block * BLOCK_BYTES,
            length: 64 + header.payload_bytes,
            first_lsn: header.first_lsn,
            last_lsn: header.first_lsn + u64::from(header.frames) - 1,
        })
    })
}

/// Where the end of the journal is gone, or a whole file of it, there is no file to be named but those beside it.
fn names_journal(error: &EngineError, class: Class) -> bool {
    class == Class::Journal && matches!(error, EngineError::Journal(_))
}
