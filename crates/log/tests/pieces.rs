//! Reading for a socket: what is handed out as a stretch of a file is what a read would give, checked, and stays.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use bytes::Bytes;
use common::{apply, batch, checkpoint, partition};
use mainstem_journal::{Disk, DiskFile, Lsn, MemoryDisk, OpenMode, RealDisk};
use mainstem_log::{
    Log, LogError, LogOp, LogOptions, PartitionId, PartitionRecord, Piece, PieceLimits, Pieces,
    Stopped,
};
use mainstem_record::BatchHeader;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Offsets of each batch.
const RECORDS: i64 = 3;
const BATCHES: i64 = 400;

struct Fixture {
    dir: tempfile::TempDir,
    id: PartitionId,
    /// Every batch, in order.
    batches: Vec<Bytes>,
    records: Vec<PartitionRecord>,
    applied: Lsn,
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 300_000,
        index_interval_bytes: 4096,
        ..LogOptions::default()
    }
}

fn open_on(
    disk: Arc<dyn Disk>,
    dir: &std::path::Path,
    records: Vec<PartitionRecord>,
    at: Lsn,
) -> Log {
    Log::open(disk, dir, options(), records, at).unwrap()
}

/// Batches of all sizes in several sealed segments and an active one, none in memory.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let log = open_on(Arc::new(RealDisk), dir.path(), Vec::new(), Lsn::ZERO);
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let mut rng = SmallRng::seed_from_u64(5);
    let mut batches = Vec::new();
    for index in 0..BATCHES {
        let value_bytes = match index % 50 {
            7 => 20_000,
            _ => rng.random_range(10..1_500),
        };
        let bytes = batch(index * RECORDS, 0, &[1, 2, 3], value_bytes);
        batches.push(bytes.clone());
        append(&log, id, bytes);
    }
    let records = checkpoint(&log);
    Fixture {
        applied: log.applied(),
        dir,
        id,
        batches,
        records,
    }
}

fn append(log: &Log, id: PartitionId, batch: Bytes) {
    let op = LogOp::Append {
        partition: id,
        batch,
        begins_segment: false,
    };
    apply(log, op);
}

impl Fixture {
    fn open(&self) -> Log {
        let disk = Arc::new(RealDisk);
        open_on(disk, self.dir.path(), self.records.clone(), self.applied)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let dir = self.dir.path().join(self.id.topic.to_string());
        let mut files: Vec<_> = fs::read_dir(dir.join(self.id.index.to_string()))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        files.sort();
        files
    }

    fn expected(&self, from: i64, to: i64) -> Vec<u8> {
        let batches = (from / RECORDS) as usize..(to / RECORDS) as usize;
        self.batches[batches].concat()
    }
}

fn limits(max_bytes: usize) -> PieceLimits {
    PieceLimits {
        max_bytes,
        max_memory_bytes: max_bytes,
        at_least_one: true,
        stable: false,
        files: true,
    }
}

/// What the pieces are, and how many of their bytes stand in files.
fn contents(pieces: &[Piece]) -> (Vec<u8>, usize) {
    let (mut all, mut in_files) = (Vec::new(), 0);
    for piece in pieces {
        match piece {
            Piece::Memory(bytes) => all.extend_from_slice(bytes),
            Piece::File(slice) => {
                all.extend_from_slice(&slice.read().unwrap());
                in_files += slice.len();
            }
        }
    }
    (all, in_files)
}

#[test]
fn they_are_what_a_read_gives_from_any_offset_and_of_any_size() {
    let fixture = fixture();
    let log = fixture.open();
    let end = log.bounds(fixture.id).unwrap().high_watermark;
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut in_files, mut across) = (0, 0);
    for _ in 0..2_000 {
        let offset = rng.random_range(0..end);
        let max_bytes = match rng.random_range(0..4) {
            0 => rng.random_range(0..3_000),
            1 => rng.random_range(0..100_000),
            _ => rng.random_range(0..900_000),
        };
        let found = log
            .read_pieces(fixture.id, offset, &limits(max_bytes))
            .unwrap();
        let (bytes, from_files) = contents(&found.pieces);
        in_files += from_files;
        across += usize::from(
            found
                .pieces
                .iter()
                .filter(|piece| matches!(piece, Piece::File(_)))
                .count()
                > 1,
        );
        let first = offset / RECORDS * RECORDS;
        assert!(found.next_offset > offset, "at least one batch comes");
        assert_eq!(bytes, fixture.expected(first, found.next_offset));
        let one = BatchHeader::read(&bytes).unwrap().size_bytes();
        assert!(
            bytes.len() <= max_bytes.max(one),
            "{} of {max_bytes}",
            bytes.len()
        );
        let stopped = match found.next_offset == end {
            true => Stopped::AtEnd,
            false => Stopped::Full,
        };
        assert_eq!(found.stopped, stopped);
        if stopped == Stopped::Full && max_bytes >= 200_000 {
            assert!(
                bytes.len() >= max_bytes / 2,
                "{} of {max_bytes}",
                bytes.len()
            );
        }
    }
    if cfg!(target_os = "linux") {
        assert!(in_files > 1_000_000 && across > 100, "{in_files} {across}");
    }
}

