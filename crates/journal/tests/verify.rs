//! A check of a journal names every damage, not only the one at which recovery refuses. That it says the same as
//! recovery about the first is asserted by the simulation, at every opening.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use mainstem_journal::verify::{Seen, Verified, verify};
use mainstem_journal::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/data/journal";

fn open(disk: &MemoryDisk, entropy: u128) -> FileMedium {
    let options = JournalOptions {
        file_bytes: 64 << 10,
        max_spare_files: 4,
        entropy,
    };
    let (medium, _) = FileMedium::open(
        Arc::new(disk.clone()),
        Path::new(DIR),
        options,
        Known::default(),
    )
    .unwrap();
    medium
}

fn commit(medium: &mut FileMedium, bytes: usize) {
    let mut builder = GroupBuilder::new();
    builder.begin_frame(medium.durable_lsn().next());
    builder.section(1, View::Log, |out| {
        out.extend(std::iter::repeat_n(7, bytes))
    });
    builder.end_frame();
    medium.submit(builder.seal()).unwrap();
    medium.drive().unwrap();
}

/// Twenty frames of three blocks each, five in a file, and where each stands.
fn written() -> (MemoryDisk, Vec<(PathBuf, u64)>) {
    let disk = MemoryDisk::new(1);
    let mut medium = open(&disk, 5);
    for _ in 0..20 {
        commit(&mut medium, 10_000);
    }
    medium.mark_idle().unwrap();
    drop(medium);
    let found = check(&disk, None);
    assert_eq!(
        (&found.damage[..], found.groups.len()),
        (&[][..], 21),
        "with the empty one at the end"
    );
    let places = found.groups[..20].to_vec();
    (disk, places)
}

#[derive(Default)]
struct Found {
    damage: Vec<(PathBuf, u64, Lsn)>,
    resumed: Vec<Lsn>,
    groups: Vec<(PathBuf, u64)>,
    ignored: Vec<PathBuf>,
    torn: Vec<(u64, Lsn)>,
    verified: Verified,
}

fn check(disk: &MemoryDisk, known: Option<Known>) -> Found {
    let mut found = Found::default();
    let verified = verify(disk, Path::new(DIR), known, &mut |seen| match seen {
        Seen::Damage(JournalError::Damaged {
            file,
            position,
            lsn,
            ..
        }) => found.damage.push((file, position, lsn)),
        Seen::Damage(error) => panic!("{error}"),
        Seen::Resumed(lsn) => found.resumed.push(lsn),
        Seen::Group { file, position, .. } => found.groups.push((file.to_owned(), position)),
        Seen::Ignored { file, .. } => found.ignored.push(file.to_owned()),
        Seen::Torn { position, lsn, .. } => found.torn.push((position, lsn)),
        Seen::Progress {
            read_bytes,
            total_bytes,
        } => assert!(read_bytes <= total_bytes),
    });
    found.verified = verified.unwrap();
    found
}

#[test]
fn every_damaged_group_is_named_and_what_follows_is_read() {
    let (disk, places) = written();
    // Two by themselves, in payload and in header, and two that follow one another, across two files.
    for (index, inside) in [(2, 5000), (7, 20), (14, 3), (15, 9000)] {
        let (file, position) = &places[index];
        disk.flip_bits(file, position + inside, 1).unwrap();
    }
    let found = check(&disk, Some(Known::default()));
    let of = |index: usize, lsn| (places[index].0.clone(), places[index].1, Lsn(lsn));
    let expected = [of(2, 3), of(7, 8), of(14, 15), of(15, 16)];
    assert_eq!(found.damage, expected);
    assert_eq!(found.resumed, [Lsn(4), Lsn(9), Lsn(17)]);
    assert_eq!(found.groups.len(), 21 - 4);
    assert_eq!(found.verified.last_lsn, Lsn(20));
}

#[test]
fn a_damaged_file_header_costs_that_file_alone() {
    let (disk, places) = written();
    let (file, _) = &places[7];
    disk.flip_bits(file, 30, 1).unwrap();
    let found = check(&disk, Some(Known::default()));
    assert_eq!(found.damage, [(file.clone(), 0, Lsn(6))]);
    assert_eq!(found.resumed, [Lsn(11)]);
    assert_eq!(found.verified.last_lsn, Lsn(20));
}

