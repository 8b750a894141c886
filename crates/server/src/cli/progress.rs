//! Progress on standard error: one line that moves at a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What has become of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the client.
    pub sent: u64,
    /// Durable.
    pub acknowledged: u64,
    /// Broken rows that went to the rejects.
    pub rejected: u64,
}

/// Says how far a command is.
pub struct Progress {
    begun: Instant,
    every: Duration,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `every_ms` is the time between two plain lines; a terminal's line moves ten times a second.
    pub fn new(every_ms: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let every = if bar.is_some() {
            Duration::from_millis(100)
        } else {
            Duration::from_millis(every_ms.max(1))
        };
        Progress {
            begun: Instant::now(),
            every,
            bar,
        }
    }

    /// How often it wants to speak.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// The last word.
    pub fn done(self, counts: Counts) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => self.say(counts, None),
        }
    }

    /// Says how far it is, and why it does not go on.
    pub fn say(&self, counts: Counts, trouble: Option<&str>) {
        let mut text = self.line(counts);
        if let Some(trouble) = trouble {
            text += &format!(", waiting: {trouble}");
        }
        match &self.bar {
            Some(bar) => bar.set_message(text),
            // Nobody reading it is no reason to stop.
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn line(&self, counts: Counts) -> String {
        let Counts {
            sent,
            acknowledged,
            rejected,
        } = counts;
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 {
            acknowledged as f64 / seconds
        } else {
            0.0
        };
        let mut line =
            format!("{sent} sent, {acknowledged} acknowledged, {rate:.0} a second, {seconds:.1} s");
        if rejected > 0 {
            line += &format!(", {rejected} rejected");
        }
        line
    }
}
