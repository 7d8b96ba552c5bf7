//! Admin state and health of backends, flows, rings.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::{Answer, changed, find};
use crate::control::body::{JsonBody, Names};
use crate::control::error::ApiError;
use crate::control::journal::{self, Told};
use crate::control::proto::{
    Admin, AdminChange, Changed, Flows, Health, HealthChange, Refusal, Ring,
};
use crate::control::{read, view};
use crate::engine::EngineHandle;
use crate::engine::views::FlowQuery;
use crate::model::{Change, Keyword, Urgency};

/// Flows listed unless asked otherwise.
const FLOWS_LISTED: i64 = 1_000;

/// Flows listed at most: an answer of some 20 MiB.
const FLOWS_LISTED_MAX: i64 = 100_000;

/// The admin state of a backend, and the flows that it still has.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/backends/{backend}/admin",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    responses((status = 200, body = Admin), (status = 404, body = Refusal))
)]
pub(in crate::control) async fn show_admin(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
) -> Answer<Admin> {
    Ok(Json(view::admin(&engine.drain(service, backend).await?)))
}

/// Takes a backend out of service, or puts it back.
#[utoipa::path(
    put,
    path = "/v1/services/{service}/backends/{backend}/admin",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    request_body = AdminChange,
    responses(
        (status = 200, body = Changed),
        (status = 400, description = "There is no such state", body = Refusal),
        (status = 404, body = Refusal)
    )
)]
pub(in crate::control) async fn set_admin(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
    JsonBody(change): JsonBody<AdminChange>,
) -> Answer<Changed> {
    let admin = read::state(&change.state)?;
    let urgency = urgency(&change);
    let snapshot = engine.snapshot().await?;
    let before = find(&snapshot, &service)?.service.backend(&backend)?;
    let told = Told::backend_admin(&service, before, admin, urgency);
    let change = Change::SetBackendAdmin {
        service,
        backend: backend.clone(),
        admin,
        urgency,
    };
    let warnings = journal::change(&engine, change, told).await?;
    Ok(changed(backend, warnings))
}

fn urgency(change: &AdminChange) -> Urgency {
    if change.strict {
        Urgency::Immediate
    } else {
        Urgency::Planned
    }
}

/// Whether a backend answers, as far as is known.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/backends/{backend}/health",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    responses((status = 200, body = Health), (status = 404, body = Refusal))
)]
pub(in crate::control) async fn show_health(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
) -> Answer<Health> {
    let snapshot = engine.snapshot().await?;
    let backend = find(&snapshot, &service)?.service.backend(&backend)?;
    Ok(Json(Health {
        state: backend.health.word().to_owned(),
    }))
}

/// Says whether a backend answers: for checkers outside of `lbd`.
#[utoipa::path(
    put,
    path = "/v1/services/{service}/backends/{backend}/health",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    request_body = HealthChange,
    responses(
        (status = 200, body = Changed),
        (status = 400, description = "There is no such state", body = Refusal),
        (status = 404, body = Refusal)
    )
)]
pub(in crate::control) async fn set_health(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
    JsonBody(change): JsonBody<HealthChange>,
) -> Answer<Changed> {
    let health = read::state(&change.state)?;
    let snapshot = engine.snapshot().await?;
    let before = find(&snapshot, &service)?.service.backend(&backend)?;
    if !find(&snapshot, &service)?
        .service
        .checks_of(before)
        .is_empty()
    {
        return Err(ApiError::invalid(format!(
            "backend `{backend}` of service `{service}` has checks, and they say whether it answers; `lbctl \
             backend drain` or `maint` takes it out of service"
        )));
    }
    let told = Told::backend_health(&service, before, health);
    let change = Change::SetBackendHealth {
        service,
        backend: backend.clone(),
        health,
    };
    let warnings = journal::change(&engine, change, told).await?;
    Ok(changed(backend, warnings))
}

/// A service's ring: shares, and slots in transition.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/ring",
    params(("service" = String, Path, description = "The service's name")),
    responses((status = 200, body = Ring), (status = 404, body = Refusal))
)]
pub(in crate::control) async fn show_ring(
    State(engine): State<EngineHandle>,
    Names(service): Names<String>,
) -> Answer<Ring> {
    Ok(Json(view::ring(&engine.ring(service).await?)))
}

/// Which flows.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct FlowParams {
    /// Of this service alone.
    service: Option<String>,
    /// Of backends of this name alone.
    backend: Option<String>,
    /// Flows to list, 0 to 100000, 1000 by default; all are counted.
    limit: Option<i64>,
}

/// Live flows on record.
#[utoipa::path(
    get,
    path = "/v1/flows",
    params(FlowParams),
    responses(
        (status = 200, body = Flows),
        (status = 400, description = "A parameter makes no sense", body = Refusal),
        (status = 404, description = "No such service or backend", body = Refusal)
    )
)]
pub(in crate::control) async fn list_flows(
    State(engine): State<EngineHandle>,
    params: Result<Query<FlowParams>, QueryRejection>,
) -> Answer<Flows> {
    let Query(params) = params.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let query = FlowQuery {
        service: params.service,
        backend: params.backend,
        limit: limit(params.limit)?,
    };
    Ok(Json(view::flows(&engine.flows(query).await?)))
}

fn limit(limit: Option<i64>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(FLOWS_LISTED);
    let in_range = usize::try_from(limit)
        .ok()
        .filter(|_| limit <= FLOWS_LISTED_MAX);
    in_range.ok_or_else(|| {
        let message = format!("limit {limit} is not in 0 to {FLOWS_LISTED_MAX}");
        ApiError::field("limit", message)
    })
}
