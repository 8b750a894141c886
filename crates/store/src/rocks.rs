//! The store on disk: RocksDB, without its write-ahead log.
//!
//! The journal is the log. Atomic flush is on, so that all families reach the disk at one position, and the position
//! stands in the same batch as the writes it counts, in the default family together with the format's version.

use std::ffi::c_int;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::properties as property;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, FlushOptions, LogLevel, Options, ReadOptions,
    WriteBatch, WriteBufferManager, WriteOptions,
};

use crate::memory::check_order;
use crate::{Applied, Family, Store, StoreError, StoreOp, StoreSnapshot, StoreStats, Visit};

/// The format this program writes: names of families, and how keys and values of the default family look.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const APPLIED_KEY: &[u8] = b"applied";
/// The file with the name of the manifest.
pub(crate) const CURRENT: &str = "CURRENT";

/// Memory below this is too little for eight families to work with.
const MIN_MEMORY_BYTES: usize = 8 << 20;

/// How a [`RocksStore`] is set up.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// What write buffers, block cache, indexes and filters may use together. Write buffers get up to half.
    pub memory_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: u32,
    /// Files kept open.
    pub max_open_files: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            memory_bytes: 256 << 20,
            background_jobs: 2,
            max_open_files: 512,
        }
    }
}

/// A store in RocksDB. Cheap to clone; all clones are the same store. Dropping the last one, snapshots included,
/// closes it.
#[derive(Clone)]
pub struct RocksStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) db: DB,
    pub(crate) dir: PathBuf,
    cache: Cache,
    /// Of reads outside of a snapshot: making them takes longer than some reads.
    read_options: ReadOptions,
    write_options: WriteOptions,
    written: Mutex<Written>,
}

/// What the one writer knows.
struct Written {
    applied: Option<Applied>,
    /// The first failure: writes and flushes repeat it.
    failure: Option<StoreError>,
}

impl Written {
    /// The first failure, whatever came out just now; remembers it if it is this.
    fn settle(&mut self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Err(error) = &outcome {
            tracing::error!(%error, "the store stops writing");
            self.failure = Some(error.clone());
        }
        outcome
    }
}

impl RocksStore {
    /// Opens the store in `dir`, or makes it.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<RocksStore, StoreError> {
        refuse_without_current(dir)?;
        if dir.join(CURRENT).exists() {
            refuse_unknown_families(dir)?;
        }
        let memory_bytes = options.memory_bytes.max(MIN_MEMORY_BYTES);
        let cache = Cache::new_lru_cache(memory_bytes);
        let descriptors = families(&cache, memory_bytes);
        let db = DB::open_cf_descriptors(
            &database_options(&options, &cache, memory_bytes),
            dir,
            descriptors,
        )
        .map_err(|error| opening(dir, &error))?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let inner = Inner::new(db, dir, cache, write_options);
        inner.check_format()?;
        inner.written.lock().applied = inner.read_applied(&inner.read_options)?;
        // Also where it existed: whoever made it may have died before its name was durable.
        sync_parent(dir)?;
        Ok(RocksStore {
            inner: Arc::new(inner),
        })
    }
}

/// Without the file that names the manifest RocksDB would begin anew, and remove what is there.
pub(crate) fn refuse_without_current(dir: &Path) -> Result<(), StoreError> {
    let Ok(names) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    let names: Vec<_> = names.flatten().map(|entry| entry.file_name()).collect();
    let tables = names
        .iter()
        .any(|name| name.to_string_lossy().ends_with(".sst"));
    if tables && !names.iter().any(|name| name == CURRENT) {
        return Err(StoreError::Damaged {
            dir: dir.to_owned(),
            what: format!("its file {CURRENT} is missing"),
        });
    }
    Ok(())
}

/// A store of a newer release may have families that this one must not open without.
pub(crate) fn refuse_unknown_families(dir: &Path) -> Result<(), StoreError> {
    let names = DB::list_cf(&Options::default(), dir).map_err(|error| opening(dir, &error))?;
    let known = |name: &str| {
        name == DEFAULT_COLUMN_FAMILY_NAME || Family::ALL.iter().any(|family| family.name() == name)
    };
    let Some(unknown) = names.iter().find(|name| !known(name)) else {
        return Ok(());
    };
    let db = DB::open_for_read_only(&Options::default(), dir, false)
        .map_err(|error| opening(dir, &error))?;
    match db
        .get(FORMAT_KEY)
        .map_err(|error| opening(dir, &error))?
        .as_deref()
        .and_then(parse_format)
    {
        Some(found) if found > FORMAT => Err(StoreError::NewerVersion {
            dir: dir.to_owned(),
            found,
            known: FORMAT,
        }),
        _ => Err(StoreError::Damaged {
            dir: dir.to_owned(),
            what: format!("it has an unknown family '{unknown}'"),
        }),
    }
}

