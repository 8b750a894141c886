//! What a data directory holds, and who may open it.
//!
//! ```text
//! D/meta.json                      format version and cluster id, written once
//! D/LOCK                           held (flock) while a process has the directory open; holds its process id
//! D/journal/                       the journal's files
//! D/topics/<topic id>/<partition>/ segments
//! D/store/                         the key-value store
//! D/modules/                       handler components by content hash, and their compiled code
//! D/ballast                        takes space, and is removed when the disk is full, so that what is left can be written
//! ```

use crate::Error;
use mainstem_engine::make_space;
use mainstem_journal::{Disk, write_file_durably};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The format this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// `meta.json`: what a directory says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the directory's format.
    pub format_version: u32,
    /// Made once, with the directory.
    pub cluster_id: Uuid,
    /// CRC-32C of the other two, as [`Meta::expected_crc`] has it. Directories of early versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<u32>,
}

impl Meta {
    /// The CRC-32C of `<format version> <cluster id>`.
    fn expected_crc(&self) -> u32 {
        mainstem_journal::crc32c(format!("{} {}", self.format_version, self.cluster_id).as_bytes())
    }
}

/// A data directory that this process has for itself. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    pub(crate) path: PathBuf,
    pub(crate) meta: Meta,
    _lock: File,
}

/// The lock of a directory, for whoever only looks at it.
pub(crate) struct DirectoryHold {
    _lock: File,
}

/// By these a directory is known for one of ours, whatever is missing.
const PARTS: [&str; 4] = ["meta.json", "journal", "store", "topics"];

/// Where a server that runs on the directory says how it is reached.
const ENDPOINTS: &str = "endpoints.json";

/// Opening a directory writes about so much, handlers and topics left out.
const SPACE_TO_OPEN_BYTES: u64 = 64 << 20;

/// What may lie in a directory before `meta.json` does, without making it somebody else's.
const OURS_BEFORE_META: [&str; 4] = ["LOCK", ENDPOINTS, "meta.json.tmp", "lost+found"];

impl DataDirectory {
    /// Takes the directory for this process, and makes it if it is new.
    pub(crate) fn take(path: &Path, disk: &dyn Disk) -> Result<DataDirectory, Error> {
        disk.create_dir_all(path)
            .map_err(io("make the data directory", path))?;
        refuse_foreign(path)?;
        let lock = lock(path, || make_space(disk, path, SPACE_TO_OPEN_BYTES))?;
        // Of a server that was killed: nobody listens there, or somebody else does.
        match std::fs::remove_file(path.join(ENDPOINTS)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the endpoints of an earlier server cannot be removed");
            }
            _ => {}
        }
        let meta = match read_meta(path)? {
            Some(meta) => meta,
            None => write_meta(path, disk)?,
        };
        let topics = path.join("topics");
        disk.create_dir_all(&topics).map_err(io("make", &topics))?;
        Ok(DataDirectory {
            path: path.to_path_buf(),
            meta,
            _lock: lock,
        })
    }

    /// Takes a directory that is there only to look at it: nothing is made, and `meta.json` need not be readable.
    pub(crate) fn look_at(path: &Path) -> Result<(DirectoryHold, Result<Meta, Error>), Error> {
        let found = PARTS.iter().any(|part| path.join(part).exists());
        if !found {
            let why = match path.exists() {
                true => "it holds nothing that mainstem writes",
                false => "there is no such directory",
            };
            return Err(Error::NotADataDirectory {
                dir: path.to_path_buf(),
                why: why.to_owned(),
            });
        }
        let hold = DirectoryHold {
            _lock: lock(path, || {})?,
        };
        let file = path.join("meta.json");
        let missing = || Error::DamagedMeta {
            file,
            why: "the file is missing".to_owned(),
        };
        Ok((
            hold,
            read_meta(path).and_then(|meta| meta.ok_or_else(missing)),
        ))
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.path.join("modules")
    }
}

/// An error of the operating system, with what was being done to what.
pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        doing,
        path,
        source,
    }
}

/// A folder with content but no `meta.json` belongs to somebody else: nothing is written into it.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    if path.join("meta.json").exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(io("list", path))? {
        let name = entry.map_err(io("list", path))?.file_name();
        if !OURS_BEFORE_META.iter().any(|ours| name == *ours) {
            return Err(Error::NotADataDirectory {
                dir: path.to_path_buf(),
                why: format!("it holds {} but no meta.json", name.to_string_lossy()),
            });
        }
    }
    Ok(())
}

