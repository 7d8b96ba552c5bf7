//! Requests → drafts of the model.

use super::error::ApiError;
use super::proto::{NewBackend, NewService};
use crate::model::draft::{BackendDraft, Field, PoliciesDraft, ServiceDraft};
use crate::model::{Keyword, text};

/// A service as it was asked for. Whether it makes sense is for the rules to say.
pub(super) fn service(new: NewService) -> Result<ServiceDraft, ApiError> {
    let backends = new.backends.into_iter().map(backend);
    Ok(ServiceDraft {
        name: Field::Given(new.name),
        vip: Field::Given(address("vip", &new.vip)?),
        port: Field::Given(new.port),
        protocol: keyword(new.protocol)?,
        scheduler: keyword(new.scheduler)?,
        forward: keyword(new.forward)?,
        idle_timeout_s: new.idle_timeout_s.into(),
        ring_slots: new.ring_slots.into(),
        policies: PoliciesDraft {
            flow: keyword(new.flow)?,
            slow_start_s: new.slow_start_s.into(),
            on_down: keyword(new.on_down)?,
            on_remove: keyword(new.on_remove)?,
            on_all_down: keyword(new.on_all_down)?,
        },
        backends: backends.collect::<Result<_, _>>()?,
        ..ServiceDraft::default()
    })
}

/// A backend as it was asked for.
pub(super) fn backend(new: NewBackend) -> Result<BackendDraft, ApiError> {
    Ok(BackendDraft {
        name: new.name.into(),
        address: Field::Given(address("address", &new.address)?),
        port: new.port.into(),
        weight: new.weight.into(),
        backup: new.backup.into(),
        ..BackendDraft::default()
    })
}

/// The word in the field `state`.
pub(super) fn state<K: Keyword>(word: &str) -> Result<K, ApiError> {
    K::from_word(word).map_err(|unknown| {
        let message = format!("{unknown} ({})", unknown.help());
        ApiError::field("state", message)
    })
}

fn address(field: &str, written: &str) -> Result<std::net::IpAddr, ApiError> {
    text::address(written)
        .map_err(|error| ApiError::field(field, format!("{} ({})", error.message, error.help)))
}

fn keyword<K: Keyword>(word: Option<String>) -> Result<Field<K>, ApiError> {
    let Some(word) = word else {
        return Ok(Field::Absent);
    };
    match K::from_word(&word) {
        Ok(value) => Ok(Field::Given(value)),
        Err(unknown) => {
            let message = format!("{unknown} ({})", unknown.help());
            Err(ApiError::field(K::KEY, message))
        }
    }
}