fn parse_format(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// The directory's own name must survive a power loss too.
fn sync_parent(dir: &Path) -> Result<(), StoreError> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|error| StoreError::Backend {
            what: "make its directory durable",
            dir: dir.to_owned(),
            message: error.to_string(),
        })
}

pub(crate) fn database_options(
    options: &StoreOptions,
    cache: &Cache,
    memory_bytes: usize,
) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_atomic_flush(true);
    database.set_paranoid_checks(true);
    // Write buffers are charged to the cache, so that both together stay within the one limit. Writers are not stalled
    // by the manager: it makes RocksDB flush, and the engine bounds what is written and not yet applied.
    let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
        memory_bytes / 2,
        false,
        cache.clone(),
    );
    database.set_write_buffer_manager(&buffers);
    // One applier writes, with keys in order: each search goes on where the one before ended.
    database.set_allow_concurrent_memtable_write(false);
    database.set_max_background_jobs(options.background_jobs.max(2) as c_int);
    database.set_max_open_files(options.max_open_files as c_int);
    database.set_bytes_per_sync(1 << 20);
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(4 << 20);
    database.set_log_level(LogLevel::Warn);
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database
}

pub(crate) fn families(cache: &Cache, memory_bytes: usize) -> Vec<ColumnFamilyDescriptor> {
    let mut descriptors: Vec<ColumnFamilyDescriptor> = Family::ALL
        .into_iter()
        .map(|family| {
            ColumnFamilyDescriptor::new(
                family.name(),
                family_options(Some(family), cache, memory_bytes),
            )
        })
        .collect();
    descriptors.push(ColumnFamilyDescriptor::new(
        DEFAULT_COLUMN_FAMILY_NAME,
        family_options(None, cache, memory_bytes),
    ));
    descriptors
}

fn family_options(family: Option<Family>, cache: &Cache, memory_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(8 << 10);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(6);
    let mut options = Options::default();
    options.set_write_buffer_size((memory_bytes / 4).clamp(1 << 20, 64 << 20));
    options.set_arena_block_size(64 << 10);
    options.set_max_write_buffer_number(4);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    match family {
        // Read by key, often for keys that are not there.
        Some(Family::State | Family::Offsets | Family::Dedupe) => {
            blocks.set_bloom_filter(10.0, false);
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.05);
        }
        // Read from the front and deleted there: a run of deletions is compacted away before a scan has to walk it.
        Some(Family::Timers | Family::Queues | Family::Delays) => {
            options.add_compact_on_deletion_collector_factory(4096, 2048, 0.5);
        }
        Some(Family::Catalog) | None => {}
    }
    options.set_block_based_table_factory(&blocks);
    options
}

impl Inner {
    pub(crate) fn new(db: DB, dir: &Path, cache: Cache, write_options: WriteOptions) -> Inner {
        Inner {
            db,
            dir: dir.to_owned(),
            cache,
            read_options: ReadOptions::default(),
            write_options,
            written: Mutex::new(Written {
                applied: None,
                failure: None,
            }),
        }
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(family.name()).ok_or(StoreError::Closed)
    }

    /// Whether there is a format, and it is one that is known here.
    pub(crate) fn has_format(&self) -> Result<bool, StoreError> {
        let found = self
            .db
            .get(FORMAT_KEY)
            .map_err(|error| self.failed("read its format", &error))?;
        let damaged = |what: &str| StoreError::Damaged {
            dir: self.dir.clone(),
            what: what.into(),
        };
        match found.as_deref().map(parse_format) {
            Some(Some(FORMAT)) => Ok(true),
            Some(Some(found)) if found > FORMAT => Err(StoreError::NewerVersion {
                dir: self.dir.clone(),
                found,
                known: FORMAT,
            }),
            Some(_) => Err(damaged("its format is no version")),
            None if self.read_applied(&self.read_options)?.is_some() => {
                Err(damaged("its format is missing"))
            }
            None => Ok(false),
        }
    }

