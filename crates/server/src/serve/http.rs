//! Metrics and health over HTTP.
//!
//! `/health/live`: the process answers. `/health/ready`: it serves, and takes writes. `/metrics`: Prometheus.

use super::{listeners, metrics};
use axum::Router;
use axum::extract::State as Given;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mainstem::Mainstem;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// What the pages are made from.
#[derive(Clone)]
pub struct State {
    /// Between `ready` and the signal to stop.
    pub serving: Arc<AtomicBool>,
    /// There once recovery has ended.
    pub platform: Arc<OnceLock<Mainstem>>,
}

/// Answers until the server stops.
pub async fn serve(listener: TcpListener, state: State, stopping: watch::Receiver<bool>) {
    let pages = Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics_page))
        .with_state(state);
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "HTTP cannot be served");
            return;
        }
    };
    if let Err(error) = axum::serve(listener, pages)
        .with_graceful_shutdown(listeners::until(stopping))
        .await
    {
        tracing::error!(%error, "HTTP ended");
    }
}

async fn ready(Given(state): Given<State>) -> Response {
    let unavailable = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response();
    let Some(platform) = state.platform.get() else {
        return unavailable("recovering".into());
    };
    if !state.serving.load(Ordering::Acquire) {
        return unavailable("stopping".into());
    }
    match platform.status().poisoned {
        Some(why) => unavailable(format!("no writes: {why}")),
        None => "ready\n".into_response(),
    }
}

async fn metrics_page(Given(state): Given<State>) -> Response {
    let text = metrics::page(state.platform.get());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
