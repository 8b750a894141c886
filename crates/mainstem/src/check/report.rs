//! What a check says.

use serde::Serialize;
use std::path::PathBuf;

/// Whether something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// A file is not what was written.
    Damage,
    /// Nothing is wrong: what a crash leaves behind, and what belongs to nobody.
    Note,
}

/// One thing that a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it is damage.
    pub grade: Grade,
    /// The file or directory, relative to the data directory.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The frame it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
    /// What was found there.
    pub what: String,
    /// What it costs, in words.
    pub affects: String,
    /// The topic it costs something, by name, or by id where the name is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The partition of that topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The first offset that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_offset: Option<i64>,
    /// The first offset after those that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_offset: Option<i64>,
    /// The handlers it costs something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<String>,
    /// It can be built again from the rest of the directory.
    pub derived: bool,
    /// That has been done.
    pub rebuilt: bool,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Journal files.
    pub journal_files: u64,
    /// Groups of frames in them.
    pub journal_groups: u64,
    /// Partitions.
    pub partitions: u64,
    /// Segments of partitions.
    pub segments: u64,
    /// Batches of records in them.
    pub batches: u64,
    /// Files of the store.
    pub store_files: u64,
    /// Keys in them.
    pub store_keys: u64,
    /// Topics in the catalogue.
    pub topics: u64,
    /// Handlers in the catalogue.
    pub handlers: u64,
    /// Files of handlers' code.
    pub module_files: u64,
    /// Bytes of journal, segments and store.
    pub bytes: u64,
}

/// What a check has found out about a data directory.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Whether nothing is damaged, or all that was has been built again.
    pub clean: bool,
    /// What is damaged comes first.
    pub findings: Vec<Finding>,
    /// Findings that were only counted, because there were too many of them in one place.
    pub unnamed: u64,
    /// The last frame of the journal that can be read.
    pub last_lsn: u64,
    /// Recovery begins after this frame.
    pub checkpoint_lsn: u64,
    /// How much was looked at.
    pub checked: Checked,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is being read: the store, the journal, the segments.
    pub part: &'static str,
    /// How much of it has been read, in bytes.
    pub read_bytes: u64,
    /// How much there is.
    pub total_bytes: u64,
}
