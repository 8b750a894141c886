//! Looking at what handlers are made of offline: their entries in the catalogue, and the files in `modules/`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::{Disk, DiskFile, OpenMode};
use sha2::{Digest, Sha256};

use crate::catalog::HandlerRecord;
use crate::wasm::{DIGEST_BYTES, ModuleFile, ModuleStore, hex};
use crate::{RuntimeError, keys};

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A handler, as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerEntry {
    /// Its tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// The number that its keys in the store bear.
    pub id: u64,
    /// The SHA-256 of its component; none where the code is in a program.
    pub component: Option<String>,
    /// The memory that an instance may have.
    pub memory_bytes: u64,
    /// The shard of each task, by partition number.
    pub shards: Vec<u16>,
}

impl HandlerEntry {
    /// Reads an entry.
    pub fn read(name: &str, value: &[u8]) -> Result<HandlerEntry, RuntimeError> {
        let record = HandlerRecord::decode(name, value)?;
        Ok(HandlerEntry {
            component: (!record.native).then(|| record.version.clone()),
            id: record.id,
            memory_bytes: record.memory_bytes,
            tenant: record.tenant,
            name: record.name,
            shards: record.shards,
        })
    }

    /// The partition numbers of the tasks that may have a key between two of family `state`.
    pub fn tasks_with_state(&self, from: &[u8], to: &[u8]) -> Vec<u32> {
        self.tasks_with(from, to, |shard, partition| {
            vec![keys::state_prefix(shard, self.id, partition)]
        })
    }

    /// The same for family `offsets`.
    pub fn tasks_with_offsets(&self, from: &[u8], to: &[u8]) -> Vec<u32> {
        self.tasks_with(from, to, |shard, partition| {
            vec![
                keys::offset_prefix(shard, self.id, partition),
                keys::epoch_key(shard, self.id, partition),
            ]
        })
    }

    fn tasks_with(
        &self,
        from: &[u8],
        to: &[u8],
        prefixes: impl Fn(u16, u32) -> Vec<bytes::Bytes>,
    ) -> Vec<u32> {
        // Some key with the prefix may lie between the two: the prefix itself does, or one of them has it.
        let meets = |prefix: &bytes::Bytes| {
            &prefix[..] <= to && (&prefix[..] >= from || from.starts_with(prefix))
        };
        (0u32..)
            .zip(&self.shards)
            .filter(|(partition, shard)| prefixes(**shard, *partition).iter().any(meets))
            .map(|(partition, _)| partition)
            .collect()
    }
}

/// Something that is worth telling of a file in `modules/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFinding {
    /// The file.
    pub file: PathBuf,
    /// What was found there.
    pub what: String,
    /// What it costs.
    pub costs: ModuleCost,
}

/// What a [`ModuleFinding`] costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleCost {
    /// The code of the handlers with this component.
    Component(String),
    /// Nothing: compiled code is made again from the component. Whether that has been done.
    Compiled {
        /// The check has done it.
        rebuilt: bool,
    },
    /// Nothing: no handler has this component.
    Unneeded,
    /// Nothing: no damage.
    Harmless,
}

