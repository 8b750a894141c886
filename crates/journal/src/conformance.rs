//! One suite per seam, which every implementation passes. Called from tests: a broken rule panics, naming it.

use crate::{Disk, Group, GroupBuilder, JournalError, Known, Lsn, Medium, OpenMode, Replay, View};
use std::io;
use std::path::Path;

/// Checks the contract of [`Disk`] and [`crate::DiskFile`] in `dir`, a directory that exists or can be made, and is empty.
pub fn disk(disk: &dyn Disk, dir: &Path) {
    let io = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            panic!("{what}: {error}");
        }
    };
    io("the whole contract", files(disk, &dir.join("files")));
    io("names", names(disk, &dir.join("names")));
    io("space", space(disk, &dir.join("space")));
    io(
        "removing everything",
        disk.remove_dir_all(&dir.join("files")),
    );
    assert!(!has(disk, dir, "files"), "a removed directory is gone");
    assert!(has(disk, dir, "names"), "and its neighbour is not");
}

fn has(disk: &dyn Disk, dir: &Path, name: &str) -> bool {
    let names = disk.list(dir);
    names.is_ok_and(|names| names.iter().any(|listed| listed == name))
}

fn files(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    disk.create_dir_all(dir)?;
    let inner = dir.join("made");
    assert!(
        disk.create_dir(&inner)? && !disk.create_dir(&inner)?,
        "a directory is made once"
    );
    assert_eq!(disk.list(dir)?, ["made"]);
    let missing = disk.create_dir(&inner.join("a").join("b")).err();
    assert_eq!(
        missing.map(|error| error.kind()),
        Some(io::ErrorKind::NotFound),
        "its parent must exist"
    );
    disk.sync_dir(dir)?;
    disk.remove_dir_all(&inner)?;
    let path = dir.join("a");
    for mode in [OpenMode::Read, OpenMode::Write] {
        let error = disk.open(&path, mode).err().map(|error| error.kind());
        assert_eq!(
            error,
            Some(io::ErrorKind::NotFound),
            "opening what is not there"
        );
    }
    let file = disk.open(&path, OpenMode::Create)?;
    assert!(file.is_empty()?);
    file.write_all_at(b"hello", 3)?;
    assert_eq!(file.len()?, 8, "a write behind the end fills up with zeros");
    let mut bytes = [9; 16];
    assert_eq!(
        file.read_at(&mut bytes, 0)?,
        8,
        "a read ends at the end of the file"
    );
    assert_eq!(&bytes[..8], b"\0\0\0hello");
    assert_eq!(file.read_at(&mut bytes, 8)?, 0);
    assert_eq!(
        file.read_at(&mut bytes, 1000)?,
        0,
        "a read behind the end finds nothing"
    );
    assert_eq!(file.read_at(&mut bytes[..2], 4)?, 2);
    assert_eq!(&bytes[..2], b"el");

    let other = disk.open(&path, OpenMode::Write)?;
    other.write_all_at(b"J", 3)?;
    assert_eq!(file.read_at(&mut bytes[..1], 3)?, 1);
    assert_eq!(
        bytes[0], b'J',
        "a write is seen through every handle at once"
    );
    other.sync_data()?;

    let reader = disk.open(&path, OpenMode::Read)?;
    assert!(
        reader.write_all_at(b"x", 0).is_err(),
        "a handle for reading does not write"
    );

    file.set_len(4)?;
    assert_eq!(reader.len()?, 4);
    file.set_len(6)?;
    assert_eq!(file.read_at(&mut bytes, 0)?, 6);
    assert_eq!(
        &bytes[..6],
        b"\0\0\0J\0\0",
        "what was cut off does not come back"
    );

    let again = disk.open(&path, OpenMode::WriteOrCreate)?;
    assert_eq!(again.len()?, 6, "what is there is taken as it is");
    let other = disk.open(&dir.join("other"), OpenMode::WriteOrCreate)?;
    other.write_all_at(b"x", 0)?;
    assert!(has(disk, dir, "other"), "what is not is created");
    disk.remove_file(&dir.join("other"))?;

    let again = disk.open(&path, OpenMode::Create)?;
    assert_eq!(again.len()?, 0, "creating what is there cuts it");
    Ok(())
}