#[test]
fn a_disk_without_files_of_the_system_and_one_with_give_the_same() {
    let disk = Arc::new(MemoryDisk::new(1));
    let dir = common::topics();
    disk.create_dir_all(&dir).unwrap();
    let log = open_on(disk.clone(), &dir, Vec::new(), Lsn::ZERO);
    let fixture = fixture();
    apply(
        &log,
        LogOp::CreatePartition {
            partition: fixture.id,
        },
    );
    for batch in &fixture.batches {
        append(&log, fixture.id, batch.clone());
    }
    let records = checkpoint(&log);
    let log = open_on(disk, &dir, records, log.applied());
    let found = log.read_pieces(fixture.id, 4, &limits(400_000)).unwrap();
    let (bytes, in_files) = contents(&found.pieces);
    assert_eq!(bytes, fixture.expected(3, found.next_offset));
    assert_eq!(in_files, 0);
}

#[test]
fn files_are_left_alone_where_they_are_to_be_and_what_is_in_memory_comes() {
    let fixture = fixture();
    let log = fixture.open();
    let without = PieceLimits {
        files: false,
        ..limits(1 << 20)
    };
    let end = log.bounds(fixture.id).unwrap().high_watermark;
    let found = log.read_pieces(fixture.id, 0, &without).unwrap();
    assert_eq!((found.stopped, found.next_offset), (Stopped::AtFile, 0));
    assert!(found.pieces.is_empty());
    let found = log.read_pieces(fixture.id, end, &without).unwrap();
    assert_eq!(found.stopped, Stopped::AtEnd);
    append(&log, fixture.id, batch(end, 0, &[1, 2, 3], 10));
    let found = log.read_pieces(fixture.id, end, &without).unwrap();
    assert_eq!(
        (found.stopped, found.next_offset),
        (Stopped::AtEnd, end + 3)
    );
}

#[test]
fn where_not_even_one_fits_nothing_comes_unless_one_has_to() {
    let fixture = fixture();
    let log = fixture.open();
    for (offset, is_in_memory) in [(7 * RECORDS, false), (BATCHES * RECORDS, true)] {
        if is_in_memory {
            append(&log, fixture.id, batch(offset, 0, &[1, 2, 3], 1_000));
        }
        let none = PieceLimits {
            at_least_one: false,
            ..limits(1_000)
        };
        let found = log.read_pieces(fixture.id, offset, &none).unwrap();
        assert_eq!((found.stopped, found.next_offset), (Stopped::Full, offset));
        assert!(found.pieces.is_empty());
        let found = log.read_pieces(fixture.id, offset, &limits(1_000)).unwrap();
        assert_eq!(found.next_offset, offset + RECORDS);
    }
    // Memory is bounded by itself.
    let little = PieceLimits {
        max_memory_bytes: 5_000,
        ..limits(400_000)
    };
    let found = log.read_pieces(fixture.id, 0, &little).unwrap();
    let memory: usize = found.pieces.iter().map(Piece::memory_bytes).sum();
    assert!(memory <= 5_000, "{memory}");
}