/// The lock is the kernel's and ends with the process, however that ends; the id inside is only for the message.
fn lock(path: &Path, before_writing: impl FnOnce()) -> Result<File, Error> {
    let file_path = path.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file_path)
        .map_err(io("open", &file_path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut held = String::new();
            let _ = file.read_to_string(&mut held);
            let holder = match held.trim() {
                "" => "another process".to_string(),
                pid => format!("process {pid}"),
            };
            return Err(Error::InUse {
                dir: path.to_path_buf(),
                holder,
            });
        }
        Err(error) => return Err(io("lock", &file_path)(error.into())),
    }
    before_writing();
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io("write", &file_path))?;
    Ok(file)
}

fn read_meta(dir: &Path) -> Result<Option<Meta>, Error> {
    let file = dir.join("meta.json");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &file)(error)),
    };
    let damaged = |error: serde_json::Error| Error::DamagedMeta {
        file: file.clone(),
        why: error.to_string(),
    };
    // The version alone first: a newer format may have changed everything else.
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let version: Version = serde_json::from_str(&text).map_err(damaged)?;
    if version.format_version > FORMAT_VERSION {
        return Err(Error::NewerVersion {
            dir: dir.to_path_buf(),
            found: version.format_version,
            supported: FORMAT_VERSION,
        });
    }
    let meta: Meta = serde_json::from_str(&text).map_err(damaged)?;
    match meta.crc32c {
        Some(crc) if crc != meta.expected_crc() => Err(Error::DamagedMeta {
            file,
            why: "its checksum does not match".to_owned(),
        }),
        _ => Ok(Some(meta)),
    }
}

fn write_meta(dir: &Path, disk: &dyn Disk) -> Result<Meta, Error> {
    let mut meta = Meta {
        format_version: FORMAT_VERSION,
        cluster_id: Uuid::new_v4(),
        crc32c: None,
    };
    meta.crc32c = Some(meta.expected_crc());
    let file = dir.join("meta.json");
    let mut text = serde_json::to_vec_pretty(&meta).map_err(|error| Error::DamagedMeta {
        file: file.clone(),
        why: error.to_string(),
    })?;
    text.push(b'\n');
    write_file_durably(disk, &file, &text)?;
    Ok(meta)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use mainstem_journal::RealDisk;

    fn take(path: &Path) -> Result<DataDirectory, Error> {
        DataDirectory::take(path, &RealDisk)
    }

    #[test]
    fn the_cluster_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap().meta;
        assert_eq!(take(dir.path()).unwrap().meta, first);
    }

    #[test]
    fn a_second_holder_is_told_the_first_ones_process() {
        let dir = tempfile::tempdir().unwrap();
        let _held = take(dir.path()).unwrap();
        let error = take(dir.path()).unwrap_err();
        assert_eq!(error.code(), "data_dir_in_use");
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format_version": 99, "something": "new"}"#;
        std::fs::write(dir.path().join("meta.json"), text).unwrap();
        let error = take(dir.path()).unwrap_err();
        assert_eq!(error.code(), "data_dir_newer_version");
        assert_eq!(
            std::fs::read_to_string(dir.path().join("meta.json")).unwrap(),
            text
        );
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert_eq!(take(dir.path()).unwrap_err().code(), "not_a_data_dir");
        assert!(!dir.path().join("LOCK").exists());
    }

    #[test]
    fn damaged_meta_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("meta.json"), "{").unwrap();
        assert_eq!(take(dir.path()).unwrap_err().code(), "data_dir_damaged");
    }

    #[test]
    fn a_changed_cluster_id_is_damage_and_a_directory_without_a_checksum_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let meta = take(dir.path()).unwrap().meta;
        let file = dir.path().join("meta.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let id = meta.cluster_id.to_string();
        let other = match id.starts_with('0') {
            true => id.replacen('0', "1", 1),
            false => format!("0{}", &id[1..]),
        };
        std::fs::write(&file, text.replace(&id, &other)).unwrap();
        let error = take(dir.path()).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        std::fs::write(
            &file,
            format!(r#"{{"format_version": 1, "cluster_id": "{id}"}}"#),
        )
        .unwrap();
        assert_eq!(take(dir.path()).unwrap().meta.cluster_id, meta.cluster_id);
    }
}
