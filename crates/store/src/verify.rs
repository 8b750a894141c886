//! Looking a store through offline: nothing is written, and damage does not end it.
//!
//! RocksDB checks every block that it reads, and stops at the first that is damaged. To go on behind it, the range of each
//! file is read from the front and from the back; and because one damaged file can hide another of the same range, each
//! is at last read by itself: RocksDB's repair does that, in a directory of its own with links to the files, and sets
//! apart what it cannot read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rocksdb::{
    Cache, ColumnFamily, DB, DEFAULT_COLUMN_FAMILY_NAME, LiveFile, Options, ReadOptions,
    WriteOptions,
};

use crate::rocks::{
    CURRENT, Inner, database_options, failed, families, opening, refuse_unknown_families,
    refuse_without_current,
};
use crate::{Applied, Family, StoreError, StoreOptions, StoreSnapshot, Visit};

/// Memory for blocks: they are read once.
const MEMORY_BYTES: usize = 16 << 20;
/// Keys read between two words about progress.
const KEYS_BETWEEN_WORDS: u64 = 4096;

/// Something that is wrong with a store's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFinding {
    /// The file, or the store's directory where it is not known.
    pub file: PathBuf,
    /// Where in it, in bytes, as far as RocksDB says.
    pub position: Option<u64>,
    /// What was found there.
    pub what: String,
    /// What the file holds.
    pub holds: Holds,
}

/// What a file of a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Keys of a family, from the first to the last.
    Keys(Family, Vec<u8>, Vec<u8>),
    /// The applied position and the format, without which the store is not opened.
    Position,
    /// What says which files there are: without it there is no store.
    Everything,
    /// Nothing that any key depends on: no damage.
    Nothing,
}

/// How much of a store was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreVerified {
    /// Files with keys.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys that can be read.
    pub keys: u64,
}

/// A store opened for reading alone. It changes nothing, and takes no lock: whoever opens it has the data directory.
pub struct StoreReader {
    inner: Inner,
}

impl StoreReader {
    /// Opens the store in `dir`; none where there is none yet. What [`RocksStore::open`](crate::RocksStore::open) would
    /// refuse is told, and the reader is there all the same where anything can be read.
    pub fn open(dir: &Path) -> (Option<StoreReader>, Option<StoreError>) {
        if let Err(error) = refuse_without_current(dir) {
            return (None, Some(error));
        }
        if !dir.join(CURRENT).exists() {
            return (None, None);
        }
        let strict = refuse_unknown_families(dir).and_then(|()| open_with(dir, true));
        let (reader, error) = match strict {
            Ok(reader) => (reader, None),
            Err(error) => match open_with(dir, false) {
                Ok(reader) => (reader, Some(error)),
                Err(_) => return (None, Some(error)),
            },
        };
        let error = error.or_else(|| reader.inner.has_format().err());
        (Some(reader), error)
    }

    /// Reads every key of every family, and compares the files with what RocksDB knows of them.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(StoreVerified),
        tell: &mut dyn FnMut(StoreFinding),
    ) -> StoreVerified {
        let mut verified = StoreVerified::default();
        let live = match self.inner.db.live_files() {
            Ok(live) => live,
            Err(error) => {
                let error = failed(&self.inner.dir, "list its files", &error);
                tell(self.everything(&error));
                return verified;
            }
        };
        let bad = self.compare_files(&live, tell);
        let mut by_themselves = None;
        for name in std::iter::once(DEFAULT_COLUMN_FAMILY_NAME)
            .chain(Family::ALL.iter().map(|family| family.name()))
        {
            // A store that died while it was made may not have them all.
            let Some(handle) = self.inner.db.cf_handle(name) else {
                continue;
            };
            let files: Vec<&LiveFile> = live
                .iter()
                .filter(|file| file.column_family_name == name)
                .collect();
            let mut damage = Damage {
                reader: self,
                handle,
                seen: bad.clone(),
                found: Vec::new(),
            };
            let before = verified;
            let keys = damage.read(None, false, &mut |keys| {
                progress(StoreVerified {
                    keys: before.keys + keys,
                    ..before
                });
            });
            verified.keys += keys;
            if !damage.is_clean() {
                files.iter().for_each(|file| damage.look_closely(file));
            }
            files.iter().for_each(|file| damage.look_up(file));
            if !damage.is_clean() {
                let unreadable =
                    by_themselves.get_or_insert_with(|| unreadable_tables(&self.inner.dir, &live));
                damage.complete(unreadable, &files);
            }
            for finding in damage.found {
                tell(finding.with(&files));
            }
            verified.files += files.len() as u64;
            verified.bytes += files.iter().map(|file| file.size as u64).sum::<u64>();
        }
        verified
    }

    /// Bytes of all files with keys.
    pub fn size_bytes(&self) -> u64 {
        let files = self.inner.db.live_files().unwrap_or_default();
        files.iter().map(|file| file.size as u64).sum()
    }

    /// What an error says of the whole store.
    fn everything(&self, error: &StoreError) -> StoreFinding {
        StoreFinding::of(&self.inner.dir, error)
    }

    /// Files that are missing, or of another length, and such that belong to nobody. Answers the paths of the bad.
    fn compare_files(
        &self,
        live: &[LiveFile],
        tell: &mut dyn FnMut(StoreFinding),
    ) -> BTreeSet<PathBuf> {
        let dir = &self.inner.dir;
        let mut bad = BTreeSet::new();
        for file in live {
            let path = dir.join(file.name.trim_start_matches('/'));
            let what = match std::fs::metadata(&path) {
                Ok(there) if there.len() == file.size as u64 => continue,
                Ok(there) => format!(
                    "it has {} bytes where {} were written",
                    there.len(),
                    file.size
                ),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    "the file is missing".to_owned()
                }
                Err(error) => error.to_string(),
            };
            tell(StoreFinding {
                file: path.clone(),
                position: None,
                what,
                holds: holds(file),
            });
            bad.insert(path);
        }
        let known = |path: &Path| {
            live.iter()
                .any(|file| path.ends_with(file.name.trim_start_matches('/')))
        };
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut strays: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
            .filter(|path| !known(path))
            .collect();
        strays.sort();
        for file in strays {
            tell(StoreFinding {
                file,
                position: None,
                what: "it belongs to nobody".to_owned(),
                holds: Holds::Nothing,
            });
        }
        bad
    }
}

