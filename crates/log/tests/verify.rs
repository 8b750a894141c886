//! A check of the log's files names what is damaged, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{apply, batch, checkpoint, open, partition, read_all};
use mainstem_journal::{Disk, Lsn, MemoryDisk, OpenMode, write_file_durably};
use mainstem_log::{
    AheadBatch, AheadWriter, Costs, LogCheck, LogError, LogFinding, LogOp, PartitionId,
    PartitionRecord, PartitionState, ReplaceSegments,
};

struct Fixture {
    disk: MemoryDisk,
    id: PartitionId,
    written: Vec<u8>,
    records: Vec<PartitionRecord>,
    applied: Lsn,
}

/// Offsets in each batch.
const STEP: i64 = 2;

/// A partition of 40 batches in several sealed segments and an active one, all of it checkpointed.
fn fixture() -> Fixture {
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(&common::topics()).unwrap();
    let log = open(&disk, Vec::new(), Lsn::ZERO);
    let id = partition(1, 0);
    apply(&log, LogOp::CreatePartition { partition: id });
    let mut written = Vec::new();
    for index in 0..40 {
        let bytes = batch(index * STEP, 7, &[index * 10, index * 10 + 5], 100);
        written.extend_from_slice(&bytes);
        let op = LogOp::Append {
            begins_segment: false,
            partition: id,
            batch: bytes,
        };
        apply(&log, op);
    }
    Fixture {
        id,
        written,
        records: checkpoint(&log),
        applied: log.applied(),
        disk,
    }
}

impl Fixture {
    fn check(&self) -> LogCheck {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let records = self.records.clone();
        let (check, errors) = LogCheck::new(
            disk,
            &common::topics(),
            &common::small(),
            records,
            self.applied,
        );
        assert!(errors.is_empty(), "{errors:?}");
        check
    }

    fn findings(&self) -> Vec<LogFinding> {
        findings(&self.check(), false)
    }

    fn dir(&self) -> PathBuf {
        let topic = common::topics().join(self.id.topic.to_string());
        topic.join(self.id.index.to_string())
    }

    fn file(&self, base_offset: i64, kind: &str) -> PathBuf {
        self.dir().join(format!("{base_offset:020}.{kind}"))
    }

    /// The base offsets of the segments, and where the last one ends.
    fn segments(&self) -> Vec<i64> {
        let PartitionState::Live { segments, .. } = &self.records[0].state else {
            panic!("it is live")
        };
        segments.iter().map(|segment| segment.base_offset).collect()
    }

    fn length(&self, path: &Path) -> u64 {
        let file = self.disk.open(path, OpenMode::Read).unwrap();
        file.len().unwrap()
    }

    fn set_len(&self, path: &Path, length: u64) {
        let file = self.disk.open(path, OpenMode::Write).unwrap();
        file.set_len(length).unwrap();
    }
}

fn findings(check: &LogCheck, rebuild: bool) -> Vec<LogFinding> {
    let mut found = Vec::new();
    let mut read = 0;
    let done = check.verify(
        rebuild,
        &mut |so_far| {
            assert!(so_far.bytes >= read);
            read = so_far.bytes;
        },
        &mut |finding| found.push(finding),
    );
    assert_eq!((done.segments, done.bytes), {
        let size = check.size();
        (size.segments, size.bytes)
    });
    found
}

#[test]
fn a_sound_log_is_sound() {
    let fixture = fixture();
    assert_eq!(fixture.findings(), []);
    let check = fixture.check();
    let done = check.verify(false, &mut |_| {}, &mut |_| {});
    assert_eq!((done.partitions, done.batches), (1, 40));
    assert_eq!(done.bytes, fixture.written.len() as u64);
}

