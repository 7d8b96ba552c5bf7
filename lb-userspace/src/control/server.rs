//! The server's end of the socket.

use std::future::Future;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::UnixListener;
use utoipa::OpenApi;

use super::Monitor;
use super::body::{BODY_BYTES_MAX, CONFIG_BYTES_MAX};
use super::connections::{self, Bounds};
use super::datapath;
use super::openapi::Document;
use super::routes::pair::Node;
use super::routes::{self, health, lives, pair, plan};
use crate::engine::EngineHandle;

/// All paths.
pub(super) fn router(engine: EngineHandle, monitor: Monitor) -> Router {
    let openapi = get(async || Json(Document::openapi()));
    let monitored = Router::new()
        .route("/v1/health", get(health::health))
        .route("/v1/events", get(health::events))
        .method_not_allowed_fallback(routes::no_such_method)
        .with_state(monitor.clone());
    let paired = Router::new()
        .route("/v1/vips", get(pair::vips))
        .route("/v1/vips/{group}/failover", post(pair::failover))
        .route("/v1/peers", get(pair::peers))
        .route("/v1/datapath/detach", post(datapath::detach))
        .method_not_allowed_fallback(routes::no_such_method)
        .with_state(Node {
            engine: engine.clone(),
            monitor,
        });
    Router::new()
        .route("/openapi.json", openapi)
        .route("/v1/status", get(routes::status))
        .route("/v1/stats", get(routes::stats))
        .route(
            "/v1/services",
            get(routes::list_services).post(routes::add_service),
        )
        .route(
            "/v1/services/{service}",
            get(routes::show_service).delete(routes::remove_service),
        )
        .route(
            "/v1/services/{service}/backends",
            get(routes::list_backends).post(routes::add_backend),
        )
        .route(
            "/v1/services/{service}/backends/{backend}",
            get(routes::show_backend)
                .patch(routes::set_backend)
                .delete(routes::remove_backend),
        )
        .route(
            "/v1/services/{service}/backends/{backend}/admin",
            get(lives::show_admin).put(lives::set_admin),
        )
        .route(
            "/v1/services/{service}/backends/{backend}/health",
            get(lives::show_health).put(lives::set_health),
        )
        .route("/v1/services/{service}/ring", get(lives::show_ring))
        .route("/v1/flows", get(lives::list_flows))
        .route("/v1/plan", post(plan::plan))
        .route(
            "/v1/config/diff",
            post(plan::config_diff).layer(DefaultBodyLimit::max(CONFIG_BYTES_MAX)),
        )
        .fallback(routes::no_such_path)
        .method_not_allowed_fallback(routes::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(engine)
        .merge(monitored)
        .merge(paired)
}

/// Serves the API until `stop` completes and the requests under way are answered. Whoever drops the
/// future cuts them off.
pub async fn serve(
    listener: UnixListener,
    engine: EngineHandle,
    monitor: Monitor,
    stop: impl Future<Output = ()>,
) {
    connections::serve(listener, router(engine, monitor), Bounds::default(), stop).await;
}
