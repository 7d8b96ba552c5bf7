use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::proto::{self, ErrorBody, Refusal};
use crate::engine::EngineError;
use crate::model::{Kind, ModelError, Problem};

/// A refusal on its way to the client.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
        }
    }

    /// The request, or its answer, did not come in time.
    pub(super) fn timed_out(patience: Duration) -> Self {
        let message = format!(
            "there was no answer after {} s; a change may be made all the same: look before trying again",
            patience.as_secs()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, proto::TIMED_OUT, message)
    }

    /// A request that makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// A field of the request that makes no sense.
    pub(super) fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(name.into()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid", message)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorBody {
            code: self.code.to_owned(),
            message: self.message,
            field: self.field,
        };
        (self.status, Json(Refusal { error })).into_response()
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let message = error.to_string();
        match error {
            ModelError::NoService { .. }
            | ModelError::NoBackend { .. }
            | ModelError::NoBackendAnywhere { .. } => {
                Self::new(StatusCode::NOT_FOUND, "not_found", message)
            }
            ModelError::Problems(problems) => Self::from_problems(&problems, message),
        }
    }
}

impl ApiError {
    /// The first problem decides status, code and field; the message names them all.
    fn from_problems(problems: &[Problem], message: String) -> Self {
        let first = problems.first();
        let (status, code) = match first.map(|problem| problem.kind) {
            Some(Kind::Conflict) => (StatusCode::CONFLICT, "conflict"),
            Some(Kind::Full) => (StatusCode::INSUFFICIENT_STORAGE, "limit_reached"),
            Some(Kind::Invalid | Kind::Warning) | None => (StatusCode::BAD_REQUEST, "invalid"),
        };
        let key = first.filter(|problem| problem.kind != Kind::Full);
        Self {
            field: key.and_then(|problem| problem.place.key).map(field_of),
            ..Self::new(status, code, message)
        }
    }
}

/// The request's field for a key of the config file.
fn field_of(key: &str) -> String {
    match key {
        "idle_timeout" => "idle_timeout_s".to_owned(),
        "slow_start" => "slow_start_s".to_owned(),
        key => key.to_owned(),
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            EngineError::Model(error) => return error.into(),
            EngineError::MapFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "map_full"),
            EngineError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            EngineError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Self::new(status, code, message)
    }
}
