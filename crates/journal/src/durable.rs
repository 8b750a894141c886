//! How a small file or a new name is made durable, in one place.

use crate::error::At;
use crate::{Disk, JournalError, OpenMode};
use std::path::Path;

/// Gives a file its final name and makes the name durable. The file's bytes must have been synced before.
pub fn durable_rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), JournalError> {
    disk.rename(from, to).at("renaming", from)?;
    disk.sync_dir(directory_of(to))
        .at("syncing the directory of", to)
}

/// Replaces a file by one with these bytes: after a crash either the old or the new one is there, whole, and once this
/// has returned, the new one. The bytes pass through `<path>.tmp`.
pub fn write_file_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    let file = disk
        .open(temporary, OpenMode::Create)
        .at("creating", temporary)?;
    file.write_all_at(bytes, 0).at("writing", temporary)?;
    file.sync_data().at("syncing", temporary)?;
    durable_rename(disk, temporary, path)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
