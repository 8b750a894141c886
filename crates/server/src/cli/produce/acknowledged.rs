//! What has come back: the answers, counted as they come and told while the command waits.

use super::at_line;
use crate::cli::progress::{Counts, Progress};
use crate::failure::Failure;
use mainstem_client::Delivery;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// How many records are where, for everybody to read.
#[derive(Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    pub rejected: AtomicU64,
}

impl Counters {
    pub fn counts(&self) -> Counts {
        Counts {
            // In this order, so that never more are acknowledged than sent.
            acknowledged: self.acknowledged.load(Ordering::Acquire),
            sent: self.sent.load(Ordering::Acquire),
            rejected: self.rejected.load(Ordering::Acquire),
        }
    }
}

/// What was acknowledged in one partition.
pub struct InPartition {
    pub records: u64,
    pub first: i64,
    pub last: i64,
}

pub type Partitions = BTreeMap<u32, InPartition>;

/// Waits for the answers, in the order of sending.
pub struct Acknowledged {
    pub counters: Arc<Counters>,
    deliveries: mpsc::UnboundedSender<(u64, Delivery)>,
    waiting: tokio::task::JoinHandle<(Partitions, Result<(), Failure>)>,
}

impl Acknowledged {
    pub fn start() -> Acknowledged {
        let counters = Arc::new(Counters::default());
        // Bounded by the client, which lets only so many bytes be under way.
        let (deliveries, mut expected) = mpsc::unbounded_channel::<(u64, Delivery)>();
        let counted = Arc::clone(&counters);
        let waiting = tokio::spawn(async move {
            let mut partitions = Partitions::new();
            while let Some((line, delivery)) = expected.recv().await {
                match delivery.await {
                    Ok(at) => {
                        let one = partitions.entry(at.partition).or_insert(InPartition {
                            records: 0,
                            first: at.offset,
                            last: at.offset,
                        });
                        one.records += 1;
                        one.last = at.offset;
                        counted.acknowledged.fetch_add(1, Ordering::Release);
                    }
                    // The first failure ends it: `expect` sees the closed channel.
                    Err(error) => return (partitions, Err(at_line(line, error))),
                }
            }
            (partitions, Ok(()))
        });
        Acknowledged {
            counters,
            deliveries,
            waiting,
        }
    }

    pub fn expect(&self, line: u64, delivery: Delivery) -> Result<(), Failure> {
        self.counters.sent.fetch_add(1, Ordering::Release);
        self.deliveries.send((line, delivery)).map_err(|_| {
            Failure::new(
                "not_acknowledged",
                format!("line {line} was sent, but an earlier one was not acknowledged"),
                "",
            )
        })
    }

    pub async fn end(self) -> (Partitions, Result<(), Failure>) {
        drop(self.deliveries);
        self.waiting.await.unwrap_or_else(|error| {
            (
                Partitions::new(),
                Err(Failure::new(
                    "internal",
                    format!("waiting for answers failed: {error}"),
                    "",
                )),
            )
        })
    }
}

/// Tells how far the command is, also while it waits for a server that is gone.
pub struct Telling {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// `trouble` says why records wait, when they do.
pub fn tell(
    counters: Arc<Counters>,
    every_ms: u64,
    trouble: impl Fn() -> Option<String> + Send + 'static,
) -> Telling {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let progress = Progress::new(every_ms);
        let mut ticks = tokio::time::interval(progress.every());
        loop {
            tokio::select! {
                _ = ticks.tick() => progress.say(counters.counts(), trouble().as_deref()),
                _ = &mut stopped => return progress.done(counters.counts()),
            }
        }
    });
    Telling { stop, task }
}

impl Telling {
    pub async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}
