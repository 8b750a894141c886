//! The signals that end a server.

use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Keeps every signal from here on for [`Signals::wait`]. Needs a tokio runtime.
    pub fn listen() -> Result<Signals, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new("io", format!("cannot listen to signals: {error}"), "")
        };
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Waits for the first, and gives its name.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
