//! Metrics for Prometheus, and two questions for whoever watches the daemon: `/livez` and `/readyz`.

mod backends;
mod checks;
mod collect;
mod daemon;
mod families;
mod flows;
mod haproxy;
mod pair;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::control::Monitor;
use crate::engine::EngineHandle;

/// The format of [`collect`]'s text.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What answers are made from.
#[derive(Clone, Debug)]
struct Source {
    engine: EngineHandle,
    monitor: Monitor,
    has_haproxy_names: bool,
}

/// The listener. Dropping it ends it.
#[derive(Debug)]
pub struct Listener {
    task: JoinHandle<std::io::Result<()>>,
}

impl Listener {
    /// Answers on `address` from now on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(
        address: SocketAddr,
        has_haproxy_names: bool,
        engine: EngineHandle,
        monitor: Monitor,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} (metrics.listen)"))?;
        let source = Source {
            engine,
            monitor,
            has_haproxy_names,
        };
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .with_state(source);
        Ok(Self {
            task: tokio::spawn(async move { axum::serve(listener, router).await }),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn metrics(State(source): State<Source>) -> Result<impl IntoResponse, (StatusCode, String)> {
    let text = tokio::time::timeout(TIMEOUT, collect::collect(&source)).await;
    let text = text.map_err(|_| unavailable("lbd does not answer"))?;
    let text = text.map_err(|error| unavailable(&error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

/// Whether packets are steered: the engine answers, and every interface is attached.
async fn ready(State(source): State<Source>) -> Result<&'static str, (StatusCode, String)> {
    let snapshot = tokio::time::timeout(TIMEOUT, source.engine.snapshot()).await;
    let snapshot = snapshot.map_err(|_| unavailable("lbd does not answer"))?;
    let snapshot = snapshot.map_err(|error| unavailable(&error.to_string()))?;
    let mut missing = snapshot
        .interfaces
        .iter()
        .filter(|one| one.attached.is_none());
    match missing.next() {
        None => Ok("ready\n"),
        Some(one) => {
            let reason = one.reason.as_deref().unwrap_or("not attached");
            let name = &one.interface.name;
            Err(unavailable(&format!("interface {name}: {reason}")))
        }
    }
}

fn unavailable(reason: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}
