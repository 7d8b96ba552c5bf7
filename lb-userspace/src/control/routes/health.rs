//! What checks have found, and what has happened.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::Answer;
use crate::control::Monitor;
use crate::control::error::ApiError;
use crate::control::proto::{Events, HealthReport, Refusal};
use crate::control::view;
use crate::suggest::closest;

/// Who asks for the next event is answered by then, with or without one: within what a request may take.
const WAIT_MAX_S: u32 = 25;

/// Which backends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct Whose {
    service: Option<String>,
    backend: Option<String>,
}

/// What is known of the backends that are checked.
#[utoipa::path(
    get,
    path = "/v1/health",
    params(
        ("service" = Option<String>, Query, description = "Of this service alone"),
        ("backend" = Option<String>, Query, description = "Of backends of this name alone")
    ),
    responses(
        (status = 200, body = HealthReport),
        (status = 400, body = Refusal),
        (status = 404, body = Refusal)
    )
)]
pub(in crate::control) async fn health(
    State(monitor): State<Monitor>,
    query: Result<Query<Whose>, QueryRejection>,
) -> Answer<HealthReport> {
    let Query(whose) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let matches =
        |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let now_ms = monitor.health.now().monotonic_ms;
    let board = monitor.health.board();
    if let Some(service) = &whose.service {
        let known = || board.roster().services.keys().map(String::as_str);
        if !known().any(|one| one == service) {
            let nearest = closest(service, known());
            let hint = nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("there is no service `{service}` with checks{hint}"),
            ));
        }
    }
    Ok(Json(view::health(&board, now_ms, |seat| {
        matches(&whose.service, &seat.service) && matches(&whose.backend, &seat.backend)
    })))
}

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct After {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_s: u32,
}

/// What has happened since an event.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(
        ("after" = Option<u64>, Query, description = "Events with a higher number than this; 0: all that are remembered"),
        ("wait_s" = Option<u32>, Query, description = "If there is none, wait so long for one, at most 25 s")
    ),
    responses((status = 200, body = Events), (status = 400, body = Refusal))
)]
pub(in crate::control) async fn events(
    State(monitor): State<Monitor>,
    query: Result<Query<After>, QueryRejection>,
) -> Answer<Events> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let wait = Duration::from_secs(query.wait_s.min(WAIT_MAX_S).into());
    // In time or not, the answer is what there is.
    let _timed_out = tokio::time::timeout(wait, monitor.events.wait_after(query.after)).await;
    Ok(Json(Events {
        events: monitor.events.after(query.after),
    }))
}
