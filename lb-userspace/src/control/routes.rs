//! One function for each path and method.

pub(super) mod health;
pub(super) mod lives;
pub(super) mod pair;
pub(super) mod plan;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::body::{JsonBody, Names};
use super::error::ApiError;
use super::journal::Told;
use super::proto::{
    Backend, BackendChange, Backends, Changed, NewBackend, NewService, Refusal, Service, Services,
    Stats, Status,
};
use super::{journal, read, view};
use crate::engine::EngineHandle;
use crate::engine::snapshot::{ServiceState, Snapshot};
use crate::model::draft::{BackendDraft, Field};
use crate::model::{self, Change, ModelError, backend_from, service_from};
use crate::suggest::closest;

type Answer<T> = Result<Json<T>, ApiError>;

/// A 201 with the path of what was created.
type Created = Result<(StatusCode, [(header::HeaderName, String); 1], Json<Changed>), ApiError>;

/// The state of the node: interfaces, maps, drops.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(engine): State<EngineHandle>) -> Answer<Status> {
    Ok(Json(view::status(&engine.snapshot().await?)))
}

/// All counters, read at one time.
#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = Stats)))]
pub(super) async fn stats(State(engine): State<EngineHandle>) -> Answer<Stats> {
    Ok(Json(view::stats(&engine.snapshot().await?)))
}

/// All services with their backends.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = Services)))]
pub(super) async fn list_services(State(engine): State<EngineHandle>) -> Answer<Services> {
    let snapshot = engine.snapshot().await?;
    let services = snapshot.services.iter().map(view::service).collect();
    Ok(Json(Services { services }))
}

/// One service with its backends.
#[utoipa::path(
    get,
    path = "/v1/services/{service}",
    params(("service" = String, Path, description = "The service's name")),
    responses((status = 200, body = Service), (status = 404, body = Refusal))
)]
pub(super) async fn show_service(
    State(engine): State<EngineHandle>,
    Names(service): Names<String>,
) -> Answer<Service> {
    let snapshot = engine.snapshot().await?;
    Ok(Json(view::service(find(&snapshot, &service)?)))
}

/// Adds a service.
#[utoipa::path(
    post,
    path = "/v1/services",
    request_body = NewService,
    responses(
        (status = 201, body = Changed),
        (status = 400, description = "A field makes no sense", body = Refusal),
        (status = 409, description = "Contradicts another service", body = Refusal),
        (status = 507, description = "A limit or a map is full", body = Refusal)
    )
)]
pub(super) async fn add_service(
    State(engine): State<EngineHandle>,
    JsonBody(new): JsonBody<NewService>,
) -> Created {
    let service = service_from(&read::service(new)?)?;
    let name = service.name.clone();
    let told = Told::service_added(&service);
    let warnings = journal::change(&engine, Change::AddService(service), told).await?;
    Ok(created(format!("/v1/services/{name}"), name, warnings))
}

/// Removes a service and its backends.
#[utoipa::path(
    delete,
    path = "/v1/services/{service}",
    params(("service" = String, Path, description = "The service's name")),
    responses((status = 200, body = Changed), (status = 404, body = Refusal))
)]
pub(super) async fn remove_service(
    State(engine): State<EngineHandle>,
    Names(service): Names<String>,
) -> Answer<Changed> {
    let told = Told::service_removed(&service);
    let change = Change::RemoveService {
        service: service.clone(),
    };
    let warnings = journal::change(&engine, change, told).await?;
    Ok(changed(service, warnings))
}

/// The backends of a service.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/backends",
    params(("service" = String, Path, description = "The service's name")),
    responses((status = 200, body = Backends), (status = 404, body = Refusal))
)]
pub(super) async fn list_backends(
    State(engine): State<EngineHandle>,
    Names(service): Names<String>,
) -> Answer<Backends> {
    let snapshot = engine.snapshot().await?;
    let state = find(&snapshot, &service)?;
    Ok(Json(Backends {
        backends: view::backends(state),
        leaving: view::leaving(state),
    }))
}

