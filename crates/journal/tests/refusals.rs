//! What the journal refuses to open or to go on with, and what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use mainstem_journal::disk::Op;
use mainstem_journal::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/data/journal";

fn open(
    disk: &MemoryDisk,
    entropy: u128,
    known: Known,
) -> Result<(FileMedium, Replay), JournalError> {
    let options = JournalOptions {
        file_bytes: 64 << 10,
        max_spare_files: 4,
        entropy,
    };
    FileMedium::open(Arc::new(disk.clone()), Path::new(DIR), options, known)
}

fn commit(medium: &mut FileMedium, bytes: usize) -> Result<Lsn, JournalError> {
    let mut builder = GroupBuilder::new();
    builder.begin_frame(medium.durable_lsn().next());
    builder.section(1, View::Log, |out| {
        out.extend(std::iter::repeat_n(7, bytes))
    });
    builder.end_frame();
    medium.submit(builder.seal())?;
    medium.drive()?;
    Ok(medium.durable_lsn())
}

/// A journal of several files.
fn written(frames: usize) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let (mut medium, _) = open(&disk, 5, Known::default()).unwrap();
    for _ in 0..frames {
        commit(&mut medium, 10_000).unwrap();
    }
    medium.mark_idle().unwrap();
    disk
}

fn journal_files(disk: &MemoryDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    names
        .iter()
        .filter(|name| name.ends_with(".journal"))
        .map(|name| Path::new(DIR).join(name))
        .collect()
}