#[test]
fn every_changed_bit_is_named_with_its_offsets_and_little_else() {
    let fixture = fixture();
    let size = batch(0, 0, &[0, 0], 100).len() as u64;
    let segments = fixture.segments();
    for (index, base) in segments.iter().enumerate() {
        let end = segments.get(index + 1).copied().unwrap_or(80);
        let (path, index_path) = (fixture.file(*base, "log"), fixture.file(*base, "index"));
        let has_index = fixture.disk.exists(&index_path);
        for position in 0..fixture.length(&path) {
            let mask = 1 << (position % 8);
            fixture.disk.flip_bits(&path, position, mask).unwrap();
            let found = fixture.findings();
            assert_eq!(found.len(), 1, "{position} of {base}: {found:?}");
            assert_eq!(
                (&found[0].file, found[0].partition),
                (&path, Some(fixture.id))
            );
            assert!(found[0].position.unwrap() <= position);
            let Costs::Offsets(from, to) = found[0].costs else {
                panic!("{found:?}")
            };
            let offset = base + (position / size) as i64 * STEP;
            assert!((from..to).contains(&offset), "{found:?}");
            // Behind a batch's own CRC only that batch is lost, elsewhere what lies between two points of the index.
            match position % size {
                17..23 | 27.. => assert_eq!((from, to), (offset, offset + STEP)),
                _ if has_index => assert!(to - from <= 2 * STEP, "{found:?}"),
                _ => assert!(to <= end),
            }
            fixture.disk.flip_bits(&path, position, mask).unwrap();
        }
    }
    assert_eq!(fixture.findings(), []);
}

#[test]
fn several_damages_of_one_segment_are_all_named() {
    let fixture = fixture();
    let base = fixture.segments()[1];
    let path = fixture.file(base, "log");
    let size = batch(0, 0, &[0, 0], 100).len() as u64;
    // A record, a length, a leader epoch: each another way to be found.
    for (batch, inside) in [(0, 90), (3, 9), (7, 13)] {
        fixture
            .disk
            .flip_bits(&path, batch * size + inside, 1)
            .unwrap();
    }
    let found = fixture.findings();
    let costs: Vec<_> = found.iter().map(|finding| finding.costs).collect();
    let holds = |batch: i64| {
        let offset = base + batch * STEP;
        let of = |costs: &Costs| matches!(costs, Costs::Offsets(from, to) if (*from..*to).contains(&offset));
        costs.iter().filter(|costs| of(costs)).count()
    };
    assert_eq!([0, 1, 3, 5, 7].map(holds), [1, 0, 1, 0, 1], "{found:?}");
}

#[test]
fn missing_short_and_long_files_are_named() {
    let fixture = fixture();
    let segments = fixture.segments();
    let size = batch(0, 0, &[0, 0], 100).len() as u64;
    let (gone, short, long) = (
        fixture.file(segments[0], "log"),
        fixture.file(segments[1], "log"),
        fixture.file(segments[2], "log"),
    );
    fixture.disk.remove_file(&gone).unwrap();
    fixture.set_len(&short, 2 * size + 100);
    let end = fixture.length(&long);
    fixture.set_len(&long, end + 9);
    let found = fixture.findings();
    let what: Vec<_> = found
        .iter()
        .map(|finding| (&finding.file, finding.position, finding.costs))
        .collect();
    let beyond = what[2].2;
    assert!(matches!(beyond, Costs::Harmless(_)));
    let expected = [
        (&gone, None, Costs::Offsets(segments[0], segments[1])),
        (
            &short,
            Some(2 * size + 100),
            Costs::Offsets(segments[1] + 2 * STEP, segments[2]),
        ),
        (&long, Some(end), beyond),
    ];
    assert_eq!(what, expected);
}

