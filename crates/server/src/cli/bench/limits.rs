//! What the machine can do, measured in the same run.

use crate::failure::Failure;
use mainstem_journal::limit::{Overwritten, disk_limit_within, loopback_limit, sync_times};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The limits that figures are held against.
#[derive(Debug)]
pub struct Limits {
    /// None where nobody said which disk is meant.
    pub disk: Option<Disk>,
    /// Bytes a second over loopback, by one stream and by as many as there are readers at the end.
    pub loopback: [f64; 2],
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// Overwrites with fdatasync.
    pub bytes_per_second: f64,
    /// How long fdatasync takes after 4 KiB.
    pub syncs: Overwritten,
}

impl Disk {
    pub fn sync_ms(&self, part: f64) -> f64 {
        self.syncs.quantile(part).as_secs_f64() * 1e3
    }
}

impl Limits {
    /// Measures for about `patience` each: the disk twice, loopback twice.
    pub async fn measure(
        dir: Option<PathBuf>,
        readers: usize,
        patience: Duration,
    ) -> Result<Limits, Failure> {
        super::say("what disk and loopback can do");
        let measured = tokio::task::spawn_blocking(move || {
            Self::measure_blocking(dir.as_deref(), readers, patience)
        });
        measured.await.unwrap_or_else(|error| {
            Err(Failure::new(
                "internal",
                format!("measuring the limits failed: {error}"),
                "",
            ))
        })
    }

    fn measure_blocking(
        dir: Option<&Path>,
        readers: usize,
        patience: Duration,
    ) -> Result<Limits, Failure> {
        let failed = |error: mainstem_journal::JournalError| {
            Failure::new(
                "io",
                format!("cannot measure what the disk can do: {error}"),
                "choose a folder with --dir that can be written to and has 64 MiB free",
            )
        };
        let disk = match dir {
            None => None,
            Some(dir) => Some(Disk {
                bytes_per_second: disk_limit_within(dir, patience).map_err(failed)?,
                syncs: sync_times(dir, patience).map_err(failed)?,
            }),
        };
        let loopback = |streams: usize| {
            loopback_limit(streams.max(1), patience / 3).map_err(|error| {
                Failure::new(
                    "io",
                    format!("cannot measure what loopback can do: {error}"),
                    "",
                )
            })
        };
        Ok(Limits {
            disk,
            loopback: [loopback(1)?, loopback(readers)?],
        })
    }

    /// Two measurements as one: disk and network wander, so what lies between them is held against both.
    pub fn with(self, other: Limits) -> Limits {
        let disk = match (self.disk, other.disk) {
            (Some(one), Some(other)) => {
                let mut syncs = one.syncs;
                syncs.times.extend(other.syncs.times);
                Some(Disk {
                    bytes_per_second: (one.bytes_per_second + other.bytes_per_second) / 2.0,
                    syncs,
                })
            }
            _ => None,
        };
        let [one, many] = self.loopback;
        let [other_one, other_many] = other.loopback;
        Limits {
            disk,
            loopback: [(one + other_one) / 2.0, (many + other_many) / 2.0],
        }
    }
}

/// Whether a folder is kept in memory, where a sync costs nothing.
pub fn is_in_memory(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(at, _)| dir.starts_with(at))
        // Of the same path the last counts: it covers the ones before.
        .max_by_key(|(at, _)| at.len())
        .map(|(_, kind)| kind);
    matches!(kind, Some("tmpfs" | "ramfs"))
}
