//! What stops the server.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::failure::Failure;

/// SIGTERM, SIGINT, and, where it was asked for, the end of standard input. They count from the moment this is made.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    input_ended: Arc<Notify>,
}

impl Stop {
    /// To be called within a runtime.
    pub(super) fn listen(until_stdin_ends: bool) -> Result<Stop, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new("io", format!("cannot listen to signals: {error}"), "")
        };
        let input_ended = Arc::new(Notify::new());
        if until_stdin_ends {
            let ended = Arc::clone(&input_ended);
            // A thread of its own, which nothing waits for: a read of standard input cannot be called off.
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                ended.notify_one();
            });
        }
        Ok(Stop {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            input_ended,
        })
    }

    /// Waits for one of them, and says which. Can be dropped and called again.
    pub(super) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = self.input_ended.notified() => "the end of standard input",
        }
    }
}
