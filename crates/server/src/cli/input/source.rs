//! Where the bytes are: a file or standard input, plain, gzip or zip, told apart by their first bytes.

use crate::failure::Failure;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use zip::ZipArchive;

const BUFFER_BYTES: usize = 1 << 18;

/// Calls `read` with the plain bytes and the name they go by (of the file, or of the file in the archive), by which
/// their format is guessed. Calls `before_read` whenever all bytes that came are used up, and before it waits for more.
pub fn with_reader(
    file: Option<&Path>,
    before_read: &dyn Fn(),
    read: impl FnOnce(&mut dyn BufRead, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(path) = file else {
        return from_stream(
            buffered(std::io::stdin(), before_read),
            "standard input",
            read,
        );
    };
    let failed = |error: std::io::Error| Failure::io("read", path.display(), &error);
    let mut opened = File::open(path).map_err(failed)?;
    let mut magic = [0; 4];
    let is_zip = opened.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04";
    opened.rewind().map_err(failed)?;
    let name = path.display().to_string();
    if is_zip {
        return from_archive(opened, &name, read);
    }
    from_stream(buffered(opened, before_read), &name, read)
}

/// What is read piece by piece, with a call before each piece.
struct Told<'a, R> {
    bytes: R,
    before_read: &'a dyn Fn(),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.before_read)();
        self.bytes.read(buffer)
    }
}

fn buffered<R: Read>(bytes: R, before_read: &dyn Fn()) -> BufReader<Told<'_, R>> {
    BufReader::with_capacity(BUFFER_BYTES, Told { bytes, before_read })
}

fn from_stream(
    mut bytes: impl BufRead,
    name: &str,
    read: impl FnOnce(&mut dyn BufRead, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let start = bytes
        .fill_buf()
        .map_err(|error| Failure::io("read", name, &error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(bytes));
        return read(&mut unpacked, name.strip_suffix(".gz").unwrap_or(name));
    }
    if start.starts_with(b"PK\x03\x04") {
        let entry = zip::read::read_zipfile_from_stream(&mut bytes)
            .map_err(|error| not_an_archive(name, &error))?;
        let entry = entry.ok_or_else(|| {
            Failure::new("bad_input", format!("{name}: the archive is empty"), "")
        })?;
        let inner = entry.name().to_string();
        return read(&mut BufReader::with_capacity(BUFFER_BYTES, entry), &inner);
    }
    read(&mut bytes, name)
}

/// An archive must leave no doubt about which file is meant.
fn from_archive(
    file: File,
    name: &str,
    read: impl FnOnce(&mut dyn BufRead, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut archive = ZipArchive::new(file).map_err(|error| not_an_archive(name, &error))?;
    let files: Vec<String> = archive
        .file_names()
        .filter(|name| !name.ends_with('/'))
        .map(str::to_string)
        .collect();
    let [inner] = files.as_slice() else {
        let message = format!("{name} holds {} files instead of one", files.len());
        return Err(Failure::new(
            "bad_input",
            message,
            "unpack it, and give the file that is meant",
        ));
    };
    let entry = archive
        .by_name(inner)
        .map_err(|error| not_an_archive(name, &error))?;
    read(&mut BufReader::with_capacity(BUFFER_BYTES, entry), inner)
}

fn not_an_archive(name: &str, error: &zip::result::ZipError) -> Failure {
    Failure::new(
        "bad_input",
        format!("{name} cannot be unpacked: {error}"),
        "check that it was copied whole",
    )
}