    fn check_format(&self) -> Result<(), StoreError> {
        if self.has_format()? {
            return Ok(());
        }
        let put = self
            .db
            .put_opt(FORMAT_KEY, FORMAT.to_be_bytes(), &self.write_options);
        put.map_err(|error| self.failed("write its format", &error))?;
        self.flush_families()
    }

    pub(crate) fn read_applied(
        &self,
        options: &ReadOptions,
    ) -> Result<Option<Applied>, StoreError> {
        let found = self
            .db
            .get_opt(APPLIED_KEY, options)
            .map_err(|error| self.failed("read its position", &error))?;
        let Some(value) = found else { return Ok(None) };
        let parsed = value
            .split_first_chunk::<16>()
            .and_then(|(journal_id, lsn)| {
                Some(Applied {
                    journal_id: u128::from_be_bytes(*journal_id),
                    lsn: u64::from_be_bytes(lsn.try_into().ok()?),
                })
            });
        let damaged = || StoreError::Damaged {
            dir: self.dir.clone(),
            what: "its position is not 24 bytes".into(),
        };
        parsed.map(Some).ok_or_else(damaged)
    }

    fn flush_families(&self) -> Result<(), StoreError> {
        let default = self
            .db
            .cf_handle(DEFAULT_COLUMN_FAMILY_NAME)
            .ok_or(StoreError::Closed)?;
        let mut all = vec![default];
        for family in Family::ALL {
            all.push(self.family(family)?);
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(&all, &options)
            .map_err(|error| self.failed("flush", &error))
    }

    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError> {
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            families.push(self.family(family)?);
        }
        let bytes: usize = ops.iter().map(|op| op.size_bytes() + 16).sum();
        let mut batch = WriteBatch::with_capacity_bytes(bytes + 64);
        for op in ops {
            let Some(family) = families.get(op.family.index()) else {
                return Err(StoreError::Closed);
            };
            match &op.value {
                Some(value) => batch.put_cf(family, &op.key, value),
                None => batch.delete_cf(family, &op.key),
            }
        }
        let mut position = [0u8; 24];
        position[..16].copy_from_slice(&applied.journal_id.to_be_bytes());
        position[16..].copy_from_slice(&applied.lsn.to_be_bytes());
        batch.put(APPLIED_KEY, position);
        self.db
            .write_opt(batch, &self.write_options)
            .map_err(|error| self.failed("write", &error))
    }

    /// What flushes and compactions have run into by themselves.
    fn background_failure(&self) -> Result<(), StoreError> {
        let errors = self.number(property::BACKGROUND_ERRORS);
        if errors == 0 {
            return Ok(());
        }
        let what = "flush or compact in the background";
        // There is only a count of them; but a write, be it of nothing, is refused for the first.
        let mut nothing = WriteOptions::default();
        nothing.disable_wal(true);
        nothing.set_no_slowdown(true);
        if let Err(error) = self.db.write_opt(WriteBatch::default(), &nothing)
            && error.kind() != ErrorKind::Incomplete
        {
            return Err(self.failed(what, &error));
        }
        let message =
            format!("{errors} background errors; RocksDB's own LOG file there has the details");
        let dir = self.dir.clone();
        Err(StoreError::Backend { what, dir, message })
    }

    /// Runs a write unless something has failed before, and remembers when it does.
    fn guarded(
        &self,
        written: &mut Written,
        act: impl FnOnce(&Inner) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let outcome = match written.failure {
            Some(_) => Ok(()),
            None => self.background_failure().and_then(|()| act(self)),
        };
        written.settle(outcome)
    }

    fn number(&self, name: &property::PropName) -> u64 {
        self.db.property_int_value(name).ok().flatten().unwrap_or(0)
    }

    fn failed(&self, what: &'static str, error: &rocksdb::Error) -> StoreError {
        failed(&self.dir, what, error)
    }

