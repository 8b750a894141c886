//! What the disk itself can do: the limit that benchmarks are measured against.
//!
//! Not used by the journal. It stands here so that every benchmark measures the same limit in the same way.

use crate::error::At;
use crate::{Disk, DiskFile, JournalError, OpenMode, RealDisk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The sizes of which the best is the limit.
pub const LIMIT_SIZES_BYTES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

const FILE_BYTES: u64 = 64 << 20;

/// The disk's limit in bytes per second: the best of 64 KiB, 256 KiB and 1 MiB overwrites of a written-through file in
/// `dir`, each followed by fdatasync. Takes about three seconds; the file is removed afterwards.
pub fn disk_limit(dir: &Path) -> Result<f64, JournalError> {
    let mut file = Overwrites::new(dir)?;
    let mut best = 0.0f64;
    for size_bytes in LIMIT_SIZES_BYTES {
        best = best.max(
            file.run(size_bytes, Duration::from_secs(1))?
                .bytes_per_second(),
        );
    }
    Ok(best)
}

/// A written-through file that is overwritten again and again.
pub struct Overwrites {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    position: u64,
}

/// What a run of overwrites took, each with its sync.
#[derive(Clone, Debug)]
pub struct Overwritten {
    /// Size of each.
    pub size_bytes: usize,
    /// The time of each, in order.
    pub times: Vec<Duration>,
}

impl Overwritten {
    /// Bytes per second over the whole run.
    pub fn bytes_per_second(&self) -> f64 {
        let seconds: f64 = self.times.iter().map(Duration::as_secs_f64).sum();
        (self.size_bytes * self.times.len()) as f64 / seconds.max(1e-9)
    }

    /// The time that this part of the overwrites, 0 to 1, stayed within.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let index = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
        sorted.get(index).copied().unwrap_or_default()
    }
}

impl Overwrites {
    /// Makes the file in `dir` and writes it through.
    pub fn new(dir: &Path) -> Result<Overwrites, JournalError> {
        let path = dir.join(format!("limit-{}.tmp", std::process::id()));
        let file = RealDisk
            .open(&path, OpenMode::Create)
            .at("creating", &path)?;
        let zeros = vec![0; 1 << 20];
        for position in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, position).at("writing", &path)?;
        }
        file.sync_data().at("syncing", &path)?;
        Ok(Overwrites {
            path,
            file,
            position: 0,
        })
    }

    /// Overwrites `size_bytes` at a time, each followed by fdatasync, for about `time`.
    pub fn run(&mut self, size_bytes: usize, time: Duration) -> Result<Overwritten, JournalError> {
        let bytes: Vec<u8> = (0..size_bytes).map(|i| (i * 31 + 7) as u8).collect();
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < time {
            if self.position + size_bytes as u64 > FILE_BYTES {
                self.position = 0;
            }
            let start = Instant::now();
            self.file
                .write_all_at(&bytes, self.position)
                .at("writing", &self.path)?;
            self.file.sync_data().at("syncing", &self.path)?;
            times.push(start.elapsed());
            self.position += size_bytes as u64;
        }
        Ok(Overwritten { size_bytes, times })
    }
}

impl Drop for Overwrites {
    fn drop(&mut self) {
        // A benchmark's leftover does no harm.
        let _ = RealDisk.remove_file(&self.path);
    }
}