fn names(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(&dir.join("inner"))?;
    for (name, byte) in [("b", b"b"), ("a", b"a"), ("c", b"c")] {
        disk.open(&dir.join(name), OpenMode::Create)?
            .write_all_at(byte, 0)?;
    }
    assert_eq!(
        disk.list(dir)?,
        ["a", "b", "c", "inner"],
        "names are sorted, directories among them"
    );
    let kept = disk.open(&dir.join("b"), OpenMode::Write)?;
    disk.rename(&dir.join("a"), &dir.join("b"))?;
    assert_eq!(disk.list(dir)?, ["b", "c", "inner"], "renaming replaces");
    let mut byte = [0];
    disk.open(&dir.join("b"), OpenMode::Read)?
        .read_at(&mut byte, 0)?;
    assert_eq!(&byte, b"a");
    kept.read_at(&mut byte, 0)?;
    assert_eq!(&byte, b"b", "an open handle keeps its file");
    disk.sync_dir(dir)?;
    disk.remove_file(&dir.join("c"))?;
    assert!(!has(disk, dir, "c"));
    for missing in [
        disk.remove_file(&dir.join("c")),
        disk.rename(&dir.join("c"), &dir.join("d")),
    ] {
        assert_eq!(
            missing.err().map(|error| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
    }
    assert_eq!(disk.list(&dir.join("inner"))?, Vec::<String>::new());
    let missing = disk
        .list(&dir.join("nowhere"))
        .err()
        .map(|error| error.kind());
    assert_eq!(missing, Some(io::ErrorKind::NotFound));
    assert!(
        disk.open(&dir.join("nowhere/x"), OpenMode::Create).is_err(),
        "no directory is made by accident"
    );
    Ok(())
}

fn space(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    let file = disk.open(&dir.join("a"), OpenMode::Create)?;
    file.write_all_at(b"abc", 0)?;
    file.allocate(100_000)?;
    assert_eq!(file.len()?, 100_000);
    file.allocate(10)?;
    assert_eq!(file.len()?, 100_000, "allocating never cuts");
    let mut bytes = [1; 4];
    assert_eq!(file.read_at(&mut bytes, 1)?, 4);
    assert_eq!(
        &bytes, b"bc\0\0",
        "allocated bytes are zeros, and nothing is overwritten"
    );
    assert!(disk.free_bytes(dir)? > 0);
    Ok(())
}

/// Opens a medium on what `open` closes over, again and again, with what is known to be durable.
pub type OpenMedium<'a> = &'a dyn Fn(Known) -> Result<(Box<dyn Medium>, Replay), JournalError>;

/// Checks the contract of [`Medium`], on a fresh journal that `open` makes, and that it can open again after the one
/// before was dropped.
pub fn medium(open: OpenMedium) {
    if let Err(error) = commits(open) {
        panic!("the medium fails: {error}");
    }
}

fn commits(open: OpenMedium) -> Result<(), JournalError> {
    let mut builder = GroupBuilder::new();
    let (mut medium, mut replay) = open(Known::default())?;
    assert!(replay.next_group()?.is_none(), "a fresh journal is empty");
    assert_eq!((medium.durable_lsn(), replay.last_lsn()), (Lsn(0), Lsn(0)));
    medium.mark_idle()?;
    assert!(medium.drive()?.is_empty(), "nothing comes of nothing");
    let id = medium.journal_id();

    for last in [2, 3, 9] {
        let first = medium.durable_lsn().next().0;
        for lsn in first..=last {
            medium.submit(group_of(&mut builder, lsn, 1))?;
        }
        assert_eq!(
            medium.durable_lsn(),
            Lsn(first - 1),
            "submitting makes nothing durable"
        );
        let durable = medium.drive()?;
        let lsns: Vec<u64> = durable.iter().map(|group| group.first_lsn().0).collect();
        assert_eq!(
            lsns,
            (first..=last).collect::<Vec<_>>(),
            "each group comes back once, in order"
        );
        durable.iter().for_each(check);
        assert_eq!(medium.durable_lsn(), Lsn(last));
    }
    medium.submit(group_of(&mut builder, 10, 40))?;
    assert_eq!(
        medium
            .drive()?
            .iter()
            .map(Group::last_lsn)
            .collect::<Vec<_>>(),
        [Lsn(49)]
    );

    let refused = medium.submit(group_of(&mut builder, 51, 1));
    assert!(
        matches!(
            refused,
            Err(JournalError::OutOfOrder {
                expected: Lsn(50),
                got: Lsn(51)
            })
        ),
        "LSNs are dense"
    );
    builder.begin_frame(Lsn(50));
    builder.section(0, View::Log, |out| {
        out.resize(out.len() + medium.max_payload_bytes(), 7)
    });
    builder.end_frame();
    let refused = medium.submit(builder.seal());
    assert!(
        matches!(refused, Err(JournalError::GroupTooLarge { .. })),
        "what is too large is refused: {refused:?}"
    );
    medium.submit(group_of(&mut builder, 50, 1))?;
    medium.drive()?;
    let mut steps = 0;
    while medium.has_background_work() {
        assert!(medium.drive()?.is_empty());
        steps += 1;
        assert!(steps < 10_000, "background work comes to an end");
    }
    medium.mark_idle()?;
    medium.recycle(Lsn(20))?;
    drop(medium);

    let known = Known {
        checkpoint: Lsn(20),
        views: Lsn(30),
        journal_id: Some(id),
    };
    let (medium, mut replay) = open(known)?;
    assert_eq!(
        (medium.journal_id(), medium.durable_lsn(), replay.last_lsn()),
        (id, Lsn(50), Lsn(50))
    );
    let mut seen = Lsn(20);
    while let Some(group) = replay.next_group()? {
        check(&group);
        assert!(
            group.first_lsn() <= seen.next() && group.last_lsn() > seen,
            "replay is in order and dense"
        );
        seen = group.last_lsn();
    }
    assert_eq!(seen, Lsn(50), "everything above the checkpoint is replayed");
    let (read, total) = replay.progress();
    assert_eq!(read, total);
    drop(medium);

    let ahead = open(Known {
        checkpoint: Lsn(20),
        views: Lsn(51),
        journal_id: Some(id),
    })
    .map(drop);
    assert!(
        matches!(
            ahead,
            Err(JournalError::ViewAhead {
                at: Lsn(51),
                end: Lsn(50),
                ..
            })
        ),
        "a view ahead is damage"
    );
    let foreign = open(Known {
        journal_id: Some(!id),
        ..known
    })
    .map(drop);
    assert!(
        matches!(foreign, Err(JournalError::ForeignViews { found, expected }) if found == id && expected == !id),
        "views of another journal are refused"
    );
    Ok(())
}

fn group_of(builder: &mut GroupBuilder, first: u64, frames: u64) -> crate::SealedGroup {
    for lsn in first..first + frames {
        builder.begin_frame(Lsn(lsn));
        builder.section(lsn as u16, View::Log, |out| {
            out.extend_from_slice(&body(lsn))
        });
        builder.section(0, View::Store, |_| ());
        builder.end_frame();
    }
    builder.seal()
}

fn body(lsn: u64) -> Vec<u8> {
    lsn.to_le_bytes().repeat(1 + lsn as usize % 700)
}

fn check(group: &Group) {
    assert_eq!(group.frames().count() as u32, group.frame_count());
    for frame in group.frames() {
        let sections: Vec<_> = frame.sections().collect();
        assert_eq!(sections.len(), 2);
        assert_eq!(
            (sections[0].shard, sections[0].view),
            (frame.lsn.0 as u16, View::Log)
        );
        assert_eq!(
            sections[0].body,
            body(frame.lsn.0),
            "what is read is what was written"
        );
        assert_eq!((sections[1].view, sections[1].body.len()), (View::Store, 0));
    }
}
