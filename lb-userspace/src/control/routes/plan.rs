//! What changes would do.

use axum::Json;
use axum::extract::State;

use super::{Answer, find, reweighted};
use crate::config::{self, Overrides};
use crate::control::body::JsonBody;
use crate::control::error::ApiError;
use crate::control::proto::{ConfigFile, Plan, PlanRequest, Refusal};
use crate::control::{read, view};
use crate::engine::EngineHandle;
use crate::engine::snapshot::Snapshot;
use crate::engine::views::PlanQuery;
use crate::model::diff::group_differences;
use crate::model::{Change, Urgency, backend_from, service_from};

/// Tells what a change would do, and makes none.
#[utoipa::path(
    post,
    path = "/v1/plan",
    request_body = PlanRequest,
    responses(
        (status = 200, body = Plan),
        (status = 400, description = "The change makes no sense", body = Refusal),
        (status = 404, description = "No such service or backend", body = Refusal),
        (status = 409, description = "The change would be refused", body = Refusal),
        (status = 507, description = "The change would be refused", body = Refusal)
    )
)]
pub(in crate::control) async fn plan(
    State(engine): State<EngineHandle>,
    JsonBody(request): JsonBody<PlanRequest>,
) -> Answer<Plan> {
    let snapshot = engine.snapshot().await?;
    let change = change(&snapshot, request)?;
    let view = engine.plan(PlanQuery::Change(change)).await?;
    Ok(Json(view::plan(view)))
}

fn change(snapshot: &Snapshot, request: PlanRequest) -> Result<Change, ApiError> {
    Ok(match request {
        PlanRequest::AddService { service } => {
            Change::AddService(service_from(&read::service(service)?)?)
        }
        PlanRequest::RemoveService { service } => Change::RemoveService { service },
        PlanRequest::AddBackend { service, backend } => {
            let known = &find(snapshot, &service)?.service;
            let backend = backend_from(known, read::backend(backend)?)?;
            Change::AddBackend { service, backend }
        }
        PlanRequest::RemoveBackend { service, backend } => {
            Change::RemoveBackend { service, backend }
        }
        PlanRequest::SetWeight {
            service,
            backend,
            weight,
        } => {
            let known = &find(snapshot, &service)?.service;
            let weight = reweighted(known, known.backend(&backend)?, weight)?;
            Change::SetBackendWeight {
                service,
                backend,
                weight,
            }
        }
        PlanRequest::SetAdmin {
            service,
            backend,
            state,
            strict,
        } => Change::SetBackendAdmin {
            service,
            backend,
            admin: read::state(&state)?,
            urgency: if strict {
                Urgency::Immediate
            } else {
                Urgency::Planned
            },
        },
        PlanRequest::SetHealth {
            service,
            backend,
            state,
        } => Change::SetBackendHealth {
            service,
            backend,
            health: read::state(&state)?,
        },
    })
}

/// Tells what a reload of a config file would do.
#[utoipa::path(
    post,
    path = "/v1/config/diff",
    request_body = ConfigFile,
    responses(
        (status = 200, body = Plan),
        (status = 400, description = "The file has mistakes", body = Refusal)
    )
)]
pub(in crate::control) async fn config_diff(
    State(engine): State<EngineHandle>,
    JsonBody(file): JsonBody<ConfigFile>,
) -> Answer<Plan> {
    let snapshot = engine.snapshot().await?;
    let (overrides, unnamed) = overrides(&file, &snapshot);
    let loaded = config::parse(&file.name, &file.text, &overrides)
        .map_err(|report| ApiError::field("text", report.to_string()))?;
    let groups = group_differences(&snapshot.vrrp, &loaded.model.vrrp);
    let view = engine.plan(PlanQuery::Replace(loaded.model)).await?;
    let mut plan = view::plan(view);
    plan.changes.extend(groups);
    plan.warnings.extend(loaded.warnings.lines());
    plan.warnings.extend(unnamed.iter().map(|name| {
        format!("{name} is in force and not in the file: it stays as long as lbd is started with --iface {name}")
    }));
    Ok(Json(plan))
}

/// What comes from outside of the file: the node's name if it has none, and interfaces of the command
/// line, which are those that the file does not name.
fn overrides(file: &ConfigFile, snapshot: &Snapshot) -> (Overrides, Vec<String>) {
    let mut overrides = Overrides {
        interfaces: Vec::new(),
        node: snapshot.node.clone(),
    };
    let Ok(loaded) = config::parse(&file.name, &file.text, &overrides) else {
        return (overrides, Vec::new());
    };
    let named = |name: &String| loaded.model.interfaces.iter().any(|one| one.name == *name);
    let in_force = snapshot.interfaces.iter().map(|one| &one.interface.name);
    let unnamed: Vec<String> = in_force.filter(|name| !named(name)).cloned().collect();
    overrides.interfaces = unnamed.clone();
    (overrides, unnamed)
}
