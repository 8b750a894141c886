//! Broken rows, put aside: one JSON object a line.

use crate::cli::input::Broken;
use crate::failure::Failure;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file of broken rows.
pub struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Rejects {
    pub fn create(path: &Path) -> Result<Rejects, Failure> {
        let file =
            File::create(path).map_err(|error| Failure::io("write", path.display(), &error))?;
        Ok(Rejects {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
        })
    }

    pub fn write(&mut self, broken: &Broken) -> Result<(), Failure> {
        let line = json!({ "line": broken.line, "error": broken.why, "row": broken.text });
        writeln!(self.file, "{line}")
            .map_err(|error| Failure::io("write", self.path.display(), &error))
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.file
            .flush()
            .map_err(|error| Failure::io("write", self.path.display(), &error))
    }
}