#[test]
fn a_damaged_index_costs_nothing_and_is_built_again_when_asked() {
    let fixture = fixture();
    let base = fixture.segments()[0];
    let path = fixture.file(base, "index");
    let other = fixture.file(fixture.segments()[1], "index");
    let mut good = vec![0; fixture.length(&path) as usize];
    let file = fixture.disk.open(&path, OpenMode::Write).unwrap();
    file.read_at(&mut good, 0).unwrap();
    let mut foreign = vec![0; fixture.length(&other) as usize];
    let from = fixture.disk.open(&other, OpenMode::Read).unwrap();
    from.read_at(&mut foreign, 0).unwrap();
    let flipped: Vec<u8> = good
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ u8::from(at == 40))
        .collect();
    // Undamaged in itself, but not of these bytes: another checksum, another position.
    let lying = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let checked = bytes.len() - 4;
        let checksum = crc32c::crc32c(&bytes[..checked]).to_be_bytes();
        bytes[checked..].copy_from_slice(&checksum);
        bytes
    };
    let appended = [&good[..], b"appended"].concat();
    let cut = good[..good.len() / 2].to_vec();
    // The second point: its offset, position, largest timestamp, checksum.
    let second = 28 + 28;
    for bytes in [
        flipped,
        foreign,
        appended,
        cut,
        Vec::new(),
        lying(second + 27),
        lying(second + 15),
    ] {
        write_file_durably(&fixture.disk, &path, &bytes).unwrap();
        for rebuild in [false, true] {
            let found = findings(&fixture.check(), rebuild);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].file, path);
            assert_eq!(found[0].costs, Costs::DamagedIndex { rebuilt: rebuild });
        }
        assert_eq!(fixture.findings(), []);
        let file = fixture.disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, good, "built as it was");
    }
    fixture.disk.remove_file(&path).unwrap();
    let found = findings(&fixture.check(), true);
    assert_eq!(found[0].costs, Costs::NoIndex { rebuilt: true });
    assert_eq!(fixture.findings(), []);
    let log = open(&fixture.disk, fixture.records.clone(), fixture.applied);
    assert_eq!(read_all(&log, fixture.id, 1 << 20), fixture.written);
}

#[test]
fn what_nobody_names_is_noted_and_costs_nothing() {
    let fixture = fixture();
    let stray = fixture.file(999, "log");
    let other = common::topics().join(partition(2, 0).topic.to_string());
    let mine = common::topics().join("notes.txt");
    fixture.disk.create_dir_all(&other.join("0")).unwrap();
    for path in [&stray, &mine] {
        write_file_durably(&fixture.disk, path, b"x").unwrap();
    }
    let mut found = fixture.findings();
    found.sort_by(|a, b| a.file.cmp(&b.file));
    let files: Vec<_> = found.iter().map(|finding| finding.file.clone()).collect();
    let mut expected = vec![stray, other.join("0"), mine];
    expected.sort();
    assert_eq!(files, expected);
    let harmless = |finding: &LogFinding| matches!(finding.costs, Costs::Harmless(_));
    assert!(found.iter().all(harmless));
}

#[test]
fn frames_after_the_checkpoint_say_what_is_needed() {
    let fixture = fixture();
    let segments = fixture.segments();
    let lsn = fixture.applied.next();
    for base in &segments[..2] {
        fixture
            .disk
            .flip_bits(&fixture.file(*base, "log"), 100, 1)
            .unwrap();
    }
    let costs = |check: &LogCheck| -> Vec<Costs> {
        let found = findings(check, false);
        found.iter().map(|finding| finding.costs).collect()
    };
    let unneeded = |costs: &Costs| matches!(costs, Costs::Unneeded(_));
    let partition = fixture.id;

    let mut check = fixture.check();
    let offset = segments[1];
    let start = LogOp::SetStart { partition, offset };
    check.apply(lsn, start).unwrap();
    let found = costs(&check);
    assert!(unneeded(&found[0]) && !unneeded(&found[1]), "{found:?}");

    let mut check = fixture.check();
    check
        .apply(lsn, LogOp::RemovePartition { partition })
        .unwrap();
    assert!(costs(&check).iter().all(unneeded));
    assert_eq!(check.partitions().count(), 0);

    // Replaced by a file that is not there.
    let mut check = fixture.check();
    let PartitionState::Live { segments, .. } = &fixture.records[0].state else {
        panic!("it is live")
    };
    let name = |base_offset, generation| mainstem_log::SegmentName {
        base_offset,
        generation,
    };
    let replace = ReplaceSegments {
        partition,
        replaced: vec![name(segments[0].base_offset, 0)],
        with: vec![mainstem_log::SegmentRecord {
            generation: 1,
            ..segments[0]
        }],
    };
    check.apply(lsn, LogOp::ReplaceSegments(replace)).unwrap();
    let found = findings(&check, false);
    let missing = found
        .iter()
        .find(|finding| finding.file.to_string_lossy().ends_with(".1.log"));
    let range = Costs::Offsets(segments[0].base_offset, segments[1].base_offset);
    assert_eq!(missing.unwrap().costs, range);
    assert_eq!(found.iter().filter(|one| unneeded(&one.costs)).count(), 1);
}

