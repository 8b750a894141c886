//! What the disk and loopback themselves can do: the limits that benchmarks are measured against.
//!
//! Not used by the journal. It stands here so that every benchmark measures the same limits in the same way.

use crate::error::At;
use crate::{Disk, DiskFile, JournalError, OpenMode, RealDisk};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The sizes of which the best is the limit.
pub const LIMIT_SIZES_BYTES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

/// What a sync is timed with: the least that is written at a time.
pub const SYNC_BYTES: usize = 4 << 10;

const FILE_BYTES: u64 = 64 << 20;

/// The disk's limit in bytes per second: the best of 64 KiB, 256 KiB and 1 MiB overwrites of a written-through file in
/// `dir`, each followed by fdatasync. Takes about three seconds; the file is removed afterwards.
pub fn disk_limit(dir: &Path) -> Result<f64, JournalError> {
    disk_limit_within(dir, Duration::from_secs(3))
}

/// The same in about `time`.
pub fn disk_limit_within(dir: &Path, time: Duration) -> Result<f64, JournalError> {
    let mut file = Overwrites::new(dir)?;
    let each = time / LIMIT_SIZES_BYTES.len() as u32;
    let mut best = 0.0f64;
    for size_bytes in LIMIT_SIZES_BYTES {
        best = best.max(file.run(size_bytes, each)?.bytes_per_second());
    }
    Ok(best)
}

/// How long the disk of `dir` takes to make a little durable: overwrites of 4 KiB of a written-through file for about
/// `time`, each followed by fdatasync. The limit of every latency is a quantile of these.
pub fn sync_times(dir: &Path, time: Duration) -> Result<Overwritten, JournalError> {
    Overwrites::new(dir)?.run(SYNC_BYTES, time)
}

/// What loopback can do in bytes per second, all together: plain copies of 1 MiB at a time through `streams` sockets at
/// once, from one buffer into another, for about `time`.
pub fn loopback_limit(streams: usize, time: Duration) -> std::io::Result<f64> {
    const BUFFER_BYTES: usize = 1 << 20;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let send = |begun: Instant| {
        let mut socket = TcpStream::connect(address)?;
        let buffer = vec![7; BUFFER_BYTES];
        while begun.elapsed() < time {
            socket.write_all(&buffer)?;
        }
        Ok(())
    };
    let receive = |mut socket: TcpStream| {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut bytes = 0u64;
        loop {
            match socket.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes += count as u64,
            }
        }
    };
    let begun = Instant::now();
    let bytes = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..streams).map(|_| scope.spawn(|| send(begun))).collect();
        let mut receivers = Vec::new();
        for _ in 0..streams {
            let (socket, _) = listener.accept()?;
            receivers.push(scope.spawn(|| receive(socket)));
        }
        for sender in senders {
            ended(sender)?;
        }
        receivers
            .into_iter()
            .map(ended)
            .sum::<std::io::Result<u64>>()
    })?;
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}

fn ended<T>(thread: std::thread::ScopedJoinHandle<'_, std::io::Result<T>>) -> std::io::Result<T> {
    thread.join().unwrap_or_else(|_| {
        Err(std::io::Error::other(
            "a thread of the measurement panicked",
        ))
    })
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
