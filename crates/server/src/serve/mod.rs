//! `mainstem serve`: a thin shell around the library. Configuration, listeners, lifecycle, telemetry.
//!
//! Up: configuration, logs, listeners bound (so that a port in use is told before anything is opened), the platform
//! opened and recovered, `endpoints.json` written, `ready` printed. Down, on SIGTERM or SIGINT: not ready any more,
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
use tokio::sync::watch;

/// How long calls under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until a signal.
pub fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let config = Config::resolve(arguments)?;
    logs::start(&config.log, config.log_format)?;
    let kafka_settings = mainstem_kafka::Settings::read(&config.options.broker)?;
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
    let signalled = network.block_on(async { Signals::listen() })?;
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
        let kafka = tokio::spawn(mainstem_kafka::serve(
            mainstem.clone(),
            listeners.kafka,
            kafka_settings,
            listeners::until(stopping.clone()),
        ));
        serving.store(true, Ordering::Release);
        ready.print();
        let name = signalled.wait().await;
        tracing::info!(signal = name, "stopping");
        serving.store(false, Ordering::Release);
        let _ = stop.send(true);
        let (grpc, kafka) = tokio::join!(
            tokio::time::timeout(GRACE, grpc),
            tokio::time::timeout(GRACE, kafka),
        );
        for (listener, is_cut_off) in [("grpc", grpc.is_err()), ("kafka", kafka.is_err())] {
            if is_cut_off {
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

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new("io", format!("cannot listen to signals: {error}"), "")
        };
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn wait(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