fn refusal(disk: &MemoryDisk, known: Known) -> JournalError {
    match open(disk, 6, known) {
        Ok((medium, _)) => panic!("opened up to {}", medium.durable_lsn()),
        Err(error) => error,
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let disk = written(1);
    let path = &journal_files(&disk)[0];
    let file = disk.open(path, OpenMode::Write).unwrap();
    let mut head = [0; 12];
    file.read_at(&mut head, 0).unwrap();
    head[8] = 9;
    file.write_all_at(&head, 0).unwrap();
    file.write_all_at(&crc32c::crc32c(&head).to_le_bytes(), 12)
        .unwrap();
    let error = refusal(&disk, Known::default());
    assert!(
        matches!(
            error,
            JournalError::NewerVersion {
                version: 9,
                supported: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("use a newer mainstem"));
}

#[test]
fn a_damaged_file_header_is_named() {
    let disk = written(1);
    let path = &journal_files(&disk)[0];
    disk.flip_bits(path, 30, 4).unwrap();
    let error = refusal(&disk, Known::default());
    assert!(
        matches!(&error, JournalError::Damaged { file, position: 0, lsn: Lsn(1), .. } if file == path),
        "{error}"
    );
}

#[test]
fn a_damaged_file_header_is_no_torn_tail() {
    let count = journal_files(&written(20)).len();
    for index in 0..count {
        let disk = written(20);
        let path = &journal_files(&disk)[index];
        disk.flip_bits(path, 30, 4).unwrap();
        let error = refusal(&disk, Known::default());
        assert!(
            matches!(&error, JournalError::Damaged { file, position: 0, .. } if file == path),
            "file {index}: {error}"
        );
    }
}

#[test]
fn damage_where_replay_begins_is_named_also_at_the_beginning_of_a_file() {
    let count = journal_files(&written(20)).len();
    for index in 1..count {
        let disk = written(20);
        let files = journal_files(&disk);
        let file = disk.open(&files[index], OpenMode::Read).unwrap();
        let mut head = [0; 48];
        file.read_at(&mut head, 4096).unwrap();
        let first = u64::from_le_bytes(head[24..32].try_into().unwrap());
        if head[44..48] == [0; 4] {
            // It lies ready, or begins with a group without frames.
            continue;
        }
        // The checkpoint has passed all that comes before, and those files are given back.
        let known = Known {
            checkpoint: Lsn(first - 1),
            views: Lsn(first - 1),
            journal_id: None,
        };
        let path = &files[index];
        files[..index]
            .iter()
            .for_each(|file| disk.remove_file(file).unwrap());
        disk.flip_bits(path, 4096 + 1_000, 4).unwrap();
        let error = refusal(&disk, known);
        assert!(
            matches!(&error, JournalError::Damaged { file, position: 4096, lsn, .. } if file == path && *lsn == Lsn(first)),
            "file {index}: {error}"
        );
    }
}

#[test]
fn a_missing_file_is_noticed() {
    for index in 0..3 {
        let disk = written(20);
        let files = journal_files(&disk);
        assert!(files.len() > 3);
        disk.remove_file(&files[index]).unwrap();
        let error = refusal(&disk, Known::default());
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
        // A file that only holds what the checkpoint has passed is not missed.
        if index == 0 {
            open(
                &disk,
                7,
                Known {
                    checkpoint: Lsn(12),
                    views: Lsn(12),
                    journal_id: None,
                },
            )
            .unwrap();
        }
    }
}

#[test]
fn files_of_another_journal_are_refused() {
    let disk = written(20);
    let other = MemoryDisk::new(2);
    let (mut medium, _) = open(&other, 77, Known::default()).unwrap();
    for _ in 0..20 {
        commit(&mut medium, 10_000).unwrap();
    }
    let path = &journal_files(&disk)[1];
    let from = other.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; from.len().unwrap() as usize];
    from.read_at(&mut bytes, 0).unwrap();
    disk.open(path, OpenMode::Create)
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
    let error = refusal(&disk, Known::default());
    assert!(
        matches!(
            error,
            JournalError::ForeignFile {
                found: 77,
                expected: 5,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn views_of_another_journal_are_refused_before_anything_is_changed() {
    let disk = written(20);
    write_file_durably(&disk, &Path::new(DIR).join("new.spare"), b"").unwrap();
    disk.rename(
        &Path::new(DIR).join("new.spare"),
        &Path::new(DIR).join("new.tmp"),
    )
    .unwrap();
    let names = disk.list(Path::new(DIR)).unwrap();
    // Further than this journal: all but its last file would be passed.
    let foreign = Known {
        checkpoint: Lsn(19),
        views: Lsn(19),
        journal_id: Some(77),
    };
    let before = disk.counts();
    let error = refusal(&disk, foreign);
    assert!(
        matches!(
            error,
            JournalError::ForeignViews {
                found: 5,
                expected: 77
            }
        ),
        "{error}"
    );
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), names);
    for op in [Op::Write, Op::Rename, Op::Create] {
        assert_eq!(disk.counts().of(op), before.of(op));
    }
    let right = Known {
        checkpoint: Lsn(2),
        views: Lsn(2),
        journal_id: Some(5),
    };
    let (medium, _) = open(&disk, 6, right).unwrap();
    assert_eq!(medium.durable_lsn(), Lsn(20));
}

#[test]
fn an_empty_directory_behind_views_is_refused() {
    let error = refusal(
        &MemoryDisk::new(1),
        Known {
            checkpoint: Lsn(3),
            views: Lsn(4),
            journal_id: None,
        },
    );
    assert!(
        matches!(
            error,
            JournalError::ViewAhead {
                at: Lsn(4),
                end: Lsn(0),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_full_disk_poisons_only_when_no_file_is_left_and_opens_again() {
    let disk = MemoryDisk::new(1);
    let (mut medium, _) = open(&disk, 5, Known::default()).unwrap();
    while medium.has_background_work() {
        medium.drive().unwrap();
    }
    disk.set_capacity(disk.used_bytes());
    let sure = medium.space().unwrap();
    assert_eq!(sure.free_bytes, 0);
    let mut durable = Lsn(0);
    let error = loop {
        let writable = medium.space().unwrap().writable_bytes;
        match commit(&mut medium, 4000) {
            Ok(lsn) => durable = lsn,
            Err(error) => {
                assert_eq!(writable, 0, "what was said to be writable was");
                break error;
            }
        }
    };
    assert!(
        error.is_full() && durable > Lsn(10),
        "{error} after {durable}"
    );
    assert_eq!(medium.drive().unwrap_err().to_string(), error.to_string());
    drop(medium);
    // The reserve is there for recovery, although the disk is as full as before.
    let (mut medium, _) = open(&disk, 6, Known::default()).unwrap();
    assert_eq!(medium.durable_lsn(), durable);
    commit(&mut medium, 4000).unwrap();
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = written(3);
    let (mut medium, _) = open(&disk, 6, Known::default()).unwrap();
    disk.inject(Op::Sync, 0, 1, std::io::ErrorKind::Other);
    let error = commit(&mut medium, 10).unwrap_err().to_string();
    let syncs = disk.counts().of(Op::Sync);
    for again in [
        medium.drive().err(),
        medium.mark_idle().err(),
        medium.recycle(Lsn(1)).err(),
    ] {
        assert_eq!(again.unwrap().to_string(), error);
    }
    assert_eq!(disk.counts().of(Op::Sync), syncs);
    assert_eq!(medium.durable_lsn(), Lsn(3));
}

#[test]
fn a_group_as_large_as_a_file_fits_and_a_larger_one_is_refused() {
    let disk = MemoryDisk::new(1);
    let (mut medium, _) = open(&disk, 5, Known::default()).unwrap();
    let most = medium.max_payload_bytes() - 11;
    assert_eq!(commit(&mut medium, most).unwrap(), Lsn(1));
    assert!(matches!(
        commit(&mut medium, most + 1),
        Err(JournalError::GroupTooLarge { .. })
    ));
    assert_eq!(
        commit(&mut medium, 10).unwrap(),
        Lsn(2),
        "a refusal harms nothing"
    );
    drop(medium);
    disk.crash_process();
    // Both frames may have to be written again, and then need a larger file.
    let (_, mut replay) = open(&disk, 6, Known::default()).unwrap();
    let sizes: Vec<usize> = std::iter::from_fn(|| replay.next_group().unwrap())
        .map(|group| group.payload_bytes())
        .collect();
    assert_eq!(sizes, [most + 11, 21]);
}

#[test]
fn one_sync_makes_all_groups_durable() {
    let disk = MemoryDisk::new(1);
    let (mut medium, _) = open(&disk, 5, Known::default()).unwrap();
    while medium.has_background_work() {
        medium.drive().unwrap();
    }
    let before = disk.counts();
    let mut builder = GroupBuilder::new();
    for lsn in 1..=8 {
        builder.begin_frame(Lsn(lsn));
        builder.section(1, View::Log, |out| out.push(lsn as u8));
        builder.end_frame();
        medium.submit(builder.seal()).unwrap();
    }
    assert_eq!(medium.drive().unwrap().len(), 8);
    let after = disk.counts();
    assert_eq!(after.of(Op::Sync) - before.of(Op::Sync), 1);
    assert_eq!(after.of(Op::Write) - before.of(Op::Write), 8);
}

#[test]
fn a_running_journal_makes_no_new_files() {
    let disk = MemoryDisk::new(1);
    let (mut medium, _) = open(&disk, 5, Known::default()).unwrap();
    let mut after_warming_up = 0;
    for round in 0..400 {
        let lsn = commit(&mut medium, 9_000).unwrap();
        if round % 12 == 0 {
            medium.recycle(lsn).unwrap();
        }
        if round == 100 {
            after_warming_up = disk.counts().of(Op::Create);
        }
    }
    assert_eq!(
        disk.counts().of(Op::Create),
        after_warming_up,
        "files are recycled"
    );
}

/// A journal whose first file is full, and the LSN it ends with; the next group begins the second file.
fn full_file() -> (MemoryDisk, FileMedium, Lsn) {
    let disk = MemoryDisk::new(1);
    let (mut medium, _) = open(&disk, 5, Known::default()).unwrap();
    let full = (0..5).map(|_| commit(&mut medium, 10_000).unwrap());
    let full = full.last().unwrap();
    (disk, medium, full)
}

#[test]
fn a_torn_first_group_behind_a_checkpoint_is_cut() {
    let (disk, mut medium, checkpoint) = full_file();
    commit(&mut medium, 10_000).unwrap();
    let path = &journal_files(&disk)[1];
    // The header of the group is there, the rest of it is not.
    disk.flip_bits(path, 4096 + 2000, 1).unwrap();
    let known = Known {
        checkpoint,
        views: checkpoint,
        journal_id: Some(5),
    };
    let (medium, _) = open(&disk, 6, known).unwrap();
    assert_eq!(medium.durable_lsn(), checkpoint);
}

#[test]
fn a_first_group_that_is_not_synced_may_go_while_it_is_recovered() {
    for ops in 0..40 {
        for seed in 0..20 {
            let (disk, mut medium, checkpoint) = full_file();
            while medium.has_background_work() {
                medium.drive().unwrap();
            }
            disk.inject(Op::Sync, 0, 1, std::io::ErrorKind::Other);
            commit(&mut medium, 10_000).unwrap_err();
            drop(medium);
            disk.crash_process();
            let known = Known {
                checkpoint,
                views: checkpoint,
                journal_id: Some(5),
            };
            disk.halt_after(ops);
            let _ = open(&disk, 6, known);
            disk.crash_power(seed);
            let (medium, _) = open(&disk, 7, known)
                .unwrap_or_else(|error| panic!("after {ops} operations, seed {seed}: {error}"));
            assert!(medium.durable_lsn() >= checkpoint);
        }
    }
}