#[test]
fn a_missing_file_is_named_where_another_says_that_it_was_there() {
    let (disk, _) = written();
    // Recovery begins a file that lists the others.
    drop(open(&disk, 6));
    let files = disk.list(Path::new(DIR)).unwrap();
    let journal = files.iter().filter(|name| name.ends_with(".journal"));
    let second = Path::new(DIR).join(journal.clone().nth(1).unwrap());
    disk.remove_file(&second).unwrap();
    let found = check(&disk, Some(Known::default()));
    assert_eq!(found.damage, [(second, 0, Lsn(6))]);
    assert_eq!(found.resumed, [Lsn(11)]);
}

#[test]
fn without_the_views_what_is_gone_at_the_front_is_not_missed() {
    let (disk, places) = written();
    disk.remove_file(&places[0].0).unwrap();
    assert_eq!(check(&disk, None).damage, []);
    let known = Known::default();
    assert_eq!(check(&disk, Some(known)).damage.len(), 1);
}

#[test]
fn a_torn_write_and_what_nobody_reads_are_no_damage() {
    let disk = MemoryDisk::new(1);
    let mut medium = open(&disk, 5);
    commit(&mut medium, 10_000);
    commit(&mut medium, 10_000);
    drop(medium);
    let (file, position) = check(&disk, None).groups[1].clone();
    disk.flip_bits(&file, position + 5000, 1).unwrap();
    let journal = disk.open(&file, OpenMode::Write).unwrap();
    journal
        .write_all_at(b"appended", journal.len().unwrap())
        .unwrap();
    write_file_durably(&disk, &Path::new(DIR).join("notes.txt"), b"mine").unwrap();
    let found = check(&disk, Some(Known::default()));
    assert_eq!(found.damage, []);
    assert_eq!(found.torn, [(position, Lsn(2))]);
    assert_eq!(found.ignored, [file, Path::new(DIR).join("notes.txt")]);
    assert_eq!(found.verified.last_lsn, Lsn(1));
}

#[test]
fn a_sector_that_cannot_be_read_is_named() {
    let (disk, _) = written();
    disk.inject(disk::Op::Read, 12, 1, std::io::ErrorKind::Other);
    let mut errors = 0;
    let verified = verify(
        &disk,
        Path::new(DIR),
        Some(Known::default()),
        &mut |seen| match seen {
            Seen::Damage(JournalError::Io { .. }) => errors += 1,
            Seen::Damage(error) => panic!("{error}"),
            _ => {}
        },
    );
    assert_eq!((errors, verified.unwrap().last_lsn), (1, Lsn(20)));
}

#[test]
fn the_newest_file_is_missed_once_the_next_one_lies_ready() {
    let disk = MemoryDisk::new(1);
    let mut medium = open(&disk, 5);
    commit(&mut medium, 100);
    drop(medium);
    // Recovery begins a file; the one after it is made in a quiet moment, before there is anything durable to claim.
    let mut medium = open(&disk, 6);
    while medium.has_background_work() {
        medium.drive().unwrap();
    }
    commit(&mut medium, 100);
    drop(medium);
    let files = disk.list(Path::new(DIR)).unwrap();
    let journal: Vec<_> = files
        .iter()
        .filter(|name| name.ends_with(".journal"))
        .collect();
    let newest = Path::new(DIR).join(journal[journal.len() - 2]);
    disk.remove_file(&newest).unwrap();
    let known = Known {
        checkpoint: Lsn(1),
        views: Lsn(1),
        journal_id: None,
    };
    let found = check(&disk, Some(known));
    assert_eq!(found.damage, [(newest, 0, Lsn(2))]);
}

#[test]
fn a_file_that_was_cut_is_no_torn_tail() {
    let disk = MemoryDisk::new(1);
    let mut medium = open(&disk, 5);
    for _ in 0..3 {
        commit(&mut medium, 10_000);
    }
    drop(medium);
    let (file, position) = check(&disk, None).groups[1].clone();
    let journal = disk.open(&file, OpenMode::Write).unwrap();
    let length = journal.len().unwrap();
    // Whether a group stood there nobody can tell.
    journal.set_len(length - 8192).unwrap();
    let cut = [(file.clone(), length - 8192, Lsn(4))];
    assert_eq!(check(&disk, Some(Known::default())).damage, cut);
    journal.set_len(position + 5000).unwrap();
    let found = check(&disk, Some(Known::default()));
    assert_eq!(found.damage, [(file, position + 5000, Lsn(2))]);
    assert_eq!(found.groups.len(), 1);
}