/// Checks that every component the handlers need is there and is what its name says, and so every other file in `dir`.
/// With `rebuild`, damaged compiled code is removed and, where this machine needs it, made again. Answers how many files
/// were read.
pub fn verify_modules(
    disk: Arc<dyn Disk>,
    dir: &Path,
    handlers: &[HandlerEntry],
    rebuild: bool,
    tell: &mut dyn FnMut(ModuleFinding),
) -> u64 {
    let needed: BTreeSet<&str> = handlers
        .iter()
        .filter_map(|handler| handler.component.as_deref())
        .collect();
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let what = error.to_string();
            let costs = ModuleCost::Harmless;
            let file = dir.to_owned();
            tell(ModuleFinding { file, what, costs });
            Vec::new()
        }
    };
    let mut sound = BTreeSet::new();
    for version in &needed {
        let name = ModuleFile::component(version);
        if !names.contains(&name) {
            tell(ModuleFinding {
                file: dir.join(name),
                what: "the file is missing".to_owned(),
                costs: ModuleCost::Component((*version).to_owned()),
            });
        }
    }
    let mut damaged = Vec::new();
    let mut files = 0;
    for name in &names {
        let file = dir.join(name);
        let kind = ModuleFile::of(name);
        let outcome = match &kind {
            ModuleFile::Component(version) => check_component(&*disk, &file, version),
            ModuleFile::Compiled { .. } => check_compiled(&*disk, &file),
            ModuleFile::Unfinished => Err("it was not finished, and is never read".to_owned()),
            ModuleFile::Strange => Err("it is no name that mainstem gives".to_owned()),
        };
        files += 1;
        let costs = match (kind, outcome.is_ok()) {
            (ModuleFile::Component(version), true) => {
                sound.insert(version);
                continue;
            }
            (_, true) => continue,
            (ModuleFile::Component(version), _) if needed.contains(&*version) => {
                ModuleCost::Component(version)
            }
            (ModuleFile::Component(_), _) => ModuleCost::Unneeded,
            (ModuleFile::Compiled { version, .. }, _) => {
                damaged.push((file, version, outcome.err().unwrap_or_default()));
                continue;
            }
            (ModuleFile::Unfinished | ModuleFile::Strange, _) => ModuleCost::Harmless,
        };
        let what = outcome.err().unwrap_or_default();
        tell(ModuleFinding { file, what, costs });
    }
    for (file, version, what) in damaged {
        let again = || -> Result<(), RuntimeError> {
            let failed = |source| RuntimeError::ModuleFile {
                path: file.display().to_string(),
                source,
            };
            disk.remove_file(&file).map_err(failed)?;
            let user = handlers
                .iter()
                .find(|handler| handler.component.as_ref() == Some(&version));
            match user.filter(|_| sound.contains(&version)) {
                Some(user) => ModuleStore::open(disk.clone(), dir.to_owned())?
                    .load(&version, user.memory_bytes)
                    .map(|_| ()),
                None => Ok(()),
            }
        };
        let (rebuilt, what) = match rebuild.then(again) {
            None => (false, what),
            Some(Ok(())) => (true, what),
            Some(Err(error)) => (false, format!("{what}, and cannot be made again: {error}")),
        };
        let costs = ModuleCost::Compiled { rebuilt };
        tell(ModuleFinding { file, what, costs });
    }
    files
}

fn check_component(disk: &dyn Disk, path: &Path, version: &str) -> Result<(), String> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(|error| error.to_string())?;
    let found = hex(&digest(&*file, 0)?);
    match found == version {
        true => Ok(()),
        false => Err(format!("its SHA-256 is {found}")),
    }
}

fn check_compiled(disk: &dyn Disk, path: &Path) -> Result<(), String> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(|error| error.to_string())?;
    let mut named = [0; DIGEST_BYTES];
    let read = file
        .read_at(&mut named, 0)
        .map_err(|error| error.to_string())?;
    match read == DIGEST_BYTES && digest(&*file, DIGEST_BYTES as u64)? == named {
        true => Ok(()),
        false => Err("the compiled code does not match its SHA-256".to_owned()),
    }
}

/// The SHA-256 of a file from a position on, read piece by piece.
fn digest(file: &dyn DiskFile, from: u64) -> Result<Vec<u8>, String> {
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = from;
    loop {
        let read = file
            .read_at(&mut chunk, position)
            .map_err(|error| format!("it cannot be read at {position}: {error}"))?;
        digest.update(&chunk[..read]);
        if read < chunk.len() {
            return Ok(digest.finalize().to_vec());
        }
        position += read as u64;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn entry() -> HandlerEntry {
        HandlerEntry {
            tenant: "default".to_owned(),
            name: "totals".to_owned(),
            id: 7,
            component: None,
            memory_bytes: 0,
            shards: vec![5, 900, 20],
        }
    }

    #[test]
    fn a_range_of_keys_leads_to_the_tasks_that_may_have_some_there() {
        let key = |shard, partition: u32| {
            let mut key = keys::state_prefix(shard, 7, partition).to_vec();
            key.extend_from_slice(b"\0\x01tkey");
            key
        };
        let tasks = |from: &[u8], to: &[u8]| entry().tasks_with_state(from, to);
        assert_eq!(tasks(&key(5, 0), &key(5, 0)), [0]);
        assert_eq!(tasks(&key(5, 0), &key(20, 2)), [0, 2]);
        assert_eq!(tasks(&key(6, 0), &key(899, 1)), [2]);
        assert_eq!(tasks(&[0, 0], &[0xff; 4]), [0, 1, 2]);
        assert_eq!(tasks(&key(901, 1), &key(1000, 1)), [0; 0]);
    }
}
