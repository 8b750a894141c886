//! One phase: producers on one side, readers that follow on the other.

use super::BenchArguments;
use super::latencies::Latencies;
use super::plan::{Pace, Phase};
use super::produce::{Sending, produce};
use super::read::{Followed, Following};
use super::schedule::{Acknowledged, Schedule};
use super::server::OwnServer;
use crate::cli::progress::{Counts, Progress};
use crate::failure::Failure;
use mainstem_client::{Client, FetchOptions, Position, ProducerOptions};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What every phase is run with.
pub struct Load<'a> {
    pub client: &'a Client,
    pub topic: &'a Arc<str>,
    pub arguments: &'a BenchArguments,
    pub own: Option<&'a OwnServer>,
}

/// What came of a phase.
#[derive(Debug)]
pub struct Outcome {
    pub phase: Phase,
    /// Records due each second; none in a closed phase.
    pub due_per_second: Option<f64>,
    /// How long was measured.
    pub seconds: f64,
    pub produced: Acknowledged,
    /// By all readers together; none where there were no readers.
    pub read: Option<Latencies>,
    pub tail_readers: usize,
    /// What the server used while it was measured, where it is one of our own.
    pub cpu_seconds: Option<f64>,
}

impl Outcome {
    pub fn is_closed(&self) -> bool {
        self.phase.pace == Pace::Closed
    }

    /// Acknowledged while it was measured.
    pub fn records_per_second(&self) -> f64 {
        self.produced.in_time as f64 / self.seconds
    }
}

/// Nanoseconds since a phase began. Records carry them, so both sides are in this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What is going on, for everybody to see.
#[derive(Debug, Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    /// Nobody waits for the phase any more.
    pub stopped: AtomicBool,
}

/// Tells the threads of a phase when it is given up.
struct StopOnDrop(Arc<Counters>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
    }
}

impl Load<'_> {
    /// Runs a phase. `most` is what the closed phase before has given.
    pub async fn run(&self, phase: &Phase, most: Option<f64>) -> Result<Outcome, Failure> {
        let arguments = self.arguments;
        let due_per_second = match phase.pace {
            Pace::Closed => None,
            Pace::Rate(rate) => Some(rate),
            Pace::Load(part) => most.map(|most| most * part),
        };
        super::say(&format!(
            "{}: {} s to warm up, {} s measured",
            phase.name, arguments.warm_up, arguments.seconds
        ));
        // Readers first: they begin where the topic ends now.
        let mut following = Following::default();
        for _ in 0..arguments.tail_readers {
            let options = FetchOptions::new(self.topic.clone())
                .start(Position::Latest)
                .follow();
            following.streams.push(self.client.fetch(options).await?);
        }
        let mut producers = Vec::new();
        for _ in 0..arguments.producers {
            producers.push(self.client.producer(self.producer_options()).await?);
        }

        let clock = Clock(Instant::now());
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let window = ns(arguments.warm_up)..ns(arguments.warm_up + arguments.seconds);
        let counters = Arc::new(Counters::default());
        let _stop = StopOnDrop(Arc::clone(&counters));
        let followers = following.start(clock, window.clone());
        let mut sides = JoinSet::new();
        for (number, producer) in producers.into_iter().enumerate() {
            let sending = Sending {
                clock,
                schedule: Schedule {
                    window: window.clone(),
                    gap_ns: due_per_second.map(|rate| 1e9 / rate),
                    producer: number as u64,
                    producers: arguments.producers as u64,
                },
                topic: self.topic.clone(),
                record_bytes: arguments.record_bytes,
                keys: arguments.keys,
            };
            sides.spawn(produce(producer, sending, Arc::clone(&counters)));
        }
        // Ends with the phase, however that ends.
        let mut telling = JoinSet::new();
        telling.spawn(tell(Arc::clone(&counters), arguments.progress_ms));
        let cpu_seconds = self.cpu_seconds_within(clock, window);

        let produced = async {
            let mut produced = Acknowledged::new()?;
            while let Some(side) = sides.join_next().await {
                let side = side.map_err(|error| {
                    Failure::new("internal", format!("a producer failed: {error}"), "")
                })?;
                produced.add(&side?);
            }
            Ok::<_, Failure>(produced)
        };
        let (produced, cpu_seconds) = tokio::join!(produced, cpu_seconds);
        drop(telling);
        let produced = produced?;
        let read = match arguments.tail_readers {
            0 => None,
            _ => Some(followers.end(produced.sent).await?),
        };
        Ok(Outcome {
            phase: phase.clone(),
            due_per_second,
            seconds: arguments.seconds,
            produced,
            read: read.map(|Followed { latencies }| latencies),
            tail_readers: arguments.tail_readers,
            cpu_seconds,
        })
    }

    fn producer_options(&self) -> ProducerOptions {
        let arguments = self.arguments;
        ProducerOptions {
            linger: Duration::from_millis(arguments.linger_ms),
            max_batch_bytes: arguments.batch_bytes,
            buffer_bytes: arguments.buffer_bytes,
            max_in_flight: arguments.in_flight,
            compression: arguments.compression.into(),
            ..ProducerOptions::default()
        }
    }

    /// What the server of our own uses between the two ends of the window.
    async fn cpu_seconds_within(&self, clock: Clock, window: Range<u64>) -> Option<f64> {
        let own = self.own?;
        let until = |ns: u64| tokio::time::sleep_until((clock.0 + Duration::from_nanos(ns)).into());
        until(window.start).await;
        let before = own.cpu_seconds()?;
        until(window.end).await;
        Some(own.cpu_seconds()? - before)
    }
}

/// Says how far it is, until it is told to stop.
async fn tell(counters: Arc<Counters>, every_ms: u64) {
    let progress = Progress::new(every_ms);
    let mut ticks = tokio::time::interval(progress.every());
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let counts = Counts {
            acknowledged: counters.acknowledged.load(Ordering::Relaxed),
            sent: counters.sent.load(Ordering::Relaxed),
            rejected: 0,
        };
        progress.say(counts, None);
    }
}