fn open_with(dir: &Path, strict: bool) -> Result<StoreReader, StoreError> {
    let cache = Cache::new_lru_cache(MEMORY_BYTES);
    let options = StoreOptions {
        memory_bytes: MEMORY_BYTES,
        ..StoreOptions::default()
    };
    let mut database = database_options(&options, &cache, MEMORY_BYTES);
    database.create_if_missing(false);
    database.create_missing_column_families(false);
    database.set_paranoid_checks(strict);
    let there = DB::list_cf(&Options::default(), dir).map_err(|error| opening(dir, &error))?;
    let families = families(&cache, MEMORY_BYTES)
        .into_iter()
        .filter(|family| there.iter().any(|name| name == family.name()));
    let db = DB::open_cf_descriptors_read_only(&database, dir, families, false)
        .map_err(|error| opening(dir, &error))?;
    Ok(StoreReader {
        inner: Inner::new(db, dir, cache, WriteOptions::default()),
    })
}

fn holds(file: &LiveFile) -> Holds {
    let family = Family::ALL
        .into_iter()
        .find(|family| family.name() == file.column_family_name);
    match family {
        None => Holds::Position,
        Some(family) => {
            let key = |key: &Option<Vec<u8>>| key.clone().unwrap_or_default();
            Holds::Keys(family, key(&file.start_key), key(&file.end_key))
        }
    }
}

/// The damage of one family.
struct Damage<'a> {
    reader: &'a StoreReader,
    handle: &'a ColumnFamily,
    /// Files that are named already.
    seen: BTreeSet<PathBuf>,
    found: Vec<Named>,
}

/// Damage, as RocksDB tells it.
#[derive(PartialEq, Eq)]
struct Named {
    file: PathBuf,
    position: Option<u64>,
    what: String,
}

impl Named {
    fn with(self, files: &[&LiveFile]) -> StoreFinding {
        let is_it = |file: &&&LiveFile| self.file.ends_with(file.name.trim_start_matches('/'));
        let holds = files
            .iter()
            .find(is_it)
            .map_or(Holds::Everything, |file| holds(file));
        StoreFinding {
            file: self.file,
            position: self.position,
            what: self.what,
            holds,
        }
    }
}

