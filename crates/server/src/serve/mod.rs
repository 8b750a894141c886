//! `mainstem serve`: a thin shell around the library. Configuration, listeners, lifecycle, telemetry.
//!
//! Up: configuration, logs, listeners bound (so that a port in use is told before anything is opened), the platform
//! opened and recovered, `endpoints.json` written, `ready` printed. Down, when told to stop: not ready any more,
//! no new calls, calls under way get a few seconds, the platform is stopped cleanly.

pub mod config;
mod http;
mod listeners;
mod logs;
mod memory;
mod metrics;
mod ready;

use crate::failure::Failure;
use config::{Config, ServeArguments};
use mainstem::Mainstem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// How long calls under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until a signal.
pub fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let config = Config::resolve(arguments)?;
    logs::start(&config.log, config.log_format)?;
    let listeners = listeners::bind(&config)?;
    let addresses = listeners.addresses()?;
    // Health answers from the start, so that a long recovery is seen as alive and not yet ready.
    let network = tokio::runtime::Builder::new_multi_thread()
        .thread_name("mainstem-net")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                "io",
                format!("cannot start threads: {error}"),
                "check the limits (`ulimit -u`)",
            )
        })?;
    let serving = Arc::new(AtomicBool::new(false));
    let platform = Arc::new(std::sync::OnceLock::new());
    let (stop, stopping) = watch::channel(false);
    // Signals count from here on: one that comes during recovery ends the server right after it.
    let told_to_stop = network.block_on(async { Stop::listen(config.until_stdin_ends) })?;
    let http = network.spawn(http::serve(
        listeners.http,
        http::State {
            serving: Arc::clone(&serving),
            platform: Arc::clone(&platform),
        },
        stopping.clone(),
    ));

    let mainstem = Mainstem::open(&config.data_dir, config.options)?;
    let _ = platform.set(mainstem.clone());
    let ready = ready::Ready::new(&mainstem, &addresses);
    ready.write_endpoints(&config.data_dir)?;

    let result = network.block_on(async {
        let grpc = tokio::spawn(mainstem_grpc::serve(
            mainstem.clone(),
            listeners.grpc,
            addresses.by_protocol(),
            listeners::until(stopping.clone()),
        ));
        serving.store(true, Ordering::Release);
        ready.print();
        let why = told_to_stop.wait().await;
        tracing::info!(why, "stopping");
        serving.store(false, Ordering::Release);
        let _ = stop.send(true);
        for (listener, task) in [(
            "grpc",
            tokio::time::timeout(GRACE, grpc)
                .await
                .map(|ended| ended.map(drop)),
        )] {
            if task.is_err() {
                tracing::warn!(listener, "calls under way were cut off");
            }
        }
        let _ = tokio::time::timeout(GRACE, http).await;
        Ok::<(), Failure>(())
    });
    // The network first: nobody asks a platform that is stopping.
    network.shutdown_timeout(Duration::from_secs(1));
    let stopped = mainstem.shutdown();
    ready::remove_endpoints(&config.data_dir);
    result?;
    stopped?;
    tracing::info!("stopped cleanly");
    Ok(())
}

/// What stops the server: SIGTERM, SIGINT, and, where it was asked for, the end of standard input.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    input_ended: oneshot::Receiver<()>,
}

impl Stop {
    fn listen(until_stdin_ends: bool) -> Result<Stop, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new("io", format!("cannot listen to signals: {error}"), "")
        };
        let (ended, input_ended) = oneshot::channel();
        if until_stdin_ends {
            // A thread of its own, which nothing waits for: a read of standard input cannot be called off.
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                let _ = ended.send(());
            });
        }
        Ok(Stop {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            input_ended,
        })
    }

    async fn wait(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            // Without anybody who would send it, it never comes.
            Ok(()) = &mut self.input_ended => "the end of standard input",
        }
    }
}
