//! Taking requests apart, with refusals in the API's own form.

use std::fmt::Display;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Path, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use lb_common::limits::NAME_LEN_MAX;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Largest request body: a service with its 2,048 backends at ~100 bytes each. Unit: bytes.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// Largest request body with a config file: some ten thousand backends. Unit: bytes.
pub(super) const CONFIG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A JSON body. The content type is not asked for: the socket is no place for browsers, and curl
/// sends another one by default.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        read_json(&bytes).map(Self)
    }
}

fn unread(rejection: BytesRejection) -> ApiError {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let message = format!(
                "the request body is too large: at most {BODY_BYTES_MAX} bytes, or \
                 {CONFIG_BYTES_MAX} with a config file"
            );
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        }
        other => {
            let message = format!("the request body cannot be read: {other}");
            ApiError::new(StatusCode::BAD_REQUEST, "invalid", message)
        }
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let message = format!("the request body is not as it should be: {}", error.inner());
        match path.as_str() {
            "." | "?" => ApiError::new(StatusCode::BAD_REQUEST, "invalid", message),
            _ => ApiError::field(path, message),
        }
    })?;
    json.end().map_err(|error| {
        let message = format!("the request body goes on after the JSON value: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid", message)
    })?;
    Ok(read)
}

/// The names in the path.
pub(super) struct Names<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(unreadable)?;
        require_short(&segments)?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(names) = path.map_err(unreadable)?;
        Ok(Self(names))
    }
}

fn unreadable(rejection: impl Display) -> ApiError {
    let message = format!("the path cannot be read: {rejection}");
    ApiError::new(StatusCode::BAD_REQUEST, "invalid", message)
}

/// What is too long for a name is not looked for.
fn require_short(segments: &RawPathParams) -> Result<(), ApiError> {
    let too_long = segments.iter().find(|(_, name)| name.len() > NAME_LEN_MAX);
    match too_long {
        None => Ok(()),
        Some((noun, name)) => Err(ApiError::field(
            noun,
            format!(
                "the {noun}'s name in the path has {} bytes, and a name has at most {NAME_LEN_MAX}",
                name.len()
            ),
        )),
    }
}