impl Damage<'_> {
    /// Whether everything could be read.
    fn is_clean(&self) -> bool {
        self.found.is_empty() && self.seen.is_empty()
    }

    /// Reads the keys between two, or all, forwards or backwards, until something is wrong. Answers how many.
    fn read(
        &mut self,
        range: Option<(&[u8], &[u8])>,
        backwards: bool,
        progress: &mut dyn FnMut(u64),
    ) -> u64 {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        let mut iterator = self
            .reader
            .inner
            .db
            .raw_iterator_cf_opt(self.handle, options);
        match (range, backwards) {
            (None, _) => iterator.seek_to_first(),
            (Some((from, _)), false) => iterator.seek(from),
            (Some((_, to)), true) => iterator.seek_for_prev(to),
        }
        let mut keys = 0;
        while let Some(key) = iterator.key() {
            let beyond = match (range, backwards) {
                (None, _) => false,
                (Some((_, to)), false) => key > to,
                (Some((from, _)), true) => key < from,
            };
            if beyond {
                break;
            }
            keys += 1;
            if keys % KEYS_BETWEEN_WORDS == 0 {
                progress(keys);
            }
            if backwards {
                iterator.prev();
            } else {
                iterator.next();
            }
        }
        if let Err(error) = iterator.status() {
            self.note(&error);
        }
        keys
    }

    fn look_closely(&mut self, file: &LiveFile) {
        if let (Some(from), Some(to)) = (&file.start_key, &file.end_key) {
            let range = Some((&from[..], &to[..]));
            self.read(range, false, &mut |_| {});
            self.read(range, true, &mut |_| {});
        }
    }

    /// A look-up goes through the file's filter, which no iteration needs.
    fn look_up(&mut self, file: &LiveFile) {
        if let Some(key) = &file.start_key
            && let Err(error) = self.reader.inner.db.get_pinned_cf(self.handle, key)
        {
            self.note(&error);
        }
    }

    /// Adds the files that cannot be read by themselves. What was said of no file in particular was said of one of them.
    fn complete(&mut self, unreadable: &BTreeSet<PathBuf>, files: &[&LiveFile]) {
        let dir = &self.reader.inner.dir;
        let nowhere = |found: &Named| found.file == *dir;
        let unnamed: Vec<&PathBuf> = unreadable
            .iter()
            .filter(|path| {
                files
                    .iter()
                    .any(|file| path.ends_with(file.name.trim_start_matches('/')))
            })
            .filter(|path| !self.seen.contains(*path))
            .filter(|path| !self.found.iter().any(|found| found.file == **path))
            .collect();
        if unnamed.is_empty() {
            return;
        }
        let said = self.found.iter().find(|found| nowhere(found));
        let what = said.map_or("it cannot be read to its end", |found| &found.what);
        let what = what.to_owned();
        let added = unnamed.into_iter().map(|file| Named {
            file: file.clone(),
            position: None,
            what: what.clone(),
        });
        let added: Vec<Named> = added.collect();
        self.found.retain(|found| !nowhere(found));
        self.found.extend(added);
    }

    fn note(&mut self, error: &rocksdb::Error) {
        let message = error.to_string();
        let (file, position) = place(&self.reader.inner.dir, &message);
        let named = Named {
            file,
            position,
            what: message,
        };
        let again = |found: &Named| (&found.file, found.position) == (&named.file, named.position);
        if !self.seen.contains(&named.file) && !self.found.iter().any(again) {
            self.found.push(named);
        }
    }
}

/// The tables that RocksDB cannot read through, each looked at by itself: its repair, in a directory that holds nothing but
/// links, moves them aside.
fn unreadable_tables(dir: &Path, live: &[LiveFile]) -> BTreeSet<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mainstem-check-{}-{number}", std::process::id());
    let place = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&place);
    let link = || -> std::io::Result<()> {
        std::fs::create_dir_all(&place)?;
        let dir = std::path::absolute(dir)?;
        for file in live {
            let name = file.name.trim_start_matches('/');
            if dir.join(name).exists() {
                std::os::unix::fs::symlink(dir.join(name), place.join(name))?;
            }
        }
        Ok(())
    };
    // Without it, what has been named stays named.
    let mut unreadable = BTreeSet::new();
    if link().is_ok() {
        // Whether it could build a store of the rest does not matter.
        let _ = DB::repair(&Options::default(), &place);
        let lost = std::fs::read_dir(place.join("lost"));
        for entry in lost.into_iter().flatten().flatten() {
            unreadable.insert(dir.join(entry.file_name()));
        }
    }
    let _ = std::fs::remove_dir_all(&place);
    unreadable.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
    unreadable
}

/// The file and the position that a message of RocksDB names.
fn place(dir: &Path, message: &str) -> (PathBuf, Option<u64>) {
    let after = |text: &str| message.split_once(text).map(|(_, rest)| rest.to_owned());
    let name_of = |rest: &str| {
        let name = rest.trim_start_matches('/');
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
        let end = name.find(|c| !is_part(c)).unwrap_or(name.len());
        name[..end].trim_end_matches('.').to_owned()
    };
    let name = after(&dir.display().to_string()).map(|rest| name_of(&rest));
    // Some messages have the number of a table alone.
    let name = name.filter(|name| !name.is_empty()).or_else(|| {
        let end = message.find(".sst")?;
        let digits = message[..end].rfind(|c: char| !c.is_ascii_digit());
        Some(message[digits.map_or(0, |at| at + 1)..end + 4].to_owned())
    });
    let position = after(" offset ").and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    match name {
        Some(name) => (dir.join(name), position),
        None => (dir.to_owned(), position),
    }
}

impl StoreFinding {
    /// What an error of opening a store in `dir` says.
    pub fn of(dir: &Path, error: &StoreError) -> StoreFinding {
        let what = match error {
            StoreError::Damaged { what, .. } => what.clone(),
            StoreError::Backend { message, .. } => message.clone(),
            other => other.to_string(),
        };
        let (mut file, position) = place(dir, &what);
        if what.contains(CURRENT) {
            file = dir.join(CURRENT);
        }
        StoreFinding {
            file,
            position,
            what,
            holds: Holds::Everything,
        }
    }
}

impl StoreSnapshot for StoreReader {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.inner.read_applied(&ReadOptions::default())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(&ReadOptions::default(), family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.get_many(&ReadOptions::default(), family, keys)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.inner
            .scan(ReadOptions::default(), family, from, to, visit)
    }
}