    pub(crate) fn get(
        &self,
        options: &ReadOptions,
        family: Family,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let found = self
            .db
            .get_pinned_cf_opt(self.family(family)?, key, options);
        let found = found.map_err(|error| self.failed("read", &error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(crate) fn get_many(
        &self,
        options: &ReadOptions,
        family: Family,
        keys: &[&[u8]],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let found = self.db.batched_multi_get_cf_opt(
            self.family(family)?,
            keys.iter().copied(),
            false,
            options,
        );
        found
            .into_iter()
            .map(|value| {
                let value = value.map_err(|error| self.failed("read", &error))?;
                Ok(value.map(|value| Bytes::copy_from_slice(&value)))
            })
            .collect()
    }

    pub(crate) fn scan(
        &self,
        mut options: ReadOptions,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        if let Some(to) = to {
            if to <= from {
                return Ok(());
            }
            options.set_iterate_upper_bound(to);
        }
        // A long scan must not push out what is read by key.
        options.fill_cache(false);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator
            .status()
            .map_err(|error| self.failed("scan", &error))
    }
}

pub(crate) fn failed(dir: &Path, what: &'static str, error: &rocksdb::Error) -> StoreError {
    let message = error.to_string();
    let dir = dir.to_owned();
    match error.kind() {
        _ if message.contains("No space left on device") => StoreError::NoSpace { what, dir },
        ErrorKind::Corruption => StoreError::Damaged { dir, what: message },
        _ => StoreError::Backend { what, dir, message },
    }
}

pub(crate) fn opening(dir: &Path, error: &rocksdb::Error) -> StoreError {
    match failed(dir, "open", error) {
        StoreError::Backend { dir, message, .. }
            if message.contains("lock") && message.contains("LOCK") =>
        {
            StoreError::InUse { dir }
        }
        other => other,
    }
}

impl Store for RocksStore {
    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError> {
        let mut written = self.inner.written.lock();
        check_order(written.applied, applied)?;
        self.inner
            .guarded(&mut written, |inner| inner.write(ops, applied))?;
        written.applied = Some(applied);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        // Without the lock: a flush takes long, and writes go on meanwhile.
        let outcome = match self.inner.written.lock().failure.clone() {
            Some(failure) => return Err(failure),
            None => self.inner.flush_families(),
        };
        let outcome = outcome.and_then(|()| self.inner.background_failure());
        self.inner.written.lock().settle(outcome)
    }

    fn snapshot(&self) -> Result<Arc<dyn StoreSnapshot>, StoreError> {
        Ok(Arc::new(RocksSnapshot::new(self.inner.clone())))
    }

    fn check(&self) -> Result<(), StoreError> {
        // A write that RocksDB holds back has the lock for as long.
        match self.inner.written.try_lock() {
            Some(mut written) => self.inner.guarded(&mut written, |_| Ok(())),
            None => self.inner.background_failure(),
        }
    }

    fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let total = |name: &property::PropName| -> u64 {
            let families = Family::ALL
                .iter()
                .filter_map(|family| inner.db.cf_handle(family.name()));
            families
                .filter_map(|family| inner.db.property_int_value_cf(family, name).ok().flatten())
                .sum()
        };
        StoreStats {
            // Write buffers are charged to the cache; table readers stand beside it.
            memory_bytes: inner.cache.get_usage() as u64
                + total(property::ESTIMATE_TABLE_READERS_MEM),
            unflushed_bytes: total(property::CUR_SIZE_ALL_MEM_TABLES),
            disk_bytes: total(property::TOTAL_SST_FILES_SIZE),
            background_errors: inner.number(property::BACKGROUND_ERRORS),
        }
    }
}

impl StoreSnapshot for RocksStore {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        Ok(self.inner.written.lock().applied)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(&self.inner.read_options, family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.get_many(&self.inner.read_options, family, keys)
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

/// A snapshot together with the database it belongs to. Fields are dropped in this order: the snapshot, which
/// releases itself in the database, then the hold on the database.
struct RocksSnapshot {
    snapshot: rocksdb::Snapshot<'static>,
    inner: Arc<Inner>,
}

impl RocksSnapshot {
    fn new(inner: Arc<Inner>) -> RocksSnapshot {
        let snapshot = inner.db.snapshot();
        // SAFETY: the snapshot borrows `inner.db`, which lives on the heap behind the `Arc` and is neither moved nor
        // dropped while the `Arc` in the same struct holds it. The snapshot is never given out, and as the first field
        // it is dropped before the `Arc`.
        let snapshot = unsafe {
            std::mem::transmute::<rocksdb::Snapshot<'_>, rocksdb::Snapshot<'static>>(snapshot)
        };
        RocksSnapshot { snapshot, inner }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl StoreSnapshot for RocksSnapshot {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.inner.read_applied(&self.options())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(&self.options(), family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.get_many(&self.options(), family, keys)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.inner.scan(self.options(), family, from, to, visit)
    }
}