/// Adds a backend to a service.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/backends",
    params(("service" = String, Path, description = "The service's name")),
    request_body = NewBackend,
    responses(
        (status = 201, body = Changed),
        (status = 400, description = "A field makes no sense", body = Refusal),
        (status = 404, body = Refusal),
        (status = 409, description = "Contradicts another backend", body = Refusal),
        (status = 507, description = "A limit or a map is full", body = Refusal)
    )
)]
pub(super) async fn add_backend(
    State(engine): State<EngineHandle>,
    Names(service): Names<String>,
    JsonBody(new): JsonBody<NewBackend>,
) -> Created {
    let snapshot = engine.snapshot().await?;
    let known = &find(&snapshot, &service)?.service;
    let backend = backend_from(known, read::backend(new)?)?;
    let name = backend.name.clone();
    let path = format!("/v1/services/{service}/backends/{name}");
    let told = Told::backend_added(&service, &backend);
    let change = Change::AddBackend { service, backend };
    let warnings = journal::change(&engine, change, told).await?;
    Ok(created(path, name, warnings))
}

/// One backend of a service.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/backends/{backend}",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    responses((status = 200, body = Backend), (status = 404, body = Refusal))
)]
pub(super) async fn show_backend(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
) -> Answer<Backend> {
    let snapshot = engine.snapshot().await?;
    let state = find(&snapshot, &service)?;
    state.service.backend(&backend)?;
    let shown = view::backends(state)
        .into_iter()
        .find(|shown| shown.name == backend);
    shown.map(Json).ok_or_else(|| unapplied(&service, &backend))
}

/// Changes the weight of a backend.
#[utoipa::path(
    patch,
    path = "/v1/services/{service}/backends/{backend}",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    request_body = BackendChange,
    responses(
        (status = 200, body = Changed),
        (status = 400, description = "The weight makes no sense", body = Refusal),
        (status = 404, body = Refusal)
    )
)]
pub(super) async fn set_backend(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
    JsonBody(change): JsonBody<BackendChange>,
) -> Answer<Changed> {
    let snapshot = engine.snapshot().await?;
    let known = &find(&snapshot, &service)?.service;
    let before = known.backend(&backend)?;
    let weight = reweighted(known, before, change.weight)?;
    let told = Told::backend_weighted(&service, before, weight);
    let change = Change::SetBackendWeight {
        service,
        backend: backend.clone(),
        weight,
    };
    let warnings = journal::change(&engine, change, told).await?;
    Ok(changed(backend, warnings))
}

/// Removes a backend.
#[utoipa::path(
    delete,
    path = "/v1/services/{service}/backends/{backend}",
    params(
        ("service" = String, Path, description = "The service's name"),
        ("backend" = String, Path, description = "The backend's name")
    ),
    responses((status = 200, body = Changed), (status = 404, body = Refusal))
)]
pub(super) async fn remove_backend(
    State(engine): State<EngineHandle>,
    Names((service, backend)): Names<(String, String)>,
) -> Answer<Changed> {
    let told = Told::backend_removed(&service, &backend);
    let change = Change::RemoveBackend {
        service,
        backend: backend.clone(),
    };
    let warnings = journal::change(&engine, change, told).await?;
    Ok(changed(backend, warnings))
}

/// A path that is not there.
pub(super) async fn no_such_path() -> impl IntoResponse {
    let message = "there is no such path; /openapi.json lists those that exist";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// A path that is there, with another method.
pub(super) async fn no_such_method() -> impl IntoResponse {
    let message = "this path has other methods; /openapi.json lists them";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}

fn find<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s ServiceState, ModelError> {
    let found = snapshot
        .services
        .iter()
        .find(|state| state.service.name == name);
    found.ok_or_else(|| {
        let names = snapshot
            .services
            .iter()
            .map(|state| state.service.name.as_str());
        ModelError::NoService {
            name: name.to_owned(),
            known: closest(name, names).map(str::to_owned),
        }
    })
}

/// A new weight of a backend, checked.
fn reweighted(
    service: &model::Service,
    backend: &model::Backend,
    weight: i64,
) -> Result<u32, ModelError> {
    let draft = BackendDraft {
        weight: Field::Given(weight),
        ..BackendDraft::from(backend)
    };
    Ok(backend_from(service, draft)?.weight)
}

/// A backend of the model that the engine reports no state for.
fn unapplied(service: &str, backend: &str) -> ApiError {
    let message = format!("service `{service}`, backend `{backend}`: not in force yet");
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

fn changed(name: String, warnings: Vec<String>) -> Json<Changed> {
    Json(Changed { name, warnings })
}

fn created(
    path: String,
    name: String,
    warnings: Vec<String>,
) -> (StatusCode, [(header::HeaderName, String); 1], Json<Changed>) {
    let location = [(header::LOCATION, path)];
    (StatusCode::CREATED, location, changed(name, warnings))
}
