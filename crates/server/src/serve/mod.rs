//! `mainstem serve`: a thin shell around the library. Configuration, listeners, lifecycle, telemetry.
//!
//! Up: configuration, logs, listeners bound (so that a port in use is told before anything is opened), the platform
//! opened and recovered, `endpoints.json` written, `ready` printed. Down, when told to stop: not ready any more,
//! no new calls, calls under way get a few seconds, the platform is stopped cleanly. Where writes have stopped because a
//! disk was full, it goes down and up again by itself as soon as there is space, with its sockets held open.

pub mod config;
mod http;
mod listeners;
mod logs;
mod memory;
mod metrics;
mod ready;
mod stop;

use crate::failure::Failure;
use config::{Config, ServeArguments};
use listeners::{Addresses, Listeners};
use mainstem::Mainstem;
use ready::Ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stop::Stop;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long calls under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// How often a server whose writes have stopped looks for space, and tries again to open its directory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves until a signal.
pub fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let config = Config::resolve(arguments)?;
    logs::start(&config.log, config.log_format)?;
    let kafka = mainstem_kafka::Settings::read(&config.options.broker)?;
    let listeners = listeners::bind(&config)?;
    let addresses = listeners.addresses()?;
    // Told before anything is opened.
    let data_dir = config.data_dir.display().to_string();
    let kafka = kafka.serving(addresses.kafka, &data_dir)?;
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| no_threads(&error))?;
    // Signals count from here on: one that comes during recovery ends the server right after it.
    let stop = waiting.block_on(async { Stop::listen(config.until_stdin_ends) })?;
    let mut server = Server {
        config,
        kafka,
        listeners,
        addresses,
        waiting,
        stop,
        is_announced: false,
    };
    while let End::SpaceIsBack = server.serve()? {
        tracing::info!("there is space again: opening the data directory again");
    }
    tracing::info!("stopped cleanly");
    Ok(())
}

/// What stays while the data directory is opened, closed and opened again.
struct Server {
    config: Config,
    kafka: mainstem_kafka::Settings,
    listeners: Listeners,
    addresses: Addresses,
    /// Waits for being told to stop and for space.
    waiting: Runtime,
    stop: Stop,
    /// `ready` is said once.
    is_announced: bool,
}

/// Why the platform was stopped.
enum End {
    Stopped,
    SpaceIsBack,
}

impl Server {
    /// Opens the data directory and serves until there is a reason to close it, which is done.
    fn serve(&mut self) -> Result<End, Failure> {
        // Ends with the platform, and with it everything that a call under way holds of it. Health answers from the
        // start, so that a long recovery is seen as alive and not yet ready.
        let network = tokio::runtime::Builder::new_multi_thread()
            .thread_name("mainstem-net")
            .enable_all()
            .build()
            .map_err(|error| no_threads(&error))?;
        let listeners = self.listeners.again()?;
        let serving = Arc::new(AtomicBool::new(false));
        let platform = Arc::new(OnceLock::new());
        let (stop, stopping) = watch::channel(false);
        let state = http::State {
            serving: Arc::clone(&serving),
            platform: Arc::clone(&platform),
        };
        let http = network.spawn(http::serve(listeners.http, state, stopping.clone()));

        let Some(mainstem) = self.open()? else {
            return Ok(End::Stopped);
        };
        let _ = platform.set(mainstem.clone());
        let ready = Ready::new(&mainstem, &self.addresses);
        ready.write_endpoints(&self.config.data_dir)?;
        let grpc = network.spawn(mainstem_grpc::serve(
            mainstem.clone(),
            listeners.grpc,
            self.addresses.by_protocol(),
            listeners::until(stopping.clone()),
        ));
        let kafka = network.spawn(mainstem_kafka::serve(
            mainstem.clone(),
            listeners.kafka,
            self.kafka.clone(),
            listeners::until(stopping),
        ));
        serving.store(true, Ordering::Release);
        if !std::mem::replace(&mut self.is_announced, true) {
            ready.print();
        }
        let end = self.waiting.block_on(async {
            let end = tokio::select! {
                why = self.stop.wait() => {
                    tracing::info!(why, "stopping");
                    End::Stopped
                }
                () = space_is_back(&mainstem) => End::SpaceIsBack,
            };
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
            end
        });
        // The network first: nobody asks a platform that is stopping.
        network.shutdown_timeout(Duration::from_secs(1));
        // Returns when every thread has ended, and so every write has returned.
        let stopped = mainstem.shutdown();
        if let End::Stopped = end {
            ready::remove_endpoints(&self.config.data_dir);
            // That writes had stopped is why it is opened again, and otherwise worth telling.
            stopped?;
        }
        Ok(end)
    }

    /// Opens the data directory. Where it was open before, and the space is gone again or somebody's last call still
    /// holds the old platform, that is waited for; nothing if the server is told to stop meanwhile.
    fn open(&mut self) -> Result<Option<Mainstem>, Failure> {
        loop {
            match Mainstem::open(&self.config.data_dir, self.config.options.clone()) {
                Ok(mainstem) => return Ok(Some(mainstem)),
                Err(error) if self.is_announced && (error.is_full() || error.is_in_use()) => {
                    tracing::warn!(%error, "the data directory cannot be opened yet");
                    let told_to_stop = self.waiting.block_on(async {
                        tokio::time::timeout(LOOK_EVERY, self.stop.wait()).await
                    });
                    if told_to_stop.is_ok() {
                        ready::remove_endpoints(&self.config.data_dir);
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Resolves once writes have stopped for want of space, and there is space again.
async fn space_is_back(mainstem: &Mainstem) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if mainstem.has_space_again() {
            return;
        }
    }
}

fn no_threads(error: &std::io::Error) -> Failure {
    Failure::new(
        "io",
        format!("cannot start threads: {error}"),
        "check the limits (`ulimit -u`)",
    )
}