#[test]
fn frames_that_do_not_fit_are_refused_unless_some_are_missing() {
    let fixture = fixture();
    let partition = fixture.id;
    let lsn = fixture.applied.next();
    let op = |offset| LogOp::Append {
        begins_segment: false,
        partition,
        batch: batch(offset, 0, &[1], 10),
    };
    let mut check = fixture.check();
    check.apply(lsn, op(80)).unwrap();
    let error = check.apply(lsn.next(), op(85)).unwrap_err();
    assert!(
        matches!(
            error,
            LogError::NotDense {
                expected: 81,
                got: 85,
                ..
            }
        ),
        "{error}"
    );
    let unknown = LogOp::RemovePartition {
        partition: common::partition(9, 9),
    };
    let error = check.apply(lsn.next(), unknown.clone()).unwrap_err();
    assert!(matches!(error, LogError::UnknownPartition { .. }));
    check.skip();
    check.apply(lsn.next(), op(95)).unwrap();
    check.apply(lsn.next(), unknown).unwrap();
}

#[test]
fn what_frames_refer_to_is_read_where_it_stands() {
    let fixture = fixture();
    let log = open(&fixture.disk, fixture.records.clone(), fixture.applied);
    let mut writer = AheadWriter::new(&log);
    let (mut lsn, mut ops) = (fixture.applied, Vec::new());
    for offset in 80..90 {
        lsn = lsn.next();
        let bytes = batch(offset, 0, &[offset], 500);
        let op = if offset % 3 == 0 {
            let batch = AheadBatch {
                partition: fixture.id,
                placement: common::place(&log, fixture.id, &bytes),
                base_offset: offset,
                leader_epoch: 0,
                bytes,
            };
            let (reference, _) = writer.write(&[batch]).unwrap().remove(0);
            LogOp::AppendReference(reference)
        } else {
            let append = LogOp::Append {
                partition: fixture.id,
                batch: bytes,
                begins_segment: false,
            };
            common::placed(&log, append)
        };
        log.apply(lsn, op.clone()).unwrap();
        log.finish_group(lsn);
        ops.push((lsn, op));
    }
    let found = || {
        let mut check = fixture.check();
        for (lsn, op) in &ops {
            check.apply(*lsn, op.clone()).unwrap();
        }
        let damage = |finding: &LogFinding| matches!(finding.costs, Costs::Offsets(..));
        let found = findings(&check, false).into_iter().filter(damage);
        found
            .map(|finding| (finding.file, finding.position, finding.costs))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(), []);
    for (_, op) in &ops {
        let LogOp::AppendReference(reference) = op else {
            continue;
        };
        let name = format!("{:020}.log", reference.segment_base_offset);
        let file = fixture.dir().join(name);
        let offset = i64::from_be_bytes(reference.header[..8].try_into().unwrap());
        // In the header, in what the CRC leaves out, and in the records.
        for at in [0, 12, 200] {
            let position = reference.position + at;
            fixture.disk.flip_bits(&file, position, 1).unwrap();
            let named = (
                file.clone(),
                Some(reference.position),
                Costs::Offsets(offset, offset + 1),
            );
            assert_eq!(found(), [named]);
            fixture.disk.flip_bits(&file, position, 1).unwrap();
        }
    }
    // A frame that names another place than the batch has contradicts those before it.
    let (lsn, op) = ops
        .iter()
        .find(|(_, op)| matches!(op, LogOp::AppendReference(_)))
        .unwrap();
    let mut check = fixture.check();
    for (before, op) in ops.iter().filter(|(before, _)| before < lsn) {
        check.apply(*before, op.clone()).unwrap();
    }
    let LogOp::AppendReference(mut reference) = op.clone() else {
        unreachable!("it is one")
    };
    reference.position += 1;
    let refused = check.apply(*lsn, LogOp::AppendReference(reference));
    assert!(matches!(refused, Err(LogError::Misplaced { .. })));
}