#[test]
fn damage_is_found_before_the_first_byte_goes_out() {
    let fixture = fixture();
    let mut rng = SmallRng::seed_from_u64(9);
    for path in fixture.segments() {
        let whole = fs::read(&path).unwrap();
        for _ in 0..40 {
            let at = rng.random_range(0..whole.len());
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << rng.random_range(0..8);
            fs::write(&path, bytes).unwrap();
            let log = fixture.open();
            let end = log.bounds(fixture.id).unwrap().high_watermark;
            let (mut next, mut named) = (0, false);
            while next < end && !named {
                match log.read_pieces(fixture.id, next, &limits(200_000)) {
                    Ok(found) => {
                        let (bytes, _) = contents(&found.pieces);
                        assert_eq!(bytes, fixture.expected(next, found.next_offset));
                        next = found.next_offset;
                    }
                    Err(LogError::Damaged { file, position, .. }) => {
                        assert!(file == path && position <= at as u64, "{position} {at}");
                        named = true;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(
                named,
                "a bit of byte {at} of {} was not found",
                path.display()
            );
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn what_is_being_sent_is_removed_at_once_and_can_still_be_read() {
    let fixture = fixture();
    let log = fixture.open();
    let before = fixture.segments();
    let found = log.read_pieces(fixture.id, 1, &limits(200_000)).unwrap();
    let expected = fixture.expected(0, found.next_offset);
    let end = log.bounds(fixture.id).unwrap().high_watermark;
    apply(
        &log,
        LogOp::SetStart {
            partition: fixture.id,
            offset: end,
        },
    );
    checkpoint(&log);
    let removed = log.remove_files(log.flushed()).unwrap();
    assert!(removed.entries > 0 && removed.bytes > 0, "{removed:?}");
    let left = fixture.segments();
    assert!(!left.contains(&before[0]), "a slow client holds up nothing");
    let (bytes, in_files) = contents(&found.pieces);
    assert_eq!(bytes, expected);
    if cfg!(target_os = "linux") {
        assert!(in_files > 0);
    }
    assert!(matches!(
        log.read_pieces(fixture.id, 1, &limits(200_000)),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    // It knows no segment any more, and that is all.
    for piece in &found.pieces {
        if let Piece::File(slice) = piece {
            slice.distrust();
        }
    }

    // The same where the whole partition goes.
    let fixture = self::fixture();
    let log = fixture.open();
    let found = log.read_pieces(fixture.id, 1, &limits(200_000)).unwrap();
    let expected = fixture.expected(0, found.next_offset);
    apply(
        &log,
        LogOp::RemovePartition {
            partition: fixture.id,
        },
    );
    checkpoint(&log);
    log.remove_files(log.flushed()).unwrap();
    assert!(
        !fixture
            .dir
            .path()
            .join(fixture.id.topic.to_string())
            .exists()
    );
    assert_eq!(contents(&found.pieces).0, expected);
}

fn slices(found: &Pieces) -> usize {
    let is_file = |piece: &&Piece| matches!(piece, Piece::File(_));
    found.pieces.iter().filter(is_file).count()
}

#[test]
#[cfg(target_os = "linux")]
fn files_that_are_held_are_bounded_and_what_is_beyond_comes_from_memory() {
    let fixture = fixture();
    let options = LogOptions {
        max_sent_files: 1,
        ..options()
    };
    let disk = Arc::new(RealDisk);
    let records = fixture.records.clone();
    let log = Log::open(disk, fixture.dir.path(), options, records, fixture.applied).unwrap();
    let read = |offset| {
        log.read_pieces(fixture.id, offset, &limits(600_000))
            .unwrap()
    };
    let check = |found: &Pieces, from| {
        let expected = fixture.expected(from, found.next_offset);
        assert_eq!(contents(&found.pieces).0, expected);
    };
    let first = read(0);
    check(&first, 0);
    assert_eq!(slices(&first), 1, "of the first segment only");
    assert!(first.pieces.len() > 1, "the rest comes all the same");
    let second = first.next_offset;
    // The file is the same, so it is no further one.
    assert_eq!(slices(&read(RECORDS)), 1);
    let kept = first.pieces[0].clone();
    drop(first);
    let beyond = read(second);
    check(&beyond, second);
    assert_eq!(slices(&beyond), 0, "a clone holds it too");
    drop(kept);
    let after = read(second);
    check(&after, second);
    assert_eq!(slices(&after), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn what_could_not_be_sent_is_checked_again_and_named() {
    let fixture = fixture();
    let log = fixture.open();
    let found = log.read_pieces(fixture.id, 0, &limits(200_000)).unwrap();
    let Some(Piece::File(slice)) = found.pieces.first() else {
        panic!("it stands in a file: {found:?}");
    };
    let path = fixture.segments().remove(0);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(100_000).unwrap();
    // What was good once is not looked at again, unless somebody says that it should be.
    let again = log.read_pieces(fixture.id, 0, &limits(200_000)).unwrap();
    assert_eq!(slices(&again), 1);
    assert!(matches!(slice.read(), Err(LogError::Damaged { .. })));
    slice.distrust();
    match log.read_pieces(fixture.id, 0, &limits(200_000)) {
        Err(LogError::Damaged { file, position, .. }) => {
            assert_eq!((file, position), (path, 100_000));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn stable_records_end_below_the_first_open_transaction_in_a_file_too() {
    let fixture = fixture();
    let log = fixture.open();
    let open_at = BATCHES * RECORDS;
    let mut bytes = batch(open_at, 0, &[1, 2, 3], 1_000).to_vec();
    bytes[22] |= 1 << 4;
    bytes[43..51].copy_from_slice(&77_i64.to_be_bytes());
    bytes[51..53].copy_from_slice(&0_i16.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    append(&log, fixture.id, bytes.into());
    for index in 1..100 {
        append(
            &log,
            fixture.id,
            batch(open_at + index * RECORDS, 0, &[1, 2, 3], 1_000),
        );
    }
    let records = checkpoint(&log);
    let log = open_on(
        Arc::new(RealDisk),
        fixture.dir.path(),
        records,
        log.applied(),
    );
    let stable = PieceLimits {
        stable: true,
        ..limits(10 << 20)
    };
    let mut next = 0;
    loop {
        let found = log.read_pieces(fixture.id, next, &stable).unwrap();
        assert_eq!(found.last_stable, open_at);
        let (bytes, _) = contents(&found.pieces);
        assert_eq!(bytes, fixture.expected(next, found.next_offset));
        next = found.next_offset;
        if found.stopped == Stopped::AtEnd {
            break;
        }
    }
    assert_eq!(next, open_at);
}

#[test]
fn damage_ahead_keeps_back_nothing_that_stands_before_it() {
    let fixture = fixture();
    let segments = fixture.segments();
    let mut bytes = fs::read(&segments[1]).unwrap();
    bytes[100] ^= 1;
    fs::write(&segments[1], bytes).unwrap();
    let log = fixture.open();
    let all = limits(900_000);
    let found = log.read_pieces(fixture.id, 0, &all).unwrap();
    let damaged_at = found.next_offset;
    let name = format!("{damaged_at:020}.log");
    assert!(segments[1].ends_with(name), "{damaged_at}");
    assert_eq!(found.stopped, Stopped::Full);
    assert_eq!(contents(&found.pieces).0, fixture.expected(0, damaged_at));
    let read = log.read(fixture.id, 0, 900_000, None).unwrap();
    assert_eq!(read.next_offset, damaged_at);
    assert_eq!(read.batches.concat(), fixture.expected(0, damaged_at));
    let ahead = [
        log.read_pieces(fixture.id, damaged_at, &all).err(),
        log.read(fixture.id, damaged_at, 900_000, None).err(),
    ];
    for error in ahead {
        match error {
            Some(LogError::Damaged { file, .. }) => assert_eq!(file, segments[1]),
            other => panic!("{other:?}"),
        }
    }
}

/// A disk that notes what is announced to be read: from where to where.
#[derive(Default)]
struct Announced {
    stretches: Arc<Mutex<Vec<(u64, u64)>>>,
}

struct AnnouncedFile {
    file: Arc<dyn DiskFile>,
    stretches: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Disk for Announced {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(AnnouncedFile {
            file: RealDisk.open(path, mode)?,
            stretches: self.stretches.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
}

impl DiskFile for AnnouncedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn will_read(&self, position: u64, bytes: u64) {
        let stretch = (position, position + bytes);
        self.stretches.lock().unwrap().push(stretch);
    }

    fn os_file(&self) -> Option<BorrowedFd<'_>> {
        self.file.os_file()
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_sent_is_announced_to_the_disk_each_time() {
    let fixture = fixture();
    let disk = Announced::default();
    let stretches = disk.stretches.clone();
    let (dir, records) = (fixture.dir.path(), fixture.records.clone());
    let log = open_on(Arc::new(disk), dir, records, fixture.applied);
    for _ in 0..3 {
        let found = log.read_pieces(fixture.id, 0, &limits(200_000)).unwrap();
        let Some(Piece::File(slice)) = found.pieces.first() else {
            panic!("it stands in a file: {found:?}");
        };
        let (from, to) = (slice.position(), slice.position() + slice.len() as u64);
        let announced = std::mem::take(&mut *stretches.lock().unwrap());
        let covers = |(begin, end): &(u64, u64)| *begin <= from && to <= *end;
        assert!(announced.iter().any(covers), "{announced:?}");
    }
}
